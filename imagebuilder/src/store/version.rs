//! The layout of the store: how one is made, and how an older one becomes one of today.
//!
//! Layout 1 had `blobs`, `images`, `names`, `cache` and `tmp` as they are now, no packs, and a file
//! `lock` that all who used it held as long as they lived. It becomes layout 2 in place: folders
//! are added, and the version is written last, by a rename; so it can be done twice at once, and be
//! interrupted anywhere. A process that still has layout 1 open writes files that layout 2 reads;
//! as long as it lives (it holds `lock`), no blob that it may need is removed, and since all who
//! come share `lock` with it, it removes none either. `lock` goes when nobody has it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use rustix::fs::FlockOperation;

use super::{
    StoreError,
    files::{Temporary, failed, publish, remove, remove_all, sync_folder, sync_folder_of},
    leases::lock,
};
use crate::unique;

/// The number of the layout that this version reads and writes.
pub(super) const VERSION: &str = "2";
const OLD: &str = "1";
const FOLDERS: [&str; 9] =
    ["blobs/sha256", "packs", "images", "names", "cache", "stat", "leases", "retired", "tmp"];
/// What else may be in a store that was not finished.
const FILES: [&str; 5] = ["blobs", "gate", "lock", "usage", "version"];

/// Makes what is missing of the store.
pub(super) fn prepare(root: &Path) -> Result<(), StoreError> {
    let version = root.join("version");
    match fs::read_to_string(&version) {
        Ok(text) if text.trim() == VERSION => Ok(()),
        Ok(text) if text.trim() == OLD => migrate(root, &version),
        Ok(text) => {
            let found = text.trim().chars().take(20).collect();
            Err(StoreError::Version { path: root.to_owned(), found })
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => match create(root, &version) {
            // Another process made it meanwhile, and uses it already.
            Err(StoreError::Foreign { .. }) if version.exists() => Ok(()),
            created => created,
        },
        Err(err) => Err(failed("read", &version)(err)),
    }
}

/// The lock of layout 1, shared, if a process still has it. Else it goes.
pub(super) fn old_lock(root: &Path) -> Result<Option<File>, StoreError> {
    let path = root.join("lock");
    let file = match File::open(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("read", &path))?,
    };
    if lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // Where nothing can be removed, it stays.
        let _ = remove(&path);
        return Ok(None);
    }
    let shared = lock(&file, FlockOperation::LockShared);
    shared.map_err(|err| failed("lock", &path)(err.into()))?;
    Ok(Some(file))
}

/// Makes a store; the version comes last, so that a half-made store is made again.
fn create(root: &Path, version: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(root).map_err(failed("write", root))?;
    for entry in fs::read_dir(root).map_err(failed("read", root))? {
        let name = entry.map_err(failed("read", root))?.file_name();
        let name = name.to_string_lossy();
        let ours = FILES.contains(&name.as_ref())
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
    finish(root, version)
}

fn migrate(root: &Path, version: &Path) -> Result<(), StoreError> {
    for folder in FOLDERS {
        let path = root.join(folder);
        fs::create_dir_all(&path).map_err(failed("write", &path))?;
    }
    sync_folder(root)?;
    // Objects were files for a while.
    remove_all(&root.join("objects"))?;
    finish(root, version)
}

fn finish(root: &Path, version: &Path) -> Result<(), StoreError> {
    let gate = root.join("gate");
    File::options()
        .append(true)
        .create(true)
        .open(&gate)
        .and_then(|it| it.sync_all())
        .map_err(failed("write", &gate))?;
    let path = root.join(format!("version.{}", unique::name()));
    let mut file = File::create(&path).map_err(failed("write", &path))?;
    let temporary = Temporary::of(path);
    let written = file.write_all(format!("{VERSION}\n").as_bytes());
    written.map_err(failed("write", &temporary.path))?;
    publish(&file, temporary, version)
}

pub(super) fn foreign(path: &Path, found: &str) -> StoreError {
    StoreError::Foreign { path: path.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        store::{Name, Origin, Store, StoredImage},
    };

    /// A store as the first version left it.
    fn old(root: &Path) -> Digest {
        for folder in ["blobs/sha256", "images", "names", "cache", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("lock"), "").unwrap();
        fs::write(root.join("version"), "1\n").unwrap();
        let digest = Digest::of(b"{}");
        let (hex, name) = (digest.hex(), Digest::of(b"docker.io/library/a:1").hex());
        fs::write(root.join("blobs/sha256").join(&hex), "{}").unwrap();
        let image = format!(r#"{{"media_type":"m","digest":"{digest}","size":2,"added":7}}"#);
        fs::write(root.join("images").join(&hex), image).unwrap();
        let record =
            format!(r#"{{"name":"docker.io/library/a:1","digest":"{digest}","origin":"local"}}"#);
        fs::write(root.join("names").join(name), record).unwrap();
        fs::write(root.join("cache").join(&hex), "17").unwrap();
        digest
    }

    #[test]
    fn a_store_of_layout_1_becomes_one_of_layout_2() {
        let folder = tempfile::tempdir().unwrap();
        let digest = old(folder.path());
        let stores = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        for store in stores {
            assert_eq!(store.read_blob(digest, 2).unwrap(), b"{}");
            let image = StoredImage { digest, size: 2, media_type: "m".into(), added: 7 };
            assert_eq!(store.image(digest).unwrap(), Some(image));
            let name = "docker.io/library/a:1".to_owned();
            let named = Name { name: name.clone(), digest, origin: Origin::Local };
            assert_eq!(store.name(&name).unwrap(), Some(named));
            assert_eq!(store.recall::<u32>(digest).unwrap(), Some(17));
        }
        assert_eq!(fs::read_to_string(folder.path().join("version")).unwrap(), "2\n");
        assert!(!folder.path().join("lock").exists());
    }

    #[test]
    fn a_process_that_has_layout_1_open_keeps_what_it_may_be_writing() {
        let folder = tempfile::tempdir().unwrap();
        old(folder.path());
        let held = File::open(folder.path().join("lock")).unwrap();
        lock(&held, FlockOperation::LockShared).unwrap();
        let left = folder.path().join("tmp/17-0-0123456789abcdef");
        fs::write(&left, "half").unwrap();
        drop(Store::open(folder.path()).unwrap());
        assert!(left.exists());
        drop(held);
        drop(Store::open(folder.path()).unwrap());
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
    fn another_layout_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        fs::write(folder.path().join("version"), "7\n").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Version { found, .. } if found == "7"));
    }
}
