//! What a build leaves behind: which files, under which names, and where.
//!
//! Read in this order: here (the port, and the names), `glob` (patterns, pure), `collect` (which
//! files there are), `write` (a folder or a zip file).
//!
//! What CodeBuild documents is in its user guide, "Build specification reference". Where it is
//! silent:
//! - A folder that is a symbolic link is entered where a pattern names it, and not where a
//!   wildcard would: so wildcards never leave their root.
//! - The destination is not collected, if it lies inside of the root, and the folder or zip file
//!   for the artifacts is not, if that does. Nor is what rbuild has not finished or left behind
//!   there (`.rbuild-…`). If the destination is the root, its files stay as they are.
//! - If two files have the same name, the last one in the order of their paths is taken.
//! - The name and the variables of patterns are expanded at the end of the build, and in the source
//!   folder, wherever its last command left off: that folder may be gone.
//! - A file is taken as it is when it is read; links are followed.

mod collect;
mod glob;
mod write;

use std::{
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use crate::{buildspec, choice::Collision, event::Event};

/// The files that a build asks for, with all variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What it is called, if it is kept by itself.
    pub identifier: Option<String>,
    /// Their patterns.
    pub files: Vec<String>,
    /// The folder or folders that they are in: a path or a pattern.
    pub base_directory: Option<String>,
    /// Whether only the last part of each path is kept.
    pub discard_paths: bool,
    /// The patterns of the files to leave out.
    pub exclude_paths: Vec<String>,
    /// Whether symbolic links stay links in a zip file.
    pub enable_symlinks: bool,
    /// The name of all of it.
    pub name: Option<String>,
    /// What its key in S3 begins with.
    pub s3_prefix: Option<String>,
    /// Which of two files of the same name is kept.
    pub collision: Collision,
}

/// Keeps the artifacts of a build.
pub trait Artifacts {
    /// Finds the files and packs them. `stopped` tells the signal with which someone asked to
    /// stop, and is asked often.
    fn package(
        &mut self,
        selection: &Selection,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError>;
}

/// Artifacts that are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// What it is called, if it is kept by itself.
    pub identifier: Option<String>,
    /// Where it is.
    pub location: Location,
    /// How many files are in it.
    pub files: usize,
    /// How many bytes these have together.
    pub bytes: u64,
}

/// Where artifacts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a folder, or in a zip file, on this machine.
    Local(PathBuf),
    /// Elsewhere, under this URI, such as `s3://bucket/prefix`.
    Remote(String),
}

/// Keeps artifacts in a folder on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalArtifacts {
    /// The folder with the source.
    pub source: PathBuf,
    /// Where artifacts go. It is made when it is needed.
    pub destination: PathBuf,
    /// In which form.
    pub packaging: Packaging,
    /// The time that every file gets, in seconds since 1970; its own if there is none.
    pub modified: Option<u64>,
}

/// The form of artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packaging {
    /// Files in folders.
    Folder,
    /// One zip file.
    Zip,
}

/// The name of a zip file that nobody named.
const DEFAULT_NAME: &str = "artifacts";

/// Why there are no artifacts.
#[derive(Debug, Error)]
pub enum ArtifactsError {
    /// There is no such base directory.
    #[error("no directory matches the base directory `{pattern}`")]
    NoBaseDirectory {
        /// What was asked for.
        pattern: String,
    },
    /// No file matches any pattern.
    #[error("no file matches the patterns of the artifacts")]
    NoFiles,
    /// A pattern climbs out of where it starts.
    #[error("`{pattern}` leads out of the base directory")]
    Escapes {
        /// Which pattern.
        pattern: String,
    },
    /// A pattern is none.
    #[error("`{pattern}` is not a pattern")]
    Pattern {
        /// What it is.
        pattern: String,
        /// Why it is none.
        source: globset::Error,
    },
    /// The shell could not expand the name, or a variable of a pattern.
    #[error("the shell could not expand `{text}`")]
    Expansion {
        /// What was to be expanded.
        text: String,
    },
    /// The name cannot be that of a file in the destination.
    #[error("`{name}` cannot be the name of artifacts: it must stay inside of their folder")]
    Name {
        /// The name.
        name: String,
    },
    /// One file would have to be a folder, too, since another is in it.
    #[error("`{file}` and `{other}` cannot both be kept: `{name}` would be both file and folder")]
    NameInTheWay {
        /// The name that is both.
        name: PathBuf,
        /// The file of that name.
        file: PathBuf,
        /// The file that needs a folder of that name.
        other: PathBuf,
    },
    /// A file's name cannot be in a zip file.
    #[error("the name of `{path}` is not UTF-8, which zip files need")]
    NotUtf8 {
        /// Which file.
        path: PathBuf,
    },
    /// A file or a folder cannot be read.
    #[error("`{path}` could not be read")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or a folder cannot be written.
    #[error("`{path}` could not be written")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Someone asked to stop.
    #[error("collecting the artifacts was stopped by signal {signal}")]
    Stopped {
        /// With which signal.
        signal: i32,
    },
}

/// A file to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    /// What it is called among the artifacts.
    name: PathBuf,
    /// Where it is.
    path: PathBuf,
}

impl ArtifactsError {
    /// Whether the machine is to blame, and not the buildspec or the build.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. })
    }
}

impl Selection {
    /// What the shell has to expand before the files can be found: first the name, if there is
    /// one, then each variable of the patterns.
    pub(crate) fn words(artifacts: &buildspec::Artifacts) -> Vec<String> {
        let mut names: Vec<String> = artifacts
            .base_directory
            .iter()
            .chain(&artifacts.files)
            .flat_map(|text| glob::variables(text))
            .collect();
        names.sort();
        names.dedup();
        let variables = names.iter().map(|name| format!("${{{name}}}"));
        artifacts.name.iter().cloned().chain(variables).collect()
    }

    /// The files that `artifacts` asks for; `values` are those of [`words`](Self::words).
    pub(crate) fn new(artifacts: &buildspec::Artifacts, values: &[OsString]) -> Self {
        let words = Self::words(artifacts);
        let value_of = |word: &str| {
            let value = words.iter().position(|it| it == word).and_then(|at| values.get(at));
            value.map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let expand = |text: &String| glob::expand(text, |name| value_of(&format!("${{{name}}}")));
        Self {
            files: artifacts.files.iter().map(expand).collect(),
            base_directory: artifacts.base_directory.as_ref().map(expand),
            discard_paths: artifacts.discard_paths,
            name: artifacts.name.as_deref().map(value_of),
            ..Self::default()
        }
    }
}

impl LocalArtifacts {
    /// Where artifacts of that name go: a folder or a zip file.
    fn target(&self, name: Option<&str>) -> Result<PathBuf, ArtifactsError> {
        let name = name.map(str::trim).filter(|it| !it.is_empty());
        let refused = || ArtifactsError::Name { name: name.unwrap_or_default().to_owned() };
        let relative = Path::new(name.unwrap_or(match self.packaging {
            Packaging::Folder => "",
            Packaging::Zip => DEFAULT_NAME,
        }));
        let stays = |it: Component<'_>| matches!(it, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(stays) || name.is_some_and(|it| it.contains('\0')) {
            return Err(refused());
        }
        let mut target = self.destination.clone();
        target.extend(relative.components().filter(|it| *it != Component::CurDir));
        if self.packaging == Packaging::Zip && target.extension().is_none_or(|it| it != "zip") {
            let mut file_name = relative.file_name().ok_or_else(refused)?.to_owned();
            file_name.push(".zip");
            target.set_file_name(file_name);
        }
        Ok(target)
    }
}

impl Artifacts for LocalArtifacts {
    fn package(
        &mut self,
        selection: &Selection,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError> {
        let target = self.target(selection.name.as_deref())?;
        let excluded = [self.destination.as_path(), &target];
        let files = collect::collect(&self.source, &excluded, selection, emit)?;
        let mut job = write::Job {
            files: &files,
            destination: &self.destination,
            target: &target,
            modified: self.modified,
            stopped,
        };
        let bytes = match self.packaging {
            Packaging::Folder => job.write_folder()?,
            Packaging::Zip => job.write_zip()?,
        };
        let files = files.len();
        let identifier = selection.identifier.clone();
        let packed = Packed { identifier, location: Location::Local(target), files, bytes };
        emit(Event::ArtifactsWritten(&packed));
        Ok(packed)
    }
}

#[cfg(test)]
mod tests;
