//! What can be wrong with a buildspec file, and what a person is told of it.

use std::fmt;

use thiserror::Error;

use crate::{buildspec::ShellName, phase::Phase, source::Place, yaml::YamlError};

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
}

/// What is wrong, with all that a person needs to know.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Yaml(YamlError),
    #[error("the file holds {found}, not a mapping of keys")]
    Root { found: &'static str },
    #[error("`{key}` is missing")]
    Missing { key: String },
    #[error("`{key}` is empty")]
    Empty { key: String },
    #[error("buildspec version `{version}` is not supported{}", yet(version))]
    Version { version: String },
    #[error("`{key}` is not supported yet")]
    NotYet { key: String },
    #[error("the phase `{name}` is unknown")]
    Phase { name: String, suggestion: Option<&'static str> },
    #[error("`{key}` is {found}, not {wanted}")]
    Kind { key: String, found: &'static str, wanted: &'static str },
    #[error("command {number} of `{key}` is {found}, not text")]
    Command { key: String, number: usize, found: &'static str, line: usize },
    #[error("`{key}` is `{value}`, not yes or no")]
    Bool { key: String, value: String },
    #[error("the shell `{name}` is not supported")]
    Shell { name: String },
    #[error("the variable `{name}` begins with `CODEBUILD_`, which only the build may set")]
    Reserved { name: String },
    #[error("`{name}` cannot be the name of a variable")]
    VariableName { name: String },
    #[error("`{key}` holds a NUL character, which no shell can take")]
    Nul { key: String },
}

/// Says that a version exists, though not here.
fn yet(version: &str) -> &'static str {
    if version == "0.1" { " yet" } else { "" }
}

const COLON: &str = "a colon followed by a space makes a mapping: put quotes around the whole text";

impl Fault {
    pub(super) fn at(self, place: Place) -> Problem {
        self.problem(Some(place))
    }

    pub(super) fn problem(self, place: Option<Place>) -> Problem {
        Problem { place, message: self.to_string(), hint: self.hint(), aws: self.aws(place) }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Yaml(err) => return yaml_hint(err).map(str::to_owned),
            Self::Version { .. } => "write `version: 0.2`".to_owned(),
            Self::Missing { key } | Self::Empty { key } if key == "version" => {
                "write `version: 0.2`".to_owned()
            }
            Self::Missing { key } if key == "phases" => {
                "a buildspec needs `phases`, with `commands` in them".to_owned()
            }
            Self::Empty { key } if key == "phases" => {
                "indent what belongs to it by two spaces".to_owned()
            }
            Self::Phase { suggestion: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::Phase { suggestion: None, .. } => {
                let names = Phase::ALL.map(|it| format!("`{}`", it.name()));
                format!("the phases are {}", names.join(", "))
            }
            Self::Shell { .. } => {
                let names = ShellName::NAMES.map(|it| format!("`{it}`"));
                format!("the shells are {}", names.join(", "))
            }
            Self::Command { found: "a mapping", .. }
            | Self::Kind { wanted: "text", found: "a mapping", .. } => COLON.to_owned(),
            Self::Kind { wanted: "a mapping", key, .. } if Phase::named(key).is_some() => {
                "write `commands:` above the commands".to_owned()
            }
            _ => return None,
        })
    }

    fn aws(&self, place: Option<Place>) -> Option<String> {
        let line = place.map_or(0, |it| it.line);
        match self {
            Self::Yaml(err) => yaml_aws(err, line),
            // CodeBuild counts from 0 here, and always names the line before, too.
            Self::Command { number, found: "a mapping", line, .. } => Some(format!(
                "Expected Commands[{}] to be of string type: found subkeys instead at line \
                 {line}, value of the key tag on line {} might be empty",
                number - 1,
                line - 1
            )),
            Self::Phase { name, .. } => Some(format!(
                "Invalid buildspec phase name: {}. Expecting: BUILD,INSTALL,POST_BUILD,PRE_BUILD",
                name.to_uppercase()
            )),
            _ => None,
        }
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
        YamlError::Syntax { message, .. } if message.starts_with("mapping values") => Some(COLON),
        _ => None,
    }
}

/// What go-yaml, which CodeBuild uses, says of the same text.
fn yaml_aws(err: &YamlError, line: usize) -> Option<String> {
    let text = match err {
        YamlError::Tab { .. } => "found character that cannot start any token",
        YamlError::Syntax { message, .. } => [
            "mapping values are not allowed in this context",
            "did not find expected key",
            "expected ',' or ']'",
        ]
        .into_iter()
        .find(|it| message.ends_with(it))?,
        _ => return None,
    };
    let did_not = if text.starts_with("expected") { "did not find " } else { "" };
    Some(format!("{did_not}{text} at line {line}"))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
