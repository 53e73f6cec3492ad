//! The names of all that can be wrong with a buildspec file.
//!
//! **Architecture invariant:** names are stable: people switch rules off by them, and other
//! programs group by them.

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What is wrong, in one sentence.
    pub about: &'static str,
}

/// All rules that a [`Problem`](super::Problem) may be of.
pub const RULES: [Rule; 26] = [
    rule("yaml", "The file is not YAML."),
    rule("tab", "A tab is used where YAML allows only spaces."),
    rule("duplicate-key", "A mapping has a key twice."),
    rule("encoding", "The file is binary, or not UTF-8."),
    rule("empty-file", "The file has nothing in it."),
    rule("yaml-limit", "The YAML is nested too deep, or its aliases stand for too much."),
    rule("wrong-type", "A value is a list, a mapping, or text where it must be another of these."),
    rule("missing-key", "A key that must be there is missing."),
    rule("empty-key", "A key that needs a value has none."),
    rule("unknown-version", "The version of the language is neither 0.1 nor 0.2."),
    rule("batch-only", "The file describes a batch, and no build of its own."),
    rule("unknown-phase", "A phase is none of install, pre_build, build, and post_build."),
    rule("command-not-text", "A command is a list or a mapping, often due to a colon in it."),
    rule("bad-boolean", "A value is not yes or no."),
    rule("bad-value", "A value is not one of those that its key may have."),
    rule("unknown-shell", "The shell for the commands is not supported."),
    rule("reserved-variable", "A variable begins with CODEBUILD_, which only the build may set."),
    rule("bad-variable-name", "A name cannot be that of a variable."),
    rule("nul-character", "A text holds a NUL character, which no shell can take."),
    rule("bad-reference", "A reference to a parameter or a secret names none."),
    rule("bad-on-failure", "What to do if a phase fails cannot be understood."),
    rule("too-many", "There is more of something than CodeBuild takes."),
    rule("bad-identifier", "An identifier has other characters than letters, digits, and _."),
    rule("duplicate-identifier", "Two builds of a batch have the same identifier."),
    rule("unknown-dependency", "A build of a batch waits for one that does not exist."),
    rule("dependency-cycle", "Builds of a batch wait for one another."),
];

const fn rule(name: &'static str, about: &'static str) -> Rule {
    Rule { name, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_words_with_hyphens_and_each_is_there_once() {
        for (index, Rule { name, about }) in RULES.iter().enumerate() {
            assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'-'), "{name}");
            assert!(about.ends_with('.'), "{name}");
            assert!(RULES[..index].iter().all(|it| it.name != *name), "{name} is there twice");
        }
    }
}
