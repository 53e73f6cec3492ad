//! Buildspec files as values that are already checked.
//!
//! **Architecture invariant:** parsing takes bytes and does no I/O. A [`Buildspec`] that exists
//! can be run; every question that the text raises was answered here. All problems of a file
//! that is YAML are found in one pass.
//!
//! What is of the language and not built yet is checked, and is an [`IgnoredKey`]: it is never
//! left out in silence. What is not of the language is a [`UnknownKey`], as it is for CodeBuild.
//!
//! **Architecture invariant:** a build that works on AWS works here. So what is wrong in `batch`,
//! which CodeBuild does not look at in such a build, is [tolerated](Buildspec::tolerated); and so
//! it is in `reports` and `cache`, unless a value is of a type that no YAML parser could take.

pub(crate) mod keys;
mod on_failure;
mod problem;
mod reference;
mod rules;
mod suggest;
mod walk;

use crate::{
    phase::{OnFailure, Phase},
    secret::Reference,
    source::Place,
};

pub use problem::Problem;
pub use reference::ReferenceError;
pub use rules::{RULES, Rule};
pub(crate) use suggest::nearest;

/// A checked buildspec file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buildspec {
    /// Which version of the language it is written in.
    pub version: Version,
    /// Who runs all commands, if that is not who runs rbuild.
    pub run_as: Option<User>,
    /// What `env.shell` asks for, if it does.
    pub shell: Option<ShellName>,
    /// Where it asks for it.
    pub shell_place: Option<Place>,
    /// `env.variables`, then `env.parameter-store`, then `env.secrets-manager`, each in the order
    /// of the file; of two with the same name the later one counts.
    pub variables: Vec<Variable>,
    /// `env.exported-variables`, in the order of the file.
    pub exported: Vec<ExportedName>,
    /// Whether git may use the credentials of the source.
    pub git_credentials: bool,
    /// What of rbuild's own traffic goes through the proxy of the build.
    pub proxy: Proxy,
    /// `phases.install.runtime-versions`, in the order of the file.
    pub runtimes: Vec<RuntimeVersion>,
    /// The phases of the file, in the order in which they run.
    pub phases: Vec<PhaseCommands>,
    /// What to collect after the build, if anything.
    pub artifacts: Option<Artifacts>,
    /// What else to collect, each by itself.
    pub secondary_artifacts: Vec<SecondaryArtifacts>,
    /// The keys of the language that are left out here, in the order of the file.
    pub ignored_keys: Vec<IgnoredKey>,
    /// The keys that mean nothing, in the order of the file.
    pub unknown_keys: Vec<UnknownKey>,
    /// What is wrong with what is left out, and stops no build, in the order of the file.
    pub tolerated: Vec<Problem>,
}

/// A version of the language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 0.1: every command starts where the first did, with the variables of the first.
    V0_1,
    /// 0.2: variables and the working directory are carried from one command to the next.
    #[default]
    V0_2,
}

/// The name of a user of the machine, who runs commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
}

/// The name of a variable whose value is told at the end of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedName {
    /// The name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
}

/// What of rbuild's own traffic goes through the proxy that the build's variables name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// The upload of artifacts does.
    pub upload_artifacts: bool,
    /// The upload of logs does. rbuild uploads none.
    pub logs: bool,
}

/// A runtime that the build wants, such as `python` in version `3.12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// The name of the runtime.
    pub name: String,
    /// The version as it is written: exact, `18.x`, `latest`, or `$VARIABLE`.
    pub version: String,
    /// Where its name is.
    pub place: Place,
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
    /// `pwsh`, wherever the PATH has it.
    Pwsh,
}

/// A variable, and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Where its name is, if that is in the buildspec.
    pub place: Option<Place>,
}

/// Where the value of a variable comes from. AWS calls these `PLAINTEXT`, `PARAMETER_STORE`, and
/// `SECRETS_MANAGER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value itself, as it is written.
    Plain(String),
    /// What a store of secrets has.
    Secret(Reference),
}

/// The commands of one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseCommands {
    /// Which phase.
    pub phase: Phase,
    /// Who runs its commands, if the phase says so.
    pub run_as: Option<User>,
    /// What happens if it fails, if the phase says so.
    pub on_failure: Option<OnFailure>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifacts {
    /// The patterns of the files; at least one.
    pub files: Vec<String>,
    /// The folder to which patterns and names are relative: a path or a pattern.
    pub base_directory: Option<String>,
    /// Whether paths are reduced to base names.
    pub discard_paths: bool,
    /// The patterns of the files to leave out.
    pub exclude_paths: Vec<String>,
    /// Whether symbolic links stay links in a zip file.
    pub enable_symlinks: bool,
    /// The name to give it, for the shell to expand.
    pub name: Option<String>,
    /// What its key in S3 begins with.
    pub s3_prefix: Option<String>,
}

/// Artifacts that are kept by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryArtifacts {
    /// What they are called.
    pub identifier: String,
    /// Where that is written.
    pub place: Place,
    /// What they are.
    pub artifacts: Artifacts,
}

/// A key of the language that is left out here, such as `reports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    /// The key, with those above it: `reports`, `cache.key`.
    pub key: String,
    /// Where it is.
    pub place: Place,
    /// What that means for the build.
    pub reason: &'static str,
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
        match Self::inspect(bytes) {
            (spec, problems) if problems.is_empty() => Ok(spec),
            (_, problems) => Err(problems),
        }
    }

    /// Reads what can be read of a buildspec file, which cannot be run if there are problems.
    pub(crate) fn inspect(bytes: &[u8]) -> (Self, Vec<Problem>) {
        walk::inspect(bytes)
    }

    /// The commands of `phase`, if the file has that phase.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseCommands> {
        self.phases.iter().find(|it| it.phase == phase)
    }
}

impl ShellName {
    /// All shells, as `env.shell` may name them.
    pub const NAMES: [&'static str; 6] =
        ["sh", "bash", "/bin/sh", "/bin/bash", "powershell.exe", "pwsh"];

    /// The shell of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sh" => Some(Self::Sh),
            "bash" => Some(Self::Bash),
            "/bin/sh" => Some(Self::BinSh),
            "/bin/bash" => Some(Self::BinBash),
            // The one of Windows is elsewhere called by its own name.
            "powershell.exe" | "pwsh" => Some(Self::Pwsh),
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
            Self::Pwsh => "pwsh",
        }
    }
}

#[cfg(test)]
mod tests;
