//! One name of a path against one name of a pattern.

use std::borrow::Cow;

use thiserror::Error;

/// A pattern for one name of a path: `*`, `?`, `[a-z]`, `[^a]`, and `\` before any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// Why some text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GlobError {
    /// `[` is not closed, or what is in it is not a list of characters and ranges.
    #[error("`[` in the pattern `{pattern}` does not begin a list of characters that `]` ends")]
    Class {
        /// The pattern.
        pattern: String,
    },
    /// There is nothing behind the last `\`.
    #[error("`\\` at the end of the pattern `{pattern}` escapes nothing")]
    Escape {
        /// The pattern.
        pattern: String,
    },
}

/// What a part of a pattern stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Literal(char),
    /// `?`: any one character.
    Any,
    /// `*`: any characters.
    Star,
    /// `[…]`: one character of a list, or one that is not in it.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a pattern.
    pub fn parse(pattern: &str) -> Result<Self, GlobError> {
        Ok(Self { tokens: tokens(pattern)? })
    }

    /// Tells whether the whole `name` fits.
    pub fn matches(&self, name: &[u8]) -> bool {
        let name: Vec<char> = decode(name).chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where to go on with one more character for the last `*`, when what follows it fails.
        let mut retry = None;
        while token < self.tokens.len() || at < name.len() {
            match (self.tokens.get(token), name.get(at)) {
                (Some(Token::Star), _) => {
                    retry = Some((token, at + 1));
                    token += 1;
                    continue;
                }
                (Some(one), Some(&char)) if one.fits(char) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let Some((star, next)) = retry.filter(|(_, next)| *next <= name.len()) else {
                return false;
            };
            (token, at) = (star, next);
        }
        true
    }
}

impl Token {
    fn fits(&self, char: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == char,
            Self::Any => true,
            Self::Star => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != *negated
            }
        }
    }
}

/// Tells whether `text` is a pattern and not just a name.
pub fn has_wildcard(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// The parts of `pattern`.
pub(super) fn tokens(pattern: &str) -> Result<Vec<Token>, GlobError> {
    let mut rest = pattern.chars();
    let mut tokens = Vec::new();
    while let Some(char) = rest.next() {
        tokens.push(match char {
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => {
                class(&mut rest).ok_or_else(|| GlobError::Class { pattern: pattern.to_owned() })?
            }
            '\\' => {
                let escaped = rest.next();
                Token::Literal(
                    escaped.ok_or_else(|| GlobError::Escape { pattern: pattern.to_owned() })?,
                )
            }
            literal => Token::Literal(literal),
        });
    }
    Ok(tokens)
}

fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    while ranges.is_empty() || !rest.as_str().starts_with(']') {
        let low = class_char(rest)?;
        let high = if rest.as_str().starts_with('-') {
            rest.next();
            class_char(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    rest.next();
    Some(Token::Class { negated, ranges })
}

fn class_char(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        char => Some(char),
    }
}

/// The characters of a path; each byte that is no UTF-8 becomes U+FFFD.
pub(super) fn decode(path: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(path) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, want) in [
            ("", "", true),
            ("", "a", false),
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("*", "", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("a*b*c", "a123b45c", true),
            ("a*b*c", "a123b45", false),
            ("a*b*c*", "abc", true),
            ("*a*b", "aab", true),
            ("*aab", "aaab", true),
            ("**", "ab", true),
            ("?", "a", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?", "aé", true),
            ("a??", "aé", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[!a]", "!", true),
            ("[!a]", "b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "-", true),
            ("[\\-x]", "a", false),
            ("[z-a]", "m", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("\\a", "a", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[?]x", "?x", true),
            ("file[[]1].txt", "file[1].txt", true),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            ("a.c", "abc", false),
            ("a+", "aa", false),
            ("]", "]", true),
            ("a-b", "a-b", true),
            ("^a$", "^a$", true),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.matches(name.as_bytes()), want, "`{pattern}` on `{name}`");
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_one_character() {
        for (pattern, name, want) in [
            ("a?b", &b"a\xffb"[..], true),
            ("a??b", b"a\xffb", false),
            ("a??b", b"a\xe2\x82b", true),
            ("*b", b"\xff\xfeb", true),
            ("[^a]", b"\xff", true),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.matches(name), want, "`{pattern}` on {name:?}");
        }
    }

    #[test]
    fn bad_patterns_are_errors() {
        for pattern in ["[", "[]", "[]a]", "[a", "[a-", "[a-]", "[-]", "[-x]", "[^", "[^]", "[^]a]"]
        {
            let want = GlobError::Class { pattern: pattern.to_owned() };
            assert_eq!(Glob::parse(pattern), Err(want));
        }
        assert_eq!(Glob::parse("a\\"), Err(GlobError::Escape { pattern: "a\\".to_owned() }));
        assert!(Glob::parse("[a\\").is_err());
    }

    #[test]
    fn many_stars_are_not_slow() {
        let glob = Glob::parse(&"*a".repeat(50)).unwrap();
        assert!(!glob.matches("b".repeat(20_000).as_bytes()));
        let mut name = "a".repeat(20_000);
        name.push('b');
        assert!(!glob.matches(name.as_bytes()));
    }

    #[test]
    fn escaped_characters_are_no_wildcards() {
        for (text, want) in [
            ("a/b.c", false),
            ("*", true),
            ("a?", true),
            ("[a]", true),
            ("a\\*", false),
            ("a\\\\*", true),
            ("a]", false),
            ("a\\", false),
        ] {
            assert_eq!(has_wildcard(text), want, "for `{text}`");
        }
    }
}
