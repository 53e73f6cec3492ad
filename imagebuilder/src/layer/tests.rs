//! Layers of all kinds of trees, and of trees that change.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    path::Path,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    contents::Contents,
    context::Context,
    patterns::Ignore,
    rootfs::Rootfs,
    store::ObjectKind,
    tree::{Content, ContentOrigin, Device, Entry, InLayer, Kind, Meta},
};

fn job<'a>(store: &'a Store, progress: &'a mut dyn FnMut(u64)) -> Job<'a> {
    Job {
        store,
        options: Options::default(),
        like: Digest::of(b""),
        reuse: Reuse::Stored,
        stats: Stats::default(),
        uploads: None,
        progress,
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn entry(kind: Kind) -> Entry {
    let meta = Meta { mode: 0o640, uid: 1, gid: 2, mtime: 1_700_000_000, ..Meta::default() };
    Entry { kind, meta }
}

fn file(folder: &Path, name: &str, content: &str) -> Kind {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    let digest = Digest::of(content.as_bytes());
    let origin = ContentOrigin::File(path);
    Kind::File(Content { digest, size: content.len() as u64, origin })
}

/// One of everything that a tree can hold, at the limits of what ustar can.
fn everything(folder: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut add = |name: &str, kind: Kind| tree.insert(path(name), entry(kind));
    add("d", Kind::Folder);
    add("d/empty", file(folder, "1", ""));
    add("d/file", file(folder, "2", "hello"));
    add("d/hard", Kind::Hardlink(path("d/file")));
    add("link", Kind::Symlink(b"../x".to_vec()));
    add("long-link", Kind::Symlink(vec![b'x'; 200]));
    add(&format!("d/{}", "n".repeat(98)), file(folder, "3", "3"));
    add(&format!("d/{}", "n".repeat(99)), file(folder, "4", "4"));
    add(&format!("{}/{}", "p".repeat(155), "n".repeat(100)), file(folder, "5", "5"));
    add(&format!("{}/{}", "p".repeat(156), "n".repeat(100)), file(folder, "6", "6"));
    add(&"q".repeat(101), Kind::Folder);
    for length in [155, 156] {
        add(&"p".repeat(length), Kind::Folder);
    }
    add("null", Kind::CharDevice(Device { major: 1, minor: 3 }));
    add("disk", Kind::BlockDevice(Device { major: 8, minor: 4_000_000 }));
    add("pipe", Kind::Fifo);
    let mut odd = entry(file(folder, "7", "7"));
    odd.meta = Meta { mode: 0o6755, uid: 3_000_000, gid: 2_097_152, mtime: -5, ..odd.meta };
    odd.meta.xattrs.insert(b"user.x".to_vec(), b"a\n\0b".to_vec());
    tree.insert(TreePath::parse(b"od\xff\xc3d").unwrap(), odd);
    tree
}

#[test]
fn what_was_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let tree = everything(folder.path());
    let mut read = 0;
    let layer = write(&tree, &mut job(&store, &mut |count| read += count)).unwrap();
    assert_eq!(read, tree.size());
    let mut tar = Vec::new();
    let blob = store.open_blob(layer.digest).unwrap();
    flate2::read::GzDecoder::new(blob).read_to_end(&mut tar).unwrap();
    let table = Contents::of_tree(&tree).unwrap();
    assert!(tar.len() as u64 <= table.most_unpacked(), "{} bytes", tar.len());
    let again = Rootfs::read(&store, &[layer]).unwrap();
    let mut count = 0;
    for (path, entry) in tree.entries() {
        let found = again.tree().get(path).unwrap_or_else(|| panic!("no {path:?}"));
        assert_eq!(found.meta, entry.meta, "for {path:?}");
        let alike = match (&found.kind, &entry.kind) {
            (Kind::File(a), Kind::File(b)) => (a.digest, a.size) == (b.digest, b.size),
            (Kind::File(a), Kind::Hardlink(_)) => a.size == 5,
            (Kind::Symlink(a), Kind::Symlink(b)) => a == b,
            (Kind::CharDevice(a), Kind::CharDevice(b))
            | (Kind::BlockDevice(a), Kind::BlockDevice(b)) => a == b || b.minor == 4_000_000,
            (Kind::Folder, Kind::Folder) | (Kind::Fifo, Kind::Fifo) => true,
            _ => false,
        };
        assert!(alike, "for {path:?}: {found:?}");
        count += 1;
    }
    assert_eq!(again.tree().len(), count);
}

/// Bytes that compress a little, and are the same on every machine.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"etaoin shrdlu{}();=.0123456789\n\0"[usize::try_from(state >> 59).unwrap()]
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

fn bytes(folder: &Path, name: &str, content: &[u8]) -> Kind {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    let (digest, size) = (Digest::of(content), content.len() as u64);
    Kind::File(Content { digest, size, origin: ContentOrigin::File(path) })
}

fn method(text: &str) -> Options {
    Options { compression: text.parse().unwrap() }
}

#[test]
fn a_layer_is_the_same_on_every_machine() {
    // If this fails, the layers of users change their names: raise `VERSION` in `options.rs`.
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut tree = everything(folder.path());
    for number in 0..40 {
        let content = noise(number, 40_000);
        let kind = bytes(folder.path(), &format!("noise-{number}"), &content);
        tree.insert(path(&format!("noise/{number}")), entry(kind));
    }
    tree.insert(path("large"), entry(bytes(folder.path(), "large", &noise(7, 5 << 20))));
    let mut text = String::new();
    for name in ["gzip", "gzip:9", "zstd", "none"] {
        let nothing = &mut |_| ();
        let mut job = Job { options: method(name), ..job(&store, nothing) };
        let layer = write(&tree, &mut job).unwrap();
        let Layer { size, digest, diff_id, .. } = layer;
        writeln!(text, "{name} {size} {digest} {diff_id}").unwrap();
    }
    expect_test::expect![[r#"
        gzip 4304875 sha256:db4d5603441ac9c464f854b80df2b17b31dcd4317ce958ab32d15bc75246cb25 sha256:13d3e0ae860514b5e5039959cc5fd75b0c439bd3cb8e98f8e2588fdb1cf6d424
        gzip:9 4304524 sha256:42519d9645a5835183f2b20e797198c6dc7a82aeb746696f5eb17146f53b62a0 sha256:13d3e0ae860514b5e5039959cc5fd75b0c439bd3cb8e98f8e2588fdb1cf6d424
        zstd 4286835 sha256:8936b2deb8474f0f8c2679fa0bef813794ddbfd7bbce2b7ba24ec87314c53bae sha256:13d3e0ae860514b5e5039959cc5fd75b0c439bd3cb8e98f8e2588fdb1cf6d424
        none 6901760 sha256:13d3e0ae860514b5e5039959cc5fd75b0c439bd3cb8e98f8e2588fdb1cf6d424 sha256:13d3e0ae860514b5e5039959cc5fd75b0c439bd3cb8e98f8e2588fdb1cf6d424
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("f"), "hello").unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let opened = Context::open_folder(&context, Ignore::parse("").unwrap()).unwrap();
    for content in ["hallo", "hell", "hello!"] {
        fs::write(context.join("f"), "hello").unwrap();
        let tree = opened.read(&TreePath::ROOT).unwrap();
        fs::write(context.join("f"), content).unwrap();
        let error = write(&tree, &mut job(&store, &mut |_| ())).unwrap_err();
        assert!(matches!(error, LayerError::Changed { .. }), "{content}: {error}");
    }
}

fn change(tree: &mut Tree, how: fn(&mut Entry)) {
    let paths: Vec<TreePath> = tree.entries().map(|(path, _)| path.clone()).collect();
    for path in paths {
        how(tree.get_mut(&path).unwrap());
    }
}

#[test]
fn times_are_in_no_fingerprint_and_all_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let tree = everything(folder.path());
    let mut other = tree.clone();
    let root = &TreePath::ROOT;
    change(&mut other, |it| it.meta.mtime = 7);
    assert_eq!(fingerprint(&tree, root), fingerprint(&other, root));
    change(&mut other, |it| it.meta.uid = 7);
    assert_ne!(fingerprint(&tree, root), fingerprint(&other, root));
}

/// Writes a layer on so many threads.
fn write_like(
    store: &Store,
    tree: &Tree,
    options: Options,
    threads: usize,
    like: &str,
) -> Result<(Layer, u64), LayerError> {
    let mut read = 0;
    let progress = &mut |count| read += count;
    let like = Digest::of(like.as_bytes());
    let mut job = Job {
        store,
        options,
        like,
        reuse: Reuse::Stored,
        stats: Stats::default(),
        uploads: None,
        progress,
    };
    let layer = write_on(threads, tree, &mut job)?;
    Ok((layer, read))
}

/// A store in memory, where that is possible: nothing of this is about disks.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A tree that is changed at random.
struct Random {
    dice: fastrand::Rng,
    folder: tempfile::TempDir,
    tree: Tree,
    files: usize,
}

impl Random {
    fn new(seed: u64) -> Self {
        let (dice, folder) = (fastrand::Rng::with_seed(seed), place());
        let mut it = Self { dice, folder, tree: Tree::default(), files: 0 };
        for _ in 0..60 {
            it.add();
        }
        it
    }

    fn content(&mut self) -> Kind {
        let size = match self.dice.u8(..) {
            0..20 => 0,
            20..150 => self.dice.usize(..3000),
            150..253 => self.dice.usize(..100_000),
            _ => self.dice.usize(1 << 20..4 << 20),
        };
        self.files += 1;
        let content = noise(self.dice.u64(..40), size);
        bytes(self.folder.path(), &self.files.to_string(), &content)
    }

    fn add(&mut self) {
        let name = format!("{}/{}", self.dice.alphabetic(), self.dice.u32(..));
        let kind = match self.dice.u8(..10) {
            0 => Kind::Folder,
            1 => Kind::Symlink(vec![b'x'; self.dice.usize(1..300)]),
            _ => self.content(),
        };
        self.tree.insert(path(&name), entry(kind));
    }

    fn any(&mut self) -> TreePath {
        let number = self.dice.usize(..self.tree.len());
        self.tree.entries().nth(number).unwrap().0.clone()
    }

    /// Changes something.
    fn edit(&mut self) {
        let path = self.any();
        match self.dice.u8(..6) {
            0 | 1 => self.add(),
            2 => self.tree.remove(&path),
            3 => {
                let kind = self.content();
                self.tree.insert(path, entry(kind));
            }
            4 => {
                let mtime = [0, -1, 1 << 40, 77][self.dice.usize(..4)];
                self.tree.get_mut(&path).unwrap().meta.mtime = mtime;
            }
            _ => {
                let value = noise(1, self.dice.usize(..3000));
                let meta = &mut self.tree.get_mut(&path).unwrap().meta;
                meta.xattrs.insert(b"user.x".to_vec(), value);
            }
        }
    }
}

#[test]
fn what_is_in_the_store_changes_no_byte() {
    let rounds = if std::env::var_os("RBUILD_SOAK").is_some() { 2000 } else { 25 };
    for (seed, name) in [(1, "gzip"), (2, "zstd"), (3, "none"), (4, "gzip:1")] {
        let options = method(name);
        let mut random = Random::new(seed);
        let warm = place();
        let warm = Store::open(&warm.path().join("store")).unwrap();
        for round in 0..rounds {
            random.edit();
            let cold = place();
            let cold = Store::open(&cold.path().join("store")).unwrap();
            let threads = 1 + round % 4;
            let (want, _) = write_like(&cold, &random.tree, options, 3, "x").unwrap();
            let (got, _) = write_like(&warm, &random.tree, options, threads, "x").unwrap();
            assert_eq!(got, want, "{name}, round {round}");
            // Verified on the way.
            let blob = warm.read_blob(got.digest, got.size).unwrap();
            assert_eq!(unpacked(name, &blob), random.tree.len(), "{name}, round {round}");
        }
    }
}

/// The number of entries that the tar crate finds in a blob.
fn unpacked(method: &str, blob: &[u8]) -> usize {
    let mut tar = Vec::new();
    match method {
        "none" => tar.extend_from_slice(blob),
        "zstd" => tar = zstd::stream::decode_all(blob).unwrap(),
        // The decoder of one member, as some readers are.
        _ => drop(flate2::read::GzDecoder::new(blob).read_to_end(&mut tar).unwrap()),
    }
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut count = 0;
    for entry in archive.entries().unwrap() {
        std::io::copy(&mut entry.unwrap(), &mut std::io::sink()).unwrap();
        count += 1;
    }
    count
}

/// A tree of many files of a few kilobytes each, 6 MB in all.
fn many(folder: &Path) -> Tree {
    let mut tree = Tree::default();
    for number in 0..1500 {
        let content = noise(number, 4000);
        let kind = bytes(folder, &format!("many-{number}"), &content);
        tree.insert(path(&format!("many/{number:04}")), entry(kind));
    }
    tree
}

fn segments(store: &Store, layer: &Layer) -> Vec<Digest> {
    let composed = store.object(ObjectKind::Composed, layer.digest).unwrap().unwrap();
    crate::store::Composed::parse(&composed).unwrap().segments().collect()
}

#[test]
fn an_edit_moves_a_segment_or_two() {
    type Edit<'a> = &'a dyn Fn(&mut Tree);
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let tree = many(folder.path());
    let before =
        segments(&store, &write_like(&store, &tree, Options::default(), 2, "x").unwrap().0);
    assert!((4..20).contains(&before.len()), "{} segments", before.len());
    let new = || bytes(folder.path(), "new", &noise(5000, 4000));
    let edits: [(&str, Edit<'_>); 5] = [
        ("first", &|it| it.insert(path("a"), entry(new()))),
        ("middle", &|it| it.insert(path("many/0700a"), entry(new()))),
        ("last", &|it| it.insert(path("z"), entry(new()))),
        ("removed", &|it| it.remove(&path("many/0300"))),
        ("touched", &|it| it.get_mut(&path("many/0900")).unwrap().meta.mtime = 9),
    ];
    for (what, edit) in edits {
        let mut edited = tree.clone();
        edit(&mut edited);
        let (layer, _) = write_like(&store, &edited, Options::default(), 2, what).unwrap();
        let after = segments(&store, &layer);
        let moved = after.iter().filter(|it| !before.contains(it)).count();
        assert!((1..=3).contains(&moved), "{what}: {moved} of {}", after.len());
    }
}

#[test]
fn times_move_no_cuts() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut tree = many(folder.path());
    let lengths = |tree: &Tree| {
        let mut lengths = Vec::new();
        let options = Options::default();
        let mut planner = plan::plan(tree, &store, &options);
        while let Some(segment) = planner.next().unwrap() {
            lengths.push(segment.length);
        }
        lengths
    };
    let before = lengths(&tree);
    change(&mut tree, |it| it.meta.mtime += 1);
    assert_eq!(lengths(&tree), before);
}

#[test]
fn what_is_the_same_at_the_start_is_not_read() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut tree = many(folder.path());
    tree.insert(path("large"), entry(bytes(folder.path(), "large", &noise(7, 5 << 20))));
    let (first, read) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    assert_eq!(read, tree.size());
    // Even files that are gone are not missed.
    for number in 0..1100 {
        fs::remove_file(folder.path().join(format!("many-{number}"))).unwrap();
    }
    fs::remove_file(folder.path().join("large")).unwrap();
    let (again, read) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    assert_eq!((again, read), (first, 0));
    tree.get_mut(&path("many/1499")).unwrap().meta.mtime = 5;
    let (_, read) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    assert!(0 < read && read < 400 * 4000, "{read} bytes were read");
    let error = write_like(&store, &tree, Options::default(), 2, "other").unwrap_err();
    assert!(matches!(error, LayerError::Read { .. }), "{error}");
}

#[test]
fn checkpoints_that_are_damaged_are_not_used() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let tree = many(folder.path());
    let (layer, _) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    let kind = ObjectKind::Checkpoints;
    let mut bytes = store.object(kind, layer.digest).unwrap().unwrap();
    bytes[500] ^= 1;
    store.add_object(kind, layer.digest, &bytes).unwrap();
    let (again, read) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    assert_eq!((again, read), (layer, tree.size()));
}

/// A blob that was pulled or loaded is a file: the one that was made here may be gone.
#[test]
fn segments_that_are_gone_are_made_again() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut tree = many(folder.path());
    let (layer, _) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    let mut blob = Vec::new();
    store.open_blob(layer.digest).unwrap().read_to_end(&mut blob).unwrap();
    for key in segments(&store, &layer) {
        store.remove_object(ObjectKind::Segment, key).unwrap();
    }
    store.remove_object(ObjectKind::Composed, layer.digest).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(&blob).unwrap();
    writer.finish_as(Blob { digest: layer.digest, size: layer.size }).unwrap();
    tree.get_mut(&path("many/0900")).unwrap().meta.mtime = 9;
    let (edited, _) = write_like(&store, &tree, Options::default(), 2, "x").unwrap();
    assert_ne!(edited.digest, layer.digest);
    let mut read = Vec::new();
    store.open_blob(edited.digest).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(Digest::of(&read), edited.digest);
}

/// Remembers what was uploaded.
#[derive(Default)]
struct Heard(Arc<Mutex<Vec<Received>>>);

/// The bytes of one layer, and what it was said to be in the end.
type Received = (Vec<u8>, Option<Blob>);

struct Hearing {
    heard: Heard,
    number: usize,
}

impl Uploads for Heard {
    fn begin(&self) -> Option<Box<dyn Upload>> {
        let mut heard = self.0.lock().unwrap();
        let number = heard.len();
        heard.push((Vec::new(), None));
        Some(Box::new(Hearing { heard: Heard(Arc::clone(&self.0)), number }))
    }
}

impl Upload for Hearing {
    fn write(&mut self, bytes: &[u8]) {
        self.heard.0.lock().unwrap()[self.number].0.extend_from_slice(bytes);
    }

    fn finish(self: Box<Self>, blob: Blob) {
        self.heard.0.lock().unwrap()[self.number].1 = Some(blob);
    }
}

#[test]
fn an_upload_gets_all_bytes_if_something_is_new() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut tree = many(folder.path());
    let heard = Heard::default();
    let write = |tree: &Tree| {
        let nothing = &mut |_| ();
        let mut job = Job { uploads: Some(&heard), ..job(&store, nothing) };
        super::write(tree, &mut job).unwrap()
    };
    let first = write(&tree);
    write(&tree);
    tree.get_mut(&path("many/0900")).unwrap().meta.mtime = 9;
    let other = write(&tree);
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 2, "a layer with nothing new is not uploaded");
    for (layer, (bytes, blob)) in [first, other].iter().zip(heard.iter()) {
        let Layer { digest, size, .. } = *layer;
        assert_eq!((Digest::of(bytes), *blob), (digest, Some(Blob { digest, size })));
    }
}

#[test]
fn large_files_are_cut_by_content() {
    let folder = place();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let content = noise(7, 9 << 20);
    let tree = |content: &[u8]| {
        let mut tree = Tree::default();
        tree.insert(path("large"), entry(bytes(folder.path(), "large", content)));
        tree
    };
    let write = |tree: &Tree| write_like(&store, tree, Options::default(), 2, "x").unwrap();
    let before = segments(&store, &write(&tree(&content)).0);
    let inserted = [&content[..4 << 20], b"inserted", &content[4 << 20..]].concat();
    let after = segments(&store, &write(&tree(&inserted)).0);
    let moved = after.iter().filter(|it| !before.contains(it)).count();
    // The first has the header, which tells the size.
    assert!((1..=3).contains(&moved), "{moved} of {}", after.len());
    // A file that grows, shrinks or changes while it is cut or read is noticed, each time.
    let tree = tree(&inserted);
    let wrong: [&[u8]; 3] = [&content, &inserted[1..], &[&inserted, &b"more"[..]].concat()];
    for wrong in wrong {
        fs::write(folder.path().join("large"), wrong).unwrap();
        let fresh = place();
        let fresh = Store::open(&fresh.path().join("store")).unwrap();
        for (store, like) in [(&store, "y"), (&fresh, "x")] {
            let error = write_like(store, &tree, Options::default(), 2, like).unwrap_err();
            assert!(matches!(error, LayerError::Changed { .. }), "{error}");
        }
    }
}

#[test]
fn sizes_that_ustar_cannot_hold_are_read_by_others() {
    let content = Content {
        digest: Digest::of(b""),
        size: (8 << 30) + 5,
        origin: ContentOrigin::Layer(InLayer::default()),
    };
    let huge = entry(Kind::File(content));
    let bytes = header::header(&path("huge"), &huge);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entries = archive.entries().unwrap();
    let found = entries.next().unwrap().unwrap();
    assert_eq!(found.size(), (8 << 30) + 5);
    assert_eq!(found.header().entry_size().unwrap(), (8 << 30) + 5, "in the header alone");
}
