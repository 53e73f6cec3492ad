//! What a shell is given of what the one before it saved: most variables as every program gets
//! them, when it starts, which costs a shell a fraction of what it costs to read them as commands.
//! The rest are statements for it to read: what means something to a shell, or to what loads one,
//! that starts; and what has more to it than a text.
//!
//! **Architecture invariant:** pure, and nothing is lost: what is not understood is a statement, as
//! the shell wrote it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use crate::shell::state::{self, Statement};

/// What a shell is given.
#[derive(Debug)]
pub(super) struct Given {
    /// Its variables: `NAME=value` and a NUL, each.
    pub(super) variables: Vec<u8>,
    /// What it is to read.
    pub(super) statements: Vec<u8>,
    /// Whether each of these statements is one line.
    pub(super) are_lines: bool,
}

impl Given {
    /// Everything is in a file.
    pub(super) fn in_file(content: Vec<u8>) -> Self {
        Self { variables: Vec::new(), statements: content, are_lines: false }
    }
}

/// How many bytes of variables a shell is started with: far less than what all systems allow.
const MOST: usize = 48 * 1024;

/// Names that are for shells and dynamic linkers, or begin so: a shell that starts with them may
/// do something else than one that has them set later, or takes no notice of them.
const NAMES: [&str; 29] = [
    "_",
    "CDPATH",
    "DIRSTACK",
    "ENV",
    "ERRNO",
    "EUID",
    "FPATH",
    "FUNCNAME",
    "GLOBIGNORE",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "LINENO",
    "OLDPWD",
    "OPTARG",
    "OPTERR",
    "OPTIND",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "TMOUT",
    "UID",
    "ZDOTDIR",
];
const BEGINNINGS: [&str; 9] =
    ["BASH", "COMP_", "EPOCH", "GLIBC_", "KSH", "LD_", "MALLOC_", "PS", "ZSH"];

/// What bash does not let anyone set: a command may have exported it, and then bash saves it.
const READONLY: [&str; 6] = ["BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"];

/// What to give a shell for it to have what these texts say, of which the last one wins.
pub(super) fn given(texts: &[&[u8]]) -> Given {
    let mut variables: BTreeMap<OsString, OsString> = BTreeMap::new();
    let (mut statements, mut all) = (Vec::new(), Vec::new());
    let mut are_lines = true;
    for it in texts.iter().flat_map(|text| state::statements(text)) {
        if is_readonly(&it) {
            continue;
        }
        push_line(&mut all, it.text);
        match plain(&it) {
            Some((name, value)) => _ = variables.insert(name.to_owned(), value.to_owned()),
            None => {
                are_lines &= !it.text.contains(&b'\n');
                push_line(&mut statements, it.text);
            }
        }
    }
    let mut block = Vec::new();
    for (name, value) in &variables {
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            block.extend_from_slice(part);
        }
    }
    match block.len() <= MOST {
        true => Given { variables: block, statements, are_lines },
        false => Given::in_file(all),
    }
}

fn push_line(text: &mut Vec<u8>, line: &[u8]) {
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// The variable that a statement sets, if it does nothing else.
fn plain<'s>(statement: &'s Statement<'_>) -> Option<(&'s OsStr, &'s OsStr)> {
    let (name, value) = statement.sets.as_ref()?;
    let assignment = statement
        .text
        .strip_prefix(b"export ")
        .or_else(|| statement.text.strip_prefix(b"declare -x "))?;
    let rest = assignment.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    let is_special = name.to_str().is_none_or(|name| {
        NAMES.contains(&name) || BEGINNINGS.iter().any(|it| name.starts_with(it))
    });
    (!is_special && !rest.starts_with(b"$")).then_some((name, value))
}

/// Whether bash would refuse it. Other shells let everything be set; they quote in other ways than
/// bash, which begins like them where it is to do what POSIX says.
fn is_readonly(statement: &Statement<'_>) -> bool {
    let mut words = statement.text.split(|byte| *byte == b' ');
    let keyword = words.next().unwrap_or_default();
    let mut assignments = words.skip_while(|it| it.starts_with(b"-"));
    let mut parts = assignments.next().unwrap_or_default().splitn(2, |byte| *byte == b'=');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next());
    let is_of_bash = keyword == b"declare"
        || value.is_none_or(|it| it.starts_with(b"\"") || it.starts_with(b"("));
    is_of_bash && READONLY.iter().any(|it| it.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], variables: &str, statements: &str) {
        let texts: Vec<&[u8]> = texts.iter().map(|it| it.as_bytes()).collect();
        let given = given(&texts);
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "|");
        assert_eq!(
            (shown(&given.variables).as_str(), shown(&given.statements).as_str()),
            (variables, statements)
        );
    }

    #[test]
    fn texts_are_given_and_the_rest_is_read() {
        check(&["export B='it'\\''s'\nexport A=\n"], "A=|B=it's|", "");
        check(&["export A='1\n2'\nexport A='3'\n", "export B='4'"], "A=3|B=4|", "");
        check(&["declare -x A=\"\\$\\\"\"\n"], "A=$\"|", "");
        // Of something else than a text, and of a shell's own, and what shows nothing of its value.
        for other in [
            "declare -ix A=\"1\"\n",
            "declare -rx A=\"1\"\n",
            "declare -ax A=([0]=\"1\" [1]=\"2;3\")\n",
            "declare -x A=$'\\u00e9'\n",
            "declare -x A\n",
            "export PWD\n",
            "export IFS='\n'\n",
            "export BASH_ENV='/x'\n",
            "export LD_PRELOAD='x'\n",
            "export PS4='+'\n",
            "typeset -x A=1\n",
            "export A='not complete",
        ] {
            check(&[other], "", &format!("{}\n", other.trim_end_matches('\n')));
        }
    }

    #[test]
    fn what_bash_does_not_let_anyone_set_is_left_out() {
        check(&["declare -rx UID=\"0\"\ndeclare -arx BASH_VERSINFO=([0]=\"5\")\n"], "", "");
        check(&["declare -x EUID\nexport PPID=\"1 2\"\nexport SHELLOPTS\n"], "", "");
        check(&["export BASH_VERSINFO=([0]=\"5\" [1]=\"2\")\nexport -r UID=\"0\"\n"], "", "");
        // That is another shell.
        check(&["export UID='0'\n"], "", "export UID='0'\n");
    }

    #[test]
    fn much_is_read() {
        let text = format!("export A='{}'\nexport B='2'\n", "x".repeat(MOST));
        check(&[&text], "", &text);
        check(&[&text, "export A='1'\n"], "A=1|B=2|", "");
    }
}
