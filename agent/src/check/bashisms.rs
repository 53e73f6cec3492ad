//! What bash has and POSIX's `sh` has not, in commands that `sh` runs.
//!
//! `sh` is dash on Ubuntu's images, and bash on those of Amazon Linux: the same file works on one
//! and fails on the other.

use std::collections::HashSet;

use crate::{
    buildspec::ShellName,
    check::{
        File, Finding, Script,
        script::{self, Mark, Simple, Split},
    },
};

const RULE: &str = "bash-in-sh";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let is_sh = matches!(file.outline.shell_name(), ShellName::Sh | ShellName::BinSh);
    match is_sh && file.outline.is_posix() {
        true => file.scripts.iter().flat_map(of).collect(),
        false => Vec::new(),
    }
}

/// What is wrong in one command: each kind once.
fn of(script: &Script) -> Vec<Finding> {
    let split = script::split(&script.text);
    let mut seen = HashSet::new();
    let found = uses(&split).into_iter().filter(|(what, ..)| seen.insert(*what));
    found
        .map(|(what, start, end)| {
            let message = format!("{what} is of bash, and this command runs in `sh`");
            Finding::new(RULE, script.start, message)
                .hint(
                    "write `shell: bash` below `env:`; without it, this fails where `sh` is dash, \
                     as on Ubuntu",
                )
                .within(script, start, end)
        })
        .collect()
}

/// What is used, from which byte to which.
fn uses(split: &Split<'_>) -> Vec<(&'static str, usize, usize)> {
    let mut found: Vec<_> = split.simple.iter().filter_map(word).collect();
    found.extend(split.marks.iter().map(|(mark, start)| {
        let (what, length) = match mark {
            Mark::Array => ("an array", 1),
            Mark::ProcessSubstitution => ("`<(…)`", 2),
            Mark::Substring => ("`${x:1:2}`", 2),
            Mark::Expansion => ("`${x/a/b}`, `${x^}`, or `${!x}`", 2),
            Mark::HereString => ("`<<<`", 3),
            Mark::RedirectBoth => ("`&>`", 2),
        };
        (what, *start, start + length)
    }));
    found
}

fn word(simple: &Simple<'_>) -> Option<(&'static str, usize, usize)> {
    let program = simple.program();
    let first = program.first()?;
    match first.raw {
        "[[" => Some(("`[[`", first.start, first.end())),
        "source" => Some(("`source`", first.start, first.end())),
        "function" => Some(("`function`", first.start, first.end())),
        "[" | "test" => {
            let equal = program.iter().find(|it| it.raw == "==")?;
            Some(("`==` in `[`", equal.start, equal.end()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::{check, found};

    fn file(shell: &str, command: &str) -> String {
        let command = command.replace('\n', "\n        ");
        format!(
            "version: 0.2\nenv: {{shell: {shell}}}\nphases:\n  build:\n    commands:\n      - |\n        {command}\n"
        )
    }

    #[test]
    fn what_sh_has_not_is_found_where_it_is() {
        check(
            "bash-in-sh",
            &file("sh", "ls\nif [[ $A == b ]]; then source x; fi\n[[ c ]]\n  [ \"$a\" == b ]"),
            expect![[r"
                8:12-14 warning `[[` is of bash, and this command runs in `sh` (write `shell: bash` below `env:`; without it, this fails where `sh` is dash, as on Ubuntu)
                8:32-38 warning `source` is of bash, and this command runs in `sh` (write `shell: bash` below `env:`; without it, this fails where `sh` is dash, as on Ubuntu)
                10:18-20 warning `==` in `[` is of bash, and this command runs in `sh` (write `shell: bash` below `env:`; without it, this fails where `sh` is dash, as on Ubuntu)
            "]],
        );
        for command in [
            "x=(a b)",
            "echo ${x[@]}",
            "diff <(a) b",
            "TAG=${COMMIT::7}",
            "TAG=\"${COMMIT:0:7}\"",
            "function f { a; }",
            "X=$(if [[ a ]]; then b; fi)",
            "a <<< b",
            "a &> b",
            "test a == b",
        ] {
            assert_eq!(found("bash-in-sh", &file("sh", command)).len(), 1, "for {command}");
            assert_eq!(found("bash-in-sh", &file("/bin/sh", command)).len(), 1, "for {command}");
            assert_eq!(found("bash-in-sh", &file("bash", command)), [], "for {command}");
        }
    }

    #[test]
    fn what_sh_has_is_not() {
        for command in [
            ". ./x",
            "[ a = b ]",
            "echo '[[' \"source\" [[",
            "bash -c '[[ a == b ]]'",
            "bash <<'E'\n[[ a ]]\nsource x\nE",
            "# [[ a ]]",
            "TAG=${COMMIT:-latest}",
            "f() { a; }",
            "echo a == b",
            "pip install x[y]",
            "a >b 2>&1 &",
        ] {
            assert_eq!(found("bash-in-sh", &file("sh", command)), [], "for {command}");
        }
    }
}
