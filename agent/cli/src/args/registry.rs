//! What a person may type about registries.

use std::{fmt, ops::RangeInclusive, path::PathBuf, str::FromStr};

use super::IMAGES;

/// Seconds after which a connection may be given up.
pub(super) const IDLE_SECONDS: RangeInclusive<u64> = 1..=3600;

/// How registries are reached.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Registries {
    /// Pull what PREFIX names from LOCATION first; may be repeated
    ///
    /// [env: `RBUILD_REGISTRY_MIRRORS`]
    ///
    /// It goes before the mirrors in registries.conf, which is looked for in
    /// `$CONTAINERS_REGISTRIES_CONF`, ~/.config/containers and /etc/containers.
    #[arg(
        long,
        global = true,
        value_name = "PREFIX=LOCATION",
        value_delimiter = ',',
        help_heading = IMAGES
    )]
    pub(crate) registry_mirror: Vec<Mirror>,

    /// Trust the certificates in this PEM file too, for all registries; may be repeated
    ///
    /// [env: `RBUILD_REGISTRY_CA`]
    ///
    /// Those in /etc/docker/certs.d/HOST and /etc/containers/certs.d/HOST are trusted for HOST.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = IMAGES
    )]
    pub(crate) registry_ca: Vec<PathBuf>,

    /// Give a connection up after this many seconds in which nothing came or went
    #[arg(
        long = "registry-timeout",
        global = true,
        hide = true,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(IDLE_SECONDS),
        help_heading = IMAGES
    )]
    pub(crate) idle_timeout: Option<u64>,
}

/// A mirror, for what a prefix names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) prefix: String,
    pub(crate) location: String,
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.location)
    }
}

impl FromStr for Mirror {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((prefix, location)) if !prefix.is_empty() && !location.is_empty() => {
                Ok(Self { prefix: prefix.into(), location: location.into() })
            }
            _ => Err("write it as PREFIX=LOCATION: docker.io=mirror.example.com"),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "The credential is tried before it is kept. It is kept in
~/.docker/config.json, or by the credential helper that is named there.
For ECR no login is needed: passwords come from AWS when they are.

Examples:
  rbuild login -u ann registry.example.com
  echo $TOKEN | rbuild login -u ann --password-stdin ghcr.io")]
pub(crate) struct Login {
    /// The user [default: asked for]
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,

    /// Read the password from standard input [default: asked for]
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,

    /// The registry's host, with its port if it has one
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rbuild logout registry.example.com")]
pub(crate) struct Logout {
    /// The registry's host, with its port if it has one
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Prints NAME@sha256:… for each.

Credentials are those of docker (~/.docker/config.json); for ECR they come from AWS.
Layers of a base are mounted from its repository where the registry allows it.
Example: rbuild image push 123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:1")]
pub(crate) struct Push {
    #[command(flatten)]
    pub(crate) pushing: Pushing,

    /// Print JSON, an object for each image
    #[arg(long)]
    pub(crate) json: bool,

    /// Names of images in the store
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// How images are pushed.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is given or not")]
pub(crate) struct Pushing {
    /// Do not fail on a tag that cannot be changed if it is this very image
    ///
    /// A tag that is another image is an error all the same: what is deployed by it would not be
    /// what was built. (kaniko's --ignore-immutable-tag-errors succeeds then.)
    #[arg(long)]
    pub(crate) ignore_immutable: bool,

    /// Create the repository if it is not there (ECR)
    #[arg(long)]
    pub(crate) create_repository: bool,

    /// Scan the images of a repository that is created when they are pushed
    #[arg(long, requires = "create_repository")]
    pub(crate) repository_scan_on_push: bool,

    /// How a repository that is created is encrypted
    #[arg(long, requires = "create_repository", value_name = "AES256|KMS[:KEY]")]
    pub(crate) repository_encryption: Option<Encryption>,

    /// Let no tag of a repository that is created be changed
    #[arg(long, requires = "create_repository")]
    pub(crate) repository_immutable: bool,
}

/// How ECR encrypts a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// With keys of S3.
    Aes256,
    /// With a key of KMS: ECR's own if none is named.
    Kms(Option<String>),
}

impl FromStr for Encryption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "AES256" => Ok(Self::Aes256),
            None if text == "KMS" => Ok(Self::Kms(None)),
            Some(("KMS", key)) if !key.is_empty() => Ok(Self::Kms(Some(key.into()))),
            _ => Err("it is `AES256`, `KMS`, or `KMS:` and a key"),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Prints NAME@sha256:… for each.

Example: rbuild image pull public.ecr.aws/docker/library/busybox:latest")]
pub(crate) struct Pull {
    /// Pull the images for all platforms, and the index that names them
    #[arg(long)]
    pub(crate) all_platforms: bool,

    /// Print JSON, an object for each image
    #[arg(long)]
    pub(crate) json: bool,

    /// Names of images in registries
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryptions_and_mirrors_are_read() {
        let arn = "arn:aws:kms:eu-west-1:123456789012:key/k";
        for (text, want) in [
            ("AES256", Ok(Encryption::Aes256)),
            ("KMS", Ok(Encryption::Kms(None))),
            (&format!("KMS:{arn}"), Ok(Encryption::Kms(Some(arn.into())))),
            ("KMS:", Err(())),
            ("aes", Err(())),
        ] {
            assert_eq!(text.parse::<Encryption>().map_err(|_| ()), want, "for `{text}`");
        }
        let mirror: Mirror = "docker.io=a.com/b".parse().unwrap();
        assert_eq!((mirror.prefix.as_str(), mirror.location.as_str()), ("docker.io", "a.com/b"));
        assert!("docker.io".parse::<Mirror>().is_err());
    }
}
