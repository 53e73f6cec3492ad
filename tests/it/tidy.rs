//! What no lint checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::root;

/// Packages that a build may need, ours among them. What adds one has to be worth it.
const PACKAGES: usize = 350;

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
    }
}

#[test]
fn nothing_is_left_half_done() {
    let words = ["todo", "unimplemented", "dbg"].map(|it| format!("{it}!"));
    let marks = ["fixme", "xxx"].map(str::to_uppercase);
    let ignored = format!("#[{}", "ignore");
    for (path, text) in sources() {
        for word in words.iter().chain(&marks).chain([&ignored]) {
            assert!(!text.contains(word.as_str()), "{} has `{word}`", path.display());
        }
    }
}

#[test]
fn lints_are_expected_with_a_reason_and_never_just_allowed() {
    let allow = format!("[{}(", "allow");
    for (path, text) in sources() {
        assert!(!text.contains(&allow), "{} allows a lint: expect it", path.display());
    }
}

#[test]
fn few_packages_are_needed() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let count = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(count <= PACKAGES, "{count} packages, and {PACKAGES} are the budget");
}

#[test]
fn scripts_stop_at_the_first_error() {
    for script in [".ci/run", ".ci/soak", "tests/run"] {
        let text = fs::read_to_string(root().join(script)).expect("script");
        assert!(text.contains("\nset -euo pipefail\n"), "{script} goes on after errors");
    }
}

/// Our own source files and their texts.
fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["agent", "imagebuilder", "deployer", "tests", "buildspecs"];
    let files: Vec<_> = folders.iter().flat_map(|it| files(&root().join(it))).collect();
    assert!(!files.is_empty(), "no source files");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source file");
            (path, text)
        })
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("source folder");
    entries.map(|it| it.expect("entry").path()).flat_map(visit).collect()
}

fn visit(path: PathBuf) -> Vec<PathBuf> {
    if path.is_dir() {
        return if path.ends_with("target") { Vec::new() } else { files(&path) };
    }
    if path.extension().is_some_and(|it| it == "rs") { vec![path] } else { Vec::new() }
}
