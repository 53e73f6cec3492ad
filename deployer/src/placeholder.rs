//! What a template leaves open: `<TOKEN>`, and where it stands.
//!
//! **Architecture invariant:** a template is text. Filling it in changes the placeholders and not
//! one byte more, as `CodePipeline` does it.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The token that stands for the task definition; never one of an image.
pub const TASK_DEFINITION: &str = "TASK_DEFINITION";

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` of `text`.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The name of an image's placeholder, without the angle brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(String);

/// Why some text is not the name of a placeholder.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It has other characters than a placeholder may have, or none.
    #[error("`{0}` is not the name of a placeholder")]
    Name(String),
    /// It is the name of the task definition's placeholder.
    #[error("`{TASK_DEFINITION}` is the placeholder of the task definition, not of an image")]
    Reserved,
}

impl FromStr for Token {
    type Err = TokenError;

    // A token also becomes the name of a folder: no dots, no slashes.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(TokenError::Name(text.to_owned()));
        }
        if text == TASK_DEFINITION {
            return Err(TokenError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Token {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The placeholder as it stands in a template.
    pub fn placeholder(&self) -> String {
        format!("<{}>", self.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A placeholder that nothing has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover<'a> {
    /// The name between the brackets.
    pub token: &'a str,
    /// Where it stands.
    pub place: Place,
}

/// Every `<[A-Z0-9_]+>` that stands in `text`.
pub fn leftovers(text: &str) -> impl Iterator<Item = Leftover<'_>> {
    text.match_indices('<').filter_map(|(offset, _)| {
        let (token, _) = text[offset + 1..].split_once('>')?;
        let allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
        let is_token = !token.is_empty() && token.bytes().all(allowed);
        is_token.then(|| Leftover { token, place: Place::of(text, offset) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_names_that_may_also_be_folders() {
        for (text, want) in [
            ("IMAGE1_NAME", Ok("<IMAGE1_NAME>")),
            ("image-1", Ok("<image-1>")),
            ("", Err(TokenError::Name(String::new()))),
            ("..", Err(TokenError::Name("..".into()))),
            ("a/b", Err(TokenError::Name("a/b".into()))),
            ("<IMAGE1_NAME>", Err(TokenError::Name("<IMAGE1_NAME>".into()))),
            ("TASK_DEFINITION", Err(TokenError::Reserved)),
        ] {
            let found = text.parse::<Token>().map(|token| token.placeholder());
            assert_eq!(found, want.map(str::to_owned), "for `{text}`");
        }
    }

    #[test]
    fn leftovers_have_places() {
        for (text, want) in [
            ("", vec![]),
            ("no placeholder: <b>bold</b>, <>, 1 < 2 > 1", vec![]),
            ("<A_1>", vec![("A_1", 1, 1)]),
            ("é: \"<A>\"\n  b: <C><D>", vec![("A", 1, 5), ("C", 2, 6), ("D", 2, 9)]),
            ("a < <B>", vec![("B", 1, 5)]),
            ("<<B>>", vec![("B", 1, 2)]),
            ("<OPEN", vec![]),
        ] {
            let found: Vec<_> = leftovers(text)
                .map(|leftover| (leftover.token, leftover.place.line, leftover.place.column))
                .collect();
            assert_eq!(found, want, "for `{text}`");
        }
    }
}
