//! A build as a step of a workflow on GitHub Actions: a group for each phase, annotations at the
//! places of the buildspec, values that the log must not show, variables for later steps, and a
//! summary.
//!
//! **Architecture invariant:** pure: gives pieces of text, and writes none. What a piece looks like
//! to the runner is for [`lines`].

use rbuild_agent::{
    event::Event,
    phase::Stage,
    run::Reason,
    secret::{Redactor, Secret},
};

use super::{course::Course, plain, size};
use crate::{build_log, failure::Spot};

pub(super) mod lines;
pub(super) mod summary;

use lines::{Annotation, Level, Piece};
use summary::Summary;

/// Shows one build.
#[derive(Debug)]
pub(super) struct Github {
    is_in_group: bool,
    /// Whether a runner reads this, and keeps what it must not show to itself.
    has_runner: bool,
    tokens: fn() -> String,
    summary: Summary,
}

/// The most of a text that is in an annotation, in characters.
const LONGEST: usize = 1000;
/// Values that are shorter are not masked: they are part of all kinds of words.
const SHORTEST_SECRET: usize = 4;

impl Github {
    /// Shows a build to the runner, if there is one; `tokens` gives words that nobody can guess.
    pub(super) fn new(has_runner: bool, tokens: fn() -> String) -> Self {
        Self { is_in_group: false, has_runner, tokens, summary: Summary::default() }
    }

    /// What is shown of one event that is no output.
    pub(super) fn show(&mut self, event: &Event<'_>, course: &Course) -> Vec<Piece> {
        self.summary.follow(event, course);
        let words = plain::words(event, course);
        match event {
            Event::SecretsKnown(redactor) if self.has_runner => masks(redactor),
            Event::CommandStarted(_) => {
                let mut pieces = Vec::new();
                if !std::mem::replace(&mut self.is_in_group, true) {
                    let stage = course.stage().map(|it| it.to_string()).unwrap_or_default();
                    pieces.push(Piece::Group(stage));
                }
                pieces.push(Piece::Quoted(command(event, course)));
                pieces
            }
            Event::StageFinished { stage, .. } => {
                let mut pieces = self.end_group();
                pieces.push(Piece::Said(words));
                pieces.extend(failed(*stage, event, course).map(Piece::Annotation));
                pieces
            }
            Event::VariablesExported(variables) => withheld(variables, course),
            _ if words.is_empty() => Vec::new(),
            _ => vec![Piece::Quoted(words)],
        }
    }

    /// Ends what was begun.
    pub(super) fn end_group(&mut self) -> Vec<Piece> {
        match std::mem::take(&mut self.is_in_group) {
            true => vec![Piece::EndGroup],
            false => Vec::new(),
        }
    }

    /// What goes to the file of the step's outputs.
    pub(super) fn outputs(&self, variables: &[(String, String)], course: &Course) -> String {
        let shown = variables.iter().filter(|it| refusal(it, course).is_none());
        shown.map(|(name, value)| self.output(name, value)).collect()
    }

    /// What goes to the file of the step's summary.
    pub(super) fn summary(&self, course: &Course) -> String {
        self.summary.text(course)
    }

    /// `NAME<<DELIMITER`, the value, `DELIMITER`: nothing in the value ends it.
    fn output(&self, name: &str, value: &str) -> String {
        let delimiter = std::iter::repeat_with(self.tokens)
            .map(|it| format!("rbuild_{it}"))
            .find(|it| !value.contains(it.as_str()))
            .unwrap_or_default();
        format!("{name}<<{delimiter}\n{value}\n{delimiter}\n")
    }
}

/// The command as a person would type it.
fn command(event: &Event<'_>, course: &Course) -> String {
    let Event::CommandStarted(command) = event else { return String::new() };
    let which = course.step(command).map(|(_, step)| format!("{step} ")).unwrap_or_default();
    let text = format!("{which}$ {}\n", command.text.trim_end());
    super::visible(&course.mask(&text)).into_owned()
}

/// Every value, and each line of it, with and without the blanks around: the runner looks at a line
/// at a time.
fn masks(redactor: &Redactor) -> Vec<Piece> {
    let values = redactor.values().map(Secret::expose);
    let texts = values.flat_map(|it| std::iter::once(it).chain(it.split(['\n', '\r'])));
    let texts = texts.flat_map(|it| [it, it.trim()]);
    let mut texts: Vec<_> = texts.filter(|it| SHORTEST_SECRET <= it.trim().len()).collect();
    texts.sort_unstable();
    texts.dedup();
    texts.into_iter().map(|it| Piece::Mask(it.to_owned())).collect()
}

/// What an annotation says of a stage, if it failed.
fn failed(stage: Stage, event: &Event<'_>, course: &Course) -> Option<Annotation> {
    let Event::StageFinished { state, reason, .. } = event else { return None };
    let (code, message) = build_log::context(*state, *reason);
    let (spot, text) = match reason {
        Some(Reason::Command { command, end }) => {
            let how = plain::how(*end).unwrap_or_default();
            (course.spot(command), format!("{how}: {}", command.text.trim_end()))
        }
        _ if code.is_empty() => return None,
        _ => (course.buildspec().clone(), message),
    };
    let title = format!("{stage} {state}");
    let text = course.mask(&text).chars().take(LONGEST).collect();
    Some(Annotation { level: Level::Error, spot: Some(spot), title, text })
}

/// Warnings of variables that later steps do not get.
fn withheld(variables: &[(String, String)], course: &Course) -> Vec<Piece> {
    let warning = |it: &(String, String)| {
        let text = refusal(it, course)?;
        let spot: Option<Spot> = Some(course.buildspec().clone());
        let title = "exported variable".to_owned();
        Some(Piece::Annotation(Annotation { level: Level::Warning, spot, title, text }))
    };
    variables.iter().filter_map(warning).collect()
}

/// Why later steps do not get a variable.
fn refusal((name, value): &(String, String), course: &Course) -> Option<String> {
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    let is_name =
        name.chars().all(is_word) && !name.starts_with(|it: char| !it.is_alphabetic() && it != '_');
    if name.is_empty() || !is_name {
        return Some(format!("`{name}` cannot be the name of an output of the step"));
    }
    let is_secret = course.mask(value) != *value;
    is_secret.then(|| format!("`{name}` is no output of the step, since its value holds a secret"))
}

/// The size of what was packed, for people.
fn packed(files: usize, bytes: u64) -> String {
    let files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    format!("{files}, {}", size::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use rbuild_agent::choice::Masking;

    use super::*;

    fn course(secret: &str) -> Course {
        let mut course = Course::new(Spot::default(), &[]);
        let secrets = vec![Secret::new(secret.to_owned())];
        let redactor = Redactor::new(secrets, Masking::default());
        course.follow(&Event::SecretsKnown(&redactor), Duration::ZERO);
        course
    }

    /// Tokens of which the first two are the same.
    fn tokens() -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if number < 2 { "T".to_owned() } else { format!("U{number}") }
    }

    #[test]
    fn outputs_are_those_that_the_runner_takes_and_no_secrets() {
        let variables = [
            ("A", "1"),
            ("LINES", "a\nB<<x\nrbuild_T\n"),
            ("SECRET", "has hunter2 in it"),
            ("A B", "1"),
            ("1A", "1"),
            ("", "1"),
            ("x\ny=1", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let github = Github::new(true, tokens);
        let course = course("hunter2");
        // A token that the value has is not taken, however unlikely that is.
        let want = "A<<rbuild_T\n1\nrbuild_T\nLINES<<rbuild_U2\na\nB<<x\nrbuild_T\n\nrbuild_U2\n";
        assert_eq!(github.outputs(&variables, &course), want);
        assert_eq!(withheld(&variables, &course).len(), 5);
    }

    #[test]
    fn every_line_of_a_secret_is_masked_if_there_is_a_runner() {
        let secret = "first line\r\nab\n  second%0A";
        let redactor = Redactor::new(vec![Secret::new(secret.into())], Masking::default());
        let event = Event::SecretsKnown(&redactor);
        let texts = |has_runner| -> Vec<String> {
            let pieces = Github::new(has_runner, String::new).show(&event, &course("none of it"));
            let text = |it| match it {
                Piece::Mask(text) => text,
                other => panic!("{other:?}"),
            };
            pieces.into_iter().map(text).collect()
        };
        assert_eq!(texts(true), ["  second%0A", "first line", secret, "second%0A"]);
        assert_eq!(texts(false), [] as [&str; 0]);
    }
}
