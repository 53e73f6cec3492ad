//! Buildah as Debian has it, with a storage of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use super::{finish, need};
use crate::scratch::Scratch;

/// A storage of buildah's, which is removed with its value.
#[derive(Debug)]
pub struct Buildah {
    driver: &'static str,
    dir: Scratch,
}

impl Buildah {
    /// An empty storage that needs nothing of the file system: each layer is a whole copy.
    pub fn new() -> Self {
        Self { driver: "vfs", dir: Scratch::new() }
    }

    /// An empty storage with overlays, in a folder of its own there.
    pub fn below(folder: &Path) -> Self {
        Self { driver: "overlay", dir: Scratch::below(folder) }
    }

    /// A command. What it mounts, nobody else sees.
    pub fn command(&self) -> Command {
        let mut command = Command::new(need("unshare", "util-linux"));
        command.args(["--mount", "--propagation", "private"]).arg(need("buildah", "buildah"));
        command.arg("--root").arg(self.dir.join("root"));
        command.arg("--runroot").arg(self.dir.join("run"));
        command.args(["--storage-driver", self.driver]);
        command
    }

    /// Runs it to its end, which must be a good one; returns what it printed.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        String::from_utf8_lossy(&finish(self.command().args(args))).into_owned()
    }

    /// The root filesystem of an image (`docker://…`, `oci:…`), as it lies on disk.
    ///
    /// Paths are looked for in `folder`: buildah makes a name of an image's path, and refuses
    /// capital letters in it.
    #[track_caller]
    pub fn mount(&self, folder: &Path, image: &str) -> PathBuf {
        let args = ["from", "--tls-verify=false", "--pull-always", image];
        let container = finish(self.command().args(args).current_dir(folder));
        let container = String::from_utf8_lossy(&container);
        PathBuf::from(self.run(["mount", container.trim()]).trim())
    }
}

impl Default for Buildah {
    fn default() -> Self {
        Self::new()
    }
}
