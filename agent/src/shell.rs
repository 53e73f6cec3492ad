//! Runs commands: the port [`Shell`], and [`LocalShell`], the one place that starts processes.
//!
//! Read in this order: here (what a build asks for), `local` (how that is done on this machine),
//! `folder` (the files that carry variables and the working directory from one command to the
//! next), `script` and `powershell` (what shells get to read), `state` (what they save, read back),
//! `given` (what the next one is started with for that),
//! `supervisor` (the process above all commands of a build), `channel` (what is said to it),
//! `processes` (what runs below it); `user` (who runs a command), and `terminal` (a shell for a
//! person).
//!
//! Each command is a new process of the shell that reads `script.sh`. Variables and working
//! directory are carried through files; functions, aliases, and options are not. This is what
//! CodeBuild does in version 0.2 of the buildspec.
//!
//! **Architecture invariant:** knows no phases and no buildspecs, and decides nothing about a
//! build. What a command started is gone when the build is over, however it ends.

mod channel;
mod folder;
mod given;
mod local;
mod powershell;
mod processes;
mod script;
mod state;
mod supervisor;
mod terminal;
mod user;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::environment::Environment;

pub use folder::PrivateFolder;
pub use local::{LocalShell, Setup};
pub use state::parse_variables;
pub use supervisor::supervise;
pub use terminal::Terminal;
pub use user::check_user;

/// The first argument of the process that is to call [`supervise`].
pub const SUPERVISE: &str = "__supervise";

/// Runs commands, one after another.
pub trait Shell {
    /// Ends all that commands have left running, and starts afresh: the next command is the first
    /// one. It is called before any other.
    fn begin(&mut self, beginning: Beginning<'_>) -> Result<(), ShellError>;

    /// Runs a command, and hands over what it writes as it writes it.
    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError>;

    /// What the shell makes of words, with the variables of the last command, but in the folder
    /// with the source; the inner `Err` is how the shell ended if it could not.
    /// Commands that come later do not notice.
    fn expand(
        &mut self,
        expansion: Expansion<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError>;

    /// The state that the command before the last one left behind, which the last one started
    /// with; what to go back to if the last one failed. If a person had a shell since, or was to
    /// have one, that of the last command, which that shell started with.
    fn snapshot(&mut self) -> Result<Snapshot, ShellError>;

    /// Lets a person use the terminal with a shell that has the state of the last command, until
    /// that shell ends. Commands that come later do not notice.
    fn interact(&mut self, line: Interaction<'_>) -> Result<End, ShellError>;

    /// The signal with which someone asked the build to stop, if someone did.
    fn stop_requested(&mut self) -> Option<i32>;

    /// Whether the build has taken as long as it may.
    fn out_of_time(&mut self) -> bool;
}

/// What the first command starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// Its variables.
    pub environment: &'a Environment,
    /// Where it starts.
    pub directory: &'a Path,
    /// The folder with the source, where words are expanded.
    pub source: &'a Path,
}

/// What is carried from one command to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All variables, sorted by name.
    pub variables: Vec<(OsString, OsString)>,
    /// The working directory.
    pub directory: PathBuf,
}

/// What a person gets a shell for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interaction<'a> {
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
    /// Who runs it, if that is not who runs rbuild.
    pub user: Option<&'a str>,
    /// Whether the shell starts with the state before the last command, and not after it.
    pub before_last: bool,
}

/// What a shell is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    /// The text of the command, which may have many lines.
    pub text: &'a str,
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
    /// Who runs it, if that is not who runs rbuild.
    pub user: Option<&'a str>,
    /// Whether its variables and working directory are those of the next command; if not, the
    /// next command starts with what the first one started with.
    pub carries: bool,
}

impl<'a> CommandLine<'a> {
    /// A command of a build in which nothing failed so far, run by who runs rbuild.
    pub fn new(text: &'a str) -> Self {
        Self { text, succeeding: true, user: None, carries: true }
    }
}

/// What a shell is to expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expansion<'a> {
    /// The words, each of which the shell finds between double quotes.
    pub words: &'a [String],
    /// Whether nothing failed so far: the value of `CODEBUILD_BUILD_SUCCEEDING`.
    pub succeeding: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It was ended, or never started, since the build was asked to stop with this signal.
    Stopped(i32),
    /// It was ended, or never started, since the build took too long.
    TimedOut,
}

/// Why the shell cannot run commands.
#[derive(Debug, Error)]
pub enum ShellError {
    /// The folder for variables and scripts cannot be made.
    #[error("the folder `{path}` for the build's variables could not be made")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in that folder cannot be written or read.
    #[error("`{path}` could not be used")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such shell.
    #[error("the shell `{name}` was not found on the PATH")]
    NoShell {
        /// Its name.
        name: String,
    },
    /// The shell cannot be started.
    #[error("the shell `{path}` could not be started")]
    NotStarted {
        /// Which program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The supervisor cannot be started.
    #[error("the supervisor of the build, `{path}`, could not be started")]
    Supervisor {
        /// Which program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The supervisor is gone, and all that ran under it may be, too.
    #[error("the supervisor of the build is gone")]
    SupervisorGone,
    /// There is no such user.
    #[error("there is no user `{name}` in `/etc/passwd`")]
    NoUser {
        /// The name.
        name: String,
    },
    /// Commands cannot be run as this user.
    #[error("only root can run commands as another user, here `{name}`")]
    NotRoot {
        /// The name of the user.
        name: String,
    },
    /// A person is to use a shell, and there is no terminal.
    #[error("a shell for a person needs a terminal, and there is none")]
    NoTerminal,
    /// A terminal for the shell of a person cannot be made or used.
    #[error("a terminal for the shell could not be made")]
    Terminal {
        /// What the system says.
        source: io::Error,
    },
    /// Waiting for output or for the supervisor failed.
    #[error("waiting for the command failed")]
    Wait {
        /// What the system says.
        source: io::Error,
    },
}
