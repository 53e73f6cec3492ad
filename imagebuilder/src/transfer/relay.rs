//! Carries a blob that is not in the store from one registry to another, as it comes.
//!
//! **Architecture invariant:** memory is bounded, whatever the blob's size; and the target gets the
//! blob only under its digest, so that what came wrong is no blob there.

use std::{
    io::{self, Read, Write},
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use tokio::runtime::Handle;

use crate::{
    digest::Blob,
    reference::Repository,
    registry::{Client, Placed, Progress, RegistryError},
};

/// Pieces that wait between the two connections.
const WAITING: usize = 8;
/// How often a source is read before it is given up; each reading has tries of its own.
const READINGS: usize = 3;

/// Mounts a blob, or streams it from one of `sources` into `target`; nothing if there is no source.
pub(super) async fn carry(
    client: &Client,
    target: &Repository,
    blob: Blob,
    mounts: &[Repository],
    sources: &[Repository],
    progress: Progress<'_>,
) -> Result<Option<Placed>, RegistryError> {
    let runtime = Handle::current();
    let mut failure = None;
    for source in sources {
        let open = || Ok(read(client.clone(), source.clone(), blob, &runtime));
        for _ in 0..READINGS {
            match client.mount_or_push_blob(target, blob, mounts, &open, progress).await {
                Ok(placed) => return Ok(Some(placed)),
                // The source, and not the target, has failed.
                Err(error @ RegistryError::Source { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Starts a download whose bytes are read as they come.
fn read(client: Client, source: Repository, blob: Blob, runtime: &Handle) -> Box<dyn Read + Send> {
    let (sender, coming) = sync_channel(WAITING);
    let handle = runtime.clone();
    // On a thread of its own: it waits where the other connection does not keep up.
    runtime.spawn_blocking(move || {
        let mut writer = Some(Sender { pieces: sender.clone(), held: Vec::new() });
        // What was read cannot be taken back: a download that begins anew is another reading.
        let open = || writer.take().ok_or_else(|| io::Error::other("it has to begin anew"));
        let pulled = handle.block_on(client.pull_blob(&source, blob, open, &|_| ()));
        // A reader that has gone away has an error of its own.
        let _ = sender.send(pulled.map(|it| it.held).map_err(io::Error::other));
    });
    Box::new(Pieces { coming, current: Vec::new(), read: 0 })
}

/// Holds the last piece back: it goes when all is known to be right.
struct Sender {
    pieces: SyncSender<io::Result<Vec<u8>>>,
    held: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let before = mem::replace(&mut self.held, bytes.to_vec());
        if !before.is_empty() {
            self.pieces.send(Ok(before)).map_err(gone)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pieces {
    coming: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    read: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.current.len() {
            let Ok(piece) = self.coming.recv() else { return Ok(0) };
            (self.current, self.read) = (piece?, 0);
        }
        let count = buffer.len().min(self.current.len() - self.read);
        buffer[..count].copy_from_slice(&self.current[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}
