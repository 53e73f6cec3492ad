//! Tests of the whole program, as a user meets it: its arguments, what it prints, how it exits, and
//! what others make of its images. One module a subject.

mod attacks;
mod bad_input;
mod check;
mod compatibility;
mod debugging;
mod demonstration;
mod deploy;
mod docs;
mod ends;
mod examples;
mod formats;
mod fuzz;
mod github;
mod golden;
mod image;
mod json;
mod kill;
mod kill_carried;
mod never_stale;
mod phases;
mod places;
mod push_pull;
mod readers;
mod readers_large;
mod registry_clients;
mod registry_ecr;
mod registry_faults;
mod registry_lazy;
mod registry_mounts;
mod registry_streams;
mod registry_suite;
mod reproducible;
mod run;
mod s3;
mod secrets;
mod settings;
mod static_binary;
mod store;
mod tidy;
mod wrong_use;

use std::{
    env,
    io::{self, Write},
    path::Path,
};

use rbuild_tests::Sandbox;

/// The program under test.
const RBUILD: &str = env!("CARGO_BIN_EXE_rbuild-under-test");

/// A moment for images whose digest must not depend on when they were made.
const EPOCH: (&str, &str) = ("SOURCE_DATE_EPOCH", "1700000000");

/// A sandbox for the program, with these files in its source folder.
fn sandbox(files: &[(&str, &str)]) -> Sandbox {
    Sandbox::new(RBUILD, files)
}

/// A sandbox with a context from which an image of one small file can be built.
fn sandbox_with_context() -> Sandbox {
    sandbox(&[
        ("ctx/Dockerfile", "FROM scratch\nCOPY hello /etc/hello\nCMD [\"/etc/hello\"]\n"),
        ("ctx/hello", "hello\n"),
    ])
}

/// Builds the image of `ctx` under a name, and returns its digest.
#[track_caller]
fn build(sandbox: &Sandbox, name: &str) -> String {
    let args = ["image", "build", "-t", name, "ctx"];
    digest(sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok().line())
}

/// Pushes an image, and returns the digest that it has in the registry.
#[track_caller]
fn push(sandbox: &Sandbox, name: &str) -> String {
    digest_of(sandbox.rbuild(["image", "push", name]).ok().line())
}

/// The digest in `NAME@DIGEST`.
#[track_caller]
fn digest_of(line: &str) -> String {
    let (_, found) = line.rsplit_once('@').unwrap_or_else(|| panic!("no `@` in `{line}`"));
    digest(found)
}

/// `text`, which must be a digest.
#[track_caller]
fn digest(text: &str) -> String {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(hex.len() == 64 && hex.bytes().all(is_hex), "`{text}` is no digest");
    text.to_owned()
}

/// Whether the long versions of tests were asked for (`.ci/soak`).
fn is_soak() -> bool {
    env::var_os("RBUILD_SOAK").is_some()
}

/// Reports a figure, also when the test passes.
fn report(line: &str) {
    // Not by `println!`, which the test runner keeps to itself when a test passes.
    writeln!(io::stderr(), "{line}").expect("standard error");
}

/// The root of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace")
}
