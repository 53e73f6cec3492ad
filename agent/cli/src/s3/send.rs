//! Sends files to S3: small ones at once, large ones in parts, several of either at a time.
//!
//! **Architecture invariant:** at no time is more than [`MEMORY`] of files in memory (or one part,
//! if that is larger: from 234 GiB on). An upload in parts that does not succeed is taken back.

use std::{
    path::PathBuf,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::{
    MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, path::Path as Key,
};
use rbuild_agent::{
    artifacts::{ArtifactsError, Content},
    event::Event,
};
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{
    error::{S3Error, Why},
    store::Store,
};

/// The size of a part, and of the largest file that is sent at once.
const PART: u64 = 8 << 20;
/// How many parts an object may have (Amazon S3 user guide, "multipart upload limits").
const MOST_PARTS: u64 = 10_000;
/// How many bytes are sent at the same time.
const MEMORY: u64 = 24 << 20;
/// In what pieces memory is counted.
const PIECE: u64 = 1 << 10;
/// How many files are sent at the same time.
const MOST_FILES: usize = 16;
/// How often is asked whether to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long taking back an upload may take if someone waits for the end.
const HURRY: Duration = Duration::from_millis(600);
/// The same if not.
const PATIENCE: Duration = Duration::from_secs(20);

/// An object to be.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: Key,
    /// How many bytes it has, as far as is known.
    pub(super) size: u64,
    pub(super) body: Body,
}

/// Where the bytes of an object are.
#[derive(Debug)]
pub(super) enum Body {
    Path(PathBuf),
    Open(Content),
}

/// What to send.
pub(super) struct Job {
    pub(super) store: Arc<Store>,
    pub(super) uploads: Vec<Upload>,
    /// Where the files are in any case.
    pub(super) kept: PathBuf,
    /// What the whole is called.
    pub(super) uri: String,
}

/// What all uploads share.
struct Shared {
    store: Arc<Store>,
    memory: Arc<Semaphore>,
    /// How many bytes were sent.
    sent: Arc<AtomicU64>,
    /// Whether to end, and take back what is not finished.
    is_over: watch::Receiver<bool>,
}

/// Why an upload ended early.
enum Broken {
    /// The file is not what it was.
    File(ArtifactsError),
    S3 {
        why: Why,
        is_left_over: bool,
    },
    /// Another one ended early, or someone asked to stop.
    Over,
    /// A bug.
    Task(JoinError),
}

impl Job {
    /// Sends everything, and tells how many bytes that was.
    pub(super) fn run(
        self,
        runtime: &Runtime,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<u64, ArtifactsError> {
        let total = self.uploads.iter().map(|it| it.size).sum();
        let sent = Arc::new(AtomicU64::new(0));
        let (end, is_over) = watch::channel(false);
        let (end, largest) =
            (Arc::new(end), self.uploads.iter().map(|it| part_size(it.size)).max());
        let memory = pieces(MEMORY.max(largest.unwrap_or_default()));
        let memory = Arc::new(Semaphore::new(usize::try_from(memory).unwrap_or(usize::MAX)));
        let shared = Shared { store: self.store, memory, sent: Arc::clone(&sent), is_over };
        let all = send_all(Arc::new(shared), self.uploads, Arc::clone(&end));
        let mut told = 0;
        let result = runtime.block_on(async {
            let mut all = pin!(all);
            let mut tick = || {
                let now = sent.load(Ordering::Relaxed);
                if now != told {
                    told = now;
                    emit(Event::ArtifactsSent { sent: now, total });
                }
                stopped()
            };
            let waited = wait(all.as_mut(), &mut tick).await;
            if waited.is_err() {
                end.send_replace(true);
                // What cannot be taken back in this time is left.
                let _ = timeout(HURRY, all).await;
            }
            waited
        });
        let sent = sent.load(Ordering::Relaxed);
        match result {
            Ok(Ok(())) => {
                emit(Event::ArtifactsSent { sent, total: sent });
                Ok(sent)
            }
            Ok(Err(broken)) => Err(broken.into_error(self.kept, &self.uri)),
            Err(signal) => Err(ArtifactsError::Stopped { signal }),
        }
    }
}

/// Waits for `future`, unless `tick`, which is asked often, gives a signal.
pub(super) async fn wait<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    tick: &mut dyn FnMut() -> Option<i32>,
) -> Result<T, i32> {
    loop {
        tokio::select! {
            result = &mut future => return Ok(result),
            () = sleep(TICK) => {}
        }
        if let Some(signal) = tick() {
            return Err(signal);
        }
    }
}

impl Broken {
    fn into_error(self, kept: PathBuf, uri: &str) -> ArtifactsError {
        let (why, is_left_over) = match self {
            Self::File(err) => return err,
            Self::S3 { why, is_left_over } => (why, is_left_over),
            Self::Over => (Why::Client("it was stopped".to_owned()), false),
            Self::Task(err) => (Why::Client(err.to_string()), true),
        };
        S3Error { why, kept, is_left_over }.sending(uri)
    }
}

/// Sends everything. The first error ends the rest, which is waited for.
async fn send_all(
    shared: Arc<Shared>,
    uploads: Vec<Upload>,
    end: Arc<watch::Sender<bool>>,
) -> Result<(), Broken> {
    let mut tasks = JoinSet::new();
    let mut result = Ok(());
    for upload in uploads {
        while tasks.len() >= MOST_FILES && result.is_ok() {
            result = next(&mut tasks).await.unwrap_or(Ok(()));
        }
        if result.is_err() || *end.borrow() {
            break;
        }
        tasks.spawn(send(Arc::clone(&shared), upload));
    }
    loop {
        if result.is_err() {
            end.send_replace(true);
        }
        match next(&mut tasks).await {
            None => return result,
            Some(ended) => result = worse(result, ended),
        }
    }
}

/// The first error, but one that says more comes before one that says that there was another.
fn worse(first: Result<(), Broken>, next: Result<(), Broken>) -> Result<(), Broken> {
    match (first, next) {
        (Err(Broken::S3 { why, .. }), Err(Broken::S3 { is_left_over: true, .. })) => {
            Err(Broken::S3 { why, is_left_over: true })
        }
        (Ok(()) | Err(Broken::Over), Err(err)) => Err(err),
        (first, _) => first,
    }
}

async fn next(tasks: &mut JoinSet<Result<(), Broken>>) -> Option<Result<(), Broken>> {
    let joined = tasks.join_next().await?;
    Some(joined.unwrap_or_else(|err| Err(Broken::Task(err))))
}

/// Sends one file.
async fn send(shared: Arc<Shared>, upload: Upload) -> Result<(), Broken> {
    let Upload { key, body, .. } = upload;
    let content = match body {
        Body::Open(content) => content,
        Body::Path(path) => reading(move || Content::open(&path)).await?,
    };
    match content.size() {
        size if size <= PART => {
            tokio::select! {
                result = send_whole(&shared, &key, content) => result,
                () = over(&shared) => Err(Broken::Over),
            }
        }
        _ => send_in_parts(&shared, &key, content).await,
    }
}

async fn send_whole(shared: &Shared, key: &Key, content: Content) -> Result<(), Broken> {
    let size = content.size();
    let _memory = shared.memory.acquire_many(permits(size)).await;
    let bytes = reading(move || {
        let bytes = content.read_at(0, length(content.size()))?;
        content.check_unchanged()?;
        Ok(bytes)
    })
    .await?;
    let options =
        PutOptions { attributes: shared.store.attributes.clone(), ..PutOptions::default() };
    let result = shared.store.client.put_opts(key, bytes.into(), options).await;
    result.map_err(|err| refused(shared, key, err))?;
    shared.sent.fetch_add(size, Ordering::Relaxed);
    Ok(())
}

async fn send_in_parts(shared: &Shared, key: &Key, content: Content) -> Result<(), Broken> {
    let attributes = shared.store.attributes.clone();
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let begun = shared.store.client.put_multipart_opts(key, options).await;
    let mut upload = begun.map_err(|err| refused(shared, key, err))?;
    let result = tokio::select! {
        result = send_parts(shared, key, &mut *upload, content) => result,
        () = over(shared) => Err(Broken::Over),
    };
    let Err(broken) = result else { return Ok(()) };
    let is_gone = timeout(PATIENCE, upload.abort()).await.is_ok_and(|it| it.is_ok());
    Err(match broken {
        Broken::S3 { why, .. } => Broken::S3 { why, is_left_over: !is_gone },
        other => other,
    })
}

async fn send_parts(
    shared: &Shared,
    key: &Key,
    upload: &mut dyn MultipartUpload,
    content: Content,
) -> Result<(), Broken> {
    let content = Arc::new(content);
    let (size, part_size) = (content.size(), part_size(content.size()));
    let mut parts = JoinSet::new();
    let mut offset = 0;
    while offset < size {
        let count = part_size.min(size - offset);
        let memory = Arc::clone(&shared.memory).acquire_many_owned(permits(count)).await;
        while let Some(joined) = parts.try_join_next() {
            ended(shared, key, joined)?;
        }
        let read = Arc::clone(&content);
        let bytes = reading(move || read.read_at(offset, length(count))).await?;
        let (part, sent) = (upload.put_part(bytes.into()), Arc::clone(&shared.sent));
        parts.spawn(async move {
            let result = part.await;
            drop(memory);
            result.map(|()| sent.fetch_add(count, Ordering::Relaxed))
        });
        offset += count;
    }
    while let Some(joined) = parts.join_next().await {
        ended(shared, key, joined)?;
    }
    reading(move || content.check_unchanged()).await?;
    upload.complete().await.map_err(|err| refused(shared, key, err))?;
    Ok(())
}

/// What became of a part.
fn ended(
    shared: &Shared,
    key: &Key,
    joined: Result<object_store::Result<u64>, JoinError>,
) -> Result<(), Broken> {
    let result = joined.map_err(Broken::Task)?;
    result.map(drop).map_err(|err| refused(shared, key, err))
}

fn refused(shared: &Shared, key: &Key, err: object_store::Error) -> Broken {
    Broken::S3 { why: shared.store.why(key.as_ref(), err), is_left_over: false }
}

/// Waits until all is over.
async fn over(shared: &Shared) {
    // If nobody can say so any more, it is over, too.
    let _ = shared.is_over.clone().wait_for(|it| *it).await;
}

/// Reads on a thread that may wait for a disk.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ArtifactsError> + Send + 'static,
) -> Result<T, Broken> {
    let joined = tokio::task::spawn_blocking(read).await;
    joined.map_err(Broken::Task)?.map_err(Broken::File)
}

/// The size of the parts of a file.
fn part_size(size: u64) -> u64 {
    size.div_ceil(MOST_PARTS).max(PART)
}

/// How many pieces of memory a file of this size takes: even an empty one takes some.
fn pieces(size: u64) -> u64 {
    size.div_ceil(PIECE).max(1)
}

fn permits(size: u64) -> u32 {
    u32::try_from(pieces(size)).unwrap_or(u32::MAX)
}

/// A size that fits in memory.
fn length(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_fit_in_memory() {
        for (size, want) in [
            (0, PART),
            (PART + 1, PART),
            (MOST_PARTS * PART, PART),
            (MOST_PARTS * PART + 1, PART + 1),
            (5 << 40, 549_755_814),
        ] {
            assert_eq!(part_size(size), want, "for {size}");
            assert!(size.div_ceil(part_size(size)) <= MOST_PARTS);
        }
        assert_eq!((pieces(0), pieces(1), pieces(PART)), (1, 1, 8192));
    }
}
