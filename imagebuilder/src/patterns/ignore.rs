//! `.dockerignore` files: which paths of a context are not there.
//!
//! The rules are those of moby's `patternmatcher`, which `BuildKit` uses while it walks a context:
//! the last pattern that matches a path or one of its parents decides, and a pattern is only asked
//! when it could change what the patterns before it decided. (That is why a pattern that names a
//! folder which was ignored already does not ignore again what an exception let through below it.)

use regex::Regex;
use thiserror::Error;

use super::glob::{self, GlobError, Token};

/// How many patterns a file may have.
const MAX_PATTERNS: usize = 10_000;
/// How long a pattern may be; longer paths do not exist.
const MAX_PATTERN_BYTES: usize = 4096;

/// The patterns of a `.dockerignore` file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What the patterns say of a path, and what is needed to judge what lies below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is ignored.
    pub ignored: bool,
    /// Which patterns matched; empty if none did.
    matched: Vec<bool>,
}

/// Why some text is not an ignore file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct PatternError {
    /// What is wrong.
    pub kind: PatternErrorKind,
    /// The line of the file, from 1.
    pub line: usize,
}

/// What is wrong with a line of an ignore file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternErrorKind {
    /// There is nothing behind `!`.
    #[error("`!` is not followed by a pattern")]
    NothingExcepted,
    /// The pattern cannot be read.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A range in `[…]` ends before it begins.
    #[error("the range `{low}-{high}` ends before it begins")]
    Range {
        /// Its first character.
        low: char,
        /// Its last character.
        high: char,
    },
    /// The pattern is too long.
    #[error("the pattern has {found} bytes, and no path has more than {limit}")]
    TooLong {
        /// Its length.
        found: usize,
        /// The longest that can match.
        limit: usize,
    },
    /// The pattern needs more memory than it may.
    #[error("the pattern `{pattern}` is too large")]
    TooLarge {
        /// The pattern.
        pattern: String,
    },
    /// There are too many patterns.
    #[error("there are more than {limit} patterns")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
}

#[derive(Clone, Debug)]
struct Pattern {
    is_exception: bool,
    text: String,
    matcher: Matcher,
}

/// The common shapes need no regular expression.
#[derive(Clone, Debug)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
}

impl Ignore {
    /// Reads the text of an ignore file.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at = |kind| PatternError { kind, line: index + 1 };
            let Some((is_exception, text)) = clean_line(line) else { continue };
            let pattern = Pattern::parse(is_exception, text).map_err(at)?;
            if patterns.len() == MAX_PATTERNS {
                return Err(at(PatternErrorKind::TooMany { limit: MAX_PATTERNS }));
            }
            patterns.push(pattern);
        }
        Ok(Self { patterns })
    }

    /// Tells whether a path is ignored; `path` is relative to the context, without `.` and `..`.
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let mut verdict = Verdict::default();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            verdict = self.matches_with_parent(&path[..end], &verdict);
        }
        verdict.ignored
    }

    /// Judges a path when its folder was judged already; the folder of a path at the top of the
    /// context has the default verdict. Cheaper than [`Ignore::matches`] in a walk.
    pub fn matches_with_parent(&self, path: &[u8], parent: &Verdict) -> Verdict {
        let path = glob::decode(path);
        let mut verdict = Verdict::default();
        for (index, pattern) in self.patterns.iter().enumerate() {
            let below_match = parent.matched.get(index).copied().unwrap_or(false);
            let could_change = pattern.is_exception == verdict.ignored;
            if below_match || could_change && pattern.matcher.matches(&path) {
                verdict.ignored = !pattern.is_exception;
                verdict.matched.resize(self.patterns.len(), false);
                verdict.matched[index] = true;
            }
        }
        verdict
    }

    /// Tells whether an exception could match something below `folder`; if not, an ignored folder
    /// need not be read. May say yes where there is nothing, never no where there is something.
    pub fn may_have_exceptions_below(&self, folder: &[u8]) -> bool {
        let folder = glob::decode(folder);
        self.patterns.iter().any(|it| it.is_exception && it.may_match_below(&folder))
    }
}

impl Pattern {
    fn parse(is_exception: bool, text: String) -> Result<Self, PatternErrorKind> {
        if text.is_empty() {
            return Err(PatternErrorKind::NothingExcepted);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternErrorKind::TooLong { found: text.len(), limit: MAX_PATTERN_BYTES });
        }
        let matcher = Matcher::new(&text)?;
        Ok(Self { is_exception, text, matcher })
    }

    fn may_match_below(&self, folder: &str) -> bool {
        // `**` spans folders, and so may `[^a]`.
        if self.text.contains("**") || self.text.contains('[') {
            return true;
        }
        let mut names = self.text.split('/');
        let on_the_way = folder.split('/').all(|folder| {
            let glob = names.next().map(glob::Glob::parse);
            glob.is_some_and(|it| it.is_ok_and(|it| it.matches(folder.as_bytes())))
        });
        on_the_way && names.next().is_some()
    }
}

impl Matcher {
    fn new(pattern: &str) -> Result<Self, PatternErrorKind> {
        let pieces = pieces(glob::tokens(pattern)?);
        let literal = |pieces: &[Piece]| pieces.iter().map(Piece::literal).collect::<Option<_>>();
        let shape = match pieces.as_slice() {
            [Piece::Folders { .. }] => Some(Self::Suffix(String::new())),
            [Piece::Folders { slash: true }, rest @ ..] => {
                literal(rest).map(|name: String| Self::Suffix(format!("/{name}")))
            }
            // moby takes `**x` for any end of a name, but only where nothing in it is escaped.
            [Piece::Folders { slash: false }, rest @ ..] if !pattern.contains('\\') => {
                literal(rest).map(Self::Suffix)
            }
            [rest @ .., Piece::Folders { .. }] => literal(rest).map(Self::Prefix),
            all => literal(all).map(Self::Exact),
        };
        match shape {
            Some(shape) => Ok(shape),
            None => regex(&pieces, pattern).map(Self::Regex),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(whole) => path == whole,
            Self::Prefix(start) => path.starts_with(start.as_str()),
            Self::Suffix(end) => {
                path.ends_with(end.as_str()) || end.strip_prefix('/').is_some_and(|it| it == path)
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// A part of a pattern of an ignore file.
enum Piece {
    One(Token),
    /// `**`: any number of folders, with the slash behind it if there is one.
    Folders {
        slash: bool,
    },
}

impl Piece {
    fn literal(&self) -> Option<char> {
        match self {
            Self::One(Token::Literal(char)) => Some(*char),
            _ => None,
        }
    }
}

fn pieces(tokens: Vec<Token>) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if token != Token::Star || tokens.next_if_eq(&Token::Star).is_none() {
            pieces.push(Piece::One(token));
            continue;
        }
        let slash = tokens.next_if_eq(&Token::Literal('/')).is_some();
        pieces.push(Piece::Folders { slash });
    }
    pieces
}

fn regex(pieces: &[Piece], pattern: &str) -> Result<Regex, PatternErrorKind> {
    let mut source = String::from("^");
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Folders { .. } if index + 1 == pieces.len() => source.push_str(".*"),
            Piece::Folders { .. } => source.push_str("(?:.*/)?"),
            Piece::One(Token::Star) => source.push_str("[^/]*"),
            Piece::One(Token::Any) => source.push_str("[^/]"),
            Piece::One(Token::Literal(char)) => push_char(&mut source, *char),
            Piece::One(Token::Class { negated, ranges }) => {
                source.push_str(if *negated { "[^" } else { "[" });
                for (low, high) in ranges {
                    if low > high {
                        return Err(PatternErrorKind::Range { low: *low, high: *high });
                    }
                    push_char(&mut source, *low);
                    source.push('-');
                    push_char(&mut source, *high);
                }
                source.push(']');
            }
        }
    }
    source.push('$');
    Regex::new(&source).map_err(|_| PatternErrorKind::TooLarge { pattern: pattern.to_owned() })
}

fn push_char(source: &mut String, char: char) {
    source.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
}

/// The pattern of a line, and whether it is an exception; `None` for a comment or an empty line.
fn clean_line(line: &str) -> Option<(bool, String)> {
    let trimmed = line.trim();
    if line.starts_with('#') || trimmed.is_empty() {
        return None;
    }
    let Some(excepted) = trimmed.strip_prefix('!') else {
        return Some((false, clean_path(trimmed)));
    };
    let excepted = match excepted.trim() {
        "" => String::new(),
        excepted => clean_path(excepted),
    };
    Some((true, if excepted == "/" { String::new() } else { excepted }))
}

/// The shortest way to write a path, as Go's `filepath.Clean` has it, without a leading slash.
fn clean_path(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|it| *it != "..") => drop(names.pop()),
            ".." if is_absolute => {}
            name => names.push(name),
        }
    }
    match names.as_slice() {
        [] if is_absolute => "/".to_owned(),
        [] => ".".to_owned(),
        names => names.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ignore: &str, path: &str, want: bool) {
        let parsed = Ignore::parse(ignore).unwrap();
        assert_eq!(parsed.matches(path.as_bytes()), want, "{ignore:?} on `{path}`");
    }

    #[test]
    fn one_pattern_matches_as_documented() {
        for (ignore, path, want) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**file", "dir/afile", true),
            ("**/file", "file", true),
            ("**/file", "dir/file", true),
            ("**/file", "dir/afile", false),
            ("**file*", "dir/filetxt", true),
            ("**file*txt", "dir/dir/file.txt", true),
            ("**/*.txt", "dir/file.txt", true),
            ("**/*.txt", "file.txt", true),
            ("**/*.txt", "file.txt.bak", false),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a.*", "a.", true),
            ("a.*", "axb", false),
            ("a**b", "ab", true),
            ("a**b", "a/x/b", true),
            ("a**b", "axb", false),
            ("foo**", "foobar/baz", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aze", false),
            ("a[^b-d]e", "aze", true),
            ("a[^b-d]e", "ace", false),
            ("a[!b]e", "a!e", true),
            ("a[&&b]c", "a&c", true),
            ("[~~a]", "~", true),
            ("[[]x", "[x", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("\\#x", "#x", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a*c", "a/c", false),
            ("{a,b}", "a", false),
            ("a+(b)|c$", "a+(b)|c$", true),
            ("a^b*", "a^bc", true),
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            (".*", ".git", true),
            (".*", ".git/config", true),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "a/node_modules", false),
            ("node_modules", "node_modules2", false),
            ("**/node_modules", "a/node_modules/b", true),
            ("日本語", "日本語/x", true),
            ("日?語", "日本語", true),
            ("abc", "ABC", false),
        ] {
            check(ignore, path, want);
        }
    }

    #[test]
    fn lines_are_cleaned_first() {
        for (ignore, path, want) in [
            ("/foo", "foo", true),
            ("/foo", "a/foo", false),
            ("foo/", "foo", true),
            ("./foo", "foo", true),
            ("foo//bar", "foo/bar", true),
            ("foo/../bar", "bar", true),
            ("/../foo", "foo", true),
            ("  foo  ", "foo", true),
            ("\tfoo\r", "foo", true),
            ("foo\r\nbar\r\n", "bar", true),
            ("# foo", "# foo", false),
            (" #foo", "#foo", true),
            ("foo # bar", "foo", false),
            ("foo # bar", "foo # bar", true),
            ("\u{feff}foo", "foo", true),
            ("*\n! /foo", "foo", false),
            ("*\n!foo/", "foo/x", false),
            (".", "foo", false),
            ("/", "foo", false),
            ("..", "foo", false),
            ("../foo", "foo", false),
            ("", "foo", false),
        ] {
            check(ignore, path, want);
        }
    }

    #[test]
    fn the_last_match_wins() {
        for (ignore, path, want) in [
            ("*\n!a", "a", false),
            ("*\n!a", "b", true),
            ("!a\n*", "a", true),
            ("*\n!a\na/b", "a/b", true),
            ("*\n!a\na/b", "a/c", false),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/b/c", false),
            ("a\n!a/b", "a/c", true),
            ("a\n!a/b", "a", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "x.md", true),
            ("docs/*\n!docs/*.md", "docs/a.md", false),
            ("docs/*\n!docs/*.md", "docs/sub/a.md", true),
            ("**\n!**/*.go", "a/b.go", false),
            ("**\n!**/*.go", "a/b.c", true),
            ("target\n!target/release/app", "target/release/app", false),
            ("target\n!target/release/app", "target/release/other", true),
        ] {
            check(ignore, path, want);
        }
    }

    #[test]
    fn a_folder_is_not_ignored_twice() {
        // `vendor` is not asked about the folder, which `**` ignores already, and it does not
        // match the file itself: so the exception stands, as it does in BuildKit.
        check("**\n!**/*.go\nvendor", "vendor/a.go", false);
        check("**\n!**/*.go\nvendor/**", "vendor/a.go", true);
    }

    #[test]
    fn bytes_that_are_no_text_match_wildcards() {
        let ignore = Ignore::parse("a*b\nc?d\n**/x\ny/**").unwrap();
        assert!(ignore.matches(b"a\xff\xfeb"));
        assert!(ignore.matches(b"c\xffd"));
        assert!(!ignore.matches(b"c\xff\xffd"));
        assert!(ignore.matches(b"\xff/x"));
        assert!(ignore.matches(b"y/\xff"));
    }

    #[test]
    fn ignored_folders_are_read_only_for_exceptions() {
        for (ignore, folder, want) in [
            ("a", "a", false),
            ("a\n!b", "a", false),
            ("a\n!a/b", "a", true),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/c", false),
            ("a\n!a/b/c", "a/b", true),
            ("a\n!a/*/c", "a/x", true),
            ("a\n!a/*/c", "a/x/c", false),
            ("a\n!*/b", "a", true),
            ("a\n!**/b", "a/x/y", true),
            ("a\n!b/**", "a", true),
            ("a\n!?", "a", false),
            ("a\n!a", "a", false),
        ] {
            let parsed = Ignore::parse(ignore).unwrap();
            assert_eq!(
                parsed.may_have_exceptions_below(folder.as_bytes()),
                want,
                "{ignore:?} below `{folder}`"
            );
        }
    }

    #[test]
    fn a_walk_that_skips_folders_finds_the_same() {
        let mut random = fastrand::Rng::with_seed(7);
        let names = ["a", "b", "ab", "a.c"];
        let parts = ["a", "b", "*", "**", "?", "a*", "[a-b]", "*.c", "[^a]", "**b"];
        for _ in 0..2000 {
            let mut text = String::new();
            for _ in 0..random.usize(1..5) {
                let depth = random.usize(1..4);
                let pattern: Vec<_> = (0..depth).map(|_| random.choice(parts).unwrap()).collect();
                text.push_str(if random.u8(..3) == 0 { "!" } else { "" });
                text.push_str(&pattern.join("/"));
                text.push('\n');
            }
            let ignore = Ignore::parse(&text).unwrap();
            for _ in 0..20 {
                let depth = random.usize(1..5);
                let path: Vec<_> = (0..depth).map(|_| random.choice(names).unwrap()).collect();
                assert_skips_are_right(&ignore, &path, &text);
            }
        }
    }

    fn assert_skips_are_right(ignore: &Ignore, path: &[&str], text: &str) {
        let whole = path.join("/");
        for depth in 1..path.len() {
            let folder = path[..depth].join("/");
            let is_skipped = ignore.matches(folder.as_bytes())
                && !ignore.may_have_exceptions_below(folder.as_bytes());
            if is_skipped {
                assert!(ignore.matches(whole.as_bytes()), "{text:?}: `{folder}` hides `{whole}`");
            }
        }
    }

    #[test]
    fn wrong_lines_are_errors() {
        let line = |text: &str| {
            let err = Ignore::parse(text).unwrap_err();
            format!("{}: {err}", err.line)
        };
        assert_eq!(line("a\n!"), "2: `!` is not followed by a pattern");
        assert_eq!(line("! /./"), "1: `!` is not followed by a pattern");
        assert_eq!(line("\n\n[z-a]"), "3: the range `z-a` ends before it begins");
        assert_eq!(
            line("a[b"),
            "1: `[` in the pattern `a[b` does not begin a list of characters that `]` ends"
        );
        assert_eq!(line("a\\"), "1: `\\` at the end of the pattern `a\\` escapes nothing");
        assert_eq!(
            line(&"a".repeat(5000)),
            "1: the pattern has 5000 bytes, and no path has more than 4096"
        );
        assert_eq!(line(&"a\n".repeat(10_001)), "10001: there are more than 10000 patterns");
    }
}
