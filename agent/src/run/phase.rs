//! The commands of a phase, and where people look at them.
//!
//! **Architecture invariant:** nothing runs after a stop, a timeout, or an end at a breakpoint.

use crate::{
    buildspec::Command,
    choice::RetryScope,
    event::Event,
    phase::{OnFailure, Phase, Retry, Stage},
    plan::{List, Step},
    shell::{CommandLine, End, Interaction, ShellError},
};

use super::{Break, Build, FirstFailed, Reason, ResumePoint, retry::Tail};

impl Build<'_> {
    /// Runs the commands of a phase, and all that belongs to its end.
    pub(super) fn phase(&mut self, phase: Phase) -> Result<(), Break> {
        let before = self.course.commands.clone();
        self.failed_output = None;
        let ended = self.both_lists(phase);
        self.again = self.another_try(phase, &ended);
        if self.again.is_some() && self.plan.choices().retry == RetryScope::Phase {
            self.course.commands = before;
        }
        match (phase, &self.again, &ended) {
            (Phase::PostBuild, None, Ok(()) | Err(Break::Failed(_))) => self.export().and(ended),
            _ => ended,
        }
    }

    /// Runs the commands of a phase, and then its `finally`, whatever came of them.
    fn both_lists(&mut self, phase: Phase) -> Result<(), Break> {
        if std::mem::take(&mut self.course.wants_runtimes) && self.plan.resume().is_none() {
            self.select_runtimes()?;
        }
        let commands = self.list(phase, List::Commands);
        if !matches!(commands, Ok(()) | Err(Break::Failed(_))) {
            return commands;
        }
        match (commands, self.list(phase, List::Finally)) {
            (Err(first), Ok(()) | Err(Break::Failed(_))) => Err(first),
            (_, finally) => finally,
        }
    }

    /// Runs commands until one fails.
    fn list(&mut self, phase: Phase, list: List) -> Result<(), Break> {
        let plan = self.plan;
        let is_here = |it: &Step<'_>| (it.phase, it.list) == (phase, list);
        let first = plan.resume().map_or(0, |it| it.step);
        let steps = plan.steps().into_iter().filter(is_here);
        steps.filter(|it| first <= it.number).try_for_each(|it| self.step(&it))
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), Break> {
        if self.plan.breaks().before.contains(&step.number) {
            self.pause_before(step)?;
        }
        let wants_output = matches!(
            self.plan.on_failure(Stage::Commands(step.phase)),
            Some(OnFailure::Retry(Retry { pattern: Some(_), .. }))
        );
        let mut tail = wants_output.then(Tail::default);
        let line = CommandLine {
            text: &step.command.text,
            succeeding: !self.course.commands.failed,
            user: self.plan.user(step.phase),
            carries: self.plan.carries(),
        };
        let end = self.execute(step.command, line, tail.as_mut())?;
        let judged = Self::judge(step.command, end);
        if judged.is_err() {
            self.note_first(step);
        }
        if let Err(Break::Failed(_)) = judged {
            self.course.commands.failed = true;
            self.failed_output = self.failed_output.take().or(tail);
            self.pause_after(step)?;
        }
        judged
    }

    /// Runs one command, and tells what it does; `tail` gets the end of what it writes.
    pub(super) fn execute(
        &mut self,
        command: &Command,
        line: CommandLine<'_>,
        mut tail: Option<&mut Tail>,
    ) -> Result<End, ShellError> {
        let emit = &mut *self.emit;
        emit(Event::CommandStarted(command));
        let end = self.ports.shell.run(line, &mut |bytes| {
            if let Some(tail) = &mut tail {
                tail.push(bytes);
            }
            emit(Event::Output(bytes));
        })?;
        emit(Event::CommandFinished { command, end });
        Ok(end)
    }

    /// What it means that `command` ended like this.
    pub(super) fn judge(command: &Command, end: End) -> Result<(), Break> {
        match end {
            End::Exited(0) => Ok(()),
            End::Stopped(signal) => Err(Break::Stopped(signal)),
            End::TimedOut => Err(Break::TimedOut),
            End::Exited(_) | End::Killed(_) => {
                Err(Break::Failed(Reason::Command { command: command.clone(), end }))
            }
        }
    }

    /// Notes where the build could go on after `step` did not succeed, or did not begin, if it is
    /// the first. What is
    /// in `finally` belongs to what failed before it: a build cannot go on in the middle of that.
    fn note_first(&mut self, step: &Step<'_>) {
        if !matches!(self.course.commands.first, FirstFailed::None) {
            return;
        }
        let snapshot = match step.list {
            List::Commands => self.ports.shell.snapshot().ok(),
            List::Finally => None,
        };
        self.course.commands.first = match snapshot {
            Some(snapshot) => FirstFailed::At(ResumePoint { step: step.number, snapshot }),
            None => FirstFailed::Elsewhere,
        };
    }

    /// Lets a person look at what a command will find.
    fn pause_before(&mut self, step: &Step<'_>) -> Result<(), Break> {
        let end = self.pause(step, false)?;
        let judged = Self::judge(step.command, end);
        if judged.is_err() {
            self.note_first(step);
        }
        match judged {
            Err(Break::Failed(_)) => {
                let command = step.command.clone();
                Err(Break::Left(Reason::Breakpoint { command, end }))
            }
            judged => judged,
        }
    }

    /// Lets a person look at what the command that failed has found, if anyone wants to.
    fn pause_after(&mut self, step: &Step<'_>) -> Result<(), Break> {
        if !self.plan.breaks().on_failure {
            return Ok(());
        }
        let end = self.pause(step, true)?;
        match Self::judge(step.command, end) {
            // The build has failed anyway.
            Err(Break::Failed(_)) => Ok(()),
            judged => judged,
        }
    }

    fn pause(&mut self, step: &Step<'_>, failed: bool) -> Result<End, ShellError> {
        (self.emit)(Event::BreakpointReached { command: step.command, failed });
        let end = self.ports.shell.interact(Interaction {
            succeeding: !self.course.commands.failed,
            user: self.plan.user(step.phase),
            before_last: failed,
        })?;
        (self.emit)(Event::BreakpointLeft { end });
        Ok(end)
    }
}
