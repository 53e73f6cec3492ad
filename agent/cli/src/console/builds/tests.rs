//! Builds as each mode shows them, and the events as their schema has them.

use std::{
    cell::Cell,
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
};

use expect_test::{Expect, expect};
use rbuild_agent::{
    artifacts::{ArtifactsError, Location, Packed},
    buildspec::{Buildspec, Command, RuntimeVersion, ShellName},
    choice::{Masking, RetryScope},
    phase::{Phase, Stage},
    run::Reason,
    secret::{Redactor, Secret},
    shell::End,
    source::Place,
};
use serde_json::Value;

use super::*;
use crate::console::{Manner, github::lines::Lines, json, voice};

thread_local! {
    static TICKS: Cell<u32> = const { Cell::new(0) };
}

/// A clock that goes on by a tenth of a second whenever someone looks.
fn clock() -> Duration {
    TICKS.set(TICKS.get() + 1);
    Duration::from_secs(1_705_313_472) + Duration::from_millis(100) * TICKS.get()
}

const SPEC: &str = "version: 0.2
phases:
  install:
    commands: [make tools]
  build:
    commands:
      - make hunter2
      - |
        second
        line
    finally: [clean up]
";

/// A build, as the one who shows it is told of it.
struct Scene {
    view: View,
    commands: Vec<Command>,
    file: File,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        TICKS.set(0);
        let file = tempfile::tempfile().unwrap();
        let buildspec = Buildspec::parse(SPEC.as_bytes()).unwrap();
        let spot = Spot {
            file: "ci/spec.yml".into(),
            path: "/work/ci/spec.yml".into(),
            line: 0,
            column: 0,
        };
        let course = Course::new(spot, &buildspec.phases, clock());
        let commands =
            buildspec.phases.iter().flat_map(|it| it.commands.iter().chain(&it.finally)).cloned();
        let out = Out { stream: Some(file.try_clone().unwrap()), is_drawn_on: false, lost: None };
        let manner = match mode {
            Mode::Github => Manner::Github(Lines::new(Some("/work".into()), || "TOKEN".into())),
            _ => Manner::Words,
        };
        voice().manner = manner;
        let mut view = View::with(mode, course, out, clock);
        if let Face::Github(github) = &mut view.face {
            *github = Github::new(true, || "TOKEN".into());
        }
        Self { view, commands: commands.collect(), file }
    }

    fn begin(&mut self) {
        let view = &mut self.view;
        let (directory, buildspec) = (Path::new("/work"), Path::new("/work/ci/spec.yml"));
        view.show(&Event::StageStarted(Stage::DownloadSource));
        view.show(&Event::SourceFound { directory, buildspec });
        view.show(&Event::ShellSelected(ShellName::Bash));
    }

    fn ready(&mut self) {
        let view = &mut self.view;
        view.show(&Event::EnvironmentReady { directory: Path::new("/work") });
        view.show(&Event::PhasesFound(2));
        view.show(&Event::PhaseFound { phase: Phase::Install, commands: 1 });
        view.show(&Event::PhaseFound { phase: Phase::Build, commands: 2 });
        self.end(Stage::DownloadSource, State::Succeeded, None);
    }

    fn stage(&mut self, stage: Stage) {
        self.view.show(&Event::StageStarted(stage));
    }

    /// Runs the command of this number, counted from 0.
    fn run(&mut self, number: usize, output: &[&str], end: End) {
        let command = self.commands[number].clone();
        self.view.show(&Event::CommandStarted(&command));
        for piece in output {
            self.view.show(&Event::Output(piece.as_bytes()));
        }
        self.view.show(&Event::CommandFinished { command: &command, end });
    }

    fn end(&mut self, stage: Stage, state: State, reason: Option<&Reason>) {
        self.view.show(&Event::StageFinished { stage, state, reason });
    }

    fn fail(&mut self, stage: Stage, number: usize, end: End) {
        let command = self.commands[number].clone();
        self.end(stage, State::Failed, Some(&Reason::Command { command, end }));
    }

    /// What was shown.
    fn shown(self) -> String {
        let Self { mut view, mut file, .. } = self;
        let summary = match &view.face {
            Face::Github(github) => format!("--- summary\n{}", github.summary(&view.course)),
            _ => String::new(),
        };
        view.out.is_drawn_on = false;
        view.finish().unwrap();
        voice().manner = Manner::Words;
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text + &summary
    }
}

const INSTALL: Stage = Stage::Commands(Phase::Install);
const BUILD: Stage = Stage::Commands(Phase::Build);

/// All of it works; secrets, runtimes, exported variables, and artifacts of two kinds.
fn success(scene: &mut Scene) {
    scene.begin();
    scene.view.show(&Event::SecretsWanted { parameters: 1, secrets: 2 });
    let values = ["hunter2", "first line\nsecond line"].map(|it| Secret::new(it.into()));
    let redactor = Redactor::new(values.to_vec(), Masking::default());
    scene.view.show(&Event::SecretsKnown(&redactor));
    scene.view.show(&Event::RuntimeSelected { name: "python", version: "3.9" });
    scene.ready();
    scene.stage(INSTALL);
    scene.run(0, &["tools\n"], End::Exited(0));
    scene.end(INSTALL, State::Succeeded, None);
    scene.stage(BUILD);
    scene.run(
        1,
        &["say hun", "ter2 and first line\nsec", "ond line.\nno line end hunt"],
        End::Exited(0),
    );
    scene.run(2, &[], End::Exited(0));
    scene.run(3, &["clean\n"], End::Exited(0));
    let variables = [("A", "1"), ("B", "is hunter2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    scene.view.show(&Event::VariablesExported(&variables));
    scene.end(BUILD, State::Succeeded, None);
    scene.stage(Stage::UploadArtifacts);
    scene.view.show(&Event::PatternMatched { pattern: "out/*", literal: false, files: 2 });
    scene.view.show(&Event::FilesFound(2));
    scene.view.show(&Event::ArtifactsSent { sent: 10, total: 20 });
    let location = Location::Local("/out/hunter2|x".into());
    let mut packed = Packed { identifier: None, location, files: 2, bytes: 20 };
    scene.view.show(&Event::ArtifactsWritten(&packed));
    for identifier in ["docs", "logs"] {
        scene.view.show(&Event::SecondaryArtifacts { identifier: Some(identifier) });
        packed.identifier = Some(identifier.into());
        packed.location = Location::Remote(format!("s3://bucket/{identifier}"));
        scene.view.show(&Event::ArtifactsWritten(&packed));
    }
    scene.end(Stage::UploadArtifacts, State::Succeeded, None);
}

/// A phase is tried again, and fails again; so do the artifacts.
fn failure(scene: &mut Scene) {
    scene.begin();
    let place = Place { line: 3, column: 1 };
    let runtime = RuntimeVersion { name: "java".into(), version: "21".into(), place };
    scene.view.show(&Event::RuntimesSkipped(&[runtime]));
    scene.ready();
    scene.view.show(&Event::StageSkipped(INSTALL));
    for attempt in [0, 1] {
        scene.stage(BUILD);
        let command = scene.commands[1].clone();
        scene.view.show(&Event::BreakpointReached { command: &command, failed: false });
        scene.run(1, &["::set-output name=x::y\n##[error]no\n"], End::Exited(2));
        scene.view.show(&Event::BreakpointReached { command: &command, failed: true });
        scene.run(3, &["no line end"], End::Killed(9));
        scene.fail(BUILD, 1, End::Exited(2));
        if attempt == 0 {
            let (scope, phase) = (RetryScope::Phase, Phase::Build);
            scene.view.show(&Event::Retrying { scope, phase, attempt: 1, of: 1 });
        }
    }
    scene.stage(Stage::UploadArtifacts);
    scene.view.show(&Event::PatternMatched { pattern: "a", literal: true, files: 0 });
    let reason = Reason::Artifacts(ArtifactsError::NoFiles);
    scene.end(Stage::UploadArtifacts, State::Failed, Some(&reason));
}

/// The build takes too long, in the middle of a line.
fn timeout(scene: &mut Scene) {
    scene.begin();
    scene.ready();
    scene.stage(BUILD);
    scene.run(2, &["::stop-commands::x"], End::TimedOut);
    scene.end(BUILD, State::TimedOut, None);
}

/// One at a time: which manner the process has is of the process.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn shown(mode: Mode, play: fn(&mut Scene)) -> String {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut scene = Scene::new(mode);
    play(&mut scene);
    scene.shown()
}

#[track_caller]
fn check(mode: Mode, play: fn(&mut Scene), want: Expect) {
    want.assert_eq(&shown(mode, play));
}

#[test]
fn how_a_build_is_shown_depends_on_what_is_around() {
    let none = Surroundings::default();
    let terminal = Surroundings { is_terminal: true, ..none };
    let codebuild = Surroundings { is_codebuild: true, ..terminal };
    let github = Surroundings { is_github: true, ..codebuild };
    for (log, around, want) in [
        (Log::Auto, none, Mode::Codebuild),
        (Log::Auto, terminal, Mode::Progress),
        (Log::Auto, codebuild, Mode::Plain),
        (Log::Auto, github, Mode::Github),
        (Log::Codebuild, github, Mode::Codebuild),
        (Log::Plain, terminal, Mode::Plain),
        (Log::Github, none, Mode::Github),
        (Log::Progress, none, Mode::Progress),
    ] {
        assert_eq!(Mode::of_log(log, around), want, "{log:?} with {around:?}");
    }
}

#[test]
fn success_as_codebuild_logs_it() {
    check(Mode::Codebuild, success, expect![[r#""#]]);
}

#[test]
fn failure_as_codebuild_logs_it() {
    check(Mode::Codebuild, failure, expect![[r#""#]]);
}

#[test]
fn timeout_as_codebuild_logs_it() {
    check(Mode::Codebuild, timeout, expect![[r#""#]]);
}

#[test]
fn success_on_a_terminal() {
    check(Mode::Progress, success, expect![[r#""#]]);
}

#[test]
fn failure_on_a_terminal() {
    check(Mode::Progress, failure, expect![[r#""#]]);
}

#[test]
fn timeout_on_a_terminal() {
    check(Mode::Progress, timeout, expect![[r#""#]]);
}

#[test]
fn success_in_few_words() {
    check(Mode::Plain, success, expect![[r#""#]]);
}

#[test]
fn failure_in_few_words() {
    check(Mode::Plain, failure, expect![[r#""#]]);
}

#[test]
fn timeout_in_few_words() {
    check(Mode::Plain, timeout, expect![[r#""#]]);
}

#[test]
fn success_on_github_actions() {
    check(Mode::Github, success, expect![[r#""#]]);
}

#[test]
fn failure_on_github_actions() {
    check(Mode::Github, failure, expect![[r#""#]]);
}

#[test]
fn timeout_on_github_actions() {
    check(Mode::Github, timeout, expect![[r#""#]]);
}

#[test]
fn success_as_events() {
    check(Mode::Json, success, expect![[r#""#]]);
}

#[test]
fn failure_as_events() {
    check(Mode::Json, failure, expect![[r#""#]]);
}

#[test]
fn timeout_as_events() {
    check(Mode::Json, timeout, expect![[r#""#]]);
}

#[test]
fn no_mode_shows_a_secret() {
    for mode in [Mode::Codebuild, Mode::Progress, Mode::Plain, Mode::Json, Mode::Github] {
        let text = shown(mode, success);
        // GitHub's runner is told what it must not show.
        let lines = text.lines().filter(|it| !it.starts_with("::add-mask::"));
        for line in lines {
            assert!(!line.contains("hunter2") && !line.contains("second line"), "{mode:?}: {line}");
        }
    }
}

#[test]
fn every_event_is_as_the_schema_has_it() {
    let schema: Value = serde_json::from_str(json::SCHEMA).unwrap();
    let failure_of_all = Failure::new(Kind::Input, "message")
        .because(io::Error::other("cause"))
        .note("note".into())
        .hint("hint")
        .at(Spot { file: "a.yml".into(), line: 1, column: 2, ..Spot::default() });
    let hide = Redactor::default();
    let now = clock();
    let mut lines = [success, failure, timeout].map(|it| shown(Mode::Json, it)).concat();
    lines += &json::build(now);
    lines += &json::warning("text", failure_of_all.spot(), now, &hide);
    lines += &json::error(&failure_of_all, now, &hide);
    lines += &json::result(None, State::Succeeded, now, now);
    for kind in [Kind::Build, Kind::Input, Kind::Outside, Kind::Stopped(2)] {
        lines += &json::error(&Failure::new(kind, "message"), now, &hide);
        lines += &json::result(Some(kind), State::TimedOut, now, now);
    }
    lines += &Json::default().output(b"\xff", &Course::new(Spot::default(), &[], now));
    let kinds = schema["oneOf"].as_array().unwrap();
    let name = |kind: &Value| kind["properties"]["type"]["const"].as_str().unwrap().to_owned();
    let mut unseen: std::collections::BTreeSet<_> = kinds.iter().map(name).collect();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let of_type = event["type"].as_str().unwrap();
        let kind = kinds.iter().find(|it| name(it) == of_type);
        let kind = kind.unwrap_or_else(|| panic!("no type `{of_type}`"));
        let wrong = violation(kind, &event);
        assert_eq!(wrong, None, "{line}");
        unseen.remove(of_type);
    }
    assert!(unseen.is_empty(), "nothing was written of these: {unseen:?}");
}

/// How a value is not as a schema has it, with as much of JSON Schema as ours needs. A property
/// that the schema does not name is wrong, too.
fn violation(schema: &Value, value: &Value) -> Option<String> {
    if let Some(wanted) = schema["enum"].as_array()
        && !wanted.contains(value)
    {
        return Some(format!("{value} is none of {wanted:?}"));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    let is_of_type = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.as_i64().is_some_and(|it| schema["minimum"].as_i64().is_none_or(|min| min <= it))
        }
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other}"),
    };
    if !is_of_type {
        return Some(format!("{value} is not of {schema}"));
    }
    let has_all = |of: &Value| {
        let required = of["required"].as_array().into_iter().flatten();
        required.map(|it| it.as_str().unwrap()).all(|it| value.get(it).is_some())
    };
    if !has_all(schema) {
        return Some(format!("not all of {}", schema["required"]));
    }
    let choices = schema["oneOf"].as_array();
    if choices.is_some_and(|it| it.iter().filter(|it| has_all(it)).count() != 1) {
        return Some(format!("not one of {}", schema["oneOf"]));
    }
    let items = value.as_array().into_iter().flatten();
    let wrong = items.filter_map(|it| violation(&schema["items"], it)).next();
    let fields = value.as_object().into_iter().flatten();
    wrong.or_else(|| fields.filter_map(|(name, it)| field(schema, name, it)).next())
}

fn field(schema: &Value, name: &str, value: &Value) -> Option<String> {
    match schema["properties"].get(name) {
        Some(schema) => violation(schema, value).map(|it| format!("{name}: {it}")),
        None => Some(format!("`{name}` is not in the schema")),
    }
}
