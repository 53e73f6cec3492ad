//! What the program `shellcheck` says of the commands of a file.
//!
//! It sees each command as a script of its own, in a private folder: so a command that it cannot
//! read does not hide the others, and what it says has its place in the file.
//!
//! **Architecture invariant:** what it answers is not trusted, and it does not run for long. It
//! reads no settings that came with the source.

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rbuild_agent::{
    buildspec::ShellName,
    check::{Finding, Script, rule::Level},
    source::Place,
};
use serde::Deserialize;

use crate::host;

/// What makes no sense for commands that share their variables, or is a rule of our own.
const EXCLUDED: &[(u32, &str)] = &[
    (1009, "only says that another finding follows"),
    (1090, "a file that another command makes"),
    (1091, "a file that is not looked for"),
    (2034, "a variable that another command uses"),
    (2112, "bash-in-sh"),
    (2113, "bash-in-sh"),
    (2148, "the shell is that of the buildspec"),
    (2153, "a variable that another command sets"),
    (2154, "a variable that another command sets"),
    (3001, "bash-in-sh"),
    (3010, "bash-in-sh"),
    (3011, "bash-in-sh"),
    (3014, "bash-in-sh"),
    (3020, "bash-in-sh"),
    (3030, "bash-in-sh"),
    (3046, "bash-in-sh"),
    (3051, "bash-in-sh"),
    (3053, "bash-in-sh"),
    (3054, "bash-in-sh"),
    (3057, "bash-in-sh"),
    (3059, "bash-in-sh"),
    (3060, "bash-in-sh"),
];

/// What is only right where more lines follow: the end of a command is noticed.
const IN_BLOCKS: &[u32] = &[2103, 2164];

/// What is usual, and does no harm most of the time.
const USUAL: &[u32] = &[2046, 2155];

/// How long it may take for one file.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that it may answer, in bytes.
const LARGEST_ANSWER: u64 = 50_000_000;
/// The most commands of one file that it is asked about.
const MOST: usize = 1000;
/// The most findings of one file that are taken.
const MOST_FINDINGS: usize = 2_000;

/// Why it said nothing.
#[derive(Debug)]
pub(super) enum Unlooked {
    /// It is not installed.
    Absent,
    /// It took too long.
    TooLong,
    /// It could not be asked, or its answer makes no sense.
    Broken(String),
    /// There are more commands than it is asked about.
    TooMany,
}

/// What it said.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    /// Why that is not all.
    pub(super) unlooked: Option<Unlooked>,
}

impl fmt::Display for Unlooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => {
                f.write_str("shellcheck is not installed: it could say more of commands")
            }
            Self::TooLong => {
                write!(f, "shellcheck took more than {} s, and was ended", PATIENCE.as_secs())
            }
            Self::Broken(why) => write!(f, "shellcheck could not be asked: {why}"),
            Self::TooMany => write!(f, "shellcheck looked at the first {MOST} commands only"),
        }
    }
}

/// Asks about all commands at once.
pub(super) fn look(scripts: &[Script]) -> Look {
    let is_command = |it: &&Script| !it.text.is_empty();
    let asked: Vec<&Script> = scripts.iter().filter(is_command).take(MOST).collect();
    let has_more = scripts.iter().filter(is_command).nth(MOST).is_some();
    match found(&asked) {
        Ok(findings) => Look { findings, unlooked: has_more.then_some(Unlooked::TooMany) },
        Err(why) => Look { findings: Vec::new(), unlooked: Some(why) },
    }
}

fn found(scripts: &[&Script]) -> Result<Vec<Finding>, Unlooked> {
    let Some(first) = scripts.first() else { return Ok(Vec::new()) };
    let folder = Folder::create().map_err(|err| Unlooked::Broken(err.to_string()))?;
    for (index, script) in scripts.iter().enumerate() {
        let written = fs::write(folder.0.join(index.to_string()), &script.text);
        written.map_err(|err| Unlooked::Broken(err.to_string()))?;
    }
    let answer = ask(&folder.0, dialect(first.shell), scripts.len())?;
    findings(&answer, scripts)
}

fn dialect(shell: ShellName) -> &'static str {
    match shell {
        ShellName::Bash | ShellName::BinBash => "bash",
        ShellName::Sh | ShellName::BinSh | ShellName::Pwsh => "sh",
    }
}

/// Runs it in `folder`, on the files `0` to `count`.
fn ask(folder: &Path, dialect: &str, count: usize) -> Result<Vec<u8>, Unlooked> {
    let excluded: Vec<String> = EXCLUDED.iter().map(|(code, _)| format!("SC{code}")).collect();
    let mut command = Command::new("shellcheck");
    command
        .args(["--norc", "--format=json1", "--shell", dialect, "--exclude"])
        .arg(excluded.join(","))
        .args((0..count).map(|it| it.to_string()))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|err| match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Unlooked::Absent,
        _ => Unlooked::Broken(err.to_string()),
    })?;
    let answer = answer(&mut child);
    // It has ended, or is to end now; it holds nothing that has to be put in order.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

/// All that it prints, if it ends in time.
fn answer(child: &mut Child) -> Result<Vec<u8>, Unlooked> {
    let Some(stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(LARGEST_ANSWER).read_to_end(&mut bytes);
        // Nobody waits for it any more if it took too long.
        let _ = sender.send(read.map(|_| bytes));
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(read) => read.map_err(|err| Unlooked::Broken(err.to_string())),
        Err(_) => Err(Unlooked::TooLong),
    }
}

/// Its answer, as it is written.
#[derive(Deserialize)]
struct Answer {
    comments: Vec<Comment>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Comment {
    file: String,
    line: usize,
    end_line: usize,
    column: usize,
    end_column: usize,
    level: String,
    code: u32,
    message: String,
}

fn findings(answer: &[u8], scripts: &[&Script]) -> Result<Vec<Finding>, Unlooked> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|err| Unlooked::Broken(err.to_string()))?;
    let comments = answer.comments.iter().take(MOST_FINDINGS);
    Ok(comments.filter_map(|it| finding(it, scripts)).collect())
}

fn finding(comment: &Comment, scripts: &[&Script]) -> Option<Finding> {
    let script = scripts.get(comment.file.parse::<usize>().ok()?)?;
    let is_excluded = EXCLUDED.iter().any(|(code, _)| *code == comment.code);
    let is_line = !script.text.trim_end().contains(['\n', ';']);
    if is_excluded || is_line && IN_BLOCKS.contains(&comment.code) {
        return None;
    }
    let place = script.place(comment.line, comment.column);
    let last = script.place(comment.end_line, comment.end_column.saturating_sub(1));
    let has_end = (comment.line, comment.column) < (comment.end_line, comment.end_column);
    let end = Place { column: last.column + 1, ..last };
    Some(Finding {
        place: Some(place),
        end: Some(end).filter(|it| has_end && place < *it),
        rule: format!("SC{:04}", comment.code % 100_000).into(),
        level: match comment.level.as_str() {
            _ if USUAL.contains(&comment.code) => Some(Level::Note),
            "error" => Some(Level::Error),
            "warning" => Some(Level::Warning),
            "info" => Some(Level::Note),
            // Of its taste people hear if they ask.
            _ => None,
        },
        message: comment.message.clone(),
        hint: None,
        aws: None,
    })
}

/// A folder that nobody else can read, and that goes away.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let above = host::variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
        let process = std::process::id();
        for number in 0..1000 {
            let path = above.join(format!("rbuild-check-{process}-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(err),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the folder for what is temporary.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use rbuild_agent::check::check;

    use super::*;

    fn read(answer: &str) -> Result<Vec<Finding>, Unlooked> {
        let text =
            "version: 0.2\nphases:\n  build:\n    commands:\n      - |\n        a\n        b $c\n";
        let scripts = check(text.as_bytes()).scripts;
        findings(answer.as_bytes(), &scripts.iter().collect::<Vec<_>>())
    }

    fn comment(file: &str, code: u32, level: &str, line: usize) -> String {
        format!(
            r#"{{"file":"{file}","line":{line},"endLine":{line},"column":3,"endColumn":5,"level":"{level}","code":{code},"message":"m","fix":null}}"#
        )
    }

    #[test]
    fn what_it_says_gets_its_place_in_the_file() {
        let answer = format!(r#"{{"comments":[{}]}}"#, comment("0", 2086, "info", 2));
        let found = read(&answer).unwrap();
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        let place = |it: Option<Place>| it.unwrap().to_string();
        assert_eq!((place(finding.place), place(finding.end)), ("7:11".into(), "7:13".into()));
        assert_eq!((&*finding.rule, finding.level), ("SC2086", Some(Level::Note)));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for (comment, want) in [
            (comment("0", 2086, "error", 2), 1),
            (comment("0", 2086, "error", usize::MAX), 1),
            (comment("0", 2034, "warning", 1), 0),
            (comment("9", 2086, "error", 1), 0),
            (comment("../x", 2086, "error", 1), 0),
            (comment("0", u32::MAX, "?", 0), 1),
        ] {
            let found = read(&format!(r#"{{"comments":[{comment}]}}"#)).unwrap();
            assert_eq!(found.len(), want, "for {comment}");
        }
        for answer in ["", "{}", "[]", "shellcheck: no", r#"{"comments":[{}]}"#] {
            assert!(matches!(read(answer), Err(Unlooked::Broken(_))), "for {answer}");
        }
    }
}
