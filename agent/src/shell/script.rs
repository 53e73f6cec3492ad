//! The text that a shell gets to read.
//!
//! **Architecture invariant:** pure. The text of the user starts on line 4, as it does in
//! CodeBuild, so that the line numbers in what shells say are the same.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::{environment::Environment, shell::folder::PrivateFolder};

/// What a shell is to do.
pub(super) struct Script<'a> {
    /// Where.
    pub(super) directory: &'a Path,
    /// The text of the user.
    pub(super) text: &'a OsStr,
    /// Whether nothing failed so far.
    pub(super) succeeding: bool,
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

/// Keeps what bash does not let anyone set from the variables that are saved, should a command
/// have exported it. Other shells let everything be set; `command` is for those that would exit.
const FORGET_READONLY: &str = "[ -z \"${BASH_VERSION-}\" ] || command export -n \
                               BASHOPTS BASH_VERSINFO EUID PPID SHELLOPTS UID 2>/dev/null || :";

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
pub(super) fn script(folder: &PrivateFolder, script: &Script<'_>) -> Vec<u8> {
    let Script { directory, text, succeeding } = *script;
    let mut script = OsString::new();
    let variables = quote(folder.variables());
    for part in [
        OsStr::new("cd -- "),
        &quote(directory),
        OsStr::new(" || { echo 'the working directory is gone: an earlier command left off in a "),
        OsStr::new("folder that is not there now' >&2; exit 1; }\nset -a\n. "),
        &variables,
        OsStr::new(if succeeding {
            "; CODEBUILD_BUILD_SUCCEEDING=1\n"
        } else {
            "; CODEBUILD_BUILD_SUCCEEDING=0\n"
        }),
        text,
        OsStr::new("\n\n{ CODEBUILD_LAST_EXIT=$?\n"),
        OsStr::new(FORGET_READONLY),
        OsStr::new("\nexport -p >| "),
        &variables,
        OsStr::new(" && pwd >| "),
        &quote(folder.directory()),
        OsStr::new(" || exit 1\nexit $CODEBUILD_LAST_EXIT; }\n"),
        OsStr::new("echo 'the command is not complete: it ends in an operator' >&2; exit 2\n"),
    ] {
        script.push(part);
    }
    script.into_vec()
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

    use expect_test::expect;

    use super::*;
    use crate::environment::Facts;

    #[test]
    fn the_text_of_the_user_is_on_line_four() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::create(&[place.path()], Path::new("/bin/true")).unwrap();
        let text = OsStr::new("echo \"it's\"\nfalse");
        let it = Script { directory: Path::new("/a'b"), text, succeeding: false };
        let script = script(&folder, &it);
        let text = String::from_utf8(script).unwrap();
        expect![[r#"
            cd -- '/a'\''b' || { echo 'the working directory is gone: an earlier command left off in a folder that is not there now' >&2; exit 1; }
            set -a
            . 'FOLDER/env.sh'; CODEBUILD_BUILD_SUCCEEDING=0
            echo "it's"
            false

            { CODEBUILD_LAST_EXIT=$?
            [ -z "${BASH_VERSION-}" ] || command export -n BASHOPTS BASH_VERSINFO EUID PPID SHELLOPTS UID 2>/dev/null || :
            export -p >| 'FOLDER/env.sh' && pwd >| 'FOLDER/dir.txt' || exit 1
            exit $CODEBUILD_LAST_EXIT; }
            echo 'the command is not complete: it ends in an operator' >&2; exit 2
        "#]]
        .assert_eq(&text.replace(folder.path().to_str().unwrap(), "FOLDER"));
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
