//! Uploads blobs, or mounts them from another repository of the same registry.
//!
//! **Architecture invariant:** a mount is a wish: whatever else than "created" a registry answers,
//! the blob is uploaded.

use reqwest::{Method, Url, header::LOCATION};

use super::{
    Action, Client, Open, Progress, RegistryError, Scope, agree,
    auth::Entry,
    http::{self, Request, Response},
    named_digest, success, upload,
};
use crate::{
    digest::{Blob, Digest},
    reference::Repository,
};

/// Repositories that are asked for a blob before it is uploaded: each costs a request.
const MOST_MOUNTS: usize = 2;

/// How a blob got to where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was uploaded.
    Uploaded,
    /// The registry took it from another of its repositories.
    Mounted,
}

/// What a registry did about a blob that could be mounted.
enum Mount {
    Done,
    /// It opened an upload in place of it.
    Opened(Box<Response>),
    Declined,
}

impl Client {
    /// Uploads a blob, in one request, whether or not the repository has it.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        blob: Blob,
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        self.allowed(repository)?;
        let scope = Scope::new(repository, Action::Push);
        let begin = self.begin_upload(repository)?;
        let mut tries = self.tries();
        loop {
            match self.try_push_blob(&scope, &begin, blob, open, progress).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    /// Mounts a blob from one of the repositories `from` of the same registry, or else uploads it.
    pub async fn mount_or_push_blob(
        &self,
        repository: &Repository,
        blob: Blob,
        from: &[Repository],
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<Placed, RegistryError> {
        self.allowed(repository)?;
        for source in from.iter().take(MOST_MOUNTS) {
            let scope = Scope::mounting(repository, source);
            // A token service may know no token for both; then one for the target will do.
            let Ok(mut entry) = self.0.auth.enter(&self.0.http, &scope).await else { continue };
            match self.mount(&mut entry, repository, blob.digest, source).await? {
                Mount::Done => return Ok(Placed::Mounted),
                Mount::Declined => {}
                Mount::Opened(opened) => {
                    let sent = self.fill(&mut entry, &scope, &opened, blob, open, progress).await;
                    match sent {
                        Ok(Some(())) => return Ok(Placed::Uploaded),
                        // The plain way below has tries of its own.
                        Ok(None) => break,
                        Err(error) if error.retryable() => break,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        self.push_blob(repository, blob, open, progress).await.map(|()| Placed::Uploaded)
    }

    /// Makes sure that an upload to the repository may begin, and gives it up.
    pub async fn check_push(&self, repository: &Repository) -> Result<(), RegistryError> {
        self.allowed(repository)?;
        let scope = Scope::new(repository, Action::Push);
        let begin = self.begin_upload(repository)?;
        let mut tries = self.tries();
        loop {
            match self.try_check_push(&scope, &begin).await {
                Err(error) if tries.again(&error).await => {}
                result => return result,
            }
        }
    }

    async fn try_check_push(&self, scope: &Scope, begin: &Request) -> Result<(), RegistryError> {
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        let opened = self.send(&mut entry, begin).await?;
        let opened = success(opened, &entry, scope, || repository_of(scope)).await?;
        let url = location(&opened)?;
        self.cancel(&entry, &begin.url, &url).await;
        Ok(())
    }

    pub(super) fn begin_upload(&self, repository: &Repository) -> Result<Request, RegistryError> {
        Ok(Request::new(Method::POST, self.url(repository, "blobs/uploads/")?))
    }

    /// Tells the registry to forget an upload; one that is not told so forgets it in time.
    pub(super) async fn cancel(&self, entry: &Entry<'_>, base: &Url, upload: &Url) {
        let authorization = entry.authorization().filter(|_| base.origin() == upload.origin());
        let request = Request::new(Method::DELETE, upload.clone());
        let _ = self.0.http.send(&request, authorization).await;
    }

    async fn mount(
        &self,
        entry: &mut Entry<'_>,
        repository: &Repository,
        digest: Digest,
        from: &Repository,
    ) -> Result<Mount, RegistryError> {
        let mut request = self.begin_upload(repository)?;
        request
            .url
            .query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.path());
        let sent = self.send(entry, &request).await;
        Ok(match sent {
            Ok(response) => match response.status().as_u16() {
                201 => Mount::Done,
                202 => Mount::Opened(Box::new(response)),
                _ => Mount::Declined,
            },
            // No token for both repositories, or no connection: the upload will tell which.
            Err(_) => Mount::Declined,
        })
    }

    async fn try_push_blob(
        &self,
        scope: &Scope,
        begin: &Request,
        blob: Blob,
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let mut entry = self.0.auth.enter(&self.0.http, scope).await?;
        loop {
            let opened = self.send(&mut entry, begin).await?;
            let opened = success(opened, &entry, scope, || repository_of(scope)).await?;
            let filled = self.fill(&mut entry, scope, &opened, blob, open, progress).await?;
            if filled.is_some() {
                return Ok(());
            }
        }
    }

    /// Puts the blob into an upload that was opened; nothing if the upload has to begin anew, since
    /// the pass was renewed.
    async fn fill(
        &self,
        entry: &mut Entry<'_>,
        scope: &Scope,
        opened: &Response,
        blob: Blob,
        open: Open<'_>,
        progress: Progress<'_>,
    ) -> Result<Option<()>, RegistryError> {
        let url = complete(location(opened)?, blob.digest);
        let same = url.origin() == opened.url().origin();
        let authorization = entry.authorization().filter(|_| same);
        let mut response =
            upload::put(&self.0.http, &url, authorization, blob, open, progress).await?;
        response.foreign = !same;
        if entry.renew(&response).await? {
            return Ok(None);
        }
        if response.status().as_u16() == 404 {
            let answer = Box::new(response.read_answer().await);
            return Err(RegistryError::UploadLost { answer });
        }
        let response = success(response, entry, scope, || repository_of(scope)).await?;
        agree(named_digest(&response), blob.digest, || response.call.clone())?;
        Ok(Some(()))
    }
}

pub(super) fn repository_of(scope: &Scope) -> String {
    format!("repository `{}`", scope.repository)
}

/// Where an upload that was opened goes.
pub(super) fn location(opened: &Response) -> Result<Url, RegistryError> {
    let Some(location) = opened.header(LOCATION.as_str()) else {
        let what = "the answer does not say where to upload to".into();
        return Err(RegistryError::Garbage { what, call: opened.call.clone() });
    };
    http::resolve(opened.url(), location, &opened.call)
}

/// The location of an upload with the digest that completes it.
pub(super) fn complete(mut location: Url, digest: Digest) -> Url {
    location.query_pairs_mut().append_pair("digest", &digest.to_string());
    location
}
