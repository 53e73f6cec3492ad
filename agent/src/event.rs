//! All that the outside learns of a running build.
//!
//! **Architecture invariant:** events are facts, not text: nothing here chooses words, colours,
//! or what to leave out. That is for those who receive them.

use std::path::Path;

use crate::{
    buildspec::{Command, ShellName, UnknownKey},
    phase::{Phase, Stage, State},
    run::Reason,
    shell::End,
};

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A stage begins.
    StageStarted(Stage),
    /// The source and its buildspec were found.
    SourceFound {
        /// The folder with the source.
        directory: &'a Path,
        /// The buildspec file.
        buildspec: &'a Path,
    },
    /// The buildspec has this phase, but no commands in it.
    PhaseWithoutCommands(Phase),
    /// The buildspec has keys that mean nothing; there is at least one.
    UnknownKeys(&'a [UnknownKey]),
    /// The buildspec asks for a shell.
    ShellSelected(ShellName),
    /// Variables are set, and commands will start in `directory`.
    EnvironmentReady {
        /// Where the first command starts.
        directory: &'a Path,
    },
    /// How many phases the buildspec has; a [`PhaseFound`](Event::PhaseFound) follows for each.
    PhasesFound(usize),
    /// The buildspec has this phase.
    PhaseFound {
        /// Which one.
        phase: Phase,
        /// How many commands are in it, those of `finally` not counted.
        commands: usize,
    },
    /// A command begins.
    CommandStarted(&'a Command),
    /// Something wrote to standard output or standard error: the command that runs, or what an
    /// earlier one left running.
    Output(&'a [u8]),
    /// A command ended.
    CommandFinished {
        /// Which one.
        command: &'a Command,
        /// How.
        end: End,
    },
    /// The folder of the artifacts is looked for.
    BaseDirectoryWanted(&'a str),
    /// Files are looked for in this folder.
    BaseDirectoryFound(&'a str),
    /// A pattern was matched with the files of a folder.
    PatternMatched {
        /// The pattern.
        pattern: &'a str,
        /// Whether it names one file, without wildcards.
        literal: bool,
        /// How many files match.
        files: usize,
    },
    /// How many files there are in all; at least one.
    FilesFound(usize),
    /// Two files have the same name among the artifacts, and one of them is left out.
    NameCollision {
        /// The name.
        name: &'a Path,
        /// The file that is taken.
        kept: &'a Path,
        /// The file that is left out.
        dropped: &'a Path,
    },
    /// The artifacts are complete.
    ArtifactsWritten {
        /// The folder or the zip file.
        path: &'a Path,
        /// How many files are in it.
        files: usize,
        /// How many bytes these have together.
        bytes: u64,
    },
    /// A stage ended.
    StageFinished {
        /// Which one.
        stage: Stage,
        /// How.
        state: State,
        /// Why, if it failed.
        reason: Option<&'a Reason>,
    },
}
