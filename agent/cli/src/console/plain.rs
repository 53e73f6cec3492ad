//! A build in few words: the commands, what they write, and how the stages ended.
//!
//! **Architecture invariant:** pure: gives text, and writes none.

use rbuild_agent::{
    buildspec::{Command, RuntimeVersion},
    choice::RetryScope,
    event::Event,
    phase::{Stage, State},
    shell::End,
};

use super::{course::Course, size, visible};
use crate::host;

/// What is said of one event, with line ends; output is not said but passed on.
pub(super) fn words(event: &Event<'_>, course: &Course) -> String {
    visible(&course.mask(&unmasked(event, course))).into_owned()
}

fn unmasked(event: &Event<'_>, course: &Course) -> String {
    let stage = course.stage().map(|it| it.to_string()).unwrap_or_default();
    match event {
        Event::SecretsWanted { parameters, secrets } => {
            format!("[{stage}] fetching {}\n", wanted(*parameters, *secrets))
        }
        Event::RuntimesSkipped(runtimes) => {
            format!("[{stage}] runtimes are left as they are: {}\n", listed(runtimes))
        }
        Event::RuntimeSelected { name, version } => format!("[{stage}] {name} {version}\n"),
        Event::StageSkipped(stage) => format!("[{stage}] left out\n"),
        Event::Retrying { scope, phase, attempt, of } => {
            format!("[{phase}] {}\n", retrying(*scope, *attempt, *of))
        }
        Event::BreakpointReached { command, failed } => {
            format!("[{stage}] {}\n", breakpoint(course, command, *failed))
        }
        Event::CommandStarted(command) => format!("[{stage}] $ {}\n", command.text.trim_end()),
        Event::CommandFinished { end, .. } => how(*end).map(|it| it + "\n").unwrap_or_default(),
        Event::StageFinished { stage, state, .. } => stage_line(course, *stage, *state),
        Event::VariablesExported(variables) => {
            let line = |(name, value): &(String, String)| format!("exported {name}={value}\n");
            variables.iter().map(line).collect()
        }
        Event::PatternMatched { pattern, files: 0, .. } => {
            format!("no file matches `{pattern}`\n")
        }
        _ => String::new(),
    }
}

/// How a command ended, if that is worth a word.
pub(super) fn how(end: End) -> Option<String> {
    match end {
        End::Exited(0) => None,
        End::Exited(status) => Some(format!("exit status {status}")),
        End::Killed(signal) | End::Stopped(signal) => {
            Some(format!("ended by {}", host::signal_name(signal)))
        }
        End::TimedOut => Some("ended: the build took too long".to_owned()),
    }
}

fn retrying(scope: RetryScope, attempt: u8, of: u8) -> String {
    let what = match scope {
        RetryScope::Build => "the build",
        RetryScope::Phase => "the phase",
    };
    format!("{what} is tried again ({attempt} of {of})")
}

fn breakpoint(course: &Course, command: &Command, failed: bool) -> String {
    let which = course.step(command).map(|(number, _)| format!(" {number}")).unwrap_or_default();
    let first = first_line(course, &command.text);
    match failed {
        true => format!("waiting after command{which}, which failed (`exit` goes on): {first}"),
        false => {
            format!("waiting before command{which} (`exit` goes on, `exit 1` ends it): {first}")
        }
    }
}

/// The first line of a command, without what would change the terminal, and not too long.
pub(super) fn first_line(course: &Course, text: &str) -> String {
    const LONGEST: usize = 60;
    let masked = course.mask(text);
    let first = masked.trim_start().lines().next().unwrap_or_default();
    visible(&first.chars().take(LONGEST).collect::<String>()).into_owned()
}

fn wanted(parameters: usize, secrets: usize) -> String {
    let count = |count: usize, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {one}s")),
    };
    let parts = [count(parameters, "parameter"), count(secrets, "secret")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn listed(runtimes: &[RuntimeVersion]) -> String {
    let names = runtimes.iter().map(|it| format!("{} {}", it.name, it.version));
    names.collect::<Vec<_>>().join(", ")
}

/// Stages without commands that worked are not worth a line.
fn stage_line(course: &Course, stage: Stage, ended: State) -> String {
    let time = course.stage_time();
    let is_quiet = time.as_millis() == 0 || !matches!(stage, Stage::Commands(_));
    match is_quiet && ended == State::Succeeded {
        true => String::new(),
        false => format!("[{stage}] {ended} in {}\n", size::time(time)),
    }
}
