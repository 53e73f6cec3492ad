//! What a person wants to hear of: switches for all files, and comments in one.
//!
//! A comment `# rbuild: allow RULE`, or `allow RULE, RULE`, is about its own line, or, on lines of
//! its own, about the next line that is no comment.

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use crate::{
    buildspec::nearest,
    check::{
        Finding,
        rule::{self, Level, SHELLCHECK},
    },
};

/// What a switch does to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Nothing is told.
    Allow,
    /// It is a warning.
    Warn,
    /// It is an error.
    Deny,
}

/// All switches; of two for the same rule the later one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches(Vec<(Subject, Setting)>);

/// What a switch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Rule(String),
    /// Whatever is a warning up to here.
    Warnings,
}

/// Why a switch is none.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// There is no such rule.
    #[error("there is no rule `{name}`{}", .suggestion.map(|it| format!(": did you mean `{it}`?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// A rule whose name looks much like it.
        suggestion: Option<&'static str>,
    },
}

impl Switches {
    /// Adds a switch. The name is that of a rule, or `warnings` for all that are at that level.
    pub fn set(&mut self, name: &str, setting: Setting) -> Result<(), SwitchError> {
        let subject = match name {
            "warnings" => Subject::Warnings,
            name if is_known(name) => Subject::Rule(name.to_owned()),
            name => {
                let names: Vec<&'static str> = rule::all().iter().map(|it| it.name).collect();
                let suggestion = nearest(name, &names);
                return Err(SwitchError::Unknown { name: name.to_owned(), suggestion });
            }
        };
        self.0.push((subject, setting));
        Ok(())
    }

    /// How bad a finding of `rule` is that is otherwise at `level`; none if nobody wants to hear
    /// of it.
    pub fn level(&self, rule: &str, level: Option<Level>) -> Option<Level> {
        self.0.iter().fold(level, |level, (subject, setting)| {
            let is_meant = match subject {
                Subject::Rule(name) => covers(name, rule),
                Subject::Warnings => level == Some(Level::Warning),
            };
            match setting {
                _ if !is_meant => level,
                Setting::Allow => None,
                Setting::Warn => Some(Level::Warning),
                Setting::Deny => Some(Level::Error),
            }
        })
    }
}

fn is_known(name: &str) -> bool {
    rule::named(name).is_some() || rule::is_of_shellcheck(name)
}

/// Whether what is said of the rule `name` is said of `rule`.
fn covers(name: &str, rule: &str) -> bool {
    name == rule || name == SHELLCHECK && rule::is_of_shellcheck(rule)
}

/// What the comments of a file allow: the names of rules by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Comments(HashMap<usize, HashSet<String>>);

impl Comments {
    pub(super) fn of(lines: &[&str]) -> Self {
        let mut found = HashMap::<usize, HashSet<String>>::new();
        let mut waiting = HashSet::new();
        for (index, line) in lines.iter().enumerate() {
            let mut names = names(line);
            if line.trim_start().starts_with('#') {
                waiting.extend(names);
                continue;
            }
            names.extend(waiting.drain());
            if !names.is_empty() {
                found.insert(index + 1, names);
            }
        }
        Self(found)
    }

    /// Whether a comment allows it.
    pub(super) fn allow(&self, finding: &Finding) -> bool {
        let names = finding.place.and_then(|it| self.0.get(&it.line));
        names.is_some_and(|names| names.iter().any(|name| covers(name, &finding.rule)))
    }
}

/// The rules that the comment of a line names.
fn names(line: &str) -> HashSet<String> {
    let Some((before, comment)) = line.split_once("# rbuild:") else { return HashSet::new() };
    let is_comment = before.is_empty() || before.ends_with([' ', '\t']);
    let Some(names) = comment.trim_start().strip_prefix("allow ").filter(|_| is_comment) else {
        return HashSet::new();
    };
    let names = names.split([',', ' ']).map(str::trim).filter(|it| !it.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn level(switches: &[(&str, Setting)], rule: &str, level: Option<Level>) -> Option<Level> {
        let mut all = Switches::default();
        for (name, setting) in switches {
            all.set(name, *setting).unwrap();
        }
        all.level(rule, level)
    }

    #[test]
    fn the_last_switch_counts() {
        use Setting::{Allow, Deny, Warn};
        const WARNING: Option<Level> = Some(Level::Warning);
        const ERROR: Option<Level> = Some(Level::Error);
        for (switches, rule, given, want) in [
            (&[][..], "unreachable", WARNING, WARNING),
            (&[("unreachable", Allow)], "unreachable", WARNING, None),
            (&[("unreachable", Allow)], "deprecated", WARNING, WARNING),
            (&[("unreachable", Deny)], "unreachable", WARNING, ERROR),
            (&[("unreachable", Allow), ("unreachable", Deny)], "unreachable", WARNING, ERROR),
            (&[("unreachable", Deny), ("unreachable", Warn)], "unreachable", WARNING, WARNING),
            (&[("warnings", Deny)], "unreachable", WARNING, ERROR),
            (
                &[("warnings", Deny)],
                "post-build-after-failure",
                Some(Level::Note),
                Some(Level::Note),
            ),
            (&[("warnings", Deny), ("unreachable", Warn)], "unreachable", WARNING, WARNING),
            (&[("unreachable", Warn), ("warnings", Deny)], "unreachable", WARNING, ERROR),
            (&[("warnings", Allow)], "unreachable", WARNING, None),
            (&[("multi-line-status", Warn)], "multi-line-status", None, WARNING),
            (&[("SC2086", Allow)], "SC2086", Some(Level::Note), None),
            (&[("SC2086", Allow)], "SC2046", WARNING, WARNING),
            (&[("shellcheck", Allow)], "SC2086", Some(Level::Note), None),
            (&[("shellcheck", Allow), ("SC2086", Deny)], "SC2086", Some(Level::Note), ERROR),
            (&[("unreadable-file", Allow)], "unreadable-file", ERROR, None),
        ] {
            assert_eq!(level(switches, rule, given), want, "for {switches:?}, {rule}");
        }
    }

    #[test]
    fn a_rule_that_does_not_exist_is_named() {
        let mut switches = Switches::default();
        for (name, want) in [
            ("unreachble", "there is no rule `unreachble`: did you mean `unreachable`?"),
            ("no", "there is no rule `no`"),
            ("SC1", "there is no rule `SC1`"),
        ] {
            assert_eq!(switches.set(name, Setting::Allow).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn comments_are_about_their_line_or_the_next() {
        let text = "a # rbuild: allow x, y\n# rbuild: allow z\n  # why\nb\nc\nd# rbuild: allow w\n\
                    # rbuild: deny v\ne";
        let Comments(found) = Comments::of(&text.lines().collect::<Vec<_>>());
        let names = |line: usize| {
            let mut names: Vec<&str> =
                found.get(&line).into_iter().flatten().map(String::as_str).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let all: Vec<String> = (1..=8).map(names).collect();
        assert_eq!(all, ["x y", "", "", "z", "", "", "", ""]);
    }
}
