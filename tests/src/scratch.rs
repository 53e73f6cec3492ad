//! Scratch folders of one test process.
//!
//! Their names hold the process id, so that what a killed run left behind is removed by the next. A
//! process in another namespace of ids is not seen by its id: each folder is locked, too.

use std::{
    env, fs,
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Once,
};

use rustix::fs::FlockOperation;
use tempfile::TempDir;

const PREFIX: &str = "rbuild-tests-";

/// A folder that is removed with its value, and that other users may enter.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// A new, empty folder.
    pub fn new() -> Self {
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(|| remove_leftovers(&env::temp_dir()));
        Self::below(&env::temp_dir())
    }

    /// A new, empty folder in this one.
    pub fn below(folder: &Path) -> Self {
        let prefix = format!("{PREFIX}{}-", process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder);
        let dir = dir.expect("scratch folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let lock = lock(dir.path()).expect("a scratch folder that nobody else has locked");
        Self { dir, _lock: lock }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file or folder in it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path().join(path)
    }

    /// Writes a file in it, and returns where that is.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(path);
        write(&path, bytes);
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a file, and the folders above it where they are missing.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("folder of a file");
    }
    fs::write(path, bytes).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
}

/// Copies a program, so that it can be started at once.
///
/// By another process: a child that another test starts meanwhile would inherit our open file, and
/// a program that is open for writing cannot be started ("text file busy").
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").args([from, to]).status().expect("cp");
    assert!(status.success(), "{} was not copied", from.display());
}

/// Removes what processes that are gone left behind in a folder: a killed test cleans nothing up.
pub fn remove_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).expect("folder for temporary files");
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner) else { continue };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        if let Some(_lock) = lock(&entry.path()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// A lock on a folder, which lasts as long as the process; none if another has it.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// The process id in the name of a scratch folder.
fn owner(name: &str) -> Option<&str> {
    let (id, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_of_processes_that_are_gone() {
        let place = Scratch::new();
        let mut gone = Command::new("true").spawn().expect("a process");
        gone.wait().expect("its end");
        let folder = |id: u32, name: &str| {
            let path = place.join(format!("{PREFIX}{id}-{name}"));
            fs::create_dir(&path).expect("folder");
            path
        };
        let (left, ours) = (folder(gone.id(), "left"), folder(process::id(), "ours"));
        // As one of another namespace, whose process has an id that is not seen.
        let other = folder(gone.id(), "other");
        let _lock = lock(&other).expect("a lock");
        remove_leftovers(place.path());
        assert!(!left.exists() && ours.exists() && other.exists());
    }
}
