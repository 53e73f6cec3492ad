//! What an image is called: `registry/path:tag@digest`, as Docker writes and completes it.
//!
//! **Architecture invariant:** a [`Reference`] that exists is valid and complete: its registry is
//! named (`shop` is `docker.io/library/shop`), and nothing in it needs escaping in a URL. Only the
//! tag is left as it was given, since `latest` is right for some uses and wrong for others.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

use crate::digest::Digest;

const DOCKER_HUB: &str = "docker.io";
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// A repository of a registry: what a [`Reference`] is without tag and digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// The name of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why some text is not the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// There is no text, or nothing before the tag or digest.
    #[error("image name `{0}` names no repository")]
    Empty(String),
    /// It starts with `https://` or the like.
    #[error("image name `{0}` is a URL: leave out what comes before the registry's host")]
    Url(String),
    /// The registry is not a host with an optional port.
    #[error("`{registry}` in image name `{name}` is not a registry's host")]
    Registry {
        /// The whole text.
        name: String,
        /// What stands for the registry.
        registry: String,
    },
    /// The repository has upper-case letters.
    #[error("repository `{repository}` in image name `{name}` is not all lower case")]
    UpperCase {
        /// The whole text.
        name: String,
        /// What stands for the repository.
        repository: String,
    },
    /// The repository has something else that no repository may have.
    #[error(
        "repository `{repository}` in image name `{name}` is not lower-case letters and digits, \
         joined by single `.`, `_`, `__` or dashes, in parts with `/` between"
    )]
    Repository {
        /// The whole text.
        name: String,
        /// What stands for the repository.
        repository: String,
    },
    /// The repository is longer than any may be.
    #[error("repository in image name `{0}` is longer than {LONGEST_PATH} characters")]
    TooLong(String),
    /// The name is 64 hex digits, which would be taken for an image's id.
    #[error("image name `{0}` looks like an image's id")]
    Id(String),
    /// The tag is not one.
    #[error(
        "tag `{tag}` in image name `{name}` is not up to {LONGEST_TAG} letters, digits, `_`, `.` \
         and `-`, of which the first is neither `.` nor `-`"
    )]
    Tag {
        /// The whole text.
        name: String,
        /// What stands for the tag.
        tag: String,
    },
    /// The digest is not one.
    #[error(
        "`{digest}` in image name `{name}` is not a digest: `sha256:` and 64 lower-case hex digits"
    )]
    Digest {
        /// The whole text.
        name: String,
        /// What stands for the digest.
        digest: String,
    },
}

impl Repository {
    /// The registry's host and port as in the name: `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name within the registry, as in its URLs.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The full name, with the registry.
    pub fn canonical(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
}

/// Writes the short form that people use, if it means the same.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.registry != DOCKER_HUB {
            return write!(f, "{}/{}", self.registry, self.path);
        }
        let short = match self.path.strip_prefix("library/") {
            // 64 hex digits alone are no name, but an image's id.
            Some(name) if !name.contains('/') && Digest::from_hex(name).is_none() => name,
            _ => &self.path,
        };
        match split_registry(short) {
            (None, _) => f.write_str(short),
            (Some(_), _) => write!(f, "{DOCKER_HUB}/{}", self.path),
        }
    }
}

impl Reference {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The registry's host and port as in the name: `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.repository.registry
    }

    /// The tag, if one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is named.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same name, with the tag `latest` if it had neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(self) -> Self {
        if self.tag.is_some() || self.digest.is_some() {
            return self;
        }
        Self { tag: Some("latest".into()), ..self }
    }

    /// The name by which `digest` is found in the same repository: `name@sha256:…`.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }

    /// The same tag and digest in another repository.
    #[must_use]
    pub fn in_repository(&self, repository: &Repository) -> Self {
        Self { repository: repository.clone(), ..self.clone() }
    }

    /// The full name, with the registry.
    pub fn canonical(&self) -> String {
        format!("{}{}", self.repository.canonical(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|it| format!(":{it}")).unwrap_or_default();
        let digest = self.digest.map(|it| format!("@{it}")).unwrap_or_default();
        tag + &digest
    }
}

/// Writes the short form that people use, if it means the same.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        if name.contains("://") {
            return Err(ReferenceError::Url(name.into()));
        }
        let (rest, digest) = split_digest(name)?;
        let (rest, tag) = split_tag(name, rest)?;
        if rest.is_empty() {
            return Err(ReferenceError::Empty(name.into()));
        }
        if Digest::from_hex(rest).is_some() {
            return Err(ReferenceError::Id(name.into()));
        }
        Ok(Self { repository: repository(name, rest)?, tag, digest })
    }
}

fn split_digest(name: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = name.split_once('@') else {
        return Ok((name, None));
    };
    match digest.parse() {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(_) => Err(ReferenceError::Digest { name: name.into(), digest: digest.into() }),
    }
}

/// A colon before the last slash is part of the registry.
fn split_tag<'a>(name: &str, rest: &'a str) -> Result<(&'a str, Option<String>), ReferenceError> {
    let last_part = rest.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = rest[last_part..].find(':') else {
        return Ok((rest, None));
    };
    let (rest, tag) = (&rest[..last_part + colon], &rest[last_part + colon + 1..]);
    if !is_tag(tag) {
        return Err(ReferenceError::Tag { name: name.into(), tag: tag.into() });
    }
    Ok((rest, Some(tag.into())))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_inner = |byte: u8| is_word(byte) || byte == b'.' || byte == b'-';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(is_inner)
}

fn repository(name: &str, rest: &str) -> Result<Repository, ReferenceError> {
    let (registry, path) = split_registry(rest);
    let registry = match registry.map(str::to_ascii_lowercase) {
        None => DOCKER_HUB.into(),
        Some(it) if it == "index.docker.io" => DOCKER_HUB.into(),
        Some(it) if is_registry(&it) => it,
        Some(registry) => return Err(ReferenceError::Registry { name: name.into(), registry }),
    };
    if path.is_empty() {
        return Err(ReferenceError::Empty(name.into()));
    }
    let official = registry == DOCKER_HUB && !path.contains('/');
    let path = if official { format!("library/{path}") } else { path.into() };
    check_path(name, &path)?;
    Ok(Repository { registry, path })
}

/// Docker's rule for what is a registry's host and what is the first part of a repository.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn check_path(name: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let (name, repository) = (name.into(), path.into());
        return Err(ReferenceError::UpperCase { name, repository });
    }
    if !path.split('/').all(is_path_part) {
        let (name, repository) = (name.into(), path.into());
        return Err(ReferenceError::Repository { name, repository });
    }
    if path.len() > LONGEST_PATH {
        return Err(ReferenceError::TooLong(name.into()));
    }
    Ok(())
}

/// Words of letters and digits, joined by `.`, `_`, `__`, or any number of dashes.
fn is_path_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_in_words =
        part.bytes().next().is_some_and(is_word) && part.bytes().next_back().is_some_and(is_word);
    ends_in_words
        && part.split(|it: char| u8::try_from(it).is_ok_and(is_word)).all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|it| it == b'-')
        })
}

fn is_registry(text: &str) -> bool {
    let (host, port) = split_port(text);
    let is_port = |port: &str| {
        port.bytes().all(|it| it.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|it| it != 0)
    };
    if !port.is_none_or(is_port) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Splits `host:port`; an IPv6 address keeps its brackets.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    let host_end = registry.rfind(']').unwrap_or(0);
    match registry[host_end..].find(':') {
        Some(colon) => (&registry[..host_end + colon], Some(&registry[host_end + colon + 1..])),
        None => (registry, None),
    }
}

/// The host of a registry, without its port.
pub(crate) fn host(registry: &str) -> &str {
    split_port(registry).0
}

/// Whether a registry (`host`, or `host:port`) is this very machine, whatever the network says.
pub fn is_loopback(registry: &str) -> bool {
    let host = host(registry);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn names_are_completed_as_docker_does_and_shown_short() {
        for (text, canonical, short) in [
            ("shop", "docker.io/library/shop", "shop"),
            ("shop:1", "docker.io/library/shop:1", "shop:1"),
            ("library/shop", "docker.io/library/shop", "shop"),
            ("docker.io/shop", "docker.io/library/shop", "shop"),
            ("index.docker.io/library/shop:1", "docker.io/library/shop:1", "shop:1"),
            ("team/shop", "docker.io/team/shop", "team/shop"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("docker.io/foo.bar/x", "docker.io/foo.bar/x", "docker.io/foo.bar/x"),
            ("docker.io/library/foo.bar/x", "docker.io/library/foo.bar/x", "library/foo.bar/x"),
            ("foo.bar:5000", "docker.io/library/foo.bar:5000", "foo.bar:5000"),
            ("localhost", "docker.io/library/localhost", "localhost"),
            ("localhost/shop", "localhost/shop", "localhost/shop"),
            ("localhost:5000/shop:Tag_1.x-y", "localhost:5000/shop:Tag_1.x-y", ""),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c", ""),
            ("[::1]:5000/shop:1", "[::1]:5000/shop:1", ""),
            ("Example.COM/shop", "example.com/shop", ""),
            ("xn--n3h.com/my__image.a_b---c", "xn--n3h.com/my__image.a_b---c", ""),
            ("test:5000/repo", "test:5000/repo", ""),
        ] {
            for suffix in [String::new(), format!("@sha256:{HEX}")] {
                let reference: Reference = format!("{text}{suffix}").parse().unwrap();
                assert_eq!(reference.canonical(), format!("{canonical}{suffix}"), "for `{text}`");
                let short = if short.is_empty() { canonical } else { short };
                assert_eq!(reference.to_string(), format!("{short}{suffix}"), "for `{text}`");
                assert_eq!(reference.to_string().parse(), Ok(reference), "for `{text}`");
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_is_wrong() {
        let long = "a".repeat(256);
        for (text, want) in [
            ("", "image name `` names no repository"),
            (":tag", "image name `:tag` names no repository"),
            ("localhost:5000/", "image name `localhost:5000/` names no repository"),
            (
                "https://ghcr.io/x",
                "image name `https://ghcr.io/x` is a URL: leave out what comes before the \
                 registry's host",
            ),
            (
                "ghcr.io/Team/x",
                "repository `Team/x` in image name `ghcr.io/Team/x` is not all lower case",
            ),
            ("Shop", "repository `library/Shop` in image name `Shop` is not all lower case"),
            ("Team/shop", "repository `Team/shop` in image name `Team/shop` is not all lower case"),
            ("-a.com/x", "`-a.com` in image name `-a.com/x` is not a registry's host"),
            ("a..com/x", "`a..com` in image name `a..com/x` is not a registry's host"),
            ("a.com:0/x", "`a.com:0` in image name `a.com:0/x` is not a registry's host"),
            (
                "a.com:70000/x",
                "`a.com:70000` in image name `a.com:70000/x` is not a registry's host",
            ),
            ("a.com:+80/x", "`a.com:+80` in image name `a.com:+80/x` is not a registry's host"),
            (
                "u@a.com/x",
                "`a.com/x` in image name `u@a.com/x` is not a digest: `sha256:` and 64 lower-case hex \
                 digits",
            ),
            ("[::g]:1/x", "`[::g]:1` in image name `[::g]:1/x` is not a registry's host"),
            (HEX, &format!("image name `{HEX}` looks like an image's id")),
            (&long, &format!("repository in image name `{long}` is longer than 255 characters")),
            (
                "x@sha256:12",
                "`sha256:12` in image name `x@sha256:12` is not a digest: `sha256:` and 64 lower-case \
                 hex digits",
            ),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), want, "for `{text}`");
        }
        for path in ["a//b", "a/", "/a", "a/../b", "a..b", "a___b", "_a", "a-", "a b", "ä", "a?b"]
        {
            let text = format!("ghcr.io/{path}");
            let error = text.parse::<Reference>().unwrap_err();
            let want = ReferenceError::Repository { name: text, repository: path.into() };
            assert_eq!(error, want);
        }
        for tag in ["", "-a", ".a", "a:b", "a b", "ä", &"t".repeat(129)] {
            let text = format!("ghcr.io/x:{tag}");
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error, ReferenceError::Tag { name: text, tag: tag.into() });
        }
    }

    #[test]
    fn latest_is_added_only_where_nothing_is_named() {
        for (text, want) in [
            ("shop", "shop:latest".to_owned()),
            ("shop:1", "shop:1".to_owned()),
            (&format!("shop@sha256:{HEX}"), format!("shop@sha256:{HEX}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.with_default_tag().to_string(), want);
        }
    }

    #[test]
    fn a_pinned_name_has_the_digest_in_place_of_the_tag() {
        let reference: Reference = "localhost:5000/shop:1".parse().unwrap();
        let pinned = reference.pinned(Digest::of(b"hello"));
        assert_eq!(pinned.to_string(), format!("localhost:5000/shop@sha256:{HEX}"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (registry, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.255.0.9:80", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("128.0.0.1", false),
            ("[::2]", false),
            ("0.0.0.0:5000", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(registry), want, "for `{registry}`");
        }
    }
}
