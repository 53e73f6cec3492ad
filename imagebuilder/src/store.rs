//! The content-addressed store: one folder, shared by all builds of a user.
//!
//! ```text
//! version              the number of this layout
//! lock                 shared by all who use the store, exclusive to who removes blobs from it
//! blobs/sha256/HEX     whole blobs: layers, configs, manifests
//! images/HEX           a manifest that is an image of its own
//! names/HEX            what a name points to; HEX is the digest of the name
//! cache/HEX            what a build step gave; HEX is the key of the step
//! objects/KIND-HEX     segments of layers, how blobs are put together, and what else has a key
//! tmp/                 what is being written
//! ```
//!
//! **Architecture invariant:** every file but those in `tmp` appears by a rename, after it was
//! synced, and is never written to again; the folder is synced after the rename. A crash at any
//! instant leaves a usable store, and at most some files in `tmp`, which the next user clears.
//!
//! **Architecture invariant:** every blob that leaves the store is verified while it is read.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use self::composed::{Composed, Part};
use crate::{
    digest::{Blob, Digest, Hashing, Verifying},
    image::Descriptor,
};

mod composed;

/// The number of the layout that this version reads and writes.
const VERSION: &str = "1";
const FOLDERS: [&str; 6] = ["blobs/sha256", "images", "names", "cache", "objects", "tmp"];
/// What is written at once: fewer and larger writes.
const BUFFER: usize = 1 << 18;

/// A store on disk. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    lock: File,
    next: AtomicU64,
}

/// An image of the store: its manifest, and when it came here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The media type of the manifest.
    pub media_type: String,
    /// When it came into the store, in seconds since 1970.
    pub added: u64,
}

/// What a name of the store points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name in its full form, e.g., `docker.io/library/shop:latest`.
    pub name: String,
    /// The manifest that it points to.
    pub digest: Digest,
    /// Where the image came from.
    pub origin: Origin,
}

/// Where an image came from: what was made here wins over a registry's tag of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It was built, loaded, or given its name here.
    Local,
    /// It was pulled from a registry, which may have a newer one.
    Registry,
}

/// What an object of the store is: small contents that are found by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A compressed piece of a layer.
    Segment,
    /// A [`Composed`] blob, by the digest of the blob.
    Composed,
    /// What a layer holds, by its `diff_id`.
    Contents,
    /// What was known at each segment while a layer was hashed, by the digest of its blob.
    Checkpoints,
}

/// A blob that is read, and verified on the way.
pub type BlobReader = Verifying<Box<dyn Read + Send>>;

/// Writes one blob; nobody sees it before [`BlobWriter::finish`].
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    out: Hashing<BufWriter<File>>,
    temporary: Temporary,
}

/// A file in `tmp` that is removed unless it is kept.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    kept: bool,
}

/// Why the store could not do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder of the store could not be used.
    #[error("the store could not {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder holds something else.
    #[error("`{}` is not a store of rbuild: it holds `{found}`", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The store was written by a version of rbuild with another layout.
    #[error("the store `{}` has layout {found}, and this rbuild reads layout {VERSION}", path.display())]
    Version {
        /// The folder.
        path: PathBuf,
        /// The layout that it has.
        found: String,
    },
    /// Others use the store.
    #[error("the store `{}` is in use by another rbuild", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A blob is not in the store.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// A blob has other content than its name says.
    #[error("blob {expected} of the store is damaged: {reason}")]
    Damaged {
        /// The blob.
        expected: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A record of the store is not what this version writes.
    #[error("`{}` of the store is damaged", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageRecord {
    media_type: String,
    digest: String,
    size: u64,
    added: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameRecord {
    name: String,
    digest: String,
    origin: Origin,
}

impl StoredImage {
    /// The manifest, as others name it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }
}

impl Store {
    /// Opens the store in `root`, and makes it if it is not there.
    ///
    /// What a killed rbuild left half-written is cleared if nobody else uses the store.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let lock = lock_file(root)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = clear(&root.join("tmp"));
        }
        flock(&lock, FlockOperation::LockShared).map_err(|err| failed("lock", root)(err.into()))?;
        let inner = Inner { root: root.to_owned(), lock, next: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The size of a blob, if it is here.
    pub fn size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let path = self.blob(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Ok(self.composed(digest)?.map(|it| it.size()))
            }
            Err(err) => Err(failed("read", &path)(err)),
        }
    }

    /// How a blob is put together, if it is, and all that it needs is here.
    fn composed(&self, digest: Digest) -> Result<Option<Composed>, StoreError> {
        let Some(bytes) = self.object(ObjectKind::Composed, digest)? else { return Ok(None) };
        let Some(composed) = Composed::parse(&bytes) else { return Ok(None) };
        let is_whole = composed.segments().all(|it| self.has_object(ObjectKind::Segment, it));
        Ok(is_whole.then_some(composed))
    }

    /// Makes a blob of objects that were added before.
    pub fn add_composed(&self, digest: Digest, blob: &Composed) -> Result<(), StoreError> {
        self.add_object(ObjectKind::Composed, digest, &blob.to_bytes())
    }

    /// The bytes of an object, verified.
    pub fn object(&self, kind: ObjectKind, key: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.object_path(kind, key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(failed("read", &path)(err)),
        }
    }

    /// Whether an object is here.
    pub fn has_object(&self, kind: ObjectKind, key: Digest) -> bool {
        self.object_path(kind, key).exists()
    }

    /// Adds an object; others see it after [`Store::commit`], this process at once.
    pub fn add_object(
        &self,
        kind: ObjectKind,
        key: Digest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (mut file, temporary) = self.temporary()?;
        file.write_all(bytes).map_err(failed("write", &temporary.path))?;
        publish(file, temporary, &self.object_path(kind, key))
    }

    /// Makes what was added so far last, whatever happens to this machine.
    pub fn commit(&self) -> Result<(), StoreError> {
        sync_folder(&self.inner.root.join("objects"))
    }

    fn object_path(&self, kind: ObjectKind, key: Digest) -> PathBuf {
        self.inner.root.join(format!("objects/{kind:?}-{}", key.hex()))
    }

    /// Whether a blob of that size is here.
    pub fn has(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        Ok(self.size(digest)? == Some(size))
    }

    /// Opens a blob; content that is not what its name says is an error at the end.
    pub fn open_blob(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        let path = self.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let composed = self.composed(digest)?.ok_or(StoreError::Missing(digest))?;
                let size = composed.size();
                let reader = composed::Reader::new(self.clone(), composed);
                return Ok(Verifying::new(Box::new(reader), digest, size));
            }
            Err(err) => return Err(failed("read", &path)(err)),
        };
        let size = file.metadata().map_err(failed("read", &path))?.len();
        Ok(Verifying::new(Box::new(file), digest, size))
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
        let (file, temporary) = self.temporary()?;
        let out = Hashing::new(BufWriter::with_capacity(BUFFER, file));
        Ok(BlobWriter { store: self, out, temporary })
    }

    /// Stores bytes that are already in memory.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        // One that is damaged is written again.
        if self.has(digest, size)? && self.read_blob(digest, size).is_ok() {
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
            other => other?,
        };
        match io::copy(&mut blob, &mut io::sink()) {
            Err(err) if err.kind() == io::ErrorKind::InvalidData => self.remove_blob(digest),
            _ => Ok(()),
        }
    }

    /// Makes an empty folder in `tmp` that is removed when it is dropped.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let path = self.temporary_path();
        fs::create_dir(&path).map_err(failed("write", &path))?;
        Ok(Scratch { path })
    }

    /// All images, the newest first.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let records: Vec<(PathBuf, ImageRecord)> = read_records(&self.inner.root.join("images"))?;
        let mut images = Vec::new();
        for (path, record) in records {
            let digest = record.digest.parse().map_err(|_| foreign(&path, &record.digest))?;
            let ImageRecord { media_type, size, added, .. } = record;
            images.push(StoredImage { digest, size, media_type, added });
        }
        images.sort_by(|a, b| b.added.cmp(&a.added).then(a.digest.cmp(&b.digest)));
        Ok(images)
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<Name>, StoreError> {
        let records: Vec<(PathBuf, NameRecord)> = read_records(&self.inner.root.join("names"))?;
        let mut names = records
            .into_iter()
            .map(|(path, record)| name(&path, record))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    /// What `name` (in its full form) points to.
    pub fn name(&self, full: &str) -> Result<Option<Name>, StoreError> {
        let path = self.name_path(full);
        match read_record(&path)? {
            Some(record) => name(&path, record).map(Some),
            None => Ok(None),
        }
    }

    /// The image with that manifest, if it is here.
    pub fn image(&self, digest: Digest) -> Result<Option<StoredImage>, StoreError> {
        let path = self.inner.root.join("images").join(digest.hex());
        let record: Option<ImageRecord> = read_record(&path)?;
        Ok(record.map(|ImageRecord { media_type, size, added, .. }| StoredImage {
            digest,
            size,
            media_type,
            added,
        }))
    }

    /// Notes that a manifest, whose blobs are all here, is an image.
    pub fn add_image(&self, image: &StoredImage) -> Result<(), StoreError> {
        // Blobs that another process made may not be on the disk yet.
        self.commit()?;
        sync_folder(&self.inner.root.join("blobs/sha256"))?;
        if self.image(image.digest)?.is_some() {
            return Ok(());
        }
        let StoredImage { digest, size, media_type, added } = image.clone();
        let record = ImageRecord { media_type, digest: digest.to_string(), size, added };
        self.write_record(&self.inner.root.join("images").join(digest.hex()), &record)
    }

    /// Points `name` to an image, in place of what it pointed to.
    pub fn add_name(&self, name: &Name) -> Result<(), StoreError> {
        sync_folder(&self.inner.root.join("images"))?;
        if self.name(&name.name)?.as_ref() == Some(name) {
            return Ok(());
        }
        let Name { name, digest, origin } = name.clone();
        let path = self.name_path(&name);
        self.write_record(&path, &NameRecord { name, digest: digest.to_string(), origin })
    }

    /// Forgets a name.
    pub fn remove_name(&self, full: &str) -> Result<(), StoreError> {
        remove(&self.name_path(full))
    }

    /// Waits for nobody: gives the store to this process alone, or says that it is in use.
    pub fn lock_exclusive(&self) -> Result<(), StoreError> {
        match flock(&self.inner.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                // A conversion that fails may have lost the shared lock too.
                let _ = flock(&self.inner.lock, FlockOperation::LockShared);
                Err(StoreError::Busy { path: self.inner.root.clone() })
            }
            Err(err) => Err(failed("lock", &self.inner.root)(err.into())),
        }
    }

    /// Forgets an image; its blobs stay. Call [`Store::lock_exclusive`] first.
    pub fn remove_image(&self, digest: Digest) -> Result<(), StoreError> {
        remove(&self.inner.root.join("images").join(digest.hex()))
    }

    /// Removes a blob that nothing needs. Call [`Store::lock_exclusive`] first.
    pub fn remove_blob(&self, digest: Digest) -> Result<(), StoreError> {
        remove(&self.blob(digest))
    }

    /// What was remembered under `key`, if anything.
    pub fn recall<T: DeserializeOwned>(&self, key: Digest) -> Result<Option<T>, StoreError> {
        match read_record(&self.inner.root.join("cache").join(key.hex())) {
            // An entry of another version is no entry.
            Err(StoreError::Record { .. }) => Ok(None),
            other => other,
        }
    }

    /// Remembers a value under `key`.
    pub fn remember<T: Serialize>(&self, key: Digest, value: &T) -> Result<(), StoreError> {
        self.write_record(&self.inner.root.join("cache").join(key.hex()), value)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.inner.root.join("blobs/sha256").join(digest.hex())
    }

    fn name_path(&self, full: &str) -> PathBuf {
        self.inner.root.join("names").join(Digest::of(full.as_bytes()).hex())
    }

    fn write_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record)
            .map_err(|source| StoreError::Record { path: path.to_owned(), source })?;
        let (mut file, temporary) = self.temporary()?;
        file.write_all(&bytes).map_err(failed("write", &temporary.path))?;
        publish(file, temporary, path)
    }

    fn temporary(&self) -> Result<(File, Temporary), StoreError> {
        let path = self.temporary_path();
        let file = File::create_new(&path).map_err(failed("write", &path))?;
        Ok((file, Temporary { path, kept: false }))
    }

    fn temporary_path(&self) -> PathBuf {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let random = fastrand::u64(..);
        self.inner.root.join(format!("tmp/{}-{number}-{random:016x}", std::process::id()))
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
        publish(file, self.temporary, &self.store.blob(digest))?;
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

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // What stays behind is cleared by the next user of the store.
            let _ = fs::remove_file(&self.path);
        }
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

/// Syncs, renames, syncs the folder: after this, and not before, others see the file.
fn publish(file: File, mut temporary: Temporary, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(failed("write", &temporary.path))?;
    fs::rename(&temporary.path, path).map_err(failed("write", path))?;
    temporary.kept = true;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    sync_folder(path.parent().unwrap_or(path))
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed("sync", folder))
}

/// Makes what is missing of the store, and opens its lock.
fn lock_file(root: &Path) -> Result<File, StoreError> {
    let version = root.join("version");
    match fs::read_to_string(&version) {
        Ok(text) if text.trim() == VERSION => {}
        Ok(text) => {
            let found = text.trim().chars().take(20).collect();
            return Err(StoreError::Version { path: root.to_owned(), found });
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => match create(root, &version) {
            // Another process made it meanwhile, and uses it already.
            Err(StoreError::Foreign { .. }) if version.exists() => {}
            created => created?,
        },
        Err(err) => return Err(failed("read", &version)(err)),
    }
    let path = root.join("lock");
    File::open(&path).map_err(failed("read", &path))
}

/// Makes a store; the version comes last, so that a half-made store is made again.
fn create(root: &Path, version: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(root).map_err(failed("write", root))?;
    for entry in fs::read_dir(root).map_err(failed("read", root))? {
        let name = entry.map_err(failed("read", root))?.file_name();
        let name = name.to_string_lossy();
        let ours = ["blobs", "lock", "version"].contains(&name.as_ref())
            || name.starts_with("version.")
            || FOLDERS.contains(&name.as_ref());
        if !ours {
            return Err(foreign(root, &name));
        }
    }
    for folder in FOLDERS {
        let path = root.join(folder);
        fs::create_dir_all(&path).map_err(failed("write", &path))?;
        // A store that was never finished has nothing in it; what has something is not ours.
        let mut entries = fs::read_dir(&path).map_err(failed("read", &path))?;
        if entries.next().is_some() {
            return Err(foreign(root, folder));
        }
        sync_folder_of(&path)?;
    }
    let lock = root.join("lock");
    File::options()
        .append(true)
        .create(true)
        .open(&lock)
        .and_then(|it| it.sync_all())
        .map_err(failed("write", &lock))?;
    let path = root.join(format!("version.{}", std::process::id()));
    let mut file = File::create(&path).map_err(failed("write", &path))?;
    file.write_all(format!("{VERSION}\n").as_bytes()).map_err(failed("write", &path))?;
    publish(file, Temporary { path, kept: false }, version)
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StoreError::Record { path: path.to_owned(), source }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(failed("read", path)(err)),
    }
}

/// All records of a folder, with their files.
fn read_records<T: DeserializeOwned>(folder: &Path) -> Result<Vec<(PathBuf, T)>, StoreError> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        if let Some(record) = read_record(&path)? {
            records.push((path, record));
        }
    }
    Ok(records)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(failed("remove", path)(err)),
    }
}

fn name(path: &Path, record: NameRecord) -> Result<Name, StoreError> {
    let digest = record.digest.parse().map_err(|_| foreign(path, &record.digest))?;
    Ok(Name { name: record.name, digest, origin: record.origin })
}

fn foreign(path: &Path, found: &str) -> StoreError {
    StoreError::Foreign { path: path.to_owned(), found: found.to_owned() }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn files(store: &Store, folder: &str) -> usize {
        fs::read_dir(store.root().join(folder)).unwrap().count()
    }

    #[test]
    fn a_blob_is_seen_when_it_is_whole_and_not_before() {
        let (_folder, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 1));
        let blob = writer.finish().unwrap();
        assert_eq!(blob, Blob { digest: Digest::of(b"hello"), size: 5 });
        assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (1, 0));
        assert_eq!(store.read_blob(blob.digest, 5).unwrap(), b"hello");
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (_folder, store) = store();
        store.writer().unwrap().write_all(b"half").unwrap();
        assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 0));
    }

    #[test]
    fn other_content_than_expected_is_not_stored() {
        let (_folder, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"hallo").unwrap();
        let expected = Blob { digest: Digest::of(b"hello"), size: 5 };
        assert!(matches!(writer.finish_as(expected), Err(StoreError::Damaged { .. })));
        assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 0));
    }

    #[test]
    fn a_damaged_blob_does_not_leave_the_store() {
        let (_folder, store) = store();
        let blob = store.write_blob(b"hello").unwrap();
        fs::write(store.blob(blob.digest), b"hallo").unwrap();
        let error = store.read_blob(blob.digest, 10).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_name_points_to_the_last_image_it_was_given() {
        let (_folder, store) = store();
        for content in ["a", "b"] {
            let digest = Digest::of(content.as_bytes());
            let name = Name { name: "docker.io/library/x:1".into(), digest, origin: Origin::Local };
            store.add_name(&name).unwrap();
            assert_eq!(store.name("docker.io/library/x:1").unwrap(), Some(name));
        }
        assert_eq!(store.names().unwrap().len(), 1);
        store.remove_name("docker.io/library/x:1").unwrap();
        assert_eq!(store.names().unwrap(), []);
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_when_nobody_else_is_there() {
        let (folder, store) = store();
        let left = store.root().join("tmp/1-0-left");
        fs::write(&left, "half").unwrap();
        let second = Store::open(store.root()).unwrap();
        assert!(left.exists(), "the first user may still be writing it");
        drop((store, second));
        let _store = Store::open(&folder.path().join("store")).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_folder_that_holds_something_else_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("diary.txt"), "").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_folder_of_the_users_that_is_called_like_one_of_ours_is_not_cleared() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let precious = folder.path().join("tmp/precious");
        fs::write(&precious, "").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(precious.exists());
    }

    #[test]
    fn a_store_that_was_half_made_is_made() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("version.17"), "").unwrap();
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn a_damaged_blob_is_written_again() {
        let (_folder, store) = store();
        let blob = store.write_blob(b"hello").unwrap();
        fs::write(store.blob(blob.digest), b"hallo").unwrap();
        store.write_blob(b"hello").unwrap();
        assert_eq!(store.read_blob(blob.digest, 5).unwrap(), b"hello");
    }

    #[test]
    fn another_layout_is_not_touched() {
        let (_folder, store) = store();
        fs::write(store.root().join("version"), "7\n").unwrap();
        let error = Store::open(store.root()).unwrap_err();
        assert!(matches!(error, StoreError::Version { found, .. } if found == "7"));
    }

    #[test]
    fn only_one_process_may_remove_blobs() {
        let (_folder, store) = store();
        let second = Store::open(store.root()).unwrap();
        assert!(matches!(store.lock_exclusive(), Err(StoreError::Busy { .. })));
        drop(second);
        store.lock_exclusive().unwrap();
    }
}
