//! A file that appears as a whole, under its name, or not at all.
//!
//! Until then it has no name, where the filesystem can do that: whatever ends the process, nothing
//! is left. Elsewhere it lies beside its place, under a lock, and the next who writes there clears
//! what nobody holds the lock of.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat};

use crate::unique;

/// A file that is being written.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    /// Its name for the time being, if it has one.
    temporary: Option<PathBuf>,
    target: PathBuf,
}

impl PartFile {
    /// Begins a file that will be `target`.
    pub fn create(target: &Path) -> io::Result<Self> {
        clear(target);
        let folder = folder(target);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = openat(CWD, folder, flags, Mode::from_raw_mode(0o644)) {
            // It gets a name for a moment, in which nobody else may clear it.
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            return Ok(Self { file: file.into(), temporary: None, target: target.to_owned() });
        }
        let path = temporary(target);
        let file = File::create_new(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { file, temporary: Some(path), target: target.to_owned() })
    }

    /// Syncs it, and puts it in the place of what has its name.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.temporary.is_none() {
            let path = temporary(&self.target);
            let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, file, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
            self.temporary = Some(path);
        }
        if let Some(path) = &self.temporary {
            fs::rename(path, &self.target)?;
        }
        self.temporary = None;
        File::open(folder(&self.target))?.sync_all()
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            let _ = fs::remove_file(path);
        }
    }
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// How the temporary names of a file begin.
fn prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.rbuild-part-")
}

fn temporary(target: &Path) -> PathBuf {
    folder(target).join(format!("{}{}", prefix(target), unique::name()))
}

/// Removes what a killed rbuild left of the same file: nobody holds its lock.
fn clear(target: &Path) {
    let prefix = prefix(target);
    for entry in fs::read_dir(folder(target)).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let is_free = File::open(entry.path())
            .is_ok_and(|it| flock(&it, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_free {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.tar");
        fs::write(&target, "old").unwrap();
        PartFile::create(&target).unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        let mut part = PartFile::create(&target).unwrap();
        part.write_all(b"whole").unwrap();
        part.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["x.tar"]);
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_and_what_another_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.tar");
        let (left, held) = (temporary(&target), temporary(&target));
        fs::write(&left, "half").unwrap();
        let other = File::create(&held).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::write(folder.path().join(".y.tar.rbuild-part-1"), "").unwrap();
        PartFile::create(&target).unwrap().finish().unwrap();
        assert!(!left.exists() && held.exists());
        assert_eq!(names(folder.path()).len(), 3);
    }
}
