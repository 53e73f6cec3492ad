//! Images that were made to do harm: each is refused with a clear error, in bounded time and memory,
//! writes nothing outside of the store, and leaves the store good.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rbuild_tests::{Finished, Sandbox, oracle::forge::gzip, store};
use serde_json::{Value, json};

use crate::{report, sandbox};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The most memory that any of these may take, in KiB: the goal, and what a program has that was
/// not optimised.
const MOST_MEMORY: u64 = 96 << 10;
/// The longest that any of these may take on a machine that is busy.
const LONGEST: Duration = Duration::from_mins(2);

/// A layer as its image tells of it.
struct Layer {
    media_type: &'static str,
    blob: Vec<u8>,
    diff_id: String,
}

impl Layer {
    fn tar(blob: Vec<u8>) -> Self {
        let diff_id = store::hex(&blob);
        Self { media_type: TAR, blob, diff_id }
    }

    /// Others would find out what it unpacks to.
    fn packed(media_type: &'static str, blob: Vec<u8>, tar: &[u8]) -> Self {
        Self { media_type, blob, diff_id: store::hex(tar) }
    }
}

/// A member of a tar stream, whatever is right: its name, type, target, and the size that it tells.
fn header(name: &str, kind: u8, target: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_device_major(1).expect("a device");
    header.set_device_minor(3).expect("a device");
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(name: &str, data: &str) -> Vec<u8> {
    let mut member = [&header(name, b'0', "", data.len() as u64), data.as_bytes()].concat();
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

/// Writes an image as an OCI layout, in which `change` may spoil manifest and config.
fn image(sandbox: &Sandbox, layers: &[Layer], change: &dyn Fn(&mut Value, &mut Value)) -> PathBuf {
    let root = sandbox.src().join("layout");
    let add = |bytes: &[u8]| {
        let hex = store::hex(bytes);
        sandbox.write(format!("layout/blobs/sha256/{hex}"), bytes);
        (format!("sha256:{hex}"), bytes.len())
    };
    let diff_ids: Vec<_> = layers.iter().map(|it| format!("sha256:{}", it.diff_id)).collect();
    let mut config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let described: Vec<_> = layers
        .iter()
        .map(|it| {
            let (digest, size) = add(&it.blob);
            json!({ "mediaType": it.media_type, "digest": digest, "size": size })
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": described,
    });
    change(&mut manifest, &mut config);
    let (digest, size) = add(config.to_string().as_bytes());
    manifest["config"] = json!({ "mediaType": CONFIG, "digest": digest, "size": size });
    let (digest, size) = add(manifest.to_string().as_bytes());
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST, "digest": digest, "size": size,
            "annotations": { "org.opencontainers.image.ref.name": "latest" },
        }],
    });
    sandbox.write("layout/index.json", index.to_string());
    sandbox.write("layout/oci-layout", "{\"imageLayoutVersion\": \"1.0.0\"}");
    root
}

/// Runs a program, and writes down how much memory it had at most, in KiB.
const SCRIPT: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], 'w').write(str(peak))
sys.exit(code)";

/// Builds on an image and copies all of it, and tells how much memory that took, in KiB.
fn build(sandbox: &Sandbox, layout: &std::path::Path) -> (Finished, u64) {
    let layout = layout.display();
    let dockerfile = format!(
        "FROM oci:{layout}:latest AS base\nCOPY hello /app/\n\
         FROM scratch\nCOPY --from=base / /all/\n"
    );
    sandbox.write("ctx/Dockerfile", dockerfile);
    sandbox.write("ctx/hello", "hello\n");
    let peak = sandbox.path().join("tmp/peak").display().to_string();
    let run = sandbox.rbuild(["image", "build", "-t", "x:latest", "ctx"]);
    let finished = run.under(["python3", "-c", SCRIPT, &peak]).within(LONGEST).go();
    let memory = fs::read_to_string(&peak).expect("peak").parse().expect("a number");
    fs::remove_file(peak).expect("peak");
    (finished, memory)
}

/// Everything of a sandbox that is not in the store.
fn outside(sandbox: &Sandbox) -> BTreeSet<PathBuf> {
    let all = ["src", "home", "tmp"].map(|it| store::files(&sandbox.path().join(it)));
    all.into_iter().flatten().collect()
}

type Change = fn(&mut Value, &mut Value);

fn none(_: &mut Value, _: &mut Value) {}

#[track_caller]
fn check(name: &str, layers: &[Layer], change: Change, want: Option<&str>) {
    let sandbox = sandbox(&[("../home/secret", "secret")]);
    let layout = image(&sandbox, layers, &change);
    sandbox.write("ctx/Dockerfile", "");
    sandbox.write("ctx/hello", "");
    let before = outside(&sandbox);
    let start = Instant::now();
    let (finished, memory) = build(&sandbox, &layout);
    let time = start.elapsed();
    match want {
        None => assert!(finished.status.success(), "{name}: {finished}"),
        Some(want) => {
            let code = finished.status.code();
            assert!(matches!(code, Some(2 | 3)), "{name}: {finished}");
            finished.fails(code.unwrap_or_default(), &[want]);
        }
    }
    assert!(memory < MOST_MEMORY, "{name}: {memory} KiB");
    assert_eq!(outside(&sandbox), before, "{name}: something was written outside");
    assert_eq!(store::unfinished(&sandbox.store()), 0, "{name}: something was left");
    sandbox.rbuild(["image", "ls"]).ok();
    store::assert_every_blob_is_whole(&sandbox.store());
    if Duration::from_secs(1) < time {
        report(&format!("attacks: {name}: {time:.1?}, {memory} KiB"));
    }
}

#[test]
fn names_do_not_lead_out() {
    let tar = |parts: &[Vec<u8>]| vec![Layer::tar(parts.concat())];
    let escapes = Some("leads outside of the root");
    for (name, layers, want) in [
        ("up", tar(&[file("../../home/x", "x")]), escapes),
        ("up in the middle", tar(&[file("a/../../x", "x")]), escapes),
        ("absolute", tar(&[file("/x", "x")]), None),
        ("a link out", tar(&[header("l", b'2', "../../../home", 0), file("l/x", "x")]), None),
        ("an absolute link", tar(&[header("l", b'2', "/", 0), file("l/x", "x")]), None),
        (
            "a link in another layer",
            vec![
                Layer::tar(header("l", b'2', "/../../home", 0)),
                Layer::tar(file("l/secret", "x")),
            ],
            None,
        ),
        ("a hard link out", tar(&[header("h", b'1', "../../../home/secret", 0)]), escapes),
        (
            "a hard link through a link",
            tar(&[header("l", b'2', "/../../home", 0), header("h", b'1', "l/secret", 0)]),
            Some("a hard link to `l/secret`, which is no file"),
        ),
        (
            "links in circles",
            tar(&[header("a", b'2', "b", 0), header("b", b'2', "a", 0), file("a/x", "x")]),
            Some("too many levels of symbolic links"),
        ),
        (
            "a link that replaces a folder with files",
            tar(&[file("d/x", "x"), header("d", b'2', "../../home", 0), file("d/y", "y")]),
            None,
        ),
        ("the root as a link", tar(&[header("./", b'2', "/", 0)]), Some("not a folder")),
        ("a device", tar(&[header("dev/null", b'3', "", 0), header("sda", b'4', "", 0)]), None),
        ("the root as a whiteout", tar(&[file(".wh.", "")]), escapes),
        ("a whiteout of the folder itself", tar(&[file("a/.wh..", "")]), escapes),
        ("a whiteout of the parent", tar(&[file("a/.wh...", "")]), escapes),
        ("a driver's note", tar(&[file("a/.wh..wh.x", "")]), None),
        ("in a whiteout", tar(&[file(".wh.a/x", "")]), Some("lies in what is removed")),
    ] {
        check(name, &layers, none, want);
    }
}

/// What is written in a few bytes, and is large.
#[test]
fn bombs_are_refused() {
    let large = "more than 1 GiB and 100 times its own size";
    let zeros = vec![0; 100_000_000];
    let many = |count: usize, start: Vec<u8>, again: &[u8]| {
        let again = gzip(again);
        let blob = [gzip(&start), again.repeat(count)].concat();
        vec![Layer::packed(GZIP, blob, b"")]
    };
    let folders = header("x", b'5', "", 0).repeat(20_000);
    let nested = {
        let path = "d/".repeat(2040);
        let size = path.len() as u64;
        let mut long = [&header("n", b'L', "", size), path.as_bytes()].concat();
        long.resize(long.len().next_multiple_of(512), 0);
        [long, header("d", b'5', "", 0)].concat()
    };
    let window = {
        // A frame whose window is of 2 GiB (RFC 8878, section 3.1.1.1.2).
        vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]
    };
    for (name, layers, want) in [
        (
            "10 GB of zeros in one file",
            many(100, header("x", b'0', "", 7 << 30), &zeros),
            Some(large),
        ),
        ("10 GB of zeros after the end", many(100, Vec::new(), &zeros), Some(large)),
        ("a million members", many(60, Vec::new(), &folders), Some("more than 1,000,000 members")),
        (
            "a name of 4 GB",
            many(100, header("x", b'L', "", 4 << 30), b""),
            Some("1 MiB of headers"),
        ),
        ("deep folders", vec![Layer::tar(nested)], None),
        ("a window of 2 GiB", vec![Layer::packed(ZSTD, window, b"")], Some("tar archive")),
        ("a PAX header of 2 GB", many(1, header("x", b'x', "", 2 << 30), b""), Some("headers")),
    ] {
        check(name, &layers, none, want);
    }
}

#[test]
fn images_that_lie_are_refused() {
    let tar = file("x", "data");
    let plain = || vec![Layer::tar(tar.clone())];
    let two = || vec![Layer::tar(tar.clone()), Layer::tar(tar.clone())];
    let packed = gzip(&tar);
    let gz = |blob: Vec<u8>| vec![Layer::packed(GZIP, blob, &tar)];
    let other = || vec![Layer { diff_id: store::hex(b"other"), ..Layer::tar(tar.clone()) }];
    let cases: Vec<(&str, Vec<Layer>, Change, Option<&str>)> = vec![
        ("nothing", plain(), none, None),
        ("a layer twice", two(), none, None),
        ("another diff_id", other(), none, Some("unpacks to")),
        ("a gzip that is cut", gz(packed[..packed.len() / 2].to_vec()), none, Some("tar archive")),
        ("a gzip and more", gz([&packed[..], b"more"].concat()), none, Some("tar archive")),
        ("a tar for a gzip", gz(tar.clone()), none, Some("is not compressed, and its media type")),
        ("a member that is cut", plain_of(&tar[..513]), none, Some("tar archive")),
        ("no tar", plain_of(b"no tar at all".repeat(99).as_slice()), none, Some("tar archive")),
        ("too few diff_ids", two(), |_, it| drop_last(it), Some("2 layers and its config 1")),
        ("too few layers", two(), |it, _| drop_layer(it), Some("1 layers and its config 2")),
        ("no layers", plain(), |it, _| it["layers"] = json!({}), Some("manifest")),
        ("another size", plain(), |it, _| it["layers"][0]["size"] = json!(7), Some("")),
        ("a huge size", plain(), |it, _| it["layers"][0]["size"] = json!(u64::MAX), Some("")),
        ("a negative size", plain(), |it, _| it["layers"][0]["size"] = json!(-1), Some("manifest")),
        (
            "another digest",
            plain(),
            |it, _| it["layers"][0]["digest"] = json!(format!("sha256:{}", store::hex(b"x"))),
            Some("2d711642b726"),
        ),
        (
            "a digest that is a path",
            plain(),
            |it, _| it["layers"][0]["digest"] = json!("sha256:../../../home/secret"),
            Some("digest"),
        ),
        (
            "no layer",
            plain(),
            |it, _| it["layers"][0]["mediaType"] = json!("text/plain"),
            Some("text/plain"),
        ),
        (
            "a layer that is not to be had",
            plain(),
            |it, _| {
                it["layers"][0]["mediaType"] =
                    json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
            },
            Some("must not be distributed"),
        ),
    ];
    for (name, layers, change, want) in cases {
        check(name, &layers, change, want);
    }
}

fn plain_of(blob: &[u8]) -> Vec<Layer> {
    vec![Layer::tar(blob.to_vec())]
}

fn drop_last(config: &mut Value) {
    config["rootfs"]["diff_ids"].as_array_mut().expect("diff_ids").pop();
}

fn drop_layer(manifest: &mut Value) {
    manifest["layers"].as_array_mut().expect("layers").pop();
}
