//! What a build leaves behind: which files, under which names, and where.
//!
//! Read in this order: here (the port, and the names), `glob` (patterns, pure), `collect` (which
//! files there are), `content` (what is in one), `write` (a folder or a zip file). Those who send
//! artifacts elsewhere use [`Collection`], [`Content`], and [`write_zip`], too.
//!
//! What CodeBuild documents is in its user guide, "Build specification reference". Where it is
//! silent:
//! - A folder that is a symbolic link is entered where a pattern names it, and not where a
//!   wildcard would: so wildcards never leave their root.
//! - The destination is not collected, if it lies inside of the root, and the folder or zip file
//!   for the artifacts is not, if that does. Nor is what rbuild has not finished or left behind
//!   there (`.rbuild-…`). If the destination is the root, its files stay as they are.
//! - If two files have the same name, the last one in the order of their paths is taken, unless
//!   someone chose otherwise ([`Collision`]).
//! - A pattern of `exclude-paths` means files, as those of `files` do: one that names a folder
//!   leaves nothing out.
//! - A link stays a link in a zip file (`enable-symlinks`) if its target is a relative path that
//!   stays below the root on its way, and is there. Links to folders are among these. With
//!   `discard-paths` all links are followed, since they would lead nowhere.
//! - A link that leads nowhere is passed over, and so is what is neither file nor folder.
//! - Secondary artifacts go to a folder or a zip file that has their identifier for a name.
//! - The name and the variables of patterns are expanded at the end of the build, and in the source
//!   folder, wherever its last command left off: that folder may be gone.
//! - A file that changes or goes away while it is read is an error: nobody could tell what was kept.

mod collect;
mod content;
mod glob;
mod write;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use crate::{buildspec, choice::Collision, event::Event};

pub use self::{collect::Collection, content::Content, write::write_zip};

/// Whether `pattern` means the file that has this path, below the base directory or absolute.
pub fn matches(pattern: &str, path: &Path) -> Result<bool, ArtifactsError> {
    Ok(glob::Pattern::parse(pattern)?.matches(path, path))
}

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
    /// What was written so far, so that nothing is written twice.
    written: BTreeSet<PathBuf>,
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
    #[error("`{pattern}` is not a pattern: a bracket, brace, or backslash has nothing to end it")]
    Pattern {
        /// What it is.
        pattern: String,
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
    /// Two files have the same name, and nobody said which one to keep.
    #[error("`{file}` and `{other}` cannot both be kept: both would be called `{name}`")]
    SameName {
        /// The name.
        name: PathBuf,
        /// The first file.
        file: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// Other artifacts of this build are there already.
    #[error("`{path}` is part of two artifacts: give one of them another name or identifier")]
    Taken {
        /// Where they are.
        path: PathBuf,
    },
    /// A file's name, or where a link leads, cannot be in a zip file, or be a key of S3.
    #[error("the name of `{path}` is not UTF-8, which zip files and S3 need")]
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
    /// A file changed while it was read, or is none any more.
    #[error("`{path}` changed while it was packed: something that the build started still runs")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// A file that was found is not there any more.
    #[error("`{path}` went away before it was packed: something that the build started still runs")]
    Gone {
        /// Which file.
        path: PathBuf,
    },
    /// What is at the place of an artifact cannot be replaced by it.
    #[error("`{path}` is in the way of the artifacts: it is {what}")]
    InTheWay {
        /// What is there.
        path: PathBuf,
        /// What it is, such as `a folder`.
        what: &'static str,
    },
    /// A file or a folder cannot be written.
    #[error("`{path}` could not be written")]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The artifacts did not get where they are to go.
    #[error("the artifacts could not be sent to `{destination}`")]
    Sending {
        /// Where that is, such as `s3://bucket/prefix`.
        destination: String,
        /// Why. What kind of error this is, the one who sends knows.
        source: Box<dyn std::error::Error + Send + Sync>,
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
pub struct Artifact {
    /// What it is called among the artifacts: a relative path.
    pub name: PathBuf,
    /// Where it is.
    pub path: PathBuf,
    /// Where it leads, if it is a link that stays one.
    pub link: Option<PathBuf>,
}

/// Why something that a pattern means is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is a link that leads nowhere.
    DanglingLink,
    /// It is neither a file nor a folder: a pipe, a socket, a device.
    NotAFile,
}

impl ArtifactsError {
    /// Whether the machine or a service is to blame, and not the buildspec or the build.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Read { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
            ),
            Self::Write { .. } | Self::Sending { .. } => true,
            _ => false,
        }
    }

    /// The same, if it is of a file that was to become `path`: nobody knows the name it has so long.
    fn about(self, path: &Path) -> Self {
        match self {
            Self::Write { source, .. } => Self::Write { path: path.to_owned(), source },
            other => other,
        }
    }
}

impl Selection {
    /// What the shell has to expand before the files can be found: first the name, if there is
    /// one, then each variable of the patterns and of the prefix.
    pub(crate) fn words(artifacts: &buildspec::Artifacts) -> Vec<String> {
        let mut names: Vec<String> = artifacts
            .base_directory
            .iter()
            .chain(&artifacts.files)
            .chain(&artifacts.exclude_paths)
            .chain(&artifacts.s3_prefix)
            .flat_map(|text| glob::variables(text))
            .collect();
        names.sort();
        names.dedup();
        let variables = names.iter().map(|name| format!("${{{name}}}"));
        artifacts.name.iter().cloned().chain(variables).collect()
    }

    /// What these artifacts are called: by their name, or, if they have none and are not the
    /// primary ones, by their identifier.
    pub fn name_or_identifier(&self) -> Option<&str> {
        let name = self.name.as_deref().map(str::trim).filter(|it| !it.is_empty());
        name.or(self.identifier.as_deref())
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
            exclude_paths: artifacts.exclude_paths.iter().map(expand).collect(),
            enable_symlinks: artifacts.enable_symlinks,
            name: artifacts.name.as_deref().map(value_of),
            s3_prefix: artifacts.s3_prefix.as_ref().map(expand),
            // These two are not of the buildspec's section.
            identifier: None,
            collision: Collision::default(),
        }
    }
}

impl LocalArtifacts {
    /// Keeps artifacts of the source folder `source` in `destination`.
    pub fn new(source: PathBuf, destination: PathBuf, packaging: Packaging) -> Self {
        Self { source, destination, packaging, modified: None, written: BTreeSet::new() }
    }

    /// The same, but every file gets this time, in seconds since 1970.
    #[must_use]
    pub fn with_modified(self, modified: Option<u64>) -> Self {
        Self { modified, ..self }
    }

    /// Where artifacts go: a folder or a zip file.
    fn target(&self, selection: &Selection) -> Result<PathBuf, ArtifactsError> {
        let name = selection.name_or_identifier();
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

    /// Notes what is about to be written; an error if a part of it was written before, or lies
    /// where something else was.
    fn claim(&mut self, target: &Path, artifacts: &[Artifact]) -> Result<(), ArtifactsError> {
        let paths: Vec<PathBuf> = match self.packaging {
            Packaging::Zip => vec![target.to_owned()],
            Packaging::Folder => artifacts.iter().map(|it| target.join(&it.name)).collect(),
        };
        let is_taken = |path: &&PathBuf| {
            // What is in a folder comes right after it.
            let next = self.written.range(path.as_path().to_owned()..).next();
            next.is_some_and(|it| it.starts_with(path))
                || path.ancestors().any(|it| self.written.contains(it))
        };
        if let Some(path) = paths.iter().find(is_taken) {
            return Err(ArtifactsError::Taken { path: path.clone() });
        }
        self.written.extend(paths);
        Ok(())
    }
}

impl Artifacts for LocalArtifacts {
    fn package(
        &mut self,
        selection: &Selection,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError> {
        let target = self.target(selection)?;
        let collection = Collection {
            source: &self.source,
            excluded: &[self.destination.as_path(), &target],
            packaging: self.packaging,
        };
        let artifacts = collection.find(selection, emit)?;
        self.claim(&target, &artifacts)?;
        let mut job = write::Job {
            artifacts: &artifacts,
            destination: &self.destination,
            target: &target,
            modified: self.modified,
            stopped,
        };
        let bytes = match self.packaging {
            Packaging::Folder => job.write_folder()?,
            Packaging::Zip => job.write_zip()?,
        };
        let files = artifacts.len();
        let identifier = selection.identifier.clone();
        let packed = Packed { identifier, location: Location::Local(target), files, bytes };
        emit(Event::ArtifactsWritten(&packed));
        Ok(packed)
    }
}

#[cfg(test)]
mod tests;
