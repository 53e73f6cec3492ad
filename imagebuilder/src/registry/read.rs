//! A blob for who reads at his own pace, and not as part of the runtime: it comes as it is read.
//!
//! **Architecture invariant:** who reads to the end has read what the digest says. What was given
//! cannot be taken back, so all of it is hashed, by whatever tries and repositories it came, and
//! the last piece is held back until all is known to be right.
//!
//! **Architecture invariant:** memory is bounded, whatever the blob's size; and a reader that goes
//! away ends the download, wherever it is.

use std::{
    io::{self, Read, Write},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use reqwest::Method;
use tokio::{runtime::Handle, sync::oneshot, task::block_in_place};

use super::{Client, RegistryError, agree, error::Call};
use crate::{
    digest::{Blob, Hashing},
    reference::Repository,
};

/// Pieces that wait to be read.
const WAITING: usize = 8;

/// A piece of a blob, or why there are no more; the end is an empty one.
type Piece = io::Result<Vec<u8>>;

/// A blob that is coming. Its errors hold those of the registry.
#[derive(Debug)]
pub struct Reading {
    pieces: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    is_whole: bool,
    /// Goes when the reader does.
    _reader: oneshot::Sender<()>,
}

impl Client {
    /// Downloads a blob on `runtime`, which must have several threads, as it is read: from the first of `repositories` that has it.
    /// Where one stops, the next goes on.
    pub fn read_blob(&self, repositories: &[Repository], blob: Blob, runtime: &Handle) -> Reading {
        let (sender, pieces) = sync_channel(WAITING);
        let (reader, gone) = oneshot::channel();
        let (client, repositories) = (self.clone(), repositories.to_vec());
        runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = gone => {}
                () = client.give_blob(&repositories, blob, sender) => {}
            }
        });
        Reading { pieces, piece: io::Cursor::default(), is_whole: false, _reader: reader }
    }

    async fn give_blob(&self, repositories: &[Repository], blob: Blob, sender: SyncSender<Piece>) {
        let given = Arc::new(Mutex::new(Given::new(sender.clone())));
        let mut failure = None;
        for repository in repositories {
            let open = || Ok(Try::begin(&given));
            match self.pull_blob(repository, blob, open, &|_| ()).await {
                Ok(_) => {
                    let ended = self.end_blob(repository, blob, &given);
                    let last = ended.map(|()| Vec::new()).map_err(io::Error::other);
                    // Nobody may read on.
                    let _ = block_in_place(|| sender.send(last));
                    return;
                }
                // Nobody reads on.
                Err(RegistryError::Sink { .. }) => return,
                Err(error) => failure = Some(RegistryError::graver(failure, error)),
            }
        }
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "no repository has it");
        let last = Err(failure.map_or_else(unknown, io::Error::other));
        let _ = block_in_place(|| sender.send(last));
    }

    /// Gives what was held back, if all is right.
    fn end_blob(
        &self,
        repository: &Repository,
        blob: Blob,
        given: &Mutex<Given>,
    ) -> Result<(), RegistryError> {
        let url = self.url(repository, &format!("blobs/{}", blob.digest))?;
        let mut given = lock(given);
        let last = mem::take(&mut given.held);
        let gone = |source| RegistryError::Sink { digest: blob.digest, source };
        given.hashing.write_all(&last).map_err(gone)?;
        let hashing = mem::replace(&mut given.hashing, Hashing::new(io::sink()));
        let (_, found, _) = hashing.finish();
        agree(Some(blob.digest), found, || Call::new(&Method::GET, &url))?;
        given.send(last).map_err(gone)
    }
}

fn lock(given: &Mutex<Given>) -> MutexGuard<'_, Given> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the reader was given, by all tries.
struct Given {
    sender: SyncSender<Piece>,
    hashing: Hashing<io::Sink>,
    size: u64,
    /// The next piece, which the reader has not been given.
    held: Vec<u8>,
}

impl Given {
    fn new(sender: SyncSender<Piece>) -> Self {
        Self { sender, hashing: Hashing::new(io::sink()), size: 0, held: Vec::new() }
    }

    fn hold(&mut self, piece: &[u8]) -> io::Result<()> {
        let before = mem::replace(&mut self.held, piece.to_vec());
        self.hashing.write_all(&before)?;
        self.size += before.len() as u64;
        self.send(before)
    }

    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let sent = match self.sender.try_send(Ok(piece)) {
            // The reader does not keep up; other downloads go on meanwhile.
            Err(TrySendError::Full(piece)) => {
                block_in_place(|| self.sender.send(piece)).map_err(drop)
            }
            sent => sent.map_err(drop),
        };
        sent.map_err(|()| io::ErrorKind::BrokenPipe.into())
    }
}

/// One try, which passes over what was given before.
struct Try {
    given: Arc<Mutex<Given>>,
    at: u64,
}

impl Try {
    fn begin(given: &Arc<Mutex<Given>>) -> Self {
        // Whether that was right is not known, and it comes again.
        lock(given).held.clear();
        Self { given: Arc::clone(given), at: 0 }
    }
}

impl Write for Try {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut given = lock(&self.given);
        let known = given.size.saturating_sub(self.at).min(bytes.len() as u64);
        let new = usize::try_from(known).map_or(&bytes[..0], |it| &bytes[it..]);
        if !new.is_empty() {
            given.hold(new)?;
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if 0 < count || buffer.is_empty() || self.is_whole {
                return Ok(count);
            }
            // Without a last word it is not whole: its runtime has ended.
            let ended = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
            let piece = self.pieces.recv().map_err(ended)??;
            self.is_whole = piece.is_empty();
            self.piece = io::Cursor::new(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_passed_over_and_what_was_held_back_is_not() {
        let (sender, pieces) = sync_channel(100);
        let given = Arc::new(Mutex::new(Given::new(sender)));
        // The bytes `xy` were never given: they are the last piece of a try that went wrong.
        for text in [&b"012xy"[..], b"0", b"0123456789"] {
            let mut next = Try::begin(&given);
            text.chunks(3).for_each(|it| next.write_all(it).unwrap());
        }
        let last = mem::take(&mut lock(&given).held);
        drop(given);
        let mut all = pieces.into_iter().flat_map(Result::unwrap).collect::<Vec<_>>();
        all.extend(last);
        assert_eq!(all, b"0123456789");
    }
}
