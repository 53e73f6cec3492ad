//! Runs a build: the one loop that does things.
//!
//! Read in this order: here (the loop, and what comes of it), `download` (what comes before the
//! first phase), `phase` (commands, and where people look at them), `retry` (whether to try
//! again), `export` and `upload` (what a build leaves behind).
//!
//! Where AWS is silent:
//! - A build that is tried again starts with the variables and in the folder that it started with;
//!   its files are as the try before has left them. Each phase counts its own tries. Runtimes are
//!   selected again.
//! - A phase that is tried again by itself is told nothing of its own failure.
//! - A person who leaves a breakpoint with a status other than 0 ends the build, unless a command
//!   failed there: then the build goes on as it would have.
//! - Nothing comes after a stop, a timeout, or such an end: no `finally`, no artifacts.
//!
//! **Architecture invariant:** knows no words, no YAML, and no AWS. What can be decided before was
//! decided in the [`Plan`]; what comes after what is in [`phase`](crate::phase).

mod download;
mod export;
mod phase;
mod retry;
mod upload;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    artifacts::{Artifacts, ArtifactsError, Packed},
    buildspec::Command,
    choice::AfterContinue,
    environment::{Environment, EnvironmentError},
    event::Event,
    phase::{OnFailure, Phase, Stage, State},
    plan::Plan,
    secret::{Secrets, SecretsError},
    shell::{End, Shell, ShellError, Snapshot},
};
use retry::{Again, Tail};

/// Those who do what a build asks for.
pub struct Ports<'a> {
    /// Runs commands.
    pub shell: &'a mut dyn Shell,
    /// Fetches secrets.
    pub secrets: &'a mut dyn Secrets,
    /// Keeps artifacts.
    pub artifacts: &'a mut dyn Artifacts,
}

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
    /// It took too long.
    TimedOut {
        /// Which stage was running.
        stage: Stage,
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

/// Why a stage failed, or was stopped by a person at a breakpoint.
#[derive(Debug)]
pub enum Reason {
    /// A secret cannot be had.
    Secrets(SecretsError),
    /// A secret cannot be the value of a variable.
    Environment(EnvironmentError),
    /// A command failed.
    Command {
        /// Which one.
        command: Command,
        /// How it ended.
        end: End,
    },
    /// A person ended the build before a command.
    Breakpoint {
        /// Before which one.
        command: Command,
        /// How the person's shell ended.
        end: End,
    },
    /// There are no artifacts.
    Artifacts(ArtifactsError),
    /// There are no artifacts of that name.
    SecondaryArtifacts {
        /// The name.
        identifier: String,
        /// Why.
        error: ArtifactsError,
    },
}

/// Why a build could not go on. A command that fails is an [`Outcome`], not an error, and so are
/// artifacts that could not be kept, whoever is to blame: what else came of the build counts.
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
    /// A secret cannot be had; nothing ran.
    #[error("the secrets of the build could not be fetched")]
    Secrets {
        /// Why not.
        source: SecretsError,
    },
    /// A secret cannot be the value of a variable; nothing ran.
    #[error("the secrets of the build could not be used")]
    Environment {
        /// Why not.
        source: EnvironmentError,
    },
}

/// Runs the build that `plan` describes, and tells `emit` what happens.
pub fn run(
    plan: &Plan,
    ports: Ports<'_>,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Report, RunError> {
    let Ports { shell, secrets, artifacts } = ports;
    let mut build = Build {
        plan,
        ports: Ports { shell, secrets, artifacts },
        emit,
        environment: plan.environment().clone(),
        course: Course::default(),
        tries: BTreeMap::new(),
        failed_output: None,
        again: None,
        interrupted: None,
        packed: Vec::new(),
        exported: Vec::new(),
    };
    let mut next = Some(Stage::FIRST);
    while let Some(stage) = next {
        next = match plan.runs(stage) {
            true => build.stage(stage)?,
            false => build.skip(stage),
        };
    }
    build.report()
}

/// A build that runs.
struct Build<'a> {
    plan: &'a Plan,
    ports: Ports<'a>,
    emit: &'a mut dyn FnMut(Event<'_>),
    /// The variables of the first command; complete as soon as secrets are fetched.
    environment: Environment,
    course: Course,
    /// How often each phase was tried again.
    tries: BTreeMap<Phase, u8>,
    /// What the first command that failed in this phase wrote at its end, if that is of interest.
    failed_output: Option<Tail>,
    /// What the phase that ended asks for.
    again: Option<Again>,
    /// How the build ended if nothing more may come.
    interrupted: Option<Outcome>,
    packed: Vec<Packed>,
    exported: Vec<(String, String)>,
}

/// How a build is doing. One that is tried again begins with a new one.
#[derive(Default)]
struct Course {
    /// The first thing that failed, if that counts.
    failure: Option<Failure>,
    commands: Commands,
    /// Whether runtimes are to be selected before the next command.
    wants_runtimes: bool,
}

/// What came of the commands that ran so far.
#[derive(Clone, Default)]
struct Commands {
    /// Whether one failed: later ones are told.
    failed: bool,
    first: FirstFailed,
}

/// The first command that did not succeed.
#[derive(Clone, Default)]
enum FirstFailed {
    /// There is none.
    #[default]
    None,
    /// The build could go on with it.
    At(ResumePoint),
    /// The build could not go on with it.
    Elsewhere,
}

/// Why a part of a stage ended early.
enum Break {
    Failed(Reason),
    /// Nothing may come after this, though nobody stopped the build.
    Left(Reason),
    Stopped(i32),
    TimedOut,
    Broken(ShellError),
}

impl From<ShellError> for Break {
    fn from(source: ShellError) -> Self {
        Self::Broken(source)
    }
}

impl Build<'_> {
    fn stage(&mut self, stage: Stage) -> Result<Option<Stage>, RunError> {
        (self.emit)(Event::StageStarted(stage));
        let ended = match stage {
            Stage::DownloadSource => self.download(),
            Stage::Commands(phase) => self.phase(phase),
            Stage::UploadArtifacts => self.upload(),
        };
        self.finish(stage, ended)
    }

    fn skip(&mut self, stage: Stage) -> Option<Stage> {
        (self.emit)(Event::StageSkipped(stage));
        stage.after(State::Succeeded, None, self.plan.choices())
    }

    /// Tells how a stage ended, and decides what comes next.
    fn finish(
        &mut self,
        stage: Stage,
        ended: Result<(), Break>,
    ) -> Result<Option<Stage>, RunError> {
        let broken = |source| RunError::Shell { stage, source };
        let (ended, reason) = self.meaning(stage, ended).map_err(broken)?;
        (self.emit)(Event::StageFinished { stage, state: ended, reason: reason.as_ref() });
        if let Some(again) = self.again.take() {
            return self.try_again(again).map(Some).map_err(broken);
        }
        let on_failure = self.plan.on_failure(stage);
        if let Some(reason) = reason {
            self.note(Failure { stage, reason }, on_failure);
        }
        Ok(stage.after(ended, on_failure, self.plan.choices()))
    }

    /// What it means that `stage` ended like this.
    fn meaning(
        &mut self,
        stage: Stage,
        ended: Result<(), Break>,
    ) -> Result<(State, Option<Reason>), ShellError> {
        Ok(match ended {
            Ok(()) => (State::Succeeded, None),
            Err(Break::Failed(reason)) => (State::Failed, Some(reason)),
            Err(Break::Left(reason)) => (State::Stopped, Some(reason)),
            Err(Break::Stopped(signal)) => {
                self.interrupted = Some(Outcome::Stopped { stage, signal });
                (State::Stopped, None)
            }
            Err(Break::TimedOut) => {
                self.interrupted = Some(Outcome::TimedOut { stage });
                (State::TimedOut, None)
            }
            Err(Break::Broken(source)) => return Err(source),
        })
    }

    /// Notes what failed, if it counts.
    fn note(&mut self, failure: Failure, on_failure: Option<&OnFailure>) {
        let passes = self.plan.choices().after_continue == AfterContinue::Pass;
        let is_forgiven = passes && on_failure == Some(&OnFailure::Continue);
        if !is_forgiven {
            self.course.failure.get_or_insert(failure);
        } else if self.course.failure.is_none() {
            self.course.commands.first = FirstFailed::None;
        }
    }

    fn report(self) -> Result<Report, RunError> {
        let outcome = match (self.interrupted, self.course.failure) {
            (Some(outcome), _) => outcome,
            (None, None) => Outcome::Succeeded,
            (None, Some(Failure { reason: Reason::Secrets(source), .. })) => {
                return Err(RunError::Secrets { source });
            }
            (None, Some(Failure { reason: Reason::Environment(source), .. })) => {
                return Err(RunError::Environment { source });
            }
            (None, Some(failure)) => Outcome::Failed(failure),
        };
        // A failure that is forgiven, or followed by another try, leaves none.
        let resume = match self.course.commands.first {
            FirstFailed::At(point) => Some(point),
            FirstFailed::None | FirstFailed::Elsewhere => None,
        };
        Ok(Report { outcome, artifacts: self.packed, exported: self.exported, resume })
    }
}

#[cfg(test)]
mod tests;
