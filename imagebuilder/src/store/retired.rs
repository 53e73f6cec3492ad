//! What was removed from the store while others used it: it waits until they are gone.
//!
//! A process may have found an object, and is about to make a blob of it, when another removes it as
//! nobody's. So the file is put aside under `retired/NAME`, beside a list of who lived then. Those
//! still read it there, and bring it back with their next commit if they need it; all who come
//! later do not see it. When all on the list are gone, it goes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    files::{failed, names_in, remove, remove_all, taken},
    leases::Living,
};
use crate::unique;

/// Takes files out of the store.
#[derive(Debug)]
pub(super) struct Retirement<'a> {
    root: &'a Path,
    living: &'a Living,
    folder: Option<PathBuf>,
    /// Bytes that were freed, and bytes that will be when the others are gone.
    pub(super) freed: u64,
    pub(super) later: u64,
}

impl<'a> Retirement<'a> {
    /// With these others. Call it with the gate closed to them.
    pub(super) fn new(root: &'a Path, living: &'a Living) -> Self {
        Self { root, living, folder: None, freed: 0, later: 0 }
    }

    /// Takes a file out: removed, or put aside if there are others.
    pub(super) fn take(&mut self, path: &Path) -> Result<(), StoreError> {
        let size = taken(path);
        if self.living.ids.is_empty() {
            self.freed += size;
            return remove(path);
        }
        let folder = self.folder()?;
        let to = folder.join(path.file_name().unwrap_or_default());
        match fs::rename(path, &to) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed("move", path)(err)),
            _ => {
                self.later += size;
                Ok(())
            }
        }
    }

    fn folder(&mut self) -> Result<&Path, StoreError> {
        if self.folder.is_none() {
            let path = self.root.join("retired").join(unique::name());
            fs::create_dir(&path).map_err(failed("write", &path))?;
            let ids: Vec<&str> = self.living.ids.iter().map(String::as_str).collect();
            let waits = path.join(WAITS);
            fs::write(&waits, ids.join("\n")).map_err(failed("write", &waits))?;
            self.folder = Some(path);
        }
        Ok(self.folder.as_deref().unwrap_or(self.root))
    }
}

const WAITS: &str = "waits-for";

/// Removes what nobody alive can need. Call it with the gate closed to others.
pub(super) fn clear(root: &Path, living: &Living, own: &str) -> Result<u64, StoreError> {
    let mut freed = 0;
    for folder in folders(root)? {
        // A list that is not whole is of a process that died before it put anything aside.
        let list = fs::read_to_string(folder.join(WAITS)).unwrap_or_default();
        if list.lines().any(|it| it == own || living.ids.contains(it)) {
            continue;
        }
        freed += names_in(&folder)?.iter().map(|it| taken(&folder.join(it))).sum::<u64>();
        remove_all(&folder)?;
    }
    Ok(freed)
}

/// Where a file lies that was taken out.
pub(super) fn find(root: &Path, name: &str) -> Result<Option<PathBuf>, StoreError> {
    let found = folders(root)?.into_iter().map(|it| it.join(name)).find(|it| it.exists());
    Ok(found)
}

/// Whether nothing was taken out that still waits.
pub(super) fn is_empty(root: &Path) -> Result<bool, StoreError> {
    Ok(folders(root)?.is_empty())
}

fn folders(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let retired = root.join("retired");
    Ok(names_in(&retired)?.iter().map(|it| retired.join(it)).collect())
}
