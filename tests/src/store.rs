//! What must be true of a store at every moment, checked from outside with means of our own.
//!
//! A store has whole blobs in `blobs/sha256`, and in `packs` small ones and those that are put together
//! of segments; records of what is an image in `images`, of names in `names`, of build steps in
//! `cache`, and in `tmp` what is being written, which nobody sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The files below a folder, sorted. A folder that is not there has none.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("entry of a folder").path());
    let mut files: Vec<_> = paths
        .flat_map(|path| {
            let is_folder = path.is_dir() && !path.is_symlink();
            if is_folder { files(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}

/// The digest of a file's content, in hex.
pub fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    hex(&bytes)
}

/// The digest of some bytes, in hex.
pub fn hex(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

/// Bytes as digits.
fn digits(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Where a store keeps the blobs that are files of their own, and a layout all of them.
pub fn blobs(store: &Path) -> PathBuf {
    store.join("blobs/sha256")
}

/// The kinds of objects in packs, as an index calls them.
const SEGMENT: u8 = 1;
const COMPOSED: u8 = 2;
const BLOB: u8 = 5;

/// All objects in the packs of a store, by kind and key.
fn objects(store: &Path) -> BTreeMap<(u8, String), Vec<u8>> {
    let mut objects = BTreeMap::new();
    let packs = files(&store.join("packs"));
    for path in packs.iter().filter(|it| it.extension().is_some_and(|it| it == "idx")) {
        let (index, pack) = (fs::read(path), fs::read(path.with_extension("pack")));
        // What is pruned meanwhile goes with its index first.
        if index.is_err() || pack.is_err() && !path.exists() {
            continue;
        }
        let index = index.expect("index of a pack");
        let pack = pack.expect("pack of an index");
        let stem = path.file_stem().expect("name of a pack").to_string_lossy().into_owned();
        let is_bad = |it: &&PathBuf| {
            let name = it.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&stem) && it.extension().is_some_and(|it| it == "bad")
        };
        let bad = packs.iter().filter(is_bad).flat_map(|it| fs::read(it).expect("bad objects"));
        let bad: Vec<u8> = bad.collect();
        let bad: Vec<usize> = bad.chunks(4).map(|it| number(it, 0, 4)).collect();
        assert!(index.starts_with(b"rbindex2"), "{} is no index", path.display());
        let count = number(&index, 8, 8);
        assert_eq!(index.len(), 24 + 64 * count + 16, "{}", path.display());
        assert_eq!(pack.len(), number(&index, 16, 8), "{}", path.display());
        for at in (0..count).filter(|it| !bad.contains(it)) {
            let record = &index[24 + 64 * at..][..64];
            let (length, offset) = (number(record, 4, 4), number(record, 8, 8));
            let key = digits(&record[32..]);
            objects.insert((record[0], key), pack[offset..offset + length].to_vec());
        }
    }
    objects
}

/// A number with the lowest byte first.
fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// All blobs of a store that can be read, by their digests in hex, however they are kept.
pub fn contents(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let objects = objects(store);
    let mut blobs = BTreeMap::new();
    for ((kind, key), bytes) in &objects {
        match *kind {
            BLOB => drop(blobs.insert(key.clone(), bytes.clone())),
            COMPOSED => {
                blobs.extend(composed(bytes, &objects).map(|it| (key.clone(), it)));
            }
            _ => {}
        }
    }
    for path in files(&self::blobs(store)) {
        let name = path.file_name().expect("name of a blob").to_string_lossy().into_owned();
        blobs.insert(name, fs::read(&path).expect("blob"));
    }
    blobs
}

/// The blobs of a store that were made there, by their digests in hex: those that are put together of
/// segments. Those of others came as they are.
pub fn made(store: &Path) -> BTreeSet<String> {
    let composed = objects(store).into_keys().filter(|(kind, _)| *kind == COMPOSED);
    composed.map(|(_, key)| key).collect()
}

/// The images of a store, by their digests in hex.
pub fn images(store: &Path) -> Vec<String> {
    let images = files(&store.join("images")).into_iter();
    let names = images.filter_map(|it| Some(it.file_name()?.to_str()?.to_owned()));
    names.filter(|it| it.len() == 64).collect()
}

/// Puts a blob together; none if it lacks a segment.
fn composed(recipe: &[u8], objects: &BTreeMap<(u8, String), Vec<u8>>) -> Option<Vec<u8>> {
    assert!(recipe.starts_with(b"rbcomp01"), "a recipe that is none");
    let mut blob = Vec::new();
    let mut at = 8;
    while at < recipe.len() {
        at += 1;
        if recipe[at - 1] == 0 {
            let size = number(recipe, at, 8);
            blob.extend(&recipe[at + 8..at + 8 + size]);
            at += 8 + size;
        } else {
            let segment = objects.get(&(SEGMENT, digits(&recipe[at..at + 32])))?;
            let (skip, size) = (number(recipe, at + 32, 4), number(recipe, at + 36, 4));
            blob.extend(&segment[skip..skip + size]);
            at += 40;
        }
    }
    Some(blob)
}

/// Asserts that everything visible as a blob is whole: its name is the digest of its content.
/// Returns how many there are.
#[track_caller]
pub fn assert_every_blob_is_whole(store: &Path) -> usize {
    let blobs = contents(store);
    for (name, bytes) in &blobs {
        assert_eq!(*name, hex(bytes), "a blob of {} is not what its name says", store.display());
    }
    blobs.len()
}

/// Asserts that nothing half-written can be seen in a store: blobs are whole, records can be read,
/// a name leads to an image, and an image to all its blobs.
#[track_caller]
pub fn assert_nothing_is_half_written(store: &Path) {
    assert_every_blob_is_whole(store);
    let blobs = contents(store);
    for folder in ["cache", "images", "names"] {
        for path in files(&store.join(folder)) {
            record(&path);
        }
    }
    for name in files(&store.join("names")) {
        let digest = record(&name)["digest"].as_str().expect("digest of a name").to_owned();
        let image = store.join("images").join(digest.trim_start_matches("sha256:"));
        assert!(image.exists(), "{} leads to no image", name.display());
    }
    for image in files(&store.join("images")) {
        let digest = image.file_name().expect("name of a record").to_string_lossy().into_owned();
        let manifest = blobs.get(&digest).unwrap_or_else(|| panic!("{digest} is no blob"));
        let manifest: Value = serde_json::from_slice(manifest).expect("manifest");
        let layers = manifest["layers"].as_array().expect("layers of a manifest");
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().expect("digest of a blob");
            let is_there = blobs.contains_key(digest.trim_start_matches("sha256:"));
            assert!(is_there, "{} lacks {digest}", image.display());
        }
    }
}

/// Makes a store as the first version would have written it, with the same images.
pub fn downgrade(store: &Path, to: &Path) {
    for folder in ["blobs/sha256", "images", "names", "cache", "tmp"] {
        fs::create_dir_all(to.join(folder)).expect("folder of a store");
    }
    for (name, bytes) in contents(store) {
        fs::write(blobs(to).join(name), bytes).expect("blob");
    }
    for path in ["images", "names"].iter().flat_map(|it| files(&store.join(it))) {
        let inside = path.strip_prefix(store).expect("path in the store");
        fs::copy(&path, to.join(inside)).expect("record");
    }
    for path in files(&store.join("cache")) {
        let inside = path.strip_prefix(store).expect("path in the store");
        fs::write(to.join(inside), record(&path).to_string()).expect("record");
    }
    fs::write(to.join("lock"), "").expect("lock");
    fs::write(to.join("version"), "1\n").expect("version");
}

/// How many files are being written, or were when their writer was killed.
pub fn unfinished(store: &Path) -> usize {
    files(&store.join("tmp")).len()
}

fn record(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    // What steps gave has a checksum before it.
    let json = match bytes.starts_with(b"rbuild 2 ") {
        true => &bytes["rbuild 2 ".len() + 33..],
        false => &bytes,
    };
    serde_json::from_slice(json).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}
