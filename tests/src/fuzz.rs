//! What must hold for any bytes: the bodies of the fuzz targets in `tests/fuzz`, which tests run
//! with what the fuzzer has found.

use std::{io::Read as _, path::Path};

use flate2::read::DeflateDecoder;
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
use rbuild_imagebuilder::{
    config::Config,
    contents::Contents,
    digest::Digest,
    image::{self, Image, Layer},
    layer::compress::{BackEnd, Compressor, END_OF_DEFLATE},
    reference::Reference,
    rootfs::Rootfs,
    store::index::Index,
};

/// What holds for any bytes, or panics.
pub type Body = fn(&[u8]);

/// The bodies, by the names of their targets.
pub const TARGETS: [(&str, Body); 13] = [
    ("buildspec", buildspec),
    ("check", check),
    ("config", config),
    ("contents", contents),
    ("deflate", deflate),
    ("glob", glob),
    ("index", index),
    ("manifest", manifest),
    ("masking", masking),
    ("packs", packs),
    ("reference", reference),
    ("state", state),
    ("tar", tar),
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

/// The index of a pack is whole and sorted, or is none; what is found in it is inside the pack. So that more than
/// the checksum is tried, one that fits is put at the end, too.
pub fn packs(bytes: &[u8]) {
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

/// A config of an image: what is added to it is there, and it can be read again.
pub fn config(bytes: &[u8]) {
    let Ok(config) = Config::parse(bytes) else { return };
    let _ = (config.platform(), config.user(), config.working_folder(), config.on_build());
    let changed = config.with_env(&[("RBUILD".into(), "1".into())]).with_default_path();
    let again = changed.finish("2024-01-01T00:00:00Z", &[Digest::of(bytes)], &[]);
    let again = Config::parse(&again).expect("what was written can be read");
    assert!(again.env().contains(&("RBUILD".into(), "1".into())));
    assert_eq!(again.diff_ids().last(), Some(&Digest::of(bytes)));
}

/// A part of a table of contents: it ends, or is damaged, and what is read of it can be laid over
/// something, or is refused.
pub fn contents(bytes: &[u8]) {
    let _ = Contents::parse(bytes.to_vec()).map(|it| it.items().count());
    let table = Contents::of_parts(&[], bytes);
    let table = Contents::parse(table.as_bytes().to_vec()).expect("its sum is right");
    let items: Vec<_> = table.items().take(10_000).collect();
    if items.len() < 10_000 {
        let _ = Rootfs::default().lay(&table, &layer_of(bytes));
    }
}

/// What is compressed in pieces unpacks to the whole, and the stream ends where its bytes do. The
/// first byte is the level, the second how long the pieces are; the rest is there once and repeated.
pub fn deflate(bytes: &[u8]) {
    let Some(([level, length], rest)) = bytes.split_first_chunk() else { return };
    let mut compressor = Compressor::new(BackEnd::Libdeflate(level % 12 + 1)).expect("memory");
    let content = [rest, &rest.repeat(1 + usize::from(length % 16) * 64)].concat();
    let mut stream = Vec::new();
    for piece in content.chunks(1 + usize::from(*length) * 131) {
        stream.extend_from_slice(compressor.compress(piece).expect("memory"));
    }
    stream.extend_from_slice(&END_OF_DEFLATE);
    let mut unpacked = Vec::new();
    let mut reader = DeflateDecoder::new(stream.as_slice());
    reader.read_to_end(&mut unpacked).expect("a stream");
    assert!(unpacked == content, "it unpacks to something else");
    assert_eq!(reader.total_in(), stream.len() as u64);
}

/// An index: what it lists has digests.
pub fn index(bytes: &[u8]) {
    let Ok(entries) = image::parse_index(bytes) else { return };
    for entry in entries {
        let digest = entry.manifest.digest.to_string();
        assert!(digest.parse::<Digest>().is_ok(), "{digest}");
    }
}

/// A manifest, and after an empty line its config: an image has as many layers as both say.
pub fn manifest(bytes: &[u8]) {
    let _ = image::Manifest::parse(bytes).map(|it| it.blobs().count());
    let text = String::from_utf8_lossy(bytes);
    let (manifest, config) = text.split_once("\n\n").unwrap_or((&text, "{}"));
    let (manifest, config) = (manifest.as_bytes().to_vec(), config.as_bytes().to_vec());
    let Ok(image) = Image::parse(image::OCI_MANIFEST, manifest.clone(), config) else { return };
    assert_eq!(image.layers.len(), image.config.diff_ids().len());
    assert_eq!(image.digest(), Digest::of(&manifest), "its name is that of the bytes that came");
}

/// The name of an image means the same when it is written and read again.
pub fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(reference) = text.parse::<Reference>() else { return };
    for text in [reference.to_string(), reference.canonical()] {
        assert_eq!(text.parse::<Reference>().as_ref(), Ok(&reference), "{text}");
    }
}

/// A tar stream: what is read of it is bounded by its own size, is read again from the table as it
/// was, and stays inside the root when it is laid over something.
pub fn tar(bytes: &[u8]) {
    let Ok((table, diff_id)) = Contents::of_stream(bytes, 1 << 20) else { return };
    assert_eq!(diff_id, Digest::of(bytes), "the stream was read to its end");
    let again = Contents::parse(table.as_bytes().to_vec()).expect("a table is read again");
    let items: Vec<_> = again.items().map(|it| it.expect("a whole table")).collect();
    assert!(items.len() <= bytes.len() / 512, "{} members", items.len());
    let mut rootfs = Rootfs::default();
    for _ in 0..2 {
        if rootfs.lay(&again, &layer_of(bytes)).is_err() {
            return;
        }
    }
    for (path, _) in rootfs.tree().entries() {
        assert!(path.parts().all(|it| !matches!(it, b"" | b"." | b"..")), "{path}");
        let _ = rootfs.resolve(path, true);
    }
}

fn layer_of(bytes: &[u8]) -> Layer {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    Layer { media_type: image::OCI_LAYER.to_owned(), digest, size, diff_id: digest }
}
