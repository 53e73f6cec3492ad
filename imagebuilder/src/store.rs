//! The content-addressed store: one folder, shared by all builds of a user.
//!
//! ```text
//! version              the number of this layout
//! packs/N-LEASE.pack   objects: segments of layers, small blobs, what else has a key
//! packs/N-LEASE.idx    what is in that pack, and where
//! packs/….bad          numbers of objects of that pack that are damaged, or were removed
//! blobs/sha256/HEX     whole blobs that were streamed in: pulled layers
//! images/HEX           a manifest that is an image of its own
//! names/HEX            what a name points to; HEX is the digest of the name
//! cache/HEX            what a build step gave; HEX is the key of the step
//! stat/HEX             what is known of the files of a context
//! tmp/LEASE-N          what is being written
//! leases/LEASE         locked by a process as long as it uses the store
//! gate                 shared by who commits, exclusive to who removes: each for a moment
//! retired/NAME/…       what was removed while others used the store, until they are gone
//! usage                bytes that were counted, and added since
//! ```
//!
//! **What lasts.** Every pack, blob, image and name appears by a rename, after it was synced, and is
//! never written to again; the folder is synced after the rename. The order is: pack, index, both
//! renamed, folder; then the image's record; then its name. A crash at any instant leaves a usable
//! store, and at most some files in `tmp`, which the next user clears. Records of steps are not
//! synced: they carry a checksum, and one that is torn is none.
//!
//! **What is removed** ([`prune`]) is what no name points to, the least recently used first, and
//! with it all that nothing else refers to. A record or a small blob refers to every digest that is
//! in its text. What a process that runs has found is never lost to it: see [`retired`].
//!
//! **The size** is limited at the end of commands that add something ([`usage`]): what they added is
//! noted in `usage`, and only if that is over the limit the store is looked through.
//!
//! **Architecture invariant:** nothing has its name before it is whole and on the disk, but for
//! what is only a hint.
//!
//! **Architecture invariant:** every blob and object that leaves the store is verified while it is
//! read.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    blobs::{BlobReader, BlobWriter, Scratch},
    composed::{Composed, Part},
    prune::{Limits, Pruned},
    usage::{ImageUsage, Usage},
    verify::{Damage, Repair, Verified},
};
use self::{
    files::{Temporaries, failed, names_in, sync_folder},
    leases::{ClosedGate, Gate, Lease, Living},
    packs::Packs,
    version::VERSION,
};
use crate::{digest::Digest, image::Descriptor};

mod blobs;
mod composed;
mod files;
pub mod index;
mod leases;
mod loaded;
mod packs;
mod prune;
mod reach;
mod records;
mod retired;
mod usage;
mod verify;
mod version;

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
    temporaries: Arc<Temporaries>,
    packs: Packs,
    /// Blobs that are files and that this process has found or made.
    found: Mutex<BTreeSet<Digest>>,
    /// Images whose record this process has synced.
    synced: Mutex<BTreeSet<Digest>>,
    /// Images that this process has added, or would have.
    images: Mutex<BTreeSet<Digest>>,
    /// Bytes of blobs that this process has added as files.
    added: AtomicU64,
    lease: Lease,
    /// Shared with a process that has the store open in the layout before.
    old: Option<File>,
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
    /// A whole blob that is small, by its digest.
    Blob,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Segment, Self::Composed, Self::Contents, Self::Checkpoints, Self::Blob];

    fn number(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Composed => 2,
            Self::Contents => 3,
            Self::Checkpoints => 4,
            Self::Blob => 5,
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }
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

impl StoredImage {
    /// The manifest, as others name it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }
}

impl Store {
    /// Opens the store in `root`, and makes it if it is not there. One of an older layout becomes
    /// one of this layout.
    ///
    /// What killed processes left half-written is cleared.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        version::prepare(root)?;
        let lease = Lease::take(root)?;
        let temporaries = Arc::new(Temporaries::new(root, lease.id.clone()));
        let inner = Inner {
            root: root.to_owned(),
            packs: Packs::new(root, Arc::clone(&temporaries)),
            temporaries,
            found: Mutex::default(),
            synced: Mutex::default(),
            images: Mutex::default(),
            added: AtomicU64::new(0),
            old: version::old_lock(root)?,
            lease,
        };
        let store = Self { inner: Arc::new(inner) };
        if let Some(gate) = Gate::try_exclusive(root) {
            // What cannot be cleared now (on a disk that cannot be written to) is cleared by the next.
            let _ = store.clear(&gate);
        }
        Ok(store)
    }

    /// Removes what the dead have left.
    fn clear(&self, gate: &ClosedGate) -> Result<u64, StoreError> {
        let count = |folder| names_in(&self.root().join(folder)).map(|it| it.len());
        if count("tmp")? == 0 && count("retired")? == 0 && count("leases")? == 1 {
            return Ok(0);
        }
        let living = self.living(gate)?;
        if self.inner.old.is_none() {
            leases::clear(self.root(), &living, &self.inner.lease.id)?;
        }
        retired::clear(self.root(), &living, self.inner.lease.called())
    }

    /// Who else uses the store.
    fn living(&self, gate: &ClosedGate) -> Result<Living, StoreError> {
        let mut living = leases::others(self.root(), &self.inner.lease, gate)?;
        if self.inner.old.is_some() {
            living.add_ageless(OLD_PROCESS);
        }
        Ok(living)
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
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

    /// The bytes of an object, verified. A damaged one is an error once; after that it is not here.
    pub fn object(&self, kind: ObjectKind, key: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.packs.read(kind, key)
    }

    /// As [`Store::object`], where one that is damaged is none: it is forgotten, and made again.
    pub fn whole_object(
        &self,
        kind: ObjectKind,
        key: Digest,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.object(kind, key) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            other => other,
        }
    }

    /// Whether an object is here.
    pub fn has_object(&self, kind: ObjectKind, key: Digest) -> bool {
        self.inner.packs.has(kind, key).unwrap_or(false)
    }

    /// Adds an object; others see it after [`Store::commit`], this process at once.
    pub fn add_object(
        &self,
        kind: ObjectKind,
        key: Digest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.inner.packs.add(kind, key, bytes)
    }

    /// Forgets an object, so that it is made again.
    pub fn remove_object(&self, kind: ObjectKind, key: Digest) -> Result<(), StoreError> {
        self.inner.packs.remove(kind, key)
    }

    /// Makes what was added so far last, whatever happens to this machine.
    pub fn commit(&self) -> Result<(), StoreError> {
        let gate = Gate::shared(self.root())?;
        self.commit_inside(&gate)
    }

    /// Commits, and brings back what others took for nobody's meanwhile.
    fn commit_inside(&self, gate: &Gate) -> Result<(), StoreError> {
        loop {
            if self.inner.packs.is_pending() {
                self.inner.packs.commit(gate)?;
            }
            self.rescue_files(gate)?;
            if !self.inner.packs.rescue(gate)? {
                return Ok(());
            }
        }
    }

    fn rescue_files(&self, _gate: &Gate) -> Result<(), StoreError> {
        if retired::is_empty(self.root())? {
            return Ok(());
        }
        for digest in lock(&self.inner.found).iter() {
            let path = self.blob(*digest);
            if path.exists() {
                continue;
            }
            if let Some(aside) = retired::find(self.root(), &digest.hex())? {
                fs::rename(aside, &path).map_err(failed("write", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the names of blobs last that this process found, and others may have made.
    fn sync_found_files(&self) -> Result<(), StoreError> {
        match lock(&self.inner.found).is_empty() {
            true => Ok(()),
            false => sync_folder(&self.root().join("blobs/sha256")),
        }
    }

    fn note_synced(&self, image: Digest) {
        lock(&self.inner.synced).insert(image);
    }

    fn is_synced(&self, image: Digest) -> bool {
        lock(&self.inner.synced).contains(&image)
    }

    fn start(&self) -> SystemTime {
        self.inner.lease.start
    }

    fn temporaries(&self) -> &Temporaries {
        &self.inner.temporaries
    }

    /// Notes that what was read of a build context is used.
    pub(crate) fn note_stat_cache_use(&self, key: Digest) {
        records::note_use(&self.stat_cache_path(key));
    }

    /// Where it is kept what was read of a build context, which may be lost at any time.
    pub(crate) fn stat_cache_path(&self, key: Digest) -> PathBuf {
        self.inner.root.join("stat").join(key.hex())
    }

    /// Puts another file there, in one step.
    pub(crate) fn write_stat_cache(
        &self,
        key: Digest,
        write: &mut dyn FnMut(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.stat_cache_path(key);
        fs::create_dir_all(self.inner.root.join("stat")).map_err(failed("write", &path))?;
        let (file, temporary) = self.temporaries().file()?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        let written = write(&mut out).and_then(|()| out.flush());
        written.map_err(failed("write", &path))?;
        temporary.rename(&path)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.inner.root.join("blobs/sha256").join(digest.hex())
    }
}

/// Stands for all processes that have the store open in the layout before.
const OLD_PROCESS: &str = "layout-1";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
