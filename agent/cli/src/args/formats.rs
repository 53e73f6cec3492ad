//! What may be typed to carry images in files, and between files, registries and the store.

use std::path::PathBuf;

/// The format in which images are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// An OCI layout: digests are kept
    Oci,
    /// What `docker load` reads: image ids are kept, digests are not
    #[value(alias = "docker")]
    DockerArchive,
}

/// The media types that an image gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MediaTypes {
    /// Those of the OCI image specification
    #[default]
    Oci,
    /// Docker's own (version 2, schema 2), for what reads no others
    Docker,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rbuild image save --format oci -o shop.tar shop:1
  rbuild image save --format oci -o layout/ shop:1 shop:2
  rbuild image save --format docker-archive shop:1 | docker load")]
pub(crate) struct Save {
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    pub(crate) format: Format,
    /// A file; with `--format oci` a folder, unless it ends in `.tar` [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Names, digests, or their first digits (six or more)
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Archives may be compressed with gzip or zstd. Of an image for several \
platforms, the one for this machine is loaded.

Examples:
  rbuild image load -i shop.tar
  docker save shop:1 | rbuild image load")]
pub(crate) struct Load {
    /// A folder or an archive [default: an archive on standard input]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "SOURCE and TARGET are each one of
  docker://NAME               an image in a registry; a plain NAME is the same
  oci:PATH[:NAME]             an OCI layout: a folder, or an archive if PATH ends in .tar
  docker-archive:FILE[:NAME]  what `docker save` writes and `docker load` reads
  store:NAME                  an image in rbuild's own store

Without NAME, a file's only image is meant, and the copy is called what the source is called.
An image is added to a folder; a file that is there is not replaced (`image save -o` does that).
Digests are kept, but in docker archives: they have no manifests, and just keep the image's id.
From registry to registry nothing is kept on this machine. Prints the digest.

Examples:
  rbuild image copy docker://public.ecr.aws/docker/library/busybox:1 store:busybox:1
  rbuild image copy --all registry.example.com/shop:1 \\
    123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:1
  rbuild image copy --platform linux/arm64 oci:layout:1 docker-archive:shop.tar:shop:1")]
pub(crate) struct Copy {
    /// Copy the images for all platforms, and the index that names them
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all: bool,
    /// Copy the image for this platform [default: this machine's, if there are several]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Print JSON in place of the digest
    #[arg(long)]
    pub(crate) json: bool,
    /// What to copy
    pub(crate) source: String,
    /// Where to
    pub(crate) target: String,
}
