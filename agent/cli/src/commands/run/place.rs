//! Where the artifacts of a build go.
//!
//! A folder that was asked for keeps what is in it. In rbuild's own, the artifacts of one build
//! replace those of the build before, when they are complete: two builds at the same time, or one
//! that fails, spoil nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rbuild_agent::artifacts::{Location, Packed};

use super::state;
use crate::failure::{Failure, Kind};

/// What is not complete yet.
pub(super) const PART: &str = ".part";
/// What is being replaced.
const OLD: &str = ".old";

/// Where artifacts are written, and where they are found in the end.
#[derive(Debug)]
pub(super) struct Place {
    destination: PathBuf,
    /// The folder that the destination becomes, if it is not the one that was asked for.
    own: Option<PathBuf>,
}

impl Place {
    /// Where the artifacts of a build of `source` go.
    pub(super) fn new(asked: Option<&Path>, source: &Path) -> Result<Self, Failure> {
        match asked {
            Some(folder) => Self::asked_for(folder),
            None => Self::own(source),
        }
    }

    /// Where nothing goes.
    pub(super) fn nowhere() -> Self {
        Self { destination: PathBuf::new(), own: None }
    }

    /// Said before the build: that there can be no such folder.
    fn asked_for(folder: &Path) -> Result<Self, Failure> {
        let made = std::path::absolute(folder)
            .and_then(|it| fs::create_dir_all(&it).map(|()| it))
            .map_err(|err| {
                let message =
                    format!("the folder `{}` for artifacts cannot be used", folder.display());
                Failure::new(Kind::Input, message).because(err)
            })?;
        Ok(Self { destination: made, own: None })
    }

    fn own(source: &Path) -> Result<Self, Failure> {
        let all = state::folder("artifacts").ok_or_else(|| {
            Failure::new(Kind::Input, "there is no place for the artifacts")
                .hint("set HOME, or name a folder with --artifacts")
        })?;
        remove_leftovers(&all);
        let own = all.join(state::name_of(source));
        let destination = beside(&own, PART);
        Ok(Self { destination, own: Some(own) })
    }

    /// Where artifacts are written.
    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }

    /// Puts complete artifacts where they are found, in place of those of the build before.
    pub(super) fn settle(&mut self, packed: &mut [Packed]) -> Result<(), Failure> {
        if packed.is_empty() {
            return Ok(());
        }
        let Some(own) = self.own.take() else { return Ok(()) };
        let failed = |err: io::Error| {
            let message = format!("the artifacts could not be put into `{}`", own.display());
            Failure::new(Kind::Outside, message).because(err)
        };
        let before = beside(&own, OLD);
        match fs::rename(&own, &before) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(err)),
            _ => {}
        }
        fs::rename(&self.destination, &own).map_err(failed)?;
        let _ = fs::remove_dir_all(&before);
        for packed in packed {
            let Location::Local(path) = &mut packed.location else { continue };
            *path = match path.strip_prefix(&self.destination) {
                Ok(rest) if rest.as_os_str().is_empty() => own.clone(),
                Ok(rest) => own.join(rest),
                Err(_) => path.clone(),
            };
        }
        Ok(())
    }
}

/// A folder of this process's beside `own`.
pub(super) fn beside(own: &Path, what: &str) -> PathBuf {
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    own.with_file_name(format!("{name}.{}{what}", process::id()))
}

/// Removes what a build left here whose process was killed.
pub(super) fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = name.strip_suffix(PART).or_else(|| name.strip_suffix(OLD));
        let id = rest.and_then(|it| it.rsplit_once('.')).and_then(|it| it.1.parse::<u32>().ok());
        if id.is_some_and(|it| !Path::new(&format!("/proc/{it}")).exists()) {
            // What cannot be removed is in nobody's way.
            let path = entry.path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Of a build that did not get that far.
        if self.own.is_some() {
            let _ = fs::remove_dir_all(&self.destination);
        }
    }
}
