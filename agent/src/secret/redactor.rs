//! What takes secrets out of texts, whole or in a stream.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{
    Secret,
    patterns::{Patterns, SHORTEST, Search},
};
use crate::choice::Masking;

/// Knows the values that output must not show, and writes `***` in their place.
///
/// A value is found only as it is: a part of it, or what a program made of it, is not. Values of
/// less than four bytes are shown, since they would be found in everything. Of values that overlap
/// all is masked.
///
/// Copies share what they know.
#[derive(Clone, Default)]
pub struct Redactor {
    masking: Masking,
    values: Arc<Vec<Secret>>,
    patterns: Option<Arc<Patterns>>,
}

impl Redactor {
    /// Takes out `values`, each also without a line feed at its end, and, if `masking` says so,
    /// each line of it, with and without the blanks around.
    pub fn new(values: Vec<Secret>, masking: Masking) -> Self {
        Self { masking, ..Self::default() }.with(values)
    }

    /// The same with more values.
    #[must_use]
    pub fn with(&self, values: Vec<Secret>) -> Self {
        let mut texts = self.patterns.as_ref().map_or_else(Vec::new, |it| it.texts().to_vec());
        for value in &values {
            add(value.expose(), self.masking, &mut texts);
        }
        let is_long = |it: &Secret| SHORTEST <= it.expose().len();
        let more = values.into_iter().filter(is_long);
        let values = self.values.iter().cloned().chain(more).collect();
        let patterns = Patterns::new(texts).map(Arc::new);
        Self { masking: self.masking, values: Arc::new(values), patterns }
    }

    /// The values that are not shown.
    pub fn values(&self) -> impl Iterator<Item = &Secret> {
        self.values.iter()
    }

    /// Takes the values out of output that comes in pieces.
    pub fn output(&self) -> MaskedOutput {
        MaskedOutput::new(self)
    }

    /// Whether there is nothing that it would take out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_none()
    }

    /// The text without what nobody must see.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Values are UTF-8 and begin and end between characters.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The bytes without what nobody must see.
    pub fn mask_bytes<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let Some(patterns) = &self.patterns else { return Cow::Borrowed(text) };
        if !patterns.may_be_in(text) {
            return Cow::Borrowed(text);
        }
        let mut masked = Vec::with_capacity(text.len());
        patterns.end(&mut patterns.search(), text, &mut |bytes| masked.extend_from_slice(bytes));
        match masked == text {
            true => Cow::Borrowed(text),
            false => Cow::Owned(masked),
        }
    }
}

/// Adds the forms in which a value is looked for.
fn add(value: &str, masking: Masking, texts: &mut Vec<Vec<u8>>) {
    let mut add = |text: &str| {
        if SHORTEST <= text.len() {
            texts.push(text.as_bytes().to_vec());
        }
    };
    add(value);
    // `$(…)` takes line feeds away, and so does whoever prints a line.
    add(value.trim_end_matches(['\r', '\n']));
    if masking == Masking::Lines {
        // Lines without anything to see are part of all that is indented.
        for line in value.lines().filter(|it| !it.trim().is_empty()) {
            add(line);
            // An `echo` without quotes takes away what a line is indented by.
            add(line.trim());
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.patterns.as_ref().map_or(0, |it| it.texts().len());
        write!(f, "Redactor({count} texts)")
    }
}

/// Takes secrets out of a stream, wherever it is cut.
///
/// What may be the beginning of a secret is held back until it is known; that is never more than
/// the longest secret and what was pushed last. All else is handed on at once, as it lies in what
/// was pushed. The stream comes out as [`Redactor::mask_bytes`] would mask the whole of it.
#[derive(Clone, Default)]
pub struct MaskedOutput {
    patterns: Option<Arc<Patterns>>,
    /// What was pushed, from the first byte that is held back on.
    held: Vec<u8>,
    /// The search in what is held.
    search: Option<Search>,
}

impl MaskedOutput {
    /// A stream without what `redactor` takes out.
    pub fn new(redactor: &Redactor) -> Self {
        Self { patterns: redactor.patterns.clone(), held: Vec::new(), search: None }
    }

    /// Takes the next bytes of the stream, and hands to `out` what can be shown by now, perhaps
    /// in many pieces.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        let Some(patterns) = &self.patterns else { return out(bytes) };
        let patterns = Arc::clone(patterns);
        let mut search = self.search.take().unwrap_or_else(|| patterns.search());
        if !self.held.is_empty() {
            let held = self.held.len();
            // That many decide on all that begins in what is held.
            self.held.extend_from_slice(&bytes[..bytes.len().min(patterns.longest())]);
            patterns.scan(&mut search, &self.held, out);
            if search.told() < held {
                self.hold(search);
                return;
            }
            search = search.without(held);
            self.held.clear();
        }
        patterns.scan(&mut search, bytes, out);
        let told = search.told();
        self.held.extend_from_slice(&bytes[told..]);
        self.search = Some(search.without(told));
    }

    /// Hands over what is held back: nothing more comes of what was pushed so far.
    pub fn flush(&mut self, out: &mut dyn FnMut(&[u8])) {
        let Some(patterns) = &self.patterns else { return };
        if let Some(mut search) = self.search.take() {
            patterns.end(&mut search, &self.held, out);
        }
        self.held.clear();
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Holds back what `search` left open.
    fn hold(&mut self, search: Search) {
        let told = search.told();
        self.held.drain(..told);
        self.search = Some(search.without(told));
    }
}

impl fmt::Debug for MaskedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaskedOutput({} bytes held)", self.held.len())
    }
}

#[cfg(test)]
mod tests;
