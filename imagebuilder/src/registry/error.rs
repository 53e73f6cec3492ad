//! What can go wrong with a registry, told so that the caller can decide what to do about it.
//!
//! **Architecture invariant:** no query, user or password of a URL, and no credential, gets into
//! an error; what a registry says is cut short and cleaned of control characters.

use std::{error::Error as _, fmt, io, time::Duration};

use reqwest::{Method, Url};
use serde::Deserialize;
use thiserror::Error;

use super::auth::CredentialsError;
use crate::digest::Digest;

/// The longest text of a registry that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;

/// A request, as it may be shown: without query, user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `GET`, `PUT` …
    pub method: Method,
    /// Scheme, host, port and path.
    pub url: String,
}

/// What a registry answered in place of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub call: Call,
    /// The HTTP status.
    pub status: u16,
    /// The registry's own words, if it said any.
    pub message: String,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Whether content that was put there has another digest than was said.
    pub(super) fn is_corrupted(&self) -> bool {
        self.call.method == Method::PUT && self.message.contains("DIGEST_INVALID")
    }

    /// Whether it is one of AWS's ways to say that it is asked too much, which need not be 429.
    pub(super) fn is_throttled(&self) -> bool {
        const SAID: [&str; 3] = ["ThrottlingException", "TOOMANYREQUESTS", "Rate exceeded"];
        SAID.iter().any(|it| self.message.contains(it))
    }
}

/// The innermost cause of a failed connection, in the words of the layer that saw it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Cause(String);

/// Why a registry did not do what it was asked.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// There is no such manifest, blob or repository.
    #[error("{what} was not found ({answer})")]
    NotFound {
        /// What was looked for.
        what: String,
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The registry wants a credential, or a better one.
    #[error("{}", unauthorized(registry, *had_credential, answer))]
    Unauthorized {
        /// The registry, as in the names of its images.
        registry: String,
        /// Whether a credential was known, and refused.
        had_credential: bool,
        /// The registry's (or its token service's) answer.
        answer: Box<Answer>,
    },
    /// The registry knows who asks, and does not allow it.
    #[error("registry `{registry}` does not allow it ({answer})")]
    Denied {
        /// The registry, as in the names of its images.
        registry: String,
        /// Whether a credential was sent.
        had_credential: bool,
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The registry offers no way to log in that is known here.
    #[error(
        "registry `{registry}` wants authentication by `{schemes}`, which is not supported ({call})"
    )]
    UnknownAuthentication {
        /// The registry, as in the names of its images.
        registry: String,
        /// What it offers.
        schemes: String,
        /// The request.
        call: Call,
    },
    /// The registry sends credentials to a token service that has no TLS.
    #[error("registry `{registry}` wants its credential sent to `{realm}`, which is not safe")]
    UnsafeRealm {
        /// The registry, as in the names of its images.
        registry: String,
        /// The token service.
        realm: String,
    },
    /// No credential could be got.
    #[error("no credential for registry `{registry}` could be got")]
    Credentials {
        /// The registry, as in the names of its images.
        registry: String,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The registry asks to slow down, and did so until the last try.
    #[error("the registry gets too many requests ({answer})")]
    TooManyRequests {
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The registry has a fault.
    #[error("the registry failed ({answer})")]
    Server {
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The registry finds the request itself wrong: a tag that may not change, a bad manifest.
    #[error("the registry refused it ({answer})")]
    Refused {
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The registry forgot an upload before it was complete.
    #[error("the registry lost the upload ({answer})")]
    UploadLost {
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// What the registry received is not what was sent: its digest is another.
    #[error("content arrived as something else ({answer})")]
    Corrupted {
        /// The registry's answer.
        answer: Box<Answer>,
    },
    /// The answer is none that a registry gives.
    #[error("{what}: this is no registry, or a broken one ({call})")]
    Garbage {
        /// What is wrong with it.
        what: String,
        /// The request.
        call: Call,
    },
    /// The registry leads elsewhere, where we do not go.
    #[error("the registry redirects to `{to}`, {why} ({call})")]
    Redirect {
        /// Where to, without query.
        to: String,
        /// Why not.
        why: &'static str,
        /// The request.
        call: Call,
    },
    /// The user's configuration forbids it.
    #[error("`{0}` is blocked by the configuration of registries")]
    Blocked(String),
    /// The configuration leads to where no repository can be.
    #[error(
        "the configuration of registries leads from `{from}` to `{to}`, which is no repository"
    )]
    Misled {
        /// The repository that was asked for.
        from: String,
        /// Where it should be.
        to: String,
    },
    /// The name of an image that is asked for says nothing of which one.
    #[error("image name `{0}` has neither tag nor digest")]
    Unnamed(String),
    /// The registry's host is none that there can be.
    #[error("`{0}` is no URL")]
    NoUrl(String),
    /// It is other content than the digest says.
    #[error("content has digest {found} in place of {expected} ({call})")]
    DigestMismatch {
        /// The digest that was asked for, or that the registry names.
        expected: Digest,
        /// The digest of the content.
        found: Digest,
        /// The request.
        call: Call,
    },
    /// A blob is shorter or longer than it should be.
    #[error("the registry has {found} bytes in place of {expected} ({call})")]
    SizeMismatch {
        /// The size that was asked for.
        expected: u64,
        /// The size that the registry names.
        found: u64,
        /// The request.
        call: Call,
    },
    /// The answer is longer than it may be.
    #[error("the answer is longer than {limit} bytes ({call})")]
    TooLarge {
        /// What it may be at most.
        limit: u64,
        /// The request.
        call: Call,
    },
    /// The answer, or the connection, ended early.
    #[error("the connection ended early ({call})")]
    Cut {
        /// The request.
        call: Call,
        /// What the connection says, if it says anything.
        #[source]
        source: Option<Cause>,
    },
    /// Nothing came or went for too long.
    #[error("nothing happened for {} seconds ({call})", after.as_secs())]
    Timeout {
        /// How long.
        after: Duration,
        /// The request.
        call: Call,
    },
    /// There is no connection.
    #[error("`{host}` cannot be reached ({call})")]
    Connect {
        /// Host and port.
        host: String,
        /// The request.
        call: Call,
        /// Why.
        #[source]
        source: Cause,
    },
    /// There is a connection, and it cannot be trusted.
    #[error("`{host}` gives no TLS connection that can be trusted ({call})")]
    Tls {
        /// Host and port.
        host: String,
        /// The request.
        call: Call,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No request can be made at all.
    #[error("HTTP cannot be set up")]
    SetUp {
        /// Why.
        #[source]
        source: Cause,
    },
    /// What was to be pushed cannot be read.
    #[error("content of blob {digest}, to be pushed, cannot be read")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was pulled cannot be written.
    #[error("content of blob {digest}, pulled, cannot be written")]
    Sink {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    /// Whether the same request may succeed a little later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Server { answer } => {
                matches!(answer.status, 408 | 499 | 500 | 502 | 503 | 504 | 522)
            }
            Self::TooManyRequests { .. }
            | Self::UploadLost { .. }
            | Self::Cut { .. }
            | Self::Timeout { .. }
            | Self::Connect { .. }
            | Self::Corrupted { .. }
            | Self::DigestMismatch { .. } => true,
            _ => false,
        }
    }

    /// Of the errors of two repositories the one that says more: that one has not got something
    /// says little.
    pub(crate) fn graver(before: Option<Self>, error: Self) -> Self {
        match before {
            Some(before) if !matches!(before, Self::NotFound { .. }) => before,
            _ => error,
        }
    }

    /// Whether what came is not what was asked for, which may have happened on the way.
    pub(super) fn is_wrong_content(&self) -> bool {
        matches!(
            self,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::TooLarge { .. }
        )
    }

    /// Whether the registry finds a manifest to be none.
    pub(super) fn is_invalid_manifest(&self) -> bool {
        matches!(self, Self::Refused { answer } if answer.message.contains("MANIFEST_INVALID"))
    }

    /// Whether the registry keeps a tag as it is: told by ECR in words alone.
    pub fn is_immutable_tag(&self) -> bool {
        let (Self::Refused { answer } | Self::Denied { answer, .. }) = self else { return false };
        let said = answer.message.to_lowercase();
        said.contains("immutable") || said.contains("imagetagalreadyexists")
    }

    /// Whether one may not do that, though perhaps something else.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Unauthorized { .. })
    }

    /// Whether the registry has no such repository, and does not make it by itself.
    pub fn is_unknown_repository(&self) -> bool {
        let Self::NotFound { answer, .. } = self else { return false };
        ["NAME_UNKNOWN", "RepositoryNotFound"].iter().any(|it| answer.message.contains(it))
    }

    pub(super) fn is_sink(&self) -> bool {
        matches!(self, Self::Sink { .. })
    }

    /// How long the registry asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { answer } | Self::TooManyRequests { answer } => answer.retry_after,
            _ => None,
        }
    }

    /// Puts the failure of a connection into our words.
    pub(super) fn connection(call: Call, url: &Url, error: &reqwest::Error) -> Self {
        let (host, source) = (authority(url), Cause::of(error));
        if is_tls(error) {
            return Self::Tls { host, call, source };
        }
        if error.is_connect() || error.is_timeout() {
            return Self::Connect { host, call, source };
        }
        Self::Cut { call, source: Some(source) }
    }
}

impl Call {
    pub(super) fn new(method: &Method, url: &Url) -> Self {
        Self { method: method.clone(), url: redacted(url) }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.status)?;
        if self.message.is_empty() {
            return Ok(());
        }
        write!(f, " {}", self.message)
    }
}

impl Cause {
    pub(super) fn said(text: String) -> Self {
        Self(text)
    }

    /// The innermost cause says what happened; what lies around it says only where.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let innermost = causes(error).last().map(ToString::to_string);
        // An error's own text may hold the URL with its query; those of its causes do not.
        Self(clean(&innermost.unwrap_or_else(|| "the request is not valid".into())))
    }
}

type Source = dyn std::error::Error + 'static;

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &Source> {
    std::iter::successors(error.source(), |&it: &&Source| it.source())
}

/// rustls tells its errors as invalid data, wrapped in one or two I/O errors.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut errors = causes(error).filter_map(|it| it.downcast_ref::<io::Error>());
    error.is_connect() && errors.any(is_invalid_data)
}

fn is_invalid_data(error: &io::Error) -> bool {
    let inner = || error.get_ref()?.downcast_ref::<io::Error>();
    error.kind() == io::ErrorKind::InvalidData || inner().is_some_and(is_invalid_data)
}

fn unauthorized(registry: &str, had_credential: bool, answer: &Answer) -> String {
    if had_credential {
        return format!("registry `{registry}` refused the credential ({answer})");
    }
    format!("registry `{registry}` wants a credential, and none is known ({answer})")
}

/// What of a URL may be shown: an allow-list, since tokens lie in queries and in passwords.
pub(super) fn redacted(url: &Url) -> String {
    clean(&format!("{}://{}{}", url.scheme(), authority(url), url.path()))
}

/// Host and port of a URL.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The errors of the distribution spec, and the shapes that others use.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
    #[serde(flatten)]
    only: Entry,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default, alias = "error", deserialize_with = "text")]
    code: String,
    #[serde(default, alias = "error_description", alias = "details", deserialize_with = "text")]
    message: String,
}

/// A text, and nothing where it is something else.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

impl Entry {
    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }
}

/// The registry's own words in the body of an answer.
pub(super) fn message(body: &[u8]) -> String {
    if let Ok(Body { errors, only }) = serde_json::from_slice(body) {
        let entries = if errors.is_empty() { vec![only] } else { errors };
        return clean(&entries.iter().map(Entry::said).collect::<Vec<_>>().join("; "));
    }
    let text = String::from_utf8_lossy(body);
    match text.trim_start() {
        it if it.starts_with('<') => "(a page of HTML or XML)".into(),
        it => clean(it.lines().next().unwrap_or_default()),
    }
}

/// Cut short, and without anything that could move a terminal's cursor.
fn clean(text: &str) -> String {
    let is_hostile = |it: &char| {
        it.is_control()
            || matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let kept: String = text.trim().chars().filter(|it| !is_hostile(it)).collect();
    if kept.chars().count() <= LONGEST_MESSAGE {
        return kept;
    }
    kept.chars().take(LONGEST_MESSAGE).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_found_in_what_it_sends() {
        let long = "x".repeat(500);
        for (body, want) in [
            (r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, "DENIED: no"),
            (r#"{"errors":[{"code":"A","message":"a"},{"code":"B"}]}"#, "A: a; B"),
            (r#"{"errors":[{"code":"A","message":null,"detail":{"x":1}}]}"#, "A"),
            (r#"{"errors":[]}"#, ""),
            (r#"{"message":"Not Found"}"#, "Not Found"),
            (r#"{"error":"invalid_scope","error_description":"bad"}"#, "invalid_scope: bad"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (
                "Your Authorization Token has expired.\nmore",
                "Your Authorization Token has expired.",
            ),
            ("\u{1b}[31mred\u{202e}\r\n", "[31mred"),
            ("<html><body>hello", "(a page of HTML or XML)"),
            ("", ""),
            ("[1]", "[1]"),
            (&long, &format!("{}…", "x".repeat(400))),
        ] {
            assert_eq!(message(body.as_bytes()), want, "for `{body}`");
        }
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://u:p@example.com:8443/v2/x?_state=secret#f").unwrap();
        assert_eq!(redacted(&url), "https://example.com:8443/v2/x");
    }
}
