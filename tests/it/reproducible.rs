//! With `SOURCE_DATE_EPOCH`, what goes in decides what comes out: not where, when, or by whom.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use rbuild_tests::{Run, Sandbox, scratch::copy_program};

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
