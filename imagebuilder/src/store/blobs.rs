//! Blobs: whole contents that are found by their digest, however they are kept: as a file, as one
//! object of a pack, or put together from several.
//!
//! **Architecture invariant:** every blob that leaves the store is verified while it is read.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use super::{
    BUFFER, ObjectKind, Store, StoreError, composed,
    files::{Temporary, failed, publish, remove, sync_folder},
    lock, retired,
};
use crate::digest::{Blob, Digest, Hashing, Verifying};

/// Larger blobs are files of their own.
const LARGEST_OBJECT: usize = 1 << 20;

/// A blob that is read, and verified on the way.
pub type BlobReader = Verifying<Box<dyn Read + Send>>;

/// Writes one blob; nobody sees it before [`BlobWriter::finish`].
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    out: Hashing<BufWriter<File>>,
    temporary: Temporary,
}

impl Store {
    /// The size of a blob, if it is here.
    pub fn size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        match self.known_size(digest)? {
            Some(size) => Ok(Some(size)),
            None => {
                // The time of a folder may not tell of the last change to it.
                self.inner.packs.reload()?;
                self.known_size(digest)
            }
        }
    }

    fn known_size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        if let Some(size) = self.file_size(digest)? {
            return Ok(Some(size));
        }
        if let Some(size) = self.inner.packs.size(ObjectKind::Blob, digest)? {
            return Ok(Some(size.into()));
        }
        match self.composed(digest) {
            // It is forgotten now, and made again.
            Err(StoreError::Damaged { .. }) => Ok(None),
            other => Ok(other?.map(|it| it.size())),
        }
    }

    /// The size of a blob that is a file.
    fn file_size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let Some(path) = self.file_path(digest)? else { return Ok(None) };
        match fs::metadata(&path) {
            Ok(metadata) => {
                lock(&self.inner.found).insert(digest);
                Ok(Some(metadata.len()))
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(failed("read", &path)(err)),
        }
    }

    /// Where a blob lies that is a file: also one that was removed after this process found it.
    fn file_path(&self, digest: Digest) -> Result<Option<PathBuf>, StoreError> {
        let path = self.blob(digest);
        match path.exists() {
            true => Ok(Some(path)),
            false if lock(&self.inner.found).contains(&digest) => {
                retired::find(self.root(), &digest.hex())
            }
            false => Ok(None),
        }
    }

    /// Whether a blob of that size is here.
    pub fn has(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        Ok(self.size(digest)? == Some(size))
    }

    /// Opens a blob; content that is not what its name says is an error at the end.
    pub fn open_blob(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        match self.open_known(digest)? {
            Some(blob) => Ok(blob),
            None => {
                self.inner.packs.reload()?;
                self.open_known(digest)?.ok_or(StoreError::Missing(digest))
            }
        }
    }

    fn open_known(&self, digest: Digest) -> Result<Option<BlobReader>, StoreError> {
        if let Some(path) = self.file_path(digest)? {
            match File::open(&path) {
                Ok(file) => {
                    lock(&self.inner.found).insert(digest);
                    let size = file.metadata().map_err(failed("read", &path))?.len();
                    return Ok(Some(Verifying::new(Box::new(file), digest, size)));
                }
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(failed("read", &path)(err)),
            }
        }
        if let Some(bytes) = self.object(ObjectKind::Blob, digest)? {
            let size = bytes.len() as u64;
            return Ok(Some(Verifying::new(Box::new(io::Cursor::new(bytes)), digest, size)));
        }
        let Some(composed) = self.composed(digest)? else { return Ok(None) };
        let size = composed.size();
        let reader = composed::Reader::new(self.clone(), composed);
        Ok(Some(Verifying::new(Box::new(reader), digest, size)))
    }

    /// Reads a blob of at most `limit` bytes into memory, verified.
    pub fn read_blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let damaged = |reason: String| StoreError::Damaged { expected: digest, reason };
        if self.size(digest)?.is_some_and(|size| limit < size) {
            return Err(damaged(format!("it is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        match self.open_blob(digest)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(err) => Err(damaged(err.to_string())),
        }
    }

    /// Starts a blob whose digest is not known yet.
    pub fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let (file, temporary) = self.temporaries().file()?;
        let out = Hashing::new(BufWriter::with_capacity(BUFFER, file));
        Ok(BlobWriter { store: self, out, temporary })
    }

    /// Stores bytes that are already in memory; small ones last after [`Store::commit`].
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        // One that is damaged is written again.
        if self.has(digest, size)? && self.read_blob(digest, size).is_ok() {
            return Ok(Blob { digest, size });
        }
        if bytes.len() <= LARGEST_OBJECT {
            // A damaged file would be found first.
            remove(&self.blob(digest))?;
            self.inner.packs.add_again(ObjectKind::Blob, digest, bytes)?;
            return Ok(Blob { digest, size });
        }
        let mut writer = self.writer()?;
        let path = writer.temporary.path.clone();
        writer.write_all(bytes).map_err(failed("write", &path))?;
        writer.finish()
    }

    /// Reads a blob to its end, and removes it if it is damaged, so that it can be made or pulled
    /// again: it is worse than none.
    pub fn remove_if_damaged(&self, digest: Digest) -> Result<(), StoreError> {
        let mut blob = match self.open_blob(digest) {
            Err(StoreError::Missing(_)) => return Ok(()),
            Err(StoreError::Damaged { .. }) => return self.remove_blob(digest),
            other => other?,
        };
        match io::copy(&mut blob, &mut io::sink()) {
            Err(err) if err.kind() == io::ErrorKind::InvalidData => self.remove_blob(digest),
            _ => Ok(()),
        }
    }

    /// Makes an empty folder in `tmp` that is removed when it is dropped.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let path = self.temporaries().path();
        fs::create_dir(&path).map_err(failed("write", &path))?;
        Ok(Scratch { path })
    }

    /// Removes a blob that nothing needs, however it is kept; segments stay.
    pub fn remove_blob(&self, digest: Digest) -> Result<(), StoreError> {
        lock(&self.inner.found).remove(&digest);
        let path = self.blob(digest);
        if path.exists() {
            remove(&path)?;
            sync_folder(&self.root().join("blobs/sha256"))?;
        }
        self.remove_object(ObjectKind::Blob, digest)?;
        self.remove_object(ObjectKind::Composed, digest)
    }
}

impl BlobWriter<'_> {
    /// Syncs what was written and gives it its name.
    pub fn finish(self) -> Result<Blob, StoreError> {
        self.finish_if(|_| Ok(()))
    }

    /// As [`BlobWriter::finish`], but only if it is the blob that is expected.
    pub fn finish_as(self, expected: Blob) -> Result<Blob, StoreError> {
        self.finish_if(|found| match found == expected {
            true => Ok(()),
            false => Err(StoreError::Damaged {
                expected: expected.digest,
                reason: format!("{} bytes with digest {} were written", found.size, found.digest),
            }),
        })
    }

    fn finish_if(
        self,
        check: impl FnOnce(Blob) -> Result<(), StoreError>,
    ) -> Result<Blob, StoreError> {
        let (buffer, digest, size) = self.out.finish();
        let blob = Blob { digest, size };
        check(blob)?;
        let file = buffer
            .into_inner()
            .map_err(|err| failed("write", &self.temporary.path)(err.into_error()))?;
        publish(&file, self.temporary, &self.store.blob(digest))?;
        lock(&self.store.inner.found).insert(digest);
        self.store.inner.added.fetch_add(size, Ordering::Relaxed);
        Ok(blob)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A folder for files that are needed for a moment.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is cleared by the next user of the store.
        let _ = fs::remove_dir_all(&self.path);
    }
}
