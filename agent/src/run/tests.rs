//! Tests of the loop, with a shell that runs nothing.

use std::{ffi::OsString, fmt::Write, io};

use expect_test::{Expect, expect};

use super::*;
use crate::{
    artifacts::Location, buildspec::Buildspec, environment::Facts, plan::Inputs, shell::Interaction,
};

/// Runs nothing: a command's text says how it ends.
#[derive(Default)]
struct FakeShell {
    stopped: Option<i32>,
}

impl Shell for FakeShell {
    fn begin(&mut self, _: Beginning<'_>) -> Result<(), ShellError> {
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot, ShellError> {
        Ok(Snapshot::default())
    }

    fn interact(&mut self, _: Interaction<'_>) -> Result<End, ShellError> {
        Ok(End::Exited(0))
    }

    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        output(format!("succeeding {}\n", u8::from(line.succeeding)).as_bytes());
        let number = |it: &str| it.parse().unwrap();
        Ok(match line.text.split_once(' ') {
            Some(("exit", status)) => End::Exited(number(status)),
            Some(("killed", signal)) => End::Killed(number(signal)),
            Some(("stop", signal)) => End::Stopped(number(signal)),
            None if line.text == "broken" => return Err(ShellError::SupervisorGone),
            _ => End::Exited(0),
        })
    }

    fn expand(
        &mut self,
        expansion: Expansion<'_>,
        _: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError> {
        if expansion.words.iter().any(|it| it.contains('"')) {
            return Ok(Err(End::Exited(2)));
        }
        Ok(Ok(expansion.words.iter().map(|it| format!("<{it}>").into()).collect()))
    }

    fn stop_requested(&mut self) -> Option<i32> {
        self.stopped
    }
}

/// Packs nothing: the first pattern says how that ends.
struct FakeArtifacts;

impl Artifacts for FakeArtifacts {
    fn package(
        &mut self,
        selection: &Selection,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError> {
        if let Some(signal) = stopped() {
            return Err(ArtifactsError::Stopped { signal });
        }
        emit(Event::BaseDirectoryWanted(&format!("{selection:?}")));
        match selection.files[0].as_str() {
            "none" => Err(ArtifactsError::NoFiles),
            "full" => Err(ArtifactsError::Write {
                path: "/a".into(),
                source: io::ErrorKind::StorageFull.into(),
            }),
            _ => Ok(Packed {
                identifier: None,
                location: Location::Local("/a".into()),
                files: 2,
                bytes: 3,
            }),
        }
    }
}

fn plan(text: &str) -> Plan {
    let facts = Facts { source: "/src".into(), ..Facts::default() };
    let inputs = Inputs { buildspec_path: "/src/buildspec.yml".into(), facts, ..Inputs::default() };
    Plan::new(Buildspec::parse(text.as_bytes()).unwrap(), inputs).unwrap()
}

/// Draws the events of a build, from the first phase on, and what came of it.
fn play(text: &str, shell: &mut FakeShell) -> String {
    let mut seen = String::new();
    let result = run(&plan(text), shell, &mut FakeArtifacts, &mut |event| match event {
        Event::StageStarted(Stage::DownloadSource)
        | Event::StageFinished { stage: Stage::DownloadSource, .. } => {}
        Event::StageStarted(stage) => writeln!(seen, "{stage}").unwrap(),
        Event::CommandStarted(command) => write!(seen, "  {}: ", command.text).unwrap(),
        Event::Output(bytes) => seen.push_str(String::from_utf8_lossy(bytes).trim_end()),
        Event::CommandFinished { end, .. } => writeln!(seen, ", {end:?}").unwrap(),
        Event::BaseDirectoryWanted(selection) => writeln!(seen, "  {selection}").unwrap(),
        Event::StageFinished { state, .. } => writeln!(seen, "  {state}").unwrap(),
        _ => {}
    });
    let ended = match result {
        Ok(Report { outcome: Outcome::Failed(it), artifacts, .. }) => {
            let reason = match it.reason {
                Reason::Command { command, end } => {
                    format!("{} {} {end:?}", command.place, command.text)
                }
                Reason::Artifacts(err) => err.to_string(),
            };
            format!("failed in {}: {reason}, {artifacts:?}", it.stage)
        }
        Ok(report) => format!("{report:?}"),
        Err(err) => format!("error: {err}"),
    };
    writeln!(seen, "{ended}").unwrap();
    seen
}

#[track_caller]
fn check(text: &str, want: Expect) {
    want.assert_eq(&play(text, &mut FakeShell::default()));
}

/// What runs if one phase fails, and whether it may upload.
#[track_caller]
fn check_phases(failing: &str, want: &str) {
    let command = |phase: &str| if phase == failing { "exit 1" } else { "exit 0" };
    let phases =
        Phase::ALL.map(|it| format!("{}: {{commands: {}}}", it.name(), command(it.name())));
    let phases = phases.join(", ");
    let text = format!("version: 0.2\nphases: {{{phases}}}\nartifacts: {{files: x}}\n");
    let seen = play(&text, &mut FakeShell::default());
    let stages: Vec<&str> = seen
        .lines()
        .filter(|it| it.starts_with(|it: char| it.is_ascii_uppercase()))
        .filter(|it| !it.starts_with("Report"))
        .collect();
    assert_eq!(stages.join(" "), want, "if {failing} fails");
    assert_eq!(seen.contains("failed in"), failing != "none", "{seen}");
}

#[test]
fn each_phase_that_fails_has_its_consequences() {
    let all = "INSTALL PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS";
    for (failing, want) in [
        ("none", all),
        ("install", "INSTALL"),
        ("pre_build", "INSTALL PRE_BUILD"),
        ("build", all),
        ("post_build", all),
    ] {
        check_phases(failing, want);
    }
}

#[test]
fn phases_without_commands_are_entered() {
    check(
        "version: 0.2\nphases: {build: }\n",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              SUCCEEDED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              SUCCEEDED
            Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
        "#]],
    );
}

#[test]
fn later_commands_learn_of_a_failure() {
    check(
        "version: 0.2
phases:
  build:
    commands: [exit 0, exit 7, exit 0]
    finally: [exit 0, exit 8, exit 0]
  post_build:
    commands: [exit 9]
artifacts: {files: x}
",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              exit 0: succeeding 1, Exited(0)
              exit 7: succeeding 1, Exited(7)
              exit 0: succeeding 0, Exited(0)
              exit 8: succeeding 0, Exited(8)
              FAILED
            POST_BUILD
              exit 9: succeeding 0, Exited(9)
              FAILED
            UPLOAD_ARTIFACTS
              Selection { identifier: None, files: ["x"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: Last }
              SUCCEEDED
            failed in BUILD: 4:24 exit 7 Exited(7), [Packed { identifier: None, location: Local("/a"), files: 2, bytes: 3 }]
        "#]],
    );
}

#[test]
fn finally_can_fail_a_phase_and_runs_after_success() {
    check(
        "version: 0.2\nphases: {install: {commands: [exit 0], finally: [killed 9]}}\n",
        expect![[r#"
            INSTALL
              exit 0: succeeding 1, Exited(0)
              killed 9: succeeding 1, Killed(9)
              FAILED
            failed in INSTALL: 2:50 killed 9 Killed(9), []
        "#]],
    );
}

#[test]
fn a_stopped_build_runs_nothing_more() {
    check(
        "version: 0.2
phases:
  build: {commands: [stop 2, exit 0], finally: [exit 0]}
  post_build: {commands: [exit 0]}
artifacts: {files: x}
",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              stop 2: succeeding 1, Stopped(2)
              STOPPED
            Report { outcome: Stopped { stage: Commands(Build), signal: 2 }, artifacts: [], exported: [], resume: None }
        "#]],
    );
    let text = "version: 0.2\nphases: {}\nartifacts: {files: x}\n";
    let seen = play(text, &mut FakeShell { stopped: Some(15) });
    expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          STOPPED
        Report { outcome: Stopped { stage: UploadArtifacts, signal: 15 }, artifacts: [], exported: [], resume: None }
    "#]]
    .assert_eq(&seen);
}

#[test]
fn artifacts_are_expanded_by_the_shell() {
    check(
        "version: 0.2
phases: {}
artifacts:
  files: ['$A/*', 'x${B}y']
  base-directory: ${A}
  discard-paths: yes
  name: n-$(date)
",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              SUCCEEDED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              Selection { identifier: None, files: ["<${A}>/*", "x<${B}>y"], base_directory: Some("<${A}>"), discard_paths: true, exclude_paths: [], enable_symlinks: false, name: Some("<n-$(date)>"), s3_prefix: None, collision: Last }
              SUCCEEDED
            Report { outcome: Succeeded, artifacts: [Packed { identifier: None, location: Local("/a"), files: 2, bytes: 3 }], exported: [], resume: None }
        "#]],
    );
    check(
        "version: 0.2\nphases: {}\nartifacts: {files: x, name: '\"'}\n",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              SUCCEEDED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              FAILED
            failed in UPLOAD_ARTIFACTS: the shell could not expand `"`, []
        "#]],
    );
}

#[test]
fn artifacts_that_are_missing_fail_the_build_and_a_full_disk_is_an_error() {
    check(
        "version: 0.2\nphases: {}\nartifacts: {files: none}\n",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              SUCCEEDED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              Selection { identifier: None, files: ["none"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: Last }
              FAILED
            failed in UPLOAD_ARTIFACTS: no file matches the patterns of the artifacts, []
        "#]],
    );
    check(
        "version: 0.2\nphases: {}\nartifacts: {files: full}\n",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              SUCCEEDED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              Selection { identifier: None, files: ["full"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: Last }
              FAILED
            error: the artifacts could not be kept
        "#]],
    );
    check(
        "version: 0.2\nphases: {build: {commands: exit 1}}\nartifacts: {files: full}\n",
        expect![[r#"
            INSTALL
              SUCCEEDED
            PRE_BUILD
              SUCCEEDED
            BUILD
              exit 1: succeeding 1, Exited(1)
              FAILED
            POST_BUILD
              SUCCEEDED
            UPLOAD_ARTIFACTS
              Selection { identifier: None, files: ["full"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: Last }
              FAILED
            failed in BUILD: 2:28 exit 1 Exited(1), []
        "#]],
    );
}

#[test]
fn a_shell_that_breaks_is_an_error() {
    check(
        "version: 0.2\nphases: {build: {commands: broken}}\n",
        expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          broken: succeeding 1error: the build could not go on in BUILD
    "#]],
    );
}

#[test]
fn what_is_known_before_is_told_first() {
    let text = "version: 0.2
env: {shell: bash, x: y}
phases:
  build: {commands: [a, b], finally: [c]}
  pre_build: {finally: [d]}
";
    let mut seen = String::new();
    run(&plan(text), &mut FakeShell::default(), &mut FakeArtifacts, &mut |event| {
        if !seen.contains("StageFinished") {
            writeln!(seen, "{event:?}").unwrap();
        }
    })
    .unwrap();
    expect![[r#"
        StageStarted(DownloadSource)
        SourceFound { directory: "/src", buildspec: "/src/buildspec.yml" }
        PhaseWithoutCommands(PreBuild)
        UnknownKeys([UnknownKey { section: "env", key: "x", place: Place { line: 2, column: 20 }, suggestion: None }])
        ShellSelected(Bash)
        EnvironmentReady { directory: "/src" }
        PhasesFound(2)
        PhaseFound { phase: PreBuild, commands: 0 }
        PhaseFound { phase: Build, commands: 2 }
        StageFinished { stage: DownloadSource, state: Succeeded, reason: None }
    "#]].assert_eq(&seen);
}
