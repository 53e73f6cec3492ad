//! Images in all forms: what others write is read, what others read is written, and images stay
//! what they are on every way between registries, layouts, archives and the store.

use std::{fs, path::Path};

use rbuild_tests::{Sandbox, peers, peers::Docker, servers::Registry, store};
use serde_json::{Value, json};

use crate::{build, digest, push, sandbox, sandbox_with_context};

fn path(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).display().to_string()
}

/// What the program says of an image of its store.
fn inspect(sandbox: &Sandbox, name: &str) -> Value {
    let text = sandbox.rbuild(["image", "inspect", name]).ok().stdout;
    serde_json::from_str(&text).expect("JSON")
}

/// The image's id and its layers: what no format may change.
fn identity(sandbox: &Sandbox, name: &str) -> (Value, Value) {
    let it = inspect(sandbox, name);
    (it["id"].clone(), it["config"]["rootfs"]["diff_ids"].clone())
}

fn copy(sandbox: &Sandbox, from: &str, to: &str) -> String {
    digest(sandbox.rbuild(["image", "copy", from, to]).ok().line())
}

#[test]
fn docker_loads_what_is_saved_and_what_docker_saves_is_loaded() {
    let (sandbox, other) = (sandbox_with_context(), sandbox(&[]));
    let dockerfile = "FROM scratch\nCOPY hello /a\nCOPY hello /b\nHEALTHCHECK CMD [\"/a\"]\n";
    sandbox.write("ctx/Dockerfile", dockerfile);
    build(&sandbox, "shop:1");
    let docker = Docker::shared();
    let (saved, again) = (path(&sandbox, "saved.tar"), path(&sandbox, "again.tar"));
    let args = ["image", "save", "--format", "docker-archive", "-o", &saved, "shop:1"];
    sandbox.rbuild(args).ok();
    docker.run(["load", "-i", &saved]);
    let (id, diff_ids) = identity(&sandbox, "shop:1");
    assert_eq!(docker.run(["inspect", "--format", "{{.Id}}", "shop:1"]).trim(), id);
    let layers = docker.run(["inspect", "--format", "{{json .RootFS.Layers}}", "shop:1"]);
    assert_eq!(serde_json::from_str::<Value>(&layers).unwrap(), diff_ids);

    docker.run(["save", "-o", &again, "shop:1"]);
    other.rbuild(["image", "load"]).input(fs::read(&again).unwrap()).ok();
    assert_eq!(identity(&other, "shop:1"), (id.clone(), diff_ids.clone()));
    store::assert_nothing_is_half_written(&other.store());

    // And in docker's own format, by a registry that docker and others read.
    let name = Registry::shared().image("docker-format:1");
    let args = ["image", "build", "--format", "docker", "-t", &name, "ctx"];
    sandbox.rbuild(args).ok();
    push(&sandbox, &name);
    let image = format!("docker://{name}");
    let raw = peers::run(
        "skopeo",
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", "--no-creds", &image],
    );
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert!(!raw.to_string().contains("oci"), "{raw}");
}

#[test]
fn skopeo_and_umoci_read_what_is_saved_and_write_what_is_loaded() {
    let (sandbox, other) = (sandbox_with_context(), sandbox(&[]));
    build(&sandbox, "shop:1");
    let (archive, layout) = (path(&sandbox, "a.tar"), sandbox.path().join("layout"));
    let args = ["image", "save", "--format", "docker-archive", "-o", &archive, "shop:1"];
    sandbox.rbuild(args).ok();
    let (from, to) = (format!("docker-archive:{archive}"), format!("oci:{}:1", layout.display()));
    peers::run("skopeo", "skopeo", &["copy", "--quiet", &from, &to]);
    let bundle = sandbox.path().join("bundle");
    peers::umoci_unpack(&layout, &bundle);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/hello")).unwrap(), "hello\n");

    let written = format!("docker-archive:{}:shop:2", path(&sandbox, "b.tar"));
    peers::run("skopeo", "skopeo", &["copy", "--quiet", &to, &written]);
    other.rbuild(["image", "load", "-i", &path(&sandbox, "b.tar")]).ok();
    assert_eq!(identity(&other, "shop:2").1, identity(&sandbox, "shop:1").1);
}

#[test]
fn an_image_stays_what_it_is_on_every_way() {
    let sandbox = sandbox_with_context();
    let built = build(&sandbox, "shop:1");
    let whole = identity(&sandbox, "shop:1");
    let registry = Registry::shared();
    let ends = |number: &str| {
        let sandbox = &sandbox;
        [
            format!("store:x:{number}"),
            format!("oci:{}:{number}", path(sandbox, &format!("layout-{number}"))),
            format!("oci:{}", path(sandbox, &format!("layout-{number}.tar"))),
            format!("docker://{}", registry.image(&format!("ways-{number}:1"))),
            format!("docker-archive:{}", path(sandbox, &format!("archive-{number}.tar"))),
        ]
    };
    for (one, from) in ends("one").iter().enumerate() {
        copy(&sandbox, "store:shop:1", from);
        for (two, to) in ends(&format!("from-{one}")).iter().enumerate() {
            let found = copy(&sandbox, from, to);
            // Out of a docker archive comes a new manifest, always the same one.
            assert!(one == 4 || found == built, "{from} to {to}");
            let back = format!("back:{one}-{two}");
            copy(&sandbox, to, &format!("store:{back}"));
            assert_eq!(identity(&sandbox, &back), whole, "{from} to {to}");
        }
    }
    store::assert_nothing_is_half_written(&sandbox.store());
    assert_eq!(store::unfinished(&sandbox.store()), 0);
}

#[test]
fn between_registries_blobs_go_past_the_store_and_within_one_they_are_given() {
    let (sandbox, other) = (sandbox_with_context(), sandbox(&[]));
    let registry = Registry::shared();
    let (from, to) = (registry.image("given/from:1"), registry.image("given/to:1"));
    let built = build(&sandbox, &from);
    push(&sandbox, &from);
    assert_eq!(copy(&other, &from, &to), built);
    assert_eq!(store::assert_every_blob_is_whole(&other.store()), 0, "nothing is kept");
    let requests = registry.requests("given/to");
    let mounts = requests.iter().filter(|it| it.contains("mount=")).count();
    let uploads = requests.iter().filter(|it| it.starts_with("PUT") && it.contains("uploads"));
    assert_eq!((mounts, uploads.count()), (2, 0), "{requests:?}");
    let elsewhere = Registry::start(rbuild_tests::servers::Auth::None);
    let to = elsewhere.image("streamed:1");
    assert_eq!(copy(&other, &from, &to), built);
    assert_eq!(peers::skopeo_digest(&to), built);
    assert_eq!(store::assert_every_blob_is_whole(&other.store()), 0, "nothing is kept");
}

/// A layout with an index of two images, for amd64 and arm64.
fn layout_with_index(sandbox: &Sandbox) -> String {
    let mut entries = Vec::new();
    let layout = path(sandbox, "multi");
    for (architecture, content) in [("amd64", "one"), ("arm64", "two")] {
        sandbox.write("ctx/hello", content);
        let name = format!("{architecture}:1");
        let digest = build(sandbox, &name);
        copy(sandbox, &format!("store:{name}"), &format!("oci:{layout}:{architecture}"));
        let size = fs::metadata(blob(&layout, &digest)).expect("blob").len();
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": size,
            "platform": { "os": "linux", "architecture": architecture },
        }));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    let bytes = index.to_string();
    let digest = format!("sha256:{}", store::hex(bytes.as_bytes()));
    fs::write(blob(&layout, &digest), &bytes).expect("blob");
    let entry = json!({
        "mediaType": media_type, "digest": digest, "size": bytes.len(),
        "annotations": { "org.opencontainers.image.ref.name": "multi" },
    });
    let top = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(Path::new(&layout).join("index.json"), top.to_string()).expect("index");
    format!("oci:{layout}:multi")
}

fn blob(layout: &str, digest: &str) -> std::path::PathBuf {
    Path::new(layout).join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

#[test]
fn an_index_is_copied_whole_or_one_of_its_images_is_chosen() {
    let (sandbox, other) = (sandbox_with_context(), sandbox(&[]));
    let from = layout_with_index(&sandbox);
    let index = peers::run("skopeo", "skopeo", &["inspect", "--raw", &from]);
    let digest_of_index = format!("sha256:{}", store::hex(index.as_bytes()));
    let name = Registry::shared().image("multi:1");
    let all = |sandbox: &Sandbox, from: &str, to: &str| {
        digest(sandbox.rbuild(["image", "copy", "--all", from, to]).ok().line())
    };
    assert_eq!(all(&other, &from, &name), digest_of_index);

    // Into a store, out of it again, and still the same.
    other.rbuild(["image", "pull", "--all-platforms", &name]).ok();
    let listed = other.rbuild(["image", "ls"]).ok().stdout;
    assert!(listed.contains("linux/amd64,linux/arm64"), "{listed}");
    assert_eq!(inspect(&other, &name)["images"].as_array().unwrap().len(), 2);
    let second = Registry::shared().image("multi-pushed:1");
    other.rbuild(["image", "tag", &name, &second]).ok();
    assert_eq!(push(&other, &second), digest_of_index);
    let saved = path(&other, "saved.tar");
    other.rbuild(["image", "save", "-o", &saved, &name]).ok();
    assert_eq!(all(&other, &format!("oci:{saved}"), "store:multi:again"), digest_of_index);

    // One of them.
    let copy = |platform: &str, to: &str| {
        other.rbuild(["image", "copy", "--platform", platform, &format!("docker://{name}"), to])
    };
    copy("linux/arm64", "store:arm:1").ok();
    copy("linux/arm/v7", "store:arm:2").go().fails(2, &["linux/arm/v7", "linux/amd64"]);
    let archive = format!("docker-archive:{}", path(&other, "x.tar"));
    let refused = other.rbuild(["image", "copy", "--all", &name, &archive]).go();
    refused.fails(2, &["index", "--platform"]);
    assert!(!other.path().join("x.tar").exists());

    // What the index needs goes with its last name, and not before.
    for name in [&name, &second, "arm:1"] {
        other.rbuild(["image", "rm", name]).ok();
    }
    assert_eq!(inspect(&other, "multi:again")["images"].as_array().unwrap().len(), 2);
    other.rbuild(["image", "rm", "multi:again"]).ok();
    assert_eq!(store::assert_every_blob_is_whole(&other.store()), 0, "all is gone");
}
