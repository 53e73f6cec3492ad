//! How a build is shown: as CodeBuild's log, or, on a terminal, as output that scrolls above a
//! line that says what runs and for how long.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use rbuild_agent::{
    event::Event,
    phase::{Stage, State},
    shell::End,
};
use time::{OffsetDateTime, macros::format_description};

use super::size;
use crate::{
    args::Log,
    build_log,
    failure::{Failure, Kind},
    host,
};

/// Shows the events of one build.
pub(crate) struct View {
    mode: Mode,
    /// The first thing that standard output did not take.
    lost: Option<io::Error>,
}

enum Mode {
    Log(build_log::BuildLog),
    Progress(Progress),
}

/// What is on the terminal.
struct Progress {
    bar: ProgressBar,
    stage: Option<Stage>,
    /// Output after its last newline: a line is shown when it is whole.
    line: Vec<u8>,
    started: Duration,
}

/// A line this long is shown in pieces.
const LONGEST_LINE: usize = 1 << 16;

impl View {
    pub(crate) fn new(log: Log) -> Self {
        let draws = match log {
            Log::Auto => host::is_terminal(),
            Log::Codebuild => false,
            Log::Progress => true,
        };
        let mode = match draws {
            true => Mode::Progress(Progress::new()),
            false => Mode::Log(build_log::BuildLog::default()),
        };
        Self { mode, lost: None }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Event<'_>) {
        match &mut self.mode {
            Mode::Log(log) => {
                // CodeBuild's log says nothing of it.
                if let Event::NameCollision { name, dropped, .. } = event {
                    let (name, dropped) = (name.display(), dropped.display());
                    super::warn(&format!(
                        "two artifacts are called `{name}`: `{dropped}` is left out"
                    ));
                }
                let mut bytes = Vec::new();
                // Writing to memory does not fail.
                let _ = log.write(event, &log_time(host::now()), &mut bytes);
                self.write(&bytes);
            }
            Mode::Progress(progress) => {
                let bytes = progress.show(event);
                self.write(&bytes);
            }
        }
    }

    /// Shows output that comes after the last event.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.show(&Event::Output(bytes));
    }

    /// Ends what is drawn; an error if a part of the log was lost.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        if let Mode::Progress(progress) = &mut self.mode {
            let rest = progress.end_line();
            progress.bar.finish_and_clear();
            self.write(&rest);
        }
        match self.lost {
            None => Ok(()),
            Some(err) => {
                let message = "a part of the log could not be written to standard output";
                Err(Failure::new(Kind::Outside, message).because(err))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.lost.is_some() {
            return;
        }
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        let written = match &self.mode {
            Mode::Log(_) => write(),
            Mode::Progress(_) => super::drawn().suspend(write),
        };
        match written {
            // A reader that has seen enough does not stop the build.
            Err(err) if err.kind() != io::ErrorKind::BrokenPipe => self.lost = Some(err),
            _ => {}
        }
    }
}

/// The time of a line of the log: UTC, with microseconds.
fn log_time(since_1970: Duration) -> String {
    let format =
        format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:6]");
    let time = OffsetDateTime::UNIX_EPOCH + since_1970;
    time.format(format).unwrap_or_default()
}

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = super::drawn().add(ProgressBar::new_spinner().with_style(style));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, stage: None, line: Vec::new(), started: host::now() }
    }

    /// What goes to the terminal for one event.
    fn show(&mut self, event: &Event<'_>) -> Vec<u8> {
        match event {
            Event::StageStarted(stage) => {
                self.stage = Some(*stage);
                self.started = host::now();
                self.bar.set_message(stage.to_string());
                Vec::new()
            }
            Event::CommandStarted(command) => {
                let first = command.text.lines().next().unwrap_or_default();
                let stage = self.stage.map(|it| it.to_string()).unwrap_or_default();
                let short: String = first.chars().take(60).collect();
                self.bar.set_message(super::visible(&format!("{stage}: {short}")).into_owned());
                self.bar.reset_elapsed();
                format!("[{stage}] $ {}\n", command.text.trim_end()).into_bytes()
            }
            Event::Output(bytes) => self.lines(bytes),
            Event::CommandFinished { end, .. } => {
                let mut bytes = self.end_line();
                match end {
                    End::Exited(0) | End::TimedOut => {}
                    End::Exited(status) => {
                        bytes.extend_from_slice(format!("exit status {status}\n").as_bytes());
                    }
                    End::Killed(signal) | End::Stopped(signal) => {
                        let name = host::signal_name(*signal);
                        bytes.extend_from_slice(format!("ended by {name}\n").as_bytes());
                    }
                }
                bytes
            }
            Event::StageFinished { stage, state, .. } => {
                let mut bytes = self.end_line();
                if let Some(line) = self.stage_line(*stage, *state) {
                    bytes.extend_from_slice(line.as_bytes());
                }
                bytes
            }
            Event::PatternMatched { pattern, files: 0, .. } => {
                format!("no file matches `{pattern}`\n").into_bytes()
            }
            Event::NameCollision { name, dropped, .. } => {
                let (name, dropped) = (name.display(), dropped.display());
                format!("two artifacts are called `{name}`: `{dropped}` is left out\n").into_bytes()
            }
            _ => Vec::new(),
        }
    }

    /// Stages that did nothing are not worth a line.
    fn stage_line(&self, stage: Stage, ended: State) -> Option<String> {
        let time = host::now().saturating_sub(self.started);
        let quiet = ended == State::Succeeded && time < Duration::from_millis(1);
        let is_commands = matches!(stage, Stage::Commands(_));
        (!quiet && (is_commands || ended != State::Succeeded))
            .then(|| format!("[{stage}] {ended} in {}\n", size::time(time)))
    }

    fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.line.extend_from_slice(bytes);
        let end = match self.line.iter().rposition(|it| *it == b'\n') {
            Some(end) => end + 1,
            None if LONGEST_LINE < self.line.len() => self.line.len(),
            None => 0,
        };
        self.line.drain(..end).collect()
    }

    fn end_line(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.line);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        rest
    }
}
