//! Tests of [`LocalShell`] with real shells and a real supervisor.
//!
//! This program has a main function of its own, since it is the supervisor, too: with
//! [`SUPERVISE`] as its first argument it does what rbuild does then.

#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]
#![expect(clippy::print_stdout, reason = "it is a test runner, too")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::Write as _,
    os::fd::OwnedFd,
    panic,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rbuild_agent::{
    choice::Choices,
    environment::{Environment, Facts},
    shell::{
        Beginning, CommandLine, End, Expansion, LocalShell, PrivateFolder, SUPERVISE, Setup, Shell,
        ShellError, Terminal, supervise,
    },
};

/// As the first argument, makes this program hold a build that someone is about to kill.
const HOLD: &str = "__hold";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(SUPERVISE) => supervise(),
        Some(HOLD) => hold(),
        _ => run_tests(),
    }
}

macro_rules! tests {
    ($($name:ident)*) => { &[$((stringify!($name), $name as fn())),*] };
}

const TESTS: &[(&str, fn())] = tests! {
    variables_are_carried_on
    values_of_every_kind_are_carried_on
    unset_variables_stay_unset
    the_working_directory_is_carried_on
    functions_aliases_and_options_are_not_carried_on
    bash_carries_what_bash_knows
    an_early_exit_loses_its_changes
    errors_tell_the_line_of_the_text
    output_is_in_order
    texts_that_are_not_complete_do_not_succeed
    texts_that_are_complete_in_odd_ways_do
    a_directory_that_is_gone_is_said
    state_that_cannot_be_saved_is_a_failure
    names_that_shells_cannot_have_reach_programs
    commands_see_whether_the_build_succeeds
    words_are_expanded
    words_are_expanded_in_the_source_folder
    names_that_bash_keeps_for_itself_are_not_saved
    our_program_is_on_the_path
    commands_get_no_input_and_no_terminal
    signals_are_told_apart_from_statuses
    a_shell_that_is_not_there_is_an_error
    a_background_process_does_not_hang_the_build
    a_background_writer_does_not_hang_the_build
    later_output_of_background_processes_arrives
    nothing_is_left_when_the_build_ends
    nothing_is_left_when_the_build_is_killed
    nothing_is_left_when_the_build_is_dropped
    a_supervisor_ignores_signals
    a_supervisor_refuses_a_folder_that_is_not_of_a_build
    a_killed_supervisor_is_an_error
    a_stop_ends_the_command
    a_stop_between_commands_starts_nothing
    a_second_stop_kills_at_once
};

/// Runs all tests, or those whose names contain an argument.
fn run_tests() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(it));
    let mut failed = Vec::new();
    let mut good = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let passed = panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        good += u32::from(passed);
        if !passed {
            failed.push(name);
        }
    }
    let (result, count) = (if failed.is_empty() { "ok" } else { "FAILED" }, failed.len());
    for name in &failed {
        println!("failed: {name}");
    }
    println!("\ntest result: {result}. {good} passed; {count} failed; 0 ignored; 0 measured\n");
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// A build with a shell, in a folder of its own.
struct Build {
    place: tempfile::TempDir,
    shell: LocalShell,
}

/// What a build starts with.
#[derive(Default)]
struct Start<'a> {
    shell: Option<&'a str>,
    variables: &'a [(&'a str, &'a str)],
    stop: Option<OwnedFd>,
    deadline: Option<Instant>,
    terminal: Option<Terminal>,
    choices: Choices,
}

impl Build {
    fn new(shell: &str) -> Self {
        Self::start(Start { shell: Some(shell), ..Start::default() })
    }

    fn start(start: Start<'_>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), start)
    }

    fn start_in(place: tempfile::TempDir, start: Start<'_>) -> Self {
        let shell = start_in(place.path(), start).unwrap();
        Self { place, shell }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// Runs commands one after another; what each wrote, and how it ended if not with 0.
    fn run(&mut self, commands: &[&str]) -> String {
        let mut seen = String::new();
        for text in commands {
            let (output, end) = self.run_one(text);
            seen += &output;
            if end != End::Exited(0) {
                writeln!(seen, "{end:?}").unwrap();
            }
        }
        let folder = self.private_folder();
        seen.replace(folder.to_str().unwrap(), "FOLDER")
            .replace(self.path().to_str().unwrap(), "PLACE")
    }

    fn run_one(&mut self, text: &str) -> (String, End) {
        let mut output = Vec::new();
        let line = CommandLine::new(text);
        let end = self.shell.run(line, &mut |bytes| output.extend_from_slice(bytes)).unwrap();
        (String::from_utf8_lossy(&output).into_owned(), end)
    }

    fn private_folder(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.path().join("private")).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    /// Ends the build; what was written until the end.
    fn finish(self) -> String {
        let mut output = Vec::new();
        self.shell.finish(&mut |bytes| output.extend_from_slice(bytes)).unwrap();
        String::from_utf8_lossy(&output).into_owned()
    }
}

/// Starts a shell whose private folder is in `place/private`, and whose source is in `place/src`.
fn start_in(place: &Path, start: Start<'_>) -> Result<LocalShell, ShellError> {
    let program = std::env::current_exe().unwrap();
    let (private, source) = (place.join("private"), place.join("src"));
    fs::create_dir_all(&private).unwrap();
    fs::create_dir_all(&source).unwrap();
    let folder = PrivateFolder::create(&[&private], &program)?;
    let mut base: Vec<(OsString, OsString)> =
        vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), place.into())];
    base.extend(start.variables.iter().map(|(name, value)| (name.into(), value.into())));
    let facts = Facts { source: source.clone(), ..Facts::default() };
    let environment = Environment::new(&base, &[], &facts, &folder.programs()).unwrap();
    let setup = Setup {
        supervisor: &program,
        shell: start.shell.unwrap_or("sh"),
        environment: &environment,
        directory: &source,
        stop: start.stop,
        deadline: start.deadline,
        terminal: start.terminal,
        choices: start.choices,
    };
    let mut shell = LocalShell::start(folder, setup)?;
    shell.begin(Beginning { environment: &environment, directory: &source })?;
    Ok(shell)
}

/// Runs `commands` in both shells, which must say the same; and in bash as some systems' `sh`.
#[track_caller]
fn check(commands: &[&str], want: &str) {
    let place = tempfile::tempdir().unwrap();
    let posix = place.path().join("sh");
    std::os::unix::fs::symlink("/bin/bash", &posix).unwrap();
    for shell in ["dash", "bash", posix.to_str().unwrap()] {
        let seen = Build::new(shell).run(commands);
        assert_eq!(seen, want, "in {shell}: {commands:?}");
    }
}

fn variables_are_carried_on() {
    check(&["FOO=bar", "echo $FOO", "sh -c 'echo $FOO'"], "bar\nbar\n");
    check(&["export FOO=bar; BAR=$FOO", "echo $BAR", "BAR=2", "echo $BAR"], "bar\n2\n");
    check(&["false || true", "echo $? $CODEBUILD_LAST_EXIT"], "0 0\n");
    check(&["IFS=,", "a=1,2; set -- $a; echo $1"], "1\n");
}

fn values_of_every_kind_are_carried_on() {
    check(
        &[
            "A='a\nb'; B=\"it's\"; C='\"q\" $X `id` \\'; D=; E=' x '; F=é; G='*'",
            "printf '[%s]' \"$A\" \"$B\" \"$C\" \"${D-unset}\" \"$E\" \"$F\" \"$G\"",
        ],
        "[a\nb][it's][\"q\" $X `id` \\][][ x ][é][*]",
    );
    let variables = [("GIVEN", "a\n'b' \"c\" $d")];
    let mut build = Build::start(Start { variables: &variables, ..Start::default() });
    assert_eq!(build.run(&["printf '[%s]' \"$GIVEN\""]), "[a\n'b' \"c\" $d]");
}

fn unset_variables_stay_unset() {
    check(&["A=1", "unset A", "echo ${A-gone}"], "gone\n");
    check(
        &["unset HOME CODEBUILD_SRC_DIR", "echo ${HOME-gone} ${CODEBUILD_SRC_DIR-gone}"],
        "gone gone\n",
    );
}

fn the_working_directory_is_carried_on() {
    check(&["pwd"], "PLACE/src\n");
    check(&["mkdir 'a b'; cd 'a b'", "pwd", "cd ..", "pwd"], "PLACE/src/a b\nPLACE/src\n");
    check(&["mkdir \"it's\" && cd \"it's\"", "cd - >/dev/null; pwd"], "PLACE/src\n");
    check(
        &["mkdir a; ln -s a b; cd b", "pwd; echo $PWD; sh -c 'pwd'"],
        "PLACE/src/b\nPLACE/src/b\nPLACE/src/b\n",
    );
    check(&["(cd /)", "pwd"], "PLACE/src\n");
    check(&["mkdir -- -n; cd -- -n", "pwd"], "PLACE/src/-n\n");
}

fn functions_aliases_and_options_are_not_carried_on() {
    check(&["f() { echo hi; }; f", "f 2>/dev/null || echo gone"], "hi\ngone\n");
    check(&["alias f='echo hi'", "f 2>/dev/null || echo gone"], "gone\n");
    check(&["set -e; false; true", "false; true"], "Exited(1)\n");
    check(&["set -e", "false; true", "echo on"], "on\n");
    check(&["false\ntrue", "trap 'echo bye' EXIT; echo hi", "echo next"], "hi\nbye\nnext\n");
    check(&["set -- a b", "echo $#"], "0\n");
    check(&["umask 077", "umask"], &Build::new("dash").run(&["umask"]));
}

fn bash_carries_what_bash_knows() {
    let mut build = Build::new("bash");
    // Arrays are not: `export -p` leaves them out, here as in CodeBuild.
    let commands = ["LIST=(a 'b c')", "echo ${#LIST[@]}", "X=$'a\\tb'", "echo \"$X\""];
    assert_eq!(build.run(&commands), "0\na\tb\n");
    let commands = [
        "set -o pipefail; false | true",
        "[[ a == a ]] && echo fine",
        "echo $SHLVL",
        "echo $SHLVL",
    ];
    assert_eq!(build.run(&commands), "Exited(1)\nfine\n1\n1\n");
}

fn an_early_exit_loses_its_changes() {
    check(&["A=1; mkdir x; cd x; exit 0", "echo ${A-none}; pwd"], "none\nPLACE/src\n");
    check(&["exit 3", "A=1; false", "echo $A $CODEBUILD_LAST_EXIT"], "Exited(3)\nExited(1)\n1 1\n");
}

fn errors_tell_the_line_of_the_text() {
    let (script, text) = ("FOLDER/script.sh", "nofn");
    let seen = Build::new("bash").run(&[text]);
    assert_eq!(seen, format!("{script}: line 4: nofn: command not found\nExited(127)\n"));
    let seen = Build::new("dash").run(&["\n\nnofn"]);
    assert_eq!(seen, format!("{script}: 6: nofn: not found\nExited(127)\n"));
}

fn output_is_in_order() {
    let text = "i=0; while [ $i -lt 50 ]; do echo $i; echo $i >&2; i=$((i+1)); done";
    let want: Vec<String> = (0..50).flat_map(|it| [it, it]).map(|it| it.to_string()).collect();
    check(&[text], &(want.join("\n") + "\n"));
    check(&["printf 'no line feed'"], "no line feed");
    let mut build = Build::new("dash");
    let (output, _) = build.run_one("head -c 3000000 /dev/zero");
    assert_eq!(output.len(), 3_000_000);
}

fn texts_that_are_not_complete_do_not_succeed() {
    for shell in ["dash", "bash"] {
        for text in [
            "false \\",
            "false &&",
            "false &&\n\n",
            "false ||",
            "false |",
            "true |",
            "true | #",
            "echo 'x",
            "echo \"x",
            "echo `false",
            "if false; then echo",
            "(false",
            "{ false",
            "false & &&",
            "case x in",
            "echo $(false",
            "while false; do",
            "f() {",
            "))",
            "false &&  ",
            "}",
        ] {
            let (output, end) = Build::new(shell).run_one(text);
            assert_ne!(end, End::Exited(0), "{text:?} in {shell}: {output}");
        }
    }
}

fn texts_that_are_complete_in_odd_ways_do() {
    check(&["A=1 # &&", "echo $A"], "1\n");
    check(&["A=1 # \\", "echo $A"], "1\n");
    check(&["A=1;", "echo $A"], "1\n");
    check(&["A=1 &&\nB=2\n\n\n", "echo $A $B"], "1 2\n");
    check(&["cat <<EOF\n}\nEOF", "echo on"], "}\non\n");
    check(&["cat <<'EOF'\n$X\nEOF\n", "A=1", "echo $A"], "$X\n1\n");
    check(&["", "echo on", "  \n ", "# only this", "echo on"], "on\non\n");
    check(&["echo a \\", "echo b"], "a\nb\n");
    check(&["sleep 0 &", "echo on"], "on\n");
    check(&["set -C; A=1", "A=2", "echo $A"], "2\n");
    check(&["set -u; A=1", "echo $A"], "1\n");
}

fn a_directory_that_is_gone_is_said() {
    let commands = ["mkdir x; cd x; rmdir ../x", "echo on"];
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        let seen = build.run(&commands);
        let want = "the working directory is gone: an earlier command left off in a folder that \
                    is not there now\nExited(1)\n";
        assert!(seen.ends_with(want), "in {shell}: {seen}");
    }
}

fn state_that_cannot_be_saved_is_a_failure() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        let variables = build.private_folder().join("env.1.sh");
        let text = format!("rm {0}; mkdir {0}", variables.display());
        let (output, end) = build.run_one(&text);
        assert!(matches!(end, End::Exited(1 | 2)), "in {shell}: {end:?} {output}");
    }
}

fn names_that_shells_cannot_have_reach_programs() {
    let variables = [("odd.name", "value"), ("BASH_FUNC_f%%", "() { echo from outside; }")];
    let start = Start { shell: Some("bash"), variables: &variables, ..Start::default() };
    let mut build = Build::start(start);
    assert_eq!(build.run(&["true", "env | grep odd", "f"]), "odd.name=value\nfrom outside\n");
}

fn commands_see_whether_the_build_succeeds() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        for (succeeding, want) in [(true, "1\n"), (false, "0\n"), (true, "1\n")] {
            let mut seen = Vec::new();
            let line = CommandLine {
                succeeding,
                ..CommandLine::new("sh -c 'echo $CODEBUILD_BUILD_SUCCEEDING'")
            };
            build.shell.run(line, &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
            assert_eq!(String::from_utf8(seen).unwrap(), want);
        }
    }
}

fn words_are_expanded() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        build.run(&["A='a  b'; N='x\ny'", "( while :; do echo noise; done ) &"]);
        let words = ["x-$(echo 1 2)", "${A}/*", "$NONE", "plain $A", "$N"].map(str::to_owned);
        let expansion = Expansion { words: &words, succeeding: true };
        let expanded = build.shell.expand(expansion, &mut |_| {}).unwrap().unwrap();
        assert_eq!(expanded, ["x-1 2", "a  b/*", "", "plain a  b", "x\ny"], "in {shell}");
        let words = ["\"".to_owned()];
        let expansion = Expansion { words: &words, succeeding: true };
        let broken = build.shell.expand(expansion, &mut |_| {}).unwrap();
        assert!(matches!(broken, Err(End::Exited(1 | 2))), "in {shell}: {broken:?}");
    }
}

fn words_are_expanded_in_the_source_folder() {
    let place = tempfile::tempdir().unwrap();
    let posix = place.path().join("sh");
    std::os::unix::fs::symlink("/bin/bash", &posix).unwrap();
    for shell in ["dash", "bash", posix.to_str().unwrap()] {
        let mut build = Build::new(shell);
        build.run(&[": >file; mkdir here gone; cd gone; rmdir ../gone"]);
        let words = ["$PWD", "$(pwd)", "$(echo f*)", "${A=1}"].map(str::to_owned);
        let expansion = Expansion { words: &words, succeeding: true };
        let expanded = build.shell.expand(expansion, &mut |_| {}).unwrap().unwrap();
        let source = build.path().join("src").into_os_string();
        assert_eq!(expanded, [source.clone(), source, "file".into(), "1".into()], "in {shell}");
        let mut build = Build::new(shell);
        build.run(&["mkdir here; cd here"]);
        build.shell.expand(expansion, &mut |_| {}).unwrap().unwrap();
        let seen = build.run(&["exit 0", "pwd; echo ${A-none}"]);
        assert_eq!(seen, "PLACE/src/here\nnone\n", "commands do not notice, in {shell}");
    }
}

fn names_that_bash_keeps_for_itself_are_not_saved() {
    let text = "export UID EUID PPID SHELLOPTS BASHOPTS BASH_VERSINFO 2>/dev/null; A=1";
    check(&[text, "echo $A", "echo $A"], "1\n1\n");
    check(&[&format!("set -eu; {text}"), "echo $A"], "1\n");
    check(&["export BASH_VERSION=odd; A=1", "set -eu; B=2", "echo $A $B"], "1 2\n");
}

fn our_program_is_on_the_path() {
    check(&["command -v rbuild", "test -x \"$(command -v rbuild)\""], "FOLDER/bin/rbuild\n");
}

fn commands_get_no_input_and_no_terminal() {
    check(&["cat", "[ -t 0 ] || [ -t 1 ] || echo none"], "none\n");
    // Nothing of ours is open in a command that is not open in any other child of this process.
    let text = "ls /proc/self/fd | wc -l";
    let output = Command::new("dash").args(["-c", text]).stdin(Stdio::null()).output().unwrap();
    let mut build = Build::new("dash");
    assert_eq!(build.run(&[text]), String::from_utf8(output.stdout).unwrap());
    let (seen, _) = build.run_one("cut -d' ' -f6 /proc/$$/stat; echo $$");
    let ids: Vec<&str> = seen.lines().collect();
    assert_eq!(ids[0], ids[1], "the shell leads its session");
}

fn signals_are_told_apart_from_statuses() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        assert_eq!(build.run_one("kill -9 $$").1, End::Killed(9), "in {shell}");
        assert_eq!(build.run_one("kill $$").1, End::Killed(15), "in {shell}");
        assert_eq!(build.run_one("sh -c 'kill -9 $$'").1, End::Exited(137), "in {shell}");
        assert_eq!(build.run_one("exit 255").1, End::Exited(255), "in {shell}");
        assert_eq!(
            build.run_one("trap - TERM INT HUP; kill -2 $$").1,
            End::Killed(2),
            "in {shell}"
        );
    }
}

fn a_shell_that_is_not_there_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let start = Start { shell: Some("nosuchshell"), ..Start::default() };
    let err = start_in(place.path(), start).unwrap_err();
    assert_eq!(err.to_string(), "the shell `nosuchshell` was not found on the PATH");
    let left = fs::read_dir(place.path().join("private")).unwrap().count();
    assert_eq!(left, 0, "the private folder is gone");
}

/// Fails if `action` takes longer than `limit`.
#[track_caller]
fn within<T>(limit: Duration, action: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = action();
    assert!(start.elapsed() < limit, "took {:?}", start.elapsed());
    result
}

/// Less than the time that processes have to end when they are asked to.
const SHORT: Duration = Duration::from_secs(4);

fn a_background_process_does_not_hang_the_build() {
    for text in [
        "sleep 1000 &",
        "nohup sleep 1000 &",
        "nohup sleep 1000 >/dev/null 2>&1 &",
        "(sleep 1000 &)",
    ] {
        let mut build = Build::new("dash");
        let seen = within(SHORT, || build.run(&[text, "echo on"]));
        assert!(seen.ends_with("on\n"), "{seen}");
        within(SHORT, || build.finish());
    }
}

fn a_background_writer_does_not_hang_the_build() {
    let mut build = Build::new("dash");
    let seen = within(SHORT, || build.run(&["yes noise &", "echo on", "echo again"]));
    assert!(seen.contains("on\n") && seen.contains("again\n"));
    within(SHORT, || build.finish());
}

fn later_output_of_background_processes_arrives() {
    let mut build = Build::new("dash");
    let pipe = build.path().join("pipe");
    let pipe = pipe.display();
    // The second command ends after the background process has read, and that writes after it.
    let first = format!("mkfifo {pipe}; (read x <{pipe}; echo late; echo >{pipe}) &");
    let second = format!("echo go >{pipe}; read x <{pipe}; echo second");
    assert_eq!(build.run(&[&first, &second]), "late\nsecond\n");
    let mut build = Build::new("bash");
    let text = "sh -c 'trap \"echo ended; exit\" TERM; : >ready; while :; do :; done' & \
                until [ -e ready ]; do :; done";
    assert_eq!(build.run(&[text]), "");
    assert_eq!(build.finish(), "ended\n");
}

/// What would outlive a careless parent. Each writes its process ID to a file named after it.
const DAEMONS: [(&str, &str); 5] = [
    ("background", "sleep 1000 & echo $! >background"),
    ("nohup", "nohup sleep 1000 >/dev/null 2>&1 & echo $! >nohup"),
    (
        "session",
        "setsid sh -c 'echo $$ >session.new; mv session.new session; exec sleep 1000' >/dev/null 2>&1 &",
    ),
    (
        "daemon",
        "sh -c \"setsid sh -c 'sh -c \\\"echo \\\\\\$\\\\\\$ >daemon.new; mv daemon.new daemon; exec sleep 1000\\\" &' &\" </dev/null >/dev/null 2>&1",
    ),
    (
        "stubborn",
        "sh -c 'trap \"\" TERM HUP INT; echo $$ >stubborn.new; mv stubborn.new stubborn; while :; do sleep 1000; done' &",
    ),
];

/// Starts all of [`DAEMONS`], and waits until they run.
fn start_daemons(build: &mut Build) -> BTreeMap<String, u32> {
    let mut commands: Vec<String> = DAEMONS.iter().map(|(_, text)| (*text).to_owned()).collect();
    commands.extend(DAEMONS.iter().map(|(name, _)| format!("until [ -s {name} ]; do :; done")));
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    assert_eq!(build.run(&commands), "");
    let source = build.path().join("src");
    read_daemons(&source)
}

fn read_daemons(source: &Path) -> BTreeMap<String, u32> {
    let pid = |name: &str| fs::read_to_string(source.join(name)).unwrap().trim().parse().unwrap();
    let daemons: BTreeMap<String, u32> =
        DAEMONS.iter().map(|(name, _)| ((*name).to_owned(), pid(name))).collect();
    for (name, pid) in &daemons {
        assert!(is_alive(*pid), "{name} should run");
    }
    daemons
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

/// The processes whose environment or arguments name `place`: all that a build has left.
fn left_of(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let has = |file: &str| {
            fs::read(path.join(file)).is_ok_and(|it| String::from_utf8_lossy(&it).contains(place))
        };
        if entry
            .file_name()
            .to_string_lossy()
            .parse::<u32>()
            .is_ok_and(|it| it != std::process::id())
            && (has("environ") || has("cmdline"))
        {
            left.push(fs::read_to_string(path.join("cmdline")).unwrap_or_default());
        }
    }
    left
}

/// Waits until nothing of a build is left, not longer than ten seconds.
#[track_caller]
fn check_nothing_is_left(place: &Path, daemons: &BTreeMap<String, u32>) {
    let start = Instant::now();
    loop {
        let alive: Vec<&String> =
            daemons.iter().filter(|(_, pid)| is_alive(**pid)).map(|(name, _)| name).collect();
        let left = left_of(place);
        let folders = fs::read_dir(place.join("private")).unwrap().count();
        if alive.is_empty() && left.is_empty() && folders == 0 {
            return;
        }
        let waited = start.elapsed() > Duration::from_secs(10);
        assert!(!waited, "alive: {alive:?}, left: {left:?}, folders: {folders}");
        std::thread::yield_now();
    }
}

fn nothing_is_left_when_the_build_ends() {
    let mut build = Build::new("dash");
    let daemons = start_daemons(&mut build);
    let Build { place, shell } = build;
    within(Duration::from_secs(15), || shell.finish(&mut |_| {}).unwrap());
    // No waiting here: a build that has finished has finished.
    for (name, pid) in &daemons {
        assert!(!is_alive(*pid), "{name} is left");
    }
    check_nothing_is_left(place.path(), &daemons);
}

fn nothing_is_left_when_the_build_is_dropped() {
    let mut build = Build::new("bash");
    let daemons = start_daemons(&mut build);
    let Build { place, shell } = build;
    drop(shell);
    for (name, pid) in &daemons {
        assert!(!is_alive(*pid), "{name} is left");
    }
    check_nothing_is_left(place.path(), &daemons);
}

/// Holds a build with daemons and a command that does not end, until it is killed.
fn hold() -> ExitCode {
    let place = PathBuf::from(std::env::args_os().nth(2).unwrap());
    let mut shell = start_in(&place, Start::default()).unwrap();
    for (_, text) in DAEMONS {
        shell.run(CommandLine::new(text), &mut |_| {}).unwrap();
    }
    let names: Vec<&str> = DAEMONS.iter().map(|(name, _)| *name).collect();
    let text = format!("for it in {}; do until [ -s $it ]; do :; done; done", names.join(" "));
    shell.run(CommandLine::new(&text), &mut |_| {}).unwrap();
    println!("held");
    std::io::stdout().flush().unwrap();
    let forever = CommandLine::new("while :; do sleep 1000; done");
    shell.run(forever, &mut |_| {}).unwrap();
    ExitCode::FAILURE
}

fn nothing_is_left_when_the_build_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([HOLD.as_ref(), place.path().as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "held\n");
    let daemons = read_daemons(&place.path().join("src"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    check_nothing_is_left(place.path(), &daemons);
}

/// The parent of the process that a folder of `/proc` is about.
fn parent_of(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn supervisor_of(build: &Build) -> i32 {
    let folder = build.private_folder();
    let is_it = |path: &Path| {
        let cmdline = fs::read(path.join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        let is_child = parent_of(path) == Some(std::process::id());
        is_child && cmdline.contains(SUPERVISE) && cmdline.contains(folder.to_str().unwrap())
    };
    let mut entries = fs::read_dir("/proc").unwrap().flatten();
    let entry = entries.find(|it| is_it(&it.path())).unwrap();
    entry.file_name().to_str().unwrap().parse().unwrap()
}

fn a_supervisor_ignores_signals() {
    let mut build = Build::new("dash");
    let supervisor = supervisor_of(&build);
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let text = format!("kill -{signal} {supervisor}; echo on");
        assert_eq!(build.run(&[&text]), "on\n");
    }
    build.finish();
}

fn a_supervisor_refuses_a_folder_that_is_not_of_a_build() {
    let place = tempfile::tempdir().unwrap();
    let (name, link) = ("rbuild-1-0123456789abcdef", "bin/rbuild");
    for (folder, file) in [("other", link), (name, "bin/other"), ("rbuild-src", link)] {
        let folder = place.path().join(folder);
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/bin/true", &file).unwrap();
        let mut supervisor = Command::new(std::env::current_exe().unwrap());
        supervisor.arg(SUPERVISE).arg(&folder).arg("/bin/sh").stdin(Stdio::null());
        let status = supervisor.status().unwrap();
        assert_eq!(status.code(), Some(2), "for {}", file.display());
        assert!(file.is_symlink(), "nothing is removed");
    }
}

fn a_killed_supervisor_is_an_error() {
    let mut build = Build::new("dash");
    let supervisor = supervisor_of(&build);
    let text = format!("kill -9 {supervisor}; while :; do :; done");
    let line = CommandLine::new(&text);
    let err = within(SHORT, || build.shell.run(line, &mut |_| {}).unwrap_err());
    assert_eq!(err.to_string(), "the supervisor of the build is gone");
    let Build { place, shell } = build;
    drop(shell);
    check_nothing_is_left(place.path(), &BTreeMap::new());
}

/// A build and the end of its stop channel to write to.
fn stoppable(shell: &str) -> (Build, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stop = Some(OwnedFd::from(reader));
    (Build::start(Start { shell: Some(shell), stop, ..Start::default() }), writer)
}

/// Runs a command, and writes `byte` to the stop channel each time it says `say`.
fn run_and_stop(
    build: &mut Build,
    stop: &mut std::io::PipeWriter,
    text: &str,
    byte: u8,
) -> (String, End) {
    let mut output = Vec::new();
    let line = CommandLine::new(text);
    let mut on_output = |bytes: &[u8]| {
        output.extend_from_slice(bytes);
        for _ in bytes.windows(3).filter(|it| it == b"say") {
            stop.write_all(&[byte]).unwrap();
        }
    };
    let end = build.shell.run(line, &mut on_output).unwrap();
    (String::from_utf8_lossy(&output).into_owned(), end)
}

fn a_stop_ends_the_command() {
    for shell in ["dash", "bash"] {
        let (mut build, mut stop) = stoppable(shell);
        let text = "trap 'echo cleaned; exit' TERM; echo say; while :; do :; done";
        let (output, end) = within(SHORT, || run_and_stop(&mut build, &mut stop, text, 2));
        assert_eq!((output.as_str(), end), ("say\ncleaned\n", End::Stopped(2)), "in {shell}");
        assert_eq!(build.run_one("echo never").1, End::Stopped(2));
        build.finish();
    }
}

fn a_stop_between_commands_starts_nothing() {
    let (mut build, mut stop) = stoppable("dash");
    assert_eq!(build.run(&["echo one"]), "one\n");
    assert_eq!(build.shell.stop_requested(), None);
    stop.write_all(&[15]).unwrap();
    assert_eq!(build.shell.stop_requested(), Some(15));
    assert_eq!(build.run_one("echo two"), (String::new(), End::Stopped(15)));
    build.finish();
    let (mut build, stop) = stoppable("dash");
    drop(stop);
    assert_eq!(build.run(&["echo one", "echo two"]), "one\ntwo\n");
}

fn a_second_stop_kills_at_once() {
    let (mut build, mut stop) = stoppable("dash");
    let text = "trap 'echo say' TERM; echo say; while :; do :; done";
    let (output, end) = within(SHORT, || run_and_stop(&mut build, &mut stop, text, 2));
    assert_eq!((output.as_str(), end), ("say\nsay\n", End::Stopped(2)));
    build.finish();
}
