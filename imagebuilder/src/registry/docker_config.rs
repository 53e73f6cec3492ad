//! Credentials as `docker login` keeps them, in `~/.docker/config.json`.
//!
//! **Architecture invariant:** a bad entry matters only to those who need it: what is wrong with
//! one registry's credential is told when that registry asks for it.

use std::{collections::BTreeMap, future, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_PAD_INDIFFERENT};
use serde::Deserialize;
use thiserror::Error;

use super::auth::{Action, Credential, CredentialFuture, Credentials, CredentialsError};

pub mod edit;

/// The credentials in one `config.json`.
#[derive(Clone, Default)]
pub struct DockerConfig {
    file: File,
}

/// Why some text is not a `config.json`.
///
/// It says only where, since the parser's own words may quote a password.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the Docker configuration is not valid, at {line}:{column}")]
pub struct DockerConfigError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

/// What is kept for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The credential itself.
    Credential(Credential),
    /// A program has it, if there is one.
    Helper(Helper),
}

/// A program that keeps credentials: `docker-credential-NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The NAME.
    pub name: String,
    /// What the program knows the registry by.
    pub server: String,
    /// Whether someone logged in to the registry, so that there should be a credential.
    pub is_certain: bool,
}

/// The file as it is written; most of its keys are not about credentials.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl FromStr for DockerConfig {
    type Err = DockerConfigError;

    fn from_str(text: &str) -> Result<Self, DockerConfigError> {
        match serde_json::from_str(text) {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(DockerConfigError { line: error.line(), column: error.column() }),
        }
    }
}

impl DockerConfig {
    /// What is kept for a registry (`docker.io` for Docker Hub), if anything may be.
    pub fn find(&self, registry: &str) -> Result<Option<Kept>, CredentialsError> {
        if let Some((_, name)) = entry(&self.file.cred_helpers, registry) {
            return Ok(Some(Kept::Helper(self.helper(name, registry))));
        }
        if let Some((_, entry)) = entry(&self.file.auths, registry)
            && let Some(credential) = entry.credential()?
        {
            return Ok(Some(Kept::Credential(credential)));
        }
        Ok(self.helper_for(registry).map(Kept::Helper))
    }

    /// The program that keeps the credential of a registry, if one is set.
    pub fn helper_for(&self, registry: &str) -> Option<Helper> {
        let own = entry(&self.file.cred_helpers, registry).map(|(_, name)| name);
        let name = own.unwrap_or(&self.file.creds_store);
        (!name.is_empty()).then(|| self.helper(name, registry))
    }

    fn helper(&self, name: &str, registry: &str) -> Helper {
        let is_own = entry(&self.file.cred_helpers, registry).is_some();
        let known = entry(&self.file.auths, registry).map(|(key, _)| key);
        Helper {
            name: name.to_owned(),
            server: known.map_or_else(|| server(registry).to_owned(), ToOwned::to_owned),
            is_certain: is_own || known.is_some(),
        }
    }
}

/// Programs are not asked here: whoever can start them uses [`DockerConfig::find`].
impl Credentials for DockerConfig {
    fn credential<'a>(
        &'a self,
        registry: &'a str,
        _: Action,
        refused: Option<&'a Credential>,
    ) -> CredentialFuture<'a> {
        let found = match self.find(registry) {
            Ok(Some(Kept::Credential(it))) => Ok(Some(it).filter(|it| Some(it) != refused)),
            Ok(Some(Kept::Helper(it))) => Err(CredentialsError::Helper(it.name)),
            Ok(None) => Ok(None),
            Err(err) => Err(err),
        };
        Box::pin(future::ready(found))
    }
}

/// What docker knows a registry by: its host, but for Docker Hub.
fn server(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

/// Keys are hosts, with or without a scheme and a path; one that is exact goes first.
fn entry<'a, T>(map: &'a BTreeMap<String, T>, registry: &str) -> Option<(&'a String, &'a T)> {
    let key = host(registry);
    map.get_key_value(registry).or_else(|| map.iter().find(|(it, _)| host(it) == key))
}

fn host(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

impl Entry {
    /// Docker leaves an empty entry for each registry whose credential a program has.
    fn credential(&self) -> Result<Option<Credential>, CredentialsError> {
        if !self.identitytoken.is_empty() {
            let (username, password) =
                (Credential::IDENTITY_TOKEN.into(), self.identitytoken.clone());
            return Ok(Some(Credential { username, password }));
        }
        if !self.registrytoken.is_empty() {
            return Err(CredentialsError::Unsupported("registrytoken"));
        }
        if !self.auth.is_empty() {
            return decode(&self.auth).map(Some);
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credential { username, password }));
        }
        Ok(None)
    }
}

/// `auth` is `user:password` in base64; old versions of Docker padded the password with NUL.
fn decode(auth: &str) -> Result<Credential, CredentialsError> {
    let bytes = STANDARD_PAD_INDIFFERENT.decode(auth.trim()).ok();
    let text = bytes.and_then(|it| String::from_utf8(it).ok());
    match text.as_deref().and_then(|it| it.split_once(':')) {
        Some((username, password)) if !username.is_empty() => Ok(Credential {
            username: username.into(),
            password: password.trim_matches('\0').into(),
        }),
        _ => Err(CredentialsError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnAx" },
            "ghcr.io": { "username": "u", "password": "p:2" },
            "https://quay.io/v2/": { "auth": "cTpwOjM" },
            "localhost:5000": { "auth": "bDpwAAA=" },
            "store.example.com": {},
            "bad.example.com": { "auth": "%%%" },
            "nouser.example.com": { "auth": "OnA=" },
            "acr.example.com": { "auth": "dTo=", "identitytoken": "t" },
            "both.example.com": { "auth": "dTpw" }
        },
        "credHelpers": { "gcr.io": "gcloud", "both.example.com": "pass" },
        "HttpHeaders": { "User-Agent": "Docker-Client" },
        "plugins": { "x": { "a": "b" } }
    }"#;

    fn find(config: &str, registry: &str) -> String {
        match config.parse::<DockerConfig>().unwrap().find(registry) {
            Ok(Some(Kept::Credential(Credential { username, password }))) => {
                format!("{username} {password}")
            }
            Ok(Some(Kept::Helper(Helper { name, server, is_certain }))) => {
                let maybe = if is_certain { "" } else { ", perhaps" };
                format!("{name} has {server}{maybe}")
            }
            Ok(None) => "none".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn credentials_are_found_by_host_however_the_key_is_written() {
        for (registry, want) in [
            ("docker.io", "hub p1"),
            ("ghcr.io", "u p:2"),
            ("quay.io", "q p:3"),
            ("localhost:5000", "l p"),
            ("localhost", "none"),
            ("store.example.com", "none"),
            ("other.example.com", "none"),
            ("bad.example.com", "the `auth` kept for it is not `user:password` in base64"),
            ("nouser.example.com", "the `auth` kept for it is not `user:password` in base64"),
            ("acr.example.com", "<token> t"),
            ("gcr.io", "gcloud has gcr.io"),
            ("both.example.com", "pass has both.example.com"),
        ] {
            assert_eq!(find(CONFIG, registry), want, "for `{registry}`");
        }
    }

    #[test]
    fn a_store_is_asked_for_what_is_not_in_the_file() {
        let config = r#"{ "auths": { "https://ghcr.io/": {}, "a.com": { "auth": "dTpw" } }, "credsStore": "desktop" }"#;
        for (registry, want) in [
            ("ghcr.io", "desktop has https://ghcr.io/"),
            ("a.com", "u p"),
            ("docker.io", "desktop has https://index.docker.io/v1/, perhaps"),
            ("b.com", "desktop has b.com, perhaps"),
        ] {
            assert_eq!(find(config, registry), want, "for `{registry}`");
        }
    }

    #[test]
    fn an_empty_configuration_knows_nothing() {
        assert_eq!(find("{}", "docker.io"), "none");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let error = "{\n  \"auths\": [1]\n}".parse::<DockerConfig>().err().unwrap();
        assert_eq!(error.to_string(), "the Docker configuration is not valid, at 2:11");
    }

    #[tokio::test]
    async fn a_refused_credential_is_not_offered_again() {
        let config: DockerConfig = CONFIG.parse().unwrap();
        let first = config.credential("ghcr.io", Action::Pull, None).await.unwrap();
        assert!(first.is_some());
        let second = config.credential("ghcr.io", Action::Pull, first.as_ref()).await.unwrap();
        assert_eq!(second, None);
    }
}
