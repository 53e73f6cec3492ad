//! What a registry has: repositories, their blobs and manifests, uploads that have begun, and what
//! it remembers for the test.
//!
//! **Architecture invariant:** bytes of blobs lie in a folder; here are only their names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    fs::File,
    path::PathBuf,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    door::Tokens,
    fault::Fault,
    problem::Problem,
    quirk::{Quirk, Settings},
};

/// Everything that changes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) uploads: HashMap<String, Upload>,
    pub(super) tokens: Tokens,
    pub(super) faults: Vec<Fault>,
    pub(super) asked: Vec<Asked>,
    pub(super) violations: Vec<String>,
    pub(super) calls: Vec<(String, Value)>,
    /// Of uploads and of their states, so that each is another.
    pub(super) counter: u64,
}

#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeSet<String>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    pub(super) value: Value,
}

/// An upload that has begun.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) repository: String,
    pub(super) path: PathBuf,
    /// What the next request of this upload has to say: each answer gives another.
    pub(super) state: u64,
    /// The sizes of what PATCH brought.
    pub(super) parts: Vec<u64>,
    /// Nobody else may touch an upload while its bytes come in.
    pub(super) content: Option<Incoming>,
}

/// The bytes of an upload, and their digest so far.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) file: File,
    pub(super) hash: Sha256,
    pub(super) size: u64,
}

/// A request and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// The query as it was sent, without its question mark.
    pub query: String,
    /// The headers: names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many bytes of a body were received.
    pub received: u64,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// How many bytes of a body were sent.
    pub sent: u64,
}

impl Asked {
    /// The value of a header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// As [`crate::servers::Registry::requests`] writes it: `METHOD PATH STATUS`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, query, status, .. } = self;
        let mark = if query.is_empty() { "" } else { "?" };
        write!(f, "{method} {path}{mark}{query} {status}")
    }
}

impl State {
    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.settings.has(quirk)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A repository that something is read from.
    pub(super) fn repository(&self, name: &str) -> Result<&Repository, Problem> {
        self.repositories.get(name).ok_or_else(|| Problem::no_repository(name))
    }

    /// A repository that something is written to.
    pub(super) fn writable(&mut self, name: &str) -> Result<&mut Repository, Problem> {
        if self.has(Quirk::NoCreateOnPush) && !self.repositories.contains_key(name) {
            return Err(Problem::no_repository(name));
        }
        Ok(self.repositories.entry(name.to_owned()).or_default())
    }

    /// Remembers that a client did what it must not do.
    pub(super) fn accuse(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }
}

impl Repository {
    /// The digest that a tag or a digest stands for.
    pub(super) fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let digest = if is_digest(name) { name } else { self.tags.get(name)? };
        self.manifests.contains_key(digest).then_some(digest)
    }

    /// Whether some manifest names a blob.
    pub(super) fn references(&self, digest: &str) -> bool {
        let mut named = self.manifests.values().flat_map(|it| blobs_of(&it.value));
        named.any(|it| it["digest"] == digest)
    }
}

/// The descriptors of the blobs that a manifest needs. Those with URLs may lie elsewhere.
pub(super) fn blobs_of(manifest: &Value) -> impl Iterator<Item = &Value> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let layers = layers.filter(|it| it.get("urls").is_none());
    layers.chain(manifest.get("config"))
}

impl Incoming {
    pub(super) fn digest(&self) -> String {
        let hash = self.hash.clone().finalize();
        let digits = hash.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex: String = digits.filter_map(|it| char::from_digit(it.into(), 16)).collect();
        format!("sha256:{hex}")
    }
}

/// Whether it is a digest of the one kind that we know.
pub(super) fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    hex.len() == 64 && hex.bytes().all(is_digit)
}
