//! Downloads blobs; one that is cut goes on where it ended.
//!
//! **Architecture invariant:** what a blob is, its digest says alone: no date, `ETag` or range of
//! an answer is trusted. A download that is wrong in the end is done again from its start, a few
//! times.

use std::io::{self, Write};

use reqwest::{
    Method,
    header::{CONTENT_RANGE, HeaderValue, RANGE},
};

use super::{
    Action, By, Client, Progress, RegistryError, Scope, agree,
    http::{Request, Response},
    retry::Tries,
};
use crate::{
    digest::{Blob, Hashing},
    reference::Repository,
};

/// So much more of a blob is worth all tries anew.
const WORTHWHILE: u64 = 1 << 20;
/// How often a blob is read from its start because what came was something else.
const READINGS: u32 = 3;

/// How far a download has come.
struct Download<'a, W, O> {
    blob: Blob,
    open: &'a mut O,
    sink: Option<Hashing<W>>,
    received: u64,
    /// Whether what was received came in more than one answer.
    resumed: bool,
}

impl Client {
    /// Writes a blob to a writer that `open` gives, and gives it back when it has all of it,
    /// verified and flushed. Where a try has to begin from the start, `open` is called again, and
    /// the writer before is dropped. Mirrors are asked first.
    pub async fn pull_blob<W: Write + Send>(
        &self,
        repository: &Repository,
        blob: Blob,
        mut open: impl FnMut() -> io::Result<W> + Send,
        progress: Progress<'_>,
    ) -> Result<W, RegistryError> {
        for mirror in self.mirrors(repository, By::Digest)? {
            let tries = (self.few_tries(), 1);
            match self.pull_blob_from(&mirror, blob, &mut open, progress, tries).await {
                Err(error @ RegistryError::Sink { .. }) => return Err(error),
                Err(error) => self.pass_over(&mirror, &error),
                pulled => return pulled,
            }
        }
        let origin = self.origin(repository)?;
        self.pull_blob_from(&origin, blob, &mut open, progress, (self.tries(), READINGS)).await
    }

    async fn pull_blob_from<W: Write + Send>(
        &self,
        repository: &Repository,
        blob: Blob,
        open: &mut (impl FnMut() -> io::Result<W> + Send),
        progress: Progress<'_>,
        (mut tries, readings): (Tries<'_>, u32),
    ) -> Result<W, RegistryError> {
        let scope = Scope::new(repository, Action::Pull);
        let url = self.url(repository, &format!("blobs/{}", blob.digest))?;
        let request = Request::new(Method::GET, url);
        let mut anew = Tries::at_most(self.0.http.options(), readings);
        let mut download = Download { blob, open, sink: None, received: 0, resumed: false };
        let mut furthest = 0;
        loop {
            let done = self.try_pull_blob(&scope, &request, &mut download, progress).await;
            let error = match done {
                Ok(sink) => return Ok(sink),
                Err(error) => error,
            };
            // A registry that begins anew each time gets no further.
            if furthest + WORTHWHILE <= download.received {
                furthest = download.received;
                tries.forget();
            }
            // Pieces of two answers may not fit together, or the registry knows no pieces.
            let was_piece = download.resumed && !error.retryable() && !error.is_sink();
            let goes_on = if was_piece || error.is_wrong_content() {
                download.restart();
                anew.anew(&error).await
            } else {
                tries.again(&error).await
            };
            if !goes_on {
                return Err(error);
            }
        }
    }

    async fn try_pull_blob<W: Write + Send, O: FnMut() -> io::Result<W> + Send>(
        &self,
        scope: &Scope,
        request: &Request,
        download: &mut Download<'_, W, O>,
        progress: Progress<'_>,
    ) -> Result<W, RegistryError> {
        let mut request = request.clone();
        if 0 < download.received {
            download.resumed = true;
            request.headers.insert(RANGE, range_from(download.received));
        }
        let what = || format!("blob `{}` of `{}`", download.blob.digest, scope.repository);
        let mut response = self.get(scope, &request, what).await?;
        download.begin(&response)?;
        progress(download.received);
        while let Some(chunk) = response.chunk().await? {
            download.take(chunk.as_ref(), &response)?;
            progress(download.received);
        }
        download.finish(&response)
    }
}

fn range_from(start: u64) -> HeaderValue {
    // Digits and ASCII letters are always a header's value.
    HeaderValue::try_from(format!("bytes={start}-")).unwrap_or(HeaderValue::from_static(""))
}

/// Where the piece that is answered begins and what the whole has, if the answer says it:
/// `bytes 5-9/10` (RFC 9110, section 14.4).
fn piece(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.header(CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    let (range, whole) = text.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, whole.trim().parse().ok()))
}

impl<W: Write, O: FnMut() -> io::Result<W>> Download<'_, W, O> {
    /// Forgets what was received.
    fn restart(&mut self) {
        self.sink = None;
        self.received = 0;
        self.resumed = false;
    }

    /// Looks at the head of an answer: whether it goes on, or begins anew.
    fn begin(&mut self, response: &Response) -> Result<(), RegistryError> {
        let expected = self.blob.size;
        let is_piece = response.status().as_u16() == 206;
        if is_piece {
            let fits = |(start, whole): (u64, Option<u64>)| {
                start == self.received && whole.is_none_or(|it| it == expected)
            };
            if !piece(response).is_none_or(fits) {
                let what = "the registry sends another piece than it was asked for".into();
                return Err(RegistryError::Garbage { what, call: response.call.clone() });
            }
        } else {
            self.restart();
        }
        if let Some(size) =
            response.size().filter(|it| self.received.checked_add(*it) != Some(expected))
        {
            let (found, call) = (self.received.saturating_add(size), response.call.clone());
            return Err(RegistryError::SizeMismatch { expected, found, call });
        }
        if self.sink.is_none() {
            let sink = (self.open)().map_err(|source| self.unwritable(source))?;
            self.sink = Some(Hashing::new(sink));
        }
        Ok(())
    }

    fn take(&mut self, chunk: &[u8], response: &Response) -> Result<(), RegistryError> {
        let received = self.received + chunk.len() as u64;
        if self.blob.size < received {
            let (limit, call) = (self.blob.size, response.call.clone());
            return Err(RegistryError::TooLarge { limit, call });
        }
        if let Some(sink) = &mut self.sink
            && let Err(source) = sink.write_all(chunk)
        {
            return Err(self.unwritable(source));
        }
        self.received = received;
        Ok(())
    }

    fn finish(&mut self, response: &Response) -> Result<W, RegistryError> {
        let cut = || RegistryError::Cut { call: response.call.clone(), source: None };
        if self.received < self.blob.size {
            return Err(cut());
        }
        let mut sink = self.sink.take().ok_or_else(cut)?;
        sink.flush().map_err(|source| self.unwritable(source))?;
        let (sink, found, _) = sink.finish();
        agree(Some(self.blob.digest), found, || response.call.clone())?;
        Ok(sink)
    }

    fn unwritable(&self, source: io::Error) -> RegistryError {
        RegistryError::Sink { digest: self.blob.digest, source }
    }
}
