//! Parts of builds, builds that go on, and people who look at builds on a terminal.

use std::fs;

use rbuild_tests::{Finished, Sandbox, process::processes_that_know, store};
use rustix::process::Signal;

use crate::sandbox;

/// A build that needs the file `go`, and whose commands before that leave a state of every kind.
const NEEDS_GO: &str = "version: 0.2
env:
  variables: {GIVEN: given}
  secrets-manager: {TOKEN: 'shop:token'}
phases:
  install:
    commands:
      - mkdir -p sub; cd sub; echo ran >> ran
      - MULTI=$(printf 'a\\nb'); unset GIVEN; Q=\"it's \\\"x\\\"\"; URL=https://u:$TOKEN@h
  build:
    commands:
      - test -e ../go || exit 3
      - echo \"[$MULTI] [$Q] ${GIVEN-unset} $(basename $PWD) $(cat ran | wc -l)\"
      - echo \"token of ${#TOKEN}, url [$URL]\"
  post_build:
    commands:
      - echo post $CODEBUILD_BUILD_SUCCEEDING
";

const SECRETS: [&str; 5] = ["run", "--secrets", "../secrets.env", "--log", "plain"];

fn needs_go(build: &str) -> Sandbox {
    let spec = NEEDS_GO.replace("test -e ../go || exit 3", build);
    let sandbox = sandbox(&[("buildspec.yml", &spec)]);
    sandbox.write("../secrets.env", "shop:token=hunter22secret\n");
    sandbox
}

fn resume(sandbox: &Sandbox) -> Finished {
    sandbox.rbuild(SECRETS.iter().chain(&["--resume"])).go()
}

/// The states that are kept.
fn states(sandbox: &Sandbox) -> Vec<String> {
    let folder = sandbox.home().join(".local/state/rbuild/resume");
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|it| fs::read_to_string(it.expect("entry").path()).expect("a state")).collect()
}

/// Checks that no file of the sandbox but that of the secrets has one, in any form.
#[track_caller]
fn tells_no_secret(sandbox: &Sandbox) {
    let files = store::files(sandbox.path());
    for path in files.iter().filter(|it| !it.ends_with("secrets.env") && !it.is_symlink()) {
        let bytes = fs::read(path).expect("a file of the sandbox");
        let text = String::from_utf8_lossy(&bytes);
        // The second one is the first in base64, the third is that in hexadecimal.
        for secret in ["hunter22secret", "aHVudGVyMjJzZWNyZXQ", "68756e746572"] {
            assert!(!text.contains(secret), "{secret} in {}", path.display());
        }
    }
}

/// Checks a build that goes on to its end with what the commands before had left.
#[track_caller]
fn goes_on(sandbox: &Sandbox, token: usize) {
    let finished = resume(sandbox);
    finished.has_status(0);
    for text in [
        "[a\nb] [it's \"x\"] unset sub 1\n".to_owned(),
        format!("token of {token}, url []\n"),
        "post 1\n".to_owned(),
    ] {
        assert!(finished.stdout.contains(&text), "{text}\n{finished}");
    }
    assert!(finished.stderr.contains("`URL` held secrets, which are not kept"), "{finished}");
    assert_eq!(states(sandbox), [] as [&str; 0], "there is nothing to go on with");
    resume(sandbox).fails(2, &["there is no build of this source that could go on"]);
}

#[test]
fn a_build_goes_on_with_the_command_that_failed() {
    let sandbox = needs_go("test -e ../go || exit 3");
    sandbox.rbuild(SECRETS).go().fails(1, &["status 3", "--resume goes on with command 3"]);
    tells_no_secret(&sandbox);
    // It fails again, and is no worse off.
    resume(&sandbox).fails(1, &["status 3", "--resume goes on with command 3"]);
    tells_no_secret(&sandbox);
    // A phase that runs alone is no build: the other one can still go on.
    sandbox.rbuild(SECRETS.iter().chain(&["--only", "post_build"])).ok();
    sandbox.write("go", "");
    sandbox.write("../secrets.env", "shop:token=another one\n");
    goes_on(&sandbox, "another one".len());
}

#[test]
fn a_build_goes_on_with_another_command_in_place_of_the_one_that_failed() {
    let sandbox = needs_go("exit 4");
    sandbox.rbuild(SECRETS).go().fails(1, &["status 4"]);
    let spec = NEEDS_GO.replace("test -e ../go || exit 3", "true");
    sandbox.write("buildspec.yml", spec.replace("unset GIVEN", "unset  GIVEN"));
    resume(&sandbox).fails(2, &["the first 2 commands", "changed since the last build"]);
    sandbox.write("buildspec.yml", spec);
    goes_on(&sandbox, "hunter22secret".len());
}

#[test]
fn a_build_goes_on_that_was_stopped_or_ran_out_of_time() {
    for signal in [Some(Signal::INT), None] {
        let sandbox = needs_go("test -e ../go || { echo waiting; sleep 3011; }");
        let limit = if signal.is_some() { "1h" } else { "3s" };
        let mut running = sandbox.rbuild(SECRETS.iter().chain(&["--timeout", limit])).start();
        if let Some(signal) = signal {
            running.until_it_says("waiting\n");
            running.signal(signal);
        }
        let status = if signal.is_some() { 130 } else { 1 };
        running.finish().fails(status, &["--resume goes on with command 3"]);
        assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0]);
        tells_no_secret(&sandbox);
        sandbox.write("go", "");
        goes_on(&sandbox, "hunter22secret".len());
    }
}

#[test]
fn parts_of_a_build_run_by_themselves() {
    let spec = "version: 0.2
phases:
  install: {commands: echo in install}
  pre_build: {commands: echo in pre_build}
  build: {commands: 'echo in build; touch made', finally: echo at last}
  post_build: {commands: echo in post_build}
artifacts: {files: made}
";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    for (words, want) in [
        ("run", "in install, in pre_build, in build, at last, in post_build, kept"),
        ("run --from build", "in build, at last, in post_build, kept"),
        ("run --from post_build", "in post_build, kept"),
        ("run --only build", "in build, at last"),
        ("run --only install", "in install"),
    ] {
        let finished = sandbox.rbuild(words.split(' ').chain(["--log", "codebuild"])).ok();
        let lines = finished.stdout.lines();
        let mut said: Vec<&str> =
            lines.filter(|it| it.starts_with("in ") || it.starts_with("at ")).collect();
        if finished.stderr.contains("artifacts: ") {
            said.push("kept");
        }
        assert_eq!(said.join(", "), want, "{words}");
    }
}

/// Runs the program of its arguments on a terminal, and does the steps of the first argument: waits
/// for a text, and types another. Prints all that the terminal showed, and how it was in the end.
const ON_A_TERMINAL: &str = r#"
import fcntl, json, os, select, sys, termios, time
steps = json.loads(sys.argv[1])
terminal, theirs = os.openpty()
before = termios.tcgetattr(theirs)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for stream in range(3):
        os.dup2(theirs, stream)
    os.execvp(sys.argv[2], sys.argv[2:])
shown, seen, status, end = b"", 0, None, time.monotonic() + 60
while True:
    over = os.waitpid(pid, os.WNOHANG)
    while select.select([terminal], [], [], 0.02)[0]:
        shown += os.read(terminal, 65536)
    if over[0]:
        status = os.waitstatus_to_exitcode(over[1])
        break
    if end < time.monotonic():
        os.kill(pid, 9)
        end = float("inf")
    while steps and shown.find(steps[0][0].encode(), seen) >= 0:
        seen = shown.find(steps[0][0].encode(), seen) + len(steps[0][0])
        os.write(terminal, steps.pop(0)[1].encode())
print(shown.decode(errors="replace").replace("\r", ""))
print("status", status, "steps left", len(steps), "restored", before == termios.tcgetattr(theirs))
"#;

const LOOKED_AT: &str = "version: 0.2
phases:
  build:
    commands:
      - mkdir -p sub; cd sub; A='x y'
      - test -e ../go
    finally: echo finally
  post_build: {commands: echo post}
";

/// A build on a terminal, where people do these steps.
#[track_caller]
fn looked_at(sandbox: &Sandbox, args: &str, steps: &[(&str, &str)], status: i32) -> Finished {
    let steps = serde_json::to_string(steps).expect("steps as JSON");
    let words = ["-c", ON_A_TERMINAL, steps.as_str(), crate::RBUILD, "run", "--log", "plain"];
    let finished = sandbox.run("python3", words.into_iter().chain(args.split(' '))).ok();
    let end = format!("status {status} steps left 0 restored True");
    assert_eq!(finished.line(), end, "{finished}");
    assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0], "{finished}");
    finished
}

const PROMPT: &str = "sub $ ";

#[test]
fn people_look_at_a_command_that_failed() {
    for shell in ["sh", "bash"] {
        let spec = LOOKED_AT.replace("phases:", &format!("env: {{shell: {shell}}}\nphases:"));
        let sandbox = sandbox(&[("buildspec.yml", &spec)]);
        let steps = [
            (PROMPT, "echo \"<$A> <$CODEBUILD_BUILD_SUCCEEDING> <$(basename $PWD)>\"; A=z\n"),
            ("<x y> <0> <sub>", ""),
            (PROMPT, "echo sle''eping; sleep 3021\n"),
            ("sleeping", "\u{3}"),
            (PROMPT, "test -t 0 && test -t 2 && echo still he''re; sleep 3022 & exit 3\n"),
            ("still here", ""),
        ];
        let finished = looked_at(&sandbox, "--break-on-failure", &steps, 1);
        // The build goes on as it would have.
        for text in ["\nfinally\n", "\npost\n", "a command exited with status 1"] {
            assert!(finished.stdout.contains(text), "{text}\n{finished}");
        }
    }
}

#[test]
fn people_look_at_what_a_command_will_find() {
    let sandbox = sandbox(&[("buildspec.yml", LOOKED_AT)]);
    // Those who have seen enough end the build, which can go on there.
    let looks = (PROMPT, "echo \"<$A> <$CODEBUILD_BUILD_SUCCEEDING>\"; A=z; cd /; exit 3\n");
    let steps = [looks, ("<x y> <1>", "")];
    let finished = looked_at(&sandbox, "--break-before 2", &steps, 1);
    for text in ["ended at a breakpoint in BUILD", "--resume goes on with command 2"] {
        assert!(finished.stdout.contains(text), "{text}\n{finished}");
    }
    assert!(!finished.stdout.contains("\nfinally\n"), "{finished}");
    // Others let it go on, and what they did to the shell is not for the command.
    let steps = [(PROMPT, "touch ../go; A=z; echo \"<$A>\"; exit\n"), ("<z>", "")];
    let finished = looked_at(&sandbox, "--resume --break-before 2", &steps, 0);
    assert!(finished.stdout.contains("\npost\n"), "{finished}");
}

#[test]
fn a_build_ends_that_people_look_at() {
    let sandbox = sandbox(&[("buildspec.yml", LOOKED_AT)]);
    let steps = [(PROMPT, "echo wa''iting; sleep 3023\n"), ("waiting", "")];
    let finished = looked_at(&sandbox, "--break-before 2 --timeout 6s", &steps, 1);
    for text in ["ran out of time in BUILD", "--resume goes on with command 2"] {
        assert!(finished.stdout.contains(text), "{text}\n{finished}");
    }
    // The program that is signalled is the parent of the supervisor, which is that of the shell.
    let kill = "kill -INT $(awk '{ print $4 }' /proc/$PPID/stat)\n";
    let finished = looked_at(&sandbox, "--break-before 2", &[(PROMPT, kill)], 130);
    assert!(finished.stdout.contains("stopped by SIGINT in BUILD"), "{finished}");
}

#[test]
fn a_breakpoint_without_a_terminal_is_refused_up_front() {
    let sandbox =
        sandbox(&[("buildspec.yml", "version: 0.2\nphases: {build: {commands: touch x}}\n")]);
    for args in ["run --break-on-failure", "run --break-before 1"] {
        let run = sandbox.rbuild(args.split(' ')).under(["setsid", "--wait"]).go();
        run.fails(2, &["there is no terminal for a shell", "run rbuild in a terminal"]);
    }
    assert!(!sandbox.src().join("x").exists());
}
