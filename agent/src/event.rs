//! All that the outside learns of a running build.
//!
//! **Architecture invariant:** events are facts, not text: nothing here chooses words, colours,
//! or what to leave out. That is for those who receive them.

use std::path::Path;

use crate::{
    artifacts::{Packed, Skipped},
    buildspec::{Command, IgnoredKey, RuntimeVersion, ShellName, UnknownKey},
    choice::RetryScope,
    phase::{Phase, Stage, State},
    run::Reason,
    secret::Redactor,
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
    /// The buildspec has keys of the language that are left out; there is at least one.
    IgnoredKeys(&'a [IgnoredKey]),
    /// Secrets are fetched; there is at least one.
    SecretsWanted {
        /// How many are in SSM Parameter Store.
        parameters: usize,
        /// How many are in Secrets Manager.
        secrets: usize,
    },
    /// From here on, these values must not be shown.
    SecretsKnown(&'a Redactor),
    /// This machine has no way to choose these runtimes; there is at least one.
    RuntimesSkipped(&'a [RuntimeVersion]),
    /// This version of a runtime is going to be chosen, by commands that follow.
    RuntimeSelected {
        /// The name of the runtime.
        name: &'a str,
        /// The version.
        version: &'a str,
    },
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
    /// This stage was left out since nobody asked for it.
    StageSkipped(Stage),
    /// Something failed, and is tried again.
    Retrying {
        /// What is tried again.
        scope: RetryScope,
        /// The phase that failed.
        phase: Phase,
        /// Which try comes now; the first one that counts is 1.
        attempt: u8,
        /// How many there are.
        of: u8,
    },
    /// The build waits for a person, who gets a shell.
    BreakpointReached {
        /// The command that comes next, or the one that failed.
        command: &'a Command,
        /// Whether it failed.
        failed: bool,
    },
    /// The person left the shell, which ended like this; with a status other than 0, a build that
    /// did not fail yet ends, too.
    BreakpointLeft {
        /// How.
        end: End,
    },
    /// This variable is not told, since `CodeBuild` does not let it be exported.
    ExportRefused {
        /// Its name.
        name: &'a str,
    },
    /// This variable is not told, since there is none of that name at the end of the build.
    ExportUnset {
        /// Its name.
        name: &'a str,
    },
    /// These variables have these values at the end of the build.
    VariablesExported(&'a [(String, String)]),
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
    /// What a pattern means cannot be an artifact, and is left out.
    FileSkipped {
        /// Where it is.
        path: &'a Path,
        /// Why.
        reason: Skipped,
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
    /// Artifacts that are kept by themselves come next.
    SecondaryArtifacts {
        /// What they are called; none says that there are no such artifacts.
        identifier: Option<&'a str>,
    },
    /// A part of the artifacts was sent.
    ArtifactsSent {
        /// How many bytes were sent so far.
        sent: u64,
        /// How many there are.
        total: u64,
    },
    /// Artifacts are complete.
    ArtifactsWritten(&'a Packed),
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
