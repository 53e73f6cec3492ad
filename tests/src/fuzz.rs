//! What must hold for any bytes: the bodies of the fuzz targets in `tests/fuzz`, which tests run
//! with what the fuzzer has found.

use std::path::Path;

use rbuild_agent::{
    artifacts,
    buildspec::Buildspec,
    check::{self, switches::Switches},
    choice::Masking,
    resume::State,
    runtimes::Runtimes,
    secret::{MaskedOutput, Redactor, Secret},
    shell::parse_variables,
};
use rbuild_imagebuilder::store::index::Index;

/// What holds for any bytes, or panics.
pub type Body = fn(&[u8]);

/// The bodies, by the names of their targets.
pub const TARGETS: [(&str, Body); 6] = [
    ("buildspec", buildspec),
    ("check", check),
    ("glob", glob),
    ("index", index),
    ("masking", masking),
    ("state", state),
];

/// A buildspec file is a value, or there is at least one problem; places are in the file.
pub fn buildspec(bytes: &[u8]) {
    // The files of runtimes go the same way.
    let _ = Runtimes::parse(bytes);
    let Err(problems) = Buildspec::parse(bytes) else { return };
    assert!(!problems.is_empty(), "refused without a problem");
    // For YAML, a carriage return by itself ends a line, too.
    let lines = bytes.iter().filter(|it| matches!(it, b'\n' | b'\r')).count() + 1;
    for problem in problems {
        assert!(problem.place.is_none_or(|it| it.line <= lines + 1), "{problem:?}");
    }
}

/// What is found in a file is in it, and a file that the parser refuses has an error.
pub fn check(bytes: &[u8]) {
    let checked = check::check(bytes);
    let findings = checked.settle(&Switches::default());
    for script in &checked.scripts {
        // Where other programs point is a place of the file, wherever it is.
        let _ = (script.place(1, 1), script.place(2, 7), script.place(usize::MAX, usize::MAX));
    }
    // A comment in the file may allow what was found.
    let has_comment = bytes.windows(6).any(|it| it == b"rbuild");
    if Buildspec::parse(bytes).is_err() && !has_comment {
        assert!(!findings.is_empty(), "nothing is found in a file that is refused");
    }
}

/// A pattern and a path, apart by a line feed: a pattern without wildcards means itself, and
/// whatever a pattern means, `**/*` means it, too.
pub fn glob(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, path) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(is_match) = artifacts::matches(pattern, Path::new(path)) else { return };
    let is_plain = !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|it| !matches!(it, "" | "." | ".."));
    if is_match && is_plain {
        assert!(artifacts::matches("**/*", Path::new(path)).unwrap_or(false), "{path:?}");
    }
    if is_plain && !path.contains(['*', '?', '[', ']', '{', '}', ',', '\\']) {
        assert!(artifacts::matches(path, Path::new(path)).unwrap_or(false), "{path:?}");
    }
}

/// An index is whole and sorted, or is none; what is found in it is inside the pack. So that more than
/// the checksum is tried, one that fits is put at the end, too.
pub fn index(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), Index::sealed(bytes)] {
        let Some(index) = Index::parse(bytes.clone()) else { continue };
        let entries: Vec<_> = index.entries().collect();
        assert_eq!(entries.len(), index.len());
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(index.find(entry.kind, entry.key), Some(at));
            assert!(entry.offset + u64::from(entry.length) <= index.pack_size());
        }
        assert_eq!(Index::to_bytes(entries, index.pack_size()), bytes);
    }
}

/// Secrets, an empty line, and output that comes in pieces: what is shown is the same as if it
/// had come at once, and no secret is in it.
pub fn masking(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (secrets, output) = text.split_once("\n\n").unwrap_or(("", &text));
    let secrets: Vec<&str> = secrets.split('\n').collect();
    let hidden = secrets.iter().map(|it| Secret::new((*it).to_owned())).collect();
    let redactor = Redactor::new(hidden, Masking::Lines);
    let whole = redactor.mask_bytes(output.as_bytes());
    let step = bytes.first().map_or(1, |it| usize::from(it % 7) + 1);
    let mut stream = MaskedOutput::new(&redactor);
    let mut shown = Vec::new();
    for piece in output.as_bytes().chunks(step) {
        stream.push(piece, &mut |it| shown.extend_from_slice(it));
    }
    stream.flush(&mut |it| shown.extend_from_slice(it));
    assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(&whole));
    let shown = String::from_utf8_lossy(&shown);
    for secret in secrets.iter().filter(|it| 4 <= it.len() && !it.contains('*')) {
        // What is left on both sides of a mask may make another secret.
        let is_left = shown.split("***").any(|it| it.contains(secret));
        assert!(!is_left, "{secret:?} is in {shown:?}");
    }
}

/// A state is read back as it was written; variables that shells saved are read whatever they are.
pub fn state(bytes: &[u8]) {
    let _ = parse_variables(bytes);
    let Ok(state) = State::parse(bytes) else { return };
    assert_eq!(State::parse(&state.to_bytes()).as_ref(), Ok(&state));
}
