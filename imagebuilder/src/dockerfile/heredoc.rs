//! `<<NAME`: which words of a line begin a heredoc.

use super::{lines::Part, words};

/// The beginning of a heredoc.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) expands: bool,
    pub(super) strips_tabs: bool,
    pub(super) descriptor: u32,
    /// The byte of the part where it begins.
    pub(super) at: usize,
}

/// The heredocs that `part` begins; none if it cannot be read as words.
pub(super) fn heads(part: Part<'_>) -> Vec<Head> {
    if !part.text.contains("<<") {
        return Vec::new();
    }
    let words = words::split(part.text).unwrap_or_default();
    words.into_iter().filter_map(|it| head(&it.text, it.at)).collect()
}

/// The heredoc that `word` begins, if it is all of the word.
pub(super) fn head(word: &str, at: usize) -> Option<Head> {
    let digits = word.find(|it: char| !it.is_ascii_digit())?;
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strips_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.contains('<') {
        return None;
    }
    let mut words = words::unquoted(rest).ok()?;
    let name = words.pop().filter(|_| words.is_empty())?.text;
    // Quotes that were taken away say that the text is to stay as it is.
    let expands = quotes(&name) == quotes(rest);
    Some(Head { name, expands, strips_tabs, descriptor: descriptor.parse().unwrap_or(0), at })
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_words_of_their_own() {
        for (word, want) in [
            ("<<EOF", Some("EOF expands")),
            ("<<-EOF", Some("EOF expands tabs")),
            ("<<'EOF'", Some("EOF")),
            ("<<\"E F\"", Some("E F")),
            ("<<-\"EOF\"", Some("EOF tabs")),
            ("3<<EOF", Some("3 EOF expands")),
            ("<<E'O'F", Some("EOF")),
            ("<<\\EOF", Some("EOF expands")),
            ("<<script.sh", Some("script.sh expands")),
            ("<<$X", Some("$X expands")),
            ("<<", None),
            ("<<-", None),
            ("<<''", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("a<<EOF", None),
            ("<<EOF<", None),
            ("<<a b", None),
            ("<<'a", None),
            ("", None),
            ("12", None),
        ] {
            let got = head(word, 0).map(|it| {
                let descriptor = match it.descriptor {
                    0 => String::new(),
                    number => format!("{number} "),
                };
                let expands = if it.expands { " expands" } else { "" };
                let tabs = if it.strips_tabs { " tabs" } else { "" };
                format!("{descriptor}{}{expands}{tabs}", it.name)
            });
            assert_eq!(got.as_deref(), want, "for `{word}`");
        }
    }
}
