//! Commands, split about as a shell would: into simple commands and words.
//!
//! This is no parser of the shell's language: it knows what is quoted, nested, a comment, or the
//! text of a here-document, and takes all else as it comes. What rules learn here is reliable
//! where commands are plain, and rules say nothing where they are not.
//!
//! **Architecture invariant:** any text is read, in one pass, with bounded recursion.

use std::borrow::Cow;

/// What is in a command.
#[derive(Debug, Default)]
pub(super) struct Split<'t> {
    /// The simple commands, those of substitutions before the ones that they are in.
    pub(super) simple: Vec<Simple<'t>>,
    /// What is written in a way that not every shell has.
    pub(super) marks: Vec<(Mark, usize)>,
    /// Where a quotation starts that does not end.
    pub(super) unclosed: Option<usize>,
}

/// A simple command.
#[derive(Debug, Default)]
pub(super) struct Simple<'t> {
    pub(super) words: Vec<Word<'t>>,
    /// What it ends with: `&&`, `||`, `|`, `;`, a line feed, …; nothing at the end of the text.
    pub(super) ends_with: &'t str,
}

/// A word, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'t> {
    pub(super) raw: &'t str,
    /// The byte at which it starts.
    pub(super) start: usize,
}

/// Something that bash has and POSIX has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    /// `x=(…)` or `${x[…]}`.
    Array,
    /// `<(…)` or `>(…)`.
    ProcessSubstitution,
    /// `${x:1:2}`.
    Substring,
    /// `${x/a/b}`, `${x^}`, `${x,}`, or `${!x}`.
    Expansion,
    /// `<<<`.
    HereString,
    /// `&>`.
    RedirectBoth,
}

/// How deep substitutions are followed.
const MAX_DEPTH: usize = 50;

/// Splits a command.
pub(super) fn split(text: &str) -> Split<'_> {
    let mut lexer = Lexer { text, at: 0, depth: 0, here: Vec::new(), found: Split::default() };
    lexer.list(None);
    lexer.found
}

impl<'t> Simple<'t> {
    /// The words from the name of the program on, without what stands before it.
    pub(super) fn program(&self) -> &[Word<'t>] {
        let is_before = |it: &&Word<'_>| is_assignment(it.raw) || PREFIXES.contains(&it.raw);
        &self.words[self.words.iter().take_while(is_before).count()..]
    }

    /// Whether it is this program, with these words next, options aside.
    pub(super) fn is(&self, words: &[&str]) -> bool {
        let mut found = self.program().iter().map(Word::plain);
        if found.next().as_deref() != words.first().copied() {
            return false;
        }
        let mut wanted = words.iter().skip(1).peekable();
        let mut may_be_value = false;
        for word in found {
            let is_option = word.starts_with('-');
            match wanted.peek() {
                None => break,
                Some(next) if word == **next => _ = wanted.next(),
                Some(_) if is_option || may_be_value => {}
                Some(_) => return false,
            }
            may_be_value = is_option && !word.contains('=');
        }
        wanted.peek().is_none()
    }
}

/// What may stand before the name of a program.
const PREFIXES: &[&str] = &[
    "!", "{", "if", "then", "else", "elif", "while", "until", "do", "time", "sudo", "exec",
    "command", "nohup", "env",
];

impl<'t> Word<'t> {
    /// The word without quotation marks.
    pub(super) fn plain(&self) -> Cow<'t, str> {
        match self.raw.contains(['\'', '"', '\\']) {
            true => Cow::Owned(self.raw.replace(['\'', '"', '\\'], "")),
            false => Cow::Borrowed(self.raw),
        }
    }

    pub(super) fn end(&self) -> usize {
        self.start + self.raw.len()
    }
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
        && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
}

struct Lexer<'t> {
    text: &'t str,
    /// The next byte.
    at: usize,
    depth: usize,
    /// The here-documents whose text starts at the next line.
    here: Vec<HereDocument<'t>>,
    found: Split<'t>,
}

struct HereDocument<'t> {
    delimiter: Cow<'t, str>,
    /// Whether tabs may stand before the delimiter.
    is_indented: bool,
}

impl<'t> Lexer<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn sees(&self, text: &str) -> bool {
        self.text.as_bytes()[self.at..].starts_with(text.as_bytes())
    }

    /// Reads commands up to the byte `end`, and passes it.
    fn list(&mut self, end: Option<u8>) {
        let mut simple = Simple::default();
        while let Some(byte) = self.peek() {
            match byte {
                _ if Some(byte) == end => {
                    self.at += 1;
                    break;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.sees("\\\n") => self.at += 2,
                b'#' => self.comment(),
                b'&' if self.sees("&>") => self.redirection(end),
                b'\n' | b';' | b'&' | b'|' | b'(' | b')' => self.separator(&mut simple),
                b'<' | b'>' => self.redirection(end),
                _ => {
                    let word = self.word(end);
                    simple.words.push(word);
                }
            }
        }
        self.finish(&mut simple, "");
    }

    fn finish(&mut self, simple: &mut Simple<'t>, ends_with: &'t str) {
        let words = std::mem::take(&mut simple.words);
        if !words.is_empty() {
            self.found.simple.push(Simple { words, ends_with });
        }
    }

    fn separator(&mut self, simple: &mut Simple<'t>) {
        let start = self.at;
        let double = ["&&", "||", ";;"].iter().any(|it| self.sees(it));
        self.at += if double { 2 } else { 1 };
        self.finish(simple, &self.text[start..self.at]);
        if &self.text[start..self.at] == "\n" {
            self.here_documents();
        }
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|it| it != b'\n') {
            self.at += 1;
        }
    }

    /// Passes the text of the here-documents that start here.
    fn here_documents(&mut self) {
        for here in std::mem::take(&mut self.here) {
            while self.at < self.text.len() {
                let rest = &self.text[self.at..];
                let line = rest.split('\n').next().unwrap_or_default();
                self.at = (self.at + line.len() + 1).min(self.text.len());
                let line = if here.is_indented { line.trim_start_matches('\t') } else { line };
                if line.trim_end_matches('\r') == here.delimiter {
                    break;
                }
            }
        }
    }

    fn redirection(&mut self, end: Option<u8>) {
        let start = self.at;
        if self.sees("&>") {
            self.found.marks.push((Mark::RedirectBoth, start));
            self.at += 2;
        } else if self.sees("<<<") {
            self.found.marks.push((Mark::HereString, start));
            self.at += 3;
        } else if self.sees("<<") {
            self.at += 2;
            return self.here_document(end);
        } else if self.sees("<(") || self.sees(">(") {
            self.found.marks.push((Mark::ProcessSubstitution, start));
            self.at += 2;
            return self.nested(b')');
        } else {
            self.at += 1;
            while matches!(self.peek(), Some(b'>' | b'&' | b'|')) {
                self.at += 1;
            }
        }
        self.target(end);
    }

    /// Passes the word that is redirected to.
    fn target(&mut self, end: Option<u8>) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        if self.peek().is_some_and(|it| !is_meta(it)) {
            self.word(end);
        }
    }

    fn here_document(&mut self, end: Option<u8>) {
        let is_indented = self.peek() == Some(b'-');
        if is_indented {
            self.at += 1;
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        if self.peek().is_some_and(|it| !is_meta(it)) {
            let delimiter = self.word(end).plain();
            self.here.push(HereDocument { delimiter, is_indented });
        }
    }

    /// Reads a substitution up to `end`.
    fn nested(&mut self, end: u8) {
        if self.depth == MAX_DEPTH {
            return;
        }
        self.depth += 1;
        self.list(Some(end));
        self.depth -= 1;
    }

    fn word(&mut self, end: Option<u8>) -> Word<'t> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                _ if Some(byte) == end => break,
                b'(' if self.text[start..self.at].ends_with('=') => self.array(),
                it if is_meta(it) => break,
                _ => self.part(byte),
            }
        }
        Word { raw: &self.text[start..self.at], start }
    }

    fn array(&mut self) {
        self.found.marks.push((Mark::Array, self.at));
        self.at += 1;
        self.nested(b')');
    }

    /// Passes a part of a word.
    fn part(&mut self, byte: u8) {
        match byte {
            b'\'' => self.single_quoted(),
            b'"' => self.double_quoted(),
            b'\\' => self.escaped(),
            b'$' => self.dollar(),
            b'`' => {
                self.at += 1;
                self.nested(b'`');
            }
            _ => self.at += 1,
        }
    }

    /// Passes a backslash, and the character behind it.
    fn escaped(&mut self) {
        let next = self.text[self.at + 1..].chars().next();
        self.at += 1 + next.map_or(0, char::len_utf8);
    }

    fn single_quoted(&mut self) {
        match self.text[self.at + 1..].find('\'') {
            Some(length) => self.at += length + 2,
            None => self.unclosed(self.at),
        }
    }

    fn double_quoted(&mut self) {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\'' => self.at += 1,
                _ => self.part(byte),
            }
        }
        self.unclosed(start);
    }

    /// Notes that what starts at `start` does not end.
    fn unclosed(&mut self, start: usize) {
        self.found.unclosed.get_or_insert(start);
        self.at = self.text.len();
    }

    fn dollar(&mut self) {
        if self.sees("$((") {
            self.arithmetic();
        } else if self.sees("$(") {
            self.at += 2;
            self.nested(b')');
        } else if self.sees("${") {
            self.parameter();
        } else {
            self.at += 1;
        }
    }

    /// Passes `$((…))`.
    fn arithmetic(&mut self) {
        let mut open = 0_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => open += 1,
                b')' if open <= 1 => return,
                b')' => open -= 1,
                _ => {}
            }
        }
    }

    /// Passes `${…}`.
    fn parameter(&mut self) {
        let start = self.at;
        self.at += 2;
        if let Some(mark) = mark(&self.text[self.at..]) {
            self.found.marks.push((mark, start));
        }
        self.depth += 1;
        while self.depth <= MAX_DEPTH
            && let Some(byte) = self.peek()
        {
            match byte {
                b'}' => {
                    self.at += 1;
                    break;
                }
                b'\'' => self.at += 1,
                _ => self.part(byte),
            }
        }
        self.depth -= 1;
    }
}

/// What not every shell has in an expansion, which starts behind its `{`.
fn mark(expansion: &str) -> Option<Mark> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let indirect = expansion.strip_prefix('!');
    let after = indirect.unwrap_or(expansion).trim_start_matches(is_part);
    if after.len() == expansion.len() {
        return None;
    }
    let mut after = after.chars();
    match (after.next()?, after.next()) {
        _ if indirect.is_some() => Some(Mark::Expansion),
        ('[', _) => Some(Mark::Array),
        ('/' | '^' | ',', _) => Some(Mark::Expansion),
        (':', Some('-' | '=' | '?' | '+' | '}') | None) => None,
        (':', Some(_)) => Some(Mark::Substring),
        _ => None,
    }
}

fn is_meta(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of each simple command, separated by `_`.
    fn draw(text: &str) -> String {
        let words = |it: &Simple<'_>| {
            let words = it.words.iter().map(|it| it.raw);
            words.collect::<Vec<_>>().join("_") + it.ends_with
        };
        split(text).simple.iter().map(words).collect::<Vec<_>>().join(" ").replace('\n', "\\n")
    }

    #[test]
    fn commands_are_split_as_a_shell_does() {
        for (text, want) in [
            ("make all", "make_all"),
            ("a && b||c; d & e | f", "a&& b|| c; d& e| f"),
            ("a 'b c' \"d; e\" f\\ g", "a_'b c'_\"d; e\"_f\\ g"),
            ("a # b; c\nd", "a\\n d"),
            ("a#b #c", "a#b"),
            ("X=$(a b) c", "a_b X=$(a b)_c"),
            ("echo \"$(a \"b c\")\"", "a_\"b c\" echo_\"$(a \"b c\")\""),
            ("`a b`", "a_b `a b`"),
            ("(a; b) && c", "a; b) c"),
            ("cat <<EOF\na; 'b\nEOF\nc", "cat\\n c"),
            ("cat <<-'E'\n\ta\n\tE\nc", "cat\\n c"),
            ("cat <<X\nnever\nends", "cat\\n"),
            ("a >b 2>&1 <c d", "a_2_d"),
            ("a $((1<<2)) b", "a_$((1<<2))_b"),
            ("a ${b:-c d} e", "a_${b:-c d}_e"),
            ("x=(a b) c", "a_b x=(a b)_c"),
            ("a \\\n b", "a_b"),
            ("", ""),
        ] {
            assert_eq!(draw(text), want, "for {text:?}");
        }
    }

    #[test]
    fn what_not_every_shell_has_is_marked() {
        for (text, want) in [
            ("x=(a)", &[(Mark::Array, 2)][..]),
            ("echo ${x[0]}", &[(Mark::Array, 5)]),
            ("diff <(a) <(b)", &[(Mark::ProcessSubstitution, 5), (Mark::ProcessSubstitution, 10)]),
            ("echo ${x::7}", &[(Mark::Substring, 5)]),
            ("echo \"${x: -3}\"", &[(Mark::Substring, 6)]),
            ("echo ${x:-7} ${x:=1} ${x%/*} ${#x} ${x#a/b}", &[]),
            (
                "echo ${x//a/b} ${x^^} ${!x}",
                &[(Mark::Expansion, 5), (Mark::Expansion, 15), (Mark::Expansion, 22)],
            ),
            ("a <<<b", &[(Mark::HereString, 2)]),
            ("a &>b", &[(Mark::RedirectBoth, 2)]),
            ("a >b 2>&1 & b", &[]),
            ("echo '${x::7} <(a)'", &[]),
            ("cat <<E\n${x::7}\nE", &[]),
        ] {
            assert_eq!(split(text).marks, want, "for {text:?}");
        }
    }

    #[test]
    fn quotations_that_do_not_end_are_found() {
        for (text, want) in [
            ("echo 'a", Some(5)),
            ("echo \"a", Some(5)),
            ("echo \"it's\"", None),
            ("echo it\\'s", None),
            ("echo \"$(a 'b)\"", Some(10)),
            ("cat <<E\nit's\nE", None),
            ("# it's", None),
        ] {
            assert_eq!(split(text).unclosed, want, "for {text:?}");
        }
    }

    #[test]
    fn programs_are_recognised_behind_what_stands_before_them() {
        for (text, words, want) in [
            ("docker push x", &["docker", "push"][..], true),
            ("if ! X=1 sudo docker --debug push x", &["docker", "push"], true),
            ("aws --region x ecr get-login", &["aws", "ecr", "get-login"], true),
            ("aws ecr get-login-password", &["aws", "ecr", "get-login"], false),
            ("echo docker push", &["docker", "push"], false),
            ("docker build push", &["docker", "push"], false),
            ("'docker' push", &["docker", "push"], true),
        ] {
            assert_eq!(split(text).simple[0].is(words), want, "for {text:?}");
        }
    }

    #[test]
    fn hostile_text_is_read_quickly() {
        for part in ["$(", "`", "\"$(", "${x:-", "<<E\n", "x=(", "'", "\\", "((", "<("] {
            split(&part.repeat(100_000));
        }
    }
}
