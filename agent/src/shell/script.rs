//! The text that a shell gets to read.
//!
//! **Architecture invariant:** pure. The text of the user starts on line 4, as it does in
//! CodeBuild, so that the line numbers in what shells say are the same.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::environment::Environment;

/// What a shell is to do.
pub(super) struct Script<'a> {
    /// Where.
    pub(super) directory: &'a Path,
    /// The text of the user.
    pub(super) text: &'a OsStr,
    /// Whether nothing failed so far.
    pub(super) succeeding: bool,
    /// Who runs it, if that is not who runs rbuild.
    pub(super) user: Option<&'a str>,
    /// What it is to read of the variables.
    pub(super) variables: Variables<'a>,
    /// Where its state is saved.
    pub(super) save: Save<'a>,
}

/// What a shell is to read of the variables.
#[derive(Clone, Copy)]
pub(super) enum Variables<'a> {
    /// These statements, a line each.
    Statements(&'a [u8]),
    /// What is in this file.
    File(&'a Path),
}

/// Where a state is saved, if at all.
#[derive(Clone, Copy, Default)]
pub(super) struct Save<'a> {
    /// The variables; in a POSIX shell, then a line that says which command saved them, and the
    /// working directory.
    pub(super) variables: Option<&'a Path>,
    /// The working directory, and a line feed, where that is in a file of its own.
    pub(super) directory: Option<&'a Path>,
    /// The number of the command.
    pub(super) number: u64,
}

/// Names that a shell keeps for itself: it sets them anew, or refuses to have them set.
const OWN_NAMES: [&str; 10] = [
    "_",
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "OLDPWD",
    "PPID",
    "PWD",
    "SHELLOPTS",
    "SHLVL",
    "UID",
];

/// The commands that set the variables of the first command.
pub(super) fn variables(environment: &Environment) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in environment.iter() {
        if is_identifier(name) && OWN_NAMES.iter().all(|it| name != *it) {
            text.extend_from_slice(b"export ");
            text.extend_from_slice(name.as_bytes());
            text.push(b'=');
            text.extend_from_slice(quote(value).as_bytes());
            text.push(b'\n');
        }
    }
    // `cd` has set it by then; a process finds it among its variables everywhere else, too.
    text.extend_from_slice(b"export PWD\n");
    text
}

/// Whether shells can have a variable of that name.
pub(super) fn is_identifier(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    bytes.first().is_some_and(is_letter)
        && bytes.iter().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// The script of one command.
///
/// What comes after the text of the user is one group, so that it does nothing wrong if that text
/// is not complete: after `false &&` or `x |` the group does not run in this shell, and its last
/// line is reached. The empty line is for a backslash at the very end.
///
/// Nothing helps where that text leaves a heredoc open: it takes the group for its content, so
/// the command ends with what the shell makes of that, and its changes are lost.
pub(super) fn script(script: &Script<'_>) -> Vec<u8> {
    let mut text = OsString::from("cd -- ");
    text.push(quote(script.directory));
    text.push(" || { echo ");
    text.push(quote(no_directory(script.user)));
    text.push(" >&2; exit 1; }\nset -a\n");
    match script.variables {
        Variables::Statements(statements) => {
            for statement in statements.split_inclusive(|byte| *byte == b'\n') {
                text.push(OsStr::from_bytes(statement.strip_suffix(b"\n").unwrap_or(statement)));
                text.push("; ");
            }
        }
        Variables::File(file) => {
            text.push(". ");
            text.push(quote(file));
            text.push("; ");
        }
    }
    text.push("CODEBUILD_BUILD_SUCCEEDING=");
    text.push(if script.succeeding { "1\n" } else { "0\n" });
    text.push(script.text);
    text.push("\n\n{ CODEBUILD_LAST_EXIT=$?\n");
    if let Save { variables: Some(variables), number, .. } = script.save {
        text.push("{ export -p && echo '");
        text.push(saved_by(number));
        text.push("' && pwd; } >| ");
        text.push(quote(variables));
        text.push(" || exit 1\n");
    }
    text.push("exit $CODEBUILD_LAST_EXIT; }\n");
    text.push("echo 'the command is not complete: it ends in an operator' >&2; exit 2\n");
    text.into_vec()
}

/// The line between the variables and the working directory that a command saved.
fn saved_by(number: u64) -> String {
    format!("# {number}")
}

/// The variables and the working directory in `saved`, if the command of this number saved that,
/// and all of it.
pub(super) fn saved(saved: &[u8], number: u64) -> Option<(&[u8], PathBuf)> {
    let line = format!("{}\n", saved_by(number)).into_bytes();
    // A value may look the same, but a value comes before.
    let at = saved.windows(line.len()).rposition(|it| it == line)?;
    let (variables, directory) = (&saved[..at], &saved[at + line.len()..]);
    let is_line = variables.last().is_none_or(|it| *it == b'\n');
    let directory = Path::new(OsStr::from_bytes(directory.strip_suffix(b"\n")?));
    (is_line && directory.is_absolute()).then(|| (variables, directory.to_owned()))
}

/// What is said if a command cannot start where it should.
pub(super) fn no_directory(user: Option<&str>) -> String {
    match user {
        None => "the working directory is gone: an earlier command left off in a folder that is \
                 not there now"
            .to_owned(),
        Some(user) => format!(
            "the user {user} cannot enter the working directory: it is gone, or it or a folder \
             above it is closed to that user; open it with chmod o+x, or move the source"
        ),
    }
}

/// A command that becomes a shell for a person, with all variables. (Those that are set here are
/// gone with it.) Its name tells which shell it is: bash would read files of the user's.
pub(super) fn interaction(shell: &Path) -> OsString {
    let is_bash = shell.file_name().is_some_and(|it| it == "bash");
    let mut text = OsString::from("set +a; export PS1='(rbuild) $PWD $ '; exec ");
    text.push(quote(shell));
    text.push(if is_bash { " --norc --noprofile -i" } else { " -i" });
    text
}

/// A command that writes each word, as the shell expands it between double quotes in `directory`,
/// and a NUL. It exits before its state is saved, which is that of the last command, so that only
/// the words are its result. The saved `PWD` is that of the last command, too, until `cd` sets it.
pub(super) fn expansion(words: &[String], directory: &Path, answer: &Path) -> OsString {
    let mut text = OsString::from("cd -- ");
    text.push(quote(directory));
    text.push(" && printf '%s\\0' \"");
    text.push(words.join("\" \""));
    text.push("\" >| ");
    text.push(quote(answer));
    text.push("; exit");
    text
}

/// `text` as one word that a shell leaves as it is.
fn quote(text: impl AsRef<OsStr>) -> OsString {
    let mut quoted = vec![b'\''];
    for byte in text.as_ref().as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::environment::Facts;

    #[track_caller]
    fn check(variables: Variables<'_>, save: Save<'_>, user: Option<&str>, want: Expect) {
        let it = Script {
            directory: Path::new("/a'b"),
            text: OsStr::new("echo \"it's\"\nfalse"),
            succeeding: false,
            user,
            variables,
            save,
        };
        want.assert_eq(&String::from_utf8(script(&it)).unwrap());
    }

    #[test]
    fn the_text_of_the_user_is_on_line_four() {
        check(
            Variables::Statements(b"export IFS='-'\nexport PWD\n"),
            Save { variables: Some(Path::new("/p/env.1.sh")), directory: None, number: 7 },
            None,
            expect![[r#"
                cd -- '/a'\''b' || { echo 'the working directory is gone: an earlier command left off in a folder that is not there now' >&2; exit 1; }
                set -a
                export IFS='-'; export PWD; CODEBUILD_BUILD_SUCCEEDING=0
                echo "it's"
                false

                { CODEBUILD_LAST_EXIT=$?
                { export -p && echo '# 7' && pwd; } >| '/p/env.1.sh' || exit 1
                exit $CODEBUILD_LAST_EXIT; }
                echo 'the command is not complete: it ends in an operator' >&2; exit 2
            "#]],
        );
        check(
            Variables::File(Path::new("/p/env.0.sh")),
            Save::default(),
            Some("ann"),
            expect![[r#"
                cd -- '/a'\''b' || { echo 'the user ann cannot enter the working directory: it is gone, or it or a folder above it is closed to that user; open it with chmod o+x, or move the source' >&2; exit 1; }
                set -a
                . '/p/env.0.sh'; CODEBUILD_BUILD_SUCCEEDING=0
                echo "it's"
                false

                { CODEBUILD_LAST_EXIT=$?
                exit $CODEBUILD_LAST_EXIT; }
                echo 'the command is not complete: it ends in an operator' >&2; exit 2
            "#]],
        );
    }

    #[test]
    fn what_was_saved_is_whole_and_of_the_last_command() {
        let check = |text: &str, want: Option<(&str, &str)>| {
            let saved = saved(text.as_bytes(), 7);
            let want = want.map(|(text, it)| (text.as_bytes(), PathBuf::from(it)));
            assert_eq!(saved, want, "{text:?}");
        };
        check("export A='1'\n# 7\n/a\nb\n", Some(("export A='1'\n", "/a\nb")));
        check("# 7\n/\n", Some(("", "/")));
        check("export A='\n# 7\n/x\n'\n# 7\n/\n", Some(("export A='\n# 7\n/x\n'\n", "/")));
        for text in
            ["", "export A='1'\n", "export A='1'\n# 6\n/\n", "# 7\n/a", "# 7\n\n", "x# 7\n/\n"]
        {
            check(text, None);
        }
    }

    #[test]
    fn a_person_gets_the_shell_of_the_build() {
        let text = |shell: &str| interaction(Path::new(shell)).into_string().unwrap();
        expect!["set +a; export PS1='(rbuild) $PWD $ '; exec '/bin/bash' --norc --noprofile -i"]
            .assert_eq(&text("/bin/bash"));
        expect!["set +a; export PS1='(rbuild) $PWD $ '; exec '/bin/sh' -i"]
            .assert_eq(&text("/bin/sh"));
    }

    #[test]
    fn quoted_words_survive_every_shell() {
        for word in ["", "a b", "it's", "''", "a\nb\n", "$X `id` \\ \" !", "*", "-n", "é"] {
            for shell in ["dash", "bash"] {
                let text = format!("printf %s {}", quote(word).to_str().unwrap());
                let output = Command::new(shell).args(["-c", &text]).output().unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "in {shell}");
            }
        }
    }

    #[test]
    fn only_what_shells_can_have_is_set() {
        let base =
            [("A", "it's"), ("a.b", "x"), ("PWD", "/x"), ("UID", "1"), ("_", "x"), ("1", "x")];
        let base: Vec<_> = base.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let facts = Facts { source: "/src".into(), ..Facts::default() };
        let environment = Environment::new(&base, &[], &facts, Path::new("/p")).unwrap();
        expect![[r#"
            export A='it'\''s'
            export CODEBUILD_BUILD_ARN='arn:aws:codebuild:us-east-1:000000000000:build/local:'
            export CODEBUILD_BUILD_ID='local:'
            export CODEBUILD_BUILD_NUMBER='0'
            export CODEBUILD_BUILD_SUCCEEDING='1'
            export CODEBUILD_CI='true'
            export CODEBUILD_INITIATOR=''
            export CODEBUILD_LOCAL_BUILD='true'
            export CODEBUILD_SRC_DIR='/src'
            export CODEBUILD_START_TIME='0'
            export PATH='/p:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
            export PWD
        "#]]
        .assert_eq(&String::from_utf8(variables(&environment)).unwrap());
    }
}
