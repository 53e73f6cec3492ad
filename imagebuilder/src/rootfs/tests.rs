//! Stacks of layers, as others would unpack them.

use std::fmt::Write as _;

use super::*;
use crate::{digest::Blob, image::OCI_LAYER};

/// One entry: `folder/`, `file`, `link -> target`, `name = first` for hard links.
fn tar(entries: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(0);
        let link = |header: &mut tar::Header, kind, target: &str| {
            header.set_entry_type(kind);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        };
        let name = if let Some((name, target)) = entry.split_once(" -> ") {
            link(&mut header, tar::EntryType::Symlink, target);
            name
        } else if let Some((name, target)) = entry.split_once(" = ") {
            link(&mut header, tar::EntryType::Link, target);
            name
        } else {
            let is_folder = entry.ends_with('/');
            header.set_entry_type(match is_folder {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            });
            header.set_size(if is_folder { 0 } else { entry.len() as u64 });
            entry
        };
        // As it is: the crate would refuse some names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let data = if header.size().unwrap() == 0 { &b""[..] } else { entry.as_bytes() };
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { _folder: folder, store }
    }

    fn layer(&self, tar: &[u8]) -> Layer {
        let Blob { digest, size } = self.store.write_blob(tar).unwrap();
        Layer { media_type: OCI_LAYER.to_owned(), digest, size, diff_id: digest }
    }

    fn read(&self, layers: &[&[&str]]) -> Result<Rootfs, RootfsError> {
        let layers: Vec<Layer> = layers.iter().map(|it| self.layer(&tar(it))).collect();
        Rootfs::read(&self.store, &layers)
    }
}

fn show(layers: &[&[&str]]) -> String {
    let rootfs = match Bench::new().read(layers) {
        Ok(rootfs) => rootfs,
        Err(err) => {
            let cause = std::error::Error::source(&err).map(|it| format!(": {it}"));
            return format!("{err}{}", cause.unwrap_or_default());
        }
    };
    let mut text = String::new();
    for (path, entry) in rootfs.tree().entries() {
        let what = match &entry.kind {
            Kind::Folder => "/".to_owned(),
            Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
            Kind::File(content) => format!(" {}", content.size),
            _ => " ?".to_owned(),
        };
        write!(text, "{path}{what}; ").unwrap();
    }
    text
}

#[test]
fn layers_lie_on_each_other() {
    for (layers, want) in [
        (&[&["a/", "a/x"][..], &["a/y"]][..], "a/; a/x 3; a/y 3; "),
        // One kind replaces another, with all that was in it.
        (&[&["a/", "a/x"], &["a"]], "a 1; "),
        (&[&["a"], &["a/"]], "a/; "),
        (&[&["a"], &["a -> b"]], "a -> b; "),
        (&[&["a/", "a/x"], &["a -> b"]], "a -> b; "),
        (&[&["a"], &["a/x"]], "a/; a/x 3; "),
        // Of two in one layer, the last counts.
        (&[&["a", "a -> b", "a/"]], "a/; "),
        (&[&["a/", "a/x", "a"]], "a 1; "),
        // What is removed is removed from the layers below alone, wherever it stands.
        (&[&["x", "y"], &["x", ".wh.x", ".wh.y"]], "x 1; "),
        (&[&["a/", "a/x"], &["a/y", "a/.wh..wh..opq"]], "a/; a/y 3; "),
        (&[&["a/", "a/x"], &[".wh.a", "a/y"]], "a/; a/y 3; "),
        (&[&["a"], &[".wh..wh..opq", "b"]], "b 1; "),
        (&[&["a"], &[".wh.none", "none/.wh..wh..opq"]], "a 1; "),
        // Behind a link.
        (
            &[&["usr/lib/", "lib -> usr/lib"], &["lib/x"]],
            "lib -> usr/lib; usr/; usr/lib/; usr/lib/x 5; ",
        ),
        (&[&["usr/lib/x", "lib -> /usr/lib"], &["lib/.wh.x"]], "lib -> /usr/lib; usr/; usr/lib/; "),
        (&[&["l -> ../../../out"], &["l/x"]], "l -> ../../../out; out/; out/x 3; "),
        (&[&["a/", "l -> a", "l/x"]], "a/; a/x 3; l -> a; "),
        // Hard links: to this layer's, to those of others, to a link, behind a link.
        (&[&["a", "b = a"]], "a 1; b 1; "),
        (&[&["a"], &["b = ./a"]], "a 1; b 1; "),
        (&[&["a"], &["b = /a", ".wh.none"]], "a 1; b 1; "),
        (&[&["l -> x", "m = l"]], "l -> x; m -> x; "),
        (&[&["d/a", "l -> d"], &["b = l/a"]], "b 3; d/; d/a 3; l -> d; "),
        (&[&["a"], &["b = a", "a"]], "a 1; b 1; "),
        // What cannot be.
        (&[&["b = a"]], "a hard link to `a`, which is no file"),
        (&[&["b = a", "a"]], "a hard link to `a`, which is no file"),
        (&[&["a"], &[".wh.a", "b = a"]], "a hard link to `a`, which is no file"),
        (&[&["d/", "b = d"]], "a hard link to `d`, which is no file"),
        (&[&["b = b"]], "a hard link to `b`, which is no file"),
        (&[&["b = ../../x"]], "leads outside of the root"),
        (&[&["a -> b", "b -> a", "a/x"]], "`a/x` has too many levels of symbolic links"),
        (&[&["a -> a/a", "a/x"]], "`a/x` has too many levels of symbolic links"),
    ] {
        let got = show(layers);
        // An error is told in more words.
        let is_error = got.contains("layer") || got.starts_with('`');
        let is_right = got == want || is_error && got.contains(want);
        assert!(is_right, "{layers:?}: {got} in place of {want}");
    }
}

#[test]
fn users_are_read_wherever_they_are() {
    let bench = Bench::new();
    let text = |layers: &[&[&str]]| {
        let rootfs = bench.read(layers).unwrap();
        let from = Layers { store: &bench.store, remote: None };
        rootfs.text(from, "/etc/passwd").unwrap()
    };
    assert_eq!(text(&[&["etc/passwd"]]).as_deref(), Some("etc/passwd"));
    assert_eq!(text(&[&["etc/passwd"], &[".wh.etc"]]), None);
    assert_eq!(text(&[&["etc/"]]), None);
    // Not in the table: it lies elsewhere.
    let elsewhere = &["usr/lib/users", "etc/passwd -> ../usr/lib/users"];
    assert_eq!(text(&[elsewhere]).as_deref(), Some("usr/lib/users"));
    // The last of two, and that of the highest layer.
    assert_eq!(text(&[&["x"], &["x", "etc/passwd = x"]]).as_deref(), Some("x"));
}

/// Long ways behind links take time to follow: there is an end to it.
#[test]
fn work_and_memory_are_bounded() {
    let way = "d/".repeat(40);
    let name = |number: usize| format!("l/{way}f{number}");
    let mut tree = Rootfs::default();
    let mut layer = Tree::default();
    let meta = Meta::default();
    let entry = |kind| Entry { kind, meta: meta.clone() };
    let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
    layer.insert(path("l"), entry(Kind::Symlink(b"m".to_vec())));
    for number in 0..20 {
        layer.insert(path(&name(number)), entry(Kind::Fifo));
    }
    let bench = Bench::new();
    let of = bench.layer(&tar(&["x"]));
    tree.push(&layer, &of).unwrap();
    assert_eq!(tree.followed, 20 * 42, "the link, and what is behind it");
    tree.followed = MOST_FOLLOWED - 5;
    let err = tree.push(&layer, &of).unwrap_err();
    assert!(err.to_string().contains("millions of files behind links"), "{err}");
    tree.followed = 0;
    tree.memory = LARGEST_TREE - 5;
    let err = tree.push(&layer, &of).unwrap_err();
    assert!(err.to_string().contains("512 MiB of memory"), "{err}");
}

#[test]
fn what_is_near_a_path_is_as_in_the_whole() {
    let bench = Bench::new();
    let stack: [&[&str]; 3] = [
        &[
            "usr/",
            "usr/bin/",
            "usr/bin/a",
            "bin -> usr/bin",
            "etc/",
            "etc/users",
            "srv/",
            "srv/x/",
            "srv/x/f",
            "srv/y = etc/users",
            "srv/z = bin",
            "opt -> /srv/x",
        ],
        &["bin/b", "srv/x", "etc/users/", "etc/users/z", "usr/bin/.wh.a", "way"],
        &["srv/y -> /etc", "usr/c = srv/x", "way/out/", "way/out/f"],
    ];
    let layers: Vec<Layer> = stack.iter().map(|it| bench.layer(&tar(it))).collect();
    let from = Layers { store: &bench.store, remote: None };
    for count in 1..=layers.len() {
        let layers = &layers[..count];
        let whole = Rootfs::read_from(from, layers).unwrap();
        for text in
            ["", "srv", "srv/y", "opt", "opt/f", "bin/b", "etc/users", "way/out", "no/where"]
        {
            let path = TreePath::parse(text.as_bytes()).unwrap();
            let near = Rootfs::read_near(from, layers, &path).unwrap();
            let target = whole.resolve(&path, true).unwrap();
            assert_eq!(near.resolve(&path, true).unwrap(), target, "`{text}`");
            let expected = whole.tree().entries().filter(|(it, entry)| {
                !matches!(entry.kind, Kind::File(_))
                    || it.relative_to(&target).is_some()
                    || target.relative_to(it).is_some()
            });
            let kinds = |(path, entry): (&TreePath, &Entry)| {
                (path.clone(), std::mem::discriminant(&entry.kind))
            };
            let expected: Vec<_> = expected.map(kinds).collect();
            let found: Vec<_> = near.tree().entries().map(kinds).collect();
            assert_eq!(found, expected, "`{text}` in {count} layers");
        }
    }
}
