//! Files of the store: how they come to be, and how they go.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::StoreError;

/// Where a process writes what nobody sees yet. The names say who writes.
#[derive(Debug)]
pub(super) struct Temporaries {
    folder: PathBuf,
    owner: String,
    next: AtomicU64,
}

/// A file in `tmp` that is removed unless it is kept.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    kept: bool,
}

impl Temporaries {
    /// Of the process that has the lease `owner`.
    pub(super) fn new(root: &Path, owner: String) -> Self {
        Self { folder: root.join("tmp"), owner, next: AtomicU64::new(0) }
    }

    /// The lease of who writes them.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// A path that nobody has.
    pub(super) fn path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{}-{number}", self.owner))
    }

    /// A new file.
    pub(super) fn file(&self) -> Result<(File, Temporary), StoreError> {
        let path = self.path();
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(failed("write", &path))?;
        Ok((file, Temporary { path, kept: false }))
    }
}

/// Who wrote a file of `tmp`, by its name.
pub(super) fn owner(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(owner, _)| owner)
}

impl Temporary {
    /// A file that was made elsewhere.
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, kept: false }
    }

    /// Gives it its name, whether it was synced or not.
    pub(super) fn rename(mut self, path: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, path).map_err(failed("write", path))?;
        self.kept = true;
        Ok(())
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

/// Syncs, renames, syncs the folder: after this, and not before, others see the file.
pub(super) fn publish(file: &File, temporary: Temporary, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(failed("write", &temporary.path))?;
    temporary.rename(path)?;
    sync_folder_of(path)
}

pub(super) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    sync_folder(path.parent().unwrap_or(path))
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed("sync", folder))
}

/// Removes a file, if it is there; a crash may bring it back.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(err)),
        _ => Ok(()),
    }
}

/// Removes a file or a folder with all that is in it; what is gone already is fine.
pub(super) fn remove_all(path: &Path) -> Result<(), StoreError> {
    let is_folder = path.symlink_metadata().is_ok_and(|it| it.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(err)),
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; one that is not there has none.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("read", folder))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether there is no space for what should be written.
pub(super) fn is_full(err: &StoreError) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(err, StoreError::Io { source, .. } if matches!(source.kind(), QuotaExceeded | StorageFull))
}

/// Whether a file's name ends in this.
pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == extension)
}

/// What a file takes on the disk, in bytes; nothing if it is not there.
pub(super) fn taken(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |it| it.blocks() * 512)
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
