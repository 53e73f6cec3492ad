//! Buildspec files as values that are already checked.
//!
//! **Architecture invariant:** parsing takes bytes and does no I/O. A [`Buildspec`] that exists
//! can be run; every question that the text raises was answered here. All problems of a file
//! that is YAML are found in one pass.
//!
//! What is of the language and not built yet is a problem that names the key: it is never left
//! out in silence. What is not of the language is a [`UnknownKey`], as it is for CodeBuild.

mod problem;
mod suggest;
mod walk;

use crate::{phase::Phase, source::Place};

pub use problem::Problem;

/// A checked buildspec file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buildspec {
    /// What `env.shell` asks for, if it does.
    pub shell: Option<ShellName>,
    /// `env.variables`, in the order of the file.
    pub variables: Vec<Variable>,
    /// The phases of the file, in the order in which they run.
    pub phases: Vec<PhaseCommands>,
    /// What to collect after the build, if anything.
    pub artifacts: Option<Artifacts>,
    /// The keys that mean nothing, in the order of the file.
    pub unknown_keys: Vec<UnknownKey>,
}

/// A shell that commands may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellName {
    /// `sh`, wherever the PATH has it.
    Sh,
    /// `bash`, wherever the PATH has it.
    Bash,
    /// `/bin/sh`.
    BinSh,
    /// `/bin/bash`.
    BinBash,
}

/// A variable with its literal value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, as it is written.
    pub value: String,
    /// Where its name is.
    pub place: Place,
}

/// The commands of one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseCommands {
    /// Which phase.
    pub phase: Phase,
    /// What runs until something fails.
    pub commands: Vec<Command>,
    /// What runs after `commands`, whether or not they failed.
    pub finally: Vec<Command>,
}

/// One command for the shell, and where a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What the shell gets.
    pub text: String,
    /// Where it starts in the file.
    pub place: Place,
}

/// What to collect after a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The patterns of the files; at least one.
    pub files: Vec<String>,
    /// The folder to which patterns and names are relative: a path or a pattern.
    pub base_directory: Option<String>,
    /// Whether paths are reduced to base names.
    pub discard_paths: bool,
    /// The name to give it, for the shell to expand.
    pub name: Option<String>,
}

/// A key that is not of the language: CodeBuild warns, and goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// The section that it is in, as CodeBuild's log calls it: `env`, `BUILD`, `artifacts`, ….
    pub section: String,
    /// The key.
    pub key: String,
    /// Where it is.
    pub place: Place,
    /// A key of that section that looks much like it.
    pub suggestion: Option<&'static str>,
}

impl Buildspec {
    /// Checks the content of a buildspec file. The problems are in the order of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        walk::parse(bytes)
    }

    /// The commands of `phase`, if the file has that phase.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseCommands> {
        self.phases.iter().find(|it| it.phase == phase)
    }
}

impl ShellName {
    /// All shells, as `env.shell` may name them.
    pub const NAMES: [&'static str; 4] = ["sh", "bash", "/bin/sh", "/bin/bash"];

    /// The shell of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sh" => Some(Self::Sh),
            "bash" => Some(Self::Bash),
            "/bin/sh" => Some(Self::BinSh),
            "/bin/bash" => Some(Self::BinBash),
            _ => None,
        }
    }

    /// Its name, or its path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sh => "sh",
            Self::Bash => "bash",
            Self::BinSh => "/bin/sh",
            Self::BinBash => "/bin/bash",
        }
    }
}

#[cfg(test)]
mod tests;
