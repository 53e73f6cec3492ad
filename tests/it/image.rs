//! `rbuild image`, as far as no registry is needed.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::PathBuf};

use rbuild_imagebuilder::{
    catalog,
    store::{ObjectKind, Store},
};
use rbuild_tests::{Sandbox, peers, store};

use crate::{EPOCH, build, digest, sandbox, sandbox_with_context};

#[test]
fn a_second_build_builds_nothing() {
    let sandbox = sandbox_with_context();
    let first = build(&sandbox, "x");
    let before = blobs(&sandbox);
    assert_eq!(build(&sandbox, "x"), first);
    assert_eq!(blobs(&sandbox), before, "blobs were written again");
}

#[test]
fn a_build_without_the_cache_builds_all_and_gives_the_same() {
    let sandbox = sandbox_with_context();
    let build = |args: &[&str]| -> serde_json::Value {
        let args = [&["image", "build", "--json"], args, &["ctx"]].concat();
        let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok();
        serde_json::from_str(built.line()).expect("JSON")
    };
    let bytes = |of: &serde_json::Value, what: &str| of["bytes"][what].as_u64().expect("bytes");
    let first = build(&[]);
    assert!(0 < bytes(&first, "read") && bytes(&first, "read") < bytes(&first, "hashed"));
    assert_eq!(bytes(&first, "compressed"), bytes(&first, "hashed"));
    let before = blobs(&sandbox);
    let again = build(&["--no-cache"]);
    assert_eq!(again["digest"], first["digest"]);
    assert_eq!((&again["bytes"], &again["layers"]), (&first["bytes"], &first["layers"]));
    assert_eq!(again["cached"], false);
    assert_eq!(blobs(&sandbox), before, "what is there and whole is kept");
    let second = build(&[]);
    assert_eq!((&second["digest"], &second["cached"]), (&first["digest"], &true.into()));
    for of in second["layers"].as_array().expect("layers").iter().chain([&second]) {
        for what in ["read", "hashed", "compressed", "reused"] {
            assert_eq!(bytes(of, what), 0, "{what} of {of}");
        }
    }
}

#[test]
fn what_a_file_holds_decides_and_not_when_it_was_written() {
    let sandbox = sandbox_with_context();
    let first = build(&sandbox, "x");
    sandbox.write("ctx/hello", "other\n");
    let second = build(&sandbox, "x");
    assert_ne!(second, first);
    sandbox.write("ctx/hello", "hello\n");
    assert_eq!(build(&sandbox, "x"), first);
}

#[test]
fn builds_at_the_same_time_share_a_store() {
    let sandbox = sandbox_with_context();
    let names: Vec<_> = (0..8).map(|number| format!("x:{number}")).collect();
    let run = |name| sandbox.rbuild(["image", "build", "-t", name, "ctx"]).env(EPOCH.0, EPOCH.1);
    let running: Vec<_> = names.iter().map(|name| run(name).start()).collect();
    let built: Vec<_> = running.into_iter().map(|it| digest(it.finish().line())).collect();
    let want = build(&sandbox, "x:0");
    assert!(built.iter().all(|it| *it == want), "{built:?}");
    store::assert_nothing_is_half_written(&sandbox.store());
    let list = sandbox.rbuild(["image", "ls"]).ok().stdout;
    assert!(names.iter().all(|it| list.contains(it.as_str())), "{list}");
}

#[test]
fn stages_arguments_and_targets_work_together() {
    let dockerfile = "\
ARG WHO=nobody
FROM scratch AS one
COPY hello /one/
FROM scratch AS unused
COPY no-such-file /
FROM scratch AS two
ARG WHO
COPY --from=one --chown=1:2 --chmod=0640 /one/hello /${WHO}/hello
ENV WHO=$WHO
WORKDIR /srv
USER 3:4
LABEL who=$WHO
ENTRYPOINT [\"/bin/x\"]
";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile), ("ctx/hello", "hello\n")]);
    let args = ["image", "build", "--target", "two", "--build-arg", "WHO=me", "-t", "x", "ctx"];
    sandbox.rbuild(args).ok();
    let bundle = unpack(&sandbox, "x");
    let hello = bundle.join("rootfs/me/hello");
    assert_eq!(fs::read_to_string(&hello).unwrap(), "hello\n");
    let metadata = fs::metadata(&hello).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1, 2, 0o640));
    assert!(bundle.join("rootfs/srv").is_dir());
    let config = fs::read_to_string(bundle.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let process = &config["process"];
    assert_eq!((&process["cwd"], &process["args"][0]), (&"/srv".into(), &"/bin/x".into()));
    assert_eq!((&process["user"]["uid"], &process["user"]["gid"]), (&3.into(), &4.into()));
    assert!(process["env"].as_array().unwrap().contains(&"WHO=me".into()), "{process}");
}

#[test]
fn an_argument_without_a_value_has_that_of_the_environment_even_if_it_is_empty() {
    let dockerfile = "FROM scratch\nARG WHO=nobody\nLABEL who=\"<$WHO>\"\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile)]);
    for (value, want) in [(Some("me"), "<me>"), (Some(""), "<>"), (None, "<nobody>")] {
        let run = sandbox.rbuild(["image", "build", "--build-arg", "WHO", "-t", "x", "ctx"]);
        let run = if let Some(value) = value { run.env("WHO", value) } else { run };
        run.ok();
        let inspected = sandbox.rbuild(["image", "inspect", "x"]).ok();
        assert!(inspected.stdout.contains(want), "{value:?}: {inspected}");
    }
}

#[test]
fn an_oci_layout_is_built_upon() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "base:latest");
    let layout = sandbox.src().join("layout").display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &layout, "base:latest"]).ok();
    sandbox.write("ctx/Dockerfile", format!("FROM oci:{layout}:latest\nCOPY hello /two\n"));
    fs::remove_dir_all(sandbox.store()).unwrap();
    build(&sandbox, "x:latest");
    let bundle = unpack(&sandbox, "x:latest");
    for path in ["rootfs/etc/hello", "rootfs/two"] {
        assert_eq!(fs::read_to_string(bundle.join(path)).unwrap(), "hello\n", "{path}");
    }
}

#[test]
fn images_are_listed_named_and_removed() {
    let sandbox = sandbox_with_context();
    let list = || sandbox.rbuild(["image", "ls"]).ok().stdout;
    assert!(!list().contains("shop"));
    let built = build(&sandbox, "shop:1");
    sandbox.rbuild(["image", "tag", "shop:1", "other/name:2"]).ok();
    for name in ["shop", "other/name"] {
        assert!(list().contains(name), "{}", list());
    }
    for name in ["shop:1", "other/name:2", &built] {
        let inspected = sandbox.rbuild(["image", "inspect", name]).ok();
        assert!(inspected.stdout.contains(&built), "{inspected}");
    }
    sandbox.rbuild(["image", "rm", "shop:1"]).ok();
    sandbox.rbuild(["image", "inspect", "shop:1"]).go().fails(2, &["shop:1"]);
    sandbox.rbuild(["image", "inspect", "other/name:2"]).ok();
    sandbox.rbuild(["image", "rm", "other/name:2"]).ok();
    assert!(!list().contains("name"), "{}", list());
    store::assert_nothing_is_half_written(&sandbox.store());
}

#[test]
fn the_digest_is_all_that_a_build_prints_as_data() {
    let sandbox = sandbox_with_context();
    let file = sandbox.path().join("iid").display().to_string();
    let built = sandbox.rbuild(["image", "build", "--iidfile", &file, "ctx"]).ok();
    assert_eq!(built.stdout, format!("{}\n", digest(built.line())));
    let id = fs::read_to_string(file).unwrap();
    assert_eq!(digest(id.trim()), id, "no newline, as docker writes it");
}

/// The blobs of a store, and what tells whether they were written anew.
fn blobs(sandbox: &Sandbox) -> BTreeMap<PathBuf, (u64, i64)> {
    let folders = [store::blobs(&sandbox.store()), sandbox.store().join("packs")];
    let files = folders.iter().flat_map(|it| store::files(it));
    let entries = files.map(|path| {
        let metadata = fs::metadata(&path).expect("blob");
        (path, (metadata.ino(), metadata.mtime_nsec()))
    });
    entries.collect()
}

/// The bundle that `umoci` makes of an image.
fn unpack(sandbox: &Sandbox, name: &str) -> PathBuf {
    let (layout, bundle) = (sandbox.path().join("saved"), sandbox.path().join("bundle"));
    let path = layout.display().to_string();
    sandbox.rbuild(["image", "tag", name, "unpacked:latest"]).ok();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "unpacked:latest"]).ok();
    peers::umoci_unpack(&layout, &bundle);
    bundle
}

/// Zeros shrink to less than any layer of others may.
#[test]
fn a_layer_of_zeros_is_built_on_though_its_table_of_contents_was_lost() {
    let sandbox = sandbox_with_context();
    let zeros = fs::File::create(sandbox.src().join("ctx/zeros")).unwrap();
    zeros.set_len(1300 << 20).unwrap();
    sandbox.write("ctx/Dockerfile", "FROM scratch\nCOPY zeros /zeros\n");
    let first = build(&sandbox, "zeros:1");
    sandbox.rbuild(["image", "save", "-o", "layout", "zeros:1"]).ok();
    {
        let store = Store::open(&sandbox.store()).unwrap();
        let image = catalog::load(&store, first.parse().unwrap()).unwrap();
        store.remove_object(ObjectKind::Contents, image.layers[0].diff_id).unwrap();
    }
    // The base's layers are here already.
    sandbox.write("ctx/Dockerfile", "FROM oci:../layout\nCOPY --chown=0 hello /on/top\n");
    assert_ne!(build(&sandbox, "above:1"), first);
}
