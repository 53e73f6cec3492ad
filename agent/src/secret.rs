//! Values that nobody must see: where they come from, and how output is kept from showing them.
//!
//! **Architecture invariant:** a [`Secret`] has no text form but [`Secret::expose`], and what calls
//! that is easy to find. Nothing here knows where secrets are kept: that is for the adapters of
//! the port [`Secrets`].

use std::{borrow::Cow, fmt};

use thiserror::Error;

use crate::choice::Masking;

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

/// Knows the values that output must not show, and takes them out.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Vec<Secret>,
}

impl Redactor {
    /// Takes out `values`, and, if `masking` says so, each line of those that have many.
    pub fn new(values: Vec<Secret>, _masking: Masking) -> Self {
        Self { values }
    }

    /// The values that nobody must see.
    pub fn values(&self) -> impl Iterator<Item = &Secret> {
        self.values.iter()
    }

    /// Takes the values out of output that comes in pieces.
    pub fn output(&self) -> MaskedOutput {
        MaskedOutput { redactor: self.clone(), held: Vec::new() }
    }

    /// The text without what nobody must see.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.values.iter().fold(Cow::Borrowed(text), |text, it| match text.contains(it.expose()) {
            true => Cow::Owned(text.replace(it.expose(), "***")),
            false => text,
        })
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

/// Output that comes in pieces, and in which a value may lie across several of them.
#[derive(Clone, Debug, Default)]
pub struct MaskedOutput {
    redactor: Redactor,
    /// What may be the beginning of a value.
    held: Vec<u8>,
}

impl MaskedOutput {
    /// Takes the next piece, and gives what is certain of it to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        let lengths = self.redactor.values.iter().map(|it| it.expose().len());
        let Some(longest) = lengths.max() else { return out(bytes) };
        self.held.extend_from_slice(bytes);
        self.give((self.held.len() + 1).saturating_sub(longest), out);
    }

    /// Gives what is left to `out`: no more comes.
    pub fn flush(&mut self, out: &mut dyn FnMut(&[u8])) {
        self.give(self.held.len(), out);
    }

    /// Gives what comes before `end`, and the values that begin there.
    fn give(&mut self, end: usize, out: &mut dyn FnMut(&[u8])) {
        let (mut shown, mut at) = (0, 0);
        while at < end {
            let values = self.redactor.values.iter().map(|it| it.expose().as_bytes());
            let found = values.filter(|it| self.held[at..].starts_with(it)).map(<[u8]>::len).max();
            let Some(length) = found else {
                at += 1;
                continue;
            };
            out(&self.held[shown..at]);
            out(b"***");
            at += length;
            shown = at;
        }
        if shown < at {
            out(&self.held[shown..at]);
        }
        self.held.drain(..at);
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
}
