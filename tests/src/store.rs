//! What must be true of a store at every moment, checked from outside with means of our own.
//!
//! A store has whole blobs in `blobs/sha256`, records of what is an image in `images`, of names in
//! `names`, of build steps in `cache`, and in `tmp` what is being written, which nobody sees.

use std::{
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
    let digits = Sha256::digest(bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Where a store keeps the blobs that can be seen.
pub fn blobs(store: &Path) -> PathBuf {
    store.join("blobs/sha256")
}

/// Asserts that everything visible as a blob is whole: its name is the digest of its content.
/// Returns how many there are.
#[track_caller]
pub fn assert_every_blob_is_whole(store: &Path) -> usize {
    let blobs = files(&blobs(store));
    for blob in &blobs {
        let name = blob.file_name().expect("name of a blob").to_string_lossy();
        assert_eq!(name, sha256(blob), "{} is not what its name says", blob.display());
    }
    blobs.len()
}

/// Asserts that nothing half-written can be seen in a store: blobs are whole, records can be read,
/// a name leads to an image, and an image to all its blobs.
#[track_caller]
pub fn assert_nothing_is_half_written(store: &Path) {
    assert_every_blob_is_whole(store);
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
        let manifest = blobs(store).join(image.file_name().expect("name of a record"));
        let manifest = record(&manifest);
        let layers = manifest["layers"].as_array().expect("layers of a manifest");
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().expect("digest of a blob");
            let path = blobs(store).join(digest.trim_start_matches("sha256:"));
            assert!(path.exists(), "{} lacks {digest}", image.display());
        }
    }
}

/// How many files are being written, or were when their writer was killed.
pub fn unfinished(store: &Path) -> usize {
    files(&store.join("tmp")).len()
}

fn record(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}
