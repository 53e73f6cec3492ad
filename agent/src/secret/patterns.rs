//! The texts that must not be shown, as an automaton that finds them.
//!
//! Of two texts that begin at the same place the longer one counts, and of two that overlap the
//! one that begins first. The search can stop after any byte and go on later: a [`Search`] is all
//! that it has to remember.
//!
//! **Architecture invariant:** the only search there is. What masks a whole text and what masks a
//! stream cannot differ.

use std::collections::HashMap;

use aho_corasick::{
    AhoCorasick, Anchored, MatchKind,
    automaton::{Automaton, StateID},
    nfa::contiguous::NFA,
};

/// What stands in the place of a text.
const MASK: &[u8] = b"***";
/// The least bytes of a text. Shorter ones would be found in what is no secret.
pub(super) const SHORTEST: usize = 4;

/// Texts of at least [`SHORTEST`] bytes; there is at least one.
pub(super) struct Patterns {
    texts: Vec<Vec<u8>>,
    automaton: NFA,
    /// Where a text may begin: its first bytes. Faster than the automaton by far.
    beginnings: AhoCorasick,
    /// How many bytes lead to a state, for every state from which more bytes can lead to a text.
    depths: HashMap<StateID, usize>,
    start: StateID,
    longest: usize,
}

/// How far a search came in a text.
#[derive(Clone, Copy)]
pub(super) struct Search {
    state: StateID,
    /// How many bytes were looked at.
    seen: usize,
    /// How many bytes were handed over, or masked.
    told: usize,
    /// What was found, and may become longer.
    found: Option<(usize, usize)>,
}

impl Patterns {
    /// An automaton for `texts`, if there are any.
    pub(super) fn new(mut texts: Vec<Vec<u8>>) -> Option<Self> {
        texts.retain(|it| SHORTEST <= it.len());
        texts.sort_unstable();
        texts.dedup();
        let longest = texts.iter().map(Vec::len).max()?;
        // It fails at 2 GiB of texts, which no process could have in its environment.
        let automaton = NFA::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .prefilter(false)
            .build(&texts)
            .expect("texts of less than 2 GiB");
        let mut heads: Vec<&[u8]> = texts.iter().map(|it| &it[..SHORTEST]).collect();
        heads.dedup();
        let beginnings = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(&heads)
            .expect("texts of four bytes each");
        let depths = depths(&automaton, &texts);
        let start = automaton.start_state(Anchored::No).expect("a search from anywhere");
        Some(Self { texts, automaton, beginnings, depths, start, longest })
    }

    /// The texts, sorted.
    pub(super) fn texts(&self) -> &[Vec<u8>] {
        &self.texts
    }

    /// Whether some text may be in `text`.
    pub(super) fn may_be_in(&self, text: &[u8]) -> bool {
        self.beginnings.is_match(text)
    }

    /// How many bytes the longest text has.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The beginning of a search.
    pub(super) fn search(&self) -> Search {
        Search { state: self.start, seen: 0, told: 0, found: None }
    }

    /// Goes on with `search` in `text` to its end, and hands over all that is decided then. The
    /// rest may be the beginning of a text.
    pub(super) fn scan(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        while search.seen < text.len() {
            if search.state == self.start {
                self.skip(search, text);
            }
            search.state = self.automaton.next_state(Anchored::No, search.state, text[search.seen]);
            search.seen += 1;
            if self.automaton.is_special(search.state) {
                self.look(search, text, out);
            }
        }
        let open = self.depths.get(&search.state).copied().unwrap_or_default();
        search.tell(text, search.seen - open, out);
    }

    /// Hands over what is left of `text`, of which there is no more.
    pub(super) fn end(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        self.scan(search, text, out);
        while search.found.is_some() {
            self.mask(search, text, out);
            self.scan(search, text, out);
        }
        search.tell(text, text.len(), out);
    }

    /// Passes over bytes with which no text begins. A text that ends later may begin in the last.
    fn skip(&self, search: &mut Search, text: &[u8]) {
        let rest = &text[search.seen..];
        search.seen += match self.beginnings.find(rest) {
            Some(found) => found.start(),
            None => rest.len() - rest.len().min(SHORTEST - 1),
        };
    }

    /// Takes note of what was found, and masks it if it cannot become longer.
    fn look(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        if self.automaton.is_match(search.state) {
            let pattern = self.automaton.match_pattern(search.state, 0);
            let length = self.automaton.pattern_len(pattern);
            search.found = Some((search.seen - length, search.seen));
        }
        // No more bytes lead from there to a text.
        if search.found.is_some() && !self.depths.contains_key(&search.state) {
            self.mask(search, text, out);
        }
    }

    /// Masks what was found, and begins anew after it.
    fn mask(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        if let Some((start, end)) = search.found.take() {
            search.tell(text, start, out);
            out(MASK);
            *search = Search { state: self.start, seen: end, told: end, found: None };
        }
    }
}

impl Search {
    /// Where the bytes begin that were not handed over.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// The same search in a text that lacks the first bytes, all of which were handed over.
    pub(super) fn without(self, first: usize) -> Self {
        let found = self.found.map(|(start, end)| (start - first, end - first));
        Self { seen: self.seen - first, told: self.told - first, found, ..self }
    }

    fn tell(&mut self, text: &[u8], end: usize, out: &mut dyn FnMut(&[u8])) {
        if self.told < end {
            out(&text[self.told..end]);
            self.told = end;
        }
    }
}

fn depths(automaton: &NFA, texts: &[Vec<u8>]) -> HashMap<StateID, usize> {
    let start = automaton.start_state(Anchored::Yes).expect("a search from the beginning");
    let mut depths = HashMap::new();
    for text in texts {
        let mut state = start;
        for (depth, byte) in (1..text.len()).zip(text) {
            state = automaton.next_state(Anchored::Yes, state, *byte);
            depths.insert(state, depth);
        }
    }
    depths
}
