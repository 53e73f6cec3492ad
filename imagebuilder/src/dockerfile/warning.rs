//! What is allowed in a Dockerfile and yet likely wrong.

use std::fmt;

use super::Place;

/// Something that is allowed and yet likely wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: WarningKind,
    /// Where.
    pub place: Place,
}

/// What is likely wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// An empty line stands in the middle of an instruction.
    EmptyContinuation,
    /// Text looks like an array and is none, so that it is a command for the shell, or words.
    NotJson {
        /// The instruction.
        instruction: &'static str,
    },
    /// ENV or LABEL is written without `=`.
    NoEquals {
        /// The instruction.
        instruction: &'static str,
    },
    /// MAINTAINER is deprecated.
    Maintainer,
    /// Two stages have the same name.
    StageTwice {
        /// The name.
        name: String,
    },
    /// The name of a stage means something else.
    StageReserved {
        /// The name.
        name: String,
    },
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyContinuation => f.write_str("an empty line continues the instruction"),
            Self::NotJson { instruction } => write!(
                f,
                "`{instruction}` is followed by what looks like a JSON array and is none: only \
                 double quotes are quotes there"
            ),
            Self::NoEquals { instruction } => {
                write!(f, "`{instruction} name value` is an old form of `{instruction} name=value`")
            }
            Self::Maintainer => {
                f.write_str("`MAINTAINER` is deprecated: the label `org.opencontainers.image.authors` is its successor")
            }
            Self::StageTwice { name } => write!(f, "another stage has the name `{name}`"),
            Self::StageReserved { name } => {
                write!(f, "`{name}` is no good name for a stage: it already means something")
            }
        }
    }
}
