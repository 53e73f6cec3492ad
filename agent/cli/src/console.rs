//! Words for people, on standard error; data, and nothing else, on standard output.

use std::{
    borrow::Cow,
    io::{self, Write},
    process::ExitCode,
    sync::OnceLock,
};

use indicatif::MultiProgress;

use crate::failure::{Failure, Kind};

pub(crate) mod builds;
pub(crate) mod excerpt;
pub(crate) mod images;
pub(crate) mod size;

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
    if !failure.is_told() {
        say(&failure.to_string());
    }
}

/// Shows something that is not wrong, but may be.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Shows a line for people, above what is drawn.
pub(crate) fn say(line: &str) {
    let line = visible(line);
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

/// Rows as lines, with columns as wide as they have to be.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
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
    // There is nobody to tell if the terminal is gone.
    let _ = err.print();
    match err.use_stderr() {
        true => Kind::Input.into(),
        false => ExitCode::SUCCESS,
    }
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
}
