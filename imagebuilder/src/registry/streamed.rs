//! Uploads a blob whose digest is not known before its end: one PATCH as the bytes come, then PUT.
//!
//! **Architecture invariant:** nothing here is tried again, and nothing depends on it: whatever is
//! unexpected ends the upload, and the blob is pushed from the store later.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::stream;
use reqwest::{
    Method, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Action, Client, RegistryError, Scope, agree,
    auth::Entry,
    error::Call,
    http::{Request, Response},
    named_digest,
    push::{complete, location, repository_of},
    success, upload,
};
use crate::{digest::Blob, reference::Repository};

/// The bytes of one blob as they come. Dropped before [`Stream::finish`], it gives the upload up.
pub struct Stream {
    chunks: mpsc::Sender<Vec<u8>>,
    end: oneshot::Sender<Blob>,
    whole: Arc<AtomicBool>,
}

/// The other end of a [`Stream`].
pub struct Coming {
    chunks: mpsc::Receiver<Vec<u8>>,
    end: oneshot::Receiver<Blob>,
    whole: Arc<AtomicBool>,
}

impl Stream {
    /// A stream in which up to `most` chunks wait for the network.
    pub fn new(most: usize) -> (Self, Coming) {
        let (chunks, coming) = mpsc::channel(most);
        let (end, ended) = oneshot::channel();
        let whole = Arc::new(AtomicBool::new(false));
        let this = Self { chunks, end, whole: Arc::clone(&whole) };
        (this, Coming { chunks: coming, end: ended, whole })
    }

    /// Where chunks go; closed when the upload has failed.
    pub fn chunks(&self) -> &mpsc::Sender<Vec<u8>> {
        &self.chunks
    }

    /// All chunks were sent, and they are `blob`.
    pub fn finish(self, blob: Blob) {
        // First the mark, since the end of the chunks is seen as one or the other by it.
        self.whole.store(true, Ordering::SeqCst);
        // An upload that has failed does not listen any more.
        let _ = self.end.send(blob);
    }
}

impl Client {
    /// Uploads what comes; nothing if it was given up.
    pub async fn push_stream(
        &self,
        repository: &Repository,
        coming: Coming,
    ) -> Result<Option<Blob>, RegistryError> {
        self.allowed(repository)?;
        let scope = Scope::new(repository, Action::Push);
        let begin = self.begin_upload(repository)?;
        let mut entry = self.0.auth.enter(&self.0.http, &scope).await?;
        let opened = self.send(&mut entry, &begin).await?;
        let opened = success(opened, &entry, &scope, || repository_of(&scope)).await?;
        let mut upload = location(&opened)?;
        let done = self.stream(&mut entry, &scope, &begin.url, &mut upload, coming).await;
        if !matches!(done, Ok(Some(_))) {
            self.cancel(&entry, &begin.url, &upload).await;
        }
        done
    }

    /// `upload` is where the upload is, which each answer may change.
    async fn stream(
        &self,
        entry: &mut Entry<'_>,
        scope: &Scope,
        base: &Url,
        upload: &mut Url,
        coming: Coming,
    ) -> Result<Option<Blob>, RegistryError> {
        let authorization = entry.authorization().filter(|_| base.origin() == upload.origin());
        let Some((blob, patched)) = self.patch(upload, authorization, coming).await? else {
            return Ok(None);
        };
        let patched = success(patched, entry, scope, || repository_of(scope)).await?;
        // What the answer says of a range is not looked at: some registries say it wrongly.
        if let Ok(next) = location(&patched) {
            *upload = next;
        }
        let put = Request::new(Method::PUT, complete(upload.clone(), blob.digest));
        let response = if base.origin() == put.url.origin() {
            self.send(entry, &put).await?
        } else {
            self.0.http.send(&put, None).await?
        };
        let response = success(response, entry, scope, || repository_of(scope)).await?;
        agree(named_digest(&response), blob.digest, || response.call.clone())?;
        Ok(Some(blob))
    }

    async fn patch(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        coming: Coming,
    ) -> Result<Option<(Blob, Response)>, RegistryError> {
        let Coming { chunks, end, whole } = coming;
        let http = &self.0.http;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.extend(authorization.map(|it| (AUTHORIZATION, it.clone())));
        let builder = http.builder(&Method::PATCH, url, headers)?.body(body(chunks, whole));
        let call = Call::new(&Method::PATCH, url);
        let mut answer = pin!(builder.send());
        let blob = tokio::select! {
            biased;
            end = end => match end {
                Ok(blob) => blob,
                Err(_) => return Ok(None),
            },
            early = &mut answer => {
                let mut response = http.arrived(early, url, call)?;
                let answer = Box::new(response.read_answer().await);
                return Err(RegistryError::UploadLost { answer });
            }
        };
        let patience = http.options().idle_timeout * upload::PATIENCE;
        Ok(Some((blob, http.answer(answer, url, call, patience).await?)))
    }
}

/// A body that ends well if the blob is whole, and breaks off if not.
fn body(chunks: mpsc::Receiver<Vec<u8>>, whole: Arc<AtomicBool>) -> reqwest::Body {
    let stream = stream::unfold(Some((chunks, whole)), |state| async {
        let (mut chunks, whole) = state?;
        match chunks.recv().await {
            Some(chunk) => Some((Ok(chunk), Some((chunks, whole)))),
            None if whole.load(Ordering::SeqCst) => None,
            None => Some((Err(io::Error::from(io::ErrorKind::BrokenPipe)), None)),
        }
    });
    reqwest::Body::wrap_stream(stream)
}
