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
    io::{Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    panic,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rbuild_agent::{
    choice::{Choices, Unset},
    environment::{Environment, Facts},
    shell::{
        Beginning, CommandLine, End, Expansion, Interaction, LocalShell, PrivateFolder, SUPERVISE,
        Setup, Shell, ShellError, Terminal, check_user, supervise,
    },
};

use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
    termios::Winsize,
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
    a_shell_that_cannot_be_started_is_an_error
    a_background_process_does_not_hang_the_build
    a_background_writer_does_not_hang_the_build
    later_output_of_background_processes_arrives
    nothing_is_left_when_the_build_ends
    nothing_is_left_when_the_build_is_killed
    nothing_is_left_when_the_build_is_dropped
    a_supervisor_ignores_signals
    a_supervisor_refuses_a_folder_that_is_not_of_a_build
    a_killed_supervisor_is_an_error
    a_killed_supervisor_is_an_error_in_a_container
    a_stop_ends_the_command
    a_stop_between_commands_starts_nothing
    a_second_stop_kills_at_once
    a_build_starts_afresh
    what_is_left_running_cannot_hold_up_a_new_beginning
    the_state_before_the_last_command_is_known
    commands_of_version_0_1_know_nothing_of_each_other
    unset_variables_of_the_build_come_back_if_asked
    time_that_is_up_ends_the_command
    time_that_is_up_between_commands_starts_nothing
    output_of_every_kind_arrives
    nothing_is_left_when_the_supervisor_is_killed
    the_next_build_removes_what_two_kills_left
    commands_run_as_another_user
    variables_and_files_are_handed_over_from_user_to_user
    a_closed_source_folder_is_said
    a_user_who_is_not_there_is_an_error
    nothing_of_another_user_is_left
    a_person_gets_a_shell_with_the_state
    a_person_gets_the_state_before_the_last_command
    a_stop_ends_the_shell_of_a_person
    a_shell_for_a_person_needs_a_terminal
};

/// Before names of tests, as for any test runner: they are whole names.
const EXACT: &str = "--exact";

/// Runs all tests, or those whose names contain an argument.
fn run_tests() -> ExitCode {
    let exact = std::env::args().any(|it| it == EXACT);
    let filters: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| {
        let fits = |it: &String| if exact { name == it } else { name.contains(it) };
        filters.is_empty() || filters.iter().any(fits)
    };
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

    /// Starts all over.
    fn begin(&mut self) {
        let source = self.path().join("src");
        let environment = environment_in(self.path(), &self.private_folder().join("bin"), &[]);
        let beginning =
            Beginning { environment: &environment, directory: &source, source: &source };
        self.shell.begin(beginning).unwrap();
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
    let environment = environment_in(place, &folder.programs(), start.variables);
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
    shell.begin(Beginning { environment: &environment, directory: &source, source: &source })?;
    Ok(shell)
}

fn environment_in(place: &Path, programs: &Path, variables: &[(&str, &str)]) -> Environment {
    let mut base: Vec<(OsString, OsString)> =
        vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), place.into())];
    base.extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
    let facts = Facts { source: place.join("src"), ..Facts::default() };
    Environment::new(&base, &[], &facts, programs).unwrap()
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
    // The three standard streams, and the folder that is listed: nothing of ours is open, and
    // nothing of whoever started this process.
    let mut build = Build::new("dash");
    assert_eq!(build.run(&["ls /proc/self/fd | wc -l"]), "4\n");
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

fn a_shell_that_cannot_be_started_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let shell = place.path().join("sh");
    fs::write(&shell, "\0").unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let mut build = Build::new(shell.to_str().unwrap());
    let err = build.shell.run(CommandLine::new("echo never"), &mut |_| {}).unwrap_err();
    assert_eq!(err.to_string(), format!("the shell `{}` could not be started", shell.display()));
    fs::copy("/bin/dash", &shell).unwrap();
    assert_eq!(build.run(&["echo on"]), "on\n");
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

/// The processes whose environment or arguments name `place`, and those arguments: all that a
/// build has left.
fn left_of(place: &Path) -> Vec<(u32, String)> {
    let place = place.to_str().unwrap();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let has = |file: &str| {
            fs::read(path.join(file)).is_ok_and(|it| String::from_utf8_lossy(&it).contains(place))
        };
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid != std::process::id() && (has("environ") || has("cmdline")) {
            left.push((pid, fs::read_to_string(path.join("cmdline")).unwrap_or_default()));
        }
    }
    left
}

/// Ends what a build has left that nobody can end any more.
fn kill_all_of(place: &Path) {
    loop {
        let left = left_of(place);
        if left.is_empty() {
            return;
        }
        for (pid, _) in left {
            // It may have ended by now.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
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

/// Starts [`hold`], and waits until it holds.
fn start_holder(place: &Path) -> std::process::Child {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([HOLD.as_ref(), place.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "held\n");
    holder
}

fn nothing_is_left_when_the_build_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut holder = start_holder(place.path());
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
    supervisor_below(std::process::id(), &build.private_folder())
}

/// The child of `parent` that supervises a build whose folder is in `folder`, or is that.
fn supervisor_below(parent: u32, folder: &Path) -> i32 {
    let is_it = |path: &Path| {
        let cmdline = fs::read(path.join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        let is_child = parent_of(path) == Some(parent);
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

/// A container's processes may be in a session whose leader is outside, which has no PID there.
fn a_killed_supervisor_is_an_error_in_a_container() {
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside.arg(std::env::current_exe().unwrap()).args([EXACT, "a_killed_supervisor_is_an_error"]);
    let output = within(2 * SHORT, || inside.stdin(Stdio::null()).output().unwrap());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("ok. 1 passed"), "{output:?}");
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

fn a_build_starts_afresh() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        let daemons = start_daemons(&mut build);
        build.run(&["A=1; unset HOME; mkdir x; cd x", "trap '' TERM; A=2"]);
        build.begin();
        for (name, pid) in &daemons {
            assert!(!is_alive(*pid), "{name} is left, in {shell}");
        }
        let text = "echo ${A-none} ${HOME+home} ${CODEBUILD_LAST_EXIT-none}; pwd";
        assert_eq!(build.run(&[text]), "none home none\nPLACE/src\n", "in {shell}");
        build.finish();
    }
}

fn what_is_left_running_cannot_hold_up_a_new_beginning() {
    let mut build = Build::new("dash");
    let text = "sh -c 'trap \"yes noise | head -c 3000000\" TERM; : >ready; while :; do sleep 1; done' & \
                until [ -e ready ]; do :; done";
    assert_eq!(build.run(&[text]), "");
    within(SHORT, || build.begin());
    assert!(build.run(&["echo on"]).ends_with("on\n"));
}

fn the_state_before_the_last_command_is_known() {
    let place = tempfile::tempdir().unwrap();
    let posix = place.path().join("sh");
    std::os::unix::fs::symlink("/bin/bash", &posix).unwrap();
    for shell in ["dash", "bash", posix.to_str().unwrap()] {
        let variables = [("odd.name", "x")];
        let start = Start { shell: Some(shell), variables: &variables, ..Start::default() };
        let mut build = Build::start(start);
        let source = build.path().join("src");
        let mut check = |commands: &[&str], want: [Option<&[u8]>; 2], directory: &Path| {
            build.run(commands);
            let snapshot = build.shell.snapshot().unwrap();
            let value = |name: &str| {
                let mut variables = snapshot.variables.iter();
                variables.find(|it| it.0 == name).map(|it| it.1.as_bytes().to_owned())
            };
            let seen = ["A", "B"].map(value);
            assert_eq!(seen, want.map(|it| it.map(<[u8]>::to_owned)), "{commands:?} in {shell}");
            assert_eq!(snapshot.directory, directory, "{commands:?} in {shell}");
            assert_eq!(value("odd.name"), Some(b"x".to_vec()));
            assert_eq!(value("CODEBUILD_CI"), Some(b"true".to_vec()));
            assert!(snapshot.variables.is_sorted(), "{:?}", snapshot.variables);
        };
        check(&[], [None, None], &source);
        check(&["A='a\nb\"$'; cd /"], [None, None], &source);
        check(&["B=$(printf '\\377\\001'); false"], [Some(b"a\nb\"$"), None], Path::new("/"));
        check(&["exit 3"], [Some(b"a\nb\"$"), Some(b"\xff\x01")], Path::new("/"));
        check(&["unset A; cd /usr"], [Some(b"a\nb\"$"), Some(b"\xff\x01")], Path::new("/"));
        check(&["kill -9 $$"], [None, Some(b"\xff\x01")], Path::new("/usr"));
        build.begin();
        assert_eq!(build.shell.snapshot().unwrap().directory, source);
    }
}

fn commands_of_version_0_1_know_nothing_of_each_other() {
    for shell in ["dash", "bash"] {
        let mut build = Build::new(shell);
        let mut seen = String::new();
        for text in
            ["A=1; cd /; unset HOME", "echo ${A-none} ${HOME+home}; pwd", "false &&", "false"]
        {
            let line = CommandLine { carries: false, ..CommandLine::new(text) };
            let mut on_output = |bytes: &[u8]| seen += &String::from_utf8_lossy(bytes);
            let end = build.shell.run(line, &mut on_output).unwrap();
            writeln!(seen, "{end:?}").unwrap();
        }
        let source = build.path().join("src");
        let seen = seen.replace(source.to_str().unwrap(), "SOURCE");
        assert!(seen.starts_with("Exited(0)\nnone home\nSOURCE\nExited(0)\n"), "{seen}");
        assert!(seen.ends_with("Exited(2)\nExited(1)\n"), "{seen}");
    }
}

fn unset_variables_of_the_build_come_back_if_asked() {
    for (unset, want) in [(Unset::Keep, "gone /\n"), (Unset::Restore, "PLACE /\n")] {
        let choices = Choices { unset, ..Choices::default() };
        let mut build = Build::start(Start { choices, ..Start::default() });
        let commands = ["unset HOME; A=1; cd /", "unset A; CODEBUILD_CI=no"];
        assert_eq!(build.run(&commands), "");
        let text = "echo ${HOME-gone} $(pwd); [ -z \"${A-}\" ] && [ $CODEBUILD_CI = no ]";
        assert_eq!(build.run(&[text]), want);
    }
}

fn time_that_is_up_ends_the_command() {
    let deadline = Some(Instant::now() + Duration::from_millis(300));
    let mut build = Build::start(Start { deadline, ..Start::default() });
    let text = "trap 'echo cleaned; exit' TERM; echo on; while :; do :; done";
    let (output, end) = within(SHORT, || build.run_one(text));
    assert_eq!((output.as_str(), end), ("on\ncleaned\n", End::TimedOut));
    assert_eq!(build.run_one("echo never"), (String::new(), End::TimedOut));
    assert_eq!(build.shell.stop_requested(), None, "nobody asked");
    let words = ["a".to_owned()];
    let expansion = Expansion { words: &words, succeeding: true };
    assert_eq!(build.shell.expand(expansion, &mut |_| {}).unwrap(), Err(End::TimedOut));
    build.begin();
    assert_eq!(build.run_one("echo never").1, End::TimedOut);
    build.finish();
}

fn time_that_is_up_between_commands_starts_nothing() {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut build = Build::start(Start { deadline: Some(deadline), ..Start::default() });
    assert_eq!(build.run(&["sleep 1000 & echo on"]), "on\n");
    while Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(build.run_one("echo never"), (String::new(), End::TimedOut));
    within(SHORT, || build.finish());
}

fn output_of_every_kind_arrives() {
    check(&["exec >&- 2>&-", "echo on", "exec 1>/dev/null; echo hidden", "echo on"], "on\non\n");
    check(&["printf a; printf b >&2; printf c"], "abc");
    let mut build = Build::new("dash");
    let mut seen = Vec::new();
    let line = CommandLine::new("printf '\\000\\377\\033[2J\\r'");
    build.shell.run(line, &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
    assert_eq!(seen, b"\0\xff\x1b[2J\r");
    let mut count = 0;
    let line = CommandLine::new("head -c 200000000 /dev/zero");
    build.shell.run(line, &mut |bytes| count += bytes.len()).unwrap();
    assert_eq!(count, 200_000_000);
}

fn nothing_is_left_when_the_supervisor_is_killed() {
    let mut build = Build::new("dash");
    let daemons = start_daemons(&mut build);
    let supervisor = supervisor_of(&build);
    let text = format!("setsid sleep 1000 & kill -9 {supervisor}; while :; do :; done");
    let line = CommandLine::new(&text);
    let err = within(SHORT, || build.shell.run(line, &mut |_| {}).unwrap_err());
    assert_eq!(err.to_string(), "the supervisor of the build is gone");
    for (name, pid) in &daemons {
        assert!(!is_alive(*pid), "{name} is left");
    }
    let Build { place, shell } = build;
    drop(shell);
    check_nothing_is_left(place.path(), &daemons);
}

fn the_next_build_removes_what_two_kills_left() {
    let place = tempfile::tempdir().unwrap();
    let private = place.path().join("private");
    fs::create_dir_all(&private).unwrap();
    let folders = || fs::read_dir(&private).unwrap().count();
    let program = std::env::current_exe().unwrap();
    let held = PrivateFolder::create(&[&private], &program).unwrap();
    let mut holder = start_holder(place.path());
    let supervisor = supervisor_below(holder.id(), place.path());
    assert_eq!(folders(), 2);
    // The one first: it would remove the folder.
    assert!(Command::new("kill").args(["-9", &supervisor.to_string()]).status().unwrap().success());
    holder.kill().unwrap();
    holder.wait().unwrap();
    while is_alive(u32::try_from(supervisor).unwrap()) {
        std::thread::yield_now();
    }
    let next = PrivateFolder::create(&[&private], &program).unwrap();
    let mut left: Vec<PathBuf> =
        fs::read_dir(&private).unwrap().map(|it| it.unwrap().path()).collect();
    left.sort();
    let mut want = [held.path(), next.path()];
    want.sort();
    kill_all_of(place.path());
    // The one that was killed may have had the time to do it by itself.
    assert_eq!(left, want);
}

/// Whether this test can run commands as others; if it cannot, that is what is tested.
fn may_run_as_others() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    let is_root = output.stdout == b"0\n";
    let allowed = check_user("nobody");
    assert_eq!(allowed.is_ok(), is_root);
    if let Err(err) = allowed {
        assert_eq!(err.to_string(), "only root can run commands as another user, here `nobody`");
    }
    is_root
}

/// Runs a command as a user; what it wrote, and how it ended if not with 0.
fn run_as(build: &mut Build, user: Option<&str>, text: &str) -> String {
    let mut output = Vec::new();
    let line = CommandLine { user, ..CommandLine::new(text) };
    let end = build.shell.run(line, &mut |bytes| output.extend_from_slice(bytes)).unwrap();
    let mut seen = String::from_utf8_lossy(&output).into_owned();
    if end != End::Exited(0) {
        writeln!(seen, "{end:?}").unwrap();
    }
    seen.replace(build.path().to_str().unwrap(), "PLACE")
}

/// A build whose source everyone may read.
fn open_build(shell: &str) -> Build {
    let build = Build::new(shell);
    fs::set_permissions(build.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(build.path().join("private"), fs::Permissions::from_mode(0o755)).unwrap();
    build
}

fn commands_run_as_another_user() {
    if !may_run_as_others() {
        return;
    }
    for shell in ["dash", "bash"] {
        let mut build = open_build(shell);
        let text = "id -un; id -u; id -g; id -G; echo $HOME; echo out >/dev/stdout; command -v rbuild | grep -o bin/rbuild; test -r \"$0\"";
        let want = "nobody\n65534\n65534\n65534\nPLACE\nout\nbin/rbuild\n";
        assert_eq!(run_as(&mut build, Some("nobody"), text), want, "in {shell}");
        assert_eq!(run_as(&mut build, Some("nobody"), "exit 3"), "Exited(3)\n");
        assert_eq!(run_as(&mut build, Some("nobody"), "kill -9 $$"), "Killed(9)\n");
        assert_eq!(run_as(&mut build, Some("root"), "id -u"), "0\n", "in {shell}");
        build.begin();
        assert_eq!(run_as(&mut build, None, "id -u"), "0\n", "in {shell}");
    }
}

fn variables_and_files_are_handed_over_from_user_to_user() {
    if !may_run_as_others() {
        return;
    }
    for shell in ["dash", "bash"] {
        let mut build = open_build(shell);
        let steps = [
            (None, "A=root; cd /", ""),
            (Some("nobody"), "echo $A; pwd; B=nobody; cd /usr", "root\n/\n"),
            (Some("nobody"), "echo $A $B; pwd; C=\"it's\n\"", "root nobody\n/usr\n"),
            (Some("daemon"), "id -un; echo $A $B \"$C\"; unset B", "daemon\nroot nobody it's\n\n"),
            (None, "echo $A ${B-none}; pwd; id -un", "root none\n/usr\nroot\n"),
        ];
        for (user, text, want) in steps {
            assert_eq!(run_as(&mut build, user, text), want, "{text} in {shell}");
        }
        // Whoever had the files before cannot read or change what comes later.
        let folder = build.private_folder();
        let hold = format!(
            "exec 9<>{0}/env.1.sh 8<>{0}/script.sh; (sleep 1000; echo) & P=$!",
            folder.display()
        );
        assert_eq!(run_as(&mut build, Some("nobody"), &hold), "");
        run_as(&mut build, None, "SECRET=1");
        run_as(&mut build, None, "SECRET=2");
        let spy = format!(
            "cat {0}/* 2>/dev/null; ls {0} 2>/dev/null; for it in 0 1 2; do cat {0}/env.$it.sh 2>/dev/null; done; : >{0}/new",
            folder.display()
        );
        let look = "for it in /proc/$P/fd/9 /proc/$P/fd/8; do [ -e $it ] && cat $it; done | grep -c SECRET=2";
        let (files, _) = build.run_one(&format!(
            "setpriv --reuid daemon --clear-groups sh -c '{spy}' 2>/dev/null; {look}"
        ));
        assert_eq!(files, "0\n", "in {shell}");
    }
}

fn a_closed_source_folder_is_said() {
    if !may_run_as_others() {
        return;
    }
    for shell in ["dash", "bash"] {
        let mut build = open_build(shell);
        let source = build.path().join("src");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
        let seen = run_as(&mut build, Some("nobody"), "echo never");
        let want = "the user nobody cannot enter the working directory: it is gone, or it or a \
                    folder above it is closed to that user; open it with chmod o+x, or move the \
                    source\nExited(1)\n";
        assert!(seen.ends_with(want), "{seen}");
        let mode = fs::metadata(&source).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "it is left as it was");
    }
}

fn a_user_who_is_not_there_is_an_error() {
    let mut build = Build::new("dash");
    let line = CommandLine { user: Some("nosuchuser"), ..CommandLine::new("echo never") };
    let err = build.shell.run(line, &mut |_| {}).unwrap_err();
    assert_eq!(err.to_string(), "there is no user `nosuchuser` in `/etc/passwd`");
    assert_eq!(build.run(&["echo on"]), "on\n");
    let own = Command::new("id").arg("-un").output().unwrap().stdout;
    check_user(String::from_utf8(own).unwrap().trim()).unwrap();
}

fn nothing_of_another_user_is_left() {
    if !may_run_as_others() {
        return;
    }
    let mut build = open_build("dash");
    fs::set_permissions(build.path().join("src"), fs::Permissions::from_mode(0o777)).unwrap();
    let text =
        "setsid sh -c 'trap \"\" TERM; echo $$ >new; mv new pid; while :; do sleep 1000; done' &";
    assert_eq!(run_as(&mut build, Some("nobody"), text), "");
    let pid = run_as(&mut build, Some("nobody"), "until [ -e pid ]; do :; done; cat pid");
    let pid = pid.trim().parse().unwrap();
    assert!(is_alive(pid));
    build.finish();
    assert!(!is_alive(pid));
}

/// A terminal: the end of the person, and the terminal itself.
fn open_terminal() -> (OwnedFd, Terminal) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&person).unwrap();
    rustix::pty::unlockpt(&person).unwrap();
    let path = rustix::pty::ptsname(&person, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let input = rustix::fs::open(path.as_c_str(), flags, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&input, size).unwrap();
    let output = input.try_clone().unwrap();
    (person, Terminal { input, output })
}

/// Types each text when the one before it has been answered, and tells all that is shown.
fn type_at(person: OwnedFd, lines: &'static [(&str, &str)]) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut person = fs::File::from(person);
        let mut shown = Vec::new();
        let mut from = 0;
        for (wait_for, text) in lines {
            let mut buffer = [0; 1024];
            while !String::from_utf8_lossy(&shown[from..]).contains(wait_for) {
                let count = person.read(&mut buffer).unwrap();
                shown.extend_from_slice(&buffer[..count]);
            }
            from = shown.len();
            person.write_all(text.as_bytes()).unwrap();
        }
        // The rest is there when nobody has the terminal open any more.
        let _ = person.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    })
}

/// A build with a terminal, that has run `commands`.
fn build_with_terminal(shell: &str, commands: &[&str]) -> (Build, OwnedFd, OwnedFd) {
    let (person, terminal) = open_terminal();
    let looked_at = terminal.input.try_clone().unwrap();
    let start = Start { shell: Some(shell), terminal: Some(terminal), ..Start::default() };
    let mut build = Build::start(start);
    build.run(commands);
    (build, person, looked_at)
}

const INTERACTION: Interaction<'static> =
    Interaction { succeeding: false, user: None, before_last: false };

fn a_person_gets_a_shell_with_the_state() {
    for shell in ["dash", "bash"] {
        let (mut build, person, terminal) = build_with_terminal(shell, &["A='a b'; cd /usr"]);
        let before = rustix::termios::tcgetattr(&terminal).unwrap();
        let typed = type_at(
            person,
            &[
                ("(rbuild) /usr $ ", "echo \"<$A>\" $CODEBUILD_BUILD_SUCCEEDING; stty size; tty\r"),
                ("(rbuild) /usr $ ", "sh -c 'echo re\"\"ady; exec sleep 1000'\r"),
                ("ready\r\n", "\x03"),
                ("(rbuild) /usr $ ", "A=2; cd /; exit 3\r"),
            ],
        );
        let end = within(SHORT, || build.shell.interact(INTERACTION).unwrap());
        assert_eq!(end, End::Exited(3), "in {shell}");
        let after = rustix::termios::tcgetattr(&terminal).unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"), "the terminal is as it was");
        assert_eq!(build.run(&["echo $A; pwd"]), "a b\n/usr\n", "commands do not notice");
        build.finish();
        drop(terminal);
        let shown = typed.join().unwrap();
        assert!(shown.contains("<a b> 0\r\n33 99\r\n/dev/pts/"), "in {shell}: {shown}");
    }
}

fn a_person_gets_the_state_before_the_last_command() {
    let (mut build, person, terminal) =
        build_with_terminal("bash", &["A=1; cd /usr", "A=2; cd /; false"]);
    let typed = type_at(person, &[("(rbuild) /usr $ ", "echo \"<$A>\"; kill -9 $$\r")]);
    let line = Interaction { before_last: true, ..INTERACTION };
    assert_eq!(within(SHORT, || build.shell.interact(line).unwrap()), End::Killed(9));
    assert_eq!(build.run(&["echo $A; pwd"]), "2\n/\n");
    drop((build, terminal));
    assert!(typed.join().unwrap().contains("<1>\r\n"));
}

fn a_stop_ends_the_shell_of_a_person() {
    for shell in ["dash", "bash"] {
        let (person, terminal) = open_terminal();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let looked_at = terminal.input.try_clone().unwrap();
        let before = rustix::termios::tcgetattr(&looked_at).unwrap();
        let stop = Some(OwnedFd::from(reader));
        let terminal = Some(terminal);
        let mut build =
            Build::start(Start { shell: Some(shell), terminal, stop, ..Start::default() });
        let stopper = std::thread::spawn(move || {
            let mut person = fs::File::from(person);
            let mut shown = Vec::new();
            while !shown.ends_with(b"$ ") {
                let mut byte = [0];
                person.read_exact(&mut byte).unwrap();
                shown.push(byte[0]);
            }
            writer.write_all(&[15]).unwrap();
            person
        });
        let end = within(SHORT, || build.shell.interact(INTERACTION).unwrap());
        assert_eq!(end, End::Stopped(15), "in {shell}");
        let after = rustix::termios::tcgetattr(&looked_at).unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"), "in {shell}");
        stopper.join().unwrap();
    }
}

fn a_shell_for_a_person_needs_a_terminal() {
    let mut build = Build::new("dash");
    let err = build.shell.interact(INTERACTION).unwrap_err();
    assert_eq!(err.to_string(), "a shell for a person needs a terminal, and there is none");
}
