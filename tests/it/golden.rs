//! The whole log of builds of the shapes that teams have, compared with logs written by hand
//! (`golden/README.md`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use rbuild_tests::{sandbox::scrub, store};
use regex::Regex;

use crate::{root, sandbox};

/// What is in a case's folder beside the source.
const EXPECTED: [&str; 4] = ["log", "status", "artifacts", "arguments"];

#[test]
fn the_whole_log_of_a_build_is_the_one_that_codebuild_writes() {
    let cases = cases();
    assert!(9 <= cases.len(), "too few cases: {cases:?}");
    let wrong: Vec<_> = cases.iter().filter_map(|case| difference(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/it/golden")).expect("golden cases");
    let mut cases: Vec<_> = entries.map(|it| it.expect("entry").path()).collect();
    cases.retain(|it| it.is_dir());
    cases.sort();
    cases
}

/// What is wrong with a case, if anything.
fn difference(case: &Path) -> Option<String> {
    let sandbox = sandbox(&[]);
    let status = Command::new("cp").arg("-a").arg(case.join(".")).arg(sandbox.src()).status();
    assert!(status.expect("cp").success(), "{} is not copied", case.display());
    for path in EXPECTED.map(|it| sandbox.src().join(it)).iter().filter(|it| it.exists()) {
        remove(path);
    }
    let artifacts = sandbox.path().join("artifacts");
    let read = |name| fs::read_to_string(case.join(name)).unwrap_or_default();
    let arguments = read("arguments");
    let words = ["run", "--log", "codebuild"].into_iter().chain(arguments.lines());
    let words = words.chain(["-a"]).map(PathBuf::from).chain([artifacts.clone()]);
    let run = sandbox.rbuild(words).env("LC_ALL", "C").go();
    let text = mask(&scrub(&run.stdout, sandbox.path()));

    let got = format!("status {}\n{text}", run.status.code().unwrap_or(-1));
    let want = format!("status {}\n{}", read("status").trim(), read("log"));
    let wrong = diff(&want, &got).or_else(|| diff(&read("artifacts"), &listing(&artifacts)))?;
    Some(format!("{}:\n{wrong}--- stderr\n{}", case.display(), run.stderr))
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.unwrap_or_else(|err| panic!("{}: {err}", path.display()));
}

/// `text` without the name of the folder in which the files of a command lie.
fn mask(text: &str) -> String {
    static SCRIPT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[^\s:]+/script\.sh").expect("a pattern that compiles"));
    SCRIPT.replace_all(text, "<TMP>/script.sh").into_owned()
}

/// The paths below a folder, one a line.
fn listing(folder: &Path) -> String {
    let paths = store::files(folder);
    let paths = paths.iter().map(|it| it.strip_prefix(folder).expect("a path below"));
    let lines: BTreeSet<_> = paths.map(|it| format!("{}\n", it.display())).collect();
    lines.into_iter().collect()
}

/// The first line in which two texts differ, with the lines around it.
fn diff(want: &str, got: &str) -> Option<String> {
    if want == got {
        return None;
    }
    let (want, got): (Vec<_>, Vec<_>) =
        (want.split_inclusive('\n').collect(), got.split_inclusive('\n').collect());
    let same = want.iter().zip(&got).take_while(|(want, got)| want == got).count();
    let line = |sign: char, text: &&str| format!("{sign}{text:?}");
    let before = want[same.saturating_sub(3)..same].iter().map(|it| line(' ', it));
    let wanted = want.iter().skip(same).take(6).map(|it| line('-', it));
    let found = got.iter().skip(same).take(6).map(|it| line('+', it));
    let lines: Vec<_> = before.chain(wanted).chain(found).collect();
    Some(format!("line {same}\n{}\n", lines.join("\n")))
}
