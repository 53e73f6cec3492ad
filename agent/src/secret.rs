//! Values that nobody must see: where they come from, and how output is kept from showing them.
//!
//! **Architecture invariant:** a [`Secret`] has no text form but [`Secret::expose`], and what calls
//! that is easy to find. Nothing here knows where secrets are kept: that is for the adapters of
//! the port [`Secrets`].

mod patterns;
mod redactor;

use std::fmt;

use thiserror::Error;

use crate::source::Place;

pub use redactor::{MaskedOutput, Redactor};

/// The variables in which AWS's tools look for credentials before they look at a profile; their
/// values are secrets wherever they come from. The third is what old tools call the fourth.
pub const CREDENTIALS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"];

/// A value that nobody must see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// In SSM Parameter Store, under this name.
    Parameter(String),
    /// In Secrets Manager.
    SecretsManager(SecretsManagerReference),
}

/// A reference to Secrets Manager: `secret-id:json-key:version-stage:version-id`
/// (`CodeBuild` user guide, "Build specification reference", `env/secrets-manager`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretsManagerReference {
    /// The name or the ARN of the secret.
    pub secret_id: String,
    /// The key in it whose value is meant; all of it if there is none.
    pub json_key: Option<String>,
    /// The stage of the version; `AWSCURRENT` if there is neither this nor an ID.
    pub version_stage: Option<String>,
    /// The ID of the version.
    pub version_id: Option<String>,
}

/// A variable whose value is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the variable.
    pub variable: String,
    /// Where its value is.
    pub reference: Reference,
    /// Where its name is, if that is in the buildspec.
    pub place: Option<Place>,
}

/// Fetches secrets.
pub trait Secrets {
    /// The value of each of `wanted`, in the same order.
    fn fetch(&mut self, wanted: &[Wanted]) -> Result<Vec<Secret>, SecretsError>;
}

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// There is no such secret, or no such key or version of it.
    #[error("the {what} for the variable `{variable}` does not exist")]
    Missing {
        /// What it is, with its name.
        what: String,
        /// For which variable.
        variable: String,
        /// What the service said.
        message: String,
    },
    /// It is there, and no variable can have it as its value.
    #[error("the {what} cannot be the value of the variable `{variable}`")]
    Unusable {
        /// What it is, with its name.
        what: String,
        /// For which variable.
        variable: String,
        /// Why.
        message: String,
    },
    /// The service does not let us have it, or cannot be asked.
    #[error("the {what} for the variable `{variable}` could not be read")]
    NotRead {
        /// What it is, with its name.
        what: String,
        /// For which variable.
        variable: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Several cannot be had.
    #[error("{} secrets could not be had", .0.len())]
    Several(
        /// Why not, for each of them; at least two, and none of these is one of several again.
        Vec<SecretsError>,
    ),
}

impl SecretsError {
    /// One error for all of `errors`, if there are any.
    pub fn of_all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }

    /// Whether trying again may help: what it is about may be there.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::NotRead { .. } => true,
            Self::Missing { .. } | Self::Unusable { .. } => false,
            Self::Several(errors) => errors.iter().all(Self::is_of_the_machine),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(name) => write!(f, "parameter `{name}`"),
            Self::SecretsManager(reference) => write!(f, "secret `{reference}`"),
        }
    }
}

/// As it is written in a buildspec, less the colons that say nothing.
impl fmt::Display for SecretsManagerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.json_key, &self.version_stage, &self.version_id];
        let last = parts.iter().rposition(|it| it.is_some()).map_or(0, |it| it + 1);
        f.write_str(&self.secret_id)?;
        parts[..last].iter().try_for_each(|it| write!(f, ":{}", it.as_deref().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(key: &str, stage: &str, id: &str) -> SecretsManagerReference {
        let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        SecretsManagerReference {
            secret_id: "s".into(),
            json_key: part(key),
            version_stage: part(stage),
            version_id: part(id),
        }
    }

    #[test]
    fn references_are_shown_as_they_are_written() {
        for ((key, stage, id), want) in [
            (("", "", ""), "secret `s`"),
            (("k", "", ""), "secret `s:k`"),
            (("", "AWSPREVIOUS", ""), "secret `s::AWSPREVIOUS`"),
            (("k", "", "v"), "secret `s:k::v`"),
        ] {
            let reference = Reference::SecretsManager(reference(key, stage, id));
            assert_eq!(reference.to_string(), want);
        }
        assert_eq!(Reference::Parameter("/a".into()).to_string(), "parameter `/a`");
    }

    #[test]
    fn a_secret_does_not_show() {
        let wanted = Secret::new("s3cr3t".into());
        assert_eq!(format!("{wanted:?}"), "***");
        let redactor = Redactor::new(vec![wanted], crate::choice::Masking::Lines);
        assert_eq!(format!("{redactor:?}"), "Redactor(1 texts)");
    }

    #[test]
    fn trying_again_helps_if_all_are_there() {
        let missing = || SecretsError::Missing {
            what: String::new(),
            variable: String::new(),
            message: String::new(),
        };
        let not_read = || SecretsError::NotRead {
            what: String::new(),
            variable: String::new(),
            source: "no".into(),
        };
        for (errors, want) in [
            (vec![missing()], false),
            (vec![not_read()], true),
            (vec![not_read(), not_read()], true),
            (vec![not_read(), missing()], false),
        ] {
            assert_eq!(SecretsError::of_all(errors).unwrap().is_of_the_machine(), want);
        }
        assert!(SecretsError::of_all(Vec::new()).is_none());
    }
}
