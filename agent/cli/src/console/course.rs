//! How far a build is: which command runs, which number it has, since when, and what of all that
//! nobody must see.
//!
//! **Architecture invariant:** shows nothing; what is shown is for the ways of showing.

use std::{borrow::Cow, fmt, time::Duration};

use rbuild_agent::{
    buildspec::{Command, PhaseCommands},
    event::Event,
    phase::{Phase, Stage},
    secret::Redactor,
    source::Place,
};

use crate::failure::Spot;

/// How far a build is.
#[derive(Debug)]
pub(crate) struct Course {
    buildspec: Spot,
    steps: Vec<Step>,
    current: Option<usize>,
    stage: Option<Stage>,
    stage_started: Duration,
    command_started: Duration,
    now: Duration,
    redactor: Redactor,
}

/// A command of the buildspec.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its phase.
    pub(crate) phase: Phase,
    /// Whether it is one of `finally`.
    pub(crate) is_finally: bool,
    /// Its number among those, counted from 1.
    number: usize,
    /// How many those are.
    of: usize,
    command: Command,
}

impl Course {
    /// The beginning of a build.
    pub(crate) fn new(buildspec: Spot, phases: &[PhaseCommands]) -> Self {
        let steps = phases.iter().flat_map(|it| {
            let commands = steps(it.phase, &it.commands, false);
            commands.chain(steps(it.phase, &it.finally, true))
        });
        Self {
            buildspec,
            steps: steps.collect(),
            current: None,
            stage: None,
            stage_started: Duration::ZERO,
            command_started: Duration::ZERO,
            now: Duration::ZERO,
            redactor: Redactor::default(),
        }
    }

    /// Goes on with what happened now.
    pub(crate) fn follow(&mut self, event: &Event<'_>, now: Duration) {
        self.now = now;
        match event {
            Event::StageStarted(stage) => {
                self.stage = Some(*stage);
                self.current = None;
                self.stage_started = now;
            }
            Event::CommandStarted(command) => {
                self.current = self.find(command);
                self.command_started = now;
            }
            Event::SecretsKnown(redactor) => self.redactor = (*redactor).clone(),
            _ => {}
        }
    }

    /// A whole text without what nobody must see; to be called before a text is cut or escaped.
    pub(crate) fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.redactor.mask(text)
    }

    /// What nobody must see.
    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The time, since 1970.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// The stage that runs.
    pub(crate) fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// The number of a command among all of the buildspec, counted from 1, and what is known of it;
    /// none if it is not of the buildspec.
    pub(crate) fn step(&self, command: &Command) -> Option<(usize, &Step)> {
        let index = self.current.filter(|it| self.steps[*it].command == *command);
        let index = index.or_else(|| self.find(command))?;
        Some((index + 1, &self.steps[index]))
    }

    /// How long the stage has run.
    pub(crate) fn stage_time(&self) -> Duration {
        self.now.saturating_sub(self.stage_started)
    }

    /// How long the command has run.
    pub(crate) fn command_time(&self) -> Duration {
        self.now.saturating_sub(self.command_started)
    }

    /// The buildspec.
    pub(crate) fn buildspec(&self) -> &Spot {
        &self.buildspec
    }

    /// Where a command is; a command that is not of the buildspec has no line of it.
    pub(crate) fn spot(&self, command: &Command) -> Spot {
        let Place { line, column } = match self.step(command) {
            Some(_) => command.place,
            None => Place { line: 0, column: 0 },
        };
        Spot { line, column, ..self.buildspec.clone() }
    }

    /// Which step a command is: an alias in the file makes several of the same text and place, so
    /// the next one is meant.
    fn find(&self, command: &Command) -> Option<usize> {
        let is_it = |it: &Step| {
            it.command == *command && self.stage.is_none_or(|at| at == Stage::Commands(it.phase))
        };
        let after = self.current.map_or(0, |it| it + 1);
        let later = self.steps.iter().skip(after).position(is_it).map(|it| it + after);
        later.or_else(|| self.steps.iter().position(is_it))
    }
}

fn steps(
    phase: Phase,
    commands: &[Command],
    is_finally: bool,
) -> impl Iterator<Item = Step> + use<'_> {
    let of = commands.len();
    commands.iter().enumerate().map(move |(index, command)| {
        let command = command.clone();
        Step { phase, is_finally, number: index + 1, of, command }
    })
}

/// Such as `BUILD 3/7` or `BUILD finally 1/2`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finally = if self.is_finally { "finally " } else { "" };
        write!(f, "{} {finally}{}/{}", self.phase, self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_agent::buildspec::Buildspec;

    use super::*;

    #[test]
    fn commands_are_numbered_in_their_phase_and_in_all() {
        let text = "version: 0.2\nphases:\n  install: {commands: [a, &x same, *x, b]}\n  build: \
                    {commands: a, finally: [*x, d]}\n";
        let buildspec = Buildspec::parse(text.as_bytes()).unwrap();
        let mut course = Course::new(Spot::default(), &buildspec.phases);
        let mut seen = Vec::new();
        for it in &buildspec.phases {
            let stage = Event::StageStarted(Stage::Commands(it.phase));
            course.follow(&stage, Duration::ZERO);
            for command in it.commands.iter().chain(&it.finally) {
                course.follow(&Event::CommandStarted(command), Duration::ZERO);
                let (number, step) = course.step(command).unwrap();
                seen.push(format!("{number} {step}"));
            }
        }
        let want = [
            "1 INSTALL 1/4",
            "2 INSTALL 2/4",
            "3 INSTALL 3/4",
            "4 INSTALL 4/4",
            "5 BUILD 1/1",
            "6 BUILD finally 1/2",
            "7 BUILD finally 2/2",
        ];
        assert_eq!(seen, want);
        let other = Command { text: "x".into(), place: Place { line: 1, column: 1 } };
        assert!(course.step(&other).is_none());
    }
}
