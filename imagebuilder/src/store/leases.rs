//! Who uses the store: a file for each process, which it holds locked as long as it lives.
//!
//! A process that removes something from the store asks who else lives. What others may need is not
//! removed but put aside ([`super::retired`]) until all who live now are gone.
//!
//! **Architecture invariant:** no lock that others wait for is held for longer than some files take
//! to be renamed: the gate is shared by who commits, and exclusive to who removes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
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

/// The lock of all who change what is in the store.
#[derive(Debug)]
pub(super) struct Gate {
    _file: File,
}

impl Gate {
    /// Waits until nobody removes anything, and keeps it so.
    pub(super) fn shared(root: &Path) -> Result<Self, StoreError> {
        let file = open(root)?;
        lock(&file, FlockOperation::LockShared).map_err(|err| failed("lock", root)(err.into()))?;
        Ok(Self { _file: file })
    }

    /// Waits until nobody changes anything, and keeps it so.
    pub(super) fn exclusive(root: &Path) -> Result<Self, StoreError> {
        let file = open(root)?;
        let locked = lock(&file, FlockOperation::LockExclusive);
        locked.map_err(|err| failed("lock", root)(err.into()))?;
        Ok(Self { _file: file })
    }

    /// As [`Gate::exclusive`], but waits for nobody.
    pub(super) fn try_exclusive(root: &Path) -> Option<Self> {
        let file = open(root).ok()?;
        lock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { _file: file })
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
    path: PathBuf,
    _file: File,
}

impl Lease {
    /// Says that this process uses the store. Under the gate, so that nobody takes the file, before
    /// it is locked, for one that a dead process left.
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let _gate = Gate::shared(root)?;
        let id = format!("{:016x}", fastrand::Rng::new().u64(..));
        let path = root.join("leases").join(&id);
        let file = File::create_new(&path).map_err(failed("write", &path))?;
        let locked = lock(&file, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|err| failed("lock", &path)(err.into()))?;
        let start = file.metadata().and_then(|it| it.modified()).map_err(failed("read", &path))?;
        Ok(Self { id, start, path, _file: file })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is found to be unlocked.
        let _ = fs::remove_file(&self.path);
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

/// Who lives besides `own`; what the dead have left of their leases is removed. Call it with the
/// gate closed to others.
pub(super) fn others(root: &Path, own: &str) -> Result<Living, StoreError> {
    let folder = root.join("leases");
    let mut living = Living::default();
    for id in names_in(&folder)?.into_iter().filter(|it| it != own) {
        let path = folder.join(&id);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed("read", &path))?,
        };
        if lock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            remove(&path)?;
            continue;
        }
        let start = file.metadata().and_then(|it| it.modified()).map_err(failed("read", &path))?;
        living.oldest = Some(living.oldest.map_or(start, |it| it.min(start)));
        living.ids.insert(id);
    }
    Ok(living)
}

/// Removes from `tmp` what the dead have left.
pub(super) fn clear(root: &Path, living: &Living, own: &str) -> Result<(), StoreError> {
    let folder = root.join("tmp");
    for name in names_in(&folder)? {
        let owner = super::files::owner(&name);
        if owner != own && !living.ids.contains(owner) {
            remove_all(&folder.join(name))?;
        }
    }
    Ok(())
}
