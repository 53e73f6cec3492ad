//! A file of more than 8 GiB, whose size a plain tar header does not hold, is read by others.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use rbuild_tests::{Run, Sandbox, peers, servers::Registry};
use serde_json::Value;

use crate::{EPOCH, digest, is_soak, push, report, sandbox};

const SIZE: u64 = (8 << 30) + 5;
const LONG: Duration = Duration::from_mins(30);

/// It takes minutes, and so belongs to the soak. The short version of this is a test of the header
/// alone, in `imagebuilder::layer`.
#[test]
fn a_file_that_tar_could_once_not_hold_is_read_by_others() {
    if !is_soak() {
        return;
    }
    let dockerfile = "FROM scratch\nCOPY large last /\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile), ("ctx/last", "last\n")]);
    let large = File::create(sandbox.src().join("ctx/large")).expect("a file");
    large.set_len(SIZE).expect("a sparse file");
    let name = Registry::shared().image("readers/large:1");
    let args = ["image", "build", "-t", &name, "-t", "saved:latest", "ctx"];
    let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).within(LONG).ok();
    let built = digest(built.line());
    assert_eq!(push(&sandbox, &name), built);
    assert_eq!(peers::skopeo_digest(&name), built);
    let layout = sandbox.path().join("layout");
    peers::skopeo_copy(&name, &layout, "");

    let layer = layer(&layout, &built);
    report(&format!("readers: {SIZE} bytes are a layer of {}", layer.1));
    let listed = python(&sandbox, &layer.0).line().to_owned();
    assert_eq!(listed, format!("large {SIZE} last 5 b'last\\n'"));
    let listed = sandbox.run("tar", ["-tvzf", &layer.0]).within(LONG).ok().stdout;
    let sizes: Vec<_> = listed.lines().filter_map(|it| it.split_whitespace().nth(2)).collect();
    assert_eq!(sizes, [SIZE.to_string(), "5".to_owned()], "{listed}");

    let bundle = sandbox.path().join("bundle");
    peers::umoci_unpack(&layout, &bundle);
    assert_eq!(fs::metadata(bundle.join("rootfs/large")).expect("a file").len(), SIZE);
    assert_eq!(fs::read(bundle.join("rootfs/last")).expect("a file"), b"last\n");
}

/// The path of the only layer of an image in a layout, and its size.
fn layer(layout: &Path, digest: &str) -> (String, u64) {
    let blob =
        |digest: &str| layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let manifest = fs::read(blob(digest)).expect("manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let layer = &manifest["layers"][0];
    let path = blob(layer["digest"].as_str().expect("digest of a layer"));
    (path.display().to_string(), layer["size"].as_u64().expect("size of a layer"))
}

/// What Python makes of it.
fn python(sandbox: &Sandbox, layer: &str) -> rbuild_tests::Finished {
    let script = "import sys, tarfile\nt = tarfile.open(sys.argv[1])\n\
                  print(*[w for i in t for w in (i.name, i.size)], t.extractfile('last').read())";
    let run: Run = sandbox.run("python3", ["-c", script, layer]);
    run.within(LONG).ok()
}
