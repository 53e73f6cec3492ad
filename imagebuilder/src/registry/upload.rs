//! Sends a blob in one request, as it is read.

use std::{
    io::{self, Read},
    pin::pin,
    time::Duration,
};

use futures_util::stream;
use reqwest::{
    Method, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::sync::mpsc;

use super::{
    Blob, Open, Progress,
    error::{Call, RegistryError},
    http::{Http, Response},
};

const CHUNK: u64 = 256 * 1024;
/// Chunks that are read ahead of the network.
const READ_AHEAD: usize = 2;
/// A registry may move and hash a large blob before it answers: this many times as patient.
pub(super) const PATIENCE: u32 = 5;

/// One way into the request's body.
pub(super) type Chunks = mpsc::Sender<Result<Vec<u8>, io::Error>>;

/// Puts the blob to `url`, which is an upload's location with the digest in its query.
///
/// Never in parts: some registries answer wrongly to all but the first, and lose the rest.
pub(super) async fn put(
    http: &Http,
    url: &Url,
    authorization: Option<&HeaderValue>,
    blob: Blob,
    open: Open<'_>,
    progress: Progress<'_>,
) -> Result<Response, RegistryError> {
    let unreadable = |source| RegistryError::Source { digest: blob.digest, source };
    let source = open().map_err(unreadable)?;
    let call = Call::new(&Method::PUT, url);
    let (chunks, body) = mpsc::channel(READ_AHEAD);
    let body = stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    let builder = http
        .builder(&Method::PUT, url, headers(authorization, blob.size))?
        .body(reqwest::Body::wrap_stream(body));

    let idle_timeout = http.options().idle_timeout;
    let hold = chunks.clone();
    let mut answer = pin!(builder.send());
    let mut feeding = pin!(feed(source, blob.size, chunks, idle_timeout, progress));
    // An answer that comes before the end of the body is a refusal: there is no use in going on.
    // The body stays unfinished while the refusal is read, since its end would be that of both.
    let fed = tokio::select! {
        biased;
        answer = &mut answer => return Ok(http.arrived(answer, url, call)?.holding(hold)),
        fed = &mut feeding => fed,
    };
    drop(hold);
    match fed {
        Fed::All => http.answer(answer, url, call, idle_timeout * PATIENCE).await,
        Fed::Gone => http.answer(answer, url, call, idle_timeout).await,
        Fed::Stuck => Err(RegistryError::Timeout { after: idle_timeout, call }),
        Fed::Unreadable(source) => Err(unreadable(source)),
    }
}

fn headers(authorization: Option<&HeaderValue>, size: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, size.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.extend(authorization.map(|it| (AUTHORIZATION, it.clone())));
    headers
}

/// How the feeding of a body ended.
enum Fed {
    /// All was handed over.
    All,
    /// The connection takes no more.
    Gone,
    /// The connection took nothing for too long.
    Stuck,
    /// The blob cannot be read.
    Unreadable(io::Error),
}

async fn feed(
    mut source: Box<dyn Read + Send>,
    size: u64,
    chunks: Chunks,
    idle_timeout: Duration,
    progress: Progress<'_>,
) -> Fed {
    let mut sent = 0;
    progress(sent);
    while sent < size {
        let want = CHUNK.min(size - sent);
        let reading = tokio::task::spawn_blocking(move || read(source, want)).await;
        let chunk = match reading.map_err(io::Error::other).flatten() {
            Ok((back, chunk)) => {
                source = back;
                chunk
            }
            Err(error) => return Fed::Unreadable(error),
        };
        match tokio::time::timeout(idle_timeout, chunks.send(Ok(chunk))).await {
            Err(_) => return Fed::Stuck,
            Ok(Err(_)) => return Fed::Gone,
            Ok(Ok(())) => sent += want,
        }
        progress(sent);
    }
    Fed::All
}

/// Reads exactly `want` bytes: a blob that has become shorter is not what it was.
fn read(
    mut source: Box<dyn Read + Send>,
    want: u64,
) -> io::Result<(Box<dyn Read + Send>, Vec<u8>)> {
    let mut chunk = Vec::new();
    let read = source.by_ref().take(want).read_to_end(&mut chunk)?;
    if (read as u64) < want {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((source, chunk))
}
