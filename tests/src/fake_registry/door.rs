//! Who may do what: passwords, the tokens of AWS's API, and a token service.
//!
//! **Architecture invariant:** no clock: a token ends after so many requests, or when the test says
//! so.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{
    Shared,
    quirk::{Anonymous, Bearer, Door, Lifetime},
    state::State,
    wire::{Head, Reply},
};

const SERVICE: &str = "fake.test";

/// The tokens that were given out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: HashMap<String, Token>,
    given: usize,
    /// After how many requests all that are known then end.
    end_after: Option<u32>,
}

#[derive(Debug, Default)]
struct Token {
    /// `repository:NAME:ACTION`, one action each. Empty for ECR's, which are for everything.
    scopes: Vec<String>,
    /// How many requests it is still good for.
    left: Option<u32>,
    /// Whether it is over, however many requests are left.
    is_over: bool,
}

impl Tokens {
    pub(super) fn given(&self) -> usize {
        self.given
    }

    /// Makes a token, good for so long.
    pub(super) fn give(&mut self, scopes: Vec<String>, lifetime: Lifetime) -> String {
        self.given += 1;
        let name = format!("made-up-token-{}", self.given);
        let left = match lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Requests(number) => Some(number),
        };
        self.known.insert(name.clone(), Token { scopes, left, is_over: false });
        name
    }

    /// Ends all tokens.
    pub(super) fn end(&mut self) {
        for token in self.known.values_mut() {
            token.is_over = true;
        }
    }

    /// Ends all tokens, once, after so many more requests.
    pub(super) fn end_after(&mut self, requests: u32) {
        self.end_after = Some(requests);
    }

    /// Uses up one request of a token, which must be good for all of these scopes.
    fn spend(&mut self, name: &str, needed: &[String]) -> Result<(), Refusal> {
        match &mut self.end_after {
            Some(0) => {
                self.end_after = None;
                self.end();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let token = self.known.get_mut(name).ok_or(Refusal::Unknown)?;
        if token.is_over || token.left == Some(0) {
            return Err(Refusal::Expired);
        }
        if let Some(left) = &mut token.left {
            *left -= 1;
        }
        let covers = |it: &String| token.scopes.is_empty() || token.scopes.contains(it);
        if needed.iter().all(covers) { Ok(()) } else { Err(Refusal::Insufficient) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    Unknown,
    Expired,
    Insufficient,
}

/// The answer to a request that may not pass, if it may not.
pub(super) fn check(shared: &Shared, head: &Head) -> Option<Reply> {
    let mut state = shared.state();
    let door = state.settings.door.clone();
    match door {
        Door::Open => None,
        Door::Basic(user, password) => {
            let is_known = credential(head) == Some((user.into(), password.into()));
            (!is_known).then(|| unauthorized("Basic realm=\"fake\""))
        }
        Door::Aws(_) => check_aws(&mut state, head),
        Door::Bearer(_) => {
            let needed = scopes(head);
            let refusal = bearer(&mut state, head, &needed)?;
            Some(unauthorized(&challenge(shared, &needed, refusal)))
        }
    }
}

/// ECR's way: plain text in place of JSON, and 403 when a token is over.
fn check_aws(state: &mut State, head: &Head) -> Option<Reply> {
    let plain = |status, text: &str| Reply::new(status).body("text/plain; charset=utf-8", text);
    let Some((user, password)) = credential(head) else {
        let challenge = "Basic realm=\"https://fake.test/\",service=\"ecr.amazonaws.com\"";
        return Some(plain(401, "Not Authorized\n").with("Www-Authenticate", challenge));
    };
    let spent =
        if user == "AWS" { state.tokens.spend(&password, &[]) } else { Err(Refusal::Unknown) };
    match spent {
        Ok(()) => None,
        Err(Refusal::Expired) => Some(plain(
            403,
            "Your Authorization Token has expired. Please run 'aws ecr get-login-password' to \
             fetch a new one.",
        )),
        Err(_) => Some(plain(400, "Bad Request: the authorization token is not valid")),
    }
}

fn bearer(state: &mut State, head: &Head, needed: &[String]) -> Option<Refusal> {
    let sent = head.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    let Some(token) = sent else { return Some(Refusal::Missing) };
    state.tokens.spend(token, needed).err()
}

fn challenge(shared: &Shared, needed: &[String], refusal: Refusal) -> String {
    let mut text = format!("Bearer realm=\"http://{}/token\",service=\"{SERVICE}\"", shared.host());
    if !needed.is_empty() {
        text.extend([",scope=\"", &joined(needed).join(" "), "\""]);
    }
    match refusal {
        Refusal::Missing => {}
        Refusal::Unknown | Refusal::Expired => text += ",error=\"invalid_token\"",
        Refusal::Insufficient => text += ",error=\"insufficient_scope\"",
    }
    text
}

/// Scopes of one action each as they are written: one for a repository.
fn joined(scopes: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for scope in scopes {
        let (name, action) = scope.rsplit_once(':').unwrap_or((scope, ""));
        match joined.iter_mut().find(|it| it.rsplit_once(':').is_some_and(|it| it.0 == name)) {
            Some(found) => found.extend([",", action]),
            None => joined.push(scope.clone()),
        }
    }
    joined
}

/// What a request needs to be allowed.
fn scopes(head: &Head) -> Vec<String> {
    let rest = head.path.strip_prefix("/v2/").unwrap_or_default();
    let parts = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let Some(end) = parts.iter().filter_map(|it| rest.rfind(it)).min() else { return Vec::new() };
    let actions: &[&str] = match &*head.method {
        "GET" | "HEAD" => &["pull"],
        "DELETE" if !rest.contains("/uploads/") => &["delete"],
        _ => &["pull", "push"],
    };
    let scope = |name: &str, action: &str| format!("repository:{name}:{action}");
    let mut scopes: Vec<_> = actions.iter().map(|it| scope(&rest[..end], it)).collect();
    let from = head.parameter("from").filter(|_| head.parameter("mount").is_some());
    scopes.extend(from.map(|it| scope(&it, "pull")));
    scopes
}

fn unauthorized(challenge: &str) -> Reply {
    let errors =
        json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
    Reply::new(401)
        .with("Www-Authenticate", challenge)
        .body("application/json; charset=utf-8", errors.to_string())
}

/// The token service.
pub(super) fn token(shared: &Shared, head: &Head) -> Reply {
    let mut state = shared.state();
    let Door::Bearer(Bearer { user, anonymous, lifetime }) = state.settings.door.clone() else {
        return Reply::new(404);
    };
    if head.parameter("service").as_deref() != Some(SERVICE) {
        state.accuse("a token for no service, or another");
    }
    let sent = credential(head);
    let is_known = sent.as_ref().is_some_and(|(user_sent, password)| {
        Some((&**user_sent, &**password)) == user
            // What AWS's API gave for it, as for ECR Public.
            || user_sent == "AWS" && state.tokens.spend(password, &[]).is_ok()
    });
    if !is_known && (sent.is_some() || anonymous == Anonymous::Nothing) {
        return Reply::new(401).body("application/json", r#"{"details":"who are you?"}"#);
    }
    let wanted = head.parameters("scope").collect::<Vec<_>>().join(" ");
    let given = wanted.split_whitespace().flat_map(split_scope);
    let may_push = is_known || anonymous == Anonymous::Everything;
    let given = given.filter(|it| may_push || it.ends_with(":pull"));
    // A token without scopes would be one for everything.
    let scopes = given.chain(["login".to_owned()]).collect();
    let token = state.tokens.give(scopes, lifetime);
    let body = json!({"token": token, "expires_in": 300}).to_string();
    Reply::new(200).body("application/json", body)
}

/// `repository:NAME:pull,push` as scopes of one action each.
fn split_scope(scope: &str) -> Vec<String> {
    let Some((name, actions)) = scope.rsplit_once(':') else { return Vec::new() };
    actions.split(',').map(|it| format!("{name}:{it}")).collect()
}

/// The user and password that a request brings.
fn credential(head: &Head) -> Option<(String, String)> {
    let sent = head.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(sent).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_the_scopes_of_its_repository() {
        let check = |method: &str, path: &str, query: &str, want: &[&str]| {
            let [method, path, query] = [method, path, query].map(str::to_owned);
            let head = Head { method, path, query, ..Head::default() };
            assert_eq!(joined(&scopes(&head)), want);
        };
        check("GET", "/v2/", "", &[]);
        check("GET", "/v2/a/b/blobs/sha256:1", "", &["repository:a/b:pull"]);
        check("PUT", "/v2/a/manifests/1", "", &["repository:a:pull,push"]);
        check("DELETE", "/v2/a/manifests/1", "", &["repository:a:delete"]);
        let want = ["repository:a:pull,push", "repository:b:pull"];
        check("POST", "/v2/a/blobs/uploads/", "mount=x&from=b", &want);
    }

    #[test]
    fn a_token_ends_after_so_many_requests_or_when_it_is_told_to() {
        let mut tokens = Tokens::default();
        let short = tokens.give(Vec::new(), Lifetime::Requests(1));
        let long = tokens.give(vec!["a:pull".into()], Lifetime::Unlimited);
        assert_eq!(tokens.spend(&short, &[]), Ok(()));
        assert_eq!(tokens.spend(&short, &[]), Err(Refusal::Expired));
        assert_eq!(tokens.spend(&long, &["a:pull".into()]), Ok(()));
        assert_eq!(tokens.spend(&long, &["a:push".into()]), Err(Refusal::Insufficient));
        assert_eq!(tokens.spend("other", &[]), Err(Refusal::Unknown));
        tokens.end_after(1);
        assert_eq!(tokens.spend(&long, &[]), Ok(()));
        assert_eq!(tokens.spend(&long, &[]), Err(Refusal::Expired));
        let next = tokens.give(Vec::new(), Lifetime::Unlimited);
        assert_eq!([0; 2].map(|_| tokens.spend(&next, &[])), [Ok(()); 2]);
        tokens.end();
        assert_eq!(tokens.spend(&next, &[]), Err(Refusal::Expired));
    }
}
