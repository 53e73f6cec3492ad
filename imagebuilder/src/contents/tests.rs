//! Tables are read as they were written, and damage is noticed.

use std::{fmt::Write as _, fs};

use super::*;
use crate::{
    layer,
    rootfs::Rootfs,
    store::{ObjectKind, Store},
    tree::Entry,
};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn shown(contents: &Contents) -> String {
    let mut text = String::new();
    for item in contents.items() {
        let Item { path, number, what } = item.unwrap();
        match what {
            What::Here { kind: Kind::File(Content { digest, size, .. }), meta, kept } => {
                writeln!(text, "{number} {path} {digest} {size} {meta:?} {kept:?}").unwrap();
            }
            what => writeln!(text, "{number} {path} {what:?}").unwrap(),
        }
    }
    text
}

/// A tree with everything that a layer can have, whose files lie in `folder`.
fn rich(folder: &std::path::Path) -> Tree {
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        let origin = ContentOrigin::File(path);
        Kind::File(Content { digest: Digest::of(bytes), size: bytes.len() as u64, origin })
    };
    let device = Device { major: 300, minor: 70_000 };
    let mut tree = Tree::default();
    let xattrs = [(b"user.a".to_vec(), b"\0\n=\xff".to_vec())].into();
    for (name, kind, mode, uid, mtime) in [
        ("", Kind::Folder, 0o755, 0, 0),
        ("a", Kind::Folder, 0o1777, 0, -5),
        ("a/b", file("b", b"content"), 0o4755, 4_000_000_000, 5),
        ("a/c", Kind::Hardlink(path("a/b")), 0o4755, 4_000_000_000, 5),
        ("dev", Kind::Folder, 0o755, 0, 1 << 40),
        ("dev/b", Kind::BlockDevice(device), 0o600, 0, 0),
        ("dev/c", Kind::CharDevice(device), 0o600, 0, 0),
        ("etc", Kind::Folder, 0o755, 0, 0),
        ("etc/passwd", file("p", b"joe:x:7:8::/:\n"), 0o644, 0, 0),
        ("link", Kind::Symlink(b"../\xff".to_vec()), 0o777, 3, 0),
        ("pipe", Kind::Fifo, 0o644, 0, 0),
    ] {
        let xattrs =
            if uid == 0 { std::collections::BTreeMap::new() } else { Clone::clone(&xattrs) };
        let meta = Meta { mode, uid, gid: uid / 2, mtime, xattrs: xattrs.into_iter().collect() };
        tree.insert(path(name), Entry { kind, meta });
    }
    let deep = path(&"deep/".repeat(200));
    tree.insert(deep, Entry::made_folder(1, 2, 3));
    tree
}

/// The table of what is written is the table of what is read.
#[test]
fn a_layer_that_was_written_needs_not_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let tree = rich(folder.path());
    let mut job = layer::Job {
        store: &store,
        options: layer::Options::default(),
        like: Digest::of(b""),
        reuse: layer::Reuse::Stored,
        stats: layer::Stats::default(),
        uploads: None,
        progress: &mut |_| (),
    };
    let layer = layer::write(&tree, &mut job).unwrap();
    let written = Contents::of_tree(&tree).unwrap();
    let blob = store.open_blob(layer.digest).unwrap();
    let (read, diff_id) =
        Contents::of_stream(flate2::read::MultiGzDecoder::new(blob), 1 << 30).unwrap();
    assert_eq!(diff_id, layer.diff_id);
    assert_eq!(shown(&written), shown(&read));
    assert_eq!(written.as_bytes(), read.as_bytes());
    assert!(shown(&written).contains("[106, 111, 101"), "the users are kept");

    // It is found, and nothing else is needed.
    store.add_object(ObjectKind::Contents, layer.diff_id, written.as_bytes()).unwrap();
    store.remove_blob(layer.digest).unwrap();
    let rootfs = Rootfs::read(&store, &[layer]).unwrap();
    assert_eq!(rootfs.tree().len(), tree.len() - 1 + 199, "less the root, and with parents");
}

#[test]
fn what_is_removed_comes_first() {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["x", "a/.wh.x", "y", "b/.wh..wh..opq"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        tar.append_data(&mut header, name, io::empty()).unwrap();
    }
    let (contents, _) = Contents::of_stream(&*tar.into_inner().unwrap(), 1 << 30).unwrap();
    let names: Vec<String> = contents.items().map(|it| it.unwrap().path.to_string()).collect();
    assert_eq!(names, ["a/x", "b", "x", "y"]);
}

#[test]
fn damage_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let contents = Contents::of_tree(&rich(folder.path())).unwrap();
    let bytes = contents.as_bytes();
    assert!(Contents::parse(bytes.to_vec()).is_some());
    for cut in 0..bytes.len() {
        assert!(Contents::parse(bytes[..cut].to_vec()).is_none(), "cut at {cut}");
        let mut other = bytes.to_vec();
        other[cut] ^= 1;
        assert!(Contents::parse(other).is_none(), "changed at {cut}");
    }
    // Also if the sum is right: the parts have an end of their own.
    for part in [&b""[..], b"x", &zstd::encode_all(&b"\x01\x01"[..], 1).unwrap()] {
        let items: Vec<_> = Items::new(part).collect();
        assert!(matches!(items[..], [Err(Damaged)]), "{items:?}");
    }
}

#[test]
fn a_table_is_small() {
    let mut tree = Tree::default();
    for number in 0..10_000_u32 {
        let digest = Digest::of(&number.to_le_bytes());
        let kind = content_of(digest, u64::from(number));
        let meta = Meta { mode: 0o644, mtime: 1_700_000_000, ..Meta::default() };
        tree.insert(
            path(&format!("app/node_modules/m{}/f{number}.js", number / 50)),
            Entry { kind, meta },
        );
    }
    let size = Contents::of_tree(&tree).unwrap().as_bytes().len();
    assert!(size < 50 * 10_000, "{size} bytes");
}
