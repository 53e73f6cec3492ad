//! The summary of a build that GitHub shows under the job, in Markdown.
//!
//! **Architecture invariant:** pure. Nothing that is quoted is Markdown or HTML to GitHub.

use rbuild_agent::{
    artifacts::{Location, Packed},
    event::Event,
    phase::{Stage, State},
    run::Reason,
};

use super::packed;
use crate::{
    build_log,
    console::{course::Course, plain, size},
    failure::Spot,
};

/// What there is to say so far.
#[derive(Debug, Default)]
pub(in crate::console) struct Summary {
    stages: Vec<String>,
    artifacts: Vec<String>,
    /// How the first stage ended that did not succeed.
    failure: Option<(Stage, State, String)>,
}

/// The most of a command that is quoted, in characters.
const LONGEST: usize = 4000;

impl Summary {
    pub(super) fn follow(&mut self, event: &Event<'_>, course: &Course) {
        match event {
            Event::StageFinished { stage, state, reason } => {
                let time = size::time(course.stage_time());
                self.stages.push(format!("| {stage} | {state} | {time} |\n"));
                if *state != State::Succeeded && self.failure.is_none() {
                    let text = failure(*state, *reason, course);
                    self.failure = Some((*stage, *state, text));
                }
            }
            Event::StageSkipped(stage) => self.stages.push(format!("| {stage} | left out | |\n")),
            Event::ArtifactsWritten(packed) => self.artifacts.push(row(packed, course)),
            _ => {}
        }
    }

    /// All of it.
    pub(super) fn text(&self, course: &Course) -> String {
        let file = cell(&course.buildspec().file);
        let (heading, failure) = match &self.failure {
            None => (format!("### {file}: SUCCEEDED\n\n"), ""),
            Some((stage, how, text)) => (format!("### {file}: {how} in {stage}\n\n"), &**text),
        };
        let stages = table("| Phase | State | Time |\n| --- | --- | --- |\n", &self.stages);
        let artifacts = table("\n| Artifacts | Content |\n| --- | --- |\n", &self.artifacts);
        format!("{heading}{failure}{stages}{artifacts}\n")
    }
}

fn table(head: &str, rows: &[String]) -> String {
    if rows.is_empty() { String::new() } else { head.to_owned() + &rows.concat() }
}

/// What failed.
fn failure(state: State, reason: Option<&Reason>, course: &Course) -> String {
    let (what, text) = match reason {
        Some(Reason::Command { command, end }) => {
            let Spot { file, line, column, .. } = course.spot(command);
            let place = if line == 0 { String::new() } else { format!(":{line}:{column}") };
            let how = plain::how(*end).unwrap_or_default();
            (format!("{}{place}, {how}:\n\n", cell(&file)), command.text.as_str().into())
        }
        _ => (String::new(), build_log::context(state, reason).1),
    };
    let text: String = course.mask(&text).chars().take(LONGEST).collect();
    match text.is_empty() {
        true => String::new(),
        false => format!("{what}<pre>{}</pre>\n\n", html(text.trim_end())),
    }
}

fn row(artifacts: &Packed, course: &Course) -> String {
    let place = match &artifacts.location {
        Location::Local(path) => path.display().to_string(),
        Location::Remote(uri) => uri.clone(),
    };
    let place = cell(&course.mask(&place));
    let name = artifacts.identifier.as_ref().map(|it| cell(it) + ": ").unwrap_or_default();
    format!("| {name}{place} | {} |\n", packed(artifacts.files, artifacts.bytes))
}

/// A text in a table: none of its signs mean anything.
fn cell(text: &str) -> String {
    let shown = |it: char| match it {
        it if it.is_alphanumeric() || "/.-: ".contains(it) => it.to_string(),
        it if it.is_control() => " ".to_owned(),
        it => format!("&#{};", u32::from(it)),
    };
    text.chars().map(shown).collect()
}

/// A text in an element of HTML, line ends kept.
fn html(text: &str) -> String {
    let shown = |it: char| match it {
        '&' | '<' | '>' => format!("&#{};", u32::from(it)),
        it if it.is_control() && it != '\n' && it != '\t' => " ".to_owned(),
        it => it.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_quoted_is_markdown() {
        assert_eq!(cell("a|b\n<x> `c` @d"), "a&#124;b &#60;x&#62; &#96;c&#96; &#64;d");
        assert_eq!(html("a\n</pre><b> &amp; |"), "a\n&#60;/pre&#62;&#60;b&#62; &#38;amp; |");
    }
}
