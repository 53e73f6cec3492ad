//! The private folder of a build: what commands hand on to each other, and our own program.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use crate::{shell::ShellError, temporary};

/// A folder that only its owner may enter. It goes when this value goes, or when the supervisor
/// of its build does.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    /// Makes a folder in the first of `places` that allows it; one in memory should be first,
    /// since variables may be secrets. `program` gets a link to it there, named `rbuild`.
    pub fn create(places: &[&Path], program: &Path) -> Result<Self, ShellError> {
        let mut first = None;
        for place in places {
            match Self::create_in(place, program) {
                Ok(folder) => return Ok(folder),
                Err(err) => first = first.or(Some(err)),
            }
        }
        let none =
            || ShellError::Folder { path: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        Err(first.unwrap_or_else(none))
    }

    fn create_in(place: &Path, program: &Path) -> Result<Self, ShellError> {
        let path = place.join(temporary::name());
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        let failed = |path: &Path, source| ShellError::Folder { path: path.to_owned(), source };
        make(&path).map_err(|source| failed(&path, source))?;
        let folder = Self { path };
        let programs = folder.programs();
        make(&programs)
            .and_then(|()| symlink(program, programs.join("rbuild")))
            .map_err(|source| failed(&programs, source))?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with our own program, for the PATH.
    pub fn programs(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// Puts a file into it that only its owner may read, and returns its path.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, ShellError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        match options.open(&path).and_then(|mut file| file.write_all(bytes)) {
            Ok(()) => Ok(path),
            Err(source) => Err(ShellError::File { path, source }),
        }
    }

    /// What the shell reads.
    pub(super) fn script(&self) -> PathBuf {
        script_in(&self.path)
    }

    /// The variables, as commands that set them.
    pub(super) fn variables(&self) -> PathBuf {
        self.path.join("env.sh")
    }

    /// The working directory, and a line feed.
    pub(super) fn directory(&self) -> PathBuf {
        self.path.join("dir.txt")
    }

    /// Where the shell writes what it is asked.
    pub(super) fn answer(&self) -> PathBuf {
        self.path.join("answer")
    }
}

/// What the shell reads, in the folder at `path`.
pub(super) fn script_in(path: &Path) -> PathBuf {
    path.join("script.sh")
}

/// Whether the folder at `path` is that of a build, as far as one can see.
pub(super) fn is_private_folder(path: &Path) -> bool {
    path.file_name().is_some_and(temporary::is_name) && path.join("bin/rbuild").is_symlink()
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // The supervisor may have removed it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_has_the_program_and_goes() {
        let place = tempfile::tempdir().unwrap();
        let places = [Path::new("/nowhere"), place.path()];
        let folder = PrivateFolder::create(&places, Path::new("/bin/true")).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let link = fs::read_link(folder.programs().join("rbuild")).unwrap();
        assert_eq!(link, Path::new("/bin/true"));
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_put_into_it_is_its_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
        folder.put("a", b"longer").unwrap();
        let path = folder.put("a", b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(folder.put("no/folder", b"").is_err());
    }

    #[test]
    fn two_builds_have_two_folders() {
        let place = tempfile::tempdir().unwrap();
        let create = || PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
        assert_ne!(create().path(), create().path());
    }

    #[test]
    fn the_first_place_is_named_if_none_will_do() {
        let places = [Path::new("/nowhere/a"), Path::new("/nowhere/b")];
        let err = PrivateFolder::create(&places, Path::new("/bin/true")).unwrap_err();
        assert!(err.to_string().contains("/nowhere/a/rbuild-"), "{err}");
    }
}
