//! Contexts are walked, read, and known again.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::atomic::AtomicI64};

use super::*;

fn context(ignore: &str, make: impl FnOnce(&Path)) -> (tempfile::TempDir, Context) {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let ignore = Ignore::parse(ignore).unwrap();
    let context = Context::open_folder(folder.path(), ignore).unwrap();
    (folder, context)
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn list(tree: &Tree) -> Vec<String> {
    tree.entries().map(|(path, _)| path.to_string()).collect()
}

#[test]
fn ignored_files_are_not_there() {
    let (_folder, context) = context("*.log\nbuild\n!build/keep\n", |it| {
        fs::create_dir_all(it.join("build/sub")).unwrap();
        for name in ["a.log", "b", "build/keep", "build/drop", "build/sub/x"] {
            fs::write(it.join(name), name).unwrap();
        }
    });
    assert_eq!(list(&context.read(&TreePath::ROOT).unwrap()), ["", "b", "build", "build/keep"]);
    assert_eq!(context.stat(&path("a.log")).unwrap(), None);
    assert!(context.stat(&path("b")).unwrap().is_some());
}

#[test]
fn hard_links_and_links_stay_what_they_are() {
    let (_folder, context) = context("", |it| {
        fs::write(it.join("a"), "x").unwrap();
        fs::hard_link(it.join("a"), it.join("b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", it.join("l")).unwrap();
    });
    let tree = context.read(&TreePath::ROOT).unwrap();
    assert!(matches!(&tree.get(&path("a")).unwrap().kind, Kind::File(it) if it.size == 1));
    assert!(matches!(&tree.get(&path("b")).unwrap().kind, Kind::Hardlink(it) if *it == path("a")));
    assert!(
        matches!(&tree.get(&path("l")).unwrap().kind, Kind::Symlink(it) if it == b"/etc/passwd")
    );
}

#[test]
fn no_link_leads_outside() {
    let (_folder, context) = context("", |it| {
        let link = std::os::unix::fs::symlink::<&str, PathBuf>;
        fs::create_dir(it.join("d")).unwrap();
        fs::write(it.join("d/f"), "x").unwrap();
        link("d/f", it.join("inside")).unwrap();
        link("..", it.join("d/up")).unwrap();
        link("../..", it.join("d/out")).unwrap();
        link("/etc", it.join("abs")).unwrap();
        link("loop", it.join("loop")).unwrap();
        link("/d/f", it.join("rooted")).unwrap();
    });
    for (text, want) in [
        ("inside", "d/f"),
        ("d/up/d/f", "d/f"),
        ("missing", "missing"),
        ("d/out/x", "outside"),
        ("abs/passwd", "outside"),
        ("loop", "loop"),
        ("rooted", "d/f"),
    ] {
        let got = match context.resolve(&path(text)) {
            Ok(path) => path.to_string(),
            Err(ContextError::Outside { .. }) => "outside".into(),
            Err(ContextError::Loop { .. }) => "loop".into(),
            Err(err) => panic!("{err}"),
        };
        assert_eq!(got, want, "for `{text}`");
    }
    assert!(context.open(&path("inside")).is_err(), "a link is not opened");
    assert!(context.open(&path("d/up/d/f")).is_err(), "nor followed on the way");
}

#[test]
fn attributes_of_the_host_alone_are_left_out() {
    let (folder, context) = context("", |it| fs::write(it.join("f"), "x").unwrap());
    xattr::set(folder.path().join("f"), "user.note", b"1").unwrap();
    let tree = context.read(&TreePath::ROOT).unwrap();
    let xattrs = &tree.get(&path("f")).unwrap().meta.xattrs;
    assert_eq!(xattrs.get(b"user.note".as_slice()), Some(&b"1".to_vec()));
}

#[test]
fn an_attribute_that_would_be_another_one_in_a_layer_is_refused() {
    for place in ["f", ""] {
        let (folder, context) = context("", |it| fs::write(it.join("f"), "x").unwrap());
        xattr::set(folder.path().join(place), "user.a=b", b"1").unwrap();
        let ContextError::Read { source, .. } = context.read(&TreePath::ROOT).unwrap_err() else {
            panic!("for `{place}`");
        };
        assert_eq!(
            source.to_string(),
            "its attribute `user.a=b` has a `=` in its name, which no layer can hold",
        );
    }
}

/// A context with a store and a clock of its own, opened as by one build after the other.
struct Builds {
    folder: tempfile::TempDir,
    store: Store,
    clock: Arc<AtomicI64>,
}

impl Builds {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        fs::create_dir(folder.path().join("ctx")).unwrap();
        // Long after the files of the test were written.
        let clock = Arc::new(AtomicI64::new(stamp::now() + 3_600_000_000_000));
        Self { folder, store, clock }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("ctx").join(name)
    }

    fn open(&self) -> Context {
        let folder = self.folder.path().join("ctx");
        let mut context = Context::open_known(&folder, Ignore::default(), &self.store).unwrap();
        let clock = Arc::clone(&self.clock);
        let inner = Arc::get_mut(&mut context.inner).unwrap();
        inner.clock = Clock(Box::new(move || clock.load(Ordering::Relaxed)));
        context
    }

    /// How many files the next build would have to read, and which content it sees.
    fn unread(&self) -> (usize, Vec<Digest>) {
        let context = self.open();
        let known = context.inner.known.read().unwrap();
        let found = walk(&context.whence(), &known, &TreePath::ROOT).unwrap();
        let unread = found.iter().filter(|it| it.state == State::Unread).count();
        drop(known);
        (unread, contents(&context.read(&TreePath::ROOT).unwrap()))
    }
}

fn contents(tree: &Tree) -> Vec<Digest> {
    let content = |entry: &Entry| match &entry.kind {
        Kind::File(content) => Some(content.digest),
        _ => None,
    };
    tree.entries().filter_map(|(_, entry)| content(entry)).collect()
}

fn digests(texts: &[&str]) -> Vec<Digest> {
    texts.iter().map(|it| Digest::of(it.as_bytes())).collect()
}

#[test]
fn what_was_read_once_is_read_again_only_if_it_changed() {
    let builds = Builds::new();
    for name in ["a", "b", "c"] {
        fs::write(builds.file(name), name).unwrap();
    }
    assert_eq!(builds.unread(), (3, digests(&["a", "b", "c"])));
    assert_eq!(builds.unread(), (0, digests(&["a", "b", "c"])));
    fs::write(builds.file("b"), "x").unwrap();
    assert_eq!(builds.unread(), (1, digests(&["a", "x", "c"])));
    fs::set_permissions(builds.file("c"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(builds.unread(), (1, digests(&["a", "x", "c"])));
    fs::rename(builds.file("a"), builds.file("d")).unwrap();
    assert_eq!(builds.unread().1, digests(&["x", "c", "a"]));
    assert_eq!(builds.unread().0, 0);
}

#[test]
fn what_was_just_changed_is_not_known() {
    let builds = Builds::new();
    fs::write(builds.file("a"), "a").unwrap();
    let ctime = stamp_of(&builds.file("a")).ctime;
    for (clock, why) in [
        (ctime - 1, "a clock that was set back, or a file of the future"),
        (ctime, "the same tick"),
        (0, "a clock that starts anew"),
    ] {
        builds.clock.store(clock, Ordering::Relaxed);
        assert_eq!(builds.unread().0, 1, "{why}");
        assert_eq!(builds.unread().0, 1, "{why}, again");
    }
    builds.clock.store(ctime + 1_000_000_000, Ordering::Relaxed);
    assert_eq!(builds.unread().0, 1);
    assert_eq!(builds.unread().0, 0);
}

#[test]
fn other_filesystems_are_read_each_time() {
    let builds = Builds::new();
    fs::write(builds.file("a"), "a").unwrap();
    let device = stamp_of(&builds.file("a")).dev;
    builds.unread();
    let context = builds.open();
    context.inner.filesystems.known.lock().unwrap().insert(device, false);
    let known = context.inner.known.read().unwrap();
    let found = walk(&context.whence(), &known, &path("a")).unwrap();
    assert_eq!(found[0].state, State::Unread);
    drop(known);
    // /proc has files of no size, whose times say nothing.
    let context = Context::open_known(Path::new("/proc/sys"), Ignore::default(), &builds.store);
    let context = context.unwrap();
    for _ in 0..2 {
        let known = context.inner.known.read().unwrap();
        let found = walk(&context.whence(), &known, &path("kernel/ostype")).unwrap();
        assert_eq!(found[0].state, State::Unread);
        drop(known);
        let tree = context.read(&path("kernel/ostype")).unwrap();
        assert_eq!(contents(&tree), digests(&["Linux\n"]));
        let Kind::File(file) = &tree.get(&path("kernel/ostype")).unwrap().kind else { panic!() };
        assert_eq!(
            file.still(&file.open(&path("kernel/ostype")).unwrap()).unwrap(),
            Still::Unknown
        );
    }
}

#[test]
fn a_cache_that_is_damaged_or_of_another_folder_does_no_harm() {
    let builds = Builds::new();
    fs::write(builds.file("a"), "a").unwrap();
    builds.unread();
    let caches: Vec<_> = fs::read_dir(builds.store.root().join("stat")).unwrap().collect();
    assert_eq!(caches.len(), 1);
    let cache = caches[0].as_ref().unwrap().path();
    let whole = fs::read(&cache).unwrap();
    fs::write(&cache, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(builds.unread(), (1, digests(&["a"])));
    assert_eq!(builds.unread(), (0, digests(&["a"])));
    // Another folder at the same place.
    fs::rename(builds.file(""), builds.folder.path().join("old")).unwrap();
    fs::create_dir(builds.file("")).unwrap();
    fs::write(builds.file("a"), "b").unwrap();
    assert_eq!(builds.unread(), (1, digests(&["b"])));
}

#[test]
fn a_context_that_is_as_it_was_writes_nothing() {
    let builds = Builds::new();
    fs::write(builds.file("a"), "a").unwrap();
    builds.unread();
    let folder = builds.store.root().join("stat");
    let inode = || -> Vec<u64> {
        let files = fs::read_dir(&folder).unwrap();
        files.map(|it| it.unwrap().metadata().unwrap().ino()).collect()
    };
    let before = inode();
    builds.unread();
    fs::remove_file(builds.file("a")).unwrap();
    builds.unread();
    assert_eq!(inode(), before);
}

#[test]
fn a_file_is_still_the_same_only_if_its_stamp_proves_it() {
    let builds = Builds::new();
    fs::write(builds.file("a"), "aaa").unwrap();
    let still_above = |most: usize, change: &dyn Fn()| {
        let context = builds.open();
        let tree = context.read(&TreePath::ROOT).unwrap();
        let Kind::File(file) = tree.get(&path("a")).unwrap().kind.clone() else { panic!() };
        context.rest_above(most);
        change();
        file.still(&file.open(&path("a")).unwrap()).unwrap()
    };
    assert_eq!(still_above(0, &|| {}), Still::Same);
    assert_eq!(still_above(0, &|| fs::write(builds.file("a"), "bb").unwrap()), Still::Changed);
    fs::write(builds.file("a"), "aaa").unwrap();
    assert_eq!(still_above(0, &|| fs::write(builds.file("a"), "ccc").unwrap()), Still::Unknown);
    let still = |change: &dyn Fn()| still_above(1, change);
    assert_eq!(still(&|| {}), Still::Same);
    // Other content, or not: who read it compares the digests.
    assert_eq!(still(&|| fs::write(builds.file("a"), "bbb").unwrap()), Still::Unknown);
    assert_eq!(still(&|| fs::write(builds.file("a"), "bbbb").unwrap()), Still::Changed);
    builds.clock.store(0, Ordering::Relaxed);
    fs::write(builds.file("a"), "ccc").unwrap();
    assert_eq!(still(&|| {}), Still::Unknown, "its stamp is too young to prove anything");
}

#[test]
fn what_is_at_rest_is_known_again_when_it_is_needed() {
    let builds = Builds::new();
    for name in ["a", "b"] {
        fs::write(builds.file(name), name).unwrap();
    }
    let context = builds.open();
    context.read(&path("a")).unwrap();
    for _ in 0..2 {
        context.rest_above(0);
        assert_eq!(context.inner.known.read().unwrap().len(), 0);
        assert_eq!(contents(&context.read(&TreePath::ROOT).unwrap()), digests(&["a", "b"]));
        assert_eq!(context.inner.known.read().unwrap().len(), 2);
    }
    context.rest_above(0);
    drop(context);
    assert_eq!(builds.unread().0, 0);
}

#[test]
fn attributes_are_known_again_and_seen_when_they_change() {
    let builds = Builds::new();
    fs::create_dir(builds.file("d")).unwrap();
    fs::write(builds.file("d/f"), "x").unwrap();
    for value in ["1", "2"] {
        for name in ["d", "d/f"] {
            xattr::set(builds.file(name), "user.note", value.as_bytes()).unwrap();
        }
        for _ in 0..2 {
            let tree = builds.open().read(&TreePath::ROOT).unwrap();
            for name in ["d", "d/f"] {
                let xattrs = &tree.get(&path(name)).unwrap().meta.xattrs;
                assert_eq!(xattrs.get(b"user.note".as_slice()), Some(&value.into()), "{name}");
            }
        }
    }
}

#[test]
fn deep_and_wide_folders_are_found_in_order() {
    let (_folder, context) = context("**/skip*\n!**/skip2/keep\n", |it| {
        for number in 0..300 {
            let folder = it.join(format!("{}/d{number}/x", number % 7));
            fs::create_dir_all(folder.join("skip2")).unwrap();
            for name in ["a", "skip", "skip2/keep", "skip2/other"] {
                fs::write(folder.join(name), name).unwrap();
            }
            fs::create_dir(folder.join("skip1")).unwrap();
        }
    });
    let first = list(&context.read(&TreePath::ROOT).unwrap());
    assert!(first.is_sorted());
    assert_eq!(first.len(), 1 + 7 + 300 * 5);
    assert_eq!(list(&context.read(&TreePath::ROOT).unwrap()), first);
}

#[test]
fn a_folder_that_is_swapped_for_a_link_leads_nowhere() {
    let (folder, context) = context("", |it| fs::create_dir(it.join("d")).unwrap());
    let link = folder.path().join("l");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let folder = File::open(folder.path()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&folder, "d", &folder, "l", flags).unwrap();
            }
        });
        for _ in 0..300 {
            // That it was swapped may be noticed; what lies outside is never seen.
            if let Ok(tree) = context.read(&TreePath::ROOT) {
                assert!(tree.entries().all(|(path, _)| path.parts().count() < 2), "{tree:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn stamp_of(path: &Path) -> Stamp {
    Stamp::of(&sys::stat(path).unwrap())
}
