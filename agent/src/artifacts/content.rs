//! What is in a file that is packed.
//!
//! **Architecture invariant:** the only module that opens artifacts. It never waits for a pipe, and
//! knows whether a file is still what it was when it was opened.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::OFlags;

use crate::artifacts::ArtifactsError;

/// An open file. Whoever has read it whole asks whether it is [still what it
/// was](Self::check_unchanged).
#[derive(Debug)]
pub struct Content {
    path: PathBuf,
    file: File,
    size: u64,
    modified: SystemTime,
    mode: u32,
}

impl Content {
    /// Opens a file. Links are followed.
    pub fn open(path: &Path) -> Result<Self, ArtifactsError> {
        let waits_for_nobody = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(waits_for_nobody).open(path);
        Self::of(file.map_err(|err| no_file(path, err))?, path)
    }

    /// What is in a file that is open, which errors call `path`.
    pub fn of(file: File, path: &Path) -> Result<Self, ArtifactsError> {
        let failed = |source| ArtifactsError::Read { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(ArtifactsError::Changed { path: path.to_owned() });
        }
        let (size, modified) = state(&metadata).map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        Ok(Self { path: path.to_owned(), file, size, modified, mode })
    }

    /// How many bytes it had when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The permissions.
    pub(super) fn mode(&self) -> u32 {
        self.mode
    }

    /// When it was modified, in whole seconds since 1970; what is earlier is then.
    pub(super) fn modified(&self) -> u64 {
        self.modified.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
    }

    /// The `length` bytes from `offset` on.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>, ArtifactsError> {
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            // It has become shorter.
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(err) => Err(self.unreadable(err)),
        }
    }

    /// Reads what comes next; nothing at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArtifactsError> {
        loop {
            match self.file.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                count => return count.map_err(|err| self.unreadable(err)),
            }
        }
    }

    /// An error if the file is not what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), ArtifactsError> {
        let now = self.file.metadata().and_then(|it| state(&it));
        match now.map_err(|err| self.unreadable(err))? {
            now if now == (self.size, self.modified) => Ok(()),
            _ => Err(self.changed()),
        }
    }

    fn changed(&self) -> ArtifactsError {
        ArtifactsError::Changed { path: self.path.clone() }
    }

    fn unreadable(&self, source: io::Error) -> ArtifactsError {
        ArtifactsError::Read { path: self.path.clone(), source }
    }
}

/// What differs if a file was written to.
fn state(metadata: &Metadata) -> io::Result<(u64, SystemTime)> {
    Ok((metadata.len(), metadata.modified()?))
}

/// Why a file that was there cannot be opened. A socket cannot, whoever asks.
fn no_file(path: &Path, source: io::Error) -> ArtifactsError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ArtifactsError::Gone { path },
        _ if source.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            ArtifactsError::Changed { path }
        }
        _ => ArtifactsError::Read { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, process::Command};

    use super::*;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, Path::new("/dev/zero"), folder.path()] {
            let err = Content::open(path).unwrap_err();
            assert!(matches!(err, ArtifactsError::Changed { .. }), "{err}");
        }
    }

    #[test]
    fn a_file_that_changes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("grows", &|| fs::write(&path, "content and more").unwrap()),
            ("shrinks", &|| fs::write(&path, "c").unwrap()),
            ("is written", &|| {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
            }),
            ("goes", &|| fs::remove_file(&path).unwrap()),
        ];
        for (change, make) in changes {
            fs::write(&path, "content").unwrap();
            let content = Content::open(&path).unwrap();
            assert_eq!(content.read_at(3, 4).unwrap(), b"tent");
            content.check_unchanged().unwrap();
            make();
            let seen = content.check_unchanged();
            // One that was removed can still be read whole.
            assert_eq!(seen.is_err(), change != "goes", "{change}");
        }
        let gone = Content::open(&path).unwrap_err();
        assert!(matches!(gone, ArtifactsError::Gone { .. }), "{gone}");
        assert!(!gone.is_of_the_machine());
    }
}
