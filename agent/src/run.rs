//! Runs a build: the one loop that does things.
//!
//! **Architecture invariant:** knows no words, no YAML, and no AWS. What can be decided before was
//! decided in the [`Plan`]; what comes after what is in [`phase`](crate::phase).

use thiserror::Error;

use crate::{
    artifacts::{Artifacts, ArtifactsError, Packed, Selection},
    buildspec::Command,
    event::Event,
    phase::{Phase, Stage, State},
    plan::Plan,
    shell::{Beginning, CommandLine, End, Expansion, Shell, ShellError, Snapshot},
};

/// What came of a build.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What it left behind, which a failed build may do, too.
    pub artifacts: Vec<Packed>,
    /// The variables that the buildspec exports, and their values at the end of the build.
    pub exported: Vec<(String, String)>,
    /// Where the build could go on, if it did not succeed.
    pub resume: Option<ResumePoint>,
}

/// Where a build could go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// How many commands of the plan succeeded one after another, those of all phases counted:
    /// the number of the next one, counted from 0 as [`Plan::steps`] does.
    pub step: usize,
    /// The state of the shell before that command.
    pub snapshot: Snapshot,
}

/// How a build ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything worked.
    Succeeded,
    /// Something did not.
    Failed(Failure),
    /// Someone stopped it with this signal.
    Stopped {
        /// Which stage was running.
        stage: Stage,
        /// The signal.
        signal: i32,
    },
}

/// The first thing that failed in a build.
#[derive(Debug)]
pub struct Failure {
    /// In which stage.
    pub stage: Stage,
    /// What.
    pub reason: Reason,
}

/// Why a stage failed.
#[derive(Debug)]
pub enum Reason {
    /// A command did.
    Command {
        /// Which one.
        command: Command,
        /// How it ended.
        end: End,
    },
    /// There are no artifacts.
    Artifacts(ArtifactsError),
}

/// Why a build could not go on. A command that fails is an [`Outcome`], not an error.
#[derive(Debug, Error)]
pub enum RunError {
    /// The shell cannot run commands.
    #[error("the build could not go on in {stage}")]
    Shell {
        /// The stage that was running.
        stage: Stage,
        /// What the shell says.
        source: ShellError,
    },
    /// This machine cannot read or keep the artifacts.
    #[error("the artifacts could not be kept")]
    Artifacts {
        /// What failed.
        source: ArtifactsError,
    },
}

/// Runs the build that `plan` describes, and tells `emit` what happens.
pub fn run(
    plan: &Plan,
    shell: &mut dyn Shell,
    artifacts: &mut dyn Artifacts,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Report, RunError> {
    let mut build =
        Build { plan, shell, artifacts, emit, succeeding: true, failure: None, packed: Vec::new() };
    let mut next = Some(Stage::FIRST);
    while let Some(stage) = next {
        match build.stage(stage)? {
            Done::Ended(state) => next = stage.after(state, None, plan.choices()),
            Done::Stopped(signal) => {
                let outcome = Outcome::Stopped { stage, signal };
                return Ok(build.report(outcome));
            }
        }
    }
    let outcome = match build.failure.take() {
        None => Outcome::Succeeded,
        Some(Failure { reason: Reason::Artifacts(source), .. }) if source.is_of_the_machine() => {
            return Err(RunError::Artifacts { source });
        }
        Some(failure) => Outcome::Failed(failure),
    };
    Ok(build.report(outcome))
}

/// A build that runs.
struct Build<'a> {
    plan: &'a Plan,
    shell: &'a mut dyn Shell,
    artifacts: &'a mut dyn Artifacts,
    emit: &'a mut dyn FnMut(Event<'_>),
    /// Whether no command failed so far.
    succeeding: bool,
    /// The first thing that failed.
    failure: Option<Failure>,
    packed: Vec<Packed>,
}

/// How a stage ended, as far as the loop needs to know.
enum Done {
    Ended(State),
    Stopped(i32),
}

/// Why a part of a stage ended early.
enum Break {
    Failed(Reason),
    Stopped(i32),
}

impl Build<'_> {
    fn report(self, outcome: Outcome) -> Report {
        Report { outcome, artifacts: self.packed, exported: Vec::new(), resume: None }
    }

    fn stage(&mut self, stage: Stage) -> Result<Done, RunError> {
        (self.emit)(Event::StageStarted(stage));
        let ended = match stage {
            Stage::DownloadSource => {
                self.describe();
                let (environment, directory) = (self.plan.environment(), self.plan.source());
                self.shell
                    .begin(Beginning { environment, directory })
                    .map_err(|source| RunError::Shell { stage, source })?;
                Ok(())
            }
            Stage::Commands(phase) => self.phase(phase)?,
            Stage::UploadArtifacts => self.package()?,
        };
        Ok(self.finish(stage, ended))
    }

    fn finish(&mut self, stage: Stage, ended: Result<(), Break>) -> Done {
        let mut tell = |state, reason: Option<&Reason>| {
            (self.emit)(Event::StageFinished { stage, state, reason });
        };
        match ended {
            Ok(()) => {
                tell(State::Succeeded, None);
                Done::Ended(State::Succeeded)
            }
            Err(Break::Failed(reason)) => {
                tell(State::Failed, Some(&reason));
                self.failure.get_or_insert(Failure { stage, reason });
                Done::Ended(State::Failed)
            }
            Err(Break::Stopped(signal)) => {
                tell(State::Stopped, None);
                Done::Stopped(signal)
            }
        }
    }

    /// Tells what is known before anything runs.
    fn describe(&mut self) {
        let plan = self.plan;
        let directory = plan.source();
        (self.emit)(Event::SourceFound { directory, buildspec: plan.buildspec_path() });
        for it in plan.phases().iter().filter(|it| it.commands.is_empty()) {
            (self.emit)(Event::PhaseWithoutCommands(it.phase));
        }
        if !plan.unknown_keys().is_empty() {
            (self.emit)(Event::UnknownKeys(plan.unknown_keys()));
        }
        if let Some(shell) = plan.shell_asked_for() {
            (self.emit)(Event::ShellSelected(shell));
        }
        (self.emit)(Event::EnvironmentReady { directory });
        (self.emit)(Event::PhasesFound(plan.phases().len()));
        for it in plan.phases() {
            let commands = it.commands.len();
            (self.emit)(Event::PhaseFound { phase: it.phase, commands });
        }
    }

    /// Runs the commands of a phase, and then its `finally`, whatever came before.
    fn phase(&mut self, phase: Phase) -> Result<Result<(), Break>, RunError> {
        let stage = Stage::Commands(phase);
        let commands = self.commands(stage, self.plan.commands(phase))?;
        if let Err(Break::Stopped(_)) = commands {
            return Ok(commands);
        }
        let finally = self.commands(stage, self.plan.finally(phase))?;
        Ok(match (commands, finally) {
            (_, Err(Break::Stopped(signal))) => Err(Break::Stopped(signal)),
            (commands, finally) => commands.and(finally),
        })
    }

    /// Runs commands until one fails.
    fn commands(
        &mut self,
        stage: Stage,
        commands: &[Command],
    ) -> Result<Result<(), Break>, RunError> {
        for command in commands {
            let emit = &mut *self.emit;
            emit(Event::CommandStarted(command));
            let line = CommandLine {
                text: &command.text,
                succeeding: self.succeeding,
                user: None,
                carries: true,
            };
            let end = self
                .shell
                .run(line, &mut |bytes| emit(Event::Output(bytes)))
                .map_err(|source| RunError::Shell { stage, source })?;
            emit(Event::CommandFinished { command, end });
            match end {
                End::Exited(0) => {}
                End::Stopped(signal) => return Ok(Err(Break::Stopped(signal))),
                End::Exited(_) | End::Killed(_) | End::TimedOut => {
                    self.succeeding = false;
                    let reason = Reason::Command { command: command.clone(), end };
                    return Ok(Err(Break::Failed(reason)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Collects and packs the artifacts, if the buildspec wants any.
    fn package(&mut self) -> Result<Result<(), Break>, RunError> {
        let packed = match self.select()? {
            Ok(None) => return Ok(Ok(())),
            Ok(Some(selection)) => {
                let shell = &mut *self.shell;
                self.artifacts.package(&selection, &mut || shell.stop_requested(), self.emit)
            }
            Err(err) => Err(err),
        };
        match packed {
            Ok(packed) => {
                self.packed.push(packed);
                Ok(Ok(()))
            }
            Err(ArtifactsError::Stopped { signal }) => Ok(Err(Break::Stopped(signal))),
            Err(err) => Ok(Err(Break::Failed(Reason::Artifacts(err)))),
        }
    }

    /// What to collect, as the shell expands it with the variables that the build ends with, in
    /// the source folder.
    fn select(&mut self) -> Result<Result<Option<Selection>, ArtifactsError>, RunError> {
        let Some(artifacts) = self.plan.artifacts() else { return Ok(Ok(None)) };
        let words = Selection::words(artifacts);
        if words.is_empty() {
            return Ok(Ok(Some(Selection::new(artifacts, &[]))));
        }
        let emit = &mut *self.emit;
        let stage = Stage::UploadArtifacts;
        let expansion = Expansion { words: &words, succeeding: self.succeeding };
        let expanded = self
            .shell
            .expand(expansion, &mut |bytes| emit(Event::Output(bytes)))
            .map_err(|source| RunError::Shell { stage, source })?;
        Ok(match expanded {
            Ok(values) => Ok(Some(Selection::new(artifacts, &values))),
            Err(End::Stopped(signal)) => Err(ArtifactsError::Stopped { signal }),
            Err(_) => Err(ArtifactsError::Expansion { text: words.join(" ") }),
        })
    }
}

#[cfg(test)]
mod tests;
