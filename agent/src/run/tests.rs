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

mod again;
mod beginning;
mod debugging;
mod left;
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
    /// How many had run before what its snapshot is of.
    before: usize,
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
        let directory = format!("/after {}", self.before).into();
        Ok(Snapshot { variables: Vec::new(), directory })
    }

    fn interact(&mut self, line: Interaction<'_>) -> Result<End, ShellError> {
        self.asked.push(format!("{line:?}"));
        if !line.before_last {
            self.before = self.ran;
        }
        Ok(self.left.pop_front().unwrap())
    }

    fn run(
        &mut self,
        line: CommandLine<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<End, ShellError> {
        self.asked.push(format!("{line:?}"));
        self.before = self.ran;
        self.ran += 1;
        let runs = self.runs.entry(line.text.to_owned()).or_default();
        *runs += 1;
        let (words, end) = line.text.rsplit_once(" -> ").unwrap_or(("", line.text));
        let words = if words.is_empty() { String::new() } else { format!("[{words}] ") };
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
        let fetch = |Wanted { variable, reference, .. }: &Wanted| {
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

    /// What the shell was asked to do.
    fn asked(&self) -> String {
        self.shell.asked.iter().fold(String::new(), |all, it| all + it + "\n")
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
        | Event::PhaseFound { .. }
        | Event::SecondaryArtifacts { identifier: None } => {}
        Event::StageStarted(stage) => writeln!(seen, "{stage}").unwrap(),
        Event::CommandStarted(command) => write!(seen, "  {}: ", command.text).unwrap(),
        Event::Output(bytes) => seen.push_str(String::from_utf8_lossy(bytes).trim_end()),
        Event::CommandFinished { end, .. } => writeln!(seen, ", {end:?}").unwrap(),
        Event::BaseDirectoryWanted(selection) => writeln!(seen, "  {selection}").unwrap(),
        Event::StageFinished { state, .. } => writeln!(seen, "  {state}").unwrap(),
        other => writeln!(seen, "  {other:?}").unwrap(),
    }
}

#[track_caller]
fn check(text: &str, want: Expect) {
    Case::new(text).check(want);
}

const PLACE: Place = Place { line: 1, column: 1 };

fn secret(name: &str, parameter: &str) -> Variable {
    let value = Value::Secret(Reference::Parameter(parameter.into()));
    Variable { name: name.into(), value, place: None }
}

fn retry(count: u8, pattern: Option<&str>) -> OnFailure {
    OnFailure::Retry(Retry { count, pattern: pattern.map(str::to_owned) })
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
fn an_end_in_finally_counts_more_than_a_failure_before_it() {
    for (commands, finally, want) in [
        ("exit 1", "stop 2", "Stopped { stage: Commands(Install), signal: 2 }, Some(0)"),
        ("exit 1", "timeout", "TimedOut { stage: Commands(Install) }, Some(0)"),
        ("exit 0", "stop 2", "Stopped { stage: Commands(Install), signal: 2 }, None"),
        ("exit 0", "timeout", "TimedOut { stage: Commands(Install) }, None"),
    ] {
        let text = format!(
            "version: 0.2\nphases: {{install: {{commands: {commands}, finally: [{finally}, exit 0]}}}}\n"
        );
        let mut case = Case::new(&text);
        let report = case.run(&mut |_| {}).unwrap();
        let resume = report.resume.map(|it| it.step);
        assert_eq!(format!("{:?}, {resume:?}", report.outcome), want);
        assert_eq!(case.shell.ran, 2);
    }
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
