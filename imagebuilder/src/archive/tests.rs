//! Archives as others write them, and archives that nobody should write.

use std::io::Write as _;

use serde_json::{Value, json};
use tar::Header;

use super::*;
use crate::{
    catalog,
    config::Platform,
    image::{self, Format, Image, OCI_LAYER},
    store::StoredImage,
};

type Tar = Vec<(EntryType, String, Vec<u8>)>;

fn store(folder: &Path, name: &str) -> Store {
    Store::open(&folder.join(name)).unwrap()
}

fn file(name: &str, content: &[u8]) -> (EntryType, String, Vec<u8>) {
    (EntryType::Regular, name.to_owned(), content.to_vec())
}

/// The bytes of a tar of these entries; the content of a link is what it links to.
fn tar_of(entries: &[(EntryType, String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
        }
        let content = if is_link { &[][..] } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|it| Digest::of(it).to_string()).collect();
    // An order, and a key, that we would not write.
    format!(
        r#"{{"rootfs": {{"diff_ids": {}, "type": "layers"}}, "x": 1.50, "os": "linux", "architecture": "amd64"}}"#,
        json!(diff_ids)
    )
    .into_bytes()
}

/// As docker before 25 writes two images: one layer is a link to the other image's.
fn old_docker() -> Tar {
    let (base, top) = (b"the base".as_slice(), b"the top".as_slice());
    let (one, two) = (config(&[base]), config(&[base, top]));
    let name = |it: &[u8]| format!("{}.json", Digest::of(it).hex());
    let manifest = json!([
        { "Config": name(&one), "RepoTags": ["one:1"], "Layers": ["aa/layer.tar"] },
        {
            "Config": name(&two), "RepoTags": ["two:1", "localhost:5000/two:2"],
            "Layers": ["bb/layer.tar", "cc/layer.tar"],
        },
    ]);
    vec![
        (EntryType::Directory, "aa/".into(), Vec::new()),
        file("aa/VERSION", b"1.0"),
        file("aa/json", b"{}"),
        file("aa/layer.tar", base),
        (EntryType::Symlink, "bb/layer.tar".into(), b"../aa/layer.tar".to_vec()),
        file("cc/layer.tar", top),
        file(&name(&one), &one),
        file(&name(&two), &two),
        file("manifest.json", manifest.to_string().as_bytes()),
        file("repositories", b"{}"),
    ]
}

/// Loads an archive into a store of its own; what came of it, by name.
fn load(tar: &[u8]) -> Result<Vec<(String, Image)>, LayoutError> {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "store");
    let platform = Platform::linux("x86_64");
    let loaded = layout::load_tar(&store, tar, Path::new("x.tar"), &platform, 1);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0, "leftovers");
    if loaded.is_err() {
        assert_eq!(store.images().unwrap(), []);
    }
    let image = |it: layout::Loaded| {
        let names: Vec<String> = it.names.iter().map(ToString::to_string).collect();
        let image = catalog::load(&store, it.digest).unwrap();
        assert!(catalog::is_whole(&store, &image).unwrap());
        (names.join(" "), image)
    };
    Ok(loaded?.into_iter().map(image).collect())
}

#[test]
fn an_archive_of_an_old_docker_is_loaded_whatever_the_order_of_its_entries() {
    let mut tar = old_docker();
    let mut digests = Vec::new();
    for _ in 0..tar.len() {
        tar.rotate_left(1);
        for bytes in [tar_of(&tar), gzip(&tar_of(&tar))] {
            let mut images = load(&bytes).unwrap();
            images.sort_by(|a, b| a.0.cmp(&b.0));
            let names: Vec<_> = images.iter().map(|it| it.0.as_str()).collect();
            assert_eq!(names, ["localhost:5000/two:2", "one:1", "two:1"]);
            let (one, two) = (&images[1].1, &images[2].1);
            assert_eq!(one.config_bytes, config(&[b"the base"]), "the bytes of a config are kept");
            assert_eq!(two.config_bytes, config(&[b"the base", b"the top"]));
            assert_eq!(two.layers[0], one.layers[0]);
            assert_eq!(one.media_type, image::OCI_MANIFEST);
            digests.push((one.digest(), two.digest()));
        }
    }
    assert!(digests.windows(2).all(|it| it[0] == it[1]), "the same archive, the same digests");
}

#[test]
fn layers_that_are_compressed_are_taken_as_they_are() {
    let zstd = zstd::encode_all(&b"b"[..], 3).unwrap();
    let (a, config) = (gzip(b"a"), config(&[b"a", b"b"]));
    let manifest = json!([{
        "Config": "sha256:0123", "RepoTags": null, "Layers": ["a.tar.gz", "b.tar"],
    }]);
    let tar = tar_of(&[
        file("manifest.json", manifest.to_string().as_bytes()),
        file("a.tar.gz", &a),
        file("b.tar", &zstd),
        file("sha256:0123", &config),
    ]);
    let loaded = load(&tar).unwrap();
    let (name, image) = &loaded[0];
    assert_eq!(name, "");
    assert_eq!(image.layers[0].digest, Digest::of(&a));
    assert_eq!(image.layers[1].digest, Digest::of(&zstd));
    assert_eq!(image.layers[1].media_type, image::OCI_LAYER_ZSTD);
}

/// Docker from 25 on writes an OCI layout, and `manifest.json` for those who look for it.
#[test]
fn an_archive_that_is_a_layout_too_keeps_its_digests() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let stored = stored(&from, &[b"a layer"], "shop:1");
    let mut tar = Vec::new();
    let images = [(stored.clone(), "docker.io/library/shop:1".to_owned())];
    layout::save_tar(&from, &images, &mut tar, Path::new("x.tar")).unwrap();
    let image = catalog::load(&from, stored.digest).unwrap();
    let blob = |it: Digest| format!("blobs/sha256/{}", it.hex());
    let manifest = json!([{
        "Config": blob(image.config_digest()), "RepoTags": ["shop:1"],
        "Layers": [blob(image.layers[0].digest)],
    }]);
    let text = manifest.to_string();
    let more = tar_of(&[file("manifest.json", text.as_bytes())]);
    // Before the two blocks of zeros that end it.
    tar.truncate(tar.len() - 1024);
    tar.extend(more);
    let loaded = load(&tar).unwrap();
    assert_eq!((&*loaded[0].0, loaded[0].1.digest()), ("shop:1", stored.digest));
}

fn stored(store: &Store, layers: &[&[u8]], name: &str) -> StoredImage {
    let layer = |it: &&[u8]| {
        let blob = store.write_blob(it).unwrap();
        let media_type = OCI_LAYER.to_owned();
        let diff_id = blob.digest;
        image::Layer { media_type, digest: blob.digest, size: blob.size, diff_id }
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let contents: Vec<Vec<u8>> =
        layers.iter().map(|it| store.read_blob(it.digest, 1 << 20).unwrap()).collect();
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let image = Image::of_config(Format::Oci, config(&contents), layers).unwrap();
    let stored = catalog::add(store, &image, 1).unwrap();
    let origin = crate::store::Origin::Local;
    catalog::tag(store, &name.parse().unwrap(), stored.digest, origin).unwrap();
    stored
}

#[test]
fn what_was_saved_as_a_docker_archive_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let image = stored(&from, &[b"a layer", b"another", b"a layer"], "shop:1");
    let images = ["docker.io/library/shop:1", "shop:1"].map(|it| (image.clone(), it.to_owned()));
    let saved = || {
        let mut tar = Vec::new();
        save(&from, &images, &mut tar, Path::new("x.tar")).unwrap();
        tar
    };
    let tar = saved();
    assert_eq!(tar, saved(), "the same images, the same archive");
    let loaded = load(&tar).unwrap();
    assert_eq!(loaded[0].0, "shop:1");
    let before = catalog::load(&from, image.digest).unwrap();
    assert_eq!(loaded[0].1.config_bytes, before.config_bytes);

    // A layer that is not what the config says.
    let lie = Image::of_config(Format::Oci, config(&[b"other"]), vec![before.layers[0].clone()]);
    let lie = catalog::add(&from, &lie.unwrap(), 1).unwrap();
    let mut nowhere = Vec::new();
    let error = save(&from, &[(lie, "x".into())], &mut nowhere, Path::new("x.tar")).unwrap_err();
    assert!(matches!(error, LayoutError::Layer { .. }), "{error}");
}

/// The archive of one image, changed; what is wrong with it.
#[track_caller]
fn refused(change: impl FnOnce(&mut Tar), want: &str) {
    let mut tar = old_docker();
    change(&mut tar);
    let error = load(&tar_of(&tar)).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(it) = source {
        text = format!("{text}: {it}");
        source = it.source();
    }
    assert!(text.contains(want), "wanted `{want}`: {text}");
}

fn set_manifest(tar: &mut Tar, change: impl FnOnce(&mut Value)) {
    let entry = tar.iter_mut().find(|it| it.1 == "manifest.json").unwrap();
    let mut value: Value = serde_json::from_slice(&entry.2).unwrap();
    change(&mut value);
    entry.2 = value.to_string().into_bytes();
}

fn replace(tar: &mut Tar, name: &str, with: (EntryType, String, Vec<u8>)) {
    *tar.iter_mut().find(|it| it.1 == name).unwrap() = with;
}

#[test]
fn docker_archives_that_attack_are_refused() {
    let link = |to: &str| (EntryType::Symlink, "bb/layer.tar".to_owned(), to.as_bytes().to_vec());
    for to in ["../../etc/passwd", "/etc/passwd", "../aa/../../x.tar"] {
        refused(|it| replace(it, "bb/layer.tar", link(to)), "links out of the archive");
    }
    refused(|it| replace(it, "bb/layer.tar", link("layer.tar")), "no entry `bb/layer.tar`");
    refused(|it| replace(it, "bb/layer.tar", link("../nowhere.tar")), "no entry");
    refused(|it| it.retain(|it| it.1 != "cc/layer.tar"), "no entry `cc/layer.tar`");
    refused(|it| it.push(file("./cc/layer.tar", b"other")), "that is there twice");
    refused(|it| it.push(file("manifest.json", b"[]")), "that is there twice");
    refused(|it| replace(it, "cc/layer.tar", file("cc/layer.tar", b"x")), "other content");
    refused(|it| replace(it, "cc/layer.tar", file("cc/layer.tar", &gzip(b"x"))), "other content");
    refused(|it| replace(it, "cc/layer.tar", file("cc/layer.tar", b"\xfd7zXZ\0")), "xz");
    let sparse = (EntryType::GNUSparse, "cc/layer.tar".to_owned(), b"x".to_vec());
    refused(|it| replace(it, "cc/layer.tar", sparse), "sparse file");
    let device = (EntryType::Char, "cc/layer.tar".to_owned(), Vec::new());
    refused(|it| replace(it, "cc/layer.tar", device), "not a regular file");
    for name in ["../../../etc/passwd", "/etc/passwd", "cc", ""] {
        let change = |it: &mut Value| it[1]["Layers"][1] = name.into();
        refused(|it| set_manifest(it, change), "no entry `");
        refused(|it| set_manifest(it, |it| it[0]["Config"] = name.into()), "no entry `");
    }
    refused(
        |it| set_manifest(it, |it| it[0]["Config"] = "aa/layer.tar".into()),
        "a config and a layer",
    );
    refused(|it| set_manifest(it, |it| it[0]["RepoTags"][0] = "../x".into()), "not the name");
    let digest = format!("x@{}", Digest::of(b""));
    refused(|it| set_manifest(it, |it| it[0]["RepoTags"][0] = digest.into()), "not the name");
    refused(|it| set_manifest(it, |it| drop(it[1]["Layers"].as_array_mut().unwrap().pop())), "1");
    let many = vec!["aa/layer.tar"; 2000];
    refused(|it| set_manifest(it, |it| it[0]["Layers"] = json!(many)), "2000 layers");
    let images = |it: &mut Value| *it = vec![it[0].clone(); 1001].into();
    refused(|it| set_manifest(it, images), "more than 1000 images");
    for (json, want) in [
        ("{}".to_owned(), "the manifest is not one of an image"),
        ("[".repeat(100_000), "the manifest is not one of an image"),
        (format!("[{}1]", "1,".repeat(1 << 20)), "values"),
        (format!("[{}]", " ".repeat(9 << 20)), "larger than any manifest"),
        (r#"[{"Config": 1}]"#.to_owned(), "the manifest is not one of an image"),
    ] {
        let entry = file("manifest.json", json.as_bytes());
        refused(|it| replace(it, "manifest.json", entry), want);
    }
    refused(|it| set_manifest(it, |it| *it = json!([])), "no image at all");
}

/// What is unpacked: how many files, or what is wrong.
fn unpacked(tar: &[u8], limits: Limits) -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "store");
    let result = match unpack_within(&store, tar, Path::new("x.tar"), limits) {
        Ok(it) => {
            let blobs = fs::read_dir(it.path().join("blobs/sha256")).unwrap();
            (blobs.count() + fs::read_dir(it.path()).unwrap().count() - 2).to_string()
        }
        Err(err) => err.to_string(),
    };
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    result
}

#[test]
fn an_archive_is_unpacked_only_as_far_as_a_layout_goes() {
    let limits = Limits { entries: 5, bytes: 100, ..LIMITS };
    let marker = || file("oci-layout", layout::LAYOUT.as_bytes());
    let index = || file("index.json", b"{}");
    let blob = format!("blobs/sha256/{}", Digest::of(b"a layer").hex());
    let pax = |text: &str| (EntryType::XHeader, "pax".to_owned(), text.as_bytes().to_vec());
    let global = |text: &str| (EntryType::XGlobalHeader, "g".to_owned(), text.as_bytes().to_vec());
    let odd = |kind, name: &str| (kind, name.to_owned(), b"x".to_vec());
    for (entries, want) in [
        (vec![file("./index.json", b"{}"), file(&blob, b"a layer"), marker()], "3"),
        (
            vec![
                marker(),
                index(),
                (EntryType::Directory, "blobs".into(), Vec::new()),
                file("diary", b"1"),
            ],
            "2",
        ),
        (vec![marker(), index(), odd(EntryType::Symlink, "diary")], "2"),
        (
            vec![marker(), odd(EntryType::Symlink, "index.json")],
            "`index.json` that is not a regular",
        ),
        (vec![marker(), odd(EntryType::GNUSparse, &blob)], "that is a sparse file"),
        (vec![pax("22 GNU.sparse.major=1\n"), file(&blob, b"x")], "that is a sparse file"),
        // A size that only the extended header tells.
        (vec![marker(), index(), pax("9 size=7\n"), file(&blob, b"a layer")], "3"),
        (vec![pax("9 size=x\n"), file(&blob, b"")], "not a valid extended header"),
        (vec![pax("99 size=7\n"), file(&blob, b"")], "not a valid extended header"),
        (vec![pax("26 size=99999999999999999\n"), file(&blob, b"")], "more than 100 bytes"),
        (vec![global("9 size=7\n"), marker()], "says one thing of all files"),
        (vec![global("11 mtime=1\n"), marker(), index()], "2"),
        (vec![pax(&"x".repeat(1 << 17))], "longer than an extended header"),
        (vec![(EntryType::GNULongName, "l".into(), vec![b'x'; 1 << 17])], "longer than an ext"),
        (
            vec![
                marker(),
                (EntryType::GNULongName, "l".into(), b"index.json\0".to_vec()),
                file("x", b"{}"),
            ],
            "2",
        ),
        (vec![file(&blob, b"a layer"), file("x.tar", &[0; 99])], "more than 100 bytes"),
        (vec![file("x", b""); 6], "more than 5 entries"),
        (vec![marker()], "it has no valid `index.json`"),
        (vec![index()], "it has no valid `oci-layout`"),
        (vec![file("x", b"")], "neither an OCI layout nor a docker archive"),
    ] {
        let got = unpacked(&tar_of(&entries), limits);
        assert!(got.contains(want), "wanted `{want}` for {:?}: {got}", entries[0].1);
    }
}

#[test]
fn a_stream_that_is_no_tar_or_ends_early_is_refused() {
    for bytes in [&b""[..], b"no tar", &[b'x'; 4096], &gzip(b"x"), b"\x1f\x8b", b"BZh9"] {
        let got = unpacked(bytes, LIMITS);
        assert!(got.contains("x.tar"), "{got}");
    }
    assert_eq!(
        unpacked(b"FROM scratch\n", LIMITS),
        "`x.tar` is neither an OCI layout nor a docker archive"
    );
    let tar = tar_of(&old_docker());
    for end in [100, 600, 1024 + 5, tar.len() / 2] {
        assert!(load(&tar[..end]).is_err(), "cut at {end}");
    }
    let mut wrong = tar;
    wrong[150] ^= 1;
    assert!(load(&wrong).is_err(), "a header whose sum is wrong");
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_disk() {
    let limits = Limits { free: 1 << 20, ratio: 10, ..LIMITS };
    let zeros = vec![0; 8 << 20];
    for name in ["x.tar", "ignored"] {
        let tar = tar_of(&[file(name, &zeros), file("index.json", b"{}")]);
        let got = unpacked(&gzip(&tar), limits);
        assert_eq!(got, "`x.tar` could not be read", "for `{name}`");
        let got = unpacked(&zstd::encode_all(&*tar, 3).unwrap(), limits);
        assert_eq!(got, "`x.tar` could not be read", "for `{name}`");
    }
    let limits = Limits { bytes: 1 << 20, ..LIMITS };
    let config = config(&[&zeros]);
    let manifest = json!([{ "Config": "c.json", "Layers": ["l.tar"] }]).to_string();
    let tar = tar_of(&[
        file("l.tar", &gzip(&zeros)),
        file("c.json", &config),
        file("manifest.json", manifest.as_bytes()),
    ]);
    let got = unpacked(&tar, limits);
    assert!(got.contains("unpacks to more than is read"), "{got}");
}

#[test]
fn links_are_names_within_the_archive() {
    for (from, link, want) in [
        ("bb", "../aa/layer.tar", Some("aa/layer.tar")),
        ("", "aa//./layer.tar", Some("aa/layer.tar")),
        ("a/b", "../../c", Some("c")),
        ("a/b", "../../../c", None),
        ("a", "/c", None),
        ("", "..", None),
    ] {
        assert_eq!(docker::resolve(from, link).as_deref(), want, "for `{from}`, `{link}`");
    }
}
