//! What the runner of GitHub Actions takes for a command, and what it does not.
//!
//! The runner looks at each line of both streams of a step; a line ends at a line feed or a
//! carriage return. A line that begins with `::`, after white space, or has `##[` *anywhere* may be
//! a command (actions/runner, `ActionCommand`). After `::stop-commands::TOKEN` none is, until
//! `::TOKEN::` comes on a line of its own. So all that is not ours is written between these two,
//! with a token that nobody can guess.
//!
//! **Architecture invariant:** pure: tokens come from the caller.

use std::{borrow::Cow, path::PathBuf};

use crate::{console::visible, failure::Spot};

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::console) enum Piece {
    /// Lines that may hold anything.
    Quoted(String),
    /// Our own words.
    Said(String),
    /// The beginning of a group.
    Group(String),
    /// Its end.
    EndGroup,
    /// A value that the log must not show.
    Mask(String),
    /// Something that is shown at a place in the source.
    Annotation(Annotation),
}

/// Something that is shown at a place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::console) struct Annotation {
    pub(in crate::console) level: Level,
    pub(in crate::console) spot: Option<Spot>,
    pub(in crate::console) title: String,
    pub(in crate::console) text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::console) enum Level {
    Error,
    Warning,
}

/// Writes lines for the runner.
#[derive(Debug)]
pub(in crate::console) struct Lines {
    /// The folder that the runner's paths are relative to.
    workspace: Option<PathBuf>,
    tokens: fn() -> String,
    /// What makes the runner take commands again, if it takes none now.
    token: Option<String>,
    is_in_line: bool,
}

impl Lines {
    pub(in crate::console) fn new(workspace: Option<PathBuf>, tokens: fn() -> String) -> Self {
        Self { workspace, tokens, token: None, is_in_line: false }
    }

    /// Writes a piece.
    pub(in crate::console) fn put(&mut self, piece: &Piece, out: &mut dyn FnMut(&[u8])) {
        let line = match piece {
            Piece::Quoted(text) if text.is_empty() => return,
            Piece::Quoted(text) => {
                let end = if std::mem::take(&mut self.is_in_line) { "\n" } else { "" };
                return self.quote((end.to_owned() + text).as_bytes(), out);
            }
            Piece::Said(text) => text.clone(),
            Piece::Group(name) => format!("::group::{}\n", data(name)),
            Piece::EndGroup => "::endgroup::\n".to_owned(),
            Piece::Mask(value) => format!("::add-mask::{}\n", escaped(value)),
            Piece::Annotation(annotation) => self.annotation(annotation),
        };
        self.resume(out);
        out(line.as_bytes());
    }

    /// Writes what may hold anything.
    pub(in crate::console) fn quote(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        let Some(last) = bytes.last() else { return };
        if self.token.is_none() {
            let token = (self.tokens)();
            out(format!("::stop-commands::{token}\n").as_bytes());
            self.token = Some(token);
        }
        out(bytes);
        self.is_in_line = *last != b'\n';
    }

    /// Makes the runner take commands again.
    pub(in crate::console) fn resume(&mut self, out: &mut dyn FnMut(&[u8])) {
        let Some(token) = self.token.take() else { return };
        let end = if std::mem::take(&mut self.is_in_line) { "\n" } else { "" };
        out(format!("{end}::{token}::\n").as_bytes());
    }

    fn annotation(&self, annotation: &Annotation) -> String {
        let Annotation { level, spot, title, text } = annotation;
        let level = match level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let (file, line, column) = match spot {
            None => (String::new(), 0, 0),
            Some(spot) => (self.file(spot), spot.line, spot.column),
        };
        let number = |it: usize| if it == 0 { String::new() } else { it.to_string() };
        let properties = [
            ("file", file),
            ("line", number(line)),
            ("col", number(column)),
            ("title", title.clone()),
        ];
        let given = properties.iter().filter(|(_, value)| !value.is_empty());
        let given: Vec<_> =
            given.map(|(name, value)| format!("{name}={}", property(value))).collect();
        let space = if given.is_empty() { "" } else { " " };
        format!("::{level}{space}{}::{}\n", given.join(","), data(text))
    }

    /// The path as the runner has it: from the top of the workspace, if the file lies in it.
    fn file(&self, spot: &Spot) -> String {
        let inside = self.workspace.as_ref().and_then(|it| spot.path.strip_prefix(it).ok());
        inside.map_or_else(|| spot.file.clone(), |it| it.display().to_string())
    }
}

/// A text in which the runner finds no command, for lines that are not written by [`Lines`].
pub(in crate::console) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains("::") && !text.contains("##[") {
        return Cow::Borrowed(text);
    }
    let lines = text.split('\n').map(|line| {
        let is_margin = |it: char| it.is_whitespace() || it == '\u{feff}';
        let start = line.trim_start_matches(is_margin);
        let margin = &line[..line.len() - start.len()];
        let line = match start.strip_prefix("::") {
            Some(rest) => format!("{margin}: :{rest}"),
            None => line.to_owned(),
        };
        line.replace("##[", "# #[")
    });
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

/// What comes after the second `::`: without what would change a terminal, but for line ends.
fn data(text: &str) -> String {
    escaped(&visible(text))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::host;

    fn written(pieces: &[Piece]) -> String {
        let mut lines = Lines::new(Some("/code".into()), || "T".to_owned());
        let mut text = Vec::new();
        let mut out = |bytes: &[u8]| text.extend_from_slice(bytes);
        for piece in pieces {
            lines.put(piece, &mut out);
        }
        lines.resume(&mut out);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_not_ours_is_between_a_stop_and_its_token() {
        let quoted = |text: &str| Piece::Quoted(text.to_owned());
        let pieces = [
            Piece::Group("BUILD".into()),
            quoted("$ make\n"),
            quoted(""),
            quoted("::endgroup::\nno line end"),
            quoted("another line"),
            Piece::EndGroup,
            Piece::Said("done\n".into()),
            quoted("late\r"),
        ];
        expect![[r#"
            ::group::BUILD
            ::stop-commands::T
            $ make
            ::endgroup::
            no line end
            another line
            ::T::
            ::endgroup::
            done
            ::stop-commands::T
            late
            ::T::
        "#]]
        .assert_eq(&written(&pieces).replace('\r', ""));
    }

    #[test]
    fn what_is_in_commands_is_escaped() {
        let annotation = |file: &str, line, text: &str| {
            let path = PathBuf::from("/code").join(file);
            let spot = Some(Spot { file: "shown".into(), path, line, column: line });
            let (level, title, text) = (Level::Error, "a,b: c".into(), text.to_owned());
            Piece::Annotation(Annotation { level, spot, title, text })
        };
        let pieces = [
            annotation("ci/a.yml", 3, "exit status 2: make\n::warning::x 100%\u{1b}[2J"),
            annotation("a,line=9::b\n", 0, "x"),
            annotation("/elsewhere/a.yml", 1, "x"),
            Piece::Mask("a%0A\r\nb".into()),
        ];
        expect![[r#"
            ::error file=ci/a.yml,line=3,col=3,title=a%2Cb%3A c::exit status 2: make%0A::warning::x 100%25\u{1b}[2J
            ::error file=a%2Cline=9%3A%3Ab%0A,title=a%2Cb%3A c::x
            ::error file=shown,line=1,col=1,title=a%2Cb%3A c::x
            ::add-mask::a%250A%0D%0Ab
        "#]]
        .assert_eq(&written(&pieces));
    }

    #[test]
    fn a_line_that_is_quoted_is_no_command() {
        for (text, want) in [
            ("a::b", "a::b"),
            ("::set-output name=a::b", ": :set-output name=a::b"),
            ("a\n \u{a0}\u{feff}::x::\n", "a\n \u{a0}\u{feff}: :x::\n"),
            ("1 | echo ##[error]x", "1 | echo # #[error]x"),
            ("####[error]", "### #[error]"),
        ] {
            assert_eq!(harmless(text), want);
        }
    }

    #[test]
    fn tokens_differ() {
        let tokens: std::collections::HashSet<_> = (0..100).map(|_| host::random_word()).collect();
        assert_eq!(tokens.len(), 100);
        assert!(tokens.iter().all(|it| it.len() == 32), "{tokens:?}");
    }
}
