//! The examples do what their comments say. (`shop` has tests of its own: `demonstration`.)

use std::fs;

use rbuild_tests::Sandbox;

use crate::{root, sandbox};

/// A sandbox with the files of an example as its source.
fn example(name: &str) -> Sandbox {
    let sandbox = sandbox(&[]);
    for entry in fs::read_dir(root().join("buildspecs").join(name)).expect("example") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            let name = path.file_name().expect("name");
            sandbox.write(name, fs::read(&path).expect("file of an example"));
        }
    }
    sandbox
}

#[test]
fn phases_go_on_or_do_not() {
    let sandbox = example("phases");
    let run = sandbox.rbuild(["run", "-a", "../kept"]).ok();
    for want in ["hello from install, in out\n", "publish 1.0.1\n"] {
        assert!(run.stdout.contains(want), "{want}\n{run}");
    }
    let release = || fs::read_to_string(sandbox.path().join("kept/release.txt")).expect("artifact");
    assert_eq!(release(), "release 1.0.1\nas it should be\nend of the build phase\n");

    let run = sandbox.rbuild(["run", "-a", "../kept", "-e", "BREAK=yes"]).go();
    run.fails(1, &[]);
    assert!(run.stdout.contains("publish nothing\n"), "{run}");
    assert_eq!(release(), "release 1.0.2\nend of the build phase\n");
}

#[test]
fn secrets_reach_the_commands_and_not_the_log() {
    let sandbox = example("secrets");
    let run = sandbox.rbuild(["run", "--secrets", "example.env"]).ok();
    for want in ["\ntoken=***;\n", "\n***:***\n", "\n28\n"] {
        assert!(run.stdout.contains(want), "{want}\n{run}");
    }
    for secret in ["not-a-real-token", "shop-reader", "correct horse"] {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{run}");
    }
}

/// Without what is not of the example itself: notes of what rbuild leaves out.
#[test]
fn nothing_is_wrong_with_an_example() {
    for name in ["phases", "secrets", "shop"] {
        let sandbox = example(name);
        let check = sandbox.rbuild(["check", "--no-shellcheck", "--deny", "warnings"]).go();
        assert_eq!(check.status.code(), Some(0), "{name}: {check}");
    }
}
