//! A token server, as registries with bearer authentication send their clients to.
//!
//! It gives JSON web tokens, signed by a key that it makes for itself; docker-registry verifies them
//! with the certificate. See the distribution project's "Token Authentication Specification".

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::{
    http::{self, Answer, Request},
    peers,
    scratch::{self, Scratch},
};

/// A token server that runs.
#[derive(Debug)]
pub struct Tokens {
    port: u16,
    given: Arc<AtomicUsize>,
    key: Arc<Key>,
}

impl Tokens {
    /// The service that tokens are for.
    pub const SERVICE: &str = "registry.test";
    /// Who gives them.
    pub const ISSUER: &str = "tokens.test";

    /// Starts one that gives a token for all that is asked to whoever has this password.
    pub fn start(user: &str, password: &str) -> Self {
        let key = Arc::new(Key::new());
        let given = Arc::new(AtomicUsize::new(0));
        let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let (signer, counter) = (Arc::clone(&key), Arc::clone(&given));
        let port = http::serve(move |request| {
            if request.header("authorization") != Some(&wanted) {
                return Answer::of(401, r#"{"details": "who are you?"}"#);
            }
            counter.fetch_add(1, Ordering::Relaxed);
            let token = signer.sign(&claims(request));
            Answer::of(200, json!({"token": token, "expires_in": 300}).to_string())
                .with("Content-Type", "application/json")
        });
        Self { port, given, key }
    }

    /// Where clients are sent.
    pub fn realm(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// The certificate that a registry verifies tokens with.
    pub fn certificate(&self) -> PathBuf {
        self.key.dir.join("cert.pem")
    }

    /// How many tokens were given.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Key {
    dir: Scratch,
    /// The certificate as the header `x5c` wants it: DER, in base64.
    certificate: String,
}

impl Key {
    fn new() -> Self {
        let dir = Scratch::new();
        let [key, cert] = ["key.pem", "cert.pem"].map(|it| dir.join(it).display().to_string());
        let make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens.test";
        let args: Vec<_> = make.split(' ').chain(["-keyout", &key, "-out", &cert]).collect();
        peers::run("openssl", "openssl", &args);
        let pem = std::fs::read_to_string(&cert).expect("certificate");
        let certificate = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Self { dir, certificate }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let encode = |it: &Value| BASE64_URL_SAFE_NO_PAD.encode(it.to_string());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.signature(&text));
        format!("{text}.{signature}")
    }

    fn signature(&self, text: &str) -> Vec<u8> {
        // A folder of its own, since tokens are asked for at the same time.
        let dir = Scratch::new();
        scratch::write(&dir.join("text"), text);
        let output = Command::new(peers::need("openssl", "openssl"))
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.dir.join("key.pem"))
            .arg(dir.join("text"))
            .stderr(Stdio::inherit())
            .output()
            .expect("openssl that starts");
        assert!(output.status.success(), "openssl does not sign");
        output.stdout
    }
}

/// What the token says: all that was asked for.
fn claims(request: &Request) -> Value {
    let now = now();
    json!({
        "iss": Tokens::ISSUER,
        "sub": "tests",
        "aud": Tokens::SERVICE,
        "nbf": now - 60,
        "iat": now,
        "exp": now + 300,
        "jti": now.to_string(),
        "access": scopes(&request.query),
    })
}

fn scopes(query: &str) -> Vec<Value> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    // A client may send several scopes as several parameters or as one with spaces.
    let scopes = values.map(decode).collect::<Vec<_>>().join(" ");
    scopes.split_whitespace().filter_map(access).collect()
}

fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<_> = actions.split(',').collect();
    Some(json!({"type": kind, "name": name, "actions": actions}))
}

/// A percent-decoded value of a query.
fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().replace('+', " ");
    for part in parts {
        let (code, rest) = part.split_at(2);
        decoded.push(char::from(u8::from_str_radix(code, 16).expect("a percent code")));
        decoded += &rest.replace('+', " ");
    }
    decoded
}

#[expect(clippy::disallowed_methods, reason = "docker-registry compares it with the real time")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_from_a_query() {
        let query = "service=x&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository:c:pull";
        let want = json!([
            {"type": "repository", "name": "a/b", "actions": ["pull", "push"]},
            {"type": "repository", "name": "c", "actions": ["pull"]},
        ]);
        assert_eq!(Value::from(scopes(query)), want);
    }
}
