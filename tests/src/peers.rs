//! Programs that others wrote: what they read and run is what the rest of the world reads and runs.

use std::{env, path::Path, path::PathBuf, process::Command};

use crate::sandbox::PATH;

mod buildah;
mod docker;

pub use self::{buildah::Buildah, docker::Docker};

/// The path of a program, if it is there.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(PATH).map(|folder| folder.join(program)).find(|it| it.exists())
}

/// The path of a program, which `package` of Debian brings.
pub fn need(program: &str, package: &str) -> PathBuf {
    find(program).unwrap_or_else(|| {
        panic!("`{program}` is missing: install Debian's `{package}` (`bash tests/run` does)")
    })
}

/// Copies an image of a registry into an OCI layout, with `skopeo`.
pub fn skopeo_copy(from: &str, layout: &Path, credentials: &str) {
    let to = format!("oci:{}:latest", layout.display());
    let from = format!("docker://{from}");
    let mut args = vec!["copy", "--quiet", "--src-tls-verify=false"];
    if credentials.is_empty() {
        args.push("--src-no-creds");
    } else {
        args.extend(["--src-creds", credentials]);
    }
    args.extend([&*from, &*to]);
    run("skopeo", "skopeo", &args);
}

/// The manifest digest by which a registry knows an image, as `skopeo` sees it.
pub fn skopeo_digest(image: &str) -> String {
    let image = format!("docker://{image}");
    let args = ["inspect", "--tls-verify=false", "--no-creds", "--format", "{{.Digest}}", &image];
    run("skopeo", "skopeo", &args).trim().to_owned()
}

/// Unpacks the only image of an OCI layout into a bundle (`rootfs` and `config.json`), with `umoci`.
pub fn umoci_unpack(layout: &Path, bundle: &Path) {
    let layout = layout.display().to_string();
    let names = run("umoci", "umoci", &["list", "--layout", &layout]);
    let [name] = names.lines().collect::<Vec<_>>()[..] else { panic!("one image: {names}") };
    let image = format!("{layout}:{name}");
    run("umoci", "umoci", &["unpack", "--image", &image, &bundle.display().to_string()]);
}

/// Runs a program to its end, which must be a good one; returns what it printed.
#[track_caller]
pub fn run(program: &str, package: &str, args: &[&str]) -> String {
    let mut command = Command::new(need(program, package));
    String::from_utf8_lossy(&finish(command.args(args))).into_owned()
}

/// Runs a command to its end, which must be a good one; returns what it printed.
#[track_caller]
fn finish(command: &mut Command) -> Vec<u8> {
    // Names of files are what they are only in a locale that has UTF-8: `unzip` is one who asks.
    let output = command.env("LC_ALL", "C.UTF-8").output().expect("program that starts");
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    output.stdout
}
