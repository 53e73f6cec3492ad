//! The texts that must not be shown, as an automaton that finds them.
//!
//! Every byte of every occurrence is masked, whichever overlap; those that do have one mask
//! together. The time that this takes grows with the output alone, whatever the texts are: no byte
//! is looked at twice. The search can stop after any byte and go on later: a [`Search`] is all that
//! it has to remember.
//!
//! **Architecture invariant:** the only search there is. What masks a whole text and what masks a
//! stream cannot differ.

use std::collections::{HashMap, VecDeque};

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
    /// How many of the last bytes may be the beginning of a text that is not whole yet, for every
    /// state in which there are any.
    open: HashMap<StateID, usize>,
    start: StateID,
    longest: usize,
}

/// How far a search came in a text.
#[derive(Clone)]
pub(super) struct Search {
    state: StateID,
    /// How many bytes were looked at.
    seen: usize,
    /// How many bytes were handed over, or masked.
    told: usize,
    /// What is to be masked from where to where, in their order; the last may become longer, or
    /// one with those before.
    found: VecDeque<(usize, usize)>,
    /// Whether the mask of the first of these was handed over.
    is_masking: bool,
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
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&texts)
            .expect("texts of less than 2 GiB");
        let mut heads: Vec<&[u8]> = texts.iter().map(|it| &it[..SHORTEST]).collect();
        heads.dedup();
        let beginnings = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(&heads)
            .expect("texts of four bytes each");
        let open = open(&automaton, &texts);
        let start = automaton.start_state(Anchored::No).expect("a search from anywhere");
        Some(Self { texts, automaton, beginnings, open, start, longest })
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
        Search { state: self.start, seen: 0, told: 0, found: VecDeque::new(), is_masking: false }
    }

    /// Goes on with `search` in `text` to its end, and hands over all that is decided then. The
    /// rest may be the beginning of a text.
    pub(super) fn scan(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        while search.seen < text.len() {
            if search.state == self.start {
                search.tell(text, search.seen, out);
                self.skip(search, text);
            }
            search.state = self.automaton.next_state(Anchored::No, search.state, text[search.seen]);
            search.seen += 1;
            if self.automaton.is_match(search.state) {
                // The first one is the longest that ends here.
                let pattern = self.automaton.match_pattern(search.state, 0);
                search.find(search.seen - self.automaton.pattern_len(pattern));
            }
        }
        let open = self.open.get(&search.state).copied().unwrap_or_default();
        search.tell(text, search.seen - open, out);
    }

    /// Hands over what is left of `text`, of which there is no more.
    pub(super) fn end(&self, search: &mut Search, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        self.scan(search, text, out);
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
}

impl Search {
    /// Where the bytes begin that were not handed over.
    pub(super) fn told(&self) -> usize {
        self.told
    }

    /// The same search in a text that lacks the first bytes, all of which were handed over.
    pub(super) fn without(mut self, first: usize) -> Self {
        for (start, end) in &mut self.found {
            // The beginning of what is being masked is no more.
            (*start, *end) = (start.saturating_sub(first), *end - first);
        }
        Self { seen: self.seen - first, told: self.told - first, ..self }
    }

    /// Takes note of a text that begins at `start` and ends with what was seen.
    fn find(&mut self, start: usize) {
        let mut found = (start, self.seen);
        while let Some(last) = self.found.pop_back_if(|it| start < it.1) {
            found.0 = found.0.min(last.0);
        }
        self.found.push_back(found);
    }

    /// Hands over all before `end`, of which everything is known, and masks what was found.
    fn tell(&mut self, text: &[u8], end: usize, out: &mut dyn FnMut(&[u8])) {
        while let Some(&(start, until)) = self.found.front().filter(|it| it.0 < end) {
            if !std::mem::replace(&mut self.is_masking, true) {
                self.show(text, start, out);
                out(MASK);
            }
            self.told = until.min(end);
            if end < until {
                return;
            }
            self.found.pop_front();
            self.is_masking = false;
        }
        self.show(text, end, out);
    }

    fn show(&mut self, text: &[u8], end: usize, out: &mut dyn FnMut(&[u8])) {
        if self.told < end {
            out(&text[self.told..end]);
            self.told = end;
        }
    }
}

fn open(automaton: &NFA, texts: &[Vec<u8>]) -> HashMap<StateID, usize> {
    let start = |it| automaton.start_state(it).expect("a search from there");
    let mut open = HashMap::new();
    for text in texts {
        let mut state = start(Anchored::Yes);
        for (depth, byte) in (1..text.len()).zip(text) {
            state = automaton.next_state(Anchored::Yes, state, *byte);
            open.insert(state, depth);
        }
    }
    // After a text that is the beginning of no other, another may have begun in it. One that ends
    // with it, and after which that is asked in turn, is shorter.
    let mut by_length: Vec<&Vec<u8>> = texts.iter().collect();
    by_length.sort_by_key(|it| it.len());
    for text in by_length {
        let follow = |anchored, bytes: &[u8]| {
            bytes.iter().fold(start(anchored), |it, byte| automaton.next_state(anchored, it, *byte))
        };
        let inside = open.get(&follow(Anchored::No, &text[1..])).copied();
        open.entry(follow(Anchored::Yes, text)).or_insert(inside.unwrap_or_default());
    }
    open
}
