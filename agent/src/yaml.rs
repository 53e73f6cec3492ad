//! YAML as a small tree: places, raw text, and nothing that guesses types.
//!
//! A scalar is the text that was written: `3.10`, `080`, and `yes` stay as they are. Anchors,
//! aliases, and merge keys are resolved here, so that nobody else needs to know of them.
//!
//! **Architecture invariant:** bytes in, a tree or an error with a place out; and whatever the
//! bytes are, in bounded time, memory, and stack.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    iter, mem,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};
use thiserror::Error;

use crate::source::Place;

/// A value, and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, `~`, or `null`.
    Null,
    /// Any other scalar, as it is written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file; no key is there twice.
    Map(Vec<Entry>),
}

/// One key of a mapping, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// Why bytes are not one YAML document that we can read.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum YamlError {
    /// There is a NUL in it.
    #[error("the file is binary, not text")]
    Binary {
        /// Where the first NUL is.
        place: Place,
    },
    /// It starts as UTF-16 text does.
    #[error("the file is UTF-16, not UTF-8")]
    Utf16,
    /// Some bytes of it are not UTF-8.
    #[error("the file is not UTF-8")]
    NotUtf8 {
        /// Where the first such byte is.
        place: Place,
    },
    /// There is nothing in it but comments.
    #[error("the file is empty")]
    Empty,
    /// A tab stands where only spaces may.
    #[error("a tab stands where YAML allows only spaces")]
    Tab {
        /// Where.
        place: Place,
    },
    /// A key is twice in one mapping.
    #[error("the key `{key}` is there twice")]
    Duplicate {
        /// Which.
        key: String,
        /// Where it is the second time.
        place: Place,
    },
    /// Levels are nested deeper than anyone writes.
    #[error("the YAML is nested more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// Where the first level too many starts.
        place: Place,
    },
    /// Aliases of aliases become too much.
    #[error("the anchors and aliases stand for too much")]
    AliasBomb {
        /// Where the first anchor or alias too many is.
        place: Place,
    },
    /// Anything else that YAML forbids.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: String,
        /// Where.
        place: Place,
    },
    /// There is a second document.
    #[error("the file has {count} YAML documents, not one")]
    Documents {
        /// How many there are.
        count: usize,
        /// Where the second starts.
        place: Place,
    },
    /// A key is a list or a mapping.
    #[error("a key must be text")]
    KeyNotText {
        /// Where.
        place: Place,
    },
    /// `<<` has a value that has no keys.
    #[error("`<<` needs a mapping, or a list of mappings")]
    Merge {
        /// Where.
        place: Place,
    },
}

/// How deep values may be nested. Whoever walks the tree uses the stack, level by level.
const MAX_DEPTH: usize = 100;

/// How much all anchors and aliases together may stand for, in bytes of memory.
const MAX_COPIED: usize = 16 << 20;

/// How many bytes are read again at most, to find lines that are not indented enough.
const MAX_READ: usize = 4_000_000;

/// Reads one document.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node, YamlError> {
    let text = decode(bytes)?;
    let mut deeper = Deeper::default();
    let mut result = read(text, text, &deeper);
    // Each time there may be one more line to indent; short files may have more of them.
    for _ in 0..(MAX_READ / text.len().max(1)).clamp(1, 500) {
        match &result {
            Err(err) if deeper.take(text, err) => {}
            _ => break,
        }
        result = read(&deeper.apply(text), text, &deeper);
    }
    result
}

/// Reads `text`, which is `original` with some lines indented deeper.
fn read(text: &str, original: &str, deeper: &Deeper) -> Result<Node, YamlError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|err| scan_error(original, deeper, &err))?;
        builder.take(event, deeper.place(place(span.start)))?;
    }
    builder.finish()
}

impl YamlError {
    /// Where to look, if that is one place.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::Utf16 | Self::Empty => None,
            Self::Binary { place }
            | Self::NotUtf8 { place }
            | Self::Tab { place }
            | Self::Duplicate { place, .. }
            | Self::TooDeep { place }
            | Self::AliasBomb { place }
            | Self::Syntax { place, .. }
            | Self::Documents { place, .. }
            | Self::KeyNotText { place }
            | Self::Merge { place } => Some(*place),
        }
    }
}

/// The lines inside of quotations and flow collections that are to be indented deeper.
///
/// YAML 1.2 and our parser want them to be indented deeper than what they are in; go-yaml, which
/// CodeBuild uses, takes them however they are. White space at their beginning means nothing.
#[derive(Default)]
struct Deeper(BTreeSet<usize>);

impl Deeper {
    /// How many spaces are put before a line.
    const SPACES: usize = 250;
    /// For how many lines that is done at most.
    const MOST: usize = 1000;

    /// Notes the lines that `err` is about; whether there are any new ones.
    fn take(&mut self, text: &str, err: &YamlError) -> bool {
        let YamlError::Syntax { message, place } = err else { return false };
        let before = self.0.len();
        match message.as_str() {
            "invalid indentation in quoted scalar" => self.0.extend(quotation(text, *place)),
            "invalid indentation" | "invalid indentation in flow construct" => {
                self.0.insert(place.line);
            }
            _ => {}
        }
        before < self.0.len() && self.0.len() <= Self::MOST
    }

    fn apply(&self, text: &str) -> String {
        let mut deeper = String::with_capacity(text.len() + self.0.len() * Self::SPACES);
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if self.0.contains(&(index + 1)) {
                deeper.extend(iter::repeat_n(' ', Self::SPACES));
            }
            deeper += line;
        }
        deeper
    }

    /// The place in the file of what is at `place` now.
    fn place(&self, place: Place) -> Place {
        match self.0.contains(&place.line) {
            true => Place { column: place.column.saturating_sub(Self::SPACES).max(1), ..place },
            false => place,
        }
    }
}

/// The lines of the quotation that begins at `place`, but for the first, and those with nothing.
fn quotation(text: &str, place: Place) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut quote = None;
    for (index, line) in text.lines().enumerate().skip(place.line - 1) {
        let is_first = index + 1 == place.line;
        let mut rest = line.chars().skip(if is_first { place.column - 1 } else { 0 });
        // These end a document, wherever they are.
        let is_end = line.starts_with("---") || line.starts_with("...");
        if !is_first && !is_end && !line.trim().is_empty() {
            lines.push(index + 1);
        }
        while let Some(it) = rest.next() {
            match quote {
                None => quote = Some(it),
                Some('"') if it == '\\' => drop(rest.next()),
                // Twice, it is one of the text; in double quotes that cannot be.
                Some(quote) if it == quote => match rest.clone().next() {
                    Some(next) if next == quote => drop(rest.next()),
                    _ => return lines,
                },
                Some(_) => {}
            }
        }
    }
    lines
}

/// The text of a file, without byte order mark.
fn decode(bytes: &[u8]) -> Result<&str, YamlError> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(YamlError::Utf16);
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(YamlError::Binary { place: Place::of(bytes, offset) });
    }
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text)),
        Err(err) => Err(YamlError::NotUtf8 { place: Place::of(bytes, err.valid_up_to()) }),
    }
}

fn scan_error(text: &str, deeper: &Deeper, err: &ScanError) -> YamlError {
    let place = deeper.place(place(*err.marker()));
    let message = err.info();
    if message.starts_with("recursion limit") {
        return YamlError::TooDeep { place };
    }
    match indenting_tab(text, place) {
        Some(place) if message.contains("tab") => YamlError::Tab { place },
        _ => YamlError::Syntax { message: in_plain_words(message, text, place), place },
    }
}

/// What the parser says, for people who do not know how it works.
fn in_plain_words(message: &str, text: &str, place: Place) -> String {
    let plain = match message {
        "illegal placement of ':' indicator" => "a `:` stands where none can be",
        "invalid trailing content after double-quoted scalar" => {
            "something follows the closing quote"
        }
        "simple key expected" | "simple key expect ':'" => {
            "a line is neither `key: value` nor text"
        }
        "while parsing node, found unknown anchor" => {
            let line = text.lines().nth(place.line - 1).unwrap_or_default();
            let rest = line.chars().skip(place.column - 1);
            let name: String = rest.take_while(|it| !it.is_whitespace()).take(40).collect();
            return format!("`{name}` stands for an anchor, and there is none of that name");
        }
        "unexpected character: ``'" => "no text can begin with a backtick",
        message => match message.strip_prefix("unexpected character: `") {
            Some(rest) => {
                return format!("no text can begin with `{}`", rest.trim_end_matches('\''));
            }
            None => message,
        },
    };
    plain.to_owned()
}

/// The first tab in the indentation of the line at `place`, or of a line next to it: a parser may
/// notice a tab a little before or after it.
fn indenting_tab(text: &str, place: Place) -> Option<Place> {
    let first = place.line.saturating_sub(1).max(1);
    (first..=place.line + 1).find_map(|line| {
        let content = text.lines().nth(line - 1)?;
        let indent = content.chars().take_while(|it| matches!(it, ' ' | '\t' | '-'));
        let column = indent.enumerate().find(|(_, it)| *it == '\t')?.0 + 1;
        Some(Place { line, column })
    })
}

/// Places count columns from 1, the parser from 0.
fn place(marker: Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// Makes a tree of what the parser finds, piece by piece.
#[derive(Default)]
struct Builder {
    /// How many documents have begun.
    documents: usize,
    /// The first value of the second document.
    second: Option<Place>,
    /// The value of the first document.
    root: Option<Node>,
    /// The lists and mappings that have begun and not ended.
    open: Vec<Open>,
    /// The values that have anchors, by the parser's number for the anchor.
    anchors: HashMap<usize, Anchored>,
    /// What `anchors`, and the aliases of them, stand for so far.
    copied: usize,
}

/// A list or a mapping that has begun.
struct Open {
    place: Place,
    anchor: usize,
    /// The items; in a mapping, keys and values in turn.
    nodes: Vec<Node>,
}

/// A value that an alias may stand for.
struct Anchored {
    node: Node,
    size: Size,
}

/// How large a value is.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    depth: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), YamlError> {
        if self.documents > 1 {
            self.skip(&event, place);
            return Ok(());
        }
        match event {
            Event::DocumentStart(_) => self.documents += 1,
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref());
                self.add(Node { place, value }, anchor)?;
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                self.is_not_too_deep(1, place)?;
                self.open.push(Open { place, anchor, nodes: Vec::new() });
            }
            Event::SequenceEnd => {
                if let Some(Open { place, anchor, nodes }) = self.open.pop() {
                    self.add(Node { place, value: Value::List(nodes) }, anchor)?;
                }
            }
            Event::MappingEnd => {
                if let Some(Open { place, anchor, nodes }) = self.open.pop() {
                    self.add(Node { place, value: Value::Map(entries(nodes)?) }, anchor)?;
                }
            }
            Event::Alias(anchor) => self.alias(anchor, place)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Counts the documents after the first, and is not interested in what they hold.
    fn skip(&mut self, event: &Event<'_>, place: Place) {
        match event {
            Event::DocumentStart(_) => self.documents += 1,
            Event::DocumentEnd | Event::StreamEnd => {}
            _ => _ = self.second.get_or_insert(place),
        }
    }

    fn finish(self) -> Result<Node, YamlError> {
        match (self.root, self.second) {
            (_, Some(place)) => Err(YamlError::Documents { count: self.documents, place }),
            (Some(root), None) if root.value != Value::Null => Ok(root),
            (_, None) => Err(YamlError::Empty),
        }
    }

    /// Adds a whole value to what is open. (The parser's numbers of anchors begin with 1.)
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor > 0 {
            let size = measure(&node);
            self.copy(size, node.place)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), YamlError> {
        let Some(Anchored { node, size }) = self.anchors.get(&anchor) else {
            let message = "an alias stands for what it is in".to_owned();
            return Err(YamlError::Syntax { message, place });
        };
        let (node, size) = (Node { place, value: node.value.clone() }, *size);
        self.is_not_too_deep(size.depth, place)?;
        self.copy(size, place)?;
        self.add(node, 0)
    }

    fn copy(&mut self, size: Size, place: Place) -> Result<(), YamlError> {
        self.copied = self.copied.saturating_add(size.bytes);
        match self.copied > MAX_COPIED {
            true => Err(YamlError::AliasBomb { place }),
            false => Ok(()),
        }
    }

    fn is_not_too_deep(&self, more: usize, place: Place) -> Result<(), YamlError> {
        match self.open.len() + more > MAX_DEPTH {
            true => Err(YamlError::TooDeep { place }),
            false => Ok(()),
        }
    }
}

/// A scalar is nothing, or the text of it. Tags mean nothing to CodeBuild, except that `!!str`
/// says that `null` is a word.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|it| it.is_yaml_core_schema() && it.suffix == "str");
    let is_plain = style == ScalarStyle::Plain && !is_text;
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" if is_plain => Value::Null,
        _ => Value::Text(text.into_owned()),
    }
}

/// The entries of a mapping whose keys and values come in turn.
fn entries(nodes: Vec<Node>) -> Result<Vec<Entry>, YamlError> {
    let mut entries = Vec::with_capacity(nodes.len() / 2);
    let mut nodes = nodes.into_iter();
    while let (Some(Node { place, value }), Some(node)) = (nodes.next(), nodes.next()) {
        let key = match value {
            Value::Text(key) => key,
            Value::Null => String::new(),
            Value::List(_) | Value::Map(_) => return Err(YamlError::KeyNotText { place }),
        };
        entries.push(Entry { key, place, node });
    }
    let mut keys = HashSet::new();
    if let Some(Entry { key, place, .. }) = entries.iter().find(|it| !keys.insert(&it.key)) {
        return Err(YamlError::Duplicate { key: key.clone(), place: *place });
    }
    merge(entries)
}

fn measure(node: &Node) -> Size {
    let own = |text: &String| mem::size_of::<Entry>() + text.len();
    let inner: Vec<Size> = match &node.value {
        Value::Null => Vec::new(),
        Value::Text(text) => return Size { bytes: own(text), depth: 0 },
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(entries) => entries.iter().map(measure_entry).collect(),
    };
    let depth = inner.iter().map(|it| it.depth + 1).max().unwrap_or_default();
    let bytes =
        inner.iter().map(|it| it.bytes).fold(mem::size_of::<Entry>(), usize::saturating_add);
    Size { bytes, depth }
}

fn measure_entry(entry: &Entry) -> Size {
    let Size { bytes, depth } = measure(&entry.node);
    Size { bytes: bytes + entry.key.len(), depth }
}

/// Resolves `<<`: its keys are added where they are not set, those of earlier mappings first.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, YamlError> {
    if entries.iter().all(|it| it.key != "<<") {
        return Ok(entries);
    }
    let (to_merge, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|it| it.key == "<<");
    let mut keys: HashSet<String> = own.iter().map(|it| it.key.clone()).collect();
    for Entry { place, node, .. } in to_merge {
        let maps = match node.value {
            Value::Map(map) => vec![map],
            Value::List(items) => items
                .into_iter()
                .map(|item| match item.value {
                    Value::Map(map) => Ok(map),
                    _ => Err(YamlError::Merge { place: item.place }),
                })
                .collect::<Result<_, _>>()?,
            Value::Null | Value::Text(_) => return Err(YamlError::Merge { place }),
        };
        for entry in maps.into_iter().flatten() {
            if keys.insert(entry.key.clone()) {
                own.push(entry);
            }
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, iter, time::Instant};

    use expect_test::{Expect, expect};

    use super::*;

    fn draw(node: &Node, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        match &node.value {
            Value::Null => writeln!(out, " {} null", node.place).unwrap(),
            Value::Text(text) => writeln!(out, " {} {text:?}", node.place).unwrap(),
            Value::List(items) => {
                writeln!(out, " {}", node.place).unwrap();
                for item in items {
                    write!(out, "{indent}-").unwrap();
                    draw(item, depth + 1, out);
                }
            }
            Value::Map(entries) => {
                writeln!(out, " {}", node.place).unwrap();
                for entry in entries {
                    write!(out, "{indent}{} {}:", entry.place, entry.key).unwrap();
                    draw(&entry.node, depth + 1, out);
                }
            }
        }
    }

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, want: Expect) {
        let mut out = String::new();
        match parse(text.as_ref()) {
            Ok(node) => draw(&node, 0, &mut out),
            Err(err) => match err.place() {
                Some(place) => writeln!(out, "{place} {err}").unwrap(),
                None => writeln!(out, "{err}").unwrap(),
            },
        }
        want.assert_eq(&out);
    }

    #[test]
    fn scalars_are_text_as_it_is_written() {
        check(
            "a: 3.10\nb: 080\nc: yes\nd: 0x1F # hex\ne: 'q: r'\nf: ~\ng:\nh: !!str 1.20\ni: !!int 08\nj: -0.0\nk: True\n",
            expect![[r#"
                 1:1
                1:1 a: 1:4 "3.10"
                2:1 b: 2:4 "080"
                3:1 c: 3:4 "yes"
                4:1 d: 4:4 "0x1F"
                5:1 e: 5:4 "q: r"
                6:1 f: 6:4 null
                7:1 g: 7:2 null
                8:1 h: 8:4 "1.20"
                9:1 i: 9:4 "08"
                10:1 j: 10:4 "-0.0"
                11:1 k: 11:4 "True"
            "#]],
        );
    }

    #[test]
    fn text_before_a_scalar_may_be_of_any_alphabet() {
        check(
            "ключ: 3.10\nλ: \"é\"\nz: [1.0, 2.00]\n",
            expect![[r#"
             1:1
            1:1 ключ: 1:7 "3.10"
            2:1 λ: 2:4 "é"
            3:1 z: 3:4
              - 3:5 "1.0"
              - 3:10 "2.00"
        "#]],
        );
    }

    #[test]
    fn aliases_keep_the_text_of_their_anchor() {
        check(
            "a: &port 080\nb: *port\nc: &list\n  - 1.10\n  - &v  2.20\nd: *list\ne: *v\nf: [&x 1e3, *x]\n",
            expect![[r#"
                 1:1
                1:1 a: 1:4 "080"
                2:1 b: 2:4 "080"
                3:1 c: 3:4
                  - 4:5 "1.10"
                  - 5:5 "2.20"
                6:1 d: 6:4
                  - 4:5 "1.10"
                  - 5:5 "2.20"
                7:1 e: 7:4 "2.20"
                8:1 f: 8:4
                  - 8:5 "1e3"
                  - 8:13 "1e3"
            "#]],
        );
    }

    #[test]
    fn merge_keys_fill_in_what_is_not_set() {
        check(
            "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nit:\n  b: own\n  <<: [*more, *base]\n",
            expect![[r#"
                 1:1
                1:1 base: 1:7
                  1:14 a: 1:17 "1"
                  1:20 b: 1:23 "2"
                2:1 more: 2:7
                  2:14 b: 2:17 "3"
                  2:20 c: 2:23 "4"
                3:1 it: 4:3
                  4:3 b: 4:6 "own"
                  2:20 c: 2:23 "4"
                  1:14 a: 1:17 "1"
            "#]],
        );
        check(
            "a: {<<: text}\n",
            expect![[r#"
            1:5 `<<` needs a mapping, or a list of mappings
        "#]],
        );
    }

    #[test]
    fn byte_order_marks_and_line_ends_of_windows_are_no_matter() {
        check(
            "\u{FEFF}a: 1.0\r\nb: |\r\n  x\r\n  y\r\nc: 2.0\r\n",
            expect![[r#"
             1:1
            1:1 a: 1:4 "1.0"
            2:1 b: 3:3 "x\ny\n"
            5:1 c: 5:4 "2.0"
        "#]],
        );
    }

    #[test]
    fn block_scalars_keep_their_lines() {
        check(
            "a: |\n  x\n   y\nb: >-\n  x\n  y\nc: |-\n  # no comment\n",
            expect![[r##"
             1:1
            1:1 a: 2:3 "x\n y\n"
            4:1 b: 5:3 "x y"
            7:1 c: 8:3 "# no comment"
        "##]],
        );
    }

    /// As go-yaml takes it.
    #[test]
    fn lines_in_quotes_and_brackets_may_be_indented_in_any_way() {
        check(
            "a:\n  b: \"x\ny \\\"\n\n z\"\n  c: [\n1.0,\n  {d: 'it''s\nso'},\n]\n  e: 'f'\ng: h\n",
            expect![[r#"
                 1:1
                1:1 a: 2:3
                  2:3 b: 2:6 "x y \"\nz"
                  6:3 c: 6:6
                    - 7:1 "1.0"
                    - 8:3
                      8:4 d: 8:7 "it's so"
                  11:3 e: 11:6 "f"
                12:1 g: 12:4 "h"
            "#]],
        );
        check(
            "a:\n  b: [\nx\ny: z\n",
            expect![[r#"
                4:2 a `:` stands where none can be
            "#]],
        );
    }

    #[test]
    fn what_is_not_one_document_is_an_error() {
        check(
            "",
            expect![[r#"
            the file is empty
        "#]],
        );
        check(
            "# only this\n",
            expect![[r#"
            the file is empty
        "#]],
        );
        check(
            "---\n",
            expect![[r#"
            the file is empty
        "#]],
        );
        check(
            "a: 1\n---\nb: 2\n",
            expect![[r#"
            3:1 the file has 2 YAML documents, not one
        "#]],
        );
        check(
            b"a: \x00\x01\n",
            expect![[r#"
            1:4 the file is binary, not text
        "#]],
        );
        check(
            b"a: 1\nb: \xE9\n",
            expect![[r#"
            2:4 the file is not UTF-8
        "#]],
        );
        check(
            b"\xFF\xFEa\x00",
            expect![[r#"
            the file is UTF-16, not UTF-8
        "#]],
        );
    }

    #[test]
    fn bad_yaml_has_a_place() {
        check(
            "a:\n\tb: 1\n",
            expect![[r#"
            2:1 a tab stands where YAML allows only spaces
        "#]],
        );
        check(
            "a:\n  - x\n\t- y\n",
            expect![[r#"
            3:1 a tab stands where YAML allows only spaces
        "#]],
        );
        check(
            "a:\n  - x\n -\ty: 1\n",
            expect![[r#"
            3:2 while parsing a block mapping, did not find expected key
        "#]],
        );
        check(
            "a: 1\nb: 2\na: 3\n",
            expect![[r#"
            3:1 the key `a` is there twice
        "#]],
        );
        check(
            "a: b: c\n",
            expect![[r#"
            1:5 mapping values are not allowed in this context
        "#]],
        );
        check(
            "a: [1, 2\nb: 3\n",
            expect![[r#"
                2:2 a `:` stands where none can be
            "#]],
        );
        check(
            "a: \"x\n",
            expect![[r#"
            1:4 while scanning a quoted scalar, found unexpected end of stream
        "#]],
        );
        check(
            "a:\n  - x\n y: 1\n",
            expect![[r#"
            3:2 while parsing a block mapping, did not find expected key
        "#]],
        );
        check(
            "a: *nobody\n",
            expect![[r#"
                1:4 `*nobody` stands for an anchor, and there is none of that name
            "#]],
        );
        check(
            "a: &a [*a]\n",
            expect![[r#"
            1:8 an alias stands for what it is in
        "#]],
        );
        check(
            "[a]: 1\n",
            expect![[r#"
            1:1 a key must be text
        "#]],
        );
        check(
            "a: @x\n",
            expect![[r#"
                1:4 no text can begin with `@`
            "#]],
        );
    }

    #[test]
    fn bombs_are_errors_and_quick() {
        let laughs = iter::once("a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned()).chain(
            ('b'..='k').zip('a'..).map(|(it, of)| {
                format!("{it}: &{it} [*{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}]\n")
            }),
        );
        let keys: Vec<String> = (0..20_000).map(|it| format!("  k{it}: x\n")).collect();
        let keys = keys.concat();
        let wide = format!("a: &a\n{keys}b: {{<<: *a, k1: y}}\nc: {{<<: *a}}\n");
        let towers = (1..100).map(|it| {
            let (open, close) = ("[".repeat(50), "]".repeat(50));
            format!("a{it}: &a{it} {open}*a{}{close}\n", it - 1)
        });
        let towers = iter::once("a0: &a0 x\n".to_owned()).chain(towers);
        let nested: String = (0..90).map(|it| ["&a", &it.to_string(), " ["].concat()).collect();
        let nested = format!("a: {nested}{}{}", "x".repeat(1_000_000), "]".repeat(90));
        let staircase = (0..2000).map(|it| format!("{}a:\n", " ".repeat(it)));
        for (name, text) in [
            ("laughs", laughs.collect::<String>()),
            ("flow", "[".repeat(100_000)),
            ("dashes", "- ".repeat(100_000)),
            ("keys", "? ".repeat(100_000)),
            ("staircase", staircase.collect::<String>()),
            ("towers", towers.collect::<String>()),
            ("nested anchors", nested),
            ("wide", wide),
            ("deep enough", "- ".repeat(80) + "x"),
        ] {
            let start = Instant::now();
            let parsed = parse(text.as_bytes());
            let is_fine = matches!(name, "wide" | "deep enough");
            assert_eq!(parsed.is_ok(), is_fine, "{name}: {:?}", parsed.err());
            assert!(start.elapsed().as_secs_f32() < 1.0, "{name} took {:?}", start.elapsed());
        }
    }
}
