//! Single exchanges over HTTP: connections, redirects, bounded answers.
//!
//! **Architecture invariant:** no answer is trusted: each is read up to a limit, and a request
//! that is led elsewhere loses its `Authorization` for good, and never goes from TLS to none.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, ClientBuilder, Method, StatusCode, Url,
    header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::{
    Options,
    error::{self, Answer, Call, Cause, RegistryError},
    retry,
    trust::{self, Trust},
    upload::Chunks,
};
use crate::reference;

const MOST_REDIRECTS: usize = 5;
const LONGEST_ERROR: usize = 64 * 1024;

/// Makes requests; keeps its connections open for the next.
#[derive(Debug)]
pub(super) struct Http {
    options: Options,
    clients: Mutex<HashMap<Peer, Result<reqwest::Client, Cause>>>,
}

/// Whom a client speaks to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    /// Whether it is this machine, which is reached past all proxies.
    near: bool,
    /// The certificates that are its own.
    certificates: Option<PathBuf>,
}

/// A request whose body is small enough to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Arc<[u8]>,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(super) struct Response {
    inner: reqwest::Response,
    idle_timeout: Duration,
    /// The request that was answered at last.
    pub(super) call: Call,
    /// Whether another host than the one that was asked answered.
    pub(super) foreign: bool,
    /// Keeps the request's body from ending while the answer is read.
    _held: Option<Chunks>,
}

impl Request {
    /// A request without headers or body.
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Arc::new([]) }
    }

    fn is_led_on(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

impl Http {
    pub(super) fn new(options: Options) -> Self {
        Self { options, clients: Mutex::default() }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// `http` for what the user marked, and for this machine unless it has certificates; `https`
    /// for all others.
    pub(super) fn scheme(&self, registry: &str) -> &'static str {
        let marked = |it: &String| it == registry || it == reference::host(registry);
        let is_marked =
            self.options.insecure.iter().any(marked) || self.options.mirrors.is_insecure(registry);
        let is_near = || reference::is_loopback(registry);
        if is_marked || is_near() && trust::folder(&self.options, registry).is_none() {
            return "http";
        }
        "https"
    }

    /// Sends a request; follows where it is led if that is without consequences.
    pub(super) async fn send(
        &self,
        request: &Request,
        mut authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = request.headers.clone();
            headers.extend(authorization.map(|it| (AUTHORIZATION, it.clone())));
            let body = reqwest::Body::from(request.body.to_vec());
            let builder = self.builder(&request.method, &url, headers)?.body(body);
            let call = Call::new(&request.method, &url);
            let patience = self.options.idle_timeout;
            let mut response = self.answer(builder.send(), &url, call, patience).await?;
            response.foreign = url.origin() != request.url.origin();
            let Some(next) = response.redirect().filter(|_| request.is_led_on()) else {
                return Ok(response);
            };
            let next = resolve(&url, next, &response.call)?;
            authorization = authorization.filter(|_| next.origin() == url.origin());
            url = next;
        }
        let (to, why) = (error::redacted(&url), "after too many redirects");
        Err(RegistryError::Redirect { to, why, call: Call::new(&request.method, &request.url) })
    }

    /// Starts a request that is not followed anywhere.
    pub(super) fn builder(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        match self.client(url) {
            Ok(client) => Ok(client.request(method.clone(), url.clone()).headers(headers)),
            Err(source) => Err(RegistryError::SetUp { source }),
        }
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, Cause> {
        let near = url.host_str().is_some_and(reference::is_loopback);
        let certificates = match url.scheme() {
            "https" => trust::folder(&self.options, &error::authority(url)),
            _ => None,
        };
        let peer = Peer { near, certificates };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&peer) {
            return client.clone();
        }
        let client = connector(&self.options, &peer);
        clients.insert(peer, client.clone());
        client
    }

    /// Waits for the answer's head, for `patience` on top of the time to connect.
    pub(super) async fn answer(
        &self,
        sent: impl Future<Output = reqwest::Result<reqwest::Response>>,
        url: &Url,
        call: Call,
        patience: Duration,
    ) -> Result<Response, RegistryError> {
        let after = self.options.connect_timeout.saturating_add(patience);
        match tokio::time::timeout(after, sent).await {
            Err(_) => Err(RegistryError::Timeout { after, call }),
            Ok(arrived) => self.arrived(arrived, url, call),
        }
    }

    /// Puts what arrived, or why nothing did, into our terms.
    pub(super) fn arrived(
        &self,
        arrived: reqwest::Result<reqwest::Response>,
        url: &Url,
        call: Call,
    ) -> Result<Response, RegistryError> {
        let idle_timeout = self.options.idle_timeout;
        match arrived {
            Ok(inner) => Ok(Response { inner, idle_timeout, call, foreign: false, _held: None }),
            Err(error) => Err(RegistryError::connection(call, url, &error)),
        }
    }
}

/// `localhost` is this machine by definition (RFC 6761), also where there is no `/etc/hosts`.
fn stay_here(builder: ClientBuilder) -> ClientBuilder {
    let loopback =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    builder.no_proxy().resolve_to_addrs("localhost", &loopback)
}

/// Trusts the roots of this machine, or our own, and what else the user named.
fn connector(options: &Options, peer: &Peer) -> Result<reqwest::Client, Cause> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .redirect(Policy::none());
        if peer.near { stay_here(builder) } else { builder }
    };
    let roots = TLS_SERVER_ROOT_CERTS.iter().filter_map(|it| Certificate::from_der(it).ok());
    Trust::read(options, peer.certificates.as_deref())?.client(builder, roots)
}

/// Where `location` leads from `base`: absolute or relative, and with what query it likes.
pub(super) fn resolve(base: &Url, location: &str, call: &Call) -> Result<Url, RegistryError> {
    let Ok(mut next) = base.join(location) else {
        let what = "the answer leads to what is no URL".into();
        return Err(RegistryError::Garbage { what, call: call.clone() });
    };
    if next.scheme() == "http" && base.scheme() == "https" && next.host() == base.host() {
        // A registry behind a proxy that ends TLS may not know that it is spoken to with TLS.
        let _ = next.set_scheme("https");
    }
    let why = match (base.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => None,
        (_, "http") => Some("which has no TLS"),
        _ => Some("which is no web address"),
    };
    if let Some(why) = why {
        let to = error::redacted(&next);
        return Err(RegistryError::Redirect { to, why, call: call.clone() });
    }
    // What stands there would be sent on as a credential.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(next)
}

impl Response {
    /// Keeps the request's body from ending while the answer is read.
    pub(super) fn holding(self, body: Chunks) -> Self {
        Self { _held: Some(body), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(super) fn url(&self) -> &Url {
        self.inner.url()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The size that the answer says it has.
    pub(super) fn size(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// A header, if it is readable text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    fn redirect(&self) -> Option<&str> {
        let leads_on = matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        self.header(LOCATION.as_str()).filter(|_| leads_on)
    }

    /// The next bytes of the body, as they come; nothing at its end.
    pub(super) async fn chunk(
        &mut self,
    ) -> Result<Option<impl AsRef<[u8]> + Send + use<>>, RegistryError> {
        let call = || self.call.clone();
        match tokio::time::timeout(self.idle_timeout, self.inner.chunk()).await {
            Err(_) => Err(RegistryError::Timeout { after: self.idle_timeout, call: call() }),
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                Err(RegistryError::Cut { call: call(), source: Some(Cause::of(&error)) })
            }
        }
    }

    /// The whole body, which must not be longer than `limit`.
    pub(super) async fn body(&mut self, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(chunk.as_ref());
            if limit < body.len() {
                let (limit, call) = (limit as u64, self.call.clone());
                return Err(RegistryError::TooLarge { limit, call });
            }
        }
        Ok(body)
    }

    /// As much of the body as a message is made from; a connection that ends is no further error.
    async fn start_of_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            body.extend_from_slice(chunk.as_ref());
            if LONGEST_ERROR <= body.len() {
                body.truncate(LONGEST_ERROR);
                break;
            }
        }
        body
    }

    /// The error that this answer is, when it was not what was asked for.
    pub(super) async fn into_error(
        mut self,
        registry: &str,
        had_credential: bool,
        what: impl FnOnce() -> String,
    ) -> RegistryError {
        let answer = Box::new(self.read_answer().await);
        let registry = registry.to_owned();
        match answer.status {
            // What stands behind the registry has our credential neither seen nor refused.
            401 | 403 if self.foreign => RegistryError::Server { answer },
            401 => RegistryError::Unauthorized { registry, had_credential, answer },
            403 => RegistryError::Denied { registry, had_credential, answer },
            404 => RegistryError::NotFound { what: what(), answer },
            429 => RegistryError::TooManyRequests { answer },
            400 if answer.is_throttled() => RegistryError::TooManyRequests { answer },
            400 if answer.is_corrupted() => RegistryError::Corrupted { answer },
            // 499 is ECR's way to say that it gave up itself.
            408 | 499 | 500..=599 => RegistryError::Server { answer },
            _ => RegistryError::Refused { answer },
        }
    }

    /// What was answered in place of what was asked for.
    pub(super) async fn read_answer(&mut self) -> Answer {
        let status = self.status().as_u16();
        let limit = if status == 429 { self.limit() } else { None };
        let date = self.header(DATE.as_str());
        let retry_after = self.header(RETRY_AFTER.as_str()).and_then(|it| retry::after(it, date));
        let said = error::message(&self.start_of_body().await);
        let message = limit.map_or(said.clone(), |it| format!("{said} ({it})"));
        Answer { status, message, retry_after, call: self.call.clone() }
    }

    /// The limit that Docker Hub tells: `100;w=21600` are 100 pulls in 21,600 seconds.
    fn limit(&self) -> Option<String> {
        let number = |name: &str| {
            let (count, window) = self.header(name)?.split_once(";w=")?;
            Some((count.parse::<u64>().ok()?, window.parse::<u64>().ok()?))
        };
        let (most, window) = number("ratelimit-limit")?;
        let left = number("ratelimit-remaining").map(|(left, _)| format!(", {left} are left"));
        let left = left.unwrap_or_default();
        Some(format!("the limit is {most} in {} minutes{left}", window / 60))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    fn lead(base: &str, location: &str) -> String {
        let base = Url::parse(base).unwrap();
        match resolve(&base, location, &Call::new(&Method::GET, &base)) {
            Ok(url) => url.into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_location_leads_only_where_it_is_safe() {
        let base = "https://a.com/v2/x/blobs/uploads/";
        for (base, location, want) in [
            (base, "/v2/y?_state=a%3D", "https://a.com/v2/y?_state=a%3D"),
            (base, "y", "https://a.com/v2/x/blobs/uploads/y"),
            (base, "https://b.com/y", "https://b.com/y"),
            (base, "//b.com/y", "https://b.com/y"),
            (base, "http://a.com/y?q", "https://a.com/y?q"),
            (base, "https://u:p@b.com/y", "https://b.com/y"),
            (
                base,
                "http://b.com/y?secret",
                "the registry redirects to `http://b.com/y`, which has no TLS (GET \
                 https://a.com/v2/x/blobs/uploads/)",
            ),
            (
                base,
                "file:///etc/passwd",
                "the registry redirects to `file:///etc/passwd`, which is no web address (GET \
                 https://a.com/v2/x/blobs/uploads/)",
            ),
            (
                base,
                "https://[",
                "the answer leads to what is no URL: this is no registry, or a broken one (GET \
                 https://a.com/v2/x/blobs/uploads/)",
            ),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5000/y", "http://127.0.0.1:5000/y"),
            ("http://127.0.0.1:5000/v2/", "https://b.com/y", "https://b.com/y"),
        ] {
            assert_eq!(lead(base, location), want, "for `{location}`");
        }
    }

    #[test]
    fn only_loopback_and_what_is_marked_is_spoken_to_without_tls() {
        let insecure = vec!["registry.lan:5000".into(), "10.0.0.1".into()];
        let http = Http::new(Options { insecure, ..Options::default() });
        for (registry, want) in [
            ("localhost:5000", "http"),
            ("127.0.0.1", "http"),
            ("[::1]:5000", "http"),
            ("registry.lan:5000", "http"),
            ("registry.lan:5001", "https"),
            ("registry.lan", "https"),
            ("10.0.0.1:80", "http"),
            ("docker.io", "https"),
        ] {
            assert_eq!(http.scheme(registry), want, "for `{registry}`");
        }
    }

    #[test]
    fn our_own_roots_make_a_client_too() {
        let roots = TLS_SERVER_ROOT_CERTS.iter().map(|it| Certificate::from_der(it).unwrap());
        assert!(reqwest::Client::builder().tls_certs_only(roots).build().is_ok());
    }

    #[tokio::test]
    async fn a_server_without_tls_is_told_from_one_that_is_not_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            io::copy(&mut connection, &mut io::sink())
        });
        let http = Http::new(Options::default());
        let error = http.send(&Request::new(Method::GET, url), None).await.unwrap_err();
        assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
        assert!(!error.retryable());
    }
}
