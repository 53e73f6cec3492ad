//! References to images, as deployment files hold them.
//!
//! **Architecture invariant:** a reference holds no character that has a meaning in JSON, YAML,
//! or a template; so putting one into a file cannot break the file.

use std::fmt;

use thiserror::Error;

/// A reference to an image, by digest or by tag: `host/repository:tag@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUri {
    text: String,
    host: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why some text is not a reference that can be deployed.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ImageUriError {
    /// A character that no reference has.
    #[error("`{uri}` is not an image: no image has `{found}` in its name")]
    Character {
        /// The text.
        uri: String,
        /// The character.
        found: char,
    },
    /// A part of the name is empty.
    #[error("`{uri}` is not an image: a part of its name is empty")]
    Empty {
        /// The text.
        uri: String,
    },
    /// What follows the `@` is not a digest.
    #[error("`{digest}` in `{uri}` is not a digest: `sha256:` and 64 hexadecimal digits")]
    Digest {
        /// The text.
        uri: String,
        /// What should be a digest.
        digest: String,
    },
    /// It names a tag, or nothing, where a digest is needed.
    #[error("`{uri}` has no digest, and a tag can move to another image")]
    Unpinned {
        /// The text.
        uri: String,
    },
}

impl ImageUri {
    /// Parses a reference, by digest or by tag.
    pub fn parse(uri: &str) -> Result<Self, ImageUriError> {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '@');
        if let Some(found) = uri.chars().find(|&c| !allowed(c)) {
            return Err(ImageUriError::Character { uri: uri.to_owned(), found });
        }
        let (name, digest) = match uri.split_once('@') {
            Some((name, digest)) => (name, Some(checked_digest(uri, digest)?)),
            None => (uri, None),
        };
        let (host, path) = split_host(name);
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.split('/').any(str::is_empty) || tag.is_some_and(str::is_empty) {
            return Err(ImageUriError::Empty { uri: uri.to_owned() });
        }
        Ok(Self {
            text: uri.to_owned(),
            host: host.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The same reference, if it is by digest.
    pub fn pinned(self) -> Result<Self, ImageUriError> {
        if self.digest.is_none() {
            return Err(ImageUriError::Unpinned { uri: self.text });
        }
        Ok(self)
    }

    /// The reference as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name in its registry, without host, tag and digest.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The host of its registry, with a port if it has one; a name in a local store has none.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

impl fmt::Display for ImageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn checked_digest(uri: &str, digest: &str) -> Result<String, ImageUriError> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(is_digit) => Ok(digest.to_owned()),
        _ => Err(ImageUriError::Digest { uri: uri.to_owned(), digest: digest.to_owned() }),
    }
}

/// The first part of a name is a host if it cannot be a part of a repository's name.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => {
            (Some(host), path)
        }
        _ => (None, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_fall_into_their_parts() {
        let digest = format!("sha256:{HEX}");
        for (name, host, repository, tag) in [
            ("shop", None, "shop", None),
            ("team/shop:v1", None, "team/shop", Some("v1")),
            ("localhost/shop", Some("localhost"), "shop", None),
            ("127.0.0.1:5000/team/shop", Some("127.0.0.1:5000"), "team/shop", None),
            ("registry.example/a/b/c:v2", Some("registry.example"), "a/b/c", Some("v2")),
        ] {
            let uri = ImageUri::parse(&format!("{name}@{digest}")).unwrap().pinned().unwrap();
            let found = (uri.host(), uri.repository(), uri.tag(), uri.digest());
            assert_eq!(found, (host, repository, tag, Some(digest.as_str())), "for `{name}`");
        }
    }

    #[test]
    fn what_is_not_a_reference_says_why() {
        for (uri, want) in [
            ("sh op", "`sh op` is not an image: no image has ` ` in its name"),
            ("a\"b", "`a\"b` is not an image: no image has `\"` in its name"),
            ("<A>", "`<A>` is not an image: no image has `<` in its name"),
            ("", "`` is not an image: a part of its name is empty"),
            ("a//b", "`a//b` is not an image: a part of its name is empty"),
            ("a.example/", "`a.example/` is not an image: a part of its name is empty"),
            ("shop:", "`shop:` is not an image: a part of its name is empty"),
            (
                "shop@sha256:abc",
                "`sha256:abc` in `shop@sha256:abc` is not a digest: `sha256:` and 64 hexadecimal digits",
            ),
            ("shop:v1", "`shop:v1` has no digest, and a tag can move to another image"),
        ] {
            let err = ImageUri::parse(uri).and_then(ImageUri::pinned).unwrap_err();
            assert_eq!(err.to_string(), want);
        }
    }

    #[test]
    fn a_tag_is_enough_where_that_is_allowed() {
        let uri = ImageUri::parse("shop:v1").unwrap();
        assert_eq!((uri.tag(), uri.digest()), (Some("v1"), None));
    }
}
