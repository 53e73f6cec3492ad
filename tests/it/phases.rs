//! What runs when a phase fails, who runs it, and what commands can do to the build that runs them.

use std::{fs, time::Duration};

use rbuild_tests::{
    Finished, Sandbox,
    namespace::with_mounts,
    process::{processes_that_know, processes_that_stay},
};
use rustix::process::Signal;

use crate::sandbox;

/// A build whose commands leave marks. Its phase BUILD fails until it ran three times.
fn flaky(on_failure: &str) -> String {
    format!(
        "version: 0.2
phases:
  install:
    commands:
      - echo x >> tries; N=$(wc -l < tries); K=${{K-}}k
      - echo install $N $K left=$(cat /proc/[0-9]*/environ 2>/dev/null | grep -ac MARK=$PWD)
      - MARK=$PWD sleep 3001 >/dev/null 2>&1 &
  build:
    on-failure: {on_failure}
    commands:
      - B=${{B-}}b; echo build $B
      - echo x >> marks; [ $(wc -l < marks) -gt 2 ] || {{ echo HTTP 503; false; }}
    finally:
      - echo finally $CODEBUILD_BUILD_SUCCEEDING
  post_build:
    commands: echo post $CODEBUILD_BUILD_SUCCEEDING
artifacts: {{files: tries}}
"
    )
}

fn run(spec: &str, args: &str) -> (Sandbox, Finished) {
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let words = ["run", "--log", "codebuild"].into_iter().chain(args.split_whitespace());
    let finished = sandbox.rbuild(words).go();
    (sandbox, finished)
}

/// What the commands of [`flaky`] print, and what of it was kept.
fn marks((sandbox, finished): &(Sandbox, Finished)) -> String {
    let begins = ["install ", "build ", "finally ", "post "];
    let lines = finished.stdout.lines();
    let mut said: Vec<&str> =
        lines.filter(|line| begins.iter().any(|it| line.starts_with(it))).collect();
    if finished.stderr.contains("artifacts: ") {
        said.push("kept");
    }
    assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0], "{finished}");
    format!("{}: {}", finished.status.code().unwrap_or(-1), said.join(", "))
}

#[test]
fn what_comes_after_a_failure_is_as_the_buildspec_and_the_flags_say() {
    let once = "install 1 k left=0, build b, finally 0";
    for (on_failure, args, want) in [
        ("ABORT", "", format!("1: {once}")),
        ("ABORT", "--compat on-failure-abort=upload", format!("1: {once}, kept")),
        ("CONTINUE", "", format!("1: {once}, post 0, kept")),
        ("CONTINUE", "--compat on-failure-continue=pass", format!("0: {once}, post 0, kept")),
        // The variables are as at the start, and nothing of the first try runs any more.
        (
            "RETRY",
            "",
            "0: install 1 k left=0, build b, finally 0, install 2 k left=0, build b, finally 0, \
             install 3 k left=0, build b, finally 1, post 1, kept"
                .to_owned(),
        ),
        (
            "RETRY-2-HTTP 5\\d\\d",
            "--compat retry=phase",
            format!("0: {once}, build bb, finally 0, build bbb, finally 1, post 1, kept"),
        ),
        ("RETRY-1", "", format!("1: {once}, install 2 k left=0, build b, finally 0, post 0, kept")),
        (
            "RETRY-1",
            "--compat retry=phase",
            format!("1: {once}, build bb, finally 0, post 0, kept"),
        ),
        ("RETRY-3-HTTP 404", "", format!("1: {once}, post 0, kept")),
    ] {
        assert_eq!(marks(&run(&flaky(on_failure), args)), want, "{on_failure} {args}");
    }
}

#[test]
fn a_build_that_takes_too_long_ends_and_leaves_nothing() {
    let spec = "version: 0.2
phases:
  build:
    commands:
      - touch made
      - sleep 3002 & sleep 3003
      - echo never
    finally: echo never
  post_build: {commands: echo never}
artifacts: {files: made}
";
    let (sandbox, finished) = run(spec, "--timeout 1s");
    finished.fails(1, &["the build ran out of time in BUILD", "--resume goes on with command 2"]);
    for text in [
        "Phase complete: BUILD State: TIMED_OUT",
        "Phase context status code: BUILD_TIMED_OUT Message: Build has timed out.",
    ] {
        assert!(finished.stdout.contains(text), "{text}\n{finished}");
    }
    assert!(!finished.stdout.contains("never\n\n[C"), "{finished}");
    assert!(!finished.stdout.lines().any(|it| it == "never"), "{finished}");
    assert!(!finished.stdout.contains("UPLOAD_ARTIFACTS"), "{finished}");
    assert!(!finished.stderr.contains("artifacts: "), "{finished}");
    assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0]);
}

/// A folder that every user may enter and write.
fn open_to_all(sandbox: &Sandbox) {
    use std::os::unix::fs::PermissionsExt as _;
    for folder in [sandbox.path().to_owned(), sandbox.src()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    }
}

#[test]
fn commands_run_as_whom_the_buildspec_names() {
    let spec = "version: 0.2
run-as: nobody
phases:
  install:
    commands:
      - id -un; A='of nobody'; echo x > of-nobody; mkdir d; cd d
  pre_build:
    run-as: root
    commands:
      - id -un; echo \"$A in $(basename $PWD)\"; B='of root'; echo x > of-root
  build:
    commands:
      - echo \"$(id -un) $(id -G) has $B\"; stat -c '%U' ../of-nobody of-root
      - echo to stdout > /dev/stdout; echo to stderr > /dev/stderr
      - false
    finally: echo then $(id -un)
artifacts: {files: ['of-nobody', 'd/*']}
";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    open_to_all(&sandbox);
    let finished = sandbox.rbuild(["run", "--log", "plain", "-a", "../out/a"]).go();
    finished.fails(1, &["(2 files"]);
    let said: Vec<&str> = finished.stdout.lines().filter(|it| !it.contains('$')).collect();
    let said = said.join("\n");
    for text in [
        "nobody\n",
        "root\nof nobody in d\n",
        "nobody 65534 has of root\nnobody\nroot\n",
        "to stdout\nto stderr\n",
        "then nobody",
    ] {
        assert!(said.contains(text), "{text}\n{finished}");
    }
    assert!(sandbox.path().join("out/a/d/of-root").exists());
    assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0]);
}

#[test]
fn nobody_but_root_runs_commands_as_others() {
    let spec = "version: 0.2\nrun-as: root\nphases: {build: {commands: [id]}}\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    open_to_all(&sandbox);
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let copy = sandbox.path().join("rbuild");
    fs::copy(crate::RBUILD, &copy).unwrap();
    let command = sandbox.run(&copy, ["run"]).without_env("HOME").under(words);
    command.go().fails(2, &["buildspec.yml:2:9", "root"]);
    let spec = spec.replace("root", "nosuchuser");
    sandbox.write("buildspec.yml", spec);
    sandbox.rbuild(["run"]).go().fails(2, &["buildspec.yml:2:9", "`nosuchuser`"]);
}

/// A build whose phase BUILD runs these commands.
fn commands(commands: &[&str]) -> String {
    let lines = commands.iter().map(|it| format!("      - {it:?}\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    format!("version: 0.2\nphases:\n  build:\n    commands:\n{lines}")
}

/// Runs commands, and checks the exit status and the lines of output that are not rbuild's.
#[track_caller]
fn check(texts: &[&str], status: i32, want: &str) {
    let (sandbox, finished) = run(&commands(texts), "");
    finished.has_status(status);
    let commands: Vec<&str> = texts.iter().flat_map(|it| it.lines().skip(1)).collect();
    let lines = finished.stdout.lines().filter(|it| !it.is_empty() && !it.starts_with("[Contain"));
    let lines: Vec<&str> = lines.filter(|it| !commands.contains(it)).collect();
    assert_eq!(lines.join("|"), want, "{finished}");
    assert_eq!(processes_that_stay(sandbox.path(), Duration::from_secs(5)), [] as [&str; 0]);
}

#[test]
fn commands_that_end_oddly_end_no_more_than_themselves() {
    check(&["A=1; exit 0; echo no", "echo a=${A-none}"], 0, "a=none");
    check(&["exec >&- 2>&-; B=2", "echo b=$B"], 0, "b=2");
    check(&["kill 0; sleep 1", "echo no"], 1, "");
    check(&["printf 'no end'"], 0, "no end");
    check(&["IFS=:; A='x y'", "echo \"$A\" $#"], 0, "x y 0");
    check(&["set -u", "echo ${X-}end"], 0, "end");
    let (_, finished) = run(&commands(&["kill -9 $PPID; sleep 3004", "echo no"]), "");
    finished.fails(3, &["the supervisor of the build is gone"]);
}

#[test]
fn values_of_any_size_and_any_bytes_are_carried() {
    let all = r#"ALL=$(i=1; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done; echo x)"#;
    let shows = "printf %s \"$ALL\" | cksum; printenv ALL | cksum";
    for shell in ["sh", "bash"] {
        let spec = commands(&[
            all,
            shows,
            shows,
            "BIG=$(head -c 100000 /dev/zero | tr '\\0' x)",
            "echo ${#BIG} $(env | grep -c BIG=x)",
            "i=0; while [ $i -lt 2000 ]; do eval V$i=v$i; i=$((i+1)); done",
            "echo $V0 $V1999 $(env | grep -c ^V)",
        ]);
        let spec = spec.replace(
            "phases:",
            &format!("env: {{shell: {shell}, variables: {{LC_ALL: C}}}}\nphases:"),
        );
        let (_, finished) = run(&spec, "");
        finished.has_status(0);
        // What `cksum` says of the bytes from 1 to 255 and an `x`, without a line feed and with one.
        let sums = "2090201141 256\n4161459017 257\n";
        assert_eq!(finished.stdout.matches(sums).count(), 2, "{finished}");
        assert!(finished.stdout.contains("100000 1\n"), "{finished}");
        assert!(finished.stdout.contains("v0 v1999 2000\n"), "{finished}");
    }
}

/// A caller may hold files open; whoever waits for the end of one waits for no command.
#[test]
fn commands_have_the_standard_streams_and_no_other_file() {
    for user in ["", "run-as: nobody\n"] {
        let spec = commands(&["echo files $(cd /proc/self/fd; echo *)"]);
        let spec = spec.replace("phases:", &format!("{user}phases:"));
        let sandbox = sandbox(&[("buildspec.yml", &spec)]);
        open_to_all(&sandbox);
        let words = ["sh", "-c", "exec \"$0\" \"$@\" 7</dev/null 8>/dev/null"];
        let finished = sandbox.rbuild(["run"]).under(words).ok();
        let line = finished.stdout.lines().find_map(|it| it.strip_prefix("files "));
        // The shell has its script open, and the folder.
        let ours = |it: &&str| ["7", "8"].contains(it);
        let line = line.unwrap_or_else(|| panic!("{finished}"));
        assert_eq!(line.split(' ').find(ours), None, "{finished}");
    }
}

/// Nothing that a command does keeps a build from ending.
#[test]
fn a_supervisor_that_is_stopped_goes_on_when_the_build_is_to_end() {
    let spec = commands(&["kill -STOP $PPID; echo stopped it; sleep 3005"]);
    let (sandbox, finished) = run(&spec, "--timeout 1s");
    finished.fails(1, &["ran out of time"]);
    assert_eq!(processes_that_stay(sandbox.path(), Duration::from_secs(5)), [] as [&str; 0]);
    let mut running = sandbox.rbuild(["run"]).start();
    running.until_it_says("stopped it\n");
    running.signal(Signal::INT);
    running.finish().fails(130, &["stopped by SIGINT"]);
    assert_eq!(processes_that_stay(sandbox.path(), Duration::from_secs(5)), [] as [&str; 0]);
}

#[test]
fn thousands_of_commands_leave_nothing_open() {
    let mut spec = String::from("version: 0.2\nphases:\n  build:\n    commands:\n");
    spec.push_str(&"      - N=$((N+1))\n".repeat(1_999));
    spec.push_str("      - echo n=$N fds=$(ls /proc/$PPID/fd | wc -l) children=$(cat /proc/$PPID/task/$PPID/children | wc -w)\n");
    let (_, finished) = run(&spec, "");
    finished.has_status(0);
    let line = finished.stdout.lines().find(|it| it.starts_with("n="));
    let line = line.unwrap_or_else(|| panic!("the last command said nothing"));
    let figures: Vec<usize> =
        line.split(' ').filter_map(|it| it.split_once('=')?.1.parse().ok()).collect();
    let [count, files, children] = figures[..] else { panic!("{line}") };
    assert_eq!((count, children), (1_999, 1), "{line}");
    assert!(files < 12, "{line}");
}

#[test]
fn a_build_needs_a_place_for_its_variables_and_says_so() {
    let sandbox = sandbox(&[("buildspec.yml", &commands(&["A=1", "echo a=$A"]))]);
    let (mut ro, mut full) = (String::new(), String::new());
    let no_memory = with_mounts("mount -t tmpfs -o ro none /dev/shm", "", &mut ro);
    let run = sandbox.rbuild(["run"]).under(no_memory).ok();
    assert!(run.stdout.contains("a=1"), "{run}");
    assert_eq!(fs::read_dir(sandbox.path().join("tmp")).unwrap().count(), 0, "it is cleared");
    let run = sandbox.rbuild(["run"]).env("TMPDIR", "/no/where").under(no_memory).go();
    run.fails(3, &["/dev/shm/rbuild-", "Read-only file system"]);
    let mounts =
        "mount -t tmpfs -o size=8k none /dev/shm && ! cat /dev/zero 2>/dev/null > /dev/shm/x";
    let run = sandbox.rbuild(["run"]).under(with_mounts(mounts, "", &mut full)).go();
    run.fails(3, &["No space left on device"]);
}

#[test]
fn runtimes_are_chosen_as_the_file_says() {
    let runtimes = "runtimes:
  python:
    versions:
      '3.12':
        commands: ['PY=twelve; echo selected python']
";
    let spec = |runtime: &str| {
        format!(
            "version: 0.2\nphases:\n  install:\n    runtime-versions: {{{runtime}}}\n    commands: ['echo py=$PY']\n"
        )
    };
    let sandbox =
        sandbox(&[("buildspec.yml", &spec("python: 3.12, docker: 20")), ("r.yml", runtimes)]);
    let run = sandbox.rbuild(["run", "--runtimes-file", "r.yml", "--log", "codebuild"]).ok();
    for text in ["selected python\n", "py=twelve\n"] {
        assert!(run.stdout.contains(text), "{text}\n{run}");
    }
    let run = sandbox.rbuild(["run"]).ok();
    assert!(run.stderr.contains("warning") || run.stdout.contains("untime"), "{run}");
    assert!(run.stdout.contains("py=\n"), "{run}");
    sandbox.write("buildspec.yml", spec("cobol: 3"));
    let run = sandbox.rbuild(["run", "--runtimes-file", "r.yml"]).go();
    run.fails(2, &["cobol", "buildspec.yml:4:"]);
}
