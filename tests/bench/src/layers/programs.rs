//! The programs that build images and push them, each with a storage and a registry of its own;
//! and what no program can be faster than.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use clap::ValueEnum;
use rbuild_tests::{
    peers::{self, Buildah, Docker},
    servers::Registry,
};

use super::{
    meter::{self, Cost},
    trees::Tree,
};

/// Another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// `docker build` (`BuildKit`) and `docker push`
    Docker,
    /// `buildah bud --layers` and `buildah push`
    Buildah,
    /// `umoci insert` and `skopeo copy`
    Umoci,
    /// rbuild with `--compression zstd`, for registries and machines that take it
    Zstd,
    /// `curl` sends the layer that rbuild made last, and nothing else: what its registry takes
    Curl,
}

/// Builds images and pushes them.
pub(crate) trait Program {
    /// Its name, for people.
    fn name(&self) -> &'static str;
    /// Makes all its caches empty. What was in them is kept until the end.
    fn reset(&mut self) -> io::Result<()>;
    /// Builds an image of a tree, and pushes it to this repository.
    fn build_and_push(&mut self, tree: &Tree, repository: &str) -> io::Result<Cost>;
}

/// rbuild, and those of the others that are installed.
pub(crate) fn all(
    rbuild: &Path,
    work: &Path,
    is_one_command: bool,
    wanted: &[Name],
) -> Vec<Box<dyn Program>> {
    let way = if is_one_command { Way::OneCommand } else { Way::TwoCommands };
    let registry = || Rc::new(Registry::start_below(work));
    let (program, below) = (rbuild.to_owned(), work.to_owned());
    let rbuild = Rbuild::new(program.clone(), Compression::Default, way, below, registry());
    let ours = Rc::clone(&rbuild.registry);
    let mut programs: Vec<Box<dyn Program>> = vec![Box::new(rbuild)];
    for name in Name::value_variants() {
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        let (needed, package): (&[&str], _) = match name {
            Name::Zstd => (&[], "none"),
            Name::Docker => (&["dockerd", "docker"], "docker.io"),
            Name::Buildah => (&["buildah", "unshare"], "buildah"),
            Name::Umoci => (&["umoci", "skopeo"], "umoci skopeo"),
            Name::Curl => (&["curl", "awk"], "curl"),
        };
        if let Some(missing) = needed.iter().find(|it| peers::find(it).is_none()) {
            crate::report(&format!(
                "!!! {name:?} IS LEFT OUT: `{missing}` is missing (Debian's {package})"
            ));
            continue;
        }
        let (work, registry) = (work.to_owned(), registry());
        programs.push(match name {
            Name::Zstd => {
                Box::new(Rbuild::new(program.clone(), Compression::Zstd, way, work, registry))
            }
            Name::Docker => Box::new(WithDocker { work, daemons: Vec::new(), registry }),
            Name::Buildah => Box::new(WithBuildah { work, storages: Vec::new(), registry }),
            Name::Umoci => Box::new(WithUmoci { work, layouts: 0, registry }),
            Name::Curl => Box::new(WithCurl { ours: Rc::clone(&ours), uploads: 0, registry }),
        });
    }
    programs
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    OneCommand,
    TwoCommands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Default,
    Zstd,
}

struct Rbuild {
    program: PathBuf,
    compression: Compression,
    way: Way,
    work: PathBuf,
    resets: usize,
    registry: Rc<Registry>,
}

impl Rbuild {
    fn new(
        program: PathBuf,
        compression: Compression,
        way: Way,
        work: PathBuf,
        registry: Rc<Registry>,
    ) -> Self {
        Self { program, compression, way, work, resets: 0, registry }
    }
}

impl Program for Rbuild {
    fn name(&self) -> &'static str {
        match self.compression {
            Compression::Default => "rbuild",
            Compression::Zstd => "rbuild, zstd",
        }
    }

    fn reset(&mut self) -> io::Result<()> {
        self.resets += 1;
        Ok(())
    }

    fn build_and_push(&mut self, tree: &Tree, repository: &str) -> io::Result<Cost> {
        let image = self.registry.image(&format!("{repository}/{}:1", tree.name()));
        let run = |args: &[&str]| {
            let mut command = Command::new(&self.program);
            let store = format!("store-{}-{:?}", self.resets, self.compression);
            command.arg("--store").arg(self.work.join(store));
            command.arg("image").args(args);
            command
        };
        let mut build = run(&["build", "--json", "-t", &image]);
        if self.compression == Compression::Zstd {
            build.args(["--compression", "zstd"]);
        }
        if self.way == Way::OneCommand {
            build.arg("--push");
        }
        build.arg("-f").arg(tree.dockerfile()).arg(tree.context());
        let push = run(&["push", &image]);
        let commands = match self.way {
            Way::OneCommand => vec![build],
            Way::TwoCommands => vec![build, push],
        };
        meter::measure(commands, None, Some(&self.registry))
    }
}

struct WithDocker {
    work: PathBuf,
    daemons: Vec<Docker>,
    registry: Rc<Registry>,
}

impl Program for WithDocker {
    fn name(&self) -> &'static str {
        "docker build, push"
    }

    fn reset(&mut self) -> io::Result<()> {
        if let Some(last) = self.daemons.last_mut() {
            last.stop();
        }
        self.daemons.push(Docker::start_below(&self.work));
        Ok(())
    }

    fn build_and_push(&mut self, tree: &Tree, repository: &str) -> io::Result<Cost> {
        let docker = self.daemons.last().ok_or_else(|| io::Error::other("no daemon"))?;
        let image = self.registry.image(&format!("{repository}/{}:1", tree.name()));
        let (mut build, mut push) = (docker.command(), docker.command());
        build.args(["build", "-t", &image, "-f"]).arg(tree.dockerfile()).arg(tree.context());
        push.args(["push", &image]);
        meter::measure(vec![build, push], Some(docker.process_id()), Some(&self.registry))
    }
}

struct WithBuildah {
    work: PathBuf,
    storages: Vec<Buildah>,
    registry: Rc<Registry>,
}

impl Program for WithBuildah {
    fn name(&self) -> &'static str {
        "buildah bud, push"
    }

    fn reset(&mut self) -> io::Result<()> {
        self.storages.push(Buildah::below(&self.work));
        Ok(())
    }

    fn build_and_push(&mut self, tree: &Tree, repository: &str) -> io::Result<Cost> {
        let buildah = self.storages.last().ok_or_else(|| io::Error::other("no storage"))?;
        let image = self.registry.image(&format!("{repository}/{}:1", tree.name()));
        let (mut build, mut push) = (buildah.command(), buildah.command());
        build.args(["bud", "--layers", "-t", &image, "-f"]).arg(tree.dockerfile());
        build.arg(tree.context());
        push.args(["push", "--tls-verify=false", &image]);
        meter::measure(vec![build, push], None, Some(&self.registry))
    }
}

struct WithUmoci {
    work: PathBuf,
    layouts: usize,
    registry: Rc<Registry>,
}

impl Program for WithUmoci {
    fn name(&self) -> &'static str {
        "umoci insert, skopeo"
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// It knows no cache: each time is the first.
    fn build_and_push(&mut self, tree: &Tree, repository: &str) -> io::Result<Cost> {
        self.layouts += 1;
        let layout = self.work.join(format!("layout-{}", self.layouts)).display().to_string();
        let name = format!("{layout}:1");
        let target = self.registry.image(&format!("{repository}/{}:1", tree.name()));
        let (from, to) = (format!("oci:{name}"), format!("docker://{target}"));
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        let context = tree.context().display().to_string();
        let commands = vec![
            run("umoci", &["init", "--layout", &layout]),
            run("umoci", &["new", "--image", &name]),
            run("umoci", &["insert", "--image", &name, &context, "/srv"]),
            run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to]),
        ];
        meter::measure(commands, None, Some(&self.registry))
    }
}

struct WithCurl {
    /// Where rbuild pushes to.
    ours: Rc<Registry>,
    uploads: usize,
    registry: Rc<Registry>,
}

/// One PATCH, as what a builder does not know the digest of yet has to be sent, then PUT.
const UPLOAD: &str = r#"
set -eu
location() { tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }'; }
send() { curl --silent --show-error --fail --dump-header - --output /dev/null "$@"; }
to=$(send --request POST "$1" | location)
to=$(send --request PATCH --upload-file "$2" --header 'Content-Type: application/octet-stream' "$to" | location)
send --request PUT "$to&digest=sha256:$3" >/dev/null
"#;

impl Program for WithCurl {
    fn name(&self) -> &'static str {
        "curl, the layer alone"
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn build_and_push(&mut self, _: &Tree, repository: &str) -> io::Result<Cost> {
        let (digest, blob) = self.ours.newest_blob(LAYER)?;
        self.uploads += 1;
        let url = format!(
            "http://{}/v2/{repository}/curl-{}/blobs/uploads/",
            self.registry.host(),
            self.uploads
        );
        let mut command = Command::new("sh");
        command.args(["-c", UPLOAD, "sh", &url]).arg(blob).arg(digest);
        meter::measure(vec![command], None, Some(&self.registry))
    }
}

/// What is larger is a layer, in bytes.
const LAYER: u64 = 1 << 20;

/// A plain command that does a part of the work.
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
}

/// The name of the limit that a no-op is compared with.
pub(crate) const WALK: &str = "find -ls";

/// The limits; the last of them writes a copy of the tree.
pub(crate) fn limits(tree: &Tree, copy: &Path) -> Vec<Limit> {
    let shell = |name, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(tree.context()).arg(copy);
        Limit { name, command }
    };
    vec![
        shell(WALK, "exec find \"$1\" -ls >/dev/null"),
        shell("tar | openssl dgst -sha256", "tar -C \"$1\" -cf - . | openssl dgst -sha256"),
        shell("tar | gzip -6", "tar -C \"$1\" -cf - . | gzip -6 >/dev/null"),
        shell("cp -a", "exec cp -a \"$1\" \"$2\""),
    ]
}
