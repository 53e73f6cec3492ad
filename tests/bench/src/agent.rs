//! What a build costs beside its commands.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    folder,
    measure::{self, Comparison, Goal, Sample, by_turns},
};

const COMMANDS: usize = 1000;

/// 1,000 trivial commands, beside as many shells that run one each.
pub(crate) fn commands(program: &Path, place: &Path) -> io::Result<Vec<Comparison>> {
    let mut found = Vec::new();
    for (what, shell) in
        [("1,000 x `true` in sh", "sh"), ("1,000 x `true` in bash (env.shell: bash)", "bash")]
    {
        let text = format!(
            "version: 0.2\nenv:\n  shell: {shell}\nphases:\n  build:\n    commands:\n{}",
            "      - 'true'\n".repeat(COMMANDS)
        );
        let source = folder(place, &format!("commands-{shell}"), &[("buildspec.yml", &text)])?;
        let (ours, theirs) = by_turns(
            9,
            || measure::run(rbuild(program, &source).stdout(Stdio::null())),
            || one_after_another(shell),
        )?;
        let peer = match shell {
            "sh" => "1,000 x `sh -c true`",
            _ => "1,000 x `bash -c true`",
        };
        found.push(Comparison { what, ours, peer, theirs, goal: Goal::Ratio(1.25) });
    }
    Ok(found)
}

fn one_after_another(shell: &str) -> io::Result<Sample> {
    let start = Instant::now();
    for _ in 0..COMMANDS {
        Command::new(shell).args(["-c", "true"]).stdin(Stdio::null()).status()?;
    }
    Ok(Sample { time: start.elapsed(), peak: 0 })
}

/// How often the lines below are written, and how many bytes that makes: 1 GiB.
const REPEATS: usize = 64;
const PIECE: usize = (1 << 30) / REPEATS;

/// 1 GiB of output with 20 secrets to mask, beside `cat`.
pub(crate) fn masking(program: &Path, place: &Path) -> io::Result<Vec<Comparison>> {
    let secrets: Vec<(String, String)> = (0..20)
        .map(|it| (format!("SECRET_{it}"), format!("s3cr3t-{it:02}-{:032x}", it * 7919 + 12_345)))
        .collect();
    let lines = lines(&secrets);
    let (mut variables, mut file) = (String::new(), String::new());
    for (name, value) in &secrets {
        // Writing to a string does not fail.
        let _ = writeln!(variables, "    {name}: /bench/{name}");
        let _ = writeln!(file, "/bench/{name}={value}");
    }
    let produce = format!("cat{}", " lines".repeat(REPEATS));
    let text = format!(
        "version: 0.2\nenv:\n  parameter-store:\n{variables}phases:\n  build:\n    commands:\n      - {produce}\n"
    );
    let files = [("buildspec.yml", text.as_str()), ("lines", &lines), ("secrets.env", &file)];
    let source = folder(place, "masking", &files)?;
    let (our_log, their_log) = (source.join("our.log"), source.join("their.log"));
    let (ours, theirs) = by_turns(
        3,
        || {
            let mut command = rbuild(program, &source);
            command.args(["--secrets", "secrets.env"]).stdout(File::create(&our_log)?);
            measure::run(&mut command)
        },
        || {
            let script = format!("{produce} | cat > their.log");
            measure::run(Command::new("sh").args(["-c", &script]).current_dir(&source))
        },
    )?;
    check_masked(&our_log, &secrets)?;
    let (size, plain) = (fs::metadata(&our_log)?.len(), fs::metadata(&their_log)?.len());
    if plain != (1 << 30) || size * 10 < plain * 9 {
        return Err(io::Error::other(format!("{size} and {plain} bytes were written")));
    }
    fs::remove_dir_all(&source)?;
    let what = "1 GiB of output, 20 secrets to mask";
    let goal = Goal::Ratio(2.0);
    Ok(vec![Comparison { what, ours, peer: "the same through `| cat > file`", theirs, goal }])
}

/// Lines as compilers write them; one in a thousand has a secret.
fn lines(secrets: &[(String, String)]) -> String {
    let mut text = String::with_capacity(PIECE + 200);
    let mut number = 0;
    while text.len() < PIECE {
        let _ = match number % 1000 {
            999 => writeln!(text, "token {} accepted", secrets[number / 1000 % 20].1),
            _ => writeln!(text, "   Compiling package-{number} v1.{}.0 (src/lib.rs)", number % 97),
        };
        number += 1;
    }
    text.truncate(PIECE - 1);
    text.push('\n');
    text
}

/// A benchmark of something that does not work means nothing.
fn check_masked(log: &Path, secrets: &[(String, String)]) -> io::Result<()> {
    let mut start = vec![0; 8 << 20];
    let count = File::open(log)?.read(&mut start)?;
    let text = String::from_utf8_lossy(&start[..count]);
    let shown = secrets.iter().find(|it| text.contains(&it.1));
    match shown {
        None if text.contains("token *** accepted") => Ok(()),
        _ => Err(io::Error::other("the log shows a secret, or masks nothing")),
    }
}

/// The time until the first command has written something.
pub(crate) fn start(program: &Path, place: &Path) -> io::Result<Vec<Comparison>> {
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - echo first\n";
    let source = folder(place, "start", &[("buildspec.yml", text)])?;
    let (ours, theirs) = by_turns(
        101,
        || until(&mut rbuild(program, &source), b"\nfirst\n"),
        || until(Command::new("sh").args(["-c", "echo; echo first"]), b"\nfirst\n"),
    )?;
    let what = "start to the output of the first command";
    let goal = Goal::Time(Duration::from_millis(10));
    Ok(vec![Comparison { what, ours, peer: "`sh -c 'echo first'`", theirs, goal }])
}

/// The time until a program has written `text`.
fn until(command: &mut Command, text: &[u8]) -> io::Result<Sample> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    let time = loop {
        let count = output.read(&mut chunk)?;
        seen.extend_from_slice(&chunk[..count]);
        if seen.windows(text.len()).any(|it| it == text) {
            break start.elapsed();
        }
        if count == 0 {
            return Err(io::Error::other("the first command wrote nothing"));
        }
    };
    io::copy(&mut output, &mut io::sink())?;
    let peak = measure::watch(&mut child)?;
    Ok(Sample { time, peak })
}

/// A run of the buildspec in `source`, with CodeBuild's log.
fn rbuild(program: &Path, source: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "--log", "codebuild"]).current_dir(source).stdin(Stdio::null());
    // What it says in the end is of no interest here.
    command.stderr(Stdio::null());
    command
}
