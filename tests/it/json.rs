//! `rbuild run --json`: events for programs; and the other ways to show a build where nobody looks.

use rbuild_tests::Finished;
use rustix::process::Signal;
use serde_json::Value;

use crate::sandbox;

fn events(run: &Finished) -> Vec<Value> {
    let event = |line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
    run.stdout.lines().map(event).collect()
}

/// The types of the events, with what matters most of them.
fn told(run: &Finished) -> Vec<String> {
    let word = |it: &Value, name: &str| match &it[name] {
        Value::Null => String::new(),
        Value::String(text) => format!(" {text}"),
        other => format!(" {other}"),
    };
    let names = ["version", "stage", "phase", "number", "text", "base64", "state", "reason"];
    let names = names.iter().chain(&["status", "kind", "message", "file", "line", "exit_status"]);
    let event =
        |it: &Value| names.clone().fold(word(it, "type"), |all, name| all + &word(it, name));
    events(run).iter().map(|it| event(it).trim_start().to_owned()).collect()
}

#[test]
fn a_build_is_told_from_its_beginning_to_its_result() {
    let spec = "version: 0.2\nphases:\n  build:\n    commands:\n      - printf 'gr\\303'\n      - \
                'printf \"\\377\"; exit 4'\n";
    let run = sandbox(&[("buildspec.yml", spec)]).rbuild(["run", "--json"]).go();
    run.has_status(1);
    let mut told = told(&run);
    told.retain(|it| !it.starts_with("source") && !it.ends_with("SUCCEEDED"));
    let want = [
        "build 1",
        "stage_started DOWNLOAD_SOURCE",
        "phase_found BUILD",
        "stage_started INSTALL",
        "stage_started PRE_BUILD",
        "stage_started BUILD",
        "command_started BUILD 1 printf 'gr\\303' buildspec.yml 5",
        "output gr",
        "output ww==",
        "command_finished BUILD 1 exited 0 buildspec.yml 5",
        "command_started BUILD 2 printf \"\\377\"; exit 4 buildspec.yml 6",
        "output /w==",
        "command_finished BUILD 2 exited 4 buildspec.yml 6",
        "stage_finished BUILD FAILED Error while executing command: printf \"\\377\"; exit 4. \
         Reason: exit status 4",
        "stage_started POST_BUILD",
        "stage_started UPLOAD_ARTIFACTS",
        "error build the build failed in BUILD: a command exited with status 4 buildspec.yml 6",
        "result failed 1",
    ];
    assert_eq!(told, want, "{run}");
    assert!(run.stderr.starts_with("error: the build failed in BUILD"), "{run}");
}

#[test]
fn what_cannot_start_has_events_too() {
    let sandbox = sandbox(&[("buildspec.yml", "version: 0.2\nphases: {biuld: {}, x: {}}\n")]);
    for (args, want) in [
        (
            &["run", "--json"][..],
            &[
                "build 1",
                "error input the phase `biuld` is unknown buildspec.yml 2",
                "error input the phase `x` is unknown buildspec.yml 2",
                "result failed 2",
            ][..],
        ),
        (
            &["run", "--json", "-C", "nowhere"],
            &[
                "build 1",
                "error input the source folder `nowhere` could not be read",
                "result failed 2",
            ],
        ),
    ] {
        let run = sandbox.rbuild(args).go();
        run.fails(2, &[]);
        assert_eq!(told(&run), want, "{run}");
    }
    sandbox.rbuild(["run", "--json", "--log", "plain"]).go().has_status(2);
}

#[test]
fn a_build_that_is_stopped_says_so_at_the_end() {
    let spec = "version: 0.2\nphases: {build: {commands: ['echo started; sleep 1000']}}\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let mut running = sandbox.rbuild(["run", "--json"]).start();
    running.until_it_says("started\\n");
    running.signal(Signal::TERM);
    let run = running.finish();
    run.has_status(143);
    let told = told(&run);
    let last = ["error stopped stopped by SIGTERM in BUILD", "result stopped 143"];
    assert_eq!(told[told.len() - 2..], last, "{run}");
}

#[test]
fn a_build_in_a_build_of_codebuild_does_not_write_its_lines_again() {
    let spec = "version: 0.2\nphases: {build: {commands: ['echo a; exit 1']}}\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let in_codebuild = || sandbox.rbuild(["run"]).env("CODEBUILD_BUILD_ARN", "arn:aws:codebuild:x");
    let run = in_codebuild().go();
    run.has_status(1);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[..3], ["[BUILD] $ echo a; exit 1", "a", "exit status 1"], "{run}");
    assert!(lines[3].starts_with("[BUILD] FAILED in "), "{run}");
    assert!(!run.stdout.contains("[Container]"), "{run}");
    // A build of rbuild's own has that variable, too.
    let run = in_codebuild().env("CODEBUILD_LOCAL_BUILD", "true").go();
    assert!(run.stdout.starts_with("[Container]"), "{run}");
}

#[test]
fn the_last_event_is_the_result_however_a_build_ends() {
    let spec = |env: &str, command: &str, files: &str| {
        format!(
            "version: 0.2\nenv: {{{env}}}\nphases: {{build: {{commands: ['{command}']}}}}\n\
             artifacts: {{files: {files}}}\n"
        )
    };
    let secret = "parameter-store: {A: /a}";
    for (text, args, want) in [
        (spec("", "true", "buildspec.yml"), &[][..], "result succeeded 0"),
        (spec("", "true", "missing"), &[], "result failed 1"),
        (spec("", "exec sleep 1000", "a"), &["--timeout", "1s"], "result timed_out 1"),
        (spec(secret, "true", "a"), &["--secrets", "none.json"], "result failed 2"),
        (spec(secret, "true", "a"), &["--secrets", "empty.json"], "result failed 2"),
        (spec("shell: no-such", "true", "a"), &[], "result failed 2"),
        ("\u{0}".to_owned(), &[], "result failed 2"),
        (spec("", "true", "a"), &["missing.yml"], "result failed 2"),
    ] {
        let sandbox = sandbox(&[("buildspec.yml", &text), ("empty.json", "{}")]);
        let run = sandbox.rbuild(["run", "--json"].iter().chain(args)).go();
        let told = told(&run);
        assert_eq!(told.last().map(String::as_str), Some(want), "{run}");
        assert_eq!(told.iter().filter(|it| it.starts_with("result")).count(), 1, "{run}");
        assert!(told[0].starts_with("build 1"), "{run}");
    }
}
