//! The private folder of a build: what commands hand on to each other, and our own program.
//!
//! Its files belong to who runs the command, and nobody else may read them. Where the user changes,
//! every file is made anew: what the one before has open is then another file. But what it says is
//! the same: variables are carried from user to user, as in `CodeBuild`. So a user who can set
//! `PATH` or `LD_PRELOAD` for a command of root can do what root can; `run-as` is no boundary.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    process::Pid,
    thread::{Gid, Uid},
};

use crate::{
    shell::{ShellError, user::Identity},
    temporary,
};

/// A folder whose files only their owner may read. It goes when this value goes, or when the
/// supervisor of its build does; if nothing is left that could remove it, with the next one that
/// is made in the same place.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    /// Held for as long as the folder is needed; some file systems have no locks.
    _lock: Option<OwnedFd>,
}

/// All files that may be in a folder, but for our program.
const FILES: [&str; 7] = [GIVEN, SAVED, DIRECTORY, SCRIPT, PS_SCRIPT, ANSWER, CREDENTIALS];
const GIVEN: &str = "env.0.sh";
const SAVED: &str = "env.1.sh";
const DIRECTORY: &str = "dir.txt";
const CREDENTIALS: &str = PrivateFolder::CREDENTIALS;
const ANSWER: &str = "answer";
const SCRIPT: &str = "script.sh";
const PS_SCRIPT: &str = "script.ps1";

/// How much of a file is read: more than the variables of any process can be.
const LIMIT: u64 = 64 * 1024 * 1024;

impl PrivateFolder {
    /// The name of the file that git reads, where it may use the credentials of the source.
    pub const CREDENTIALS: &str = "git-credentials";

    /// Makes a folder in the first of `places` that allows it; one in memory should be first,
    /// since variables may be secrets. `program` gets a link to it there, named `rbuild`. Folders
    /// there whose builds were killed are removed.
    pub fn create(places: &[&Path], program: &Path) -> Result<Self, ShellError> {
        let mut first = None;
        for place in places {
            match Self::create_in(place, program) {
                Ok(folder) => {
                    remove_abandoned(place);
                    return Ok(folder);
                }
                Err(err) => first = first.or(Some(err)),
            }
        }
        let none =
            || ShellError::Folder { path: PathBuf::new(), source: io::ErrorKind::NotFound.into() };
        Err(first.unwrap_or_else(none))
    }

    fn create_in(place: &Path, program: &Path) -> Result<Self, ShellError> {
        let name = temporary::name();
        let path = place.join(&name);
        let failed = |source| ShellError::Folder { path: path.clone(), source };
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        // It has its lock when others can see it.
        let hidden = place.join(format!(".{name}"));
        make(&hidden).map_err(failed)?;
        let mut folder = Self { _lock: lock(&hidden), path: hidden };
        make(&folder.programs())
            .and_then(|()| symlink(program, folder.programs().join("rbuild")))
            .and_then(|()| fs::rename(&folder.path, &path))
            .map_err(failed)?;
        folder.path = path;
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
        match write(&path, bytes) {
            Ok(()) => Ok(path),
            Err(source) => Err(ShellError::File { path, source }),
        }
    }

    /// What a POSIX shell reads.
    pub(super) fn script(&self) -> PathBuf {
        self.path.join(SCRIPT)
    }

    /// What `PowerShell` reads.
    pub(super) fn powershell_script(&self) -> PathBuf {
        self.path.join(PS_SCRIPT)
    }

    /// What a command reads of the variables, where that is much.
    pub(super) fn given(&self) -> PathBuf {
        self.path.join(GIVEN)
    }

    /// What a command saves.
    pub(super) fn saved(&self) -> PathBuf {
        self.path.join(SAVED)
    }

    /// The working directory, and a line feed, where that has a file of its own.
    pub(super) fn directory(&self) -> PathBuf {
        self.path.join(DIRECTORY)
    }

    /// Makes the file with the working directory empty: a command that does not write it has not
    /// saved its state.
    pub(super) fn forget_directory(&self) -> Result<(), ShellError> {
        let path = self.directory();
        write(&path, b"").map_err(|source| ShellError::File { path, source })
    }

    /// Where the shell writes what it is asked.
    pub(super) fn answer(&self) -> PathBuf {
        self.path.join(ANSWER)
    }

    /// Gives all files to `owner`, which is this process if there is none.
    pub(super) fn hand_over(&self, owner: Option<&Identity>) -> Result<(), ShellError> {
        if owner.is_some() {
            for (path, mode) in [(self.path.clone(), 0o711), (self.programs(), 0o755)] {
                fs::set_permissions(&path, Permissions::from_mode(mode))
                    .map_err(|source| ShellError::File { path, source })?;
            }
        }
        for path in FILES.map(|name| self.path.join(name)) {
            hand_over(&path, owner).map_err(|source| ShellError::File { path, source })?;
        }
        Ok(())
    }
}

/// Makes a file anew that belongs to `owner`.
fn hand_over(path: &Path, owner: Option<&Identity>) -> io::Result<()> {
    let content = match read(path) {
        Ok(content) => Some(content),
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        Err(err) => return Err(err),
    };
    if content.is_some() {
        fs::remove_file(path)?;
    }
    match owner {
        Some(Identity { uid, gid, .. }) => {
            let file = create(path, OFlags::EXCL)?;
            rustix::fs::fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
            File::from(file).write_all(&content.unwrap_or_default())
        }
        None => content.map_or(Ok(()), |it| write(path, &it)),
    }
}

/// Writes a file, and never waits for what a command put in its place.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    File::from(create(path, OFlags::TRUNC)?).write_all(content)
}

fn create(path: &Path, how: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC | how, Mode::RUSR | Mode::WUSR)?)
}

/// Reads a file, and never waits for what a command put in its place.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut content = Vec::new();
    File::from(rustix::fs::open(path, flags, Mode::empty())?)
        .take(LIMIT)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Holds the folder at `path`; none if that cannot be.
pub(super) fn lock(path: &Path) -> Option<OwnedFd> {
    lock_as(path, FlockOperation::NonBlockingLockShared)
}

fn lock_as(path: &Path, how: FlockOperation) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&folder, how).ok()?;
    Some(folder)
}

/// Whether the folder at `path` is that of a build, as far as one can see.
pub(super) fn is_private_folder(path: &Path) -> bool {
    path.file_name().is_some_and(temporary::is_name) && path.join("bin/rbuild").is_symlink()
}

/// Removes the folders in `place` whose builds and supervisors were killed. What cannot be removed
/// stays.
fn remove_abandoned(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let hidden_owner = temporary::hidden_owner(&name);
        if !temporary::is_name(&name) && hidden_owner.is_none() {
            continue;
        }
        let path = entry.path();
        let own = rustix::process::geteuid().as_raw();
        let is_own = fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir() && it.uid() == own);
        if !is_own || !has_only_ours(&path) || hidden_owner.is_some_and(is_alive) {
            continue;
        }
        if let Some(_lock) = lock_as(&path, FlockOperation::NonBlockingLockExclusive) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn has_only_ours(folder: &Path) -> bool {
    let is_ours = |name: &str| name == "bin" || FILES.contains(&name);
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|it| it.is_ok_and(|it| it.file_name().to_str().is_some_and(is_ours)))
    })
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|it| rustix::process::test_kill_process(it) != Err(Errno::SRCH))
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // The supervisor may have removed it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
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
        let (first, second) = (create(), create());
        assert_ne!(first.path(), second.path());
        assert!(first.path().exists(), "it is in use");
    }

    #[test]
    fn folders_of_killed_builds_go_and_nothing_else_does() {
        let place = tempfile::tempdir().unwrap();
        let in_place = |name: &str| place.path().join(name);
        let make = |name: &str, file: &str| {
            fs::create_dir_all(in_place(name)).unwrap();
            fs::write(in_place(name).join(file), "").unwrap();
        };
        let own = format!(".rbuild-{}-0123456789abcdef", std::process::id());
        for (name, file, stays) in [
            ("rbuild-1-0123456789abcdef", "env.1.sh", false),
            ("rbuild-4000000-0123456789abcdef", "script.sh", false),
            (".rbuild-4194305-0123456789abcdef", "bin", false),
            (&own, "bin", true),
            ("rbuild-1-0123456789abcdee", "thesis.txt", true),
            ("rbuild-cache", "env.1.sh", true),
            ("other", "env.1.sh", true),
        ] {
            make(name, file);
            let held = PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
            assert_eq!(in_place(name).exists(), stays, "{name}");
            drop(held);
        }
        make("rbuild-1-0123456789abcded", "env.0.sh");
        let _held = lock(&in_place("rbuild-1-0123456789abcded")).unwrap();
        PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
        assert!(in_place("rbuild-1-0123456789abcded").exists(), "a supervisor holds it");
    }

    #[test]
    fn nothing_waits_for_a_pipe_or_follows_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (pipe, link) = (place.path().join("pipe"), place.path().join("link"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        symlink("/dev/zero", &link).unwrap();
        assert_eq!(read(&pipe).unwrap(), b"");
        assert!(write(&pipe, b"x").is_err());
        assert!(read(&link).is_err());
        assert!(write(&link, b"x").is_err());
    }

    #[test]
    fn the_first_place_is_named_if_none_will_do() {
        let places = [Path::new("/nowhere/a"), Path::new("/nowhere/b")];
        let err = PrivateFolder::create(&places, Path::new("/bin/true")).unwrap_err();
        assert!(err.to_string().contains("/nowhere/a/rbuild-"), "{err}");
    }
}
