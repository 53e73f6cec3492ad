//! Layers of bases that are not in the store: they come from the registries that have them, and are
//! read while they come.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use rbuild_imagebuilder::{
    build::{RemoteError, RemoteLayers},
    digest::Blob,
    event::Event,
    image::Layer,
    layer_sources,
    reference::Repository,
    registry::{Client, RegistryError},
    store::Store,
};

use super::Registries;
use crate::console::images::Images;

/// Pieces of a layer that wait to be read.
const WAITING: usize = 16;

/// Asks the repositories that layers are known to be in.
pub(super) struct BaseLayers<'a> {
    registries: &'a Registries,
    store: &'a Store,
    view: &'a Images,
}

impl<'a> BaseLayers<'a> {
    pub(super) fn new(registries: &'a Registries, store: &'a Store, view: &'a Images) -> Self {
        Self { registries, store, view }
    }
}

impl RemoteLayers for BaseLayers<'_> {
    fn has(&self, layer: &Layer) -> bool {
        layer_sources::recall(self.store, layer.digest).is_ok_and(|it| !it.is_empty())
    }

    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>, RemoteError> {
        let Layer { digest, size, .. } = *layer;
        let repositories = layer_sources::recall(self.store, digest)?;
        let (sender, pieces) = sync_channel(WAITING);
        let client = self.registries.client.clone();
        let blob = Blob { digest, size };
        self.registries.runtime.spawn(pull(client, repositories.into(), blob, sender));
        let coming =
            Coming { pieces, piece: io::Cursor::default(), done: 0, blob, view: self.view };
        Ok(Box::new(coming))
    }
}

/// A piece of a layer, or why there are no more.
type Piece = Result<Vec<u8>, RegistryError>;

/// Pulls a layer from the first repository that has it. Where one stops, the next goes on: the same
/// digest is the same content, which is verified by who reads it.
async fn pull(
    client: Client,
    mut repositories: VecDeque<Repository>,
    blob: Blob,
    sender: SyncSender<Piece>,
) {
    let sent = Arc::new(AtomicU64::new(0));
    while let Some(repository) = repositories.pop_front() {
        let open = || Ok(Pieces { sender: sender.clone(), sent: sent.clone(), at: 0 });
        match client.pull_blob(&repository, blob, open, &|_| ()).await {
            // It is whole, or nobody reads on.
            Ok(_) | Err(RegistryError::Sink { .. }) => return,
            Err(err) if repositories.is_empty() => drop(sender.send(Err(err))),
            Err(_) => {}
        }
    }
}

/// Sends what was not sent by a try before.
struct Pieces {
    sender: SyncSender<Piece>,
    /// Bytes that were sent, by all tries.
    sent: Arc<AtomicU64>,
    /// Bytes that this try has.
    at: u64,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sent.load(Ordering::Relaxed);
        let known = usize::try_from(sent - self.at).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[known..];
        if !new.is_empty() {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.sender.send(Ok(new.to_vec())).map_err(gone)?;
            self.sent.fetch_add(new.len() as u64, Ordering::Relaxed);
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A layer that is coming.
struct Coming<'a> {
    pieces: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    done: u64,
    blob: Blob,
    view: &'a Images,
}

impl Coming<'_> {
    fn tell(&mut self, count: usize) {
        self.done += count as u64;
        let Self { done, blob: Blob { digest, size }, view, .. } = self;
        view.show(&match done == size {
            true => Event::BlobDone { digest: *digest, size: *size },
            false => Event::BlobProgress { digest: *digest, done: *done, total: *size },
        });
    }
}

impl Read for Coming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if 0 < count || buffer.is_empty() {
                self.tell(count);
                return Ok(count);
            }
            match self.pieces.recv() {
                Ok(Ok(piece)) => self.piece = io::Cursor::new(piece),
                Ok(Err(err)) => return Err(io::Error::other(err)),
                Err(_) => return Ok(0),
            }
        }
    }
}
