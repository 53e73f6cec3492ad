//! Images that are broken on purpose, each in one way, and what the oracle says of them.

use std::{fs, path::Path};

use flate2::GzBuilder;
use serde_json::json;

use super::{
    Report, Rule, Tree,
    forge::{self, Draft, file, folder, gzip, hardlink, patched, symlink, with_records},
    layout,
};
use crate::Scratch;

/// What breaks a rule: a change of the draft, or of the layout after it was written.
enum Break {
    Draft(fn(&mut Draft)),
    Layout(fn(&Path)),
}

use Break::{Draft as D, Layout as L};

/// For each rule, what breaks it and no other one.
#[expect(clippy::too_many_lines, reason = "a table")]
fn examples() -> Vec<(Rule, Break)> {
    vec![
        (Rule::Missing, L(|it| fs::remove_file(it.join("oci-layout")).unwrap())),
        (Rule::Missing, L(|it| fs::remove_file(it.join("index.json")).unwrap())),
        (Rule::Missing, D(|it| it.manifest = |it| it["layers"][0]["digest"] = json!("sha256:00"))),
        (Rule::Digest, L(|it| change_blob(it, |bytes| bytes.push(b'\n')))),
        (Rule::Size, D(|it| it.manifest = |it| it["config"]["size"] = json!(1))),
        (Rule::MediaType, D(|it| it.index = |it| it["manifests"][0]["mediaType"] = json!("a/b"))),
        (Rule::MediaType, D(|it| it.manifest = |it| it["mediaType"] = json!("a/b"))),
        (Rule::MediaType, D(|it| it.manifest = |it| it["config"]["mediaType"] = json!("a/b"))),
        (
            Rule::MediaType,
            D(|it| {
                it.manifest = |it| {
                    it["layers"][0]["mediaType"] =
                        json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
                };
            }),
        ),
        (Rule::Json, L(|it| fs::write(it.join("index.json"), "{").unwrap())),
        (Rule::Schema, L(|it| fs::write(it.join("oci-layout"), "{}").unwrap())),
        (Rule::Schema, D(|it| it.index = |it| it["schemaVersion"] = json!(1))),
        (Rule::Schema, D(|it| it.manifest = |it| it["schemaVersion"] = json!(1))),
        (Rule::Schema, D(|it| it.config = |it| it["config"]["Env"] = json!(7))),
        (Rule::Platform, D(|it| it.config = |it| it["os"] = json!(""))),
        (
            Rule::DiffIds,
            D(|it| {
                it.config = |it| it["rootfs"]["diff_ids"].as_array_mut().unwrap().truncate(1);
            }),
        ),
        (Rule::DiffId, D(|it| it.config = |it| it["rootfs"]["diff_ids"][0] = json!("sha256:00"))),
        (Rule::History, D(|it| it.config = |it| it["history"][0]["empty_layer"] = json!(true))),
        (Rule::Compression, D(|it| it.compress = |_| b"no gzip".to_vec())),
        (
            Rule::Compression,
            D(|it| {
                it.compress = |it| {
                    let mut bytes = gzip(it);
                    bytes.truncate(bytes.len() - 4);
                    bytes
                };
            }),
        ),
        (Rule::Truncated, D(|it| it.end = vec![0; 100])),
        (
            Rule::Truncated,
            D(|it| {
                it.layers.truncate(1);
                it.layers[0].push(file("z", &[b'z'; 700])[..1024].to_vec());
                it.end.clear();
            }),
        ),
        (Rule::Checksum, D(|it| it.layers[0][0][0] = b'x')),
        (Rule::End, D(|it| it.end.clear())),
        (Rule::End, D(|it| it.end.truncate(512))),
        (Rule::Name, D(|it| it.layers[0].insert(0, file("./a", b"")))),
        (Rule::Name, D(|it| it.layers[0].insert(0, folder(".")))),
        (Rule::Name, D(|it| it.layers[0].insert(0, file("..", b"")))),
        (Rule::Name, D(|it| it.layers[0].insert(0, file("/etc", b"")))),
        (Rule::Name, D(|it| it.layers[0].insert(0, file("a/", b"")))),
        (Rule::Name, D(|it| it.layers[0].push(patched(folder("x"), 0, b"x\0")))),
        (Rule::Duplicate, D(|it| it.layers[0].push(file("d/f", b"again")))),
        (Rule::Hardlink, D(|it| it.layers[0].push(hardlink("h", "nothing")))),
        (Rule::Hardlink, D(|it| it.layers[0].push(hardlink("h", "/d/f")))),
        (Rule::Hardlink, D(|it| it.layers[0].push(hardlink("h", "d")))),
        (Rule::Hardlink, D(|it| it.layers[0].insert(0, hardlink("a", "d/f")))),
        (Rule::Symlink, D(|it| it.layers[0].push(symlink("s", "")))),
        (Rule::Body, D(|it| it.layers[0].push(patched(file("p", b"body"), 156, b"6")))),
        (Rule::Whiteout, D(|it| it.layers[1].insert(0, file(".wh.a", b"text")))),
        (Rule::Whiteout, D(|it| it.layers[1].insert(0, folder(".wh.a")))),
        (Rule::Members, D(|it| it.compress = |it| [gzip(it), gzip(b"")].concat())),
        (Rule::Members, D(|it| it.compress = |it| [gzip(it), vec![0]].concat())),
        (Rule::GzipHeader, D(|it| it.compress = |it| named(it, GzBuilder::new().filename("x")))),
        (Rule::GzipHeader, D(|it| it.compress = |it| named(it, GzBuilder::new().mtime(7)))),
        (Rule::Trailing, D(|it| it.end.resize(10_240, 0))),
        (
            Rule::Padding,
            D(|it| {
                let entry = &mut it.layers[0][1];
                *entry.last_mut().unwrap() = 1;
            }),
        ),
        (Rule::Format, D(|it| it.layers[0].push(patched(file("g", b""), 257, b"ustar  \0")))),
        (Rule::Format, D(|it| it.layers[0].push(patched(file("g", b"long"), 156, b"L")))),
        (Rule::Format, D(|it| it.layers[0].push(patched(file("g", b"9 a=b\n"), 156, b"g")))),
        (Rule::Format, D(|it| it.layers[0].push(patched(file("g", b""), 100, b"0100644")))),
        (Rule::Order, D(|it| it.layers[0].push(file("a", b"")))),
        (Rule::Parent, D(|it| it.layers[0].push(file("e/f", b"")))),
        (Rule::Parent, D(|it| it.layers[0].insert(2, file("d/f/g", b"")))),
        (Rule::Times, D(|it| it.layers[0].push(with_records(&[("atime", "1")], file("t", b""))))),
        (Rule::Times, D(|it| it.layers[0].push(with_records(&[("ctime", "1")], file("t", b""))))),
        (
            Rule::Times,
            D(|it| {
                it.layers[0].push(with_records(&[("mtime", "1.5")], file("t", b"")));
            }),
        ),
        (Rule::Owners, D(|it| it.layers[0].push(patched(file("o", b""), 265, b"root")))),
        (Rule::Owners, D(|it| it.layers[0].push(patched(file("o", b""), 297, b"root")))),
        (Rule::Owners, D(|it| it.layers[0].push(with_records(&[("uname", "x")], file("o", b""))))),
        (Rule::Pax, D(|it| it.layers[0].push(with_records(&[("path", "p")], file("x", b""))))),
        (
            Rule::Pax,
            D(|it| {
                it.layers[0].push(with_records(&[("linkpath", "p")], symlink("s", "p")));
            }),
        ),
        (Rule::Pax, D(|it| it.layers[0].push(with_records(&[("uid", "7")], file("u", b""))))),
        (Rule::Pax, D(|it| it.layers[0].push(with_records(&[("mtime", "1")], file("u", b""))))),
        (Rule::Pax, D(|it| it.layers[0].push(with_records(&[("size", "0")], file("u", b""))))),
        (Rule::Pax, D(|it| it.layers[0].push(with_records(&[("comment", "x")], file("u", b""))))),
        (
            Rule::PaxHeader,
            D(|it| {
                let entry = with_records(&[("uid", "3000000")], file("u", b""));
                it.layers[0].push(patched(entry, 136, b"00000000001"));
            }),
        ),
    ]
}

fn named(bytes: &[u8], builder: GzBuilder) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = builder.write(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Changes the manifest, in such a way that only its digest and size are wrong.
fn change_blob(layout: &Path, change: fn(&mut Vec<u8>)) {
    let index = layout.join("index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let descriptor = &mut value["manifests"][0];
    let hex = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let path = layout.join("blobs/sha256").join(hex);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, &bytes).unwrap();
    descriptor["size"] = json!(bytes.len());
    fs::write(index, value.to_string()).unwrap();
}

fn draft() -> Draft {
    let lower = vec![
        folder("d"),
        file("d/f", b"file"),
        hardlink("d/h", "d/f"),
        symlink("d/s", "f"),
        with_records(&[("SCHILY.xattr.user.x", "y"), ("uid", "3000000")], file("d/x", b"")),
    ];
    Draft::new(vec![lower, vec![folder("d"), file("d/.wh.s", b"")]])
}

fn report(example: &Break) -> Report {
    let scratch = Scratch::new();
    let path = scratch.join("layout");
    let mut draft = draft();
    if let Break::Draft(change) = example {
        change(&mut draft);
    }
    draft.write(&path);
    if let Break::Layout(change) = example {
        change(&path);
    }
    layout(&path)
}

#[test]
fn an_image_as_it_should_be_has_no_faults() {
    let scratch = Scratch::new();
    draft().write(scratch.path());
    let images = layout(scratch.path()).sound();
    let [image] = &images[..] else { panic!("{images:?}") };
    let tree = Tree::of_image(image);
    assert_eq!(tree.len(), 4);
    assert_eq!(tree.get("d/h").unwrap().kind, tree.get("d/f").unwrap().kind);
    assert_eq!(tree.get("d/x").unwrap().uid, 3_000_000);
    assert_eq!(tree.get("d/x").unwrap().xattrs[&b"user.x"[..]], b"y");
}

#[test]
fn each_rule_has_an_example_that_breaks_it() {
    let mut broken = Vec::new();
    for (number, (rule, example)) in examples().into_iter().enumerate() {
        let report = report(&example);
        let mut rules: Vec<_> = report.faults.iter().map(|it| it.rule).collect();
        rules.dedup();
        assert_eq!(rules, [rule], "example {number}: {report}");
        broken.push(rule);
    }
    broken.dedup();
    assert_eq!(broken, every_rule(), "in this order, and none is left out");
}

/// All rules, in their order.
fn every_rule() -> Vec<Rule> {
    let text = include_str!("../oracle.rs");
    let (_, rules) = text.split_once("pub enum Rule {").unwrap();
    let (rules, _) = rules.split_once("\n}").unwrap();
    let names = rules.lines().filter_map(|it| it.trim().strip_suffix(','));
    let names: Vec<_> = names.filter(|it| !it.starts_with("///")).collect();
    let examples = examples();
    let by_name = |name: &&str| {
        let found = examples.iter().find(|(rule, _)| format!("{rule:?}") == **name);
        found.unwrap_or_else(|| panic!("nothing breaks {name}")).0
    };
    names.iter().map(by_name).collect()
}

#[test]
fn layers_come_to_what_the_specification_says() {
    let lower = vec![
        folder("a"),
        file("a/1", b"1"),
        file("a/2", b"2"),
        folder("b"),
        file("b/1", b"1"),
        folder("c"),
        file("c/1", b"1"),
        file("d", b"d"),
        hardlink("e", "d"),
        symlink("f", "d"),
    ];
    let middle = vec![
        folder("a"),
        file("a/.wh.1", b""),
        folder("b"),
        file("b/.wh..wh..opq", b""),
        file("b/2", b"2"),
        file("c", b"a file now"),
        folder("f"),
        file("f/1", b"a folder now"),
    ];
    let upper = vec![file(".wh.f", b""), file("d", b"no longer the same file as e")];
    let scratch = Scratch::new();
    Draft::new(vec![lower, middle, upper]).write(scratch.path());
    let report = layout(scratch.path());
    let tree = Tree::of_image(&report.valid()[0]);
    let want = Draft::new(vec![vec![
        folder("a"),
        file("a/2", b"2"),
        folder("b"),
        file("b/2", b"2"),
        file("c", b"a file now"),
        file("d", b"no longer the same file as e"),
        file("e", b"d"),
    ]]);
    let other = Scratch::new();
    want.write(other.path());
    Tree::of_image(&layout(other.path()).sound()[0]).assert_same(&tree, "the image");
}

#[test]
fn what_lies_in_a_folder_is_what_an_archive_of_it_has() {
    let scratch = Scratch::new();
    let place = scratch.join("place");
    for (path, text) in [("d/f", "file"), ("d/g", ""), ("x", "x")] {
        crate::scratch::write(&place.join(path), text);
    }
    fs::hard_link(place.join("d/f"), place.join("h")).unwrap();
    std::os::unix::fs::symlink("../x", place.join("d/s")).unwrap();
    let archive = scratch.join("archive.tar");
    let [from, to] = [&place, &archive].map(|it| it.display().to_string());
    let args = ["--numeric-owner", "--format=ustar", "-C", &from, "-cf", &to, "d", "h", "x"];
    crate::peers::run("tar", "tar", &args);
    let found = Tree::of_archive(&fs::read(archive).unwrap());
    let tree = Tree::of_folder(&place);
    tree.assert_same(&found, "the archive");
    let different = tree.clone().with_each(|it| it.mode = 0o600);
    let failed = std::panic::catch_unwind(|| different.assert_same(&found, "the archive"));
    assert!(failed.is_err(), "the modes differ");
    assert_eq!(forge::gzip(b"")[..3], [0x1f, 0x8b, 8]);
}
