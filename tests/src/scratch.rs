//! Scratch folders of one test process.
//!
//! Their names hold the process id, so that what a killed run left behind is removed by the next.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Once,
};

use tempfile::TempDir;

const PREFIX: &str = "rbuild-tests-";

/// A folder that is removed with its value, and that other users may enter.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
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
        Self { dir }
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
        if !Path::new("/proc").join(owner).exists() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// The process id in the name of a scratch folder.
fn owner(name: &str) -> Option<&str> {
    let (id, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
}
