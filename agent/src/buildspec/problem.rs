//! What can be wrong with a buildspec file, and what a person is told of it.

use std::{borrow::Cow, fmt};

use thiserror::Error;

use super::{ShellName, on_failure::OnFailureError, reference::ReferenceError};
use crate::{phase::Phase, source::Place, yaml::YamlError};

/// One thing that is wrong with a buildspec file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, if it is in one place.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What CodeBuild says of it, if that is known: the message of its `YAML_FILE_ERROR`.
    pub aws: Option<String>,
    /// The name of its rule: one of [`RULES`](super::RULES).
    pub rule: &'static str,
}

/// What is wrong, with all that a person needs to know.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Yaml(YamlError),
    #[error("the file holds {found}, not a mapping of keys")]
    Root { found: &'static str },
    #[error("`{}` is missing", short(key))]
    Missing { key: String },
    #[error("`{}` is empty", short(key))]
    Empty { key: String },
    #[error("buildspec version `{}` is not supported", short(version))]
    Version { version: String },
    #[error("the file has `batch`, and no `phases` that could be run here")]
    BatchOnly,
    #[error("the phase `{}` is unknown", short(name))]
    Phase { name: String, suggestion: Option<&'static str> },
    #[error("`{}` is {found}, not {wanted}", short(key))]
    Kind { key: String, found: &'static str, wanted: &'static str },
    #[error("command {number} of `{key}` is {found}, not text")]
    Command { key: String, number: usize, found: &'static str, line: usize },
    #[error("`{}` is `{}`, not yes or no", short(key), short(value))]
    Bool { key: String, value: String },
    #[error("`{}` cannot be `{}`", short(key), short(value))]
    Value { key: String, value: String, wanted: String },
    #[error("the shell `{}` is not supported", short(name))]
    Shell { name: String },
    #[error(
        "the variable `{}` begins with `CODEBUILD_`, which only the build may set",
        short(name)
    )]
    Reserved { name: String },
    #[error("`{}` cannot be the name of a variable", short(name))]
    VariableName { name: String },
    #[error("`{}` holds a NUL character, which no shell can take", short(key))]
    Nul { key: String },
    #[error("`{}` names no parameter", short(key))]
    Parameter { key: String },
    #[error("`{}` is no reference to a secret: {source}", short(key))]
    Reference { key: String, source: ReferenceError },
    #[error("`{key}` is `{}`: {source}", short(value))]
    OnFailure { key: String, value: String, source: OnFailureError },
    #[error("`{}` has more than {most} entries", short(key))]
    TooMany { key: String, most: usize },
    #[error("`{}` cannot be an identifier", short(name))]
    Identifier { name: String },
    #[error("the identifier `{}` is there twice", short(name))]
    Duplicate { name: String },
    #[error("`{}` waits for `{}`, which does not exist", short(waiting), short(name))]
    Dependency { waiting: String, name: String },
    #[error("{}", circle(names))]
    Cycle { names: Vec<String> },
}

/// How much of a text of the file is repeated.
const LONGEST: usize = 100;

/// How many names are listed.
const MOST_NAMES: usize = 8;

/// The beginning of a text that may be of any length.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Says of each of these builds that it waits for the next, and of the last that it waits for the
/// first.
fn circle(names: &[String]) -> String {
    if let [name] = names {
        return format!("the build `{}` waits for itself", short(name));
    }
    let shown: Vec<String> =
        names.iter().take(MOST_NAMES).map(|it| format!("`{}`", short(it))).collect();
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    format!("the builds {}{more} wait for one another", shown.join(", "))
}

/// The rule of values of a type that their keys cannot have.
pub(super) const WRONG_TYPE: &str = "wrong-type";

const COLON: &str = "a colon followed by a space makes a mapping: put quotes around the whole text";

impl Fault {
    pub(super) fn at(self, place: Place) -> Problem {
        self.problem(Some(place))
    }

    pub(super) fn problem(self, place: Option<Place>) -> Problem {
        Problem {
            place,
            message: self.to_string(),
            hint: self.hint(),
            aws: self.aws(place),
            rule: self.rule(),
        }
    }

    fn rule(&self) -> &'static str {
        match self {
            Self::Yaml(err) => yaml_rule(err),
            Self::Root { .. } | Self::Kind { .. } => WRONG_TYPE,
            Self::Missing { .. } => "missing-key",
            Self::Empty { .. } => "empty-key",
            Self::Version { .. } => "unknown-version",
            Self::BatchOnly => "batch-only",
            Self::Phase { .. } => "unknown-phase",
            Self::Command { .. } => "command-not-text",
            Self::Bool { .. } => "bad-boolean",
            Self::Value { .. } => "bad-value",
            Self::Shell { .. } => "unknown-shell",
            Self::Reserved { .. } => "reserved-variable",
            Self::VariableName { .. } => "bad-variable-name",
            Self::Nul { .. } => "nul-character",
            Self::Parameter { .. } | Self::Reference { .. } => "bad-reference",
            Self::OnFailure { .. } => "bad-on-failure",
            Self::TooMany { .. } => "too-many",
            Self::Identifier { .. } => "bad-identifier",
            Self::Duplicate { .. } => "duplicate-identifier",
            Self::Dependency { .. } => "unknown-dependency",
            Self::Cycle { .. } => "dependency-cycle",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Yaml(err) => yaml_hint(err)?,
            Self::Version { .. } => "write `version: 0.2`",
            Self::Empty { key } if key == "phases" => "indent what belongs to it by two spaces",
            Self::Missing { key } | Self::Empty { key } => missing_hint(key)?,
            Self::BatchOnly => "add `phases`, or run the buildspec of one of its builds",
            Self::Phase { suggestion: Some(name), .. } => {
                return Some(format!("did you mean `{name}`?"));
            }
            Self::Phase { suggestion: None, .. } => {
                return Some(names("the phases are", &Phase::ALL.map(Phase::name)));
            }
            Self::Shell { name } if name == "cmd.exe" => {
                "there is no such shell on Linux: write the commands for `bash`, or for `pwsh`"
            }
            Self::Shell { .. } => return Some(names("the shells are", &ShellName::NAMES)),
            Self::Value { wanted, .. } => return Some(wanted.clone()),
            Self::Command { found: "a mapping", .. }
            | Self::Kind { wanted: "text", found: "a mapping", .. } => COLON,
            Self::Kind { wanted: "a mapping", key, .. } if Phase::named(key).is_some() => {
                "write `commands:` above the commands"
            }
            Self::Kind { wanted: "a mapping", found: "a list", .. } => "write its keys without `-`",
            Self::Reference { .. } => "write `secret-id:json-key:version-stage:version-id`",
            Self::OnFailure { source: OnFailureError::Pattern(err), .. } => {
                return Some(pattern_hint(err));
            }
            Self::OnFailure { .. } => {
                "write ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex, or RETRY-count-regex"
            }
            Self::Identifier { .. } => "write letters, digits, and `_`",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn aws(&self, place: Option<Place>) -> Option<String> {
        match self {
            Self::Yaml(err) => yaml_aws(err, place.map_or(0, |it| it.line)),
            // CodeBuild counts from 0 here, and always names the line before, too.
            Self::Command { number, found: "a mapping", line, .. } => Some(format!(
                "Expected Commands[{}] to be of string type: found subkeys instead at line \
                 {line}, value of the key tag on line {} might be empty",
                number - 1,
                line - 1
            )),
            Self::Phase { name, .. } => Some(format!(
                "Invalid buildspec phase name: {}. Expecting: BUILD,INSTALL,POST_BUILD,PRE_BUILD",
                short(name).to_uppercase()
            )),
            _ => None,
        }
    }
}

fn names(before: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|it| format!("`{it}`")).collect();
    format!("{before} {}", names.join(", "))
}

fn missing_hint(key: &str) -> Option<&'static str> {
    match key {
        "version" => Some("write `version: 0.2`"),
        "phases" => Some("a buildspec needs `phases`, with `commands` in them"),
        _ => None,
    }
}

/// The last line of what the `regex` crate says; those before it draw the pattern.
fn pattern_hint(err: &regex::Error) -> String {
    let text = err.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn yaml_rule(err: &YamlError) -> &'static str {
    match err {
        YamlError::Binary { .. } | YamlError::Utf16 | YamlError::NotUtf8 { .. } => "encoding",
        YamlError::Empty => "empty-file",
        YamlError::Tab { .. } => "tab",
        YamlError::Duplicate { .. } => "duplicate-key",
        YamlError::TooDeep { .. } | YamlError::AliasBomb { .. } => "yaml-limit",
        YamlError::Syntax { .. }
        | YamlError::Documents { .. }
        | YamlError::KeyNotText { .. }
        | YamlError::Merge { .. } => "yaml",
    }
}

fn yaml_hint(err: &YamlError) -> Option<&'static str> {
    match err {
        YamlError::Binary { .. } | YamlError::Documents { .. } => {
            Some("a buildspec is one YAML document")
        }
        YamlError::Utf16 | YamlError::NotUtf8 { .. } => Some("save the file as UTF-8"),
        YamlError::Empty => Some("write `version: 0.2`, and `phases` with `commands` in them"),
        YamlError::Tab { .. } => Some("indent with spaces"),
        YamlError::Syntax { message, .. } => syntax_hint(message),
        _ => None,
    }
}

fn syntax_hint(message: &str) -> Option<&'static str> {
    if message.starts_with("mapping values") {
        Some(COLON)
    } else if message.starts_with("while parsing a block") {
        Some("indent what belongs together by the same number of spaces")
    } else if message.starts_with("a line is neither") {
        Some("indent it deeper, if it belongs to what is above it")
    } else if message.starts_with("a `:` stands") {
        Some("is there a `[`, a `{`, or a quote above it that is not closed?")
    } else if message.starts_with("while scanning a quoted scalar") {
        Some("close the quotes")
    } else if message.ends_with("unknown escape character") {
        Some("a backslash means something in double quotes: use single ones")
    } else if message.starts_with('`') {
        Some("a text that begins with `*` needs quotes")
    } else if message.starts_with("no text can begin") || message.starts_with("something follows") {
        Some("put quotes around the whole text")
    } else {
        None
    }
}

/// What go-yaml, which CodeBuild uses, says of the same text.
///
/// CodeBuild counts these lines from 0: what is wrong with the first line is "at line 0", and the
/// tab on the fourth is "at line 3".
fn yaml_aws(err: &YamlError, line: usize) -> Option<String> {
    let text = match err {
        YamlError::Empty => return Some("wrong number of container tags, expected 1".to_owned()),
        YamlError::Tab { .. } => "found character that cannot start any token",
        YamlError::Syntax { message, .. } => syntax_aws(message)?,
        _ => return None,
    };
    Some(format!("{text} at line {}", line.saturating_sub(1)))
}

/// go-yaml's words for those of our parser.
fn syntax_aws(message: &str) -> Option<&'static str> {
    const SAME: [(&str, &str); 8] = [
        ("mapping values are not allowed", "mapping values are not allowed in this context"),
        ("did not find expected key", "did not find expected key"),
        ("expected ',' or ']'", "did not find expected ',' or ']'"),
        ("expected ',' or '}'", "did not find expected ',' or '}'"),
        ("expected '-' indicator", "did not find expected '-' indicator"),
        ("expected node content", "did not find expected node content"),
        ("a line is neither", "could not find expected ':'"),
        ("no text can begin", "found character that cannot start any token"),
    ];
    // For go-yaml that is no name.
    if message.strip_prefix("`*").is_some_and(|it| !it.starts_with(char::is_alphanumeric)) {
        return Some("did not find expected alphabetic or numeric character");
    }
    SAME.into_iter().find(|(ours, _)| message.contains(ours)).map(|(_, theirs)| theirs)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
