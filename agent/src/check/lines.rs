//! The lines of a file, and where the characters of its values are in it.
//!
//! **Architecture invariant:** a place that cannot be known is not guessed: the value's own is used.

use std::{iter::Peekable, str::Chars, sync::LazyLock};

use regex::Regex;

use crate::source::Place;

/// The lines of a file.
#[derive(Debug)]
pub(super) struct Lines<'t>(Vec<&'t str>);

impl<'t> Lines<'t> {
    /// The lines of a file, without its byte order mark; none if it is not text.
    pub(super) fn of(bytes: &'t [u8]) -> Self {
        let text = str::from_utf8(bytes).unwrap_or_default();
        Self(text.strip_prefix('\u{FEFF}').unwrap_or(text).lines().collect())
    }

    pub(super) fn all(&self) -> &[&'t str] {
        &self.0
    }

    /// The line with that number; nothing if there is none.
    pub(super) fn line(&self, number: usize) -> &'t str {
        number.checked_sub(1).and_then(|it| self.0.get(it)).copied().unwrap_or_default()
    }

    /// The rest of the line from `place` on.
    pub(super) fn rest(&self, place: Place) -> &'t str {
        let line = self.line(place.line);
        let start = line.char_indices().nth(place.column.saturating_sub(1));
        start.map_or("", |(offset, _)| &line[offset..])
    }

    /// Whether the first line of a block, `|` or `>`, starts at `place`.
    pub(super) fn is_block(&self, place: Place) -> bool {
        static HEAD: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"(?:^|\s)?[-:?]\s+(?:[&!]\S*\s+)*[|>][-+0-9]*(?:\s+#.*|\s*)$")
                .expect("a pattern that compiles")
        });
        if self.line(place.line).chars().take(place.column - 1).any(|it| it != ' ') {
            return false;
        }
        let mut above = self.0.iter().take(place.line - 1).rev();
        above.find(|it| !it.trim().is_empty()).is_some_and(|it| HEAD.is_match(it))
    }

    /// Whether a value that is neither quoted nor a block starts at `place`.
    pub(super) fn is_plain(&self, place: Place) -> bool {
        !self.is_block(place) && !self.rest(place).starts_with(['\'', '"', '|', '>', '&', '!', '*'])
    }

    /// The place of each character of `value`, which is written at `start` in any of the ways of
    /// YAML; none if it is not there, but behind an alias.
    ///
    /// YAML changes only white space and what a quotation escapes: all else is there in its order.
    pub(super) fn places(&self, start: Place, value: &str) -> Option<Vec<Place>> {
        let mut cursor = Cursor::new(self, start);
        cursor.properties();
        let quote = match self.is_block(start) {
            true => Quote::Not,
            false => cursor.quote(),
        };
        let mut places = Vec::with_capacity(value.len());
        for wanted in value.chars() {
            if wanted.is_whitespace() {
                places.push(cursor.blank(wanted));
                continue;
            }
            let (place, found) = cursor.next_char(quote)?;
            (found == wanted).then_some(())?;
            places.push(place);
        }
        Some(places)
    }
}

/// A way through the characters of a file.
struct Cursor<'l, 't> {
    lines: &'l Lines<'t>,
    place: Place,
    rest: Peekable<Chars<'t>>,
}

/// How a scalar is quoted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Not,
    Single,
    Double,
}

impl<'l, 't> Cursor<'l, 't> {
    fn new(lines: &'l Lines<'t>, place: Place) -> Self {
        Self { lines, place, rest: lines.rest(place).chars().peekable() }
    }

    /// Passes a character. Lines end here with a line feed.
    fn step(&mut self) -> Option<char> {
        if let Some(it) = self.rest.next() {
            self.place.column += 1;
            return Some(it);
        }
        if self.place.line >= self.lines.0.len() {
            return None;
        }
        self.place = Place { line: self.place.line + 1, column: 1 };
        self.rest = self.lines.line(self.place.line).chars().peekable();
        Some('\n')
    }

    fn peek(&mut self) -> Option<char> {
        match self.rest.peek() {
            Some(it) => Some(*it),
            None => (self.place.line < self.lines.0.len()).then_some('\n'),
        }
    }

    /// Passes white space.
    fn white(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.step();
        }
    }

    /// Passes a white space of the same kind, if there is one.
    fn blank(&mut self, wanted: char) -> Place {
        let place = self.place;
        let next = self.peek().filter(|it| it.is_whitespace());
        if next.is_some_and(|it| (it == '\n') == (wanted == '\n')) {
            self.step();
        }
        place
    }

    /// Passes anchor, tag, and the head of a block.
    fn properties(&mut self) {
        while matches!(self.peek(), Some('&' | '!')) {
            while self.peek().is_some_and(|it| !it.is_whitespace()) {
                self.step();
            }
            self.white();
        }
        if matches!(self.peek(), Some('|' | '>')) {
            while self.peek().is_some_and(|it| it != '\n') {
                self.step();
            }
        }
    }

    fn quote(&mut self) -> Quote {
        let quote = match self.peek() {
            Some('\'') => Quote::Single,
            Some('"') => Quote::Double,
            _ => return Quote::Not,
        };
        self.step();
        quote
    }

    /// The next character that is no white space, and where what it is written with starts.
    fn next_char(&mut self, quote: Quote) -> Option<(Place, char)> {
        loop {
            self.white();
            let place = self.place;
            let found = match (self.step()?, quote) {
                ('\'', Quote::Single) => (self.step()? == '\'').then_some('\'')?,
                ('\\', Quote::Double) => self.escaped()?,
                (it, _) => it,
            };
            if !found.is_whitespace() {
                return Some((place, found));
            }
        }
    }

    /// What an escape stands for.
    fn escaped(&mut self) -> Option<char> {
        let digits = match self.step()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            // All of these are white space, and it does not matter which.
            'n' | 't' | 'r' | 'N' | '_' | 'L' | 'P' | 'v' | 'f' => return Some(' '),
            '0' => return Some('\0'),
            'a' => return Some('\u{7}'),
            'b' => return Some('\u{8}'),
            'e' => return Some('\u{1b}'),
            it => return Some(it),
        };
        let mut code = 0_u32;
        for _ in 0..digits {
            code = code.checked_mul(16)?.checked_add(self.step()?.to_digit(16)?)?;
        }
        char::from_u32(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{self, Value};

    /// Finds each `X` of the value of `a`, and compares with those of the file.
    #[track_caller]
    fn check(text: &str, want: &[(usize, usize)]) {
        let tree = yaml::parse(text.as_bytes()).unwrap();
        let Value::Map(entries) = tree.value else { panic!("no mapping: {text}") };
        let node = &entries.iter().find(|it| it.key == "a").unwrap().node;
        let Value::Text(value) = &node.value else { panic!("no text: {text}") };
        let lines = Lines::of(text.as_bytes());
        let places = lines.places(node.place, value).expect("places");
        let marks = value.chars().zip(places).filter(|(it, _)| *it == 'X');
        let found: Vec<_> = marks.map(|(_, place)| (place.line, place.column)).collect();
        assert_eq!(found, want, "for {text:?}");
    }

    #[test]
    fn every_way_to_write_a_value_is_followed() {
        for (text, want) in [
            ("a: X", &[(1, 4)][..]),
            ("a: é X X # X", &[(1, 6), (1, 8)]),
            ("a: b\n  X\n\n  cX", &[(2, 3), (4, 4)]),
            ("a: 'it''s X'", &[(1, 11)]),
            ("a: 'it\n  X'", &[(2, 3)]),
            ("a: \"\\\"\\t X\\u0058\\\n   X\"", &[(1, 10), (1, 11), (2, 4)]),
            ("a: \"\\n\\n\\x41X\"", &[(1, 13)]),
            ("a: |\n  X\n    X\n\n  X\n", &[(2, 3), (3, 5), (5, 3)]),
            ("a: |2-\n\n    X\n", &[(3, 5)]),
            ("a: >\n  b\n  X\n\n  X\n", &[(3, 3), (5, 3)]),
            ("a: &x !!str X", &[(1, 13)]),
            ("a: &x |\n  X", &[(2, 3)]),
            ("a: |\n\n  \"X\" 'X'\n", &[(3, 4), (3, 8)]),
            ("a: >- # why\n  'X\n", &[(2, 4)]),
            ("a:\n  \"X\\\"X\"", &[(2, 4), (2, 7)]),
            ("\u{FEFF}a: |\r\n  b\r\n  X\r\n", &[(3, 3)]),
        ] {
            check(text, want);
        }
    }

    #[test]
    fn what_is_behind_an_alias_is_not_found() {
        let lines = Lines::of(b"b: &b make\na: *b\n");
        assert_eq!(lines.places(Place { line: 2, column: 4 }, "make"), None);
        assert_eq!(lines.places(Place { line: 9, column: 9 }, "make"), None);
    }
}
