//! Env files: lines of `NAME=VALUE`, as docker and the local agent of CodeBuild read them.
//!
//! Lines that are empty or begin with `#` mean nothing. Values are literal: quotes, `$`, and
//! spaces stay. A `NAME` alone takes the caller's value, and means nothing if there is none.
//!
//! **Architecture invariant:** [`parse`] is pure; what the caller has comes in as a function.

use std::path::Path;

use rbuild_agent::buildspec::{Value, Variable};

use crate::{
    console::excerpt::excerpt,
    failure::{Failure, Kind},
    input,
};

/// The most bytes of an env file; a process could not be given more.
const LARGEST: u64 = 2_000_000;

/// Reads an env file. `caller` has the values of rbuild's own variables.
pub(super) fn read(
    path: &Path,
    caller: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Variable>, Failure> {
    let shown = path.display().to_string();
    let bytes = input::read(path, LARGEST).map_err(|err| {
        Failure::new(Kind::Input, format!("the env file `{shown}` could not be read")).because(err)
    })?;
    parse(&bytes, caller).map_err(|problem| {
        let text = String::from_utf8_lossy(&bytes);
        let excerpt = excerpt(&shown, &text, problem.line, 1);
        let message = format!("the env file `{shown}` is wrong: {}", problem.what);
        Failure::new(Kind::Input, message).excerpt(excerpt).hint_if(problem.hint)
    })
}

/// What is wrong with an env file.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Counted from 1.
    line: usize,
    what: String,
    hint: Option<&'static str>,
}

fn parse(bytes: &[u8], caller: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Variable>, Problem> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|it| *it == b'\n').enumerate() {
        let problem = |what: String| Problem { line: index + 1, what, hint: None };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = str::from_utf8(line).map_err(|_| problem("a line is not UTF-8".into()))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), caller(line.trim_end())),
        };
        check(name, value.as_deref()).map_err(|(what, hint)| Problem { hint, ..problem(what) })?;
        variables.extend(value.map(|it| plain(name, it)));
    }
    Ok(variables)
}

fn check(name: &str, value: Option<&str>) -> Result<(), (String, Option<&'static str>)> {
    if name.is_empty() {
        return Err(("there is no name before `=`".to_owned(), Some("write NAME=VALUE")));
    }
    if name.starts_with("export ") {
        let hint = "it is no shell script: write NAME=VALUE alone";
        return Err((format!("`{name}` cannot be the name of a variable"), Some(hint)));
    }
    if name.contains(|it: char| it.is_whitespace() || it.is_control()) {
        let hint = "write NAME=VALUE, without spaces around the `=`";
        return Err((format!("`{name}` cannot be the name of a variable"), Some(hint)));
    }
    if name.starts_with("CODEBUILD_") {
        let what = format!("`{name}` begins with `CODEBUILD_`, which only the build may set");
        return Err((what, None));
    }
    match value.is_some_and(|it| it.contains('\0')) {
        true => Err((format!("the value of `{name}` holds a NUL character"), None)),
        false => Ok(()),
    }
}

/// A variable with a value that is no secret.
pub(super) fn plain(name: &str, value: String) -> Variable {
    Variable { name: name.to_owned(), value: Value::Plain(value), place: None }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &[u8], want: Expect) {
        let caller = |name: &str| (name == "MINE").then(|| "from outside".to_owned());
        let text = match parse(text, &caller) {
            Ok(variables) => variables
                .iter()
                .map(|it| match &it.value {
                    Value::Plain(value) => format!("{}={value:?}\n", it.name),
                    Value::Secret(_) => unreachable!("env files have no secrets"),
                })
                .collect(),
            Err(problem) => format!("{}: {}\n", problem.line, problem.what),
        };
        want.assert_eq(&text);
    }

    #[test]
    fn values_are_literal() {
        check(
            b"\xef\xbb\xbfA=1\n\n  # note\n\t \nQUOTED=\"a b\"\nB='x'\nEQ=a=b\nSPACE= x \n  IN=1\nEMPTY=\nDOLLAR=$A\nHASH=a # b\nLAST=z",
            expect![[r#"
                A="1"
                QUOTED="\"a b\""
                B="'x'"
                EQ="a=b"
                SPACE=" x "
                IN="1"
                EMPTY=""
                DOLLAR="$A"
                HASH="a # b"
                LAST="z"
            "#]],
        );
        check(
            b"CRLF=1\r\n\r\nX=2\r\n",
            expect![[r#"
                CRLF="1"
                X="2"
            "#]],
        );
    }

    #[test]
    fn a_name_alone_takes_the_callers_value() {
        check(
            b"MINE\nNOBODYS\nMINE  ",
            expect![[r#"
                MINE="from outside"
                MINE="from outside"
            "#]],
        );
    }

    #[test]
    fn problems_have_their_line() {
        check(
            b"A=1\n=2\n",
            expect![[r#"
            2: there is no name before `=`
        "#]],
        );
        check(
            b"\nexport A=1\n",
            expect![[r#"
            2: `export A` cannot be the name of a variable
        "#]],
        );
        check(
            b"A =1\n",
            expect![[r#"
            1: `A ` cannot be the name of a variable
        "#]],
        );
        check(
            b"# caf\xe9\n",
            expect![[r#"
            1: a line is not UTF-8
        "#]],
        );
        check(
            b"CODEBUILD_CI=1\n",
            expect![[r#"
            1: `CODEBUILD_CI` begins with `CODEBUILD_`, which only the build may set
        "#]],
        );
        check(
            b"A=\0\n",
            expect![[r#"
            1: the value of `A` holds a NUL character
        "#]],
        );
        check(
            b"\x1b[2J\n",
            expect![[r#"
                1: `[2J` cannot be the name of a variable
            "#]],
        );
    }
}
