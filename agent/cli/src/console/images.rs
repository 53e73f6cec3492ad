//! How the building and carrying of images is shown: lines for what is done, and, on a terminal,
//! bars for what takes its time.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rbuild_imagebuilder::{
    digest::Digest,
    event::{Direction, Event},
};

use super::{
    bar::{Bar, per_second},
    size,
};

/// Shows events; can be told of them from several threads.
pub(crate) struct Images {
    state: Mutex<State>,
    /// What warnings are about.
    file: String,
}

#[derive(Default)]
struct State {
    layer: Option<Bar>,
    blobs: HashMap<Digest, Bar>,
    there: usize,
    mounted: usize,
    carried: u64,
    started: Option<Instant>,
}

impl Images {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), file: String::new() }
    }

    /// Shows what is built from this Dockerfile.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self { file: path.display().to_string(), ..Self::new() }
    }

    /// Shows one event.
    pub(crate) fn show(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { number, total, stage, text } => {
                super::say(&step(*number, *total, stage, text));
            }
            Event::StepCached => super::say("        cached"),
            Event::LayerProgress { done, total } => {
                let begin = || Bar::begin("writing layer", *done, *total);
                state.layer.get_or_insert_with(begin).set(*done);
            }
            Event::LayerWritten { entries, content, size, digest, .. } => {
                state.layer = None;
                super::say(&layer(*entries, *content, *size, digest));
            }
            Event::Warning { line, text } => super::warn(&warning(&self.file, *line, text)),
            Event::ImageBuilt { digest, cached, layers, size } => {
                super::say(&built(digest, *cached, *layers, *size));
            }
            Event::TransferStarted { direction, name, .. } => {
                *state = State { started: Some(Instant::now()), ..State::default() };
                super::say(&format!("{} {name}", verb(*direction)));
            }
            Event::BlobExists { .. } => state.there += 1,
            Event::BlobMounted { digest, size } => {
                state.mounted += 1;
                super::say(&format!("        {} {} mounted", short(digest), size::bytes(*size)));
            }
            Event::BlobProgress { digest, done, total } => {
                let begin = || Bar::begin(short(digest), *done, *total);
                state.blobs.entry(*digest).or_insert_with(begin).set(*done);
            }
            Event::BlobDone { digest, size } => {
                state.blobs.remove(digest);
                state.carried += size;
                super::say(&format!("        {} {}", short(digest), size::bytes(*size)));
            }
            Event::TransferDone { direction, name, digest } => {
                super::say(&carried(&state, *direction, name, digest));
            }
        }
    }
}

fn warning(file: &str, line: usize, text: &str) -> String {
    match line {
        0 => text.to_owned(),
        line => format!("{file}:{line}: {text}"),
    }
}

fn step(number: usize, total: usize, stage: &str, text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match stage {
        "" => format!("[{number}/{total}] {text}"),
        stage => format!("[{stage} {number}/{total}] {text}"),
    }
}

fn layer(entries: usize, content: u64, size: u64, digest: &Digest) -> String {
    let entries = match entries {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let (content, size) = (size::bytes(content), size::bytes(size));
    format!("        {entries}, {content}, compressed {size}, {}", short(digest))
}

fn built(digest: &Digest, cached: bool, layers: usize, size: u64) -> String {
    let layers = match layers {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    };
    let again = if cached { ", nothing new" } else { "" };
    format!("image {digest} ({layers}, {}{again})", size::bytes(size))
}

fn carried(state: &State, direction: Direction, name: &str, digest: &Digest) -> String {
    let time = state.started.map(|it| it.elapsed()).unwrap_or_default();
    let done = match direction {
        Direction::Pull => "pulled",
        Direction::Push => "pushed",
        Direction::Copy => "copied",
    };
    let what = what(state, time);
    format!("{done} {name} {} ({what}, {})", short(digest), size::time(time))
}

/// What became of the blobs. Without any it was seen that all is there.
fn what(state: &State, time: Duration) -> String {
    let blobs = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 blob was {what}")),
        count => Some(format!("{count} blobs were {what}")),
    };
    let bytes = || format!("{}{}", size::bytes(state.carried), rate(state.carried, time));
    let carried = (0 < state.carried).then(bytes);
    let all = [carried, blobs(state.mounted, "mounted"), blobs(state.there, "there")];
    match all.iter().flatten().cloned().collect::<Vec<_>>() {
        parts if parts.is_empty() => "nothing new".to_owned(),
        parts => parts.join(", "),
    }
}

fn rate(carried: u64, time: Duration) -> String {
    per_second(carried, time).map_or_else(String::new, |it| format!(" at {}/s", size::bytes(it)))
}

fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Pull => "pulling",
        Direction::Push => "pushing",
        Direction::Copy => "copying",
    }
}

/// The first digits of a digest: enough for people to tell blobs apart.
fn short(digest: &Digest) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_the_place_that_it_is_about() {
        assert_eq!(warning("ctx/Dockerfile", 3, "odd"), "ctx/Dockerfile:3: odd");
        assert_eq!(warning("ctx/Dockerfile", 0, "odd"), "odd");
    }

    #[test]
    fn it_is_told_what_became_of_the_blobs() {
        for (carried, mounted, there, want) in [
            (0, 0, 0, "nothing new"),
            (0, 0, 2, "2 blobs were there"),
            (0, 1, 0, "1 blob was mounted"),
            (2000, 0, 0, "2.00 kB"),
            (2000, 2, 1, "2.00 kB, 2 blobs were mounted, 1 blob was there"),
        ] {
            let state = State { there, mounted, carried, ..State::default() };
            assert_eq!(what(&state, Duration::ZERO), want);
        }
    }
}
