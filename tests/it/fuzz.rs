//! The bodies of the fuzz targets, with what the fuzzer has found and with what is near to that.

use std::{fs, path::Path, time::Instant};

use rbuild_tests::fuzz::TARGETS;

use crate::{is_soak, report, root};

#[test]
fn what_must_hold_for_any_bytes_holds_for_the_corpus_and_near_to_it() {
    let rounds = if is_soak() { 20_000 } else { 150 };
    let mut random = fastrand::Rng::with_seed(11);
    for (name, body) in TARGETS {
        let corpus = corpus(&root().join("tests/fuzz/corpus").join(name));
        assert!(!corpus.is_empty(), "there is no corpus for {name}");
        let start = Instant::now();
        for bytes in &corpus {
            body(bytes);
            for _ in 0..rounds {
                body(&changed(bytes, &corpus, &mut random));
            }
        }
        let (count, time) = (corpus.len() * (rounds + 1), start.elapsed());
        report(&format!("fuzz target {name}: {count} inputs in {time:.1?}"));
    }
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("corpus").map(|it| it.expect("entry").path()).collect();
    paths.sort();
    paths.iter().map(|it| fs::read(it).expect("input")).collect()
}

/// The same bytes, but for some that are others, are gone, are there twice, or come from another
/// input.
fn changed(bytes: &[u8], corpus: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=bytes.len());
        let end = (at + random.usize(0..12)).min(bytes.len());
        match random.u8(0..5) {
            0 => bytes.insert(at, random.u8(..)),
            1 => bytes.insert(at, *random.choice(b"\n :-'\"{}[]*&!|>#$\\\t").expect("one")),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.extend_from_within(at..end),
            _ => {
                let other = random.choice(corpus).expect("one");
                let from = random.usize(0..=other.len());
                let to = (from + random.usize(0..40)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}
