//! Uploads layers while they are made: [`layer::Uploads`] for one repository.
//!
//! **Architecture invariant:** a build is never wrong, and only a bounded time slower, for an
//! upload: what fails or does not keep up is given up, and pushed from the store later.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc::error::TrySendError, task::JoinHandle};

use crate::{
    digest::Blob,
    layer::{Upload, Uploads},
    reference::Repository,
    registry::{Client, RegistryError, Stream},
};

/// Layers that are uploaded at the same time.
const AT_ONCE: usize = 3;
/// Bytes that go to the network at once.
const CHUNK: usize = 128 * 1024;
/// Chunks of one layer that wait for the network.
const WAITING: usize = 16;
/// How long a layer waits for its upload in all.
const PATIENCE: Duration = Duration::from_secs(10);

type Ended = Result<Option<Blob>, RegistryError>;

/// Uploads the layers of a build into a repository.
pub struct LayerUploads {
    client: Client,
    repository: Repository,
    runtime: Handle,
    running: Arc<AtomicUsize>,
    tasks: Mutex<Vec<JoinHandle<Ended>>>,
}

/// How the uploads of a build ended.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the repository has got.
    pub uploaded: Vec<Blob>,
    /// Why others were given up, if not by the build itself.
    pub failures: Vec<RegistryError>,
}

impl LayerUploads {
    /// Uploads to `repository`, on `runtime`.
    pub fn new(client: &Client, repository: &Repository, runtime: &Handle) -> Self {
        Self {
            client: client.clone(),
            repository: repository.clone(),
            runtime: runtime.clone(),
            running: Arc::default(),
            tasks: Mutex::default(),
        }
    }

    /// Waits for all uploads. Not to be called on a thread of the runtime.
    pub fn settle(&self) -> Settled {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = Settled::default();
        for task in mem::take(&mut *tasks) {
            match self.runtime.block_on(task) {
                Ok(Ok(Some(blob))) => settled.uploaded.push(blob),
                Ok(Err(error)) => settled.failures.push(error),
                // Given up by the build; or the task panicked, which is as good as given up.
                Ok(Ok(None)) | Err(_) => {}
            }
        }
        settled
    }
}

impl Uploads for LayerUploads {
    fn begin(&self) -> Option<Box<dyn Upload>> {
        if AT_ONCE <= self.running.fetch_add(1, Ordering::SeqCst) {
            self.running.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let (stream, coming) = Stream::new(WAITING);
        let (client, repository) = (self.client.clone(), self.repository.clone());
        let running = Arc::clone(&self.running);
        let task = self.runtime.spawn(async move {
            let ended = client.push_stream(&repository, coming).await;
            running.fetch_sub(1, Ordering::SeqCst);
            ended
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        let runtime = self.runtime.clone();
        let (chunk, patience) = (Vec::with_capacity(CHUNK), PATIENCE);
        Some(Box::new(LayerUpload { stream: Some(stream), chunk, patience, runtime }))
    }
}

/// One layer on its way; without its stream once it was given up.
struct LayerUpload {
    stream: Option<Stream>,
    chunk: Vec<u8>,
    patience: Duration,
    runtime: Handle,
}

impl LayerUpload {
    fn send(&mut self) {
        let chunk = mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let Some(stream) = &self.stream else { return };
        let chunks = stream.chunks();
        let is_taken = match chunks.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(chunk)) => {
                let patience = self.patience;
                let sent = async {
                    let start = tokio::time::Instant::now();
                    let sent = tokio::time::timeout(patience, chunks.send(chunk)).await;
                    (matches!(sent, Ok(Ok(()))), start.elapsed())
                };
                let (is_taken, waited) = self.runtime.block_on(sent);
                self.patience = patience.saturating_sub(waited);
                is_taken
            }
        };
        if !is_taken {
            self.stream = None;
        }
    }
}

impl Upload for LayerUpload {
    fn write(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while self.stream.is_some() && !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.send();
            }
        }
    }

    fn finish(mut self: Box<Self>, blob: Blob) {
        if !self.chunk.is_empty() {
            self.send();
        }
        if let Some(stream) = self.stream.take() {
            stream.finish(blob);
        }
    }
}
