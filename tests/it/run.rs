//! `rbuild run`, apart from what its whole log looks like (`golden`) and from wrong input
//! (`bad_input`).

use std::fs;

use rbuild_tests::{Sandbox, peers, store};

use crate::sandbox;

/// A sandbox with a buildspec whose phase `build` has these commands, each a line.
fn commands(commands: &str) -> Sandbox {
    let lines = commands.lines().map(|line| format!("      - {line}\n"));
    let lines: String = lines.collect();
    sandbox(&[(
        "buildspec.yml",
        &format!("version: 0.2\nphases:\n  build:\n    commands:\n{lines}"),
    )])
}

#[test]
fn output_comes_while_a_command_runs() {
    let sandbox = commands("echo first; until [ -e go ]; do sleep 0.01; done; echo second");
    let mut running = sandbox.rbuild(["run"]).start();
    running.until_it_says("\nfirst\n");
    sandbox.write("go", "");
    let finished = running.finish();
    assert!(finished.has_status(0).stdout.contains("\nfirst\nsecond\n"), "{finished}");
}

#[test]
fn the_log_is_on_stdout_and_nothing_else_is() {
    let finished = commands("echo out; echo err >&2; echo again").rbuild(["run"]).ok();
    assert!(finished.stdout.contains("\nout\nerr\nagain\n\n"), "{finished}");
    assert!(!finished.stderr.contains("[Container]"), "{finished}");
    let is_log = finished.stdout.starts_with("[Container] ");
    assert!(is_log, "without a terminal the log is CodeBuild's\n{finished}");
}

#[test]
fn a_background_process_neither_holds_up_a_build_nor_outlives_it() {
    let sandbox = commands("sleep 1004 & echo started");
    sandbox.rbuild(["run"]).ok();
    let left = rbuild_tests::process::processes_that_know(sandbox.path());
    assert_eq!(left, [] as [&str; 0]);
}

#[test]
fn commands_see_little_of_the_callers_environment_unless_all_is_asked_for() {
    let sandbox = commands("echo \"given=$GIVEN own=$OWN\"");
    for (args, seen) in [
        (&["run"][..], "\ngiven= own=\n"),
        (&["run", "--env", "GIVEN=1"], "\ngiven=1 own=\n"),
        (&["run", "--inherit-env"], "\ngiven= own=mine\n"),
    ] {
        let finished = sandbox.rbuild(args).env("OWN", "mine").ok();
        assert!(finished.stdout.contains(seen), "{args:?}: {finished}");
    }
}

#[test]
fn commands_find_the_program_itself() {
    let sandbox = commands("rbuild version");
    let version = sandbox.rbuild(["version"]).ok().stdout;
    let log = sandbox.rbuild(["run"]).ok();
    assert!(log.stdout.contains(&format!("\n{version}\n")), "{log}");
}

#[test]
fn a_build_runs_in_the_folder_that_is_named() {
    let spec = "version: 0.2\nphases: {build: {commands: [pwd, 'cat note']}}\n";
    let sandbox = sandbox(&[("other/ci/spec.yml", spec), ("other/note", "a note\n")]);
    let finished = sandbox.rbuild(["run", "-C", "other", "ci/spec.yml"]).ok();
    let want = format!("\n{}\n", sandbox.src().join("other").display());
    assert!(finished.stdout.contains(&want), "{finished}");
    assert!(finished.stdout.contains("\na note\n"), "{finished}");
}

#[test]
fn artifacts_are_a_folder_or_a_zip_and_never_in_the_checkout() {
    let spec = "version: 0.2\nphases: {build: {commands: ['mkdir -p out/a && echo b >out/a/b']}}\n\
                artifacts: {base-directory: out, files: ['**/*']}\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let folder = sandbox.path().join("artifacts");
    let path = folder.display().to_string();
    sandbox.rbuild(["run", "-a", &path]).ok();
    assert_eq!(fs::read_to_string(folder.join("a/b")).unwrap(), "b\n");
    sandbox.rbuild(["run", "-a", &path, "--artifacts-packaging", "zip"]).ok();
    let zips =
        store::files(&folder).into_iter().filter(|it| it.to_string_lossy().ends_with(".zip"));
    let zips: Vec<_> = zips.map(|it| it.display().to_string()).collect();
    assert_eq!(zips.len(), 1, "{zips:?}");
    assert_eq!(peers::run("unzip", "unzip", &["-p", &zips[0], "a/b"]), "b\n");
    sandbox.rbuild(["run"]).ok();
    let files = store::files(&sandbox.src());
    assert_eq!(files, ["buildspec.yml", "out/a/b"].map(|it| sandbox.src().join(it)));
    let state = store::files(&sandbox.home().join(".local/state/rbuild/artifacts"));
    assert!(state.iter().any(|it| it.ends_with("a/b")), "{state:?}");
}

#[test]
fn the_region_of_the_buildspec_wins_over_the_callers() {
    let buildspec = "version: 0.2\nenv: {variables: {AWS_DEFAULT_REGION: us-west-2}}\n\
                     phases: {build: {commands: ['echo $AWS_DEFAULT_REGION $AWS_REGION']}}\n";
    let sandbox = sandbox(&[("buildspec.yml", buildspec)]);
    let run = sandbox.rbuild(["run"]).env("AWS_REGION", "eu-west-1").ok();
    assert!(run.stdout.contains("\nus-west-2 eu-west-1\n"), "{}", run.stdout);
}

#[test]
fn artifacts_of_a_build_replace_those_of_the_build_before() {
    let sandbox = sandbox(&[("a", "a"), ("b", "b")]);
    let folder = |run: &rbuild_tests::Finished| {
        let line = run.stderr.lines().find_map(|it| it.strip_prefix("artifacts: "));
        let path = line.and_then(|it| it.split(" (").next()).expect("the folder").to_owned();
        std::path::PathBuf::from(path)
    };
    for (file, other) in [("a", "b"), ("b", "a")] {
        let text = format!("version: 0.2\nphases: {{}}\nartifacts: {{files: [{file}]}}\n");
        sandbox.write("buildspec.yml", text);
        let found = folder(&sandbox.rbuild(["run"]).ok());
        assert!(found.join(file).exists() && !found.join(other).exists(), "{}", found.display());
    }
    // A build that fails leaves them as they were.
    sandbox.write("buildspec.yml", "version: 0.2\nphases: {}\nartifacts: {files: [missing]}\n");
    sandbox.rbuild(["run"]).go().has_status(1);
    let state = sandbox.home().join(".local/state/rbuild/artifacts");
    let left: Vec<_> = std::fs::read_dir(state).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].join("b").exists());
}
