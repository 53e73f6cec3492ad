//! Speaks to registries of images, by the OCI distribution specification.
//!
//! Read in this order: [`Client`] (what can be asked), [`http`] (one exchange, bounded), [`auth`]
//! with [`challenge`] and [`docker_config`] (who we are), [`upload`] (a blob in one request),
//! [`retry`] (when to try again), [`error`] (what went wrong), [`ecr`] (Amazon's registries).
//!
//! **Architecture invariant:** what a registry says is not trusted: content is right by its
//! digest or it is an error, and every answer has a limit. What we say is in the names of
//! [`crate::reference`], which need no escaping.
//!
//! **Architecture invariant:** every operation is whole: it is tried again from its start, never
//! continued, so that no state of a connection or an upload can be wrong.

mod auth;
mod challenge;
pub mod docker_config;
pub mod ecr;
mod error;
mod http;
mod mount;
mod retry;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION},
};
use serde::Deserialize;

use self::{
    auth::{Action, Auth, Entry, Scope},
    http::{Http, Request, Response},
    retry::Tries,
};
pub use self::{
    auth::{Anonymous, Credential, CredentialFuture, Credentials, CredentialsError},
    error::{Answer, Call, Cause, RegistryError},
};
use crate::{
    digest::{Blob, Digest, Hashing},
    reference::{Reference, Repository},
};

/// What registries allow a manifest at most (ECR: 4,194,304 bytes).
const LONGEST_MANIFEST: usize = 4 * 1024 * 1024;
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
        Self(Arc::new(Inner { http: Http::new(options), auth: Auth::new(credentials) }))
    }

    /// The manifest or index that `reference` names: by its digest if it has one, else its tag.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest, RegistryError> {
        let scope = scope(reference.repository(), Action::Pull);
        let request = self.manifest_request(Method::GET, reference)?;
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_manifest(reference, &scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    /// The digest of the manifest that `reference` names, or nothing if there is no such one.
    pub async fn manifest_digest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = scope(reference.repository(), Action::Pull);
        let request = self.manifest_request(Method::HEAD, reference)?;
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_manifest_digest(reference, &scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                Err(RegistryError::NotFound { .. }) => return Ok(None),
                result => return result.map(Some),
            }
        }
    }

    /// Whether the repository has a blob.
    pub async fn blob_exists(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let scope = scope(repository, Action::Pull);
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let request = Request::new(Method::HEAD, url);
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_blob_exists(&scope, &request).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    /// Writes a blob to a writer that `open` gives anew for each try, and gives back the one that
    /// has all of it, verified and flushed.
    pub async fn pull_blob<W: Write + Send>(
        &self,
        repository: &Repository,
        blob: Blob,
        mut open: impl FnMut() -> io::Result<W> + Send,
        progress: Progress<'_>,
    ) -> Result<W, RegistryError> {
        let scope = scope(repository, Action::Pull);
        let url = self.url(repository, &format!("blobs/{}", blob.digest))?;
        let request = Request::new(Method::GET, url);
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_pull_blob(&scope, &request, blob, &mut open, progress).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    /// Uploads a blob, in one request, whether or not the repository has it.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        blob: Blob,
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let scope = scope(repository, Action::Push);
        let url = self.url(repository, "blobs/uploads/")?;
        let begin = Request::new(Method::POST, url);
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_push_blob(&scope, &begin, blob, open, progress).await {
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
        let digest = Digest::of(bytes);
        let scope = scope(target.repository(), Action::Push);
        let name = target.tag().map_or_else(|| digest.to_string(), ToOwned::to_owned);
        let url = self.url(target.repository(), &format!("manifests/{name}"))?;
        let mut request = Request { body: bytes.into(), ..Request::new(Method::PUT, url) };
        agree(target.digest(), digest, || Call::new(&Method::PUT, &request.url))?;
        let media_type = HeaderValue::try_from(media_type).map_err(|_| {
            let what = format!("`{}` is no media type", error::message(media_type.as_bytes()));
            RegistryError::Garbage { what, call: Call::new(&Method::PUT, &request.url) }
        })?;
        request.headers.insert(CONTENT_TYPE, media_type);
        let mut tries = Tries::new(self.0.http.options());
        loop {
            match self.try_push_manifest(target, &scope, &request, digest).await {
                Err(error) if tries.again(&error).await => {}
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

    async fn try_pull_blob<W: Write + Send>(
        &self,
        scope: &Scope,
        request: &Request,
        blob: Blob,
        open: &mut (impl FnMut() -> io::Result<W> + Send),
        progress: Progress<'_>,
    ) -> Result<W, RegistryError> {
        let Blob { digest, size } = blob;
        let unwritable = |source| RegistryError::Sink { digest, source };
        let what = || format!("blob `{digest}` of `{}`", scope.repository);
        let mut response = self.get(scope, request, what).await?;
        let call = response.call.clone();
        if let Some(found) = response.size().filter(|it| *it != size) {
            return Err(RegistryError::SizeMismatch { expected: size, found, call });
        }
        let mut sink = Hashing::new(open().map_err(unwritable)?);
        let mut received = 0;
        progress(received);
        while let Some(chunk) = response.chunk().await? {
            let chunk = chunk.as_ref();
            received += chunk.len() as u64;
            if size < received {
                return Err(RegistryError::TooLarge { limit: size, call });
            }
            sink.write_all(chunk).map_err(unwritable)?;
            progress(received);
        }
        if received < size {
            return Err(RegistryError::Cut { call, source: None });
        }
        sink.flush().map_err(unwritable)?;
        let (sink, found, _) = sink.finish();
        agree(Some(digest), found, || call)?;
        Ok(sink)
    }

    async fn try_push_blob(
        &self,
        scope: &Scope,
        begin: &Request,
        blob: Blob,
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let what = || format!("repository `{}`", scope.repository);
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        loop {
            let response = self.send(&mut entry, begin).await?;
            let response = success(response, &entry, scope, what).await?;
            let url = upload_url(&response, blob.digest)?;
            let same = url.origin() == begin.url.origin();
            let authorization = entry.authorization().filter(|_| same);
            let mut response =
                upload::put(&self.0.http, &url, authorization, blob, open, progress).await?;
            response.foreign = !same;
            if entry.renew(&response).await? {
                continue;
            }
            if response.status().as_u16() == 404 {
                let answer = Box::new(response.read_answer().await);
                return Err(RegistryError::UploadLost { answer });
            }
            let response = success(response, &entry, scope, what).await?;
            return agree(named_digest(&response), blob.digest, || response.call.clone());
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

    /// Sends a request with what it takes to be let in; anything but success is an error.
    async fn get(
        &self,
        scope: &Scope,
        request: &Request,
        what: impl FnOnce() -> String,
    ) -> Result<Response, RegistryError> {
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        let response = self.send(&mut entry, request).await?;
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
        let (registry, path) = (repository.registry(), repository.path());
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let text = format!("{}://{host}/v2/{path}/{rest}", self.0.http.scheme(registry));
        Url::parse(&text).map_err(|_| RegistryError::NoUrl(text))
    }
}

fn scope(repository: &Repository, action: Action) -> Scope {
    Scope { repository: repository.clone(), action }
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

/// Where an upload goes, with the digest that completes it.
fn upload_url(begun: &Response, digest: Digest) -> Result<Url, RegistryError> {
    let Some(location) = begun.header(LOCATION.as_str()) else {
        let what = "the answer does not say where to upload to".into();
        return Err(RegistryError::Garbage { what, call: begun.call.clone() });
    };
    let mut url = http::resolve(begun.url(), location, &begun.call)?;
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    Ok(url)
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
