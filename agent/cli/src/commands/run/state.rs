//! What rbuild keeps about the builds of a source folder, in the user's folder for such.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _},
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::digest::Digest;
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::host;

/// The folder for things of a kind; none if the user has no home.
pub(super) fn folder(kind: &str) -> Option<PathBuf> {
    host::user_folder("XDG_STATE_HOME", ".local/state").map(|it| it.join(kind))
}

/// What is kept about a source is under this name.
pub(super) fn name_of(source: &Path) -> String {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let digest = Digest::of(source.as_os_str().as_encoded_bytes());
    format!("{name}-{}", &digest.hex()[..8])
}

/// Makes a folder that only the user can look into.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The number of the build that starts: one more than that of the build of this source before; 1
/// where that cannot be kept.
pub(super) fn next_build_number(source: &Path) -> u64 {
    folder("builds").and_then(|it| count(&it, source).ok()).unwrap_or(1)
}

fn count(folder: &Path, source: &Path) -> io::Result<u64> {
    make(folder)?;
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(rustix::fs::open(folder.join(name_of(source)), flags, mode)?);
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = [0; 24];
    let length = file.read_at(&mut text, 0)?;
    let last = str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
    let number = last.trim().parse::<u64>().unwrap_or_default().saturating_add(1);
    // A number never has fewer digits than the one before, so that nothing of that is left.
    file.write_all_at(format!("{number}\n").as_bytes(), 0)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_a_source_are_counted_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("builds");
        let next = |source: &str| count(&folder, Path::new(source)).unwrap();
        let numbers: Vec<u64> = (0..11).map(|_| next("/a/src")).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
        assert_eq!(next("/b/src"), 1);
        let file = folder.join(name_of(Path::new("/a/src")));
        fs::write(&file, b"\xff").unwrap();
        assert_eq!(next("/a/src"), 1);
    }

    #[test]
    fn builds_that_start_at_once_have_numbers_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = std::thread::scope(|scope| {
            let next = || count(folder.path(), Path::new("/src")).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(next)).collect();
            let numbers = threads.into_iter().map(|it| it.join().unwrap());
            numbers.collect::<std::collections::BTreeSet<u64>>()
        });
        assert_eq!(numbers, (1..=8).collect());
    }
}
