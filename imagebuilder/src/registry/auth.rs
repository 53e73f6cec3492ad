//! Who we are to a registry: credentials, and the tokens that they are exchanged for.
//!
//! **Architecture invariant:** a credential goes to the registry that it is for and to the token
//! service that this registry names, and nowhere else; it is never shown. Whatever a registry
//! asks for, a token is asked for the one repository, and to do what we are about to do.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::{self, Future},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Method, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;

use super::{
    challenge::{self, Challenge},
    ecr::EcrRegistry,
    error::{self, RegistryError},
    http::{Http, Request, Response},
};
use crate::reference::{self, Repository};

const LONGEST_TOKEN_ANSWER: usize = 1024 * 1024;
/// What the token specification says for a token that does not say it itself.
const DEFAULT_LIFETIME: u64 = 60;
const LONGEST_LIFETIME: u64 = 24 * 60 * 60;

/// A user and password, of a person or of a machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub username: String,
    /// The password, or what stands for it.
    pub password: String,
}

/// What [`Credentials::credential`] gives.
pub type CredentialFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Credential>, CredentialsError>> + Send + 'a>>;

/// Knows the credentials of registries.
pub trait Credentials: Send + Sync {
    /// The credential for a registry (its host, and port if one is named; `docker.io` for Docker
    /// Hub) and what is to be done there, if there is one: one other than `refused`, which the
    /// registry has just refused.
    fn credential<'a>(
        &'a self,
        registry: &'a str,
        action: Action,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a>;
}

/// Why there may be a credential, and it cannot be got.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A program of this name keeps it.
    #[error("it is kept by credential helper `docker-credential-{0}`, which was not asked")]
    Helper(String),
    /// It is of a kind that we cannot use.
    #[error("it is kept as an `{0}`, which is not supported")]
    Unsupported(&'static str),
    /// What is kept is broken.
    #[error("the `auth` kept for it is not `user:password` in base64")]
    Malformed,
    /// The service that gives it out does not.
    #[error("the service that gives it out failed")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Knows no credential.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous;

/// What we want to do with a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) repository: Repository,
    pub(super) action: Action,
    /// A repository of the same registry that is read too: a blob is mounted from it.
    pub(super) from: Option<Repository>,
}

/// What is to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Reading.
    Pull,
    /// Writing, and reading.
    Push,
    /// Nothing but to be let in; the repository does not matter.
    LogIn,
}

/// What is known of all registries.
pub(super) struct Auth {
    credentials: Arc<dyn Credentials>,
    sessions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Session>>>>,
}

/// What is known of one registry. Its lock is held while a credential or token is fetched, so
/// that it is fetched once.
#[derive(Default)]
struct Session {
    challenge: Option<Challenge>,
    credential: Option<Credential>,
    /// What the credentials were asked for: that there is none is known too.
    asked: HashSet<Action>,
    tokens: HashMap<Scope, Pass>,
}

/// What lets a request in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pass {
    header: HeaderValue,
    had_credential: bool,
    expires: Option<Instant>,
}

/// One operation's dealings with the door.
pub(super) struct Entry<'a> {
    auth: &'a Auth,
    http: &'a Http,
    scope: &'a Scope,
    pass: Option<Pass>,
    renewed: bool,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct Token {
    /// Some services give one of these names, some both.
    #[serde(default, rename = "token")]
    primary: String,
    #[serde(default, rename = "access_token")]
    alias: String,
    expires_in: Option<u64>,
}

impl Credential {
    /// The user that credential helpers name if the password is an identity token: one that a
    /// token service gave for it, and takes in its place.
    pub const IDENTITY_TOKEN: &str = "<token>";

    fn is_identity_token(&self) -> bool {
        self.username == Self::IDENTITY_TOKEN
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials for Anonymous {
    fn credential<'a>(
        &'a self,
        _: &'a str,
        _: Action,
        _: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        Box::pin(future::ready(Ok(None)))
    }
}

impl Scope {
    pub(super) fn new(repository: &Repository, action: Action) -> Self {
        Self { repository: repository.clone(), action, from: None }
    }

    pub(super) fn mounting(repository: &Repository, from: &Repository) -> Self {
        Self { from: Some(from.clone()), ..Self::new(repository, Action::Push) }
    }

    /// As token services want it: one text for each repository.
    fn texts(&self) -> Vec<String> {
        let actions = match self.action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::LogIn => return Vec::new(),
        };
        let main = format!("repository:{}:{actions}", self.repository.path());
        let from = self.from.as_ref().map(|it| format!("repository:{}:pull", it.path()));
        [main].into_iter().chain(from).collect()
    }

    pub(super) fn registry(&self) -> &str {
        self.repository.registry()
    }
}

impl Pass {
    fn new(
        scheme: &str,
        secret: &str,
        had_credential: bool,
        expires: Option<Instant>,
    ) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("{scheme} {secret}")).ok()?;
        header.set_sensitive(true);
        Some(Self { header, had_credential, expires })
    }

    fn basic(credential: &Credential) -> Option<Self> {
        if credential.is_identity_token() {
            return None;
        }
        let Credential { username, password } = credential;
        Self::new("Basic", &STANDARD.encode(format!("{username}:{password}")), true, None)
    }

    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|it| it <= Instant::now())
    }
}

impl Session {
    /// ECR is known to want a password: to be told so would cost a request.
    fn first(registry: &str) -> Self {
        let challenge = EcrRegistry::parse(registry).map(|_| Challenge::Basic);
        Self { challenge, ..Self::default() }
    }

    /// The pass for `scope`, if nothing needs to be fetched for it.
    fn pass(&self, scope: &Scope) -> Option<Pass> {
        match self.challenge.as_ref()? {
            Challenge::Basic => Pass::basic(self.credential.as_ref()?),
            Challenge::Bearer { .. } => {
                self.tokens.get(scope).filter(|it| !it.is_expired()).cloned()
            }
        }
    }
}

impl Entry<'_> {
    /// The header to send, if one is known to be needed.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.pass.as_ref().map(|it| &it.header)
    }

    pub(super) fn had_credential(&self) -> bool {
        self.pass.as_ref().is_some_and(|it| it.had_credential)
    }

    /// Whether there is a better pass now, after an answer that may have asked for one.
    ///
    /// The first pass is got on demand; it is renewed once, since tokens expire. An expired token
    /// of ECR is told by 403 and plain text, where others say 401.
    pub(super) async fn renew(&mut self, response: &Response) -> Result<bool, RegistryError> {
        let asked = match response.status() {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::FORBIDDEN => self.had_credential(),
            _ => false,
        };
        if !asked || self.renewed || response.foreign {
            return Ok(false);
        }
        let renewed = self.auth.renew(self, response).await?;
        let Some(pass) = renewed.filter(|it| Some(it) != self.pass.as_ref()) else {
            return Ok(false);
        };
        self.renewed = self.pass.is_some();
        self.pass = Some(pass);
        Ok(true)
    }
}

impl Auth {
    pub(super) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, sessions: Mutex::default() }
    }

    /// Begins an operation, with the pass that is known to be needed by now.
    pub(super) async fn enter<'a>(
        &'a self,
        http: &'a Http,
        scope: &'a Scope,
    ) -> Result<Entry<'a>, RegistryError> {
        let session = self.session(scope.registry());
        let mut session = session.lock().await;
        let pass = match (session.pass(scope), session.challenge.clone()) {
            (None, Some(Challenge::Bearer { realm, service })) => {
                Some(self.token(http, &mut session, scope, &realm, service.as_deref()).await?)
            }
            (None, Some(Challenge::Basic)) => {
                self.credential(&mut session, scope).await?.as_ref().and_then(Pass::basic)
            }
            (pass, _) => pass,
        };
        Ok(Entry { auth: self, http, scope, pass, renewed: false })
    }

    fn session(&self, registry: &str) -> Arc<tokio::sync::Mutex<Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || Arc::new(tokio::sync::Mutex::new(Session::first(registry)));
        sessions.entry(registry.to_owned()).or_insert_with(first).clone()
    }

    /// Another pass than the one of `entry`, if there is one.
    async fn renew(
        &self,
        entry: &Entry<'_>,
        response: &Response,
    ) -> Result<Option<Pass>, RegistryError> {
        let scope = entry.scope;
        let session = self.session(scope.registry());
        let mut session = session.lock().await;
        if let Some(current) = session.pass(scope)
            && Some(&current) != entry.pass.as_ref()
        {
            // Someone else renewed it meanwhile.
            return Ok(Some(current));
        }
        let before = session.challenge.take();
        let refused_basic = entry.pass.is_some() && before == Some(Challenge::Basic);
        session.challenge = choose(response, scope.registry(), before)?;
        match session.challenge.clone() {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let credential = if refused_basic {
                    self.other_credential(&mut session, scope).await?
                } else {
                    self.credential(&mut session, scope).await?
                };
                Ok(credential.as_ref().and_then(Pass::basic))
            }
            Some(Challenge::Bearer { realm, service }) => {
                session.tokens.remove(scope);
                let service = service.as_deref();
                self.token(entry.http, &mut session, scope, &realm, service).await.map(Some)
            }
        }
    }

    /// The credential for a registry, asked for once; where there was none for something else,
    /// once more.
    async fn credential(
        &self,
        session: &mut Session,
        scope: &Scope,
    ) -> Result<Option<Credential>, RegistryError> {
        if session.credential.is_none() && !session.asked.contains(&scope.action) {
            session.credential = self.ask(scope, None).await?;
            session.asked.insert(scope.action);
        }
        Ok(session.credential.clone())
    }

    /// The credential in place of the one that was refused.
    async fn other_credential(
        &self,
        session: &mut Session,
        scope: &Scope,
    ) -> Result<Option<Credential>, RegistryError> {
        let other = self.ask(scope, session.credential.as_ref()).await?;
        if other.is_none() || other == session.credential {
            return Ok(None);
        }
        session.credential.clone_from(&other);
        Ok(other)
    }

    async fn ask(
        &self,
        scope: &Scope,
        refused: Option<&Credential>,
    ) -> Result<Option<Credential>, RegistryError> {
        let registry = scope.registry();
        let answer = self.credentials.credential(registry, scope.action, refused).await;
        answer.map_err(|source| RegistryError::Credentials { registry: registry.into(), source })
    }

    /// A new token, from the service that the registry names.
    async fn token(
        &self,
        http: &Http,
        session: &mut Session,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
    ) -> Result<Pass, RegistryError> {
        let registry = scope.registry();
        let url = token_service(http, scope, realm)?;
        let wanted = Wanted { url, service, scope };
        let mut credential = self.credential(session, scope).await?;
        let mut response = wanted.send_as(http, credential.as_ref()).await?;
        if credential.is_some()
            && matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Some(other) = self.other_credential(session, scope).await?
        {
            response = wanted.send_as(http, Some(&other)).await?;
            credential = Some(other);
        }
        if !response.status().is_success() {
            let what = || format!("the token service of registry `{registry}`");
            return Err(match response.into_error(registry, credential.is_some(), what).await {
                // The registry names a service that is none: no image is missing.
                RegistryError::NotFound { answer, .. } => RegistryError::Server { answer },
                other => other,
            });
        }
        let pass = read_token(&mut response, credential.is_some()).await?;
        session.tokens.insert(scope.clone(), pass.clone());
        Ok(pass)
    }
}

/// What the answer asks for, or else what the registry asked for before.
fn choose(
    response: &Response,
    registry: &str,
    before: Option<Challenge>,
) -> Result<Option<Challenge>, RegistryError> {
    match challenge::choose(response.headers()) {
        Ok(challenge) => Ok(Some(challenge)),
        Err(schemes) if schemes.is_empty() => Ok(before),
        Err(schemes) => Err(RegistryError::UnknownAuthentication {
            registry: registry.into(),
            schemes,
            call: response.call.clone(),
        }),
    }
}

/// A registry does not get us to send its credential without TLS to where we may not.
fn token_service(http: &Http, scope: &Scope, realm: &str) -> Result<Url, RegistryError> {
    let registry = scope.registry();
    let url = Url::parse(realm).ok().filter(|it| match it.scheme() {
        "https" => true,
        "http" => {
            let is_same = it.host_str() == Some(reference::host(registry));
            http.scheme(registry) == "http"
                && (is_same || http.scheme(&error::authority(it)) == "http")
        }
        _ => false,
    });
    url.ok_or_else(|| {
        let (registry, realm) = (registry.into(), error::message(realm.as_bytes()));
        RegistryError::UnsafeRealm { registry, realm }
    })
}

/// A token that is wanted.
struct Wanted<'a> {
    /// Of the token service.
    url: Url,
    service: Option<&'a str>,
    scope: &'a Scope,
}

impl Wanted<'_> {
    async fn send_as(
        &self,
        http: &Http,
        credential: Option<&Credential>,
    ) -> Result<Response, RegistryError> {
        if let Some(token) = credential.filter(|it| it.is_identity_token()) {
            return http.send(&self.exchange(&token.password), None).await;
        }
        let pass = credential.and_then(Pass::basic);
        http.send(&self.request(), pass.as_ref().map(|it| &it.header)).await
    }

    fn request(&self) -> Request {
        let mut url = self.url.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(self.service.map(|it| ("service", it)));
            pairs.extend_pairs(self.scope.texts().iter().map(|it| ("scope", it)));
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        Request::new(Method::GET, url)
    }

    /// Exchanges an identity token for one that lets us in (distribution's `spec/auth/oauth.md`).
    fn exchange(&self, token: &str) -> Request {
        let mut form = self.url.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "rbuild")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("scope", &self.scope.texts().join(" "))
            .append_pair("refresh_token", token);
        let body = form.query().unwrap_or_default().as_bytes().into();
        let mut request = Request { body, ..Request::new(Method::POST, self.url.clone()) };
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers.insert(CONTENT_TYPE, kind);
        request
    }
}

async fn read_token(response: &mut Response, had_credential: bool) -> Result<Pass, RegistryError> {
    let asked = Instant::now();
    let body = response.body(LONGEST_TOKEN_ANSWER).await?;
    let Some(pass) = parse_token(&body, had_credential, asked) else {
        let what = "the token service's answer holds no token".into();
        return Err(RegistryError::Garbage { what, call: response.call.clone() });
    };
    Ok(pass)
}

fn parse_token(body: &[u8], had_credential: bool, asked: Instant) -> Option<Pass> {
    let Token { primary, alias, expires_in } = serde_json::from_slice(body).ok()?;
    let token = if primary.is_empty() { alias } else { primary };
    if token.is_empty() {
        return None;
    }
    let lifetime = expires_in.unwrap_or(DEFAULT_LIFETIME).min(LONGEST_LIFETIME);
    // A tenth early, so that it does not expire on its way.
    let expires = asked + Duration::from_secs(lifetime).mul_f64(0.9);
    Pass::new("Bearer", &token, had_credential, Some(expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_does_not_show_its_password() {
        let credential = Credential { username: "ann".into(), password: "hunter2".into() };
        assert_eq!(format!("{credential:?}"), r#"Credential { username: "ann", .. }"#);
        let pass = Pass::basic(&credential).unwrap();
        assert!(format!("{pass:?}").contains("header: Sensitive"));
    }

    #[test]
    fn a_credential_goes_to_a_token_service_with_tls_only() {
        let http = Http::new(super::super::Options::default());
        for (name, realm, want) in [
            (
                "a.com/x",
                "https://auth.a.com/token?a=b",
                Some("https://auth.a.com/token?a=b&service=s+1&scope=repository%3Ax%3Apull%2Cpush"),
            ),
            ("a.com/x", "http://auth.a.com/token", None),
            ("a.com/x", "http://localhost/token", None),
            ("a.com/x", "ftp://a.com/token", None),
            ("a.com/x", "/token", None),
            ("localhost/x", "http://a.com/token", None),
            (
                "localhost/x",
                "http://localhost:1/t",
                Some("http://localhost:1/t?service=s+1&scope=repository%3Ax%3Apull%2Cpush"),
            ),
        ] {
            let reference: crate::reference::Reference = name.parse().unwrap();
            let repository = reference.repository().clone();
            let scope = Scope::new(&repository, Action::Push);
            let url = token_service(&http, &scope, realm).ok();
            let wanted = url.map(|url| Wanted { url, service: Some("s 1"), scope: &scope });
            let url = wanted.map(|it| String::from(it.request().url));
            assert_eq!(url.as_deref(), want, "for `{realm}`");
        }
    }

    #[test]
    fn tokens_expire_a_tenth_early() {
        let asked = Instant::now();
        for (body, want) in [
            (r#"{"token":"t"}"#, Some(("Bearer t", 54))),
            (r#"{"access_token":"a","expires_in":300}"#, Some(("Bearer a", 270))),
            (r#"{"token":"t","access_token":"a","expires_in":0}"#, Some(("Bearer t", 0))),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, Some(("Bearer t", 77_760))),
            (r#"{"token":"a\nb"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{"token":1}"#, None),
            ("<html>", None),
        ] {
            let pass = parse_token(body.as_bytes(), false, asked);
            let want = want.map(|(header, seconds)| {
                (header.as_bytes().to_vec(), Some(asked + Duration::from_secs(seconds)))
            });
            let found = pass.map(|it| (it.header.as_bytes().to_vec(), it.expires));
            assert_eq!(found, want, "for `{body}`");
        }
    }
}
