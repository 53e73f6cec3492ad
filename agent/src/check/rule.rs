//! All that is looked for.
//!
//! **Architecture invariant:** the names are for people's files and scripts: none is ever renamed.

use std::{fmt, sync::LazyLock};

use crate::buildspec;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The build cannot do what is written.
    Error,
    /// It is most likely not what was meant.
    Warning,
    /// It is worth knowing.
    Note,
}

/// Something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called.
    pub name: &'static str,
    /// How bad it is; what has none is not told of unless someone asks for it.
    pub level: Option<Level>,
    /// What it finds, in a sentence.
    pub about: &'static str,
}

/// What the program `shellcheck` finds; each of its findings has a name of its own, too.
pub const SHELLCHECK: &str = "shellcheck";
/// A file that cannot be read.
pub const UNREADABLE: &str = "unreadable-file";

/// The rules that look at more than the parser does.
const RULES: &[Rule] = &[
    rule(
        "bash-in-sh",
        Some(Level::Warning),
        "A command uses what bash has and `sh` does not, and `env.shell` does not ask for bash.",
    ),
    rule(
        "deprecated",
        Some(Level::Warning),
        "Something is written in a way that was given up: it does nothing, or is about to fail.",
    ),
    rule(
        "exported-variable-never-set",
        Some(Level::Warning),
        "A variable is exported, and nothing in the file gives it a value.",
    ),
    rule(
        "glob-without-match",
        Some(Level::Warning),
        "A pattern of the artifacts can match no file, whatever files there are.",
    ),
    rule(
        "ignored-key",
        Some(Level::Note),
        "A key means something to CodeBuild, and nothing to rbuild yet.",
    ),
    rule(
        "multi-line-status",
        None,
        "A command of many lines goes on after one of them fails, and its last line counts.",
    ),
    rule(
        "path-expansion",
        Some(Level::Warning),
        "A value in `env.variables` refers to a variable: values are taken as they are written.",
    ),
    rule(
        "post-build-after-failure",
        Some(Level::Note),
        "The phase `post_build` publishes something, and runs after a failed build too.",
    ),
    rule(
        "secret-in-variables",
        Some(Level::Warning),
        "A value in `env.variables` looks like a secret: whoever can read the file can read it.",
    ),
    rule(
        SHELLCHECK,
        Some(Level::Warning),
        "The program `shellcheck` has something to say of a command; `SC2086` and the like name \
         one of its rules, at the level that it has there.",
    ),
    rule("unknown-key", Some(Level::Warning), "A key means nothing: CodeBuild goes on without it."),
    rule("unreachable", Some(Level::Warning), "A command or a phase can never run."),
    rule(UNREADABLE, Some(Level::Error), "A file that was named cannot be read."),
    rule(
        "yaml-accident",
        Some(Level::Warning),
        "YAML makes something else of a line than its writer meant.",
    ),
];

const fn rule(name: &'static str, level: Option<Level>, about: &'static str) -> Rule {
    Rule { name, level, about }
}

/// All rules, by name.
pub fn all() -> &'static [Rule] {
    static ALL: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut all: Vec<Rule> = RULES.iter().copied().chain(of_parser()).collect();
        all.sort_by_key(|it| it.name);
        all
    });
    &ALL
}

/// What the parser refuses: no build runs then.
pub(super) fn of_parser() -> impl Iterator<Item = Rule> {
    buildspec::RULES.iter().map(|it| rule(it.name, Some(Level::Error), it.about))
}

/// The rule of that name.
pub fn named(name: &str) -> Option<&'static Rule> {
    all().iter().find(|it| it.name == name)
}

/// Whether `name` is one of shellcheck's own, such as `SC2086`.
pub fn is_of_shellcheck(name: &str) -> bool {
    name.strip_prefix("SC")
        .is_some_and(|it| (4..=5).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_digit()))
}

impl Level {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_in_order_with_plain_names_and_one_sentence_each() {
        assert!(RULES.is_sorted_by_key(|it| it.name));
        assert!(all().windows(2).all(|it| it[0].name < it[1].name), "a name is there twice");
        for rule in all() {
            let is_plain = |it: char| it.is_ascii_lowercase() || it == '-';
            assert!(rule.name.chars().all(is_plain), "{}", rule.name);
            assert!(rule.about.ends_with('.') && !rule.about.contains(". "), "{}", rule.about);
            assert_eq!(named(rule.name), Some(rule));
        }
    }

    #[test]
    fn names_of_shellcheck_are_known() {
        for (name, want) in
            [("SC2086", true), ("SC1", false), ("sc2086", false), ("SC20x6", false), ("SC", false)]
        {
            assert_eq!(is_of_shellcheck(name), want, "for {name}");
        }
    }
}
