//! Tests of the loop, with a shell that runs nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fmt::Write,
    io,
};

use expect_test::{Expect, expect};

use super::*;
use crate::{
    artifacts::{Location, Selection},
    buildspec::{
        Buildspec, ExportedName, PhaseCommands, RuntimeVersion, SecondaryArtifacts, User, Value,
        Variable, Version,
    },
    choice::{AfterAbort, Choices, Collision, RetryScope},
    environment::Facts,
    phase::Retry,
    plan::{Breaks, Inputs, Resume, RuntimeSelected, Start},
    secret::{Reference, Secret, Wanted},
    shell::{Beginning, CommandLine, Expansion, Interaction},
    source::Place,
};

mod table;

/// Runs nothing: a command's text says how it ends, after ` -> ` if there is more in it.
#[derive(Default)]
struct FakeShell {
    stopped: Option<i32>,
    out_of_time: bool,
    /// How often each text ran.
    runs: BTreeMap<String, usize>,
    /// What it was asked to do, with the state that it started with.
    asked: Vec<String>,
    /// How many commands ran since it began.
    ran: usize,
    /// What commands left.
    variables: BTreeMap<&'static str, &'static str>,
    /// How people leave it.
    left: VecDeque<End>,
    snapshots_fail: bool,
}

impl Shell for FakeShell {
    fn begin(&mut self, beginning: Beginning<'_>) -> Result<(), ShellError> {
        let Beginning { environment, directory, source } = beginning;
        let variables = ["A", "TOKEN"].map(|it| format!("{it}={:?}", environment.value(it)));
        let (directory, source) = (directory.display(), source.display());
        self.asked.push(format!("begin in {directory} of {source}, {}", variables.join(" ")));
        self.ran = 0;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot, ShellError> {
        if self.snapshots_fail {
            return Err(ShellError::SupervisorGone);
        }
        let directory = format!("/after {}", self.ran - 1).into();
        Ok(Snapshot { variables: Vec::new(), directory })
    }

    fn interact(&mut self, line: Interaction<'_>) -> Result<End, ShellError> {
        self.asked.push(format!("{line:?}"));
        Ok(self.left.pop_front().unwrap())
    }

    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        self.asked.push(format!("{line:?}"));
        self.ran += 1;
        let runs = self.runs.entry(line.text.to_owned()).or_default();
        *runs += 1;
        let (words, end) = line.text.rsplit_once(" -> ").unwrap_or(("", line.text));
        output(format!("{words}succeeding {}\n", u8::from(line.succeeding)).as_bytes());
        let number = |it: &str| it.parse().unwrap();
        Ok(match end.split_once(' ') {
            Some(("exit", status)) => End::Exited(number(status)),
            Some(("killed", signal)) => End::Killed(number(signal)),
            Some(("stop", signal)) => End::Stopped(number(signal)),
            Some(("fails", "once")) => End::Exited(i32::from(*runs == 1)),
            Some(("fails", "twice")) => End::Exited(i32::from(*runs <= 2)),
            None if end == "timeout" => End::TimedOut,
            None if end == "broken" => return Err(ShellError::SupervisorGone),
            _ => End::Exited(0),
        })
    }

    fn expand(
        &mut self,
        expansion: Expansion<'_>,
        _: &mut dyn FnMut(&[u8]),
    ) -> Result<Result<Vec<OsString>, End>, ShellError> {
        if let Some(signal) = self.stopped {
            return Ok(Err(End::Stopped(signal)));
        }
        if self.out_of_time {
            return Ok(Err(End::TimedOut));
        }
        if expansion.words.iter().any(|it| it.contains('"')) {
            return Ok(Err(End::Exited(2)));
        }
        let expand = |word: &String| {
            let inner = word.strip_prefix("${").and_then(|it| it.strip_suffix('}'));
            let inner = inner.unwrap_or_default();
            if let Some(name) = inner.strip_suffix("+x") {
                return if self.variables.contains_key(name) { "x".into() } else { "".into() };
            }
            match inner.strip_suffix('-') {
                Some(name) => self.variables.get(name).copied().unwrap_or_default().into(),
                None => format!("<{word}>").into(),
            }
        };
        Ok(Ok(expansion.words.iter().map(expand).collect()))
    }

    fn stop_requested(&mut self) -> Option<i32> {
        self.stopped
    }

    fn out_of_time(&mut self) -> bool {
        self.out_of_time
    }
}

/// Has the values of all parameters but `/missing` and `/denied`: their names.
struct FakeSecrets;

impl Secrets for FakeSecrets {
    fn fetch(&mut self, wanted: &[Wanted]) -> Result<Vec<Secret>, SecretsError> {
        let fetch = |Wanted { variable, reference }: &Wanted| {
            let (what, variable) = (format!("{reference:?}"), variable.clone());
            match reference {
                Reference::Parameter(name) if name == "/missing" => {
                    Err(SecretsError::Missing { what, variable, message: "no".into() })
                }
                Reference::Parameter(name) if name == "/denied" => {
                    Err(SecretsError::NotRead { what, variable, source: "denied".into() })
                }
                Reference::Parameter(name) => Ok(Secret::new(name.clone())),
                Reference::SecretsManager(it) => Ok(Secret::new(it.secret_id.clone())),
            }
        };
        wanted.iter().filter(|it| it.variable != "LEFT_OUT").map(fetch).collect()
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
                identifier: selection.identifier.clone(),
                location: Location::Local("/a".into()),
                files: 2,
                bytes: 3,
            }),
        }
    }
}

/// A build, and all that it meets.
struct Case {
    buildspec: Buildspec,
    inputs: Inputs,
    shell: FakeShell,
}

impl Case {
    fn new(text: &str) -> Self {
        let buildspec = Buildspec::parse(text.as_bytes()).unwrap();
        let facts = Facts { source: "/src".into(), ..Facts::default() };
        let inputs =
            Inputs { buildspec_path: "/src/buildspec.yml".into(), facts, ..Inputs::default() };
        Self { buildspec, inputs, shell: FakeShell::default() }
    }

    fn phase(&mut self, phase: Phase) -> &mut PhaseCommands {
        self.buildspec.phases.iter_mut().find(|it| it.phase == phase).unwrap()
    }

    fn run(&mut self, emit: &mut dyn FnMut(Event<'_>)) -> Result<Report, RunError> {
        let plan = Plan::new(self.buildspec.clone(), self.inputs.clone()).unwrap();
        let ports = Ports {
            shell: &mut self.shell,
            secrets: &mut FakeSecrets,
            artifacts: &mut FakeArtifacts,
        };
        run(&plan, ports, emit)
    }

    /// Draws the events, from the first phase on, and what came of it.
    fn play(&mut self) -> String {
        let mut seen = String::new();
        let result = self.run(&mut |event| draw(&mut seen, event));
        let ended = match result {
            Ok(Report { outcome: Outcome::Failed(it), artifacts, exported, resume }) => {
                let reason = match it.reason {
                    Reason::Command { command, end } => {
                        format!("{} {} {end:?}", command.place, command.text)
                    }
                    Reason::Artifacts(err) => err.to_string(),
                    other => format!("{other:?}"),
                };
                let resume = resume.map(|it| (it.step, it.snapshot.directory));
                format!("failed in {}: {reason}, {artifacts:?}, {exported:?}, {resume:?}", it.stage)
            }
            Ok(report) => format!("{report:?}"),
            Err(err) => format!("error: {err}"),
        };
        writeln!(seen, "{ended}").unwrap();
        seen
    }

    #[track_caller]
    fn check(&mut self, want: Expect) {
        want.assert_eq(&self.play());
    }
}

fn draw(seen: &mut String, event: Event<'_>) {
    match event {
        Event::StageStarted(Stage::DownloadSource)
        | Event::StageFinished { stage: Stage::DownloadSource, state: State::Succeeded, .. }
        | Event::SourceFound { .. }
        | Event::PhaseWithoutCommands(_)
        | Event::EnvironmentReady { .. }
        | Event::PhasesFound(_)
        | Event::PhaseFound { .. } => {}
        Event::StageStarted(stage) => writeln!(seen, "{stage}").unwrap(),
        Event::CommandStarted(command) => write!(seen, "  {}: ", command.text).unwrap(),
        Event::Output(bytes) => seen.push_str(String::from_utf8_lossy(bytes).trim_end()),
        Event::CommandFinished { end, .. } => writeln!(seen, ", {end:?}").unwrap(),
        Event::BaseDirectoryWanted(selection) => writeln!(seen, "  {selection}").unwrap(),
        Event::StageFinished { state, .. } => writeln!(seen, "  {state}").unwrap(),
        Event::SecondaryArtifacts { identifier: None } => {}
        other => writeln!(seen, "  {other:?}").unwrap(),
    }
}

#[track_caller]
fn check(text: &str, want: Expect) {
    Case::new(text).check(want);
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
            failed in BUILD: 4:24 exit 7 Exited(7), [Packed { identifier: None, location: Local("/a"), files: 2, bytes: 3 }], [], Some((1, "/after 1"))
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
            failed in INSTALL: 2:50 killed 9 Killed(9), [], [], None
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
            Report { outcome: Stopped { stage: Commands(Build), signal: 2 }, artifacts: [], exported: [], resume: Some(ResumePoint { step: 0, snapshot: Snapshot { variables: [], directory: "/after 0" } }) }
        "#]],
    );
    let text = "version: 0.2\nphases: {}\nartifacts: {files: x}\n";
    let mut case = Case::new(text);
    case.shell.stopped = Some(15);
    case.check(expect![[r#"
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
    "#]]);
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
            failed in UPLOAD_ARTIFACTS: the shell could not expand `"`, [], [], None
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
            failed in UPLOAD_ARTIFACTS: no file matches the patterns of the artifacts, [], [], None
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
            failed in UPLOAD_ARTIFACTS: `/a` could not be written, [], [], None
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
            failed in BUILD: 2:28 exit 1 Exited(1), [], [], Some((0, "/after 0"))
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
    Case::new(text)
        .run(&mut |event| {
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

const PLACE: Place = Place { line: 1, column: 1 };

fn secret(name: &str, parameter: &str) -> Variable {
    let value = Value::Secret(Reference::Parameter(parameter.into()));
    Variable { name: name.into(), value, place: None }
}

fn retry(count: u8, pattern: Option<&str>) -> Option<OnFailure> {
    Some(OnFailure::Retry(Retry { count, pattern: pattern.map(str::to_owned) }))
}

#[test]
fn secrets_are_fetched_and_known_before_anything_runs() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
    case.buildspec.variables = vec![secret("TOKEN", "/t"), secret("OTHER", "/o")];
    case.inputs.hidden = vec![Secret::new("git".into())];
    case.check(expect![[r#"
          SecretsKnown(Redactor(1 values))
          SecretsWanted { parameters: 2, secrets: 0 }
          SecretsKnown(Redactor(3 values))
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=Some("/t")
        CommandLine { text: "exit 0", succeeding: true, user: None, carries: true }"#]].assert_eq(&case.shell.asked.join("\n"));
}

#[test]
fn secrets_that_cannot_be_had_end_the_build_before_anything_runs() {
    for (variable, parameter, want) in [
        ("A", "/missing", "Secrets"),
        ("A", "/denied", "Secrets"),
        ("A", "a\0b", "Environment"),
        ("LEFT_OUT", "/p", "Environment"),
    ] {
        let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
        case.buildspec.variables = vec![secret(variable, parameter)];
        let mut told = String::new();
        let result = case.run(&mut |event| {
            if let Event::StageFinished { stage, state, reason } = event {
                let reason = format!("{reason:?}");
                told += &format!("{stage} {state} {}", reason.contains(want));
                assert!(!reason.contains("a\\0b"), "{reason}");
            }
        });
        let err = result.unwrap_err();
        assert_eq!(told, "DOWNLOAD_SOURCE FAILED true", "{err:?}");
        assert!(format!("{err:?}").starts_with(want), "{err:?}");
        assert!(case.shell.asked.is_empty());
    }
}

#[test]
fn commands_are_run_by_the_user_that_the_buildspec_names() {
    let text = "version: 0.2\nphases: {install: {commands: exit 0, finally: exit 0}, \
                build: {commands: exit 0}}\n";
    let mut case = Case::new(text);
    let user = |name: &str| Some(User { name: name.into(), place: PLACE });
    case.buildspec.run_as = user("ann");
    case.phase(Phase::Install).run_as = user("root");
    case.buildspec.version = Version::V0_1;
    case.run(&mut |_| {}).unwrap();
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "exit 0", succeeding: true, user: Some("root"), carries: false }
        CommandLine { text: "exit 0", succeeding: true, user: Some("root"), carries: false }
        CommandLine { text: "exit 0", succeeding: true, user: Some("ann"), carries: false }"#]].assert_eq(&case.shell.asked.join("\n"));
}

#[test]
fn a_build_is_tried_again_from_its_beginning() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  pre_build: {commands: exit 3}
  build: {commands: fails twice}
";
    let mut case = Case::new(text);
    case.phase(Phase::PreBuild).on_failure = Some(OnFailure::Continue);
    case.phase(Phase::Build).on_failure = retry(2, None);
    case.inputs.choices.after_continue = AfterContinue::Pass;
    case.check(expect![[r#"
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 1, of: 2 }
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 2, of: 2 }
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          exit 3: succeeding 1, Exited(3)
          FAILED
        BUILD
          fails twice: succeeding 0, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    let begun = case.shell.asked.iter().filter(|it| it.starts_with("begin")).count();
    assert_eq!(begun, 3);
}

#[test]
fn a_phase_is_tried_again_with_what_it_left_behind() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  build: {commands: [exit 0, fails twice], finally: exit 0}
";
    let mut case = Case::new(text);
    case.phase(Phase::Build).on_failure = retry(3, None);
    case.inputs.choices.retry = RetryScope::Phase;
    case.check(expect![[r#"
        INSTALL
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(1)
          exit 0: succeeding 0, Exited(0)
          FAILED
          Retrying { scope: Phase, phase: Build, attempt: 1, of: 3 }
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(1)
          exit 0: succeeding 0, Exited(0)
          FAILED
          Retrying { scope: Phase, phase: Build, attempt: 2, of: 3 }
        BUILD
          exit 0: succeeding 1, Exited(0)
          fails twice: succeeding 1, Exited(0)
          exit 0: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    let begun = case.shell.asked.iter().filter(|it| it.starts_with("begin")).count();
    assert_eq!(begun, 1);
}

#[test]
fn each_phase_has_tries_of_its_own_and_they_end() {
    let text = "version: 0.2\nphases: {install: {commands: install -> fails once}, \
                build: {commands: exit 1}}\n";
    let mut case = Case::new(text);
    case.phase(Phase::Install).on_failure = retry(1, None);
    case.phase(Phase::Build).on_failure = retry(2, None);
    let mut tries = Vec::new();
    let report = case.run(&mut |event| {
        if let Event::Retrying { phase, attempt, of, .. } = event {
            tries.push(format!("{phase} {attempt}/{of}"));
        }
    });
    assert_eq!(tries, ["INSTALL 1/1", "BUILD 1/2", "BUILD 2/2"]);
    assert!(matches!(report.unwrap().outcome, Outcome::Failed(_)));
}

#[test]
fn the_output_of_the_first_command_that_failed_decides_about_another_try() {
    for (commands, finally, want) in [
        ("timed out -> fails once", "exit 0", 1),
        ("timed out -> exit 0", "exit 1", 0),
        ("exit 0", "timed out -> fails once", 1),
        ("exit 1", "timed out -> exit 1", 0),
        ("timed out -> fails once", "refused -> fails once", 1),
    ] {
        let text = format!(
            "version: 0.2\nphases: {{build: {{commands: {commands}, finally: {finally}}}}}\n"
        );
        let mut case = Case::new(&text);
        case.phase(Phase::Build).on_failure = retry(3, Some(".*timed out.*"));
        let mut tries = 0;
        let count =
            &mut |event: Event<'_>| tries += i32::from(matches!(event, Event::Retrying { .. }));
        case.run(count).unwrap();
        assert_eq!(tries, want, "{commands}, {finally}");
    }
}

#[test]
fn a_build_that_is_over_time_packs_nothing() {
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: x}\n");
    case.shell.out_of_time = true;
    let report = case.run(&mut |_| {}).unwrap();
    let want = Outcome::TimedOut { stage: Stage::UploadArtifacts };
    assert_eq!(format!("{:?}", report.outcome), format!("{want:?}"));
}

#[test]
fn variables_are_told_at_the_end_of_the_build() {
    let text = "version: 0.2\nphases: {post_build: {commands: exit 1}}\n";
    let mut case = Case::new(text);
    let names = ["A", "EMPTY", "UNSET", "AWS_REGION", "A", "a-b", "SECRET", "TOKEN"];
    case.buildspec.exported =
        names.map(|it| ExportedName { name: it.into(), place: PLACE }).to_vec();
    case.buildspec.variables = vec![secret("SECRET", "/s"), secret("TOKEN", "/t")];
    case.inputs.project_variables = vec![secret("TOKEN", "/p")];
    case.shell.variables = [("A", "1"), ("EMPTY", ""), ("SECRET", "/s"), ("TOKEN", "/p")].into();
    case.check(expect![[r#"
          SecretsWanted { parameters: 2, secrets: 0 }
          SecretsKnown(Redactor(2 values))
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          SUCCEEDED
        POST_BUILD
          exit 1: succeeding 1, Exited(1)
          ExportRefused { name: "AWS_REGION" }
          ExportRefused { name: "a-b" }
          ExportRefused { name: "TOKEN" }
          ExportUnset { name: "UNSET" }
          VariablesExported([("A", "1"), ("EMPTY", ""), ("SECRET", "/s")])
          FAILED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in POST_BUILD: 2:33 exit 1 Exited(1), [], [("A", "1"), ("EMPTY", ""), ("SECRET", "/s")], Some((0, "/after 0"))
    "#]]);
}

#[test]
fn nothing_is_told_of_variables_if_the_end_is_not_reached() {
    for (commands, want) in [
        ("build: {commands: exit 0}", "Exported UPLOAD_ARTIFACTS"),
        ("build: {commands: exit 1}", "Exported UPLOAD_ARTIFACTS"),
        ("pre_build: {commands: exit 1}", ""),
        ("post_build: {commands: stop 2}", ""),
        ("post_build: {commands: timeout}", ""),
    ] {
        let mut case = Case::new(&format!("version: 0.2\nphases: {{{commands}}}\n"));
        case.buildspec.exported = vec![ExportedName { name: "A".into(), place: PLACE }];
        case.shell.variables = [("A", "1")].into();
        let mut told = Vec::new();
        let report = case.run(&mut |event| match event {
            Event::VariablesExported(_) => told.push("Exported"),
            Event::StageStarted(Stage::UploadArtifacts) => told.push("UPLOAD_ARTIFACTS"),
            _ => {}
        });
        assert_eq!(told.join(" "), want, "{commands}");
        assert_eq!(report.unwrap().exported.len(), usize::from(!want.is_empty()), "{commands}");
    }
}

#[test]
fn artifacts_that_fail_do_not_keep_others_from_being_packed() {
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: none}\n");
    let secondary = |identifier: &str, files: &str| {
        let artifacts =
            crate::buildspec::Artifacts { files: vec![files.into()], ..Default::default() };
        SecondaryArtifacts { identifier: identifier.into(), place: PLACE, artifacts }
    };
    case.buildspec.secondary_artifacts =
        vec![secondary("one", "x"), secondary("two", "full"), secondary("three", "$A")];
    case.inputs.choices.collision = Collision::First;
    case.check(expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          Selection { identifier: None, files: ["none"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("one") }
          Selection { identifier: Some("one"), files: ["x"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("two") }
          Selection { identifier: Some("two"), files: ["full"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          SecondaryArtifacts { identifier: Some("three") }
          Selection { identifier: Some("three"), files: ["<${A}>"], base_directory: None, discard_paths: false, exclude_paths: [], enable_symlinks: false, name: None, s3_prefix: None, collision: First }
          FAILED
        failed in UPLOAD_ARTIFACTS: no file matches the patterns of the artifacts, [Packed { identifier: Some("one"), location: Local("/a"), files: 2, bytes: 3 }, Packed { identifier: Some("three"), location: Local("/a"), files: 2, bytes: 3 }], [], None
    "#]]);
    case.buildspec.artifacts = None;
    let report = case.run(&mut |_| {}).unwrap();
    let Outcome::Failed(Failure { reason: Reason::SecondaryArtifacts { identifier, .. }, .. }) =
        report.outcome
    else {
        panic!("{report:?}");
    };
    assert_eq!(identifier, "two");
}

#[test]
fn only_what_was_asked_for_runs() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0}
  build: {commands: exit 1}
  post_build: {commands: exit 0}
artifacts: {files: x}
";
    for (start, want) in [
        (Start::All, "INSTALL PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS"),
        (Start::From(Phase::Build), "-INSTALL -PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS"),
        (Start::Only(Phase::Build), "-INSTALL -PRE_BUILD BUILD -POST_BUILD -UPLOAD_ARTIFACTS"),
        (Start::Only(Phase::Install), "INSTALL -PRE_BUILD -BUILD -POST_BUILD -UPLOAD_ARTIFACTS"),
    ] {
        let mut case = Case::new(text);
        case.inputs.start = start;
        let mut told = Vec::new();
        case.run(&mut |event| match event {
            Event::StageStarted(stage) if stage != Stage::FIRST => told.push(stage.to_string()),
            Event::StageSkipped(stage) => told.push(format!("-{stage}")),
            _ => {}
        })
        .unwrap();
        assert_eq!(told.join(" "), want, "{start:?}");
    }
}

#[test]
fn a_build_goes_on_where_another_ended() {
    let text = "version: 0.2
phases:
  install: {commands: exit 0, finally: exit 0}
  build: {commands: [exit 0, fails once, exit 5], finally: exit 0}
";
    let mut case = Case::new(text);
    case.buildspec.variables = vec![secret("TOKEN", "/t")];
    let report = case.run(&mut |_| {}).unwrap();
    let point = report.resume.unwrap();
    assert_eq!((point.step, point.snapshot.directory.to_str()), (3, Some("/after 3")));
    case.inputs.resume = Some(Resume {
        step: point.step,
        directory: point.snapshot.directory,
        set: vec![("A".into(), "1".into())],
        unset: vec!["CODEBUILD_CI".into()],
    });
    case.inputs.runtime_commands =
        vec![RuntimeSelected { commands: vec!["exit 9".into()], ..RuntimeSelected::default() }];
    case.shell.asked.clear();
    case.check(expect![[r#"
          SecretsWanted { parameters: 1, secrets: 0 }
          SecretsKnown(Redactor(1 values))
          StageSkipped(Commands(Install))
          StageSkipped(Commands(PreBuild))
        BUILD
          fails once: succeeding 1, Exited(0)
          exit 5: succeeding 1, Exited(5)
          exit 0: succeeding 0, Exited(0)
          FAILED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in BUILD: 4:42 exit 5 Exited(5), [], [], Some((4, "/after 1"))
    "#]]);
    expect![[r#"
        begin in /after 3 of /src, A=Some("1") TOKEN=Some("/t")
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }
        CommandLine { text: "exit 5", succeeding: true, user: None, carries: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }"#]].assert_eq(&case.shell.asked.join("\n"));
}

#[test]
fn there_is_no_place_to_go_on_with_if_that_would_be_wrong() {
    for (phases, want) in [
        ("build: {commands: exit 0}", None),
        ("build: {commands: [exit 0, exit 1], finally: exit 2}", Some(1)),
        ("build: {commands: [exit 0, stop 2]}", Some(1)),
        ("build: {commands: [exit 0, timeout]}", Some(1)),
        ("build: {commands: exit 0, finally: exit 1}, post_build: {commands: exit 1}", None),
        ("build: {commands: [exit 0, exit 1]}, post_build: {commands: exit 1}", Some(1)),
    ] {
        let mut case = Case::new(&format!("version: 0.2\nphases: {{{phases}}}\n"));
        let step = |case: &mut Case| case.run(&mut |_| {}).unwrap().resume.map(|it| it.step);
        assert_eq!(step(&mut case), want, "{phases}");
        case.shell.snapshots_fail = true;
        assert_eq!(step(&mut case), None, "{phases}");
    }
    let mut case = Case::new("version: 0.2\nphases: {}\nartifacts: {files: none}\n");
    assert_eq!(case.run(&mut |_| {}).unwrap().resume, None);
}

#[test]
fn a_failure_that_counts_for_nothing_is_no_place_to_go_on_with() {
    let text = "version: 0.2\nphases: {install: {commands: exit 1}, build: {commands: exit 1}}\n";
    for (after_continue, want) in [(AfterContinue::Fail, 0), (AfterContinue::Pass, 1)] {
        let mut case = Case::new(text);
        case.phase(Phase::Install).on_failure = Some(OnFailure::Continue);
        case.inputs.choices.after_continue = after_continue;
        let report = case.run(&mut |_| {}).unwrap();
        assert_eq!(report.resume.map(|it| it.step), Some(want));
    }
}

/// A build with breakpoints before its second command and after each that fails.
fn with_breakpoints(left: &[End]) -> Case {
    let text = "version: 0.2
phases:
  build: {commands: [exit 0, exit 3], finally: exit 0}
  post_build: {commands: exit 0}
";
    let mut case = Case::new(text);
    case.inputs.breaks = Breaks { before: vec![1], on_failure: true };
    case.shell.left = left.to_vec().into();
    case
}

#[test]
fn people_look_at_a_build_and_it_goes_on() {
    let mut case = with_breakpoints(&[End::Exited(0), End::Exited(7)]);
    case.check(expect![[r#"
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          exit 0: succeeding 1, Exited(0)
          BreakpointReached { command: Command { text: "exit 3", place: Place { line: 3, column: 30 } }, failed: false }
          BreakpointLeft { end: Exited(0) }
          exit 3: succeeding 1, Exited(3)
          BreakpointReached { command: Command { text: "exit 3", place: Place { line: 3, column: 30 } }, failed: true }
          BreakpointLeft { end: Exited(7) }
          exit 0: succeeding 0, Exited(0)
          FAILED
        POST_BUILD
          exit 0: succeeding 0, Exited(0)
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        failed in BUILD: 3:30 exit 3 Exited(3), [], [], Some((1, "/after 1"))
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "exit 0", succeeding: true, user: None, carries: true }
        Interaction { succeeding: true, user: None, before_last: false }
        CommandLine { text: "exit 3", succeeding: true, user: None, carries: true }
        Interaction { succeeding: false, user: None, before_last: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }
        CommandLine { text: "exit 0", succeeding: false, user: None, carries: true }"#]].assert_eq(&case.shell.asked.join("\n"));
}

#[test]
fn people_end_a_build_that_they_look_at() {
    for end in [End::Exited(1), End::Killed(9)] {
        let mut case = with_breakpoints(&[end]);
        let mut states = Vec::new();
        let report = case.run(&mut |event| {
            if let Event::StageFinished { stage, state, .. } = event {
                states.push(format!("{stage} {state}"));
            }
        });
        let outcome = report.unwrap().outcome;
        let Outcome::Failed(Failure { stage, reason: Reason::Breakpoint { .. } }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(stage, Stage::Commands(Phase::Build));
        assert_eq!(states.last().unwrap(), "BUILD STOPPED");
    }
    for (left, want) in [
        (vec![End::Stopped(2)], "Stopped { stage: Commands(Build), signal: 2 }"),
        (vec![End::TimedOut], "TimedOut { stage: Commands(Build) }"),
        (vec![End::Exited(0), End::Stopped(2)], "Stopped { stage: Commands(Build), signal: 2 }"),
    ] {
        let outcome = with_breakpoints(&left).run(&mut |_| {}).unwrap().outcome;
        assert_eq!(format!("{outcome:?}"), want);
    }
}

fn runtime(name: &str, command: &str) -> RuntimeSelected {
    RuntimeSelected {
        name: name.into(),
        version: "1".into(),
        variables: vec![("VERSION".into(), "it's 1".into()), ("no name".into(), "x".into())],
        commands: vec![command.into()],
    }
}

#[test]
fn runtimes_are_selected_before_the_first_phase_and_again_with_each_try() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: fails once}}\n");
    case.phase(Phase::Build).on_failure = retry(1, None);
    case.inputs.runtime_commands =
        vec![runtime("python", "p -> exit 0"), runtime("java", "j -> exit 0")];
    case.check(expect![[r#"
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 0: VERSION='it'\''s 1'
        psucceeding 1, Exited(0)
          RuntimeSelected { name: "java", version: "1" }
          j -> exit 0: VERSION='it'\''s 1'
        jsucceeding 1, Exited(0)
        INSTALL
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          fails once: succeeding 1, Exited(1)
          FAILED
          Retrying { scope: Build, phase: Build, attempt: 1, of: 1 }
        INSTALL
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 0: VERSION='it'\''s 1'
        psucceeding 1, Exited(0)
          RuntimeSelected { name: "java", version: "1" }
          j -> exit 0: VERSION='it'\''s 1'
        jsucceeding 1, Exited(0)
          SUCCEEDED
        PRE_BUILD
          SUCCEEDED
        BUILD
          fails once: succeeding 1, Exited(0)
          SUCCEEDED
        POST_BUILD
          SUCCEEDED
        UPLOAD_ARTIFACTS
          SUCCEEDED
        Report { outcome: Succeeded, artifacts: [], exported: [], resume: None }
    "#]]);
    expect![[r#"
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "VERSION='it'\\''s 1'\np -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "VERSION='it'\\''s 1'\nj -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }
        begin in /src of /src, A=None TOKEN=None
        CommandLine { text: "VERSION='it'\\''s 1'\np -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "VERSION='it'\\''s 1'\nj -> exit 0", succeeding: true, user: None, carries: true }
        CommandLine { text: "fails once", succeeding: true, user: None, carries: true }"#]].assert_eq(&case.shell.asked.join("\n"));
}

#[test]
fn a_runtime_that_cannot_be_selected_fails_the_build() {
    let mut case = Case::new("version: 0.2\nphases: {build: {commands: exit 0}}\n");
    case.inputs.runtime_commands = vec![runtime("python", "p -> exit 4")];
    case.check(expect![[r#"
          RuntimeSelected { name: "python", version: "1" }
          p -> exit 4: VERSION='it'\''s 1'
        psucceeding 1, Exited(4)
          FAILED
        failed in DOWNLOAD_SOURCE: 1:1 p -> exit 4 Exited(4), [], [], None
    "#]]);
}

#[test]
fn runtimes_that_this_machine_does_not_have_are_passed_over() {
    for (names, want) in
        [(vec![], false), (vec!["docker"], false), (vec!["docker", "python"], true)]
    {
        let mut case = Case::new("version: 0.2\nphases: {}\n");
        let version = |name: &&str| RuntimeVersion {
            name: (*name).into(),
            version: "1".into(),
            place: PLACE,
        };
        case.buildspec.runtimes = names.iter().map(version).collect();
        let mut told = false;
        case.run(&mut |event| told |= matches!(event, Event::RuntimesSkipped(_))).unwrap();
        assert_eq!(told, want, "{names:?}");
    }
}
