//! Arguments as a JSON array of texts.

use super::{Word, lines::Part};

/// What some arguments are.
pub(super) enum Json {
    /// An array of texts.
    Texts(Vec<Word>),
    /// An array with something else in it.
    Mixed,
    /// No array.
    None,
}

/// Reads `part` as a JSON array.
pub(super) fn parse(part: Part<'_>) -> Json {
    if !part.text.starts_with('[') {
        return Json::None;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(part.text) else {
        return Json::None;
    };
    let starts = text_starts(part.text).into_iter().map(|it| part.place_at(it));
    let words = values.into_iter().zip(starts.chain(std::iter::repeat(part.place())));
    let words = words.map(|(value, place)| match value {
        serde_json::Value::String(text) => Some(Word { text, place }),
        _ => None,
    });
    match words.collect() {
        Some(words) => Json::Texts(words),
        None => Json::Mixed,
    }
}

/// Where the texts of a flat array begin.
fn text_starts(array: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut is_inside = false;
    let mut bytes = array.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => {
                if !is_inside {
                    starts.push(at);
                }
                is_inside = !is_inside;
            }
            _ => {}
        }
    }
    starts
}

/// Tells whether text that is no array was meant to be one: `['a', 'b']`, `["a" "b"]`.
///
/// `[ "$x" = y ]` is a command, so a space behind `[` needs a comma to make it an array.
pub(super) fn was_meant(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')) else {
        return false;
    };
    let is_quote = |it: char| matches!(it, '"' | '\'' | '“' | '”' | '‘' | '’');
    inner.starts_with(is_quote) || inner.trim_start().starts_with(is_quote) && inner.contains(',')
}
