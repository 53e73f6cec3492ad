//! The lines of a Dockerfile as its author means them: comments gone, continuations joined, and
//! every byte still knowing where it was.

use super::{
    Place,
    error::{DockerfileError, ErrorKind},
};

/// How large a Dockerfile may be.
const MAX_BYTES: usize = 16 << 20;
/// How long one of its lines may be.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The text of a Dockerfile, without the byte order mark that some editors write.
pub(super) fn text(bytes: &[u8]) -> Result<&str, DockerfileError> {
    if bytes.len() > MAX_BYTES {
        let kind = ErrorKind::TooLarge { found: bytes.len(), limit: MAX_BYTES };
        return Err(kind.at(Place::START));
    }
    let (valid, error) = match str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(err) => {
            let (valid, _) = bytes.split_at(err.valid_up_to());
            let valid = str::from_utf8(valid).unwrap_or_default();
            (valid, Some((valid.len(), ErrorKind::NotUtf8)))
        }
    };
    let text = valid.strip_prefix('\u{feff}').unwrap_or(valid);
    if let Some(at) = text.find('\0') {
        return Err(ErrorKind::NulByte.at(place_of(text, at)));
    }
    if let Some((_, kind)) = error {
        return Err(kind.at(place_of(text, text.len())));
    }
    match text.split('\n').position(|it| it.len() > MAX_LINE_BYTES) {
        Some(index) => {
            let kind = ErrorKind::LineTooLong { limit: MAX_LINE_BYTES };
            Err(kind.at(Place { line: index + 1, column: 1 }))
        }
        None => Ok(text),
    }
}

fn place_of(text: &str, at: usize) -> Place {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |it| it + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// One physical line.
#[derive(Clone, Copy)]
pub(super) struct Physical<'a> {
    /// Its text, without the line end.
    pub(super) text: &'a str,
    /// Its text with the line end.
    pub(super) whole: &'a str,
    /// Its number, from 1.
    pub(super) number: usize,
}

impl Physical<'_> {
    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_empty(&self) -> bool {
        self.text.trim_start().is_empty()
    }
}

/// Reads lines one after another.
pub(super) struct Lines<'a> {
    rest: &'a str,
    escape: char,
    /// The number of the physical line that was read last.
    pub(super) number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, escape: char) -> Self {
        Self { rest: text, escape, number: 0 }
    }

    /// The next physical line.
    pub(super) fn physical(&mut self) -> Option<Physical<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |it| it + 1);
        let (whole, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        Some(Physical { text: whole.trim_end_matches(['\r', '\n']), whole, number: self.number })
    }

    /// The next line that says something, with its continuations.
    pub(super) fn logical(&mut self) -> Option<Line> {
        loop {
            let first = self.physical()?;
            if first.is_comment() || first.is_empty() {
                continue;
            }
            let line = self.join(first);
            if !line.text.trim().is_empty() {
                return Some(line.with_counts());
            }
        }
    }

    fn join(&mut self, first: Physical<'a>) -> Line {
        let mut line = Line::default();
        let indent = first.text.len() - first.text.trim_start().len();
        let mut goes_on = line.add(first, indent, self.escape);
        while goes_on {
            let Some(next) = self.physical() else { break };
            if next.is_comment() {
                continue;
            }
            if next.is_empty() {
                line.gap.get_or_insert(Place { line: next.number, column: 1 });
                continue;
            }
            goes_on = line.add(next, 0, self.escape);
        }
        line
    }

    /// The lines up to one that is just `name`; `None` if there is none.
    pub(super) fn heredoc(&mut self, name: &str, strips_tabs: bool) -> Option<&'a str> {
        let start = self.rest;
        let mut length = 0;
        loop {
            let line = self.physical()?;
            let text = if strips_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if text == name {
                return Some(&start[..length]);
            }
            length += line.whole.len();
        }
    }
}

/// The head of a line that is continued on the next one.
fn continued(text: &str, escape: char) -> Option<&str> {
    let head = text.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!head.ends_with(escape)).then_some(head)
}

/// How many bytes apart characters are counted, so that a place costs no walk over a long line.
const COUNTED: usize = 64;

/// A line with its continuations.
#[derive(Default)]
pub(super) struct Line {
    text: String,
    pieces: Vec<Piece>,
    /// The number of characters that begin before each multiple of [`COUNTED`].
    counts: Vec<usize>,
    /// The first empty line among the continuations.
    pub(super) gap: Option<Place>,
}

/// What one physical line gave.
struct Piece {
    /// Where it begins in the joined text.
    at: usize,
    /// Where that is in the file.
    place: Place,
}

impl Line {
    /// Adds a physical line without its first `indent` bytes; tells whether it is continued.
    fn add(&mut self, line: Physical<'_>, indent: usize, escape: char) -> bool {
        let (skipped, text) = line.text.split_at(indent);
        let column = skipped.chars().count() + 1;
        let place = Place { line: line.number, column };
        self.pieces.push(Piece { at: self.text.len(), place });
        let head = continued(text, escape);
        self.text.push_str(head.unwrap_or(text));
        head.is_some()
    }

    fn with_counts(mut self) -> Self {
        let mut count = 0;
        for chunk in self.text.as_bytes().chunks(COUNTED) {
            self.counts.push(count);
            count += count_chars(chunk);
        }
        self
    }

    /// The whole line, without white space at its ends.
    pub(super) fn whole(&self) -> Part<'_> {
        Part { line: self, at: 0, text: &self.text }.trim()
    }

    fn place(&self, at: usize) -> Place {
        let index = self.pieces.partition_point(|it| it.at <= at).saturating_sub(1);
        let Some(piece) = self.pieces.get(index) else { return Place::START };
        let before = self.chars_before(at) - self.chars_before(piece.at);
        Place { line: piece.place.line, column: piece.place.column + before }
    }

    fn chars_before(&self, at: usize) -> usize {
        let index = (at / COUNTED).min(self.counts.len().saturating_sub(1));
        let counted = self.counts.get(index).copied().unwrap_or(0);
        counted + count_chars(&self.text.as_bytes()[index * COUNTED..at])
    }
}

/// The number of characters that begin in `bytes`.
fn count_chars(bytes: &[u8]) -> usize {
    bytes.iter().filter(|it| (**it & 0xC0) != 0x80).count()
}

/// A part of a line.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    line: &'a Line,
    at: usize,
    /// Its text.
    pub(super) text: &'a str,
}

impl<'a> Part<'a> {
    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        self.line.place(self.at)
    }

    /// The place of one of its bytes.
    pub(super) fn place_at(&self, at: usize) -> Place {
        self.line.place(self.at + at.min(self.text.len()))
    }

    /// From one of its bytes to another.
    pub(super) fn slice(&self, from: usize, to: usize) -> Self {
        Self { line: self.line, at: self.at + from, text: &self.text[from..to] }
    }

    /// From one of its bytes to the end.
    pub(super) fn after(&self, from: usize) -> Self {
        self.slice(from, self.text.len())
    }

    /// Without white space at its ends.
    pub(super) fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start, start + self.text.trim().len())
    }

    /// Up to the first byte for which `is_end` holds, and from there.
    pub(super) fn split_at(&self, is_end: fn(char) -> bool) -> (Self, Self) {
        let end = self.text.find(is_end).unwrap_or(self.text.len());
        (self.slice(0, end), self.after(end))
    }

    /// The parts between separators.
    pub(super) fn words(&self) -> Vec<Part<'a>> {
        let mut words = Vec::new();
        let mut rest = self.trim();
        while !rest.text.is_empty() {
            let (word, after) = rest.split_at(is_separator);
            if !word.text.is_empty() {
                words.push(word);
            }
            let next = after.text.find(|it| !is_separator(it)).unwrap_or(after.text.len());
            rest = after.after(next);
        }
        words
    }
}

/// The white space that stands between arguments; rarer kinds are parts of words.
pub(super) fn is_separator(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let mut lines = Lines::new(text, '\\');
        std::iter::from_fn(|| lines.logical()).map(|it| it.text).collect()
    }

    #[test]
    fn continuations_are_joined() {
        for (text, want) in [
            ("a\nb", &["a", "b"][..]),
            ("a \\\n  b", &["a   b"]),
            ("a\\\nb", &["ab"]),
            ("a \\ \t\n b", &["a  b"]),
            ("a \\\\\nb", &["a \\\\", "b"]),
            ("a \\\n# no\n  # no\n b", &["a  b"]),
            ("a \\\n\n \n b", &["a  b"]),
            ("a \\\n", &["a "]),
            ("\\\na", &["a"]),
            ("\\\n", &[]),
            ("  a  \n\n\t# c\nb", &["a  ", "b"]),
            ("a \\\r\n b\r\nc\r\n", &["a  b", "c"]),
            ("a # b", &["a # b"]),
            ("a \\\n b # c \\\n d", &["a  b # c  d"]),
        ] {
            assert_eq!(lines(text), want, "for {text:?}");
        }
    }

    #[test]
    fn every_byte_knows_its_place() {
        let text = "# x\n  é a \\\n# y\n\n  öb \\\n c";
        let mut lines = Lines::new(text, '\\');
        let line = lines.logical().unwrap();
        let place = |part: &str| {
            let Place { line, column } = line.place(line.text.find(part).unwrap());
            (line, column)
        };
        assert_eq!(place("é"), (2, 3));
        assert_eq!(place("a"), (2, 5));
        assert_eq!(place("ö"), (5, 3));
        assert_eq!(place("b"), (5, 4));
        assert_eq!(place("c"), (6, 2));
        assert_eq!(line.gap, Some(Place { line: 4, column: 1 }));
    }

    #[test]
    fn places_far_out_are_right() {
        let text = "é".repeat(1000) + "x";
        let line = Lines::new(&text, '\\').logical().unwrap();
        assert_eq!(line.place(2000), Place { line: 1, column: 1001 });
        assert_eq!(line.place(2001), Place { line: 1, column: 1002 });
        assert_eq!(line.place(126), Place { line: 1, column: 64 });
    }

    #[test]
    fn heredocs_end_at_their_name() {
        let mut lines = Lines::new("a\n\tEOF\nEOF\nb\n", '\\');
        assert_eq!(lines.heredoc("EOF", false), Some("a\n\tEOF\n"));
        assert_eq!(lines.logical().unwrap().text, "b");
        assert_eq!(Lines::new("a\n\tEOF\r\n", '\\').heredoc("EOF", true), Some("a\n"));
        assert_eq!(Lines::new("a\n EOF\n", '\\').heredoc("EOF", true), None);
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        for (bytes, want) in [
            (&b"FROM x\n\nab\xffc"[..], "3:3 the file is not UTF-8"),
            (b"\xef\xbb\xbfab\0", "1:3 the file has a NUL byte"),
            (b"\0\xff", "1:1 the file has a NUL byte"),
            (b"\xff\0", "1:1 the file is not UTF-8"),
        ] {
            let DockerfileError { kind, place } = text(bytes).unwrap_err();
            assert_eq!(format!("{}:{} {kind}", place.line, place.column), want);
        }
        let long = [b"a\n".to_vec(), vec![b'x'; (1 << 20) + 1]].concat();
        assert_eq!(text(&long).unwrap_err().place, Place { line: 2, column: 1 });
        assert!(text(&vec![b'\n'; (16 << 20) + 1]).is_err());
        assert!(text(&vec![b'\n'; 16 << 20]).is_ok());
    }
}
