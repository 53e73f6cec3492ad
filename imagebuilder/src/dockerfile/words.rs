//! Variables and quotes in the words of a Dockerfile.
//!
//! This is not the shell: it is the small language that the builder itself reads, before and
//! apart from any shell. What is expanded, and with what, is for the planner to decide;
//! `BuildKit` expands
//!
//! - in FROM, the image and `--platform`, with the global arguments alone;
//! - in ARG, ENV and LABEL, keys and values; all of one ENV with what was set before it;
//! - in ADD and COPY, sources, destination, `--chown`, `--chmod`, `--exclude` and `--checksum`,
//!   each to one word (a variable with spaces is one path), but not `--from`;
//! - in EXPOSE, each word to any number of words ([`expand_words`]);
//! - in STOPSIGNAL, USER, VOLUME and WORKDIR, each argument to one word;
//! - in ONBUILD, what its instruction expands, when that runs;
//! - in the text of a heredoc of ADD and COPY whose name has no quotes ([`expand_body`]);
//! - and nothing in RUN, CMD, ENTRYPOINT, SHELL and HEALTHCHECK: there `$` is the shell's matter.

use regex::Regex;
use thiserror::Error;

/// How deep `${a:-${b:-…}}` may go.
const MAX_DEPTH: usize = 64;
/// How long a text may become.
const MAX_BYTES: usize = 16 << 20;

/// The value of a variable, if it is set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text whose variables were replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The variables that it named and that were not set, each once, in order.
    pub unset: Vec<String>,
}

/// The words of a text whose variables were replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The words.
    pub words: Vec<String>,
    /// The variables that they named and that were not set, each once, in order.
    pub unset: Vec<String>,
}

/// Why a text could not be expanded; `at` is the byte of the text where the trouble begins.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpandError {
    /// A quoted part does not end.
    #[error("`{quote}` is not closed")]
    Quote {
        /// The quote.
        quote: char,
        /// Where it is.
        at: usize,
    },
    /// `${` does not end.
    #[error("`${{` is not closed with `}}`")]
    Brace {
        /// Where it is.
        at: usize,
    },
    /// `${x/a` has no second slash.
    #[error("`${{{name}/…` has no second `/`: it replaces as in `${{{name}/old/new}}`")]
    Slash {
        /// The variable.
        name: String,
        /// Where it is.
        at: usize,
    },
    /// `${` is not followed by a name.
    #[error("`${{` is not followed by the name of a variable")]
    Name {
        /// Where it is.
        at: usize,
    },
    /// What follows the name in `${name…}` means nothing.
    #[error("`{modifier}` after `${{{name}` is not supported")]
    Modifier {
        /// The variable.
        name: String,
        /// What follows it.
        modifier: String,
        /// Where `${` is.
        at: usize,
    },
    /// `${x?…}` asks for a variable that has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the author has to say about it.
        message: String,
        /// Where it is.
        at: usize,
    },
    /// The pattern of `${x#…}`, `${x%…}` or `${x/…/…}` is none.
    #[error("`{pattern}` is not a pattern: only `*`, `?` and `\\` can be escaped")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where `${` is.
        at: usize,
    },
    /// Variables stand in variables too deep.
    #[error("`${{…}}` is nested more than {limit} levels deep")]
    Depth {
        /// How deep it may be.
        limit: usize,
        /// Where it became too deep.
        at: usize,
    },
    /// The text becomes too long.
    #[error("the expanded text is longer than {limit} bytes")]
    TooLong {
        /// How long it may be.
        limit: usize,
        /// Where it became too long.
        at: usize,
    },
}

impl ExpandError {
    /// The byte of the text where the trouble begins.
    pub fn at(&self) -> usize {
        match self {
            Self::Quote { at, .. }
            | Self::Brace { at }
            | Self::Slash { at, .. }
            | Self::Name { at }
            | Self::Modifier { at, .. }
            | Self::Required { at, .. }
            | Self::Pattern { at, .. }
            | Self::Depth { at, .. }
            | Self::TooLong { at, .. } => *at,
        }
    }
}

/// Replaces the variables of `text` and takes its quotes away; spaces stay as they are.
///
/// This is for all that is expanded to one word, values of ENV and LABEL included.
pub fn expand(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(text, escape, lookup, Quotes::Removed);
    let found = lexer.read(None)?;
    Ok(Expanded { text: found.text, unset: lexer.unset })
}

/// Replaces the variables of `text`, takes its quotes away, and splits it at spaces that were
/// not quoted; a value with spaces becomes several words, an empty one none.
pub fn expand_words(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<ExpandedWords, ExpandError> {
    let mut lexer = Lexer::new(text, escape, lookup, Quotes::Removed);
    let found = lexer.read(None)?.words();
    Ok(ExpandedWords { words: found.into_iter().map(|it| it.text).collect(), unset: lexer.unset })
}

/// Replaces the variables of a heredoc's text; quotes stay, `\` takes the meaning of what follows.
pub fn expand_body(text: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(text, '\\', lookup, Quotes::Ordinary);
    let found = lexer.read(None)?;
    Ok(Expanded { text: found.text, unset: lexer.unset })
}

/// Checks that [`expand`] can read `text`, whatever the variables are.
pub(super) fn check(text: &str, escape: char) -> Result<(), ExpandError> {
    let mut lexer = Lexer::new(text, escape, &|_| None, Quotes::Removed);
    lexer.keeps_unset = true;
    lexer.read(None).map(drop)
}

/// The words of `text` without their quotes; variables stay as they are.
pub(super) fn unquoted(text: &str) -> Result<Vec<WordAt>, ExpandError> {
    let mut lexer = Lexer::new(text, '\\', &|_| None, Quotes::Removed);
    lexer.keeps_unset = true;
    Ok(lexer.read(None)?.words())
}

/// The words of `text` as a shell would see them, with quotes, escapes and variables as they are.
pub(super) fn split(text: &str) -> Result<Vec<WordAt>, ExpandError> {
    let mut lexer = Lexer::new(text, '\\', &|_| None, Quotes::Kept);
    lexer.keeps_unset = true;
    lexer.keeps_escapes = true;
    Ok(lexer.read(None)?.words())
}

/// A word, and the byte where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WordAt {
    pub(super) text: String,
    pub(super) at: usize,
}

/// What happens to quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They group, and are taken away.
    Removed,
    /// They group, and stay.
    Kept,
    /// They are characters like others.
    Ordinary,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    quotes: Quotes,
    keeps_unset: bool,
    keeps_escapes: bool,
    depth: usize,
    unset: Vec<String>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, lookup: Lookup<'a>, quotes: Quotes) -> Self {
        let (keeps_unset, keeps_escapes) = (false, false);
        let unset = Vec::new();
        Self { text, at: 0, escape, lookup, quotes, keeps_unset, keeps_escapes, depth: 0, unset }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let is_wanted = self.peek() == Some(wanted);
        if is_wanted {
            self.at += wanted.len_utf8();
        }
        is_wanted
    }

    /// Reads to the end, or past `stop`; `None` within if `stop` never came.
    fn read(&mut self, stop: Option<char>) -> Result<Found, ExpandError> {
        let mut found = Found::default();
        while let Some(char) = self.peek() {
            let at = self.at;
            if Some(char) == stop {
                self.next();
                found.is_stopped = true;
                break;
            }
            match char {
                '$' => found.push_value(&self.dollar()?, at),
                '\'' if self.quotes != Quotes::Ordinary => found.push(&self.single_quoted()?, at),
                '"' if self.quotes != Quotes::Ordinary => found.push(&self.double_quoted()?, at),
                _ if char == self.escape => found.push(self.escaped(), at),
                _ => {
                    self.next();
                    found.push_value(char.encode_utf8(&mut [0; 4]), at);
                }
            }
            if found.text.len() > MAX_BYTES {
                return Err(ExpandError::TooLong { limit: MAX_BYTES, at });
            }
        }
        Ok(found)
    }

    /// What an escape character and the one behind it stand for; the last of a text is dropped.
    fn escaped(&mut self) -> &'a str {
        let start = self.at;
        self.next();
        let second = self.at;
        self.next();
        &self.text[if self.keeps_escapes { start } else { second }..self.at]
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let at = self.at;
        let inner = &self.text[at + 1..];
        let length = inner.find('\'').ok_or(ExpandError::Quote { quote: '\'', at })?;
        self.at += length + 2;
        let end = if self.quotes == Quotes::Kept { at..self.at } else { at + 1..self.at - 1 };
        Ok(self.text[end].to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let at = self.at;
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(ExpandError::Quote { quote: '"', at }),
                Some('"') => break,
                Some('$') => text.push_str(&self.dollar()?),
                Some(char) if char == self.escape => text.push_str(self.escaped_in_quotes()),
                Some(char) => {
                    self.next();
                    text.push(char);
                }
            }
            if text.len() > MAX_BYTES {
                return Err(ExpandError::TooLong { limit: MAX_BYTES, at });
            }
        }
        self.next();
        Ok(if self.quotes == Quotes::Kept { format!("\"{text}\"") } else { text })
    }

    /// In double quotes, only `"`, `$` and the escape character itself can be escaped.
    fn escaped_in_quotes(&mut self) -> &'a str {
        let start = self.at;
        self.next();
        let second = self.at;
        let is_special = |it: char| it == '"' || it == '$' || it == self.escape;
        if !self.peek().is_some_and(is_special) {
            return &self.text[start..second];
        }
        self.next();
        &self.text[if self.keeps_escapes { start } else { second }..self.at]
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let at = self.at;
        self.next();
        if !self.next_if('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(name, at) });
        }
        match self.peek() {
            None => return Err(ExpandError::Brace { at }),
            Some('{' | '}' | ':') => return Err(ExpandError::Name { at }),
            Some(_) => {}
        }
        let name = self.name();
        let after = self.at;
        match self.next() {
            None => Err(ExpandError::Brace { at }),
            Some('}') => Ok(self.value(name, at)),
            Some('#') => self.without_start(name, at),
            Some('%') => self.without_end(name, at),
            Some('/') => self.replaced(name, at),
            Some('-' | '+' | '?') => self.alternative(name, at, after),
            Some(':') if matches!(self.peek(), Some('-' | '+' | '?')) => {
                self.next();
                self.alternative(name, at, after)
            }
            Some(_) => {
                self.next_if('}');
                let modifier = self.text[after..self.at].trim_end_matches('}').to_owned();
                Err(ExpandError::Modifier { name: name.to_owned(), modifier, at })
            }
        }
    }

    /// A name of letters, digits and `_`; or a number; or one of the shell's special parameters.
    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_part: fn(char) -> bool = match rest.chars().next() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                return &rest[..1];
            }
            Some(char) if char.is_numeric() => char::is_numeric,
            _ => |it| it.is_alphanumeric() || it == '_',
        };
        let length = rest.find(|it| !is_part(it)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let is_variable = name.starts_with(|it: char| it.is_alphabetic() || it == '_');
        if value.is_none() && is_variable && !self.unset.iter().any(|it| it == name) {
            self.unset.push(name.to_owned());
        }
        value
    }

    /// The value of a variable whose `$…` began at `at` and ends here.
    fn value(&mut self, name: &str, at: usize) -> String {
        match self.lookup(name) {
            Some(value) => value,
            None if self.keeps_unset => self.text[at..self.at].to_owned(),
            None => String::new(),
        }
    }

    /// `${x-w}`, `${x+w}`, `${x?w}`, and the same with `:`, for which an empty value is none.
    fn alternative(&mut self, name: &str, at: usize, after: usize) -> Result<String, ExpandError> {
        let modifier = &self.text[after..self.at];
        let word = self.argument(at, false)?;
        let value = (self.lookup)(name);
        if value.is_none() && self.keeps_unset {
            return Ok(self.text[at..self.at].to_owned());
        }
        let is_set = value.is_some();
        let value = value.filter(|it| !(modifier.starts_with(':') && it.is_empty()));
        match (value, modifier.trim_start_matches(':')) {
            (Some(value), "-" | "?") => Ok(value),
            (None, "-") | (Some(_), _) => Ok(word),
            (None, "+") => Ok(String::new()),
            (None, _) => {
                let message = match (word.is_empty(), is_set) {
                    (false, _) => word,
                    (true, true) => "is not allowed to be empty".to_owned(),
                    (true, false) => "is not allowed to be unset".to_owned(),
                };
                Err(ExpandError::Required { name: name.to_owned(), message, at })
            }
        }
    }

    /// `${x#p}` and `${x##p}`.
    fn without_start(&mut self, name: &str, at: usize) -> Result<String, ExpandError> {
        let is_greedy = self.next_if('#');
        let pattern = self.argument(at, true)?;
        let regex = pattern_regex(&pattern, "^(?:", is_greedy, ")", at)?;
        let value = self.value(name, at);
        let end = regex.find(&value).map_or(0, |it| it.end());
        Ok(value[end..].to_owned())
    }

    /// `${x%p}` and `${x%%p}`.
    fn without_end(&mut self, name: &str, at: usize) -> Result<String, ExpandError> {
        let is_greedy = self.next_if('%');
        let pattern = self.argument(at, true)?;
        // The longest end begins where the least is left before it, and the other way round.
        let before = if is_greedy { "^(.*?)(?:" } else { "^(.*)(?:" };
        let regex = pattern_regex(&pattern, before, true, ")$", at)?;
        let value = self.value(name, at);
        let kept = regex.captures(&value).and_then(|it| it.get(1)).map(|it| it.end());
        Ok(value[..kept.unwrap_or(value.len())].to_owned())
    }

    /// `${x/old/new}` and `${x//old/new}`.
    fn replaced(&mut self, name: &str, at: usize) -> Result<String, ExpandError> {
        let limit = usize::from(!self.next_if('/'));
        let pattern = self.nested(at, true, '/')?;
        if !pattern.is_stopped {
            return Err(ExpandError::Slash { name: name.to_owned(), at });
        }
        let replacement = self.argument(at, true)?;
        let regex = pattern_regex(&pattern.text, "", true, "", at)?;
        let value = self.value(name, at);
        let most = regex.find_iter(&value).count().saturating_mul(replacement.len());
        if most.saturating_add(value.len()) > MAX_BYTES && limit == 0 {
            return Err(ExpandError::TooLong { limit: MAX_BYTES, at });
        }
        Ok(regex.replacen(&value, limit, regex::NoExpand(&replacement)).into_owned())
    }

    /// The rest of `${…}`.
    fn argument(&mut self, at: usize, keeps_escapes: bool) -> Result<String, ExpandError> {
        let found = self.nested(at, keeps_escapes, '}')?;
        if found.is_stopped { Ok(found.text) } else { Err(ExpandError::Brace { at }) }
    }

    fn nested(&mut self, at: usize, keeps_escapes: bool, stop: char) -> Result<Found, ExpandError> {
        if self.depth == MAX_DEPTH {
            return Err(ExpandError::Depth { limit: MAX_DEPTH, at });
        }
        self.depth += 1;
        let before = std::mem::replace(&mut self.keeps_escapes, keeps_escapes);
        let found = self.read(Some(stop));
        self.keeps_escapes = before;
        self.depth -= 1;
        found
    }
}

/// What was read: as one text, and as words.
#[derive(Default)]
struct Found {
    text: String,
    words: Vec<WordAt>,
    word: Option<WordAt>,
    is_stopped: bool,
}

impl Found {
    /// Adds text whose spaces do not split.
    fn push(&mut self, text: &str, at: usize) {
        self.text.push_str(text);
        self.word.get_or_insert(WordAt { text: String::new(), at }).text.push_str(text);
    }

    /// Adds text whose spaces split.
    fn push_value(&mut self, text: &str, at: usize) {
        self.text.push_str(text);
        for (index, part) in text.split(char::is_whitespace).enumerate() {
            if index > 0 {
                self.end_word();
            }
            if !part.is_empty() {
                self.word.get_or_insert(WordAt { text: String::new(), at }).text.push_str(part);
            }
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take().filter(|it| !it.text.is_empty()));
    }

    fn words(mut self) -> Vec<WordAt> {
        self.end_word();
        self.words
    }
}

/// The regular expression for a shell pattern of `*` and `?`.
fn pattern_regex(
    pattern: &str,
    before: &str,
    is_greedy: bool,
    after: &str,
    at: usize,
) -> Result<Regex, ExpandError> {
    let wrong = || ExpandError::Pattern { pattern: pattern.to_owned(), at };
    let mut source = format!("(?s){before}");
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let literal = match char {
            '*' => {
                source.push_str(if is_greedy { ".*" } else { ".*?" });
                continue;
            }
            '?' => {
                source.push('.');
                continue;
            }
            '\\' => match chars.next() {
                // `}` and `/` would end the pattern.
                Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => escaped,
                _ => return Err(wrong()),
            },
            literal => literal,
        };
        source.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
    }
    source.push_str(after);
    Regex::new(&source).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<String> {
        let value = match name {
            "PWD" => "/home",
            "SHELL" => "bash",
            "EMPTY" => "",
            "LIST" => "a b  c",
            "FILE" => "archive.tar.gz",
            "PATH" => "/usr/local/bin",
            "STAR" => "a*b?c",
            "QUOTED" => "it's \"x\"",
            "DOLLAR" => "$PWD",
            "Ünïcode" => "ü",
            "_x1" => "under",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[track_caller]
    fn check_expand(text: &str, want: &str) {
        let got = expand(text, '\\', &value).map(|it| it.text);
        assert_eq!(got.as_deref().unwrap_or_else(|err| panic!("`{text}`: {err}")), want, "{text}");
    }

    #[test]
    fn quotes_are_taken_away() {
        for (text, want) in [
            ("", ""),
            ("hello", "hello"),
            ("he'll'o", "hello"),
            ("he'\"'o", "he\"o"),
            ("'he\\llo'", "he\\llo"),
            ("'$PWD'", "$PWD"),
            ("\"$PWD\"", "/home"),
            ("\"it's\"", "it's"),
            ("\"a\\\"b\"", "a\"b"),
            ("\"a\\$PWD\"", "a$PWD"),
            ("\"a\\\\b\"", "a\\b"),
            ("\"a\\nb\"", "a\\nb"),
            ("a\\nb", "anb"),
            ("a\\ b", "a b"),
            ("a\\'b", "a'b"),
            ("\\$PWD", "$PWD"),
            ("\\\\$PWD", "\\/home"),
            ("a  b", "a  b"),
            ("a\\", "a"),
            ("\"\"", ""),
            ("héllo 'wörld'", "héllo wörld"),
        ] {
            check_expand(text, want);
        }
    }

    #[test]
    fn variables_are_replaced() {
        for (text, want) in [
            ("$PWD", "/home"),
            ("${PWD}", "/home"),
            ("he$PWD.", "he/home."),
            ("he$PWDx.", "he."),
            ("he${PWD}x.", "he/homex."),
            ("$UNSET", ""),
            ("$", "$"),
            ("a$", "a$"),
            ("$.", "$."),
            ("$/x", "$/x"),
            ("he$1x", "hex"),
            ("$10x", "x"),
            ("$@x$*$#$?$-$$$!", "x"),
            ("$_x1", "under"),
            ("$Ünïcode", "ü"),
            ("$DOLLAR", "$PWD"),
            ("$QUOTED", "it's \"x\""),
            ("$LIST", "a b  c"),
            ("$PWD$SHELL", "/homebash"),
        ] {
            check_expand(text, want);
        }
    }

    #[test]
    fn alternatives_depend_on_the_value() {
        for (text, want) in [
            ("${UNSET-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${PWD-x}", "/home"),
            ("${UNSET:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${PWD:-x}", "/home"),
            ("${UNSET:-}", ""),
            ("${UNSET+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${PWD+x}", "x"),
            ("${UNSET:+x}", ""),
            ("${EMPTY:+x}", ""),
            ("${PWD:+x}", "x"),
            ("${PWD?x}", "/home"),
            ("${EMPTY?x}", ""),
            ("${PWD:?x}", "/home"),
            ("${UNSET:-$PWD}", "/home"),
            ("${UNSET:-${EMPTY:-${SHELL}}}", "bash"),
            ("${UNSET:-a b}", "a b"),
            ("${UNSET:-'}'}", "}"),
            ("${UNSET:-\"$PWD\"}", "/home"),
            ("${UNSET:-\\}}", "}"),
            ("${UNSET:-a:b}", "a:b"),
            ("${PWD:+${SHELL}}${UNSET}", "bash"),
        ] {
            check_expand(text, want);
        }
    }

    #[test]
    fn values_are_cut_and_replaced() {
        for (text, want) in [
            ("${FILE#*.}", "tar.gz"),
            ("${FILE##*.}", "gz"),
            ("${FILE%.*}", "archive.tar"),
            ("${FILE%%.*}", "archive"),
            ("${FILE#x}", "archive.tar.gz"),
            ("${FILE%x}", "archive.tar.gz"),
            ("${FILE#????}", "ive.tar.gz"),
            ("${FILE%???}", "archive.tar"),
            ("${FILE##*}", ""),
            ("${FILE%%*}", ""),
            ("${FILE#*}", "archive.tar.gz"),
            ("${FILE%*}", "archive.tar.gz"),
            ("${PATH##*/}", "bin"),
            ("${PATH%/*}", "/usr/local"),
            ("${STAR#a\\*}", "b?c"),
            ("${STAR%\\?c}", "a*b"),
            ("${UNSET#a}", ""),
            ("${FILE/ar/X}", "Xchive.tar.gz"),
            ("${FILE//ar/X}", "Xchive.tX.gz"),
            ("${FILE/ar/}", "chive.tar.gz"),
            ("${FILE//./-}", "archive-tar-gz"),
            ("${FILE/.*/}", "archive"),
            ("${FILE/a?c/X}", "Xhive.tar.gz"),
            ("${PATH//\\//:}", ":usr:local:bin"),
            ("${FILE/tar/$SHELL}", "archive.bash.gz"),
            ("${FILE/tar/${UNSET:-zip}}", "archive.zip.gz"),
            ("${FILE//a/$1}", "rchive.tr.gz"),
            ("${UNSET/a/b}", ""),
            ("${FILE/(/x}", "archive.tar.gz"),
        ] {
            check_expand(text, want);
        }
    }

    #[test]
    fn words_are_split_at_spaces_that_are_not_quoted() {
        for (text, want) in [
            ("", &[][..]),
            ("a b", &["a", "b"]),
            ("  a\t b ", &["a", "b"]),
            ("$LIST", &["a", "b", "c"]),
            ("\"$LIST\"", &["a b  c"]),
            ("x${LIST}y", &["xa", "b", "cy"]),
            ("$EMPTY", &[]),
            ("\"\"", &[]),
            ("a\\ b", &["a b"]),
            ("'a b'c d", &["a bc", "d"]),
            ("$UNSET x", &["x"]),
            ("${UNSET:-p q}", &["p", "q"]),
        ] {
            let got = expand_words(text, '\\', &value).unwrap();
            assert_eq!(got.words, want, "for `{text}`");
        }
    }

    #[test]
    fn the_backtick_escapes_where_it_was_chosen() {
        let got = |text| expand(text, '`', &value).unwrap().text;
        assert_eq!(got("C:\\dir\\$PWD"), "C:\\dir\\/home");
        assert_eq!(got("`$PWD"), "$PWD");
        assert_eq!(got("\"`\"\""), "\"");
    }

    #[test]
    fn the_text_of_a_heredoc_keeps_its_quotes() {
        let got = |text| expand_body(text, &value).unwrap().text;
        assert_eq!(got("it's $PWD\n\"${SHELL}\"\n"), "it's /home\n\"bash\"\n");
        assert_eq!(got("\\$PWD \\\\"), "$PWD \\");
    }

    #[test]
    fn unset_variables_are_told_once() {
        let got = expand("$A${B:-x}${C}$A$1\"$D\"", '\\', &value).unwrap();
        assert_eq!(got.unset, ["A", "C", "D"]);
        assert_eq!(expand_words("$A", '\\', &value).unwrap().unset, ["A"]);
    }

    #[test]
    fn wrong_texts_are_errors() {
        for (text, want, at) in [
            ("a'b", "`'` is not closed", 1),
            ("a\"b", "`\"` is not closed", 1),
            ("a\"b\\\"", "`\"` is not closed", 1),
            ("x${", "`${` is not closed with `}`", 1),
            ("${PWD", "`${` is not closed with `}`", 0),
            ("${PWD:-x", "`${` is not closed with `}`", 0),
            ("${PWD:-${SHELL}", "`${` is not closed with `}`", 0),
            ("${PWD#x", "`${` is not closed with `}`", 0),
            ("${}", "`${` is not followed by the name of a variable", 0),
            ("${{x}}", "`${` is not followed by the name of a variable", 0),
            ("${:-x}", "`${` is not followed by the name of a variable", 0),
            ("${PWD:}", "`:` after `${PWD` is not supported", 0),
            ("${PWD:1}", "`:` after `${PWD` is not supported", 0),
            ("${PWD^^}", "`^` after `${PWD` is not supported", 0),
            ("${PWD[0]}", "`[` after `${PWD` is not supported", 0),
            ("${a.b}", "`.` after `${a` is not supported", 0),
            ("${UNSET?}", "UNSET: is not allowed to be unset", 0),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty", 0),
            ("x ${UNSET:?give it}", "UNSET: give it", 2),
            ("${PWD/a}", "`${PWD/…` has no second `/`: it replaces as in `${PWD/old/new}`", 0),
            ("${PWD/a/b", "`${` is not closed with `}`", 0),
            ("${PWD#\\a}", "`\\a` is not a pattern: only `*`, `?` and `\\` can be escaped", 0),
        ] {
            let err = expand(text, '\\', &value).expect_err(text);
            assert_eq!((err.to_string().as_str(), err.at()), (want, at), "for `{text}`");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = "${a:-".repeat(100_000);
        let err = expand(&deep, '\\', &value).unwrap_err();
        assert_eq!(err.to_string(), "`${…}` is nested more than 64 levels deep");
        let long = |_: &str| Some("x".repeat(1 << 20));
        for text in ["$a", "\"$a\"", "\"$a$a$a$a$a$a$a$a$a$a$a$a\""] {
            let err = expand(&text.repeat(20), '\\', &long).unwrap_err();
            assert!(matches!(err, ExpandError::TooLong { .. }), "{err}");
        }
        let err = expand("${a//x/xxxxxxxxxxxxxxxxxxxx}", '\\', &long).unwrap_err();
        assert!(matches!(err, ExpandError::TooLong { .. }), "{err}");
    }

    #[test]
    fn a_text_can_be_checked_without_values() {
        assert_eq!(check("${X:?needed} \"$Y\" ${Z%%.*}", '\\'), Ok(()));
        assert_eq!(check("${X:-'a}", '\\'), Err(ExpandError::Quote { quote: '\'', at: 5 }));
    }

    #[test]
    fn a_line_can_be_split_as_it_is() {
        let words = split("cat <<'E F' \"a b\" $X${Y:-z}\\ w").unwrap();
        let words: Vec<_> = words.iter().map(|it| (it.at, it.text.as_str())).collect();
        assert_eq!(words, [(0, "cat"), (4, "<<'E F'"), (12, "\"a b\""), (18, "$X${Y:-z}\\ w")]);
    }
}
