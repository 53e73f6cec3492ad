//! Speaks to registries of images, by the OCI distribution specification.
//!
//! Read in this order: [`Client`] (what can be asked), [`http`] (one exchange, bounded), [`auth`]
//! with [`challenge`] and [`docker_config`] (who we are), [`upload`] (a body as it is read),
//! [`pull`] (a blob comes, and a cut download goes on), [`read`] (it comes as it is read), [`push`] (a blob goes, or is mounted),
//! [`streamed`] (one whose digest is not known yet), [`mirrors`] (where to pull from instead),
//! [`trust`] (certificates), [`retry`] (when to try again), [`error`] (what went wrong), [`ecr`]
//! (Amazon's registries).
//!
//! **Architecture invariant:** what a registry says is not trusted: content is right by its
//! digest or it is an error, and every answer has a limit. What we say is in the names of
//! [`crate::reference`], which need no escaping.
//!
//! **Architecture invariant:** an upload is whole: it is tried again from its start, never
//! continued, so that no state of it can be wrong. A download goes on from the bytes that were
//! received and hashed; whatever the registry says of it, the digest decides at the end.

mod auth;
mod challenge;
pub mod docker_config;
pub mod ecr;
mod error;
mod http;
pub mod mirrors;
mod pull;
mod push;
mod read;
mod retry;
#[cfg(test)]
pub(crate) mod scripted;
mod streamed;
#[cfg(test)]
mod tests;
mod trust;
mod upload;

use std::{
    collections::HashSet,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, RANGE},
};
use serde::Deserialize;

pub use self::{
    auth::{Action, Anonymous, Credential, CredentialFuture, Credentials, CredentialsError},
    error::{Answer, Call, Cause, RegistryError},
    push::Placed,
    read::Reading,
    streamed::Stream,
};
use self::{
    auth::{Auth, Entry, Scope},
    http::{Http, Request, Response},
    mirrors::{By, Mirrors},
    retry::Tries,
};
use crate::{
    digest::{Blob, Digest},
    reference::{Reference, Repository},
};

/// What registries allow a manifest at most (ECR: 4,194,304 bytes).
pub(crate) const LONGEST_MANIFEST: usize = 4 * 1024 * 1024;
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const CONTENT_DIGEST: &str = "docker-content-digest";

/// How to speak to registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registries without TLS: `host:port`, or `host` for all its ports. This machine is always.
    pub insecure: Vec<String>,
    /// Where to pull from instead.
    pub mirrors: Mirrors,
    /// Is told of a mirror that failed, once; the next one, or the origin, is asked then.
    pub mirror_failed: fn(&Repository, &RegistryError),
    /// Folders with a folder `HOST[:PORT]` for each registry that has certificates of its own: CAs
    /// in `*.crt`, ours in `NAME.cert` with its `NAME.key` (as docker has them).
    pub certificates: Vec<PathBuf>,
    /// More CAs that are trusted for all registries: files of certificates in PEM.
    pub authorities: Vec<PathBuf>,
    /// How often one operation is tried before it fails.
    pub tries: u32,
    /// The pause after the first try; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause, whatever a registry asks for.
    pub longest_pause: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a connection may be idle while something is awaited from it.
    pub idle_timeout: Duration,
}

/// A connection to all registries: one for a process, and cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: Http,
    auth: Auth,
    /// Mirrors that failed: they are not asked again.
    failed: Mutex<HashSet<String>>,
}

/// A manifest as a registry gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What kind of manifest it is.
    pub media_type: String,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// The digest of these bytes.
    pub digest: Digest,
}

/// Gives a blob's content from its start; called again for each try.
pub type Open<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// Is told how many of a blob's bytes came or went; starts again at 0 with each try.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Mirrors::default(),
            mirror_failed: |_, _| (),
            certificates: Vec::new(),
            authorities: Vec::new(),
            tries: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
        }
    }
}

impl Client {
    /// A client that knows who it is from `credentials`; connects to nothing yet.
    pub fn new(options: Options, credentials: Arc<dyn Credentials>) -> Self {
        let (http, auth) = (Http::new(options), Auth::new(credentials));
        Self(Arc::new(Inner { http, auth, failed: Mutex::default() }))
    }

    /// Makes sure that a registry lets us in. `Ok(false)` if it lets in everyone.
    pub async fn log_in(&self, registry: &str) -> Result<bool, RegistryError> {
        let name = format!("{registry}/login");
        let reference: Reference =
            name.parse().map_err(|_| RegistryError::NoUrl(registry.to_owned()))?;
        let scope = Scope::new(reference.repository(), Action::LogIn);
        let request = Request::new(Method::GET, self.base(registry, "")?);
        let mut tries = self.tries();
        loop {
            match self.try_log_in(&scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    async fn try_log_in(&self, scope: &Scope, request: &Request) -> Result<bool, RegistryError> {
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        let response = self.send(&mut entry, request).await?;
        let what = || format!("registry `{}`", scope.registry());
        success(response, &entry, scope, what).await?;
        Ok(entry.had_credential())
    }

    fn tries(&self) -> Tries<'_> {
        Tries::new(self.0.http.options())
    }

    /// For what there is another place to get it from.
    fn few_tries(&self) -> Tries<'_> {
        Tries::at_most(self.0.http.options(), 2)
    }

    /// The mirrors of a repository that have not failed yet.
    fn mirrors(&self, repository: &Repository, by: By) -> Result<Vec<Repository>, RegistryError> {
        let mut mirrors = self.0.http.options().mirrors.of(repository, by)?;
        let failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        mirrors.retain(|it| !failed.contains(it.registry()));
        Ok(mirrors)
    }

    /// Where the repository itself is.
    fn origin(&self, repository: &Repository) -> Result<Repository, RegistryError> {
        self.0.http.options().mirrors.origin(repository)
    }

    fn allowed(&self, repository: &Repository) -> Result<(), RegistryError> {
        self.0.http.options().mirrors.allowed(repository)
    }

    /// That a mirror has not got something is no fault of it; one with a fault is left alone.
    fn pass_over(&self, mirror: &Repository, error: &RegistryError) {
        if matches!(error, RegistryError::NotFound { .. }) {
            return;
        }
        let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.insert(mirror.registry().to_owned()) {
            (self.0.http.options().mirror_failed)(mirror, error);
        }
    }

    /// The manifest or index that `reference` names: by its digest if it has one, else its tag.
    /// Mirrors are asked first.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest, RegistryError> {
        let repository = reference.repository();
        for mirror in self.mirrors(repository, By::of(reference))? {
            let there = reference.in_repository(&mirror);
            match self.manifest_at(&there, self.few_tries()).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.pass_over(&mirror, &error),
            }
        }
        let there = reference.in_repository(&self.origin(repository)?);
        self.manifest_at(&there, self.tries()).await
    }

    /// The digest of the manifest that `reference` names, or nothing if there is no such one.
    /// Mirrors are asked first.
    pub async fn manifest_digest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Digest>, RegistryError> {
        let repository = reference.repository();
        for mirror in self.mirrors(repository, By::of(reference))? {
            let there = reference.in_repository(&mirror);
            match self.manifest_digest_at(&there, self.few_tries()).await {
                Ok(Some(digest)) => return Ok(Some(digest)),
                Ok(None) => {}
                Err(error) => self.pass_over(&mirror, &error),
            }
        }
        let there = reference.in_repository(&self.origin(repository)?);
        self.manifest_digest_at(&there, self.tries()).await
    }

    /// As [`Client::manifest_digest`], of the registry that the name names, and no mirror of it:
    /// where a push goes.
    pub async fn pushed_digest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Digest>, RegistryError> {
        self.allowed(reference.repository())?;
        self.manifest_digest_at(reference, self.tries()).await
    }

    async fn manifest_at(
        &self,
        reference: &Reference,
        mut tries: Tries<'_>,
    ) -> Result<Manifest, RegistryError> {
        let scope = Scope::new(reference.repository(), Action::Pull);
        let request = self.manifest_request(Method::GET, reference)?;
        loop {
            match self.try_manifest(reference, &scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    async fn manifest_digest_at(
        &self,
        reference: &Reference,
        mut tries: Tries<'_>,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = Scope::new(reference.repository(), Action::Pull);
        let request = self.manifest_request(Method::HEAD, reference)?;
        loop {
            match self.try_manifest_digest(reference, &scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                Err(RegistryError::NotFound { .. }) => return Ok(None),
                result => return result.map(Some),
            }
        }
    }

    /// Whether the repository has a blob; mirrors are not asked.
    pub async fn blob_exists(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let scope = Scope::new(repository, Action::Pull);
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let request = Request::new(Method::HEAD, url);
        let mut tries = self.tries();
        loop {
            match self.try_blob_exists(&scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    /// Puts a manifest under the tag that `target` names, or else under its own digest.
    pub async fn push_manifest(
        &self,
        target: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        self.allowed(target.repository())?;
        let digest = Digest::of(bytes);
        let scope = Scope::new(target.repository(), Action::Push);
        let name = target.tag().map_or_else(|| digest.to_string(), ToOwned::to_owned);
        let url = self.url(target.repository(), &format!("manifests/{name}"))?;
        let mut request = Request { body: bytes.into(), ..Request::new(Method::PUT, url) };
        agree(target.digest(), digest, || Call::new(&Method::PUT, &request.url))?;
        let media_type = HeaderValue::try_from(media_type).map_err(|_| {
            let what = format!("`{}` is no media type", error::message(media_type.as_bytes()));
            RegistryError::Garbage { what, call: Call::new(&Method::PUT, &request.url) }
        })?;
        request.headers.insert(CONTENT_TYPE, media_type);
        let (mut tries, mut once_more) = (self.tries(), self.few_tries());
        loop {
            match self.try_push_manifest(target, &scope, &request, digest).await {
                Err(error) if tries.again(&error).await => {}
                // It was read here as a manifest: it may have arrived as something else.
                Err(error) if error.is_invalid_manifest() && once_more.anew(&error).await => {}
                result => return result.map(|()| digest),
            }
        }
    }

    async fn try_manifest(
        &self,
        reference: &Reference,
        scope: &Scope,
        request: &Request,
    ) -> Result<Manifest, RegistryError> {
        let mut response = self.get(scope, request, || format!("image `{reference}`")).await?;
        let bytes = response.body(LONGEST_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        agree(reference.digest(), digest, || response.call.clone())?;
        agree(named_digest(&response), digest, || response.call.clone())?;
        let media_type = media_type(&response, &bytes)?;
        Ok(Manifest { media_type, bytes, digest })
    }

    /// A registry that does not answer HEAD, or answers without a digest, is asked for it all.
    async fn try_manifest_digest(
        &self,
        reference: &Reference,
        scope: &Scope,
        head: &Request,
    ) -> Result<Digest, RegistryError> {
        let what = || format!("image `{reference}`");
        match self.get(scope, head, what).await {
            Ok(response) => {
                if let Some(digest) = named_digest(&response) {
                    agree(reference.digest(), digest, || response.call.clone())?;
                    return Ok(digest);
                }
            }
            Err(RegistryError::Refused { .. }) => {}
            Err(RegistryError::Server { answer }) if answer.status == 501 => {}
            Err(error) => return Err(error),
        }
        let get = Request { method: Method::GET, ..head.clone() };
        Ok(self.try_manifest(reference, scope, &get).await?.digest)
    }

    async fn try_blob_exists(
        &self,
        scope: &Scope,
        request: &Request,
    ) -> Result<bool, RegistryError> {
        match self.get(scope, request, || "blob".into()).await {
            Ok(_) => Ok(true),
            // Storage behind a registry may not answer HEAD: then it costs an upload to be sure.
            Err(RegistryError::NotFound { .. } | RegistryError::Refused { .. }) => Ok(false),
            Err(RegistryError::Server { answer }) if answer.status < 408 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn try_push_manifest(
        &self,
        target: &Reference,
        scope: &Scope,
        request: &Request,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let what = || format!("repository `{}`, or a blob of image `{target}`", scope.repository);
        let response = self.get(scope, request, what).await?;
        agree(named_digest(&response), digest, || response.call.clone())
    }

    /// Sends a request with what it takes to be let in; anything but success is an error. A piece
    /// of what was asked for will do if a piece was asked for.
    async fn get(
        &self,
        scope: &Scope,
        request: &Request,
        what: impl FnOnce() -> String,
    ) -> Result<Response, RegistryError> {
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        let response = self.send(&mut entry, request).await?;
        if response.status().as_u16() == 206 && request.headers.contains_key(RANGE) {
            return Ok(response);
        }
        success(response, &entry, scope, what).await
    }

    async fn send(
        &self,
        entry: &mut Entry<'_>,
        request: &Request,
    ) -> Result<Response, RegistryError> {
        loop {
            let response = self.0.http.send(request, entry.authorization()).await?;
            if !entry.renew(&response).await? {
                return Ok(response);
            }
        }
    }

    fn manifest_request(
        &self,
        method: Method,
        reference: &Reference,
    ) -> Result<Request, RegistryError> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => return Err(RegistryError::Unnamed(reference.to_string())),
        };
        let url = self.url(reference.repository(), &format!("manifests/{name}"))?;
        let mut request = Request::new(method, url);
        request.headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        Ok(request)
    }

    fn url(&self, repository: &Repository, rest: &str) -> Result<Url, RegistryError> {
        self.base(repository.registry(), &format!("{}/{rest}", repository.path()))
    }

    fn base(&self, registry: &str, rest: &str) -> Result<Url, RegistryError> {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let text = format!("{}://{host}/v2/{rest}", self.0.http.scheme(registry));
        Url::parse(&text).map_err(|_| RegistryError::NoUrl(text))
    }
}

/// Any of 200, 201, 202 and 204 will do: registries differ in which they give.
async fn success(
    response: Response,
    entry: &Entry<'_>,
    scope: &Scope,
    what: impl FnOnce() -> String,
) -> Result<Response, RegistryError> {
    if matches!(response.status().as_u16(), 200 | 201 | 202 | 204) {
        return Ok(response);
    }
    Err(response.into_error(scope.registry(), entry.had_credential(), what).await)
}

/// The digest that the answer names, if it is one of ours: others cannot be compared.
fn named_digest(response: &Response) -> Option<Digest> {
    response.header(CONTENT_DIGEST)?.parse().ok()
}

fn agree(
    expected: Option<Digest>,
    found: Digest,
    call: impl FnOnce() -> Call,
) -> Result<(), RegistryError> {
    match expected {
        Some(expected) if expected != found => {
            Err(RegistryError::DigestMismatch { expected, found, call: call() })
        }
        _ => Ok(()),
    }
}

/// What of a manifest says what kind of manifest it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: String,
}

/// The kind of a manifest: where header and content differ, either could deceive someone.
fn media_type(response: &Response, bytes: &[u8]) -> Result<String, RegistryError> {
    let garbage = |what: String| RegistryError::Garbage { what, call: response.call.clone() };
    let Ok(Kind { media_type: inner }) = serde_json::from_slice(bytes) else {
        return Err(garbage("the answer is not the JSON of a manifest".into()));
    };
    let outer = response.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let outer = outer.split(';').next().unwrap_or_default().trim();
    match (outer, inner.as_str()) {
        (outer, "") if is_specific(outer) => Ok(outer.into()),
        (outer, inner) if !inner.is_empty() && (outer == inner || !is_specific(outer)) => {
            Ok(inner.into())
        }
        (_, "") => Err(garbage("the answer does not say what kind of manifest it is".into())),
        (outer, inner) => {
            let (outer, inner) =
                (error::message(outer.as_bytes()), error::message(inner.as_bytes()));
            Err(garbage(format!("a manifest is sent as `{outer}`, and says it is `{inner}`")))
        }
    }
}

fn is_specific(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.")
}
