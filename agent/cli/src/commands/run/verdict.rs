//! What is said of a build in the end, and the exit status.

use std::{error::Error, time::Duration};

use rbuild_agent::{
    artifacts::{ArtifactsError, Location},
    buildspec::Command,
    plan::Plan,
    run::{Outcome, Reason, Report, RunError},
    shell::{End, ShellError},
};

use super::buildspec::Source;
use crate::{
    console::{self, size},
    failure::{Failure, Kind},
    host, s3, secrets,
};

/// Says what is left to say after the log.
pub(super) fn tell(report: &Report, time: Duration) {
    for packed in &report.artifacts {
        let files = if packed.files == 1 { "file" } else { "files" };
        let (count, size) = (packed.files, size::bytes(packed.bytes));
        let path = match &packed.location {
            Location::Local(path) => path.display().to_string(),
            Location::Remote(uri) => uri.clone(),
        };
        let which = packed.identifier.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
        console::say(&format!("artifacts{which}: {path} ({count} {files}, {size})"));
    }
    if matches!(report.outcome, Outcome::Succeeded) {
        console::say(&format!("the build succeeded in {}", size::time(time)));
    }
}

/// The failure of the command, if the build did not succeed.
pub(super) fn verdict(report: &Report, source: &Source) -> Result<(), Failure> {
    match &report.outcome {
        Outcome::Succeeded => Ok(()),
        Outcome::Stopped { stage, signal } => {
            let message = format!("stopped by {} in {stage}", host::signal_name(*signal));
            Err(Failure::new(Kind::Stopped(*signal), message))
        }
        Outcome::TimedOut { stage } => {
            Err(Failure::new(Kind::Build, format!("the build ran out of time in {stage}")))
        }
        Outcome::Failed(failure) => Err(match &failure.reason {
            Reason::Command { command, end } => {
                let end = ended(*end);
                let message = format!("the build failed in {}: a command {end}", failure.stage);
                at(command, message, source)
            }
            Reason::Breakpoint { command, .. } => {
                let message = format!("the build was ended at a breakpoint in {}", failure.stage);
                at(command, message, source)
            }
            Reason::Artifacts(error) => artifacts_failure("the artifacts", error),
            Reason::SecondaryArtifacts { identifier, error } => {
                artifacts_failure(&format!("the artifacts `{identifier}`"), error)
            }
            // `run` makes errors of these.
            Reason::Secrets(err) => Failure::new(Kind::Input, err.to_string()),
            Reason::Environment(err) => Failure::new(Kind::Input, err.to_string()),
        }),
    }
}

fn ended(end: End) -> String {
    match end {
        End::Exited(status) => format!("exited with status {status}"),
        End::Killed(signal) => format!("was killed by {}", host::signal_name(signal)),
        End::Stopped(_) => "was stopped".to_owned(),
        End::TimedOut => "ran out of time".to_owned(),
    }
}

fn at(command: &Command, message: String, source: &Source) -> Failure {
    source.failure(Failure::new(Kind::Build, message), Some(command.place))
}

fn artifacts_failure(what: &str, err: &ArtifactsError) -> Failure {
    if let Some(failure) = s3::failure(err) {
        return failure;
    }
    let kind = if err.is_of_the_machine() { Kind::Outside } else { Kind::Build };
    let failure = Failure::new(kind, format!("{what} could not be collected: {err}"));
    match err.source() {
        Some(cause) => failure.note(format!("caused by: {cause}")),
        None => failure,
    }
}

/// Why a build could not go on.
pub(super) fn run_failure(err: RunError, plan: &Plan, source: &Source) -> Failure {
    match err {
        RunError::Secrets { source: err } => {
            secrets::failure(&err, plan.environment().wanted(), &source.shown, &source.text)
        }
        RunError::Shell { .. } => Failure::of(Kind::Outside, err),
        RunError::Environment { .. } => Failure::of(Kind::Input, err),
    }
}

/// Why the commands of a build have no shell.
pub(super) fn start_failure(err: ShellError, plan: &Plan, source: &Source) -> Failure {
    let asked = plan.shell_place().filter(|_| matches!(err, ShellError::NoShell { .. }));
    match asked {
        Some(place) => source.failure(shell_failure(err), Some(place)),
        None => shell_failure(err),
    }
}

/// Why there is no shell for a build.
pub(super) fn shell_failure(err: ShellError) -> Failure {
    match err {
        ShellError::NoShell { .. } => Failure::of(Kind::Input, err)
            .hint("install it, or choose another with `env.shell` in the buildspec"),
        ShellError::NoUser { .. } => Failure::of(Kind::Input, err)
            .hint("`run-as` in the buildspec names a user of this machine"),
        ShellError::NotRoot { .. } => {
            Failure::of(Kind::Input, err).hint("run rbuild as root, or take `run-as` out")
        }
        ShellError::NoTerminal => Failure::of(Kind::Input, err),
        err => Failure::of(Kind::Outside, err),
    }
}
