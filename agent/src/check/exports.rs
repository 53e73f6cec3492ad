//! Exported variables that nothing in the file sets.
//!
//! Whatever looks like a value being given counts, wherever it stands: it is better to say nothing
//! than to be wrong. Where other files are read into the shell, nothing can be known.

use std::{collections::HashSet, sync::LazyLock};

use regex::Regex;

use crate::check::{File, Finding};

const RULE: &str = "exported-variable-never-set";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    let outline = file.outline;
    if outline.exported.is_empty() || !outline.is_posix() {
        return Vec::new();
    }
    let mut set: HashSet<&str> = outline.variables.iter().map(|it| it.name).collect();
    set.extend(&outline.fetched);
    for script in file.scripts {
        if READS_OTHERS.is_match(&script.text) {
            return Vec::new();
        }
        set.extend(names(&script.text));
    }
    let missing = outline.exported.iter().filter(|it| {
        let is_given = ["CODEBUILD_", "AWS_"].iter().any(|prefix| it.text.starts_with(prefix));
        !is_given && !set.contains(it.text)
    });
    missing
        .map(|it| {
            let message = format!("`{}` is exported, and nothing here sets it", it.text);
            Finding::new(RULE, it.place, message)
                .hint("set it in a command, unless the project does: `NAME=value`")
        })
        .collect()
}

/// `source x`, `. x`, and `eval x`.
static READS_OTHERS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?:^|[;&|(){}\n"'`]|\b(?:then|do|else))\s*(?:builtin\s+|command\s+)?(?:source|\.|eval)\s"#,
    )
});
/// `NAME=`, `NAME+=`, `NAME[0]=`, `${NAME:=x}`, and `((NAME++))`.
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]\n]*\])?(?:[-+*/%|&^]|:|<<|>>)?=|([A-Za-z_][A-Za-z0-9_]*)(?:\+\+|--)",
    )
});
/// What a builtin sets is among its words.
static BUILTIN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(?:export|declare|typeset|readonly|local|read|for|select|printf\s+-v|getopts|mapfile|readarray|let)\s+([^;&|\n]*)",
    )
});
static NAME: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z_][A-Za-z0-9_]*"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that compiles")
}

/// The names of all that seems to get a value.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let assigned = ASSIGNED.captures_iter(text).filter_map(|it| it.get(1).or_else(|| it.get(2)));
    let words = BUILTIN.captures_iter(text).filter_map(|it| it.get(1));
    let words = words.flat_map(|it| NAME.find_iter(it.as_str()).map(|it| it.as_str()));
    assigned.map(|it| it.as_str()).chain(words)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::check::tests::{check, found};

    fn file(command: &str) -> String {
        format!(
            "version: 0.2\nenv: {{exported-variables: [X]}}\n\
             phases:\n  build:\n    commands:\n      - |\n        {}\n",
            command.replace('\n', "\n        ")
        )
    }

    #[test]
    fn what_nothing_sets_is_found() {
        check(
            "exported-variable-never-set",
            &file("echo $X ${X:-1} 'X' --X"),
            expect![[r"
                2:28 warning `X` is exported, and nothing here sets it (set it in a command, unless the project does: `NAME=value`)
            "]],
        );
        for command in ["YX=1", "XY=1", "echo \"$X\"", "test $X == 1", "exports X", "./source.sh"] {
            assert_eq!(found("exported-variable-never-set", &file(command)).len(), 1, "{command}");
        }
    }

    #[test]
    fn what_may_be_set_is_not() {
        for command in [
            "X=1",
            "a && X=$(b)",
            "X+=1",
            "export X",
            "export Y=1 X=2",
            "declare -r X=1",
            "readonly X",
            "local X",
            "read -r Y X < file",
            "for X in a b; do :; done",
            "printf -v X %s 1",
            "while getopts ab X; do :; done",
            ": ${X:=1}",
            ": ${X=1}",
            "((X++))",
            "X[1]=2",
            "source file",
            ". ./file",
            "true; . ./file",
            "if true; then . ./file; fi",
            "eval \"$(cat file)\"",
            "mapfile X < y",
        ] {
            assert_eq!(found("exported-variable-never-set", &file(command)), [], "{command}");
        }
        for env in ["variables: {X: 1}", "parameter-store: {X: /x}", "secrets-manager: {X: x}"] {
            let text = format!(
                "version: 0.2\nenv:\n  exported-variables: [X, CODEBUILD_X, AWS_X]\n  {env}\nphases: {{}}\n"
            );
            assert_eq!(found("exported-variable-never-set", &text), [], "{env}");
        }
        let text = "version: 0.2\nenv: {shell: pwsh, exported-variables: [X]}\nphases: {}\n";
        assert_eq!(found("exported-variable-never-set", text), []);
    }
}
