//! With `SOURCE_DATE_EPOCH`, what goes in decides what comes out: not where, when, or by whom.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    time::{Duration, SystemTime},
};

use rbuild_tests::{Run, Sandbox, scratch::copy_program};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use crate::{EPOCH, RBUILD, digest, is_soak, report, sandbox};

/// A file of a context: where it is, what is in it (or where a link leads), and its mode (0 for a
/// link).
type Entry = (String, String, u32);

#[test]
fn where_when_and_by_whom_a_context_was_written_does_not_matter() {
    let seeds = if is_soak() { 0..50 } else { 0..4 };
    let count = seeds.end;
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut entries = entries(&mut random);
        let want = image(&entries, "ctx", 1_600_000_000, &[]);
        random.shuffle(&mut entries);
        let other_umask = ["sh", "-c", "umask 077 && exec \"$@\"", "sh"];
        let other_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        for (words, folder) in [(&other_umask[..], "another"), (&other_user, "some/where/else")] {
            let got = image(&entries, folder, 1_650_000_000 + seed, words);
            assert_eq!(got, want, "seed {seed}, under {words:?}: {entries:?}");
        }
        let mut changed = entries.clone();
        changed[0].1 += "x";
        assert_ne!(image(&changed, "ctx", 1_600_000_000, &[]), want, "seed {seed}");
    }
    report(&format!("reproducible: {count} contexts, each built in 3 ways"));
}

/// Its name, how it is made in a context, and a change of it that must be seen in the image.
type KindOfFile = (&'static str, fn(&Path), fn(&Path));

/// What a context can hold. This needs root.
const KINDS: [KindOfFile; 12] = [
    (
        "character device",
        |it| device(it, "null", FileType::CharacterDevice, (1, 3)),
        |it| {
            fs::remove_file(it.join("null")).expect("device that is removed");
            device(it, "null", FileType::CharacterDevice, (1, 5));
        },
    ),
    (
        "block device",
        |it| device(it, "disk", FileType::BlockDevice, (259, 300)),
        |it| {
            fs::remove_file(it.join("disk")).expect("device that is removed");
            device(it, "disk", FileType::CharacterDevice, (259, 300));
        },
    ),
    ("pipe", |it| device(it, "pipe", FileType::Fifo, (0, 0)), |it| mode(it, "pipe", 0o600)),
    (
        "attribute",
        |it| attribute(it, "noted", "user.note", b"1\0\n"),
        |it| attribute(it, "noted", "user.note", b"1\0\t"),
    ),
    (
        "attribute of a folder",
        |it| attribute(&it.join("d"), ".", "user.note", b"1"),
        |it| attribute(&it.join("d"), ".", "user.more", b""),
    ),
    (
        "capability",
        |it| attribute(it, "ping", "security.capability", &capability(13)),
        |it| attribute(it, "ping", "security.capability", &capability(10)),
    ),
    ("sparse file", |it| sparse(it, 8 << 20), |it| sparse(it, (8 << 20) + 1)),
    (
        "long name",
        |it| put(it, &[b'n'; 255], b"1"),
        |it| fs::remove_file(it.join("n".repeat(255))).expect("file that is removed"),
    ),
    (
        "name that is no text",
        |it| put(it, b"\xff\xfe\xc3", b"1"),
        |it| {
            let [from, to] = [&b"\xff\xfe\xc3"[..], b"\xff\xfe\xc4"].map(OsStr::from_bytes);
            fs::rename(it.join(from), it.join(to)).expect("file that is renamed");
        },
    ),
    (
        "hard link",
        |it| {
            put(it, b"second", b"same");
            fs::hard_link(it.join("second"), it.join("first")).expect("hard link");
        },
        |it| {
            fs::remove_file(it.join("first")).expect("link that is broken");
            put(it, b"first", b"same");
        },
    ),
    (
        "set-user-id",
        |it| {
            put(it, b"su", b"1");
            mode(it, "su", 0o6755);
        },
        |it| mode(it, "su", 0o4755),
    ),
    (
        "sticky folder",
        |it| {
            fs::create_dir(it.join("tmp")).expect("folder");
            mode(it, "tmp", 0o1777);
        },
        |it| mode(it, "tmp", 0o777),
    ),
];

#[test]
fn all_kinds_of_files_give_the_same_digest_until_one_changes() {
    let mut order: Vec<usize> = (0..KINDS.len()).collect();
    let want = image_of_kinds(&order, "ctx", &|_| ());
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    let touch = |it: &Path| {
        for name in ["noted", "first", "tmp", "d"] {
            let file = File::open(it.join(name)).expect("file that is touched");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("time of a file");
            chown(it.join(name), Some(7), Some(8)).expect("owner of a file");
        }
        // A socket cannot be in an image.
        drop(UnixListener::bind(it.join("socket")).expect("socket"));
    };
    assert_eq!(image_of_kinds(&order, "another", &touch), want);
    for (name, _, change) in KINDS {
        assert_ne!(image_of_kinds(&order, "ctx", &change), want, "{name}");
    }
    report(&format!("reproducible: {} kinds of files", KINDS.len()));
}

/// The digest of the image with one of each kind, written in this order, and then changed.
fn image_of_kinds(order: &[usize], folder: &str, change: &dyn Fn(&Path)) -> String {
    let sandbox = sandbox(&[]);
    let context = sandbox.src().join(folder);
    sandbox.write(context.join("Dockerfile"), "FROM scratch\nCOPY . /srv\n");
    fs::create_dir(context.join("d")).expect("folder of a context");
    for (_, make, _) in order.iter().map(|it| KINDS[*it]) {
        make(&context);
    }
    change(&context);
    digest(sandbox.rbuild(["image", "build", folder]).env(EPOCH.0, EPOCH.1).ok().line())
}

fn device(folder: &Path, name: &str, kind: FileType, (major, minor): (u32, u32)) {
    let path = folder.join(name);
    mknodat(CWD, &path, kind, Mode::RUSR, makedev(major, minor)).expect("device (needs root)");
    mode(folder, name, 0o640);
}

fn mode(folder: &Path, name: &str, mode: u32) {
    fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).expect("mode of a file");
}

fn put(folder: &Path, name: &[u8], bytes: &[u8]) {
    fs::write(folder.join(OsStr::from_bytes(name)), bytes).expect("file of a context");
}

fn attribute(folder: &Path, name: &str, key: &str, value: &[u8]) {
    if name != "." && !folder.join(name).exists() {
        put(folder, name.as_bytes(), b"1");
    }
    setxattr(folder.join(name), key, value, XattrFlags::empty()).expect("attribute");
}

/// `vfs_cap_data` of version 2 (`linux/capability.h`), which permits one capability.
fn capability(number: u32) -> Vec<u8> {
    let words = [0x0200_0001, 1 << number, 0, 0, 0];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A file with a hole, and a byte behind it.
fn sparse(folder: &Path, hole: u64) {
    let file = File::create(folder.join("sparse")).expect("sparse file");
    file.write_all_at(b"x", hole).expect("byte behind a hole");
}

/// The digest of the image that is built from these entries, written in this order.
fn image(entries: &[Entry], folder: &str, mtime: u64, under: &[&str]) -> String {
    let sandbox = sandbox(&[]);
    let context = sandbox.src().join(folder);
    let dockerfile = "FROM scratch\nLABEL of=tests\nCOPY . /srv\nCOPY --chown=7:8 a /srv/owned/\n";
    let dockerfile = ("Dockerfile".to_owned(), dockerfile.to_owned(), 0o644);
    for entry in entries.iter().chain([&dockerfile]) {
        write(&context, entry, mtime);
    }
    // Not in the package's folder, which other users need not be able to enter.
    let program = sandbox.path().join("rbuild");
    copy_program(Path::new(RBUILD), &program);
    let args = ["image", "build", folder];
    let run = sandbox.run(&program, args).env(EPOCH.0, EPOCH.1).under(under);
    digest(open_to_all(&sandbox, run).ok().line())
}

/// `run`, after everything in the sandbox was given to whoever runs it.
fn open_to_all(sandbox: &Sandbox, run: Run) -> Run {
    fs::create_dir(sandbox.store()).expect("store");
    for folder in [sandbox.store(), sandbox.home(), sandbox.path().join("tmp")] {
        fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("mode of a folder");
    }
    run
}

fn write(context: &Path, (path, text, mode): &Entry, mtime: u64) {
    let path = context.join(path);
    let folder = path.parent().expect("folder of a file");
    fs::create_dir_all(folder).expect("folder of a file");
    for folder in folder.ancestors().take_while(|it| it.starts_with(context)) {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("mode of a folder");
    }
    if *mode == 0 {
        return symlink(text, path).expect("link");
    }
    fs::write(&path, text).expect("file of a context");
    fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("mode of a file");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
    File::options().write(true).open(&path).expect("file").set_modified(time).expect("its time");
}

/// A few files, some of them in folders, with names that sort in surprising ways.
fn entries(random: &mut fastrand::Rng) -> Vec<Entry> {
    let mut entries = vec![
        ("a".to_owned(), "a".to_owned(), 0o644),
        ("a.b".to_owned(), "between `a` and `a/`, for whoever sorts whole paths".into(), 0o755),
        ("link".to_owned(), "a".to_owned(), 0),
        (
            format!("long/{}/é ü", "x".repeat(120)),
            "a name that ustar cannot hold".into(),
            0o600 | 0o044,
        ),
    ];
    for number in 0..random.usize(5..40) {
        let folder = ["", "d/", "d/e/", "d-/", "d.d/"][random.usize(..5)];
        let text: String = (0..random.usize(..3000)).map(|_| random.alphanumeric()).collect();
        let mode = [0o644, 0o755, 0o444][random.usize(..3)];
        entries.push((format!("{folder}{}{number}", random.alphanumeric()), text, mode));
    }
    entries
}
