//! Words for people, on standard error; data, and nothing else, on standard output.
//!
//! **Architecture invariant:** nothing reaches standard error but through [`say`], which takes out
//! what nobody must see ([`hide`]), what would change the terminal, and, on GitHub Actions, what
//! the runner would take for commands.

use std::{
    borrow::Cow,
    io::{self, Write},
    process::ExitCode,
    sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use indicatif::MultiProgress;
use rbuild_agent::{phase::State, secret::Redactor};

use crate::{
    args::{Run, docker},
    failure::{Failure, Kind, Spot},
    host,
};

pub(crate) mod bar;
pub(crate) mod builds;
pub(crate) mod course;
pub(crate) mod excerpt;
mod github;
pub(crate) mod images;
pub(crate) mod json;
mod plain;
mod progress;
pub(crate) mod prompt;
pub(crate) mod size;

use builds::Mode;
use github::lines::{self, Annotation, Level, Lines, Piece};

/// How this process tells of what is or may be wrong.
struct Voice {
    manner: Manner,
    redactor: Redactor,
    /// When the build began, since 1970.
    started: Duration,
    /// How its stages ended: as the last one that did not succeed.
    state: State,
}

/// For whom it is told, besides people.
enum Manner {
    Words,
    Json,
    Github(Lines),
}

fn voice() -> MutexGuard<'static, Voice> {
    static VOICE: LazyLock<Mutex<Voice>> = LazyLock::new(|| {
        let (redactor, started) = (Redactor::default(), Duration::ZERO);
        Mutex::new(Voice { manner: Manner::Words, redactor, started, state: State::Succeeded })
    });
    VOICE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to show a build. From here on, what is wrong is told as the build is.
pub(crate) fn begin(args: &Run) {
    let mut voice = voice();
    voice.started = host::now();
    voice.manner = match Mode::of(args) {
        Mode::Json => {
            write_out(json::build(voice.started).as_bytes());
            Manner::Json
        }
        Mode::Github => Manner::Github(Lines::new(host::github_workspace(), host::random_word)),
        Mode::Codebuild | Mode::Progress | Mode::Plain => Manner::Words,
    };
}

/// From here on, nothing on standard error shows what `redactor` knows.
pub(crate) fn hide(redactor: &Redactor) {
    voice().redactor = redactor.clone();
}

/// A whole text without what nobody must see.
fn mask(text: &str) -> String {
    voice().redactor.mask(text).into_owned()
}

/// Tells what came of a command, and gives the exit status for it.
pub(crate) fn conclude(ended: &Result<(), Failure>) -> ExitCode {
    let kind = ended.as_ref().err().map(|failure| {
        print_error(failure);
        failure.kind
    });
    let voice = voice();
    if let Manner::Json = voice.manner {
        let now = host::now();
        let time = now.saturating_sub(voice.started);
        write_out(json::result(kind, voice.state, now, time).as_bytes());
    }
    kind.map_or(ExitCode::SUCCESS, ExitCode::from)
}

/// Remembers how a stage ended that did not succeed.
fn note_state(state: State) {
    voice().state = state;
}

/// Does something with the lines of GitHub Actions, if there are such.
fn with_lines(act: impl FnOnce(&mut Lines)) {
    if let Manner::Github(lines) = &mut voice().manner {
        act(lines);
    }
}

/// Writes to standard output what is not worth an error if it is lost.
fn write_out(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Everything that is drawn on the terminal, so that lines can be printed above it.
fn drawn() -> &'static MultiProgress {
    static DRAWN: OnceLock<MultiProgress> = OnceLock::new();
    DRAWN.get_or_init(MultiProgress::new)
}

/// Prints data for programs. A reader that has seen enough is no failure.
pub(crate) fn print_data(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Outside, "standard output could not be written").because(err))
        }
        _ => Ok(()),
    }
}

/// Prints a line of data for programs.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print_data(format!("{line}\n"))
}

/// Shows what went wrong, unless that was done.
pub(crate) fn print_error(failure: &Failure) {
    if failure.is_told() {
        return;
    }
    let told = match &mut *voice() {
        Voice { manner: Manner::Json, redactor, .. } => {
            write_out(json::error(failure, host::now(), redactor).as_bytes());
            failure.to_string()
        }
        // A stage that failed has its annotation already.
        Voice { manner: Manner::Github(lines), redactor, state: State::Succeeded, .. }
            if matches!(failure.kind, Kind::Input | Kind::Outside) =>
        {
            let causes = failure.causes().into_iter().map(|it| format!(": {it}"));
            let hint = failure.hinted().map(|it| format!("\nhint: {it}")).unwrap_or_default();
            let text = failure.message().to_owned() + &causes.collect::<String>() + &hint;
            annotate(lines, redactor, Level::Error, (&text, failure.spot()));
            failure.to_string()
        }
        _ => failure.to_string(),
    };
    say(&told);
}

/// Shows something that is not wrong, but may be.
pub(crate) fn warn(text: &str) {
    warn_of(text, None);
}

/// Shows something that may be wrong at a place in a file.
pub(crate) fn warn_at(spot: &Spot, text: &str) {
    warn_of(text, Some(spot));
}

fn warn_of(text: &str, spot: Option<&Spot>) {
    match &mut *voice() {
        Voice { manner: Manner::Words, .. } => {}
        Voice { manner: Manner::Json, redactor, .. } => {
            write_out(json::warning(text, spot, host::now(), redactor).as_bytes());
        }
        Voice { manner: Manner::Github(lines), redactor, .. } => {
            // The runner shows it in the log, too.
            return annotate(lines, redactor, Level::Warning, (text, spot));
        }
    }
    match spot {
        Some(Spot { file, line, column, .. }) if 0 < *line => {
            say(&format!("warning: {file}:{line}:{column}: {text}"));
        }
        _ => say(&format!("warning: {text}")),
    }
}

fn annotate(
    lines: &mut Lines,
    redactor: &Redactor,
    level: Level,
    (text, spot): (&str, Option<&Spot>),
) {
    let (text, spot) = (redactor.mask(text).into_owned(), spot.cloned());
    let annotation = Annotation { level, spot, title: String::new(), text };
    lines.put(&Piece::Annotation(annotation), &mut write_out);
}

/// Shows a line for people, above what is drawn.
pub(crate) fn say(line: &str) {
    let line = {
        let voice = voice();
        let line = visible(&voice.redactor.mask(line)).into_owned();
        match voice.manner {
            Manner::Github(_) => lines::harmless(&line).into_owned(),
            Manner::Words | Manner::Json => line,
        }
    };
    // There is nobody to tell if standard error is gone; the exit status still says it.
    drawn().suspend(|| {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// A text without what would change the terminal: it may quote files, images and registries.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_bad = |it: char| it.is_control() && it != '\n' && it != '\t';
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for it in text.chars() {
        match is_bad(it) {
            true => clean.extend(it.escape_unicode()),
            false => clean.push(it),
        }
    }
    Cow::Owned(clean)
}

/// Takes away all that is drawn.
pub(crate) fn clear() {
    let _ = drawn().clear();
}

/// Rows as lines, with columns as wide as they have to be. Cells may quote images: none of them
/// changes the terminal, or is more than a line.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let cell = |it: &String| visible(it).replace(['\n', '\t'], " ");
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(cell)).collect();
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|it| width(it).unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// What is wrong with the arguments, or the help that was asked for.
pub(crate) fn print_usage(err: &clap::Error) -> ExitCode {
    if let Some(it) = absent(err) {
        print_error(&Failure::new(Kind::Input, it.0).hint(it.1));
        return Kind::Input.into();
    }
    // There is nobody to tell if the terminal is gone.
    let _ = err.print();
    match err.use_stderr() {
        true => Kind::Input.into(),
        false => ExitCode::SUCCESS,
    }
}

/// What is said of a flag of docker's that there is not.
fn absent(err: &clap::Error) -> Option<(String, &'static str)> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let Some(ContextValue::String(flag)) = err.get(ContextKind::InvalidArg) else { return None };
    let Some(ContextValue::StyledStr(usage)) = err.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let words = usage.trim_start_matches("Usage: ").split(' ').skip(1);
    let command: Vec<&str> =
        words.take_while(|it| it.starts_with(|it: char| it.is_ascii_lowercase())).collect();
    let it = docker::absent(&command.join(" "), flag)?;
    (err.kind() == ErrorKind::UnknownArgument)
        .then(|| (format!("`{flag}` is not supported: {}", it.message), it.hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_cannot_change_the_terminal() {
        for (text, want) in [
            ("two\n\tlines, grüße", "two\n\tlines, grüße"),
            ("a \u{1b}[2Jb", "a \\u{1b}[2Jb"),
            ("\r\u{7}\u{9b}1m\u{7f}\0", "\\u{d}\\u{7}\\u{9b}1m\\u{7f}\\u{0}"),
        ] {
            assert_eq!(visible(text), want);
        }
    }

    #[test]
    fn a_cell_of_a_table_cannot_change_the_terminal_or_the_table() {
        let row = |a: &str, b: &str| [a, b].map(str::to_owned);
        let rows = [row("NAME", "PLATFORM"), row("x", "a\nb\t\u{1b}[31m"), row("yy:1", "c")];
        assert_eq!(table(&rows), "NAME  PLATFORM\nx     a b \\u{1b}[31m\nyy:1  c\n");
    }
}
