//! The client against a registry that says what it is told.

use std::{
    error::Error,
    fmt::Write as _,
    io::Cursor,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use expect_test::{Expect, expect};
use futures_util::future::join_all;

use super::{
    Action,
    scripted::{Said, Scripted, say},
    *,
};

mod transfers;

const MANIFEST: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BEARER: &str = "www-authenticate";

/// Gives the credentials of its list one after the other, each in place of the one refused.
struct Listed {
    passwords: Vec<&'static str>,
    asked: AtomicUsize,
}

impl Credentials for Listed {
    fn credential<'a>(
        &'a self,
        _: &'a str,
        _: Action,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = match refused {
            None => 0,
            Some(refused) => {
                1 + self.passwords.iter().position(|it| *it == refused.password).unwrap()
            }
        };
        let password = self.passwords.get(next);
        let credential =
            password.map(|it| Credential { username: "u".into(), password: (*it).into() });
        Box::pin(std::future::ready(Ok(credential)))
    }
}

fn options() -> Options {
    let (first_pause, idle_timeout) = (Duration::ZERO, Duration::from_secs(10));
    Options { tries: 3, first_pause, idle_timeout, ..Options::default() }
}

fn client(passwords: &[&'static str]) -> Client {
    let passwords = passwords.to_vec();
    Client::new(options(), Arc::new(Listed { passwords, asked: AtomicUsize::new(0) }))
}

fn reference(server: &Scripted, rest: &str) -> Reference {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

/// What a person would see of an error, with the causes; ports are masked.
fn words(error: &RegistryError, servers: &[&Scripted]) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(words, "\ncaused by: {cause}").unwrap();
        source = cause.source();
    }
    mask(words, servers)
}

fn mask(text: String, servers: &[&Scripted]) -> String {
    let mut text = text;
    for (server, name) in servers.iter().zip(["REGISTRY", "OTHER"]) {
        text = text.replace(&server.host(), name);
    }
    text
}

fn quiet(_: u64) {}

fn blob(content: &[u8]) -> Blob {
    Blob { digest: Digest::of(content), size: content.len() as u64 }
}

fn opener(content: &'static [u8]) -> impl Fn() -> io::Result<Box<dyn Read + Send>> + Sync {
    move || Ok(Box::new(Cursor::new(content)))
}

async fn pull(
    client: &Client,
    server: &Scripted,
    content: &[u8],
) -> Result<Vec<u8>, RegistryError> {
    let reference = reference(server, "x");
    client.pull_blob(reference.repository(), blob(content), || Ok(Vec::new()), &quiet).await
}

fn manifest() -> Said {
    say(200, MANIFEST).with("content-type", OCI_MANIFEST)
}

fn bearer(server: &Scripted) -> Said {
    let realm = format!("http://{}/token", server.host());
    let challenge = format!(r#"Bearer realm="{realm}",service="s",scope="repository:evil:*""#);
    say(401, "").with(BEARER, &challenge)
}

const TOKEN: &str = "GET /token?service=s&scope=repository%3Ax%3Apull";
const GET: &str = "GET /v2/x/manifests/1";

/// Asks for the manifest of `x:1`, and compares the error, or the manifest's kind, and what was
/// asked.
#[track_caller]
fn check(passwords: &[&'static str], script: &[(&str, &[Said])], want: Expect) {
    let server = Scripted::start();
    for (line, said) in script {
        server.on(line, said.iter().cloned());
    }
    check_server(&server, &[], passwords, want);
}

#[track_caller]
fn check_server(server: &Scripted, others: &[&Scripted], passwords: &[&'static str], want: Expect) {
    let servers: Vec<&Scripted> = [server].into_iter().chain(others.iter().copied()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let got = runtime.block_on(client(passwords).manifest(&reference(server, "x:1")));
    let mut text = match got {
        Ok(manifest) => manifest.media_type,
        Err(error) => words(&error, &servers),
    };
    text.push('\n');
    for server in &servers {
        write!(text, "---\n{}", server.log()).unwrap();
    }
    want.assert_eq(&mask(text, &servers));
}

#[test]
fn a_manifest_comes_as_it_is() {
    check(
        &[],
        &[(GET, &[manifest()])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn a_registry_that_asks_for_a_password_gets_it() {
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    check(
        &["p"],
        &[(GET, &[basic, manifest()])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpw]
    "#]],
    );
}

#[test]
fn a_password_that_is_not_known_is_an_error() {
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let basic = say(401, body).with(BEARER, "Basic realm=\"x\"");
    check(
        &[],
        &[(GET, &[basic])],
        expect![[r#"
        registry `REGISTRY` wants a credential, and none is known (GET http://REGISTRY/v2/x/manifests/1: 401 UNAUTHORIZED: authentication required)
        ---
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn a_refused_password_is_an_error() {
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    check(
        &["p"],
        &[(GET, &[basic.clone(), basic])],
        expect![[r#"
        registry `REGISTRY` refused the credential (GET http://REGISTRY/v2/x/manifests/1: 401)
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpw]
    "#]],
    );
}

#[test]
fn an_expired_password_is_renewed_once_whether_told_by_401_or_403() {
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    let expired = say(403, "Your Authorization Token has expired. Please login again.\n");
    let again = manifest();
    check(
        &["old", "new"],
        &[(GET, &[basic.clone(), basic.clone(), again.clone()])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpvbGQ=]
        GET /v2/x/manifests/1 [Basic dTpuZXc=]
    "#]],
    );
    check(
        &["old", "new"],
        &[(GET, &[basic.clone(), expired.clone(), again])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpvbGQ=]
        GET /v2/x/manifests/1 [Basic dTpuZXc=]
    "#]],
    );
    check(
        &["old", "new", "newer"],
        &[(GET, &[basic, expired.clone(), expired])],
        expect![[r#"
        registry `REGISTRY` does not allow it (GET http://REGISTRY/v2/x/manifests/1: 403 Your Authorization Token has expired. Please login again.)
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpvbGQ=]
        GET /v2/x/manifests/1 [Basic dTpuZXc=]
    "#]],
    );
}

#[test]
fn what_is_denied_is_an_error_with_the_registrys_words() {
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    check(
        &["p"],
        &[(GET, &[say(403, body)])],
        expect![[r#"
        registry `REGISTRY` does not allow it (GET http://REGISTRY/v2/x/manifests/1: 403 DENIED: requested access is denied)
        ---
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn a_token_is_got_for_what_we_want_and_not_for_what_the_registry_says() {
    let server = Scripted::start();
    server.on(GET, [bearer(&server), manifest()]);
    server.on(TOKEN, [say(200, r#"{"token":"t"}"#)]);
    check_server(
        &server,
        &[],
        &["p"],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull [Basic dTpw]
        GET /v2/x/manifests/1 [Bearer t]
    "#]],
    );
}

#[test]
fn a_token_is_got_without_a_password_too() {
    let server = Scripted::start();
    server.on(GET, [bearer(&server), manifest()]);
    server.on(TOKEN, [say(200, r#"{"access_token":"t"}"#)]);
    check_server(
        &server,
        &[],
        &[],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull
        GET /v2/x/manifests/1 [Bearer t]
    "#]],
    );
}

#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let server = Scripted::start();
    server.on(GET, [bearer(&server), bearer(&server), bearer(&server)]);
    server.on(TOKEN, [say(200, r#"{"token":"t1"}"#), say(200, r#"{"token":"t2"}"#)]);
    check_server(
        &server,
        &[],
        &["p"],
        expect![[r#"
        registry `REGISTRY` refused the credential (GET http://REGISTRY/v2/x/manifests/1: 401)
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull [Basic dTpw]
        GET /v2/x/manifests/1 [Bearer t1]
        GET /token?service=s&scope=repository%3Ax%3Apull [Basic dTpw]
        GET /v2/x/manifests/1 [Bearer t2]
    "#]],
    );
}

#[test]
fn a_token_service_may_refuse_or_say_nonsense() {
    let server = Scripted::start();
    server.on(GET, [bearer(&server)]);
    server.on(TOKEN, [say(401, r#"{"details":"incorrect username or password"}"#)]);
    check_server(
        &server,
        &[],
        &["p"],
        expect![[r#"
        registry `REGISTRY` refused the credential (GET http://REGISTRY/token: 401 incorrect username or password)
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull [Basic dTpw]
    "#]],
    );
    let server = Scripted::start();
    server.on(GET, [bearer(&server)]);
    server.on(TOKEN, [say(404, "")]);
    check_server(
        &server,
        &[],
        &[],
        expect![[r#"
        the registry failed (GET http://REGISTRY/token: 404)
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull
    "#]],
    );
    let server = Scripted::start();
    server.on(GET, [bearer(&server)]);
    server.on(TOKEN, [say(200, "<html>")]);
    check_server(
        &server,
        &[],
        &[],
        expect![[r#"
        the token service's answer holds no token: this is no registry, or a broken one (GET http://REGISTRY/token)
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull
    "#]],
    );
    let server = Scripted::start();
    server.on(GET, [bearer(&server)]);
    server.on(TOKEN, [say(200, vec![b' '; 1024 * 1024 + 1])]);
    check_server(
        &server,
        &[],
        &[],
        expect![[r#"
        the answer is longer than 1048576 bytes (GET http://REGISTRY/token)
        ---
        GET /v2/x/manifests/1
        GET /token?service=s&scope=repository%3Ax%3Apull
    "#]],
    );
}

#[test]
fn an_unknown_way_to_log_in_is_an_error() {
    let negotiate = say(401, "").with(BEARER, "Negotiate");
    check(
        &["p"],
        &[(GET, &[negotiate])],
        expect![[r#"
        registry `REGISTRY` wants authentication by `Negotiate`, which is not supported (GET http://REGISTRY/v2/x/manifests/1)
        ---
        GET /v2/x/manifests/1
    "#]],
    );
    check(
        &["p"],
        &[(GET, &[say(401, "who are you?")])],
        expect![[r#"
        registry `REGISTRY` wants a credential, and none is known (GET http://REGISTRY/v2/x/manifests/1: 401 who are you?)
        ---
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn what_is_not_there_is_an_error_at_once() {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
    check(
        &[],
        &[(GET, &[say(404, body)])],
        expect![[r#"
        image `REGISTRY/x:1` was not found (GET http://REGISTRY/v2/x/manifests/1: 404 MANIFEST_UNKNOWN: manifest unknown)
        ---
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn what_may_pass_is_tried_again() {
    let busy = say(429, "slow down").with("retry-after", "0");
    check(
        &[],
        &[(GET, &[busy, say(500, ""), manifest()])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
    "#]],
    );
    let cut = manifest().announced(MANIFEST.len() + 1);
    check(
        &[],
        &[(GET, &[say(503, ""), cut, manifest()])],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn tries_end() {
    let busy = say(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#);
    let busy = busy.with("retry-after", "0");
    check(
        &[],
        &[(GET, &[busy.clone(), busy.clone(), busy])],
        expect![[r#"
        the registry gets too many requests (GET http://REGISTRY/v2/x/manifests/1: 429 TOOMANYREQUESTS: Rate exceeded)
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
    "#]],
    );
    check(
        &[],
        &[(GET, &[say(500, ""), say(502, ""), say(504, "late")])],
        expect![[r#"
        the registry failed (GET http://REGISTRY/v2/x/manifests/1: 504 late)
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
    "#]],
    );
    let cut = manifest().announced(MANIFEST.len() + 1);
    check(
        &[],
        &[(GET, &[cut.clone(), cut.clone(), cut])],
        expect![[r#"
        the connection ended early (GET http://REGISTRY/v2/x/manifests/1)
        caused by: end of file before message length reached
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1
    "#]],
    );
}

#[test]
fn garbage_is_called_so() {
    for (said, want) in [
        (
            say(200, "<!DOCTYPE html>").with("content-type", "text/html"),
            expect![[r#"
            the answer is not the JSON of a manifest: this is no registry, or a broken one (GET http://REGISTRY/v2/x/manifests/1)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(200, "{}").with("content-type", "application/json"),
            expect![[r#"
            the answer does not say what kind of manifest it is: this is no registry, or a broken one (GET http://REGISTRY/v2/x/manifests/1)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            manifest().with("docker-content-digest", &Digest::of(b"").to_string()),
            expect![[r#"
            content has digest sha256:b22c7289dd3b4785a3795c90e15d16bd66bd29b444b8974fe29ed0443ce50405 in place of sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 (GET http://REGISTRY/v2/x/manifests/1)
            ---
            GET /v2/x/manifests/1
            GET /v2/x/manifests/1
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(200, MANIFEST).with("content-type", "application/vnd.oci.image.index.v1+json"),
            expect![[r#"
                a manifest is sent as `application/vnd.oci.image.index.v1+json`, and says it is `application/vnd.oci.image.manifest.v1+json`: this is no registry, or a broken one (GET http://REGISTRY/v2/x/manifests/1)
                ---
                GET /v2/x/manifests/1
            "#]],
        ),
        (
            say(200, vec![b' '; 4 * 1024 * 1024 + 1]),
            expect![[r#"
            the answer is longer than 4194304 bytes (GET http://REGISTRY/v2/x/manifests/1)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(400, "\u{1b}[2Jbad\r\nrequest"),
            expect![[r#"
            the registry refused it (GET http://REGISTRY/v2/x/manifests/1: 400 [2Jbad)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(400, vec![b'x'; 100_000]),
            expect![[r#"
            the registry refused it (GET http://REGISTRY/v2/x/manifests/1: 400 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(301, "").with("location", "ftp://x/"),
            expect![[r#"
            the registry redirects to `ftp://x/`, which is no web address (GET http://REGISTRY/v2/x/manifests/1)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
        (
            say(301, ""),
            expect![[r#"
            the registry refused it (GET http://REGISTRY/v2/x/manifests/1: 301)
            ---
            GET /v2/x/manifests/1
        "#]],
        ),
    ] {
        check(&[], &[(GET, &vec![said; 3])], want);
    }
}

#[tokio::test]
async fn the_kind_of_a_manifest_is_found_where_it_is_named() {
    let bare = r#"{"schemaVersion":2}"#;
    for said in [
        say(200, bare).with("content-type", &format!("{OCI_MANIFEST}; charset=utf-8")),
        say(200, MANIFEST).with("content-type", "application/json"),
        say(200, MANIFEST),
    ] {
        let server = Scripted::start();
        server.on(GET, [said]);
        let manifest = client(&[]).manifest(&reference(&server, "x:1")).await.unwrap();
        assert_eq!(manifest.media_type, OCI_MANIFEST);
    }
}

#[test]
fn authorization_does_not_follow_to_another_host() {
    let (server, other) = (Scripted::start(), Scripted::start());
    let to_other = format!("http://{}/storage?signed=secret", other.host());
    let back = format!("http://{}/v2/back", server.host());
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    let own = say(307, "").with("location", "/v2/own");
    server.on(GET, [basic, own]);
    server.on("GET /v2/own", [say(302, "").with("location", &to_other)]);
    other.on("GET /storage?signed=secret", [say(307, "").with("location", &back)]);
    server.on("GET /v2/back", [manifest()]);
    check_server(
        &server,
        &[&other],
        &["p"],
        expect![[r#"
        application/vnd.oci.image.manifest.v1+json
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpw]
        GET /v2/own [Basic dTpw]
        GET /v2/back
        ---
        GET /storage?signed=secret
    "#]],
    );
}

#[test]
fn a_refusal_by_storage_is_not_one_of_the_credential() {
    let (server, other) = (Scripted::start(), Scripted::start());
    let to_other = format!("http://{}/storage?signed=secret", other.host());
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    server.on(GET, [basic, say(307, "").with("location", &to_other)]);
    other.on("GET /storage?signed=secret", [say(403, "<Error>AccessDenied</Error>")]);
    check_server(
        &server,
        &[&other],
        &["p"],
        expect![[r#"
        the registry failed (GET http://OTHER/storage: 403 (a page of HTML or XML))
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1 [Basic dTpw]
        ---
        GET /storage?signed=secret
    "#]],
    );
}

#[test]
fn redirects_end() {
    let server = Scripted::start();
    server.on(GET, [say(307, "").with("location", "/v2/x/manifests/1?s=secret")]);
    server.on(
        "GET /v2/x/manifests/1?s=secret",
        (0..5).map(|_| say(307, "").with("location", "1?s=secret")),
    );
    check_server(
        &server,
        &[],
        &[],
        expect![[r#"
        the registry redirects to `http://REGISTRY/v2/x/manifests/1`, after too many redirects (GET http://REGISTRY/v2/x/manifests/1)
        ---
        GET /v2/x/manifests/1
        GET /v2/x/manifests/1?s=secret
        GET /v2/x/manifests/1?s=secret
        GET /v2/x/manifests/1?s=secret
        GET /v2/x/manifests/1?s=secret
        GET /v2/x/manifests/1?s=secret
    "#]],
    );
}

#[tokio::test]
async fn a_manifest_that_is_named_by_digest_must_have_it() {
    let server = Scripted::start();
    let digest = Digest::of(MANIFEST.as_bytes());
    server.on(&format!("GET /v2/x/manifests/{digest}"), [manifest(), say(200, "{}"), manifest()]);
    let reference = reference(&server, &format!("x:1@{digest}"));
    assert_eq!(client(&[]).manifest(&reference).await.unwrap().digest, digest);
    assert_eq!(client(&[]).manifest(&reference).await.unwrap().digest, digest, "at the second try");
    server.on(&format!("GET /v2/x/manifests/{digest}"), vec![say(200, "{}"); 3]);
    let error = client(&[]).manifest(&reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { expected, .. } if expected == digest));
}

#[tokio::test]
async fn a_name_without_tag_and_digest_is_not_asked_for() {
    let server = Scripted::start();
    let error = client(&[]).manifest(&reference(&server, "x")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unnamed(_)));
    assert_eq!(server.log(), "");
}

#[tokio::test]
async fn a_digest_is_asked_for_by_head_and_by_get_where_that_fails() {
    let digest = Digest::of(MANIFEST.as_bytes());
    let head = "HEAD /v2/x/manifests/1";
    for (said, full, want) in [
        (say(200, "").with("docker-content-digest", &digest.to_string()), None, Some(digest)),
        (say(200, ""), Some(manifest()), Some(digest)),
        (say(405, ""), Some(manifest()), Some(digest)),
        (say(501, ""), Some(manifest()), Some(digest)),
        (say(404, ""), None, None),
        (say(405, ""), Some(say(404, "")), None),
    ] {
        let server = Scripted::start();
        server.on(head, [said]).on(GET, full);
        let found = client(&[]).manifest_digest(&reference(&server, "x:1")).await.unwrap();
        assert_eq!(found, want, "for {}", server.log());
    }
}

#[tokio::test]
async fn a_blob_exists_or_not() {
    let digest = Digest::of(b"hello");
    let head = format!("HEAD /v2/x/blobs/{digest}");
    for (said, want) in [(200, true), (404, false), (405, false)] {
        let server = Scripted::start();
        server.on(&head, [say(said, "")]);
        let reference = reference(&server, "x");
        let exists = client(&[]).blob_exists(reference.repository(), digest).await;
        assert_eq!(exists.unwrap(), want, "for {said}");
    }
    let (server, other) = (Scripted::start(), Scripted::start());
    other.on("HEAD /s", [say(403, "")]);
    server.on(&head, [say(307, "").with("location", &format!("http://{}/s", other.host()))]);
    let x = reference(&server, "x");
    assert!(!client(&[]).blob_exists(x.repository(), digest).await.unwrap());
    let server = Scripted::start();
    server.on(&head, [say(403, "")]);
    let x = reference(&server, "x");
    let error = client(&[]).blob_exists(x.repository(), digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { had_credential: false, .. }));
}

#[tokio::test]
async fn a_blob_is_pulled_whole_or_not_at_all() {
    let line = format!("GET /v2/x/blobs/{}", Digest::of(b"hello"));
    for (said, want) in [
        (vec![say(200, "hello")], Ok("hello")),
        (vec![say(200, "hello").unannounced()], Ok("hello")),
        (vec![say(200, "hel").announced(5), say(500, ""), say(200, "hello")], Ok("hello")),
        (vec![say(200, "hel").unannounced(), say(200, "hello")], Ok("hello")),
        (vec![say(200, "hel").announced(5); 3], Err("Cut")),
        (vec![say(200, "hallo"), say(200, "hello")], Ok("hello")),
        (vec![say(200, "hallo"); 3], Err("DigestMismatch")),
        (vec![say(200, "hello!"); 3], Err("SizeMismatch")),
        (vec![say(200, "hell"); 3], Err("SizeMismatch")),
        (vec![say(200, "hello!").unannounced(); 3], Err("TooLarge")),
        (vec![say(404, "")], Err("NotFound")),
        (vec![say(206, "hello")], Err("Refused")),
    ] {
        let server = Scripted::start();
        server.on(&line, said.clone());
        let got = pull(&client(&[]), &server, b"hello").await;
        match want {
            Ok(content) => assert_eq!(got.unwrap(), content.as_bytes()),
            Err(variant) => {
                let debug = format!("{:?}", got.unwrap_err());
                assert!(debug.starts_with(variant), "{debug} for {said:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_try_of_a_pull_starts_afresh() {
    let server = Scripted::start();
    let line = format!("GET /v2/x/blobs/{}", Digest::of(b"hello"));
    server.on(&line, [say(200, "hel").announced(5), say(200, "hello")]);
    let (opened, positions) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let open = || {
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    };
    let progress = |position| positions.lock().unwrap().push(position);
    let repository = reference(&server, "x").repository().clone();
    let pulled = client(&[]).pull_blob(&repository, blob(b"hello"), open, &progress).await;
    assert_eq!(pulled.unwrap(), b"hello");
    assert_eq!(opened.into_inner(), 2);
    assert_eq!(positions.into_inner().unwrap(), [0, 3, 0, 5]);
}

#[tokio::test]
async fn what_cannot_be_written_is_not_tried_again() {
    let server = Scripted::start();
    let line = format!("GET /v2/x/blobs/{}", Digest::of(b"hello"));
    server.on(&line, [say(200, "hello")]);
    let repository = reference(&server, "x").repository().clone();
    let open = || Err::<Vec<u8>, _>(io::ErrorKind::StorageFull.into());
    let got = client(&[]).pull_blob(&repository, blob(b"hello"), open, &quiet).await;
    let Err(RegistryError::Sink { source, .. }) = got else { panic!("{got:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
}

const BEGIN: &str = "POST /v2/x/blobs/uploads/";

fn begun(location: &str) -> Said {
    say(202, "").with("location", location)
}

async fn push(
    client: &Client,
    server: &Scripted,
    content: &'static [u8],
) -> Result<(), RegistryError> {
    let reference = reference(server, "x");
    client.push_blob(reference.repository(), blob(content), &opener(content), &quiet).await
}

#[tokio::test]
async fn a_blob_goes_in_one_put_to_where_the_registry_says() {
    let digest = Digest::of(b"hello");
    let escaped = digest.to_string().replace(':', "%3A");
    for (location, put) in [
        ("/up/1", format!("PUT /up/1?digest={escaped}")),
        ("1", format!("PUT /v2/x/blobs/uploads/1?digest={escaped}")),
        ("/up/1?_state=a%3D=&b=c", format!("PUT /up/1?_state=a%3D=&b=c&digest={escaped}")),
        ("http://REGISTRY/up/1?s", format!("PUT /up/1?s&digest={escaped}")),
    ] {
        for status in [201, 202, 204] {
            let server = Scripted::start();
            server.on(BEGIN, [begun(&location.replace("REGISTRY", &server.host()))]);
            server.on(&put, [say(status, "")]);
            push(&client(&[]), &server, b"hello").await.unwrap();
            assert_eq!(server.log(), format!("{BEGIN}\n{put}\n"));
            let asked = &server.asked()[1];
            assert_eq!(asked.body, b"hello");
            assert_eq!(asked.headers["content-length"], "5");
            assert!(!asked.headers.contains_key("transfer-encoding"));
        }
    }
}

#[tokio::test]
async fn an_empty_blob_goes_too() {
    let server = Scripted::start();
    let escaped = Digest::of(b"").to_string().replace(':', "%3A");
    let put = format!("PUT /u?digest={escaped}");
    server.on(BEGIN, [begun("/u")]).on(&put, [say(201, "")]);
    push(&client(&[]), &server, b"").await.unwrap();
    assert_eq!(server.asked()[1].headers["content-length"], "0");
}

fn hello_put() -> String {
    format!("PUT /u?digest={}", Digest::of(b"hello").to_string().replace(':', "%3A"))
}

#[tokio::test]
async fn a_failed_upload_is_tried_again_as_a_whole() {
    for failure in [say(500, ""), say(404, ""), say(429, "").with("retry-after", "0")] {
        let server = Scripted::start();
        let put = hello_put();
        server.on(BEGIN, [say(503, ""), begun("/u"), begun("/u")]);
        server.on(&put, [failure, say(201, "")]);
        push(&client(&[]), &server, b"hello").await.unwrap();
        assert_eq!(server.log(), format!("{BEGIN}\n{BEGIN}\n{put}\n{BEGIN}\n{put}\n"));
        assert_eq!(server.asked()[4].body, b"hello");
    }
}

#[tokio::test]
async fn a_password_that_expires_between_post_and_put_is_renewed() {
    let server = Scripted::start();
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    let put = hello_put();
    server.on(BEGIN, [basic, begun("/u"), begun("/u")]);
    server.on(&put, [say(403, "Your Authorization Token has expired."), say(201, "")]);
    push(&client(&["old", "new"]), &server, b"hello").await.unwrap();
    let (old, new) = ("[Basic dTpvbGQ=]", "[Basic dTpuZXc=]");
    let want = format!("{BEGIN}\n{BEGIN} {old}\n{put} {old}\n{BEGIN} {new}\n{put} {new}\n");
    assert_eq!(server.log(), want);
}

#[tokio::test]
async fn an_upload_to_another_host_goes_without_authorization() {
    let (server, other) = (Scripted::start(), Scripted::start());
    let basic = say(401, "").with(BEARER, "Basic realm=\"x\"");
    let put = hello_put();
    server.on(BEGIN, [basic, begun(&format!("http://{}/u", other.host()))]);
    other.on(&put, [say(201, "")]);
    push(&client(&["p"]), &server, b"hello").await.unwrap();
    assert_eq!(other.log(), format!("{put}\n"));
}

#[tokio::test]
async fn an_upload_that_the_registry_refuses_is_an_error() {
    let body = r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#;
    let put = hello_put();
    for (begin, end, want) in [
        (
            begun("/u"),
            Some(say(400, body)),
            "content arrived as something else (PUT http://REGISTRY/u: 400 DIGEST_INVALID: no)",
        ),
        (
            begun("/u"),
            Some(say(201, "").with("docker-content-digest", &Digest::of(b"").to_string())),
            "content has digest sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 in place of sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 (PUT http://REGISTRY/u)",
        ),
        (
            say(
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'x' does not exist"}]}"#,
            ),
            None,
            "repository `REGISTRY/x` was not found (POST http://REGISTRY/v2/x/blobs/uploads/: 404 NAME_UNKNOWN: The repository with name 'x' does not exist)",
        ),
        (
            say(202, ""),
            None,
            "the answer does not say where to upload to: this is no registry, or a broken one (POST http://REGISTRY/v2/x/blobs/uploads/)",
        ),
        (
            say(307, "").with("location", "/u"),
            None,
            "the registry refused it (POST http://REGISTRY/v2/x/blobs/uploads/: 307)",
        ),
    ] {
        let server = Scripted::start();
        let end = end.iter().cycle().take(3).cloned();
        server.on(BEGIN, vec![begin; 3]).on(&put, end.collect::<Vec<_>>());
        let error = push(&client(&[]), &server, b"hello").await.unwrap_err();
        assert_eq!(words(&error, &[&server]), want);
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_a_large_upload_is_heard() {
    static LARGE: [u8; 16 << 20] = [7; 16 << 20];
    let server = Scripted::start();
    let put = format!("PUT /u?digest={}", Digest::of(&LARGE).to_string().replace(':', "%3A"));
    server.on(BEGIN, [begun("/u")]).on(&put, [say(413, "too large").hasty()]);
    let error = push(&client(&[]), &server, &LARGE).await.unwrap_err();
    let want = "the registry refused it (PUT http://REGISTRY/u: 413 too large)";
    assert_eq!(words(&error, &[&server]), want);
}

#[tokio::test]
async fn a_blob_that_has_become_shorter_is_not_pushed() {
    let server = Scripted::start();
    server.on(BEGIN, [begun("/u")]);
    let reference = reference(&server, "x");
    let longer = Blob { size: 6, ..blob(b"hello") };
    let got =
        client(&[]).push_blob(reference.repository(), longer, &opener(b"hello"), &quiet).await;
    let Err(RegistryError::Source { source, .. }) = got else { panic!("{got:?}") };
    assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn progress_of_a_push_starts_again_with_each_try() {
    let server = Scripted::start();
    server.on(BEGIN, [begun("/u"), begun("/u")]).on(&hello_put(), [say(500, ""), say(201, "")]);
    let positions = Mutex::new(Vec::new());
    let progress = |position| positions.lock().unwrap().push(position);
    let x = reference(&server, "x");
    let pushed =
        client(&[]).push_blob(x.repository(), blob(b"hello"), &opener(b"hello"), &progress).await;
    pushed.unwrap();
    assert_eq!(positions.into_inner().unwrap(), [0, 5, 0, 5]);
}

#[tokio::test]
async fn a_manifest_is_pushed_by_tag_or_by_its_digest() {
    let digest = Digest::of(MANIFEST.as_bytes());
    for (name, line) in [
        ("x:1", "PUT /v2/x/manifests/1".to_owned()),
        (&format!("x:1@{digest}"), "PUT /v2/x/manifests/1".to_owned()),
        ("x", format!("PUT /v2/x/manifests/{digest}")),
        (&format!("x@{digest}"), format!("PUT /v2/x/manifests/{digest}")),
    ] {
        let server = Scripted::start();
        server.on(&line, [say(500, ""), say(201, "")]);
        let target = reference(&server, name);
        let pushed = client(&[]).push_manifest(&target, OCI_MANIFEST, MANIFEST.as_bytes()).await;
        assert_eq!(pushed.unwrap(), digest);
        let asked = &server.asked()[1];
        assert_eq!(
            (asked.headers["content-type"].as_str(), asked.body.as_slice()),
            (OCI_MANIFEST, MANIFEST.as_bytes())
        );
    }
    let server = Scripted::start();
    let other = reference(&server, &format!("x@{}", Digest::of(b"")));
    let error = client(&[]).push_manifest(&other, OCI_MANIFEST, MANIFEST.as_bytes()).await;
    assert!(matches!(error, Err(RegistryError::DigestMismatch { .. })));
    assert_eq!(server.log(), "");
}

#[tokio::test]
async fn a_registry_that_stored_another_manifest_is_found_out() {
    let server = Scripted::start();
    let other = Digest::of(b"").to_string();
    let wrong = say(201, "").with("docker-content-digest", &other);
    server.on("PUT /v2/x/manifests/1", vec![wrong; 3]);
    let target = reference(&server, "x:1");
    let error = client(&[]).push_manifest(&target, OCI_MANIFEST, MANIFEST.as_bytes()).await;
    assert!(matches!(error, Err(RegistryError::DigestMismatch { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_requests_at_once_get_one_token() {
    let server = Scripted::start();
    let many = 16;
    let line = format!("GET /v2/x/blobs/{}", Digest::of(b"hello"));
    server.on(&line, (0..many).map(|_| bearer(&server)));
    server.on(TOKEN, [say(200, r#"{"token":"t","expires_in":300}"#)]);
    let let_in = format!("{line} [Bearer t]");
    server.on(&let_in, (0..many).map(|_| say(200, "hello")));
    let listed = Arc::new(Listed { passwords: vec!["p"], asked: AtomicUsize::new(0) });
    let client = Client::new(options(), listed.clone());
    let pulls = (0..many).map(|_| pull(&client, &server, b"hello"));
    for pulled in join_all(pulls).await {
        assert_eq!(pulled.unwrap(), b"hello");
    }
    let tokens = server.asked().iter().filter(|it| it.line == TOKEN).count();
    assert_eq!((tokens, listed.asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_host_that_nobody_listens_on_is_tried_and_then_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference: Reference = format!("{free}/x:1").parse().unwrap();
    let error = client(&[]).manifest(&reference).await.unwrap_err();
    let words = words(&error, &[]).replace(&free.to_string(), "REGISTRY");
    assert_eq!(
        words,
        "`REGISTRY` cannot be reached (GET http://REGISTRY/v2/x/manifests/1)\n\
         caused by: Connection refused (os error 111)"
    );
}

/// A host that takes connections, and never says anything.
fn silence() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    (listener, host)
}

fn impatient() -> Client {
    let moment = Duration::from_millis(20);
    let options = Options { tries: 2, connect_timeout: moment, idle_timeout: moment, ..options() };
    Client::new(options, Arc::new(Anonymous))
}

#[tokio::test]
async fn silence_is_not_waited_for_without_end() {
    let (_listener, host) = silence();
    let reference: Reference = format!("{host}/x:1").parse().unwrap();
    let error = impatient().manifest(&reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn an_upload_that_nobody_takes_is_not_waited_for_without_end() {
    static LARGE: [u8; 32 << 20] = [7; 32 << 20];
    let (_listener, silent) = silence();
    let server = Scripted::start();
    let location = format!("http://{silent}/u");
    server.on(BEGIN, [begun(&location), begun(&location)]);
    let error = push(&impatient(), &server, &LARGE).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn localhost_is_this_machine() {
    let server = Scripted::start();
    server.on(GET, [manifest()]);
    let name = format!("{}/x:1", server.host().replace("127.0.0.1", "localhost"));
    let reference: Reference = name.parse().unwrap();
    assert_eq!(client(&[]).manifest(&reference).await.unwrap().bytes, MANIFEST.as_bytes());
}

#[test]
fn operations_can_be_spawned() {
    fn check<F: Future + Send>(_: F) {}
    let client = client(&[]);
    let x: Reference = "localhost:1/x".parse().unwrap();
    let repository = x.repository();
    check(client.manifest(&x));
    check(client.manifest_digest(&x));
    check(client.blob_exists(repository, Digest::of(b"")));
    check(client.pull_blob(repository, blob(b""), || Ok(Vec::new()), &quiet));
    check(client.push_blob(repository, blob(b""), &opener(b""), &quiet));
    check(client.push_manifest(&x, OCI_MANIFEST, b"{}"));
}
