//! Builds as each mode shows them, and the events as their schema has them.

use std::{
    cell::Cell,
    fs::{self, File},
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
use tempfile::TempDir;

use super::*;
use crate::console::{Manner, github::lines::Lines, voice};

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
    /// Where the step's files are.
    folder: TempDir,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        TICKS.set(0);
        let file = tempfile::tempfile().unwrap();
        let buildspec = Buildspec::parse(SPEC.as_bytes()).unwrap();
        let spot = Spot {
            file: "ci/spec.yml".into(),
            path: "/code/ci/spec.yml".into(),
            line: 0,
            column: 0,
        };
        let course = Course::new(spot, &buildspec.phases);
        clock();
        let commands =
            buildspec.phases.iter().flat_map(|it| it.commands.iter().chain(&it.finally)).cloned();
        let out = Out { stream: Some(file.try_clone().unwrap()), is_drawn_on: false, lost: None };
        let manner = match mode {
            Mode::Github => Manner::Github(Lines::new(Some("/code".into()), || "TOKEN".into())),
            _ => Manner::Words,
        };
        voice().manner = manner;
        let mut view = View::with(mode, course, out, clock);
        let folder = tempfile::tempdir().unwrap();
        if mode == Mode::Github {
            let path = |name| Some(folder.path().join(name));
            let files = StepFiles { outputs: path("outputs"), summary: path("summary") };
            view.face = Face::Github { github: Github::new(true, || "TOKEN".into()), files };
        }
        Self { view, commands: commands.collect(), file, folder }
    }

    fn begin(&mut self) {
        let view = &mut self.view;
        let (directory, buildspec) = (Path::new("/code"), Path::new("/code/ci/spec.yml"));
        view.show(&Event::StageStarted(Stage::DownloadSource));
        view.show(&Event::SourceFound { directory, buildspec });
        view.show(&Event::ShellSelected(ShellName::Bash));
    }

    fn ready(&mut self) {
        let view = &mut self.view;
        view.show(&Event::EnvironmentReady { directory: Path::new("/code") });
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

    fn end(&mut self, stage: Stage, how: State, reason: Option<&Reason>) {
        self.view.show(&Event::StageFinished { stage, state: how, reason });
    }

    fn fail(&mut self, stage: Stage, number: usize, end: End) {
        let command = self.commands[number].clone();
        self.end(stage, State::Failed, Some(&Reason::Command { command, end }));
    }

    /// What was shown.
    fn shown(self) -> String {
        let Self { view, mut file, folder, .. } = self;
        view.finish().unwrap();
        voice().manner = Manner::Words;
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        for name in ["outputs", "summary"] {
            if let Ok(left) = fs::read_to_string(folder.path().join(name)) {
                text = text + "--- " + name + "\n" + &left;
            }
        }
        text
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
    // Not of the buildspec.
    let place = Place { line: 1, column: 1 };
    let command = Command { text: "pyenv global 3.9".into(), place };
    scene.view.show(&Event::CommandStarted(&command));
    let end = End::Exited(0);
    scene.view.show(&Event::CommandFinished { command: &command, end });
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
        scene.view.show(&Event::BreakpointLeft { end: End::Exited(0) });
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
    check(
        Mode::Codebuild,
        success,
        expect![[r#"
            [Container] 2024/01/15 10:11:12.200000 Waiting for DOWNLOAD_SOURCE
            [Container] 2024/01/15 10:11:12.200000 Phase is DOWNLOAD_SOURCE
            [Container] 2024/01/15 10:11:12.300000 CODEBUILD_SRC_DIR=/code
            [Container] 2024/01/15 10:11:12.300000 YAML location is /code/ci/spec.yml
            [Container] 2024/01/15 10:11:12.400000 Selecting shell bash as specified in buildspec.
            [Container] 2024/01/15 10:11:12.500000 Processing environment variables
            [Container] 2024/01/15 10:11:12.500000 Decrypting parameter store environment variables
            [Container] 2024/01/15 10:11:12.700000 Selecting 'python' runtime version '3.9' based on manual selections...
            [Container] 2024/01/15 10:11:12.800000 Running command pyenv global 3.9

            [Container] 2024/01/15 10:11:13.000000 Moving to directory /code
            [Container] 2024/01/15 10:11:13.000000 Cache is not defined in the buildspec
            [Container] 2024/01/15 10:11:13.000000 Skip cache due to: no paths specified to be cached
            [Container] 2024/01/15 10:11:13.100000 Phases found in YAML: 2
            [Container] 2024/01/15 10:11:13.200000  INSTALL: 1 commands
            [Container] 2024/01/15 10:11:13.300000  BUILD: 2 commands
            [Container] 2024/01/15 10:11:13.400000 Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
            [Container] 2024/01/15 10:11:13.400000 Phase context status code:  Message: 
            [Container] 2024/01/15 10:11:13.500000 Entering phase INSTALL
            [Container] 2024/01/15 10:11:13.600000 Running command make tools
            tools

            [Container] 2024/01/15 10:11:13.800000 Phase complete: INSTALL State: SUCCEEDED
            [Container] 2024/01/15 10:11:13.800000 Phase context status code:  Message: 
            [Container] 2024/01/15 10:11:13.900000 Entering phase BUILD
            [Container] 2024/01/15 10:11:14.000000 Running command make ***
            say *** and ***.
            no line end hunt

            [Container] 2024/01/15 10:11:14.200000 Running command second
            line


            [Container] 2024/01/15 10:11:14.400000 Running command clean up
            clean

            [Container] 2024/01/15 10:11:14.700000 Phase complete: BUILD State: SUCCEEDED
            [Container] 2024/01/15 10:11:14.700000 Phase context status code:  Message: 
            [Container] 2024/01/15 10:11:14.900000 Expanding out/*
            [Container] 2024/01/15 10:11:15.000000 Found 2 file(s)
            [Container] 2024/01/15 10:11:15.300000 Preparing to copy secondary artifacts
            [Container] 2024/01/15 10:11:15.700000 Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED
            [Container] 2024/01/15 10:11:15.700000 Phase context status code:  Message: 
        "#]],
    );
}

#[test]
fn failure_as_codebuild_logs_it() {
    check(
        Mode::Codebuild,
        failure,
        expect![[r#"
            [Container] 2024/01/15 10:11:12.200000 Waiting for DOWNLOAD_SOURCE
            [Container] 2024/01/15 10:11:12.200000 Phase is DOWNLOAD_SOURCE
            [Container] 2024/01/15 10:11:12.300000 CODEBUILD_SRC_DIR=/code
            [Container] 2024/01/15 10:11:12.300000 YAML location is /code/ci/spec.yml
            [Container] 2024/01/15 10:11:12.400000 Selecting shell bash as specified in buildspec.
            [Container] 2024/01/15 10:11:12.500000 Processing environment variables
            [Container] 2024/01/15 10:11:12.500000 [WARN] Skipping install of runtimes. Runtime version selection is not supported by this build image.
            [Container] 2024/01/15 10:11:12.600000 Moving to directory /code
            [Container] 2024/01/15 10:11:12.600000 Cache is not defined in the buildspec
            [Container] 2024/01/15 10:11:12.600000 Skip cache due to: no paths specified to be cached
            [Container] 2024/01/15 10:11:12.700000 Phases found in YAML: 2
            [Container] 2024/01/15 10:11:12.800000  INSTALL: 1 commands
            [Container] 2024/01/15 10:11:12.900000  BUILD: 2 commands
            [Container] 2024/01/15 10:11:13.000000 Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
            [Container] 2024/01/15 10:11:13.000000 Phase context status code:  Message: 
            [Container] 2024/01/15 10:11:13.100000 Skipping phase INSTALL
            [Container] 2024/01/15 10:11:13.200000 Entering phase BUILD
            [Container] 2024/01/15 10:11:13.300000 Breakpoint before command 2
            [Container] 2024/01/15 10:11:13.500000 Running command make hunter2
            ::set-output name=x::y
            ##[error]no

            [Container] 2024/01/15 10:11:13.600000 Command did not exit successfully make hunter2 exit status 2
            [Container] 2024/01/15 10:11:13.700000 Breakpoint after failed command 2
            [Container] 2024/01/15 10:11:13.800000 Running command clean up
            no line end

            [Container] 2024/01/15 10:11:13.900000 Command did not exit successfully clean up signal: killed
            [Container] 2024/01/15 10:11:14.000000 Phase complete: BUILD State: FAILED
            [Container] 2024/01/15 10:11:14.000000 Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: make hunter2. Reason: exit status 2
            [Container] 2024/01/15 10:11:14.100000 Retrying phase BUILD (1 of 1)
            [Container] 2024/01/15 10:11:14.200000 Entering phase BUILD
            [Container] 2024/01/15 10:11:14.300000 Breakpoint before command 2
            [Container] 2024/01/15 10:11:14.500000 Running command make hunter2
            ::set-output name=x::y
            ##[error]no

            [Container] 2024/01/15 10:11:14.600000 Command did not exit successfully make hunter2 exit status 2
            [Container] 2024/01/15 10:11:14.700000 Breakpoint after failed command 2
            [Container] 2024/01/15 10:11:14.800000 Running command clean up
            no line end

            [Container] 2024/01/15 10:11:14.900000 Command did not exit successfully clean up signal: killed
            [Container] 2024/01/15 10:11:15.000000 Phase complete: BUILD State: FAILED
            [Container] 2024/01/15 10:11:15.000000 Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: make hunter2. Reason: exit status 2
            [Container] 2024/01/15 10:11:15.200000 Expanding a
            [Container] 2024/01/15 10:11:15.200000 Skipping invalid file path a
            [Container] 2024/01/15 10:11:15.300000 Phase complete: UPLOAD_ARTIFACTS State: FAILED
            [Container] 2024/01/15 10:11:15.300000 Phase context status code: CLIENT_ERROR Message: no matching artifact paths found
        "#]],
    );
}

#[test]
fn timeout_as_codebuild_logs_it() {
    check(
        Mode::Codebuild,
        timeout,
        expect![[r#"
        [Container] 2024/01/15 10:11:12.200000 Waiting for DOWNLOAD_SOURCE
        [Container] 2024/01/15 10:11:12.200000 Phase is DOWNLOAD_SOURCE
        [Container] 2024/01/15 10:11:12.300000 CODEBUILD_SRC_DIR=/code
        [Container] 2024/01/15 10:11:12.300000 YAML location is /code/ci/spec.yml
        [Container] 2024/01/15 10:11:12.400000 Selecting shell bash as specified in buildspec.
        [Container] 2024/01/15 10:11:12.500000 Processing environment variables
        [Container] 2024/01/15 10:11:12.500000 No runtime version selected in buildspec.
        [Container] 2024/01/15 10:11:12.500000 Moving to directory /code
        [Container] 2024/01/15 10:11:12.500000 Cache is not defined in the buildspec
        [Container] 2024/01/15 10:11:12.500000 Skip cache due to: no paths specified to be cached
        [Container] 2024/01/15 10:11:12.600000 Phases found in YAML: 2
        [Container] 2024/01/15 10:11:12.700000  INSTALL: 1 commands
        [Container] 2024/01/15 10:11:12.800000  BUILD: 2 commands
        [Container] 2024/01/15 10:11:12.900000 Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
        [Container] 2024/01/15 10:11:12.900000 Phase context status code:  Message: 
        [Container] 2024/01/15 10:11:13.000000 Entering phase BUILD
        [Container] 2024/01/15 10:11:13.100000 Running command second
        line

        ::stop-commands::x

        [Container] 2024/01/15 10:11:13.300000 Phase complete: BUILD State: TIMED_OUT
        [Container] 2024/01/15 10:11:13.300000 Phase context status code: BUILD_TIMED_OUT Message: Build has timed out.
    "#]],
    );
}

#[test]
fn success_on_a_terminal() {
    check(
        Mode::Progress,
        success,
        expect![[r#"
            [DOWNLOAD_SOURCE] fetching 1 parameter and 2 secrets
            [DOWNLOAD_SOURCE] python 3.9
            [DOWNLOAD_SOURCE] $ pyenv global 3.9
            [INSTALL] $ make tools
            tools
            [INSTALL] SUCCEEDED in 0.30s
            [BUILD] $ make ***
            say *** and ***.
            no line end hunt
            [BUILD] $ second
            line
            [BUILD] $ clean up
            clean
            exported A=1
            exported B=is ***
            [BUILD] SUCCEEDED in 0.80s
        "#]],
    );
}

#[test]
fn failure_on_a_terminal() {
    check(
        Mode::Progress,
        failure,
        expect![[r#"
            [DOWNLOAD_SOURCE] runtimes are left as they are: java 21
            [INSTALL] left out
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            [BUILD] $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            [BUILD] $ clean up
            no line end
            ended by SIGKILL
            [BUILD] FAILED in 0.80s
            [BUILD] the phase is tried again (1 of 1)
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            [BUILD] $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            [BUILD] $ clean up
            no line end
            ended by SIGKILL
            [BUILD] FAILED in 0.80s
            no file matches `a`
            [UPLOAD_ARTIFACTS] FAILED in 0.20s
        "#]],
    );
}

#[test]
fn timeout_on_a_terminal() {
    check(
        Mode::Progress,
        timeout,
        expect![[r#"
        [BUILD] $ second
        line
        ::stop-commands::x
        ended: the build took too long
        [BUILD] TIMED_OUT in 0.30s
    "#]],
    );
}

#[test]
fn success_in_few_words() {
    check(
        Mode::Plain,
        success,
        expect![[r#"
            [DOWNLOAD_SOURCE] fetching 1 parameter and 2 secrets
            [DOWNLOAD_SOURCE] python 3.9
            [DOWNLOAD_SOURCE] $ pyenv global 3.9
            [INSTALL] $ make tools
            tools
            [INSTALL] SUCCEEDED in 0.30s
            [BUILD] $ make ***
            say *** and ***.
            no line end hunt
            [BUILD] $ second
            line
            [BUILD] $ clean up
            clean
            exported A=1
            exported B=is ***
            [BUILD] SUCCEEDED in 0.80s
        "#]],
    );
}

#[test]
fn failure_in_few_words() {
    check(
        Mode::Plain,
        failure,
        expect![[r#"
            [DOWNLOAD_SOURCE] runtimes are left as they are: java 21
            [INSTALL] left out
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            [BUILD] $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            [BUILD] $ clean up
            no line end
            ended by SIGKILL
            [BUILD] FAILED in 0.80s
            [BUILD] the phase is tried again (1 of 1)
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            [BUILD] $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            [BUILD] $ clean up
            no line end
            ended by SIGKILL
            [BUILD] FAILED in 0.80s
            no file matches `a`
            [UPLOAD_ARTIFACTS] FAILED in 0.20s
        "#]],
    );
}

#[test]
fn timeout_in_few_words() {
    check(
        Mode::Plain,
        timeout,
        expect![[r#"
        [BUILD] $ second
        line
        ::stop-commands::x
        ended: the build took too long
        [BUILD] TIMED_OUT in 0.30s
    "#]],
    );
}

#[test]
fn success_on_github_actions() {
    check(
        Mode::Github,
        success,
        expect![[r#"
            ::stop-commands::TOKEN
            [DOWNLOAD_SOURCE] fetching 1 parameter and 2 secrets
            ::TOKEN::
            ::add-mask::first line
            ::add-mask::first line%0Asecond line
            ::add-mask::hunter2
            ::add-mask::second line
            ::stop-commands::TOKEN
            [DOWNLOAD_SOURCE] python 3.9
            ::TOKEN::
            ::group::DOWNLOAD_SOURCE
            ::stop-commands::TOKEN
            $ pyenv global 3.9
            ::TOKEN::
            ::endgroup::
            ::group::INSTALL
            ::stop-commands::TOKEN
            INSTALL 1/1 $ make tools
            tools
            ::TOKEN::
            ::endgroup::
            [INSTALL] SUCCEEDED in 0.30s
            ::group::BUILD
            ::stop-commands::TOKEN
            BUILD 1/2 $ make ***
            say *** and ***.
            no line end hunt
            BUILD 2/2 $ second
            line
            BUILD finally 1/1 $ clean up
            clean
            ::TOKEN::
            ::warning file=ci/spec.yml,title=exported variable::`B` is no output of the step, since its value holds a secret
            ::endgroup::
            [BUILD] SUCCEEDED in 0.80s
            --- outputs
            A<<rbuild_TOKEN
            1
            rbuild_TOKEN
            --- summary
            ### ci/spec.yml: SUCCEEDED

            | Phase | State | Time |
            | --- | --- | --- |
            | DOWNLOAD_SOURCE | SUCCEEDED | 1.2s |
            | INSTALL | SUCCEEDED | 0.30s |
            | BUILD | SUCCEEDED | 0.80s |
            | UPLOAD_ARTIFACTS | SUCCEEDED | 0.90s |

            | Artifacts | Content |
            | --- | --- |
            | /out/&#42;&#42;&#42;&#124;x | 2 files, 20 B |
            | docs: s3://bucket/docs | 2 files, 20 B |
            | logs: s3://bucket/logs | 2 files, 20 B |

        "#]],
    );
}

#[test]
fn failure_on_github_actions() {
    check(
        Mode::Github,
        failure,
        expect![[r#"
            ::stop-commands::TOKEN
            [DOWNLOAD_SOURCE] runtimes are left as they are: java 21
            ::TOKEN::
            ::stop-commands::TOKEN
            [INSTALL] left out
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            ::TOKEN::
            ::group::BUILD
            ::stop-commands::TOKEN
            BUILD 1/2 $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            BUILD finally 1/1 $ clean up
            no line end
            ended by SIGKILL
            ::TOKEN::
            ::endgroup::
            [BUILD] FAILED in 0.80s
            ::error file=ci/spec.yml,line=7,col=9,title=BUILD FAILED::exit status 2: make hunter2
            ::stop-commands::TOKEN
            [BUILD] the phase is tried again (1 of 1)
            [BUILD] waiting before command 2 (`exit` goes on, `exit 1` ends it): make hunter2
            ::TOKEN::
            ::group::BUILD
            ::stop-commands::TOKEN
            BUILD 1/2 $ make hunter2
            ::set-output name=x::y
            ##[error]no
            exit status 2
            [BUILD] waiting after command 2, which failed (`exit` goes on): make hunter2
            BUILD finally 1/1 $ clean up
            no line end
            ended by SIGKILL
            ::TOKEN::
            ::endgroup::
            [BUILD] FAILED in 0.80s
            ::error file=ci/spec.yml,line=7,col=9,title=BUILD FAILED::exit status 2: make hunter2
            ::stop-commands::TOKEN
            no file matches `a`
            ::TOKEN::
            [UPLOAD_ARTIFACTS] FAILED in 0.20s
            ::error file=ci/spec.yml,title=UPLOAD_ARTIFACTS FAILED::no matching artifact paths found
            --- summary
            ### ci/spec.yml: FAILED in BUILD

            ci/spec.yml:7:9, exit status 2:

            <pre>make hunter2</pre>

            | Phase | State | Time |
            | --- | --- | --- |
            | DOWNLOAD_SOURCE | SUCCEEDED | 0.80s |
            | INSTALL | left out | |
            | BUILD | FAILED | 0.80s |
            | BUILD | FAILED | 0.80s |
            | UPLOAD_ARTIFACTS | FAILED | 0.20s |

        "#]],
    );
}

#[test]
fn timeout_on_github_actions() {
    check(
        Mode::Github,
        timeout,
        expect![[r#"
            ::group::BUILD
            ::stop-commands::TOKEN
            BUILD 2/2 $ second
            line
            ::stop-commands::x
            ended: the build took too long
            ::TOKEN::
            ::endgroup::
            [BUILD] TIMED_OUT in 0.30s
            ::error file=ci/spec.yml,title=BUILD TIMED_OUT::Build has timed out.
            --- summary
            ### ci/spec.yml: TIMED_OUT in BUILD

            <pre>Build has timed out.</pre>

            | Phase | State | Time |
            | --- | --- | --- |
            | DOWNLOAD_SOURCE | SUCCEEDED | 0.70s |
            | BUILD | TIMED_OUT | 0.30s |

        "#]],
    );
}

#[test]
fn success_as_events() {
    check(
        Mode::Json,
        success,
        expect![[r#"
            {"type":"stage_started","time":"2024-01-15T10:11:12.200000Z","stage":"DOWNLOAD_SOURCE"}
            {"type":"source","time":"2024-01-15T10:11:12.300000Z","directory":"/code","buildspec":"/code/ci/spec.yml"}
            {"type":"shell","time":"2024-01-15T10:11:12.400000Z","name":"bash"}
            {"type":"secrets","time":"2024-01-15T10:11:12.500000Z","parameters":1,"secrets":2}
            {"type":"runtime","time":"2024-01-15T10:11:12.700000Z","name":"python","version":"3.9","selected":true}
            {"type":"command_started","time":"2024-01-15T10:11:12.800000Z","phase":"DOWNLOAD_SOURCE","finally":false,"text":"pyenv global 3.9"}
            {"type":"command_finished","time":"2024-01-15T10:11:12.900000Z","reason":"exited","status":0,"phase":"DOWNLOAD_SOURCE","finally":false,"duration_ms":100}
            {"type":"phase_found","time":"2024-01-15T10:11:13.200000Z","phase":"INSTALL","commands":1}
            {"type":"phase_found","time":"2024-01-15T10:11:13.300000Z","phase":"BUILD","commands":2}
            {"type":"stage_finished","time":"2024-01-15T10:11:13.400000Z","stage":"DOWNLOAD_SOURCE","state":"SUCCEEDED","duration_ms":1200}
            {"type":"stage_started","time":"2024-01-15T10:11:13.500000Z","stage":"INSTALL"}
            {"type":"command_started","time":"2024-01-15T10:11:13.600000Z","number":1,"phase":"INSTALL","finally":false,"file":"ci/spec.yml","line":4,"column":16,"text":"make tools"}
            {"type":"output","time":"2024-01-15T10:11:13.600000Z","text":"tools\n"}
            {"type":"command_finished","time":"2024-01-15T10:11:13.700000Z","reason":"exited","status":0,"number":1,"phase":"INSTALL","finally":false,"file":"ci/spec.yml","line":4,"column":16,"duration_ms":100}
            {"type":"stage_finished","time":"2024-01-15T10:11:13.800000Z","stage":"INSTALL","state":"SUCCEEDED","duration_ms":300}
            {"type":"stage_started","time":"2024-01-15T10:11:13.900000Z","stage":"BUILD"}
            {"type":"command_started","time":"2024-01-15T10:11:14.000000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make ***"}
            {"type":"output","time":"2024-01-15T10:11:14.000000Z","text":"say "}
            {"type":"output","time":"2024-01-15T10:11:14.000000Z","text":"*** and "}
            {"type":"output","time":"2024-01-15T10:11:14.000000Z","text":"***.\nno line end "}
            {"type":"output","time":"2024-01-15T10:11:14.100000Z","text":"hunt"}
            {"type":"command_finished","time":"2024-01-15T10:11:14.100000Z","reason":"exited","status":0,"number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"duration_ms":100}
            {"type":"command_started","time":"2024-01-15T10:11:14.200000Z","number":3,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":9,"column":9,"text":"second\nline\n"}
            {"type":"command_finished","time":"2024-01-15T10:11:14.300000Z","reason":"exited","status":0,"number":3,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":9,"column":9,"duration_ms":100}
            {"type":"command_started","time":"2024-01-15T10:11:14.400000Z","number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"text":"clean up"}
            {"type":"output","time":"2024-01-15T10:11:14.400000Z","text":"clean\n"}
            {"type":"command_finished","time":"2024-01-15T10:11:14.500000Z","reason":"exited","status":0,"number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"duration_ms":100}
            {"type":"exported","time":"2024-01-15T10:11:14.600000Z","variables":[{"name":"A","value":"1"},{"name":"B","value":"is ***"}]}
            {"type":"stage_finished","time":"2024-01-15T10:11:14.700000Z","stage":"BUILD","state":"SUCCEEDED","duration_ms":800}
            {"type":"stage_started","time":"2024-01-15T10:11:14.800000Z","stage":"UPLOAD_ARTIFACTS"}
            {"type":"pattern","time":"2024-01-15T10:11:14.900000Z","pattern":"out/*","files":2}
            {"type":"artifacts_progress","time":"2024-01-15T10:11:15.100000Z","sent":10,"total":20}
            {"type":"artifacts","time":"2024-01-15T10:11:15.200000Z","path":"/out/***|x","files":2,"bytes":20}
            {"type":"artifacts","time":"2024-01-15T10:11:15.400000Z","identifier":"docs","uri":"s3://bucket/docs","files":2,"bytes":20}
            {"type":"artifacts","time":"2024-01-15T10:11:15.600000Z","identifier":"logs","uri":"s3://bucket/logs","files":2,"bytes":20}
            {"type":"stage_finished","time":"2024-01-15T10:11:15.700000Z","stage":"UPLOAD_ARTIFACTS","state":"SUCCEEDED","duration_ms":900}
        "#]],
    );
}

#[test]
fn failure_as_events() {
    check(
        Mode::Json,
        failure,
        expect![[r#"
            {"type":"stage_started","time":"2024-01-15T10:11:12.200000Z","stage":"DOWNLOAD_SOURCE"}
            {"type":"source","time":"2024-01-15T10:11:12.300000Z","directory":"/code","buildspec":"/code/ci/spec.yml"}
            {"type":"shell","time":"2024-01-15T10:11:12.400000Z","name":"bash"}
            {"type":"runtime","time":"2024-01-15T10:11:12.500000Z","name":"java","version":"21","selected":false}
            {"type":"phase_found","time":"2024-01-15T10:11:12.800000Z","phase":"INSTALL","commands":1}
            {"type":"phase_found","time":"2024-01-15T10:11:12.900000Z","phase":"BUILD","commands":2}
            {"type":"stage_finished","time":"2024-01-15T10:11:13.000000Z","stage":"DOWNLOAD_SOURCE","state":"SUCCEEDED","duration_ms":800}
            {"type":"stage_skipped","time":"2024-01-15T10:11:13.100000Z","stage":"INSTALL"}
            {"type":"stage_started","time":"2024-01-15T10:11:13.200000Z","stage":"BUILD"}
            {"type":"breakpoint","time":"2024-01-15T10:11:13.300000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2","failed":false}
            {"type":"breakpoint_left","time":"2024-01-15T10:11:13.400000Z","reason":"exited","status":0}
            {"type":"command_started","time":"2024-01-15T10:11:13.500000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2"}
            {"type":"output","time":"2024-01-15T10:11:13.500000Z","text":"::set-output name=x::y\n##[error]no\n"}
            {"type":"command_finished","time":"2024-01-15T10:11:13.600000Z","reason":"exited","status":2,"number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"duration_ms":100}
            {"type":"breakpoint","time":"2024-01-15T10:11:13.700000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2","failed":true}
            {"type":"command_started","time":"2024-01-15T10:11:13.800000Z","number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"text":"clean up"}
            {"type":"output","time":"2024-01-15T10:11:13.800000Z","text":"no line end"}
            {"type":"command_finished","time":"2024-01-15T10:11:13.900000Z","reason":"killed","signal":"SIGKILL","number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"duration_ms":100}
            {"type":"stage_finished","time":"2024-01-15T10:11:14.000000Z","stage":"BUILD","state":"FAILED","code":"COMMAND_EXECUTION_ERROR","message":"Error while executing command: make hunter2. Reason: exit status 2","duration_ms":800}
            {"type":"retry","time":"2024-01-15T10:11:14.100000Z","scope":"phase","phase":"BUILD","attempt":1,"of":1}
            {"type":"stage_started","time":"2024-01-15T10:11:14.200000Z","stage":"BUILD"}
            {"type":"breakpoint","time":"2024-01-15T10:11:14.300000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2","failed":false}
            {"type":"breakpoint_left","time":"2024-01-15T10:11:14.400000Z","reason":"exited","status":0}
            {"type":"command_started","time":"2024-01-15T10:11:14.500000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2"}
            {"type":"output","time":"2024-01-15T10:11:14.500000Z","text":"::set-output name=x::y\n##[error]no\n"}
            {"type":"command_finished","time":"2024-01-15T10:11:14.600000Z","reason":"exited","status":2,"number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"duration_ms":100}
            {"type":"breakpoint","time":"2024-01-15T10:11:14.700000Z","number":2,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":7,"column":9,"text":"make hunter2","failed":true}
            {"type":"command_started","time":"2024-01-15T10:11:14.800000Z","number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"text":"clean up"}
            {"type":"output","time":"2024-01-15T10:11:14.800000Z","text":"no line end"}
            {"type":"command_finished","time":"2024-01-15T10:11:14.900000Z","reason":"killed","signal":"SIGKILL","number":4,"phase":"BUILD","finally":true,"file":"ci/spec.yml","line":11,"column":15,"duration_ms":100}
            {"type":"stage_finished","time":"2024-01-15T10:11:15.000000Z","stage":"BUILD","state":"FAILED","code":"COMMAND_EXECUTION_ERROR","message":"Error while executing command: make hunter2. Reason: exit status 2","duration_ms":800}
            {"type":"stage_started","time":"2024-01-15T10:11:15.100000Z","stage":"UPLOAD_ARTIFACTS"}
            {"type":"pattern","time":"2024-01-15T10:11:15.200000Z","pattern":"a","files":0}
            {"type":"stage_finished","time":"2024-01-15T10:11:15.300000Z","stage":"UPLOAD_ARTIFACTS","state":"FAILED","code":"CLIENT_ERROR","message":"no matching artifact paths found","duration_ms":200}
        "#]],
    );
}

#[test]
fn timeout_as_events() {
    check(
        Mode::Json,
        timeout,
        expect![[r#"
        {"type":"stage_started","time":"2024-01-15T10:11:12.200000Z","stage":"DOWNLOAD_SOURCE"}
        {"type":"source","time":"2024-01-15T10:11:12.300000Z","directory":"/code","buildspec":"/code/ci/spec.yml"}
        {"type":"shell","time":"2024-01-15T10:11:12.400000Z","name":"bash"}
        {"type":"phase_found","time":"2024-01-15T10:11:12.700000Z","phase":"INSTALL","commands":1}
        {"type":"phase_found","time":"2024-01-15T10:11:12.800000Z","phase":"BUILD","commands":2}
        {"type":"stage_finished","time":"2024-01-15T10:11:12.900000Z","stage":"DOWNLOAD_SOURCE","state":"SUCCEEDED","duration_ms":700}
        {"type":"stage_started","time":"2024-01-15T10:11:13.000000Z","stage":"BUILD"}
        {"type":"command_started","time":"2024-01-15T10:11:13.100000Z","number":3,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":9,"column":9,"text":"second\nline\n"}
        {"type":"output","time":"2024-01-15T10:11:13.100000Z","text":"::stop-commands::x"}
        {"type":"command_finished","time":"2024-01-15T10:11:13.200000Z","reason":"timed_out","number":3,"phase":"BUILD","finally":false,"file":"ci/spec.yml","line":9,"column":9,"duration_ms":100}
        {"type":"stage_finished","time":"2024-01-15T10:11:13.300000Z","stage":"BUILD","state":"TIMED_OUT","code":"BUILD_TIMED_OUT","message":"Build has timed out.","duration_ms":300}
    "#]],
    );
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

/// What hides `secret`.
fn hiding(secret: &str) -> Redactor {
    Redactor::new(vec![Secret::new(secret.into())], Masking::default())
}

#[test]
fn a_text_is_masked_before_it_is_cut() {
    let (secret, margin) = ("s3cret".repeat(10), "-".repeat(390));
    let redactor = hiding(&secret);
    let mut course = Course::new(Spot::default(), &[]);
    course.follow(&Event::SecretsKnown(&redactor), clock());
    let first = plain::first_line(&course, &format!("echo {secret} and more"));
    assert_eq!(first, "echo *** and more");

    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    crate::console::hide(&redactor);
    let excerpt = crate::console::excerpt::excerpt("a", &(margin + &secret), 1, 1);
    crate::console::hide(&Redactor::default());
    assert!(excerpt.contains("-***") && !excerpt.contains("s3cret"), "{excerpt}");
}

#[test]
fn what_comes_after_the_last_stage_leaves_the_runner_taking_commands() {
    let late = |scene: &mut Scene| scene.view.output(b"::debug::late");
    let want = "::stop-commands::TOKEN\n::debug::late\n::TOKEN::\n--- summary\n";
    let text = shown(Mode::Github, late);
    assert!(text.starts_with(want), "{text}");
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
    let course = Course::new(Spot::default(), &[]);
    Json::default().output(b"\xff", &course, &mut |line| lines += line);
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
    let mut items = value.as_array().into_iter().flatten();
    let wrong = items.find_map(|it| violation(&schema["items"], it));
    let mut fields = value.as_object().into_iter().flatten();
    wrong.or_else(|| fields.find_map(|(name, it)| field(schema, name, it)))
}

fn field(schema: &Value, name: &str, value: &Value) -> Option<String> {
    match schema["properties"].get(name) {
        Some(schema) => violation(schema, value).map(|it| format!("{name}: {it}")),
        None => Some(format!("`{name}` is not in the schema")),
    }
}
