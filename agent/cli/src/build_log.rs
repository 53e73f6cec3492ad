//! The build log, word for word as CodeBuild's build logs have it.
//!
//! Each line is `[Container] TIME MESSAGE`; what commands write goes in between as it is, followed
//! by an empty line. If it does not end with a line feed, its last line is ended first, so that
//! the empty line is one on a terminal, too.
//!
//! Left out is what only the service can say (its hosts, its agent, its HTTP clients, SSM), and
//! what tells of reports: rbuild has no report discovery, and a log must not say that it has.
//! `N commands` leaves those of `finally` out. A pattern without wildcards that matches nothing is
//! an `invalid file path`, one with wildcards is passed over in silence: so real logs have it.
//! Only the local agent's logs say that there are no secondary artifacts; those of the service,
//! which this follows, do not.
//!
//! For what CodeBuild does on other machines or not at all there are no words of its own. These
//! lines are ours: `Skipping phase P`, `Retrying the build after P failed (1 of 3)`, `Retrying
//! phase P (1 of 3)`, `Breakpoint before command N`, `Breakpoint after failed command N`.
//!
//! **Architecture invariant:** pure, but for the writer. Times and streams are for the caller.

use std::{
    error::Error,
    io::{self, Write},
};

use rbuild_agent::{
    artifacts::ArtifactsError,
    buildspec::UnknownKey,
    choice::RetryScope,
    event::Event,
    phase::{Phase, Stage, State},
    run::Reason,
    shell::End,
};

use crate::console::course::Course;

/// Writes the log of one build.
#[derive(Debug, Default)]
pub(crate) struct BuildLog {
    /// Whether a command has begun a line and not ended it.
    is_in_line: bool,
    has_runtimes: bool,
    /// What is said once and was said.
    said: Vec<&'static str>,
}

impl BuildLog {
    /// Notes what a command wrote; the caller passes it on as it is.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.is_in_line = bytes.last().map_or(self.is_in_line, |last| *last != b'\n');
    }

    /// Writes what the log says of `event`, which happened at `time`, such as
    /// `2024/01/15 10:11:12.345678`.
    pub(crate) fn write(
        &mut self,
        event: &Event<'_>,
        time: &str,
        course: &Course,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if matches!(event, Event::CommandFinished { .. }) {
            self.end_line(out)?;
            out.write_all(b"\n")?;
        }
        for message in self.messages(event, course) {
            self.end_line(out)?;
            writeln!(out, "[Container] {time} {}", course.mask(&message))?;
        }
        Ok(())
    }

    /// Ends the line that a command has begun.
    fn end_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match std::mem::take(&mut self.is_in_line) {
            true => out.write_all(b"\n"),
            false => Ok(()),
        }
    }

    /// The messages for an event, those that depend on what was said before among them.
    fn messages(&mut self, event: &Event<'_>, course: &Course) -> Vec<String> {
        let mut messages = Vec::new();
        let is_environment = matches!(
            event,
            Event::SecretsWanted { .. }
                | Event::RuntimesSkipped(_)
                | Event::RuntimeSelected { .. }
                | Event::EnvironmentReady { .. }
        );
        if is_environment {
            messages.extend(self.once("Processing environment variables"));
        }
        match event {
            Event::RuntimesSkipped(_) | Event::RuntimeSelected { .. } => self.has_runtimes = true,
            Event::EnvironmentReady { .. } if !self.has_runtimes => {
                messages.push("No runtime version selected in buildspec.".to_owned());
            }
            Event::SecondaryArtifacts { identifier: Some(_) } => {
                messages.extend(self.once("Preparing to copy secondary artifacts"));
            }
            _ => {}
        }
        messages.extend(of_event(event, course));
        messages
    }

    /// The message, unless it was said.
    fn once(&mut self, message: &'static str) -> Option<String> {
        let is_new = !self.said.contains(&message);
        is_new.then(|| {
            self.said.push(message);
            message.to_owned()
        })
    }
}

/// The messages that an event always gets, if any.
fn of_event(event: &Event<'_>, course: &Course) -> Vec<String> {
    match event {
        Event::StageStarted(Stage::DownloadSource) => {
            vec!["Waiting for DOWNLOAD_SOURCE".into(), "Phase is DOWNLOAD_SOURCE".into()]
        }
        Event::StageStarted(Stage::Commands(phase)) => vec![format!("Entering phase {phase}")],
        Event::SourceFound { directory, buildspec } => vec![
            format!("CODEBUILD_SRC_DIR={}", directory.display()),
            format!("YAML location is {}", buildspec.display()),
        ],
        Event::PhaseWithoutCommands(phase) => {
            vec![format!("No commands found for phase name: {}", phase.name())]
        }
        Event::UnknownKeys(keys) => vec![unknown_keys(keys)],
        Event::SecretsWanted { parameters: 1.., .. } => {
            vec!["Decrypting parameter store environment variables".into()]
        }
        Event::RuntimesSkipped(_) => vec![SKIPPED_RUNTIMES.into()],
        Event::RuntimeSelected { name, version } => vec![format!(
            "Selecting '{name}' runtime version '{version}' based on manual selections..."
        )],
        Event::ShellSelected(shell) => {
            vec![format!("Selecting shell {} as specified in buildspec.", shell.name())]
        }
        Event::EnvironmentReady { directory } => vec![
            format!("Moving to directory {}", directory.display()),
            "Cache is not defined in the buildspec".into(),
            "Skip cache due to: no paths specified to be cached".into(),
        ],
        Event::PhasesFound(count) => vec![format!("Phases found in YAML: {count}")],
        Event::PhaseFound { phase, commands } => vec![format!(" {phase}: {commands} commands")],
        Event::StageSkipped(stage) => vec![format!("Skipping phase {stage}")],
        Event::Retrying { scope, phase, attempt, of } => {
            vec![retrying(*scope, *phase, *attempt, *of)]
        }
        Event::BreakpointReached { command, failed } => {
            let when = if *failed { "after failed" } else { "before" };
            let step = course.step(command).map(|(number, _)| format!(" {number}"));
            vec![format!("Breakpoint {when} command{}", step.unwrap_or_default())]
        }
        Event::CommandStarted(command) => vec![format!("Running command {}", command.text)],
        Event::CommandFinished { command, end } => {
            let failed = |how| format!("Command did not exit successfully {} {how}", command.text);
            how(*end).map(failed).into_iter().collect()
        }
        Event::BaseDirectoryWanted(directory) => vec![
            format!("Expanding base directory path: {directory}"),
            "Assembling file list".into(),
            format!("Expanding {directory}"),
        ],
        Event::BaseDirectoryFound(directory) => vec![
            format!("Expanding file paths for base directory {directory}"),
            "Assembling file list".into(),
        ],
        Event::PatternMatched { pattern, literal: true, files: 0 } => {
            vec![format!("Expanding {pattern}"), format!("Skipping invalid file path {pattern}")]
        }
        Event::PatternMatched { pattern, .. } => vec![format!("Expanding {pattern}")],
        Event::FilesFound(count) => vec![format!("Found {count} file(s)")],
        Event::StageFinished { stage, state, reason } => {
            let (code, message) = context(*state, *reason);
            vec![
                format!("Phase complete: {stage} State: {state}"),
                format!("Phase context status code: {code} Message: {message}"),
            ]
        }
        Event::StageStarted(Stage::UploadArtifacts)
        | Event::Output(_)
        | Event::NameCollision { .. }
        | Event::FileSkipped { .. }
        | Event::IgnoredKeys(_)
        | Event::SecretsKnown(_)
        | Event::BreakpointLeft { .. }
        | Event::ExportRefused { .. }
        | Event::ExportUnset { .. }
        | Event::VariablesExported(_)
        | Event::ArtifactsSent { .. }
        | Event::ArtifactsWritten(_)
        | Event::SecretsWanted { .. }
        | Event::SecondaryArtifacts { .. } => Vec::new(),
    }
}

/// What images say that have no `runtimes.yml`.
const SKIPPED_RUNTIMES: &str = "[WARN] Skipping install of runtimes. Runtime version selection is \
                                not supported by this build image.";

fn retrying(scope: RetryScope, phase: Phase, attempt: u8, of: u8) -> String {
    match scope {
        RetryScope::Build => format!("Retrying the build after {phase} failed ({attempt} of {of})"),
        RetryScope::Phase => format!("Retrying phase {phase} ({attempt} of {of})"),
    }
}

/// The block about keys that mean nothing, section by section.
fn unknown_keys(keys: &[UnknownKey]) -> String {
    let mut sections: Vec<&str> = keys.iter().map(|it| it.section.as_str()).collect();
    sections.sort_unstable();
    sections.dedup();
    let mut lines = vec!["Found possible syntax errors in buildspec: ".to_owned()];
    for section in sections {
        lines.push(format!("In the section {section}"));
        lines.push("    The following keys cannot be identified:".to_owned());
        let keys = keys.iter().filter(|it| it.section == section);
        lines.extend(keys.map(|it| format!("        {}", it.key)));
    }
    lines.join("\n")
}

/// The status code and the message of a phase that ended so.
pub(crate) fn context(state: State, reason: Option<&Reason>) -> (&'static str, String) {
    if state == State::TimedOut {
        return ("BUILD_TIMED_OUT", "Build has timed out.".to_owned());
    }
    match reason {
        None => ("", String::new()),
        Some(Reason::Command { command, end }) => {
            let how = how(*end).unwrap_or_default();
            let message = format!("Error while executing command: {}. Reason: {how}", command.text);
            ("COMMAND_EXECUTION_ERROR", message)
        }
        Some(Reason::Artifacts(err)) => ("CLIENT_ERROR", artifacts(err)),
        Some(Reason::SecondaryArtifacts { identifier, error }) => {
            ("CLIENT_ERROR", format!("{identifier}: {}", artifacts(error)))
        }
        Some(Reason::Secrets(err)) => crate::secrets::phase_context(err),
        Some(Reason::Environment(err)) => ("CLIENT_ERROR", err.to_string()),
        Some(Reason::Breakpoint { .. }) => {
            ("CLIENT_ERROR", "the build was ended at a breakpoint".into())
        }
    }
}

fn artifacts(err: &ArtifactsError) -> String {
    match err {
        ArtifactsError::NoFiles => "no matching artifact paths found".into(),
        ArtifactsError::NoBaseDirectory { pattern } => {
            format!("no matching base directory path found for {pattern}")
        }
        err => match err.source() {
            Some(source) => format!("{err}: {source}"),
            None => err.to_string(),
        },
    }
}

/// How a command failed, in the words of Go; none if it did not, or was stopped.
fn how(end: End) -> Option<String> {
    match end {
        End::Exited(0) | End::Stopped(_) | End::TimedOut => None,
        End::Exited(status) => Some(format!("exit status {status}")),
        End::Killed(signal) => Some(format!("signal: {}", signal_name(signal))),
    }
}

/// What Go calls a signal.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use expect_test::{Expect, expect};
    use rbuild_agent::{
        artifacts::{Artifacts, Location, Packed, Selection},
        buildspec::Buildspec,
        environment::Facts,
        plan::{Inputs, Plan},
        run::{self, Ports},
        secret::{Secret, Secrets, SecretsError, Wanted},
        shell::{Beginning, CommandLine, Expansion, Interaction, Shell, ShellError, Snapshot},
    };

    use super::*;
    use crate::failure::Spot;

    /// Runs nothing: writes what a command's text says, up to a `|`, and ends as the rest says.
    struct FakeShell;

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
            let (text, end) = line.text.split_once('|').unwrap_or((line.text, ""));
            output(text.replace("\\n", "\n").as_bytes());
            Ok(match end {
                "stop" => End::Stopped(2),
                "killed" => End::Killed(9),
                status => End::Exited(status.trim().parse().unwrap_or(0)),
            })
        }

        fn expand(
            &mut self,
            _: Expansion<'_>,
            _: &mut dyn FnMut(&[u8]),
        ) -> Result<Result<Vec<OsString>, End>, ShellError> {
            Ok(Ok(Vec::new()))
        }

        fn stop_requested(&mut self) -> Option<i32> {
            None
        }

        fn out_of_time(&mut self) -> bool {
            false
        }
    }

    struct NoSecrets;

    impl Secrets for NoSecrets {
        fn fetch(&mut self, wanted: &[Wanted]) -> Result<Vec<Secret>, SecretsError> {
            panic!("{wanted:?}");
        }
    }

    /// Finds what its patterns say: a number of files.
    struct FakeArtifacts;

    impl Artifacts for FakeArtifacts {
        fn package(
            &mut self,
            selection: &Selection,
            _: &mut dyn FnMut() -> Option<i32>,
            emit: &mut dyn FnMut(Event<'_>),
        ) -> Result<Packed, ArtifactsError> {
            emit(Event::BaseDirectoryWanted("."));
            if selection.base_directory.is_some() {
                return Err(ArtifactsError::NoBaseDirectory { pattern: "cdk.out".into() });
            }
            emit(Event::BaseDirectoryFound("."));
            let mut total = 0;
            for pattern in &selection.files {
                let files = pattern.trim_matches('*').parse().unwrap_or(0);
                let literal = !pattern.contains('*');
                emit(Event::PatternMatched { pattern, literal, files });
                total += files;
            }
            if total == 0 {
                return Err(ArtifactsError::NoFiles);
            }
            emit(Event::FilesFound(total));
            let location = Location::Local("/out".into());
            let packed = Packed { identifier: None, location, files: total, bytes: 1 };
            emit(Event::ArtifactsWritten(&packed));
            Ok(packed)
        }
    }

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let facts = Facts { source: "/src".into(), ..Facts::default() };
        let inputs =
            Inputs { buildspec_path: "/src/buildspec.yml".into(), facts, ..Inputs::default() };
        let plan = Plan::new(Buildspec::parse(text.as_bytes()).unwrap(), inputs).unwrap();
        let mut log = BuildLog::default();
        let mut out = Vec::new();
        let ports =
            Ports { shell: &mut FakeShell, secrets: &mut NoSecrets, artifacts: &mut FakeArtifacts };
        let course = Course::new(Spot::default(), plan.phases());
        run::run(&plan, ports, &mut |event| match event {
            Event::Output(bytes) => {
                log.output(bytes);
                out.extend_from_slice(bytes);
            }
            event => log.write(&event, "T", &course, &mut out).unwrap(),
        })
        .unwrap();
        want.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn a_build_that_succeeds() {
        check(
            "version: 0.2
env:
  shell: bash
  compute-type: large
phases:
  install:
  pre_build:
    commands: ['hello\\n', '']
  build:
    commands: [no line feed, 'one\\ntwo\\n']
    env: x
artifacts:
  files: ['2*', missing, 'no*', '1']
",
            expect![[r#"
                [Container] T Waiting for DOWNLOAD_SOURCE
                [Container] T Phase is DOWNLOAD_SOURCE
                [Container] T CODEBUILD_SRC_DIR=/src
                [Container] T YAML location is /src/buildspec.yml
                [Container] T No commands found for phase name: install
                [Container] T Found possible syntax errors in buildspec: 
                In the section BUILD
                    The following keys cannot be identified:
                        env
                In the section env
                    The following keys cannot be identified:
                        compute-type
                [Container] T Selecting shell bash as specified in buildspec.
                [Container] T Processing environment variables
                [Container] T No runtime version selected in buildspec.
                [Container] T Moving to directory /src
                [Container] T Cache is not defined in the buildspec
                [Container] T Skip cache due to: no paths specified to be cached
                [Container] T Phases found in YAML: 3
                [Container] T  INSTALL: 0 commands
                [Container] T  PRE_BUILD: 2 commands
                [Container] T  BUILD: 2 commands
                [Container] T Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase INSTALL
                [Container] T Phase complete: INSTALL State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase PRE_BUILD
                [Container] T Running command hello\n
                hello

                [Container] T Running command 

                [Container] T Phase complete: PRE_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase BUILD
                [Container] T Running command no line feed
                no line feed

                [Container] T Running command one\ntwo\n
                one
                two

                [Container] T Phase complete: BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase POST_BUILD
                [Container] T Phase complete: POST_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Expanding base directory path: .
                [Container] T Assembling file list
                [Container] T Expanding .
                [Container] T Expanding file paths for base directory .
                [Container] T Assembling file list
                [Container] T Expanding 2*
                [Container] T Expanding missing
                [Container] T Skipping invalid file path missing
                [Container] T Expanding no*
                [Container] T Expanding 1
                [Container] T Found 3 file(s)
                [Container] T Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
            "#]],
        );
    }

    #[test]
    fn a_build_that_fails() {
        check(
            "version: 0.2
phases:
  build:
    commands:
      - |
        make test|
        2
    finally: ['x|killed']
artifacts: {files: missing}
",
            expect![[r#"
                [Container] T Waiting for DOWNLOAD_SOURCE
                [Container] T Phase is DOWNLOAD_SOURCE
                [Container] T CODEBUILD_SRC_DIR=/src
                [Container] T YAML location is /src/buildspec.yml
                [Container] T Processing environment variables
                [Container] T No runtime version selected in buildspec.
                [Container] T Moving to directory /src
                [Container] T Cache is not defined in the buildspec
                [Container] T Skip cache due to: no paths specified to be cached
                [Container] T Phases found in YAML: 1
                [Container] T  BUILD: 1 commands
                [Container] T Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase INSTALL
                [Container] T Phase complete: INSTALL State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase PRE_BUILD
                [Container] T Phase complete: PRE_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase BUILD
                [Container] T Running command make test|
                2

                make test

                [Container] T Command did not exit successfully make test|
                2
                 exit status 2
                [Container] T Running command x|killed
                x

                [Container] T Command did not exit successfully x|killed signal: killed
                [Container] T Phase complete: BUILD State: FAILED
                [Container] T Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: make test|
                2
                . Reason: exit status 2
                [Container] T Entering phase POST_BUILD
                [Container] T Phase complete: POST_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Expanding base directory path: .
                [Container] T Assembling file list
                [Container] T Expanding .
                [Container] T Expanding file paths for base directory .
                [Container] T Assembling file list
                [Container] T Expanding missing
                [Container] T Skipping invalid file path missing
                [Container] T Phase complete: UPLOAD_ARTIFACTS State: FAILED
                [Container] T Phase context status code: CLIENT_ERROR Message: no matching artifact paths found
            "#]],
        );
    }

    #[test]
    fn a_build_that_is_stopped_or_ends_early() {
        check(
            "version: 0.2\nphases: {build: {commands: 'x|stop'}}\n",
            expect![[r#"
            [Container] T Waiting for DOWNLOAD_SOURCE
            [Container] T Phase is DOWNLOAD_SOURCE
            [Container] T CODEBUILD_SRC_DIR=/src
            [Container] T YAML location is /src/buildspec.yml
            [Container] T Processing environment variables
            [Container] T No runtime version selected in buildspec.
            [Container] T Moving to directory /src
            [Container] T Cache is not defined in the buildspec
            [Container] T Skip cache due to: no paths specified to be cached
            [Container] T Phases found in YAML: 1
            [Container] T  BUILD: 1 commands
            [Container] T Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
            [Container] T Phase context status code:  Message: 
            [Container] T Entering phase INSTALL
            [Container] T Phase complete: INSTALL State: SUCCEEDED
            [Container] T Phase context status code:  Message: 
            [Container] T Entering phase PRE_BUILD
            [Container] T Phase complete: PRE_BUILD State: SUCCEEDED
            [Container] T Phase context status code:  Message: 
            [Container] T Entering phase BUILD
            [Container] T Running command x|stop
            x

            [Container] T Phase complete: BUILD State: STOPPED
            [Container] T Phase context status code:  Message: 
        "#]],
        );
        check(
            "version: 0.2\nphases: {install: {commands: '|1'}}\n",
            expect![[r#"
            [Container] T Waiting for DOWNLOAD_SOURCE
            [Container] T Phase is DOWNLOAD_SOURCE
            [Container] T CODEBUILD_SRC_DIR=/src
            [Container] T YAML location is /src/buildspec.yml
            [Container] T Processing environment variables
            [Container] T No runtime version selected in buildspec.
            [Container] T Moving to directory /src
            [Container] T Cache is not defined in the buildspec
            [Container] T Skip cache due to: no paths specified to be cached
            [Container] T Phases found in YAML: 1
            [Container] T  INSTALL: 1 commands
            [Container] T Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
            [Container] T Phase context status code:  Message: 
            [Container] T Entering phase INSTALL
            [Container] T Running command |1

            [Container] T Command did not exit successfully |1 exit status 1
            [Container] T Phase complete: INSTALL State: FAILED
            [Container] T Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: |1. Reason: exit status 1
        "#]],
        );
    }

    #[test]
    fn other_reasons() {
        check(
            "version: 0.2\nphases: {}\nartifacts: {files: x, base-directory: cdk.out}\n",
            expect![[r#"
                [Container] T Waiting for DOWNLOAD_SOURCE
                [Container] T Phase is DOWNLOAD_SOURCE
                [Container] T CODEBUILD_SRC_DIR=/src
                [Container] T YAML location is /src/buildspec.yml
                [Container] T Processing environment variables
                [Container] T No runtime version selected in buildspec.
                [Container] T Moving to directory /src
                [Container] T Cache is not defined in the buildspec
                [Container] T Skip cache due to: no paths specified to be cached
                [Container] T Phases found in YAML: 0
                [Container] T Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase INSTALL
                [Container] T Phase complete: INSTALL State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase PRE_BUILD
                [Container] T Phase complete: PRE_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase BUILD
                [Container] T Phase complete: BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Entering phase POST_BUILD
                [Container] T Phase complete: POST_BUILD State: SUCCEEDED
                [Container] T Phase context status code:  Message: 
                [Container] T Expanding base directory path: .
                [Container] T Assembling file list
                [Container] T Expanding .
                [Container] T Phase complete: UPLOAD_ARTIFACTS State: FAILED
                [Container] T Phase context status code: CLIENT_ERROR Message: no matching base directory path found for cdk.out
            "#]],
        );
    }
}
