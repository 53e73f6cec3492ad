//! A build as events for programs: one JSON object a line.
//!
//! The format is `events.schema.json` ([`SCHEMA`]). Its version is in the first line, and changes
//! when something that was there goes or means something else; new kinds of events and new fields
//! come without it. Every event has `type` and `time` (RFC 3339, UTC, microseconds). Durations are
//! in milliseconds. What nobody must see is `***`.
//!
//! | `type` | what happened | other fields (`?`: not always) |
//! | --- | --- | --- |
//! | `build` | rbuild began; always the first | `version`, `rbuild` |
//! | `source` | the source and the buildspec were found | `directory`, `buildspec` |
//! | `phase_found` | the buildspec has this phase | `phase`, `commands` |
//! | `shell` | the buildspec asks for a shell | `name` |
//! | `secrets` | secrets are fetched | `parameters`, `secrets` |
//! | `runtime` | a runtime is chosen, or left as it is | `name`, `version`, `selected` |
//! | `stage_started` | a stage began | `stage` |
//! | `stage_skipped` | nobody asked for this stage | `stage` |
//! | `stage_finished` | a stage ended | `stage`, `state`, `duration_ms`, `code`?, `message`? |
//! | `command_started` | a command began | those of a command, `text` |
//! | `output` | something wrote this | `text` or `base64`, of at most 64 KiB |
//! | `command_finished` | a command ended | those of a command, `duration_ms`, `reason`, `status`?, `signal`? |
//! | `retry` | something is tried again | `scope`, `phase`, `attempt`, `of` |
//! | `breakpoint` | a person has the terminal | those of a command, `text`, `failed` |
//! | `breakpoint_left` | the person left it | `reason`, `status`?, `signal`? |
//! | `exported` | the exported variables | `variables` |
//! | `pattern` | a pattern of the artifacts was matched | `pattern`, `files` |
//! | `artifacts_progress` | a part of the artifacts was sent | `sent`, `total` |
//! | `artifacts` | artifacts are complete | `identifier`?, `path` or `uri`, `files`, `bytes` |
//! | `warning` | something may be wrong | `message`, `file`?, `line`?, `column`? |
//! | `error` | something is wrong | `kind`, `message`, `causes`, `note`?, `hint`?, `file`?, `line`?, `column`? |
//! | `result` | how it ended; always the last | `status`, `exit_status`, `duration_ms` |
//!
//! Those of a command are `phase`, `finally`, and, if it is of the buildspec (and not one that
//! chooses a runtime), `number` (among all of it, from 1), `file`, `line`, and `column`. Arguments that are wrong give no
//! events, and neither does a second signal that ends rbuild at once.
//!
//! **Architecture invariant:** pure: gives lines, and writes none.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rbuild_agent::{
    artifacts::{Location, Packed},
    buildspec::Command,
    choice::RetryScope,
    event::Event,
    phase::{Stage, State},
    run::Reason,
    secret::Redactor,
    shell::End,
};
use serde_json::{Map, Value};
use time::{OffsetDateTime, macros::format_description};

use super::course::Course;
use crate::{
    build_log,
    failure::{Failure, Kind, Spot},
    host,
};

/// The JSON Schema of the events.
pub(crate) const SCHEMA: &str = include_str!("events.schema.json");

/// The version of the format.
const VERSION: u64 = 1;

/// An event that is being written.
pub(super) struct Line<'a> {
    fields: Map<String, Value>,
    redactor: &'a Redactor,
}

impl<'a> Line<'a> {
    /// An event of this type, at this time since 1970.
    fn new(name: &'static str, now: Duration, redactor: &'a Redactor) -> Self {
        let line = Self { fields: Map::new(), redactor };
        line.word("type", name).with("time", time(now))
    }

    /// With one of our own words.
    fn word(self, name: &'static str, value: &'static str) -> Self {
        self.with(name, value)
    }

    /// With a text that may hold anything.
    fn text(self, name: &'static str, value: &str) -> Self {
        let value = self.redactor.mask(value).into_owned();
        self.with(name, value)
    }

    fn text_if(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// With a value in which nothing can be a secret.
    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    fn duration(self, value: Duration) -> Self {
        self.with("duration_ms", u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    fn spot(self, spot: Option<&Spot>) -> Self {
        let Some(spot) = spot else { return self };
        let line = self.text("file", &spot.file);
        match spot.line {
            0 => line,
            _ => line.with("line", spot.line).with("column", spot.column),
        }
    }

    fn command(self, command: &Command, course: &Course) -> Self {
        let Some((number, step)) = course.step(command) else {
            return self.stage("phase", course.stage()).with("finally", false);
        };
        self.with("number", number)
            .with("phase", step.phase.to_string())
            .with("finally", step.is_finally)
            .spot(Some(&course.spot(command)))
    }

    fn stage(self, name: &'static str, stage: Option<Stage>) -> Self {
        match stage {
            Some(stage) => self.with(name, stage.to_string()),
            None => self,
        }
    }

    /// The line.
    fn end(self) -> String {
        Value::Object(self.fields).to_string() + "\n"
    }
}

/// The first line.
pub(super) fn build(now: Duration) -> String {
    Line::new("build", now, &Redactor::default())
        .with("version", VERSION)
        .word("rbuild", env!("CARGO_PKG_VERSION"))
        .end()
}

pub(super) fn warning(text: &str, spot: Option<&Spot>, now: Duration, hide: &Redactor) -> String {
    Line::new("warning", now, hide).text("message", text).spot(spot).end()
}

pub(super) fn error(failure: &Failure, now: Duration, hide: &Redactor) -> String {
    let causes: Vec<_> = failure.causes().iter().map(|it| hide.mask(it).into_owned()).collect();
    Line::new("error", now, hide)
        .word("kind", failure.kind.name())
        .text("message", failure.message())
        .with("causes", causes)
        .text_if("note", failure.noted())
        .text_if("hint", failure.hinted())
        .spot(failure.spot())
        .end()
}

/// The last line: what went wrong, if anything, in a build whose stages ended as `state`.
pub(super) fn result(kind: Option<Kind>, state: State, now: Duration, time: Duration) -> String {
    let status = match (kind, state) {
        (None, _) => "succeeded",
        (Some(Kind::Stopped(_)), _) => "stopped",
        (Some(Kind::Build), State::TimedOut) => "timed_out",
        (Some(_), _) => "failed",
    };
    Line::new("result", now, &Redactor::default())
        .word("status", status)
        .with("exit_status", kind.map_or(0, Kind::status))
        .duration(time)
        .end()
}

/// The lines for an event that is neither output nor a warning.
pub(super) fn lines(event: &Event<'_>, course: &Course) -> String {
    let hide = course.redactor();
    let line = |name| Line::new(name, course.now(), hide);
    let line = match event {
        Event::StageStarted(stage) => line("stage_started").stage("stage", Some(*stage)),
        Event::StageSkipped(stage) => line("stage_skipped").stage("stage", Some(*stage)),
        Event::StageFinished { stage, state, reason } => {
            finished(line("stage_finished").stage("stage", Some(*stage)), *state, *reason)
                .duration(course.stage_time())
        }
        Event::SourceFound { directory, buildspec } => line("source")
            .text("directory", &directory.to_string_lossy())
            .text("buildspec", &buildspec.to_string_lossy()),
        Event::PhaseFound { phase, commands } => {
            line("phase_found").with("phase", phase.to_string()).with("commands", *commands)
        }
        Event::ShellSelected(shell) => line("shell").word("name", shell.name()),
        Event::SecretsWanted { parameters, secrets } => {
            line("secrets").with("parameters", *parameters).with("secrets", *secrets)
        }
        Event::RuntimeSelected { name, version } => {
            line("runtime").text("name", name).text("version", version).with("selected", true)
        }
        Event::RuntimesSkipped(runtimes) => {
            let skipped = runtimes.iter().map(|it| {
                let line = line("runtime").text("name", &it.name);
                line.text("version", &it.version).with("selected", false).end()
            });
            return skipped.collect();
        }
        Event::CommandStarted(command) => {
            line("command_started").command(command, course).text("text", &command.text)
        }
        Event::CommandFinished { command, end } => ended(line("command_finished"), *end)
            .command(command, course)
            .duration(course.command_time()),
        Event::Retrying { scope, phase, attempt, of } => line("retry")
            .word("scope", scope_name(*scope))
            .with("phase", phase.to_string())
            .with("attempt", *attempt)
            .with("of", *of),
        Event::BreakpointReached { command, failed } => line("breakpoint")
            .command(command, course)
            .text("text", &command.text)
            .with("failed", *failed),
        Event::BreakpointLeft { end } => ended(line("breakpoint_left"), *end),
        Event::VariablesExported(variables) => {
            line("exported").with("variables", exported(variables, course))
        }
        Event::PatternMatched { pattern, files, .. } => {
            line("pattern").text("pattern", pattern).with("files", *files)
        }
        Event::ArtifactsSent { sent, total } => {
            line("artifacts_progress").with("sent", *sent).with("total", *total)
        }
        Event::ArtifactsWritten(packed) => artifacts(line("artifacts"), packed),
        // What is left is in other events, or has one of its own as a warning.
        Event::PhaseWithoutCommands(_)
        | Event::UnknownKeys(_)
        | Event::IgnoredKeys(_)
        | Event::SecretsKnown(_)
        | Event::EnvironmentReady { .. }
        | Event::PhasesFound(_)
        | Event::Output(_)
        | Event::BaseDirectoryWanted(_)
        | Event::BaseDirectoryFound(_)
        | Event::FilesFound(_)
        | Event::NameCollision { .. }
        | Event::FileSkipped { .. }
        | Event::ExportRefused { .. }
        | Event::ExportUnset { .. }
        | Event::SecondaryArtifacts { .. } => return String::new(),
    };
    line.end()
}

/// The most bytes of output in one event.
const LONGEST: usize = 1 << 16;

/// Holds together what comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// The beginning of a character of which the rest is to come.
    held: Vec<u8>,
}

impl Json {
    /// Gives the lines for what something wrote, which is masked already, one by one: escaped it
    /// may be six times as long.
    pub(super) fn output(&mut self, bytes: &[u8], course: &Course, out: &mut dyn FnMut(&str)) {
        let whole;
        let mut rest = bytes;
        if !self.held.is_empty() {
            whole = [&std::mem::take(&mut self.held), bytes].concat();
            rest = &whole;
        }
        while !rest.is_empty() {
            let (mut piece, _) = rest.split_at(rest.len().min(LONGEST));
            if let Err(err) = str::from_utf8(piece)
                && err.error_len().is_none()
            {
                piece = &piece[..err.valid_up_to()];
            }
            if piece.is_empty() {
                // Less than a character.
                self.held = rest.to_vec();
                return;
            }
            out(&output(piece, course));
            rest = &rest[piece.len()..];
        }
    }

    /// The line for what was held back: no more comes.
    pub(super) fn flush(&mut self, course: &Course) -> String {
        output(&std::mem::take(&mut self.held), course)
    }
}

fn output(bytes: &[u8], course: &Course) -> String {
    // It was masked as the stream that it is: a part of it is not masked again.
    let line = Line::new("output", course.now(), course.redactor());
    match str::from_utf8(bytes) {
        Ok("") => String::new(),
        Ok(text) => line.with("text", text).end(),
        Err(_) => line.with("base64", STANDARD.encode(bytes)).end(),
    }
}

fn finished<'a>(line: Line<'a>, state: State, reason: Option<&Reason>) -> Line<'a> {
    let (code, message) = build_log::context(state, reason);
    let line = line.with("state", state.to_string());
    match code {
        "" => line,
        code => line.word("code", code).text("message", &message),
    }
}

fn ended(line: Line<'_>, end: End) -> Line<'_> {
    let (reason, signal) = match end {
        End::Exited(status) => return line.word("reason", "exited").with("status", status),
        End::Killed(signal) => ("killed", signal),
        End::Stopped(signal) => ("stopped", signal),
        End::TimedOut => return line.word("reason", "timed_out"),
    };
    line.word("reason", reason).with("signal", host::signal_name(signal))
}

fn artifacts<'a>(line: Line<'a>, packed: &Packed) -> Line<'a> {
    let line = line.text_if("identifier", packed.identifier.as_deref());
    let line = match &packed.location {
        Location::Local(path) => line.text("path", &path.to_string_lossy()),
        Location::Remote(uri) => line.text("uri", uri),
    };
    line.with("files", packed.files).with("bytes", packed.bytes)
}

fn exported(variables: &[(String, String)], course: &Course) -> Value {
    let variable = |(name, value): &(String, String)| {
        let value = course.mask(value);
        serde_json::json!({ "name": course.mask(name), "value": value })
    };
    variables.iter().map(variable).collect()
}

fn scope_name(scope: RetryScope) -> &'static str {
    match scope {
        RetryScope::Build => "build",
        RetryScope::Phase => "phase",
    }
}

/// A time as RFC 3339 has it, with microseconds.
fn time(since_1970: Duration) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let time = OffsetDateTime::UNIX_EPOCH + since_1970;
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts (or base64) of the lines for output in these pieces.
    fn outputs(pieces: &[&[u8]]) -> Vec<String> {
        let course = Course::new(Spot::default(), &[]);
        let mut json = Json::default();
        let mut lines = String::new();
        for it in pieces {
            json.output(it, &course, &mut |line| lines += line);
        }
        lines += &json.flush(&course);
        let text = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            ["text", "base64"].into_iter().find_map(|it| line[it].as_str().map(str::to_owned))
        };
        lines.lines().map(|it| text(it).unwrap()).collect()
    }

    #[test]
    fn a_character_that_comes_in_two_pieces_is_a_character() {
        let all = "grüße 🦀!".as_bytes();
        for cut in 0..=all.len() {
            let pieces = [&all[..cut], &all[cut..]];
            assert_eq!(outputs(&pieces).concat(), "grüße 🦀!", "cut at {cut}");
        }
        let single: Vec<_> = all.chunks(1).collect();
        assert_eq!(outputs(&single).concat(), "grüße 🦀!");
    }

    #[test]
    fn no_event_has_more_output_than_programs_expect() {
        let text = "ü".repeat(LONGEST) + "x";
        let texts = outputs(&[b"x", text.as_bytes()]);
        assert_eq!(texts.concat(), format!("x{text}"));
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|it| it.len() <= LONGEST));
        let bytes = outputs(&[&vec![0xff; 100_000]]);
        assert_eq!(bytes.len(), 2);
    }

    #[test]
    fn what_is_not_utf_8_is_base64() {
        for (pieces, want) in [
            (&[&b"a\xffb"[..], b"c"][..], &["Yf9i", "c"][..]),
            // What is held back is given at the end, and with what does not go on with it.
            (&[b"a\xf0\x9f"], &["a", "8J8="]),
            (&[b"a\xf0\x9f", b"b"], &["a", "8J9i"]),
            (&[b"", b"\0\x1b\r\n"], &["\0\u{1b}\r\n"]),
        ] {
            assert_eq!(outputs(pieces), want, "{pieces:?}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        let moment = Duration::from_micros(1_705_313_472_000_001);
        assert_eq!(time(moment), "2024-01-15T10:11:12.000001Z");
    }
}
