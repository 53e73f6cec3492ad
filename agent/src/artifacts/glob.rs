//! The patterns of artifacts.
//!
//! **Architecture invariant:** pure: text against text. Which files there are is for
//! [`collect`](super::collect).
//!
//! The rules are those of "doublestar", which CodeBuild uses: `*`, `?`, and `[…]` stay within a
//! component, `**` is any number of components, `{a,b}` is one of both, and dots are not special.
//! (One difference: `?` and `[…]` are one byte here, not one character.)

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

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
    matcher: GlobMatcher,
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
        let matcher = GlobBuilder::new(&rest)
            .literal_separator(true)
            .empty_alternates(true)
            .build()
            .map_err(|source| ArtifactsError::Pattern { pattern: text.to_owned(), source })?
            .compile_matcher();
        let depth = (!rest.contains("**")).then(|| rest.split('/').count());
        Ok(Self { start, rest: Some(Rest { matcher, depth }) })
    }
}

impl Rest {
    /// Whether a path below the start of the pattern matches.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.matcher.is_match(path)
    }
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
            ("d/?", &["d/a"]),
            ("[a-c]", &["a"]),
            ("d/??", &["d/.a", "d/é"]),
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
        assert!(Pattern::parse("a[").is_err());
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
