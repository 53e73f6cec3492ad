//! Docker's `config.json`: read, and changed so that readers never see half of it and writers
//! never lose what another wrote.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::registry::docker_config::{DockerConfig, edit::EditError};
use rustix::fs::{FlockOperation, flock};

use crate::{
    failure::{Failure, Kind},
    host,
};

/// The file of this user, which need not be there.
pub(crate) struct DockerFile {
    path: PathBuf,
}

impl DockerFile {
    /// In `$DOCKER_CONFIG`, or else in the user's home; nowhere if neither is set.
    pub(crate) fn of_user() -> Option<Self> {
        let folder = host::variable("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| host::home().map(|it| it.join(".docker")))?;
        Some(Self { path: folder.join("config.json") })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it knows; a file that is not there knows nothing.
    pub(crate) fn read(&self) -> Result<DockerConfig, Failure> {
        self.parse(&self.text()?)
    }

    fn parse(&self, text: &str) -> Result<DockerConfig, Failure> {
        if text.trim().is_empty() {
            return Ok(DockerConfig::default());
        }
        text.parse::<DockerConfig>().map_err(|err| self.invalid().because(err))
    }

    /// Changes the file: `change` gets its text, and gives another, or nothing to leave it.
    /// Others of our kind wait meanwhile.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&str) -> Result<Option<String>, EditError>,
    ) -> Result<(), Failure> {
        let unwritten = |err| {
            let message = format!("`{}` could not be written", self.path.display());
            Failure::new(Kind::Outside, message).because(err)
        };
        // A link stays one: what it leads to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(unwritten)?;
        let lock = private(&folder.join(".config.json.rbuild-lock")).map_err(unwritten)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|err| unwritten(err.into()))?;
        let changed = change(&self.text()?).map_err(|err| self.invalid().because(err))?;
        match changed {
            Some(text) => replace(&path, &folder, &text).map_err(unwritten),
            None => Ok(()),
        }
    }

    fn text(&self) -> Result<String, Failure> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(err) => {
                let message = format!("`{}` could not be read", self.path.display());
                Err(Failure::new(Kind::Input, message).because(err))
            }
        }
    }

    fn invalid(&self) -> Failure {
        Failure::new(Kind::Input, format!("`{}` is not valid", self.path.display()))
    }
}

fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Readers see the old text or the new one, whatever happens to this machine.
fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let new = folder.join(format!(".config.json.{}", host::random_word()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // What is left of it would only lie about.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, thread};

    use rbuild_imagebuilder::registry::{
        Credential,
        docker_config::{
            Kept,
            edit::{self, Keep},
        },
    };

    use super::*;

    #[test]
    fn writers_at_once_lose_nothing_and_the_file_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.json");
        let credential = Credential { username: "u".into(), password: "p".into() };
        thread::scope(|scope| {
            for number in 0..16 {
                let (path, credential) = (path.clone(), &credential);
                scope.spawn(move || {
                    let registry = format!("r{number}.example.com");
                    let keep = Keep::Here(credential);
                    let log_in = |text: &str| edit::log_in(text, &registry, keep).map(Some);
                    DockerFile { path }.change(log_in).unwrap();
                });
            }
        });
        let config = DockerFile { path: path.clone() }.read().unwrap();
        for number in 0..16 {
            let found = config.find(&format!("r{number}.example.com")).unwrap();
            assert_eq!(found, Some(Kept::Credential(credential.clone())));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "the file and its lock");
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("config.json"));
        fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = DockerFile { path: link.clone() };
        file.change(|_| Ok(Some("{\"a\":1}".into()))).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "{\"a\":1}");
        file.change(|_| Ok(None)).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "{\"a\":1}");
    }
}
