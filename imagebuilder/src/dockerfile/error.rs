//! Why some text is not a Dockerfile.

use thiserror::Error;

use super::{Place, words::ExpandError};

/// What is wrong with a Dockerfile, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct DockerfileError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where.
    pub place: Place,
}

impl DockerfileError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        self.kind.hint()
    }
}

/// What is wrong with a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ErrorKind {
    /// The file is too large.
    #[error("the file has {found} bytes, and {limit} are allowed")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A line is too long.
    #[error("the line has more than {limit} bytes")]
    LineTooLong {
        /// The longest allowed.
        limit: usize,
    },
    /// The file is not UTF-8.
    #[error("the file is not UTF-8")]
    NotUtf8,
    /// The file has a NUL byte.
    #[error("the file has a NUL byte")]
    NulByte,
    /// There is no FROM.
    #[error("there is no build stage in the file")]
    NoStage,
    /// An instruction stands before the first FROM.
    #[error("`{instruction}` stands before the first `FROM`")]
    BeforeFrom {
        /// The instruction.
        instruction: &'static str,
    },
    /// A directive is given twice.
    #[error("the directive `{name}` is given twice")]
    DirectiveTwice {
        /// Its name.
        name: &'static str,
    },
    /// The escape character is none of the two.
    #[error("`{value}` cannot be the escape character")]
    Escape {
        /// What was given.
        value: String,
    },
    /// The file is written for another frontend.
    #[error("the syntax `{value}` is not supported")]
    Syntax {
        /// What was given.
        value: String,
    },
    /// No instruction has this name.
    #[error("unknown instruction `{name}`")]
    UnknownInstruction {
        /// What was written.
        name: String,
        /// What was likely meant.
        suggestion: Option<&'static str>,
    },
    /// The instruction has no such flag.
    #[error("`{instruction}` has no flag `--{flag}`")]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag.
        flag: String,
        /// What was likely meant.
        suggestion: Option<&'static str>,
    },
    /// A flag is given twice.
    #[error("`--{flag}` is given twice")]
    FlagTwice {
        /// The flag.
        flag: String,
    },
    /// A flag has no value.
    #[error("`--{flag}` has no value")]
    FlagWithoutValue {
        /// The flag.
        flag: String,
    },
    /// A flag is neither on nor off.
    #[error("`--{flag}` is `true` or `false`, not `{value}`")]
    FlagNotBoolean {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// The instruction has no arguments.
    #[error("`{instruction}` has no arguments")]
    NoArguments {
        /// The instruction.
        instruction: &'static str,
    },
    /// FROM has two or more than three arguments.
    #[error("`FROM` is followed by an image, or by an image, `AS` and a name")]
    FromArguments,
    /// A stage cannot have this name.
    #[error("`{name}` cannot be the name of a stage")]
    StageName {
        /// The name.
        name: String,
    },
    /// COPY or ADD has one argument.
    #[error("`{instruction}` has a source and no destination")]
    NoDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// COPY or ADD has a heredoc as its destination.
    #[error("`{instruction}` has a heredoc as its destination")]
    HeredocDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// A heredoc does not end.
    #[error("the heredoc `{name}` is not closed")]
    HeredocOpen {
        /// Its name.
        name: String,
    },
    /// A heredoc of COPY or ADD is not one of its sources.
    #[error("the heredoc `{name}` is not a source of `{instruction}`")]
    HeredocUnused {
        /// The instruction.
        instruction: &'static str,
        /// Its name.
        name: String,
    },
    /// ENV or LABEL has an argument without `=` among others.
    #[error("`{word}` has no `=`: `{instruction}` is followed by `name=value`")]
    NoEquals {
        /// The instruction.
        instruction: &'static str,
        /// The argument.
        word: String,
    },
    /// ENV or LABEL has a name and no value.
    #[error("`{instruction} {name}` has no value")]
    NoValue {
        /// The instruction.
        instruction: &'static str,
        /// The name.
        name: String,
    },
    /// There is nothing before `=`.
    #[error("there is no name before `=`")]
    NoName,
    /// An array has elements that are not text.
    #[error("the array has an element that is not a text in double quotes")]
    NotTexts,
    /// SHELL is not an array.
    #[error("`SHELL` is not followed by a JSON array")]
    ShellForm,
    /// VOLUME has an empty path.
    #[error("`VOLUME` has an empty path")]
    EmptyVolume,
    /// HEALTHCHECK is neither NONE nor CMD.
    #[error("`HEALTHCHECK` is followed by `CMD` or `NONE`, not by `{word}`")]
    HealthcheckKind {
        /// What follows it.
        word: String,
    },
    /// HEALTHCHECK NONE has arguments.
    #[error("`HEALTHCHECK NONE` has no arguments")]
    HealthcheckNone,
    /// HEALTHCHECK CMD has no command.
    #[error("`HEALTHCHECK CMD` has no command")]
    HealthcheckCommand,
    /// A duration cannot be read.
    #[error("`{value}` is not a duration")]
    Duration {
        /// What was given.
        value: String,
    },
    /// A duration is too short.
    #[error("`--{flag}` is shorter than 1ms")]
    DurationTooShort {
        /// The flag.
        flag: &'static str,
    },
    /// The number of retries is none.
    #[error("`--retries` is a number from 0, not `{value}`")]
    Retries {
        /// What was given.
        value: String,
    },
    /// ONBUILD is followed by what cannot wait.
    #[error("`{instruction}` cannot follow `ONBUILD`")]
    Onbuild {
        /// The instruction.
        instruction: &'static str,
    },
    /// Quotes or variables are not well-formed.
    #[error(transparent)]
    Words(#[from] ExpandError),
}

impl ErrorKind {
    /// The error of this kind at a place.
    pub(super) fn at(self, place: Place) -> DockerfileError {
        DockerfileError { kind: self, place }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownInstruction { suggestion, .. } => {
                return suggestion.map(|it| format!("did you mean `{it}`?"));
            }
            Self::UnknownFlag { suggestion, .. } => {
                return suggestion.map(|it| format!("did you mean `--{it}`?"));
            }
            Self::FlagWithoutValue { flag } => return Some(format!("write `--{flag}=VALUE`")),
            Self::HeredocOpen { name } => {
                return Some(format!(
                    "write a line `{name}`, with nothing else on it, to close it"
                ));
            }
            Self::NoStage => "write `FROM IMAGE`, or `FROM scratch`",
            Self::BeforeFrom { .. } => "only `ARG` may stand before `FROM`",
            Self::Escape { .. } => "it is `\\` or a backtick",
            Self::Syntax { .. } => {
                "only the language of `docker/dockerfile` is built in: remove the directive if the \
                 file is written in it"
            }
            Self::StageName { .. } => {
                "a name begins with a letter and has letters, digits, `-`, `_` and `.`"
            }
            Self::NoDestination { .. } => "the last argument is the destination",
            Self::NoEquals { .. } => "put a value with spaces in double quotes",
            Self::NotTexts | Self::ShellForm => "write `[\"one\", \"two\"]`",
            Self::Duration { .. } => "write a number and a unit, as in `30s` or `1m30s`",
            Self::NotUtf8 | Self::NulByte => "is it a Dockerfile?",
            Self::HeredocUnused { .. } => "its name is one word, without spaces",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
