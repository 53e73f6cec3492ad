//! `rbuild run` as a step of a workflow on GitHub Actions: what its runner takes for commands, and
//! what builds that mean harm make it take.

use std::fs;

use rbuild_tests::{Finished, Run, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::sandbox;

/// The commands of the runner (actions/runner, `ActionCommandManager`, and what registers there).
const COMMANDS: [&str; 16] = [
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "internal-set-repo-path",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
];

/// What the runner makes of a step's lines.
#[derive(Debug, Default)]
struct Runner {
    /// What makes it take commands again.
    stopped: Option<String>,
    /// The commands that it took, but for those that stop it.
    taken: Vec<String>,
}

impl Runner {
    /// Reads all of a stream; a line ends as .NET's `StreamReader.ReadLine` has it.
    fn read(text: &str) -> Self {
        let mut runner = Self::default();
        text.replace("\r\n", "\n").split(['\n', '\r']).for_each(|line| runner.line(line));
        runner
    }

    fn line(&mut self, line: &str) {
        let Some((name, properties, data)) = self.colons(line).or_else(|| self.brackets(line))
        else {
            return;
        };
        match &self.stopped {
            Some(token) if token.eq_ignore_ascii_case(name) => self.stopped = None,
            Some(_) => {}
            None if name.eq_ignore_ascii_case("stop-commands") => {
                self.stopped = Some(unescaped(data));
            }
            None => {
                let properties = unescaped(properties).replace("%3A", ":").replace("%2C", ",");
                self.taken.push(format!("{name}|{properties}|{}", unescaped(data)));
            }
        }
    }

    /// `::name properties::data`, after white space.
    fn colons<'a>(&self, line: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let (info, data) = line.trim_start().strip_prefix("::")?.split_once("::")?;
        let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
        self.knows(name).then_some((name, properties, data))
    }

    /// `##[name properties]data`, anywhere.
    fn brackets<'a>(&self, line: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
        let (_, rest) = line.split_once("##[")?;
        let (info, data) = rest.split_once(']')?;
        let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
        self.knows(name).then_some((name, properties, data))
    }

    fn knows(&self, name: &str) -> bool {
        let known = COMMANDS.into_iter().chain(self.stopped.as_deref());
        known.into_iter().any(|it| it.eq_ignore_ascii_case(name))
    }
}

fn unescaped(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

/// The program as the runner starts it.
fn step(sandbox: &Sandbox, args: &[&str]) -> Run {
    let workspace = sandbox.src().display().to_string();
    sandbox.rbuild(args).env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", workspace)
}

/// The commands that the runner takes from a run, which must leave it taking commands.
#[track_caller]
fn taken(run: &Finished) -> Vec<String> {
    let [out, err] = [&run.stdout, &run.stderr].map(|it| Runner::read(it));
    assert_eq!(out.stopped, None, "{run}");
    assert_eq!(err.taken, [] as [&str; 0], "{run}");
    assert_eq!(err.stopped, None, "{run}");
    out.taken
}

#[test]
fn the_runner_of_this_test_takes_commands_as_the_real_one_does() {
    for (text, want) in [
        ("::set-output name=a::b", &["set-output|name=a|b"][..]),
        (" \t::Group::a%0Ab%250A", &["Group||a\nb%0A"]),
        ("x::group::a", &[]),
        ("text ##[error file=a;line=1]b", &["error|file=a;line=1|b"]),
        ("a\r::debug::b\r\nc", &["debug||b"]),
        ("::unknown::a\n::group:a", &[]),
        ("::stop-commands::T\n::debug::a\n::t::\n::debug::b", &["debug||b"]),
        ("::stop-commands::T\n##[t]\n::debug::b", &["debug||b"]),
    ] {
        assert_eq!(Runner::read(text).taken, want, "{text:?}");
    }
}

#[test]
fn phases_are_groups_and_what_fails_is_an_error_at_its_place() {
    let spec = "version: 0.2
phases:
  install: {}
  pre_build:
    commands: ['echo one']
    comands: []
  build:
    commands:
      - echo two
      - |
        echo three
        exit 3
artifacts:
  files: ['missing']
";
    let sandbox = sandbox(&[("app/ci/spec.yml", spec)]);
    let summary = sandbox.path().join("summary.md");
    fs::write(&summary, "before\n").unwrap();
    let args = ["run", "-C", "app", "ci/spec.yml"];
    let run = step(&sandbox, &args).env("GITHUB_STEP_SUMMARY", &summary).go();
    run.has_status(1);
    let want = [
        "warning|file=app/ci/spec.yml,line=6,col=5|`comands` means nothing here: did you mean `commands`?",
        "group||PRE_BUILD",
        "endgroup||",
        "group||BUILD",
        "endgroup||",
        "error|file=app/ci/spec.yml,line=11,col=9,title=BUILD FAILED|exit status 3: echo three\nexit 3",
        "error|file=app/ci/spec.yml,title=UPLOAD_ARTIFACTS FAILED|no matching artifact paths found",
    ];
    assert_eq!(taken(&run), want, "{run}");
    assert!(run.stderr.contains("error: the build failed in BUILD"), "{run}");
    assert!(!run.stdout.contains("[Container]"), "{run}");
    let summary = fs::read_to_string(summary).unwrap();
    assert!(summary.starts_with("before\n### ci/spec.yml: FAILED in BUILD\n"), "{summary}");
    assert!(summary.contains("ci/spec.yml:11:9, exit status 3:"), "{summary}");
    assert!(summary.contains("| PRE_BUILD | SUCCEEDED |"), "{summary}");
}

/// Texts that the runner would take for commands if they stood there as they are.
const HARM: [&str; 9] = [
    "::set-output name=harm::x",
    "::add-mask::e",
    "::stop-commands::harm",
    "::STOP-COMMANDS::harm",
    "::endgroup::",
    "  ::error file=a::harm",
    "text ##[error]harm",
    "x\r::warning::harm\ry",
    "::00000000000000000000000000000000::",
];

#[test]
fn what_commands_write_and_are_is_never_a_command_of_the_runner() {
    let sandbox = sandbox(&[("harm", &(HARM.join("\n") + "\n"))]);
    let written = [
        "cat harm",
        "cat harm >&2",
        // Without a line end, and in the middle of a character.
        r"printf '::endgroup::'",
        r"printf '##[group]x\342'",
        // One command of the runner in pieces, each written by itself.
        r"printf ':'; cat /dev/null; printf ':set-output'; cat /dev/null; printf ' name=harm::x\n'",
        r"printf '\r\n::debug::harm\r'",
        r"printf '\0::debug::harm\n\357\273\277::debug::harm\n\302\240::debug::harm\n'",
    ];
    // Commands whose own texts have it.
    let texts = HARM.map(|it| format!(": '\n{it}\n'"));
    let last = format!("exit 7 #\n{}", HARM.join("\n"));
    let commands = written.map(str::to_owned).into_iter().chain(texts).chain([last]);
    let commands = commands.map(|it| format!("      - {}\n", Value::from(it)));
    let spec = format!(
        "version: 0.2\nphases:\n  build:\n    commands:\n{}artifacts:\n  files: \
         ['##[error]harm', \"a\\n::error::harm\"]\n",
        commands.collect::<String>()
    );
    sandbox.write("buildspec.yml", spec);
    let summary = sandbox.path().join("summary.md");
    let run = step(&sandbox, &["run"]).env("GITHUB_STEP_SUMMARY", &summary).go();
    run.has_status(1);
    let taken = taken(&run);
    let names: Vec<_> = taken.iter().map(|it| it.split('|').next().unwrap()).collect();
    assert_eq!(names, ["group", "endgroup", "error", "error"], "{run}");
    assert!(taken[2].contains("|exit status 7: exit 7 #\n::set-output"), "{run}");
    assert!(fs::read_to_string(summary).unwrap().contains("<pre>exit 7 #\n::set"), "{run}");
}

#[test]
fn a_token_is_used_once() {
    let spec = "version: 0.2\nphases:\n  install: {commands: [a=1]}\n  build: {commands: [b=1]}\n";
    let run = step(&sandbox(&[("buildspec.yml", spec)]), &["run"]).ok();
    let tokens = run.stdout.lines().filter_map(|it| it.strip_prefix("::stop-commands::"));
    let mut tokens: Vec<_> = tokens.collect();
    assert_eq!(tokens.len(), 2, "{run}");
    tokens.dedup();
    assert_eq!(tokens.len(), 2, "{run}");
    assert!(tokens.iter().all(|it| it.len() == 32), "{run}");
}

#[test]
fn a_file_that_cannot_run_is_an_error_at_its_place_and_no_command() {
    let name = "::error::harm.yml";
    let spec = "version: 0.2\nphases:\n  \"::set-output name=x::y ##[error]z\": {commands: a}\n";
    let sandbox = sandbox(&[(name, spec), ("buildspec.yml", spec)]);
    for (args, place) in [
        (&["run"][..], "file=buildspec.yml,line=3,col=3"),
        (&["run", name], "file=::error::harm.yml,line=3,col=3"),
        (&["run", "no\n::error::harm"], ""),
    ] {
        let run = step(&sandbox, args).go();
        run.fails(2, &[]);
        let taken = taken(&run);
        assert_eq!(taken.len(), 1, "{run}");
        assert!(taken[0].starts_with(&format!("error|{place}|")), "{taken:?}");
    }
}

#[test]
fn a_build_that_is_stopped_leaves_the_runner_taking_commands() {
    let spec = "version: 0.2\nphases:\n  build:\n    commands: ['printf started; sleep 1000']\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let mut running = step(&sandbox, &["run"]).start();
    running.until_it_says("\nstarted");
    running.signal(Signal::TERM);
    let run = running.finish();
    run.has_status(143);
    assert_eq!(taken(&run), ["group||BUILD", "endgroup||"], "{run}");
}
