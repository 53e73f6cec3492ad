//! Places in files that people wrote.
//!
//! **Architecture invariant:** a place says where, and nothing else. Who shows it draws it.

use std::fmt;

/// A line and a column, both counted from 1, the column in characters.
///
/// A byte order mark at the start of a file is in no column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` in `text`; what is not UTF-8 counts a column a byte.
    pub(crate) fn of(text: &[u8], offset: usize) -> Self {
        let before = &text[..offset.min(text.len())];
        let lines: Vec<&[u8]> = before.split(|byte| *byte == b'\n').collect();
        let last = lines.last().copied().unwrap_or_default();
        Self { line: lines.len(), column: String::from_utf8_lossy(last).chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        for (text, offset, want) in
            [("ab", 0, "1:1"), ("ab\nc", 3, "2:1"), ("é: x", 4, "1:4"), ("a", 9, "1:2")]
        {
            assert_eq!(Place::of(text.as_bytes(), offset).to_string(), want, "for {text:?}");
        }
    }
}
