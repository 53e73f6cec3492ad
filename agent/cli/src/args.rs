//! What a person may type. The comments are the help text.

use std::path::PathBuf;

use clap_complete::Shell;

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod deploy;
pub(crate) mod docker;
mod environment;
pub(crate) mod formats;
mod layers;
pub(crate) mod registry;
pub(crate) mod run;

pub(crate) use run::{Log, Packaging, Run};

/// From a commit to running containers: runs CodeBuild buildspecs, builds images, deploys to ECS
#[derive(Debug, clap::Parser)]
#[command(
    name = "rbuild",
    bin_name = "rbuild",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  rbuild run                                  run ./buildspec.yml as CodeBuild does
  rbuild check                                say what is wrong with it
  rbuild image build -t shop:1 .              build an image, no daemon, no privilege
  rbuild image push 123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:1
  rbuild deploy render --image IMAGE1_NAME=REPO@sha256:… -o out

Exit status: 0 done, 1 the build failed, 2 a file or argument is wrong,
3 machine, network or service, 128+n stopped by signal n."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const IMAGES: &str = "Images";

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Keep images and caches in this folder [default: ~/.cache/rbuild]
    ///
    /// [env: `RBUILD_STORE`]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = IMAGES
    )]
    pub(crate) store: Option<PathBuf>,

    /// Prune the store when it is larger [default: 20GiB, or a tenth of the disk; 0: never]
    ///
    /// [env: `RBUILD_STORE_LIMIT`]
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        value_parser = cache::size,
        help_heading = IMAGES
    )]
    pub(crate) max_store_size: Option<u64>,

    /// Speak plain HTTP to this registry (loopback hosts always are); may be repeated
    ///
    /// [env: `RBUILD_INSECURE_REGISTRIES`]
    #[arg(
        long,
        global = true,
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        help_heading = IMAGES
    )]
    pub(crate) insecure_registry: Vec<String>,

    #[command(flatten)]
    pub(crate) registries: registry::Registries,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a buildspec as CodeBuild does
    Run(Box<Run>),
    /// Say what is wrong with buildspecs, without running them
    Check(check::Check),
    /// Print the JSON Schema of buildspecs, or of events
    Schema(check::Schema),
    /// Build, list, carry and remove container images
    #[command(subcommand)]
    Image(Image),
    /// Log in to a registry, and keep the credential where docker has it
    Login(registry::Login),
    /// Forget the credential of a registry
    Logout(registry::Logout),
    /// Say what the store takes, prune it, verify it
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Render deployment files, and deploy to ECS
    #[command(subcommand)]
    Deploy(deploy::Deploy),
    /// Print what makes a shell complete rbuild's commands
    #[command(after_help = "Example: rbuild completions bash > /etc/bash_completion.d/rbuild")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a folder
    #[command(after_help = "Example: rbuild man /usr/local/share/man/man1")]
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Print the version
    Version,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Build an image from a Dockerfile
    Build(ImageBuild),
    /// List images
    #[command(after_help = "Example: rbuild image ls --json | jq -r '.[].names[]'")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print an image's manifest and config as JSON
    #[command(after_help = "Example: rbuild image inspect shop:1 | jq .config.config.Env")]
    Inspect {
        /// A name, a digest, or its first digits (six or more)
        image: String,
    },
    /// Remove names, and images that have none left
    #[command(after_help = "Example: rbuild image rm shop:1 shop:2")]
    Rm {
        /// Names, digests, or their first digits (six or more)
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image another name
    #[command(after_help = "Example: rbuild image tag shop:1 registry.example.com/shop:1")]
    Tag {
        /// A name, a digest, or its first digits (six or more)
        source: String,
        /// The new name
        target: String,
    },
    /// Write images as an OCI layout, or as a docker archive
    Save(formats::Save),
    /// Read images from an OCI layout, or from a docker archive
    Load(formats::Load),
    /// Copy an image between registries, OCI layouts, docker archives and the store
    Copy(formats::Copy),
    /// Push images to their registries
    Push(registry::Push),
    /// Pull images from their registries
    Pull(registry::Pull),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Prints the digest of the image's manifest.

Examples:
  rbuild image build -t shop:1 .
  rbuild image build -f docker/Dockerfile --build-arg VERSION=1.2 --target app -t app .
  SOURCE_DATE_EPOCH=0 rbuild image build .    the same digest on every machine")]
#[command(
    mut_arg("ignore_immutable", |it| it.requires("push")),
    mut_arg("create_repository", |it| it.requires("push")),
    mut_arg("repository_scan_on_push", |it| it.requires("push")),
    mut_arg("repository_encryption", |it| it.requires("push")),
    mut_arg("repository_immutable", |it| it.requires("push"))
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is given or not")]
pub(crate) struct ImageBuild {
    /// The Dockerfile; `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// A name for the image; may be repeated
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,

    /// Set an ARG; without a value it is taken from the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,

    /// Build this stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// What the image is for: only this machine's platform, which is the default
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,

    /// The media types of the image
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: formats::MediaTypes,

    /// Do every step again
    #[arg(long)]
    pub(crate) no_cache: bool,

    /// Ask no registry: bases must be in the store
    #[arg(long)]
    pub(crate) offline: bool,

    #[command(flatten)]
    pub(crate) layers: layers::Layers,

    /// Write the digest into this file too
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Print JSON in place of the digest
    #[arg(long)]
    pub(crate) json: bool,

    /// Push the image under all its names, and print NAME@sha256:… for each
    #[arg(long, requires = "tags")]
    pub(crate) push: bool,

    #[command(flatten)]
    pub(crate) pushing: registry::Pushing,

    /// The folder that COPY and ADD copy from
    pub(crate) context: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
