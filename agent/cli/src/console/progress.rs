//! A build on a terminal: output scrolls above a line that says what runs, and for how long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rbuild_agent::{event::Event, phase::Stage};

use super::{course::Course, plain, size};

/// What is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// None while a person has the terminal.
    bar: Option<ProgressBar>,
    /// Output after its last newline: a line is shown when it is whole.
    line: Vec<u8>,
}

/// A line this long is shown in pieces.
const LONGEST_LINE: usize = 1 << 16;

impl Progress {
    /// What goes to the terminal for one event, besides what is drawn.
    pub(super) fn show(&mut self, event: &Event<'_>, course: &Course) -> Vec<u8> {
        match event {
            Event::BreakpointReached { .. } => self.finish(),
            Event::StageStarted(stage) => {
                let bar = self.bar();
                bar.set_message(stage.to_string());
                bar.reset_elapsed();
            }
            Event::CommandStarted(command) => {
                let first = plain::first_line(course, &command.text);
                let which = match (course.step(command), course.stage()) {
                    (Some((_, step)), _) => step.to_string(),
                    (None, Some(stage)) => stage.to_string(),
                    (None, None) => String::new(),
                };
                let bar = self.bar();
                bar.set_message(format!("{which}: {first}"));
                bar.reset_elapsed();
            }
            Event::ArtifactsSent { sent, total } => {
                let (sent, total) = (size::bytes(*sent), size::bytes(*total));
                let stage = Stage::UploadArtifacts;
                self.bar().set_message(format!("{stage}: {sent} of {total}"));
            }
            _ => {}
        }
        let mut bytes = match event {
            Event::CommandFinished { .. }
            | Event::StageFinished { .. }
            | Event::BreakpointReached { .. } => self.end_line(),
            _ => Vec::new(),
        };
        bytes.extend_from_slice(plain::words(event, course).as_bytes());
        bytes
    }

    /// What goes to the terminal when a command wrote this: lines that are whole.
    pub(super) fn output(&mut self, bytes: &[u8]) -> Vec<u8> {
        let held = self.line.len();
        self.line.extend_from_slice(bytes);
        let end = match bytes.iter().rposition(|it| *it == b'\n') {
            Some(end) => held + end + 1,
            None if LONGEST_LINE < self.line.len() => self.line.len(),
            None => 0,
        };
        self.line.drain(..end).collect()
    }

    /// What was held back of the last line, ended.
    pub(super) fn end_line(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.line);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        rest
    }

    /// Takes away what is drawn.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn bar(&mut self) -> &ProgressBar {
        self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = super::drawn().add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        })
    }
}
