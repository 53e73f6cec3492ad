//! The patterns of artifacts.
//!
//! **Architecture invariant:** pure: text against text. Which files there are is for
//! [`collect`](super::collect).
//!
//! The rules are those of "doublestar", which CodeBuild uses: `*`, `?`, and `[…]` stay within a
//! component, `**` is any number of components, `{a,b}` is one of both, and dots are not special.
//! A name that is not UTF-8 has replacement characters where it is not.

use std::{
    iter::Peekable,
    path::{Path, PathBuf},
    str::Chars,
};

use regex::Regex;

use crate::artifacts::ArtifactsError;

/// A pattern, split where its wildcards begin.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The components before the first wildcard, or all of them.
    pub(super) start: PathBuf,
    /// What is below `start`; none if there are no wildcards.
    pub(super) rest: Option<Rest>,
}

/// The part of a pattern with wildcards.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    matcher: Regex,
    /// How many components a match may have, if that is limited.
    pub(super) depth: Option<usize>,
}

impl Pattern {
    /// Reads a pattern. It may be absolute, but must not climb over its start.
    pub(super) fn parse(text: &str) -> Result<Self, ArtifactsError> {
        let escapes = || ArtifactsError::Escapes { pattern: text.to_owned() };
        let wildcard = text.find(['*', '?', '[', '{', '\\']);
        let split = match wildcard {
            Some(at) => text[..at].rfind('/').map_or(0, |slash| slash + 1),
            None => text.len(),
        };
        let (start, rest) = text.split_at(split);
        let start = normal(start).ok_or_else(escapes)?;
        if rest.is_empty() {
            return Ok(Self { start, rest: None });
        }
        let rest = tidy(rest);
        if rest.split(['/', '{', ',', '}']).any(|it| it == "..") {
            return Err(escapes());
        }
        let invalid = || ArtifactsError::Pattern { pattern: text.to_owned() };
        let expression = expression(&rest).ok_or_else(invalid)?;
        let matcher = Regex::new(&expression).map_err(|_| invalid())?;
        let depth = (!rest.contains("**")).then(|| rest.split('/').count());
        Ok(Self { start, rest: Some(Rest { matcher, depth }) })
    }

    /// Whether the pattern means the file that has these paths: one below its root, and one from
    /// the root directory.
    pub(super) fn matches(&self, below_root: &Path, full: &Path) -> bool {
        let path = if self.start.is_absolute() { full } else { below_root };
        match (&self.rest, path.strip_prefix(&self.start)) {
            (None, _) => path == self.start,
            (Some(rest), Ok(below)) => rest.matches(below),
            (Some(_), Err(_)) => false,
        }
    }
}

impl Rest {
    /// Whether a path below the start of the pattern matches.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.matcher.is_match(&path.to_string_lossy())
    }
}

/// Any one character of a component.
const ONE: &str = "[^/]";
/// Any number of whole components, each with the slash after it.
const FOLDERS: &str = "(?:[^/]+/)*";
/// All that may be below a folder.
const BELOW: &str = "(?:[^/]+(?:/[^/]+)*)?";

/// The regular expression for a pattern, if it is one.
fn expression(pattern: &str) -> Option<String> {
    let mut expression = String::from(r"\A");
    let mut open = 0_usize;
    // Whether a component begins here.
    let mut is_start = true;
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        let begins = std::mem::replace(&mut is_start, matches!(next, '/' | '{' | ','));
        match next {
            '*' => is_start = stars(&mut rest, begins, &mut expression),
            '?' => expression.push_str(ONE),
            '[' => class(&mut rest, &mut expression)?,
            '{' => {
                open += 1;
                expression.push_str("(?:");
            }
            '}' => {
                open = open.checked_sub(1)?;
                expression.push(')');
            }
            ',' if open > 0 => expression.push('|'),
            '\\' => literal(rest.next()?, &mut expression),
            other => literal(other, &mut expression),
        }
    }
    expression.push_str(r"\z");
    (open == 0).then_some(expression)
}

/// Reads the rest of a run of stars; whether a component begins after it. Two stars are any
/// number of components if they are one by themselves, else they are as one.
fn stars(rest: &mut Peekable<Chars<'_>>, begins: bool, expression: &mut String) -> bool {
    let mut count = 1;
    while rest.next_if_eq(&'*').is_some() {
        count += 1;
    }
    match rest.peek() {
        Some('/') if begins && count == 2 => {
            rest.next();
            expression.push_str(FOLDERS);
            return true;
        }
        None | Some(',' | '}') if begins && count == 2 => expression.push_str(BELOW),
        _ => expression.push_str("[^/]*"),
    }
    false
}

/// Reads a class after its bracket: `abc]`, `a-z]`, `!a]`, or `^a]`.
fn class(rest: &mut Peekable<Chars<'_>>, expression: &mut String) -> Option<()> {
    let is_negated = rest.next_if(|it| matches!(it, '!' | '^')).is_some();
    let mut members = String::new();
    loop {
        let first = member(rest)?;
        literal(first, &mut members);
        if rest.next_if_eq(&'-').is_some() {
            members.push('-');
            literal(member(rest)?, &mut members);
        }
        if rest.next_if_eq(&']').is_some() {
            break;
        }
    }
    // A class does not match a slash, whatever is in it.
    let class = match is_negated {
        true => format!("[^/{members}]"),
        false => format!("[[{members}]&&[^/]]"),
    };
    expression.push_str(&class);
    Some(())
}

/// A character of a class.
fn member(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        ']' | '-' => None,
        other => Some(other),
    }
}

fn literal(it: char, expression: &mut String) {
    expression.push_str(&regex::escape(it.encode_utf8(&mut [0; 4])));
}

/// A path without `.`, `..`, and doubled slashes; none if it climbs over its start.
fn normal(text: &str) -> Option<PathBuf> {
    let mut path = PathBuf::from(if text.starts_with('/') { "/" } else { "" });
    for component in text.split('/').filter(|it| !matches!(*it, "" | ".")) {
        if component == ".." {
            path.file_name()?;
            path.pop();
        } else {
            path.push(component);
        }
    }
    Some(path)
}

/// A pattern without `.` components and doubled slashes.
fn tidy(text: &str) -> String {
    let components = text.split('/').filter(|it| !matches!(*it, "" | "."));
    components.collect::<Vec<_>>().join("/")
}

/// The names of the variables in `text`: `$NAME` and `${NAME}`.
pub(super) fn variables(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    expand(text, |name| {
        names.push(name.to_owned());
        String::new()
    });
    names
}

/// `text` with the value of each of its variables in its place.
pub(super) fn expand(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, end) = match after.strip_prefix('{') {
            Some(inner) => (identifier(inner), identifier(inner).len() + 2),
            None => (identifier(after), identifier(after).len()),
        };
        let is_closed = !after.starts_with('{') || after[1 + name.len()..].starts_with('}');
        if name.is_empty() || !is_closed {
            expanded.push('$');
            rest = after;
            continue;
        }
        expanded.push_str(&value(name));
        rest = &after[end..];
    }
    expanded + rest
}

/// The identifier at the start of `text`, which may be empty.
fn identifier(text: &str) -> &str {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let end = text.find(|it| !is_part(it)).unwrap_or(text.len());
    let name = &text[..end];
    if name.starts_with(|it: char| it.is_ascii_digit()) { "" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_doublestar_does() {
        let paths = ["a", ".a", "d/a", "d/.a", "d/e/a", "d/e/f/a.b", "x[1]", "d/é"];
        for (pattern, want) in [
            ("*", ["a", ".a", "x[1]"].as_slice()),
            ("**/*", &paths),
            ("**", &paths),
            ("d/*", &["d/a", "d/.a", "d/é"]),
            ("d/**/*", &["d/a", "d/.a", "d/e/a", "d/e/f/a.b", "d/é"]),
            ("d/**", &["d/a", "d/.a", "d/e/a", "d/e/f/a.b", "d/é"]),
            ("./d//e/./*", &["d/e/a"]),
            ("**/a", &["a", "d/a", "d/e/a"]),
            ("**/.*", &[".a", "d/.a"]),
            ("*/e/**/a*", &["d/e/a", "d/e/f/a.b"]),
            ("{a,d/a}", &["a", "d/a"]),
            ("{,.}a", &["a", ".a"]),
            ("d/{e/,}a{,.b}", &["d/a", "d/e/a"]),
            ("{d,x}/{a,*/a}", &["d/a", "d/e/a"]),
            ("d/?", &["d/a", "d/é"]),
            ("d/??", &["d/.a"]),
            ("[a-c]", &["a"]),
            ("d/[é-ê]", &["d/é"]),
            ("d/[\\^a\\]]", &["d/a"]),
            ("d[!x]a", &[]),
            ("d[./]a", &[]),
            ("d/{a,.{a,b}}", &["d/a", "d/.a"]),
            ("x{,[[]1[\\]]}", &["x[1]"]),
            ("{a,**/a.b}", &["a", "d/e/f/a.b"]),
            ("d/***", &["d/a", "d/.a", "d/é"]),
            ("d/[!.]*", &["d/a", "d/é"]),
            ("d/[^.]*", &["d/a", "d/é"]),
            ("x\\[1\\]", &["x[1]"]),
            ("d**a", &[]),
        ] {
            let Pattern { start, rest } = Pattern::parse(pattern).unwrap();
            let rest = rest.unwrap();
            let is_in_reach = |it: &Path| rest.depth.is_none_or(|max| it.iter().count() <= max);
            let matching: Vec<&str> = paths
                .into_iter()
                .filter(|path| {
                    let below = Path::new(path).strip_prefix(&start);
                    below.is_ok_and(|it| rest.matches(it) && is_in_reach(it))
                })
                .collect();
            assert_eq!(matching, want, "for {pattern}");
        }
    }

    #[test]
    fn patterns_start_where_their_wildcards_do() {
        for (pattern, start, is_literal) in [
            ("a/b", "a/b", true),
            ("./a//b/", "a/b", true),
            ("/tmp/x.json", "/tmp/x.json", true),
            ("a/b*", "a", false),
            ("a/../b/*", "b", false),
            ("*", "", false),
            ("/tmp/*", "/tmp", false),
            ("/../x", "", true),
        ] {
            match Pattern::parse(pattern) {
                Ok(it) => assert_eq!((it.start, it.rest.is_none()), (start.into(), is_literal)),
                Err(err) => assert_eq!(err.to_string(), "`/../x` leads out of the base directory"),
            }
        }
        for pattern in ["../x", "a/../../x", "../*", "*/../x", "{a,..}/x"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
        for pattern in ["a[", "[]", "[a-]", "[z-a]", "{a", "*}", "a\\", "[!]", &"{".repeat(9999)] {
            let err = Pattern::parse(pattern).unwrap_err();
            assert!(matches!(err, ArtifactsError::Pattern { .. }), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_means_files_by_their_path_below_the_root_or_by_their_full_path() {
        for (pattern, want) in [
            ("d/x", true),
            ("./d//x", true),
            ("d", false),
            ("x", false),
            ("d/*", true),
            ("*", false),
            ("**/x", true),
            ("**/d/**/*", true),
            ("**/.*/**/*", false),
            ("/src/d/x", true),
            ("/src/**", true),
            ("/d/x", false),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(Path::new("d/x"), Path::new("/src/d/x")), want);
        }
    }

    #[test]
    fn variables_are_found_and_replaced() {
        for (text, names, want) in [
            ("$A/x", ["A"].as_slice(), "<A>/x"),
            ("${A}b/$C_1.x", &["A", "C_1"], "<A>b/<C_1>.x"),
            ("a$", &[], "a$"),
            ("$1 ${1} $$ ${A", &[], "$1 ${1} $$ ${A"),
            ("${A:-b}", &[], "${A:-b}"),
            ("é$A$B", &["A", "B"], "é<A><B>"),
            ("", &[], ""),
        ] {
            assert_eq!(variables(text), names, "for {text}");
            assert_eq!(expand(text, |name| format!("<{name}>")), want);
        }
    }
}
