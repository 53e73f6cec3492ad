//! Who uses the store: a file for each process, which it holds locked as long as it lives.
//!
//! A process that removes something from the store asks who else lives. What others may need is not
//! removed but put aside ([`super::retired`]) until all who live now are gone.
//!
//! Where a process cannot make its file (the disk is full, or cannot be written to, or belongs to
//! someone else), it holds the folder of leases locked instead, shared with others in that
//! position: so what is there can be read, and what fills the disk can be removed.
//!
//! **Architecture invariant:** no lock that others wait for is held for longer than some files take
//! to be renamed: the gate is shared by who commits, and exclusive to who removes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    ops::Deref,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{
    StoreError,
    files::{failed, names_in, remove, remove_all},
};
use crate::unique;

/// The lock of all who change what is in the store.
#[derive(Debug)]
pub(super) struct Gate {
    _file: File,
}

/// The gate, closed to all others.
#[derive(Debug)]
pub(super) struct ClosedGate(Gate);

impl Deref for ClosedGate {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0
    }
}

impl Gate {
    /// Waits until nobody removes anything, and keeps it so.
    pub(super) fn shared(root: &Path) -> Result<Self, StoreError> {
        let file = open(root)?;
        lock(&file, FlockOperation::LockShared).map_err(|err| failed("lock", root)(err.into()))?;
        Ok(Self { _file: file })
    }

    /// Waits until nobody changes anything, and keeps it so.
    pub(super) fn exclusive(root: &Path) -> Result<ClosedGate, StoreError> {
        let file = open(root)?;
        let locked = lock(&file, FlockOperation::LockExclusive);
        locked.map_err(|err| failed("lock", root)(err.into()))?;
        Ok(ClosedGate(Self { _file: file }))
    }

    /// As [`Gate::exclusive`], but waits for nobody.
    pub(super) fn try_exclusive(root: &Path) -> Option<ClosedGate> {
        let file = open(root).ok()?;
        lock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(ClosedGate(Self { _file: file }))
    }
}

fn open(root: &Path) -> Result<File, StoreError> {
    let path = root.join("gate");
    File::open(&path).map_err(failed("read", &path))
}

pub(super) fn lock(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The lease of this process.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its name, which no other lease has.
    pub(super) id: String,
    /// When it began, by the clock of the file system.
    pub(super) start: SystemTime,
    /// Its file; none if none could be made.
    path: Option<PathBuf>,
    /// The file, or the folder.
    file: File,
}

/// Stands for all processes that have no file of their own.
const WITHOUT_FILE: &str = "without-file";

impl Lease {
    /// Says that this process uses the store. Under the gate, so that nobody takes the file, before
    /// it is locked, for one that a dead process left.
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let _gate = Gate::shared(root)?;
        let id = unique::name();
        let path = root.join("leases").join(&id);
        let (file, path, operation) = match File::create_new(&path) {
            Ok(file) => (file, Some(path), FlockOperation::NonBlockingLockExclusive),
            Err(err) if !is_unwritable(&err) => return Err(failed("write", &path)(err)),
            Err(_) => {
                let folder = root.join("leases");
                let file = File::open(&folder).map_err(failed("read", &folder))?;
                (file, None, FlockOperation::NonBlockingLockShared)
            }
        };
        let named = path.as_deref().unwrap_or(root);
        lock(&file, operation).map_err(|err| failed("lock", named)(err.into()))?;
        let start = file.metadata().and_then(|it| it.modified()).map_err(failed("read", named))?;
        Ok(Self { id, start, path, file })
    }

    /// What others call it when they wait for it.
    pub(super) fn called(&self) -> &str {
        if self.path.is_some() { &self.id } else { WITHOUT_FILE }
    }

    /// Whether another process lives that has no file of its own. Call it with the gate closed to
    /// others: this one's hold on the folder is given up for a moment.
    fn has_others_without_file(&self, root: &Path) -> Result<bool, StoreError> {
        let folder = root.join("leases");
        let failed = |err: Errno| failed("lock", &folder)(err.into());
        if self.path.is_some() {
            let file = File::open(&folder).map_err(super::files::failed("read", &folder))?;
            return Ok(lock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        }
        let is_alone = lock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        lock(&self.file, FlockOperation::LockShared).map_err(failed)?;
        Ok(!is_alone)
    }
}

/// Whether nothing can be written there, though it may be read.
fn is_unwritable(err: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(err.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is found to be unlocked.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Those who use the store now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Living {
    /// The names of their leases.
    pub(super) ids: BTreeSet<String>,
    /// When the oldest of the others began; none if there are no others.
    pub(super) oldest: Option<SystemTime>,
}

/// Who lives besides `own`; what the dead have left of their leases is removed. With the gate
/// closed: who begins to live makes a file first, and locks it then.
pub(super) fn others(root: &Path, own: &Lease, _gate: &ClosedGate) -> Result<Living, StoreError> {
    let folder = root.join("leases");
    let mut living = Living::default();
    if own.has_others_without_file(root)? {
        living.add_ageless(WITHOUT_FILE);
    }
    for id in names_in(&folder)?.into_iter().filter(|it| *it != own.id) {
        let path = folder.join(&id);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed("read", &path))?,
        };
        if lock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            // Where nothing can be removed, it is looked at again by the next one.
            let _ = remove(&path);
            continue;
        }
        let start = file.metadata().and_then(|it| it.modified()).map_err(failed("read", &path))?;
        living.oldest = Some(living.oldest.map_or(start, |it| it.min(start)));
        living.ids.insert(id);
    }
    // A clock that was set back since says nothing of what is newer than they are.
    if living.oldest.zip(now(root)).is_some_and(|(oldest, now)| now < oldest) {
        living.oldest = Some(SystemTime::UNIX_EPOCH);
    }
    Ok(living)
}

impl Living {
    /// Adds who does not say since when it lives.
    pub(super) fn add_ageless(&mut self, id: &str) {
        self.ids.insert(id.to_owned());
        self.oldest = Some(SystemTime::UNIX_EPOCH);
    }

    /// Whether some of them have no file of their own, so that what they write is not known.
    pub(super) fn has_unknown(&self) -> bool {
        self.ids.contains(WITHOUT_FILE)
    }
}

/// The time by the clock of the file system; none where nothing can be written.
fn now(root: &Path) -> Option<SystemTime> {
    let gate = root.join("gate");
    super::records::note_use(&gate);
    fs::metadata(&gate).and_then(|it| it.modified()).ok()
}

/// Removes from `tmp` what the dead have left.
pub(super) fn clear(root: &Path, living: &Living, own: &str) -> Result<(), StoreError> {
    if living.has_unknown() {
        return Ok(());
    }
    let folder = root.join("tmp");
    for name in names_in(&folder)? {
        let owner = super::files::owner(&name);
        if owner != own && !living.ids.contains(owner) {
            remove_all(&folder.join(name))?;
        }
    }
    Ok(())
}
