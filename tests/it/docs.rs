//! What the documentation says is true: its buildspecs are valid, and its help is that of the
//! program.

use std::{fs, path::PathBuf, process::Command};

use expect_test::expect_file;
use rbuild_agent::buildspec::Buildspec;

use crate::{RBUILD, root, sandbox};

#[test]
fn every_buildspec_in_the_readme_is_valid() {
    let text = fs::read_to_string(root().join("README.md")).expect("README");
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|it| it.split("```").next()).collect();
    assert!(!blocks.is_empty(), "the README shows no buildspec");
    for block in blocks {
        let problems = Buildspec::parse(block.as_bytes()).err().unwrap_or_default();
        assert!(problems.is_empty(), "{problems:?} in\n{block}");
    }
}

/// Whatever follows, `--help` is answered only if all words before it are known.
#[test]
fn every_command_in_the_readme_is_one() {
    let text = fs::read_to_string(root().join("README.md")).expect("README");
    let commands = text.lines().filter_map(|it| it.strip_prefix("$ rbuild "));
    let commands = commands.map(|it| it.split(" #").next().unwrap_or(it));
    let commands: Vec<_> = commands.map(|it| it.replace('…', &"0".repeat(64))).collect();
    assert!(20 < commands.len(), "{commands:?}");
    let sandbox = sandbox(&[]);
    for command in commands {
        sandbox.rbuild(command.split_whitespace().chain(["--help"])).ok();
    }
}

#[test]
fn every_buildspec_among_the_examples_is_valid() {
    for path in buildspecs(root().join("buildspecs")) {
        let bytes = fs::read(&path).expect("buildspec");
        let problems = Buildspec::parse(&bytes).err().unwrap_or_default();
        assert!(problems.is_empty(), "{problems:?} in {}", path.display());
    }
}

fn buildspecs(folder: PathBuf) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--full-name", "--", "*buildspec.yml"])
        .current_dir(&folder)
        .output()
        .expect("git");
    let text = String::from_utf8(output.stdout).expect("paths");
    let found: Vec<PathBuf> = text.lines().map(|it| root().join(it)).collect();
    assert!(!found.is_empty(), "no buildspec in {}", folder.display());
    found
}

/// The whole help is one snapshot, so that it cannot change unseen (`UPDATE_EXPECT=1` renews it).
#[test]
fn the_help_is_as_it_was() {
    let sandbox = sandbox(&[]);
    let pages = [
        "",
        "run",
        "check",
        "schema",
        "image",
        "image build",
        "image ls",
        "image inspect",
        "image rm",
        "image tag",
        "image save",
        "image load",
        "image copy",
        "image push",
        "image pull",
        "login",
        "logout",
        "cache",
        "cache du",
        "cache prune",
        "cache verify",
        "deploy",
        "deploy render",
        "deploy ecs",
        "completions",
        "man",
        "version",
    ];
    let page = |words: &&str| {
        let args = words.split_whitespace().chain(["--help"]);
        let run = sandbox.rbuild(args).env("COLUMNS", "100").ok();
        format!("$ rbuild {words} --help\n{}\n", run.stdout)
    };
    let text: String = pages.iter().map(page).collect();
    assert!(!text.contains(RBUILD), "the program's path is no part of the help");
    expect_file!["help.txt"].assert_eq(&text);
}
