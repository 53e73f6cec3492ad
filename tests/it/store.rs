//! The store under load: many processes at once, full disks, damage, and what `rbuild cache` says.

use std::{fs, path::Path, thread, time::Instant};

use rbuild_imagebuilder::{
    digest::Digest,
    store::{ObjectKind, Store},
};
use rbuild_tests::{Sandbox, Scratch, namespace::Namespace, store};
use serde_json::Value;

use crate::{EPOCH, digest, is_soak, report, sandbox, sandbox_with_context};

/// A sandbox with eight contexts that share a folder's contents.
fn sandbox_with_contexts() -> Sandbox {
    let sandbox = sandbox(&[]);
    let mut random = fastrand::Rng::with_seed(3);
    let shared: Vec<u8> = (0..300_000).map(|_| random.u8(..)).collect();
    for number in 0..8 {
        let folder = format!("ctx-{number}");
        let dockerfile = "FROM scratch\nCOPY shared /\nCOPY own /\nENV A=b\n";
        sandbox.write(format!("{folder}/Dockerfile"), dockerfile);
        sandbox.write(format!("{folder}/shared"), &shared);
    }
    sandbox
}

/// One process after another: what a worker does in one round.
fn work(sandbox: &Sandbox, worker: usize, round: usize) {
    let rbuild = |args: &[&str]| sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok();
    let (folder, name) = (format!("ctx-{worker}"), format!("image-{worker}:{}", round % 2));
    // Some contents come back.
    sandbox.write(format!("{folder}/own"), format!("{worker} {}", round % 5).repeat(9000));
    let built = rbuild(&["image", "build", "-t", &name, &folder]);
    let digest = digest(built.line());
    match (worker + round) % 4 {
        0 => drop(rbuild(&["cache", "prune", "--max-size", "400kB"])),
        1 => drop(rbuild(&["cache", "verify"])),
        2 => drop(rbuild(&["cache", "prune", "--all"])),
        _ => drop(rbuild(&["image", "rm", &name])),
    }
    if (worker + round) % 4 != 3 {
        let inspected = rbuild(&["image", "inspect", &name]);
        assert!(inspected.stdout.contains(&digest), "{inspected}");
        let saved = format!("saved-{worker}");
        rbuild(&["image", "save", "--format", "oci", "-o", &saved, &name]);
        let saved = sandbox.src().join(saved);
        assert_eq!(store::assert_every_blob_is_whole(&saved), 4, "of {name}");
        fs::remove_dir_all(saved).expect("layout that is removed");
    }
}

#[test]
fn eight_build_prune_verify_and_remove_at_once() {
    let sandbox = sandbox_with_contexts();
    let start = Instant::now();
    let rounds = if is_soak() { 200 } else { 4 };
    thread::scope(|scope| {
        for worker in 0..8 {
            let sandbox = &sandbox;
            scope.spawn(move || (0..rounds).for_each(|round| work(sandbox, worker, round)));
        }
    });
    report(&format!("store: 8 workers, {rounds} rounds each, in {:.1?}", start.elapsed()));
    store::assert_nothing_is_half_written(&sandbox.store());
    sandbox.rbuild(["cache", "prune", "--all"]).ok();
    sandbox.rbuild(["cache", "verify"]).ok();
    for folder in ["tmp", "retired", "leases"] {
        assert_eq!(store::files(&sandbox.store().join(folder)), [] as [&Path; 0], "in {folder}");
    }
}

#[test]
fn a_disk_that_is_full_at_any_point_leaves_a_store_that_can_be_used() {
    let mut random = fastrand::Rng::with_seed(4);
    let dockerfile = "FROM scratch\nCOPY hello /\nCOPY small /\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile)]);
    let large: Vec<u8> = (0..300_000).map(|_| random.u8(..)).collect();
    sandbox.write("ctx/hello", &large);
    fs::create_dir_all(sandbox.store()).expect("store");
    let store = sandbox.store().display().to_string();
    let (mut full, mut fine) = (0, 0);
    for _ in 0..if is_soak() { 100 } else { 8 } {
        let size = random.u32(20..1200);
        let mount = format!("mount -t tmpfs -o size={size}k tmpfs '{store}'");
        let namespace = Namespace::new(&mount);
        let words = namespace.enter(&sandbox.src().display().to_string());
        let rbuild = |args: &[&str]| sandbox.rbuild(args).under(&words).env(EPOCH.0, EPOCH.1);
        for content in ["a", "b", "c"] {
            sandbox.write("ctx/small", content.repeat(30_000));
            let finished = rbuild(&["image", "build", "-t", "x", "ctx"]).go();
            match finished.status.code() {
                Some(0) => fine += 1,
                _ => {
                    finished.fails(3, &["No space left on device"]);
                    full += 1;
                }
            }
        }
        rbuild(&["cache", "verify"]).ok();
        rbuild(&["cache", "prune"]).ok();
        for image in rbuild(&["image", "ls"]).ok().stdout.lines().skip(1) {
            assert!(!image.contains("damaged"), "with {size} kB: {image}");
            // One may have come without its name.
            let digest = image.split_whitespace().nth(1).expect("digest");
            rbuild(&["image", "save", "--format", "oci", "-o", "../saved", digest]).ok();
            fs::remove_dir_all(sandbox.path().join("saved")).expect("layout that is removed");
            rbuild(&["image", "rm", digest]).ok();
        }
        rbuild(&["cache", "prune", "--all"]).ok();
    }
    report(&format!("store: {full} builds on a full disk, {fine} that had room"));
    assert!(0 < full && 0 < fine, "{full} full, {fine} fine");
}

#[test]
fn a_store_that_cannot_be_written_to_can_be_read() {
    let sandbox = sandbox_with_context();
    let build = || sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).env(EPOCH.0, EPOCH.1);
    let want = digest(build().ok().line());
    let store = sandbox.store().display().to_string();
    let mount = format!("mount --bind '{store}' '{store}' && mount -o remount,bind,ro '{store}'");
    let namespace = Namespace::new(&mount);
    let words = namespace.enter(&sandbox.src().display().to_string());
    let rbuild = |args: &[&str]| sandbox.rbuild(args).under(&words).env(EPOCH.0, EPOCH.1);
    for args in [
        &["image", "ls"][..],
        &["image", "inspect", "x"],
        &["image", "save", "--format", "oci", "-o", "../saved", "x"],
        &["cache", "du"],
        &["cache", "verify"],
        &["cache", "prune", "--all", "--dry-run"],
    ] {
        rbuild(args).ok();
    }
    assert_eq!(store::assert_every_blob_is_whole(&sandbox.path().join("saved")), 3);
    assert_eq!(digest(rbuild(&["image", "build", "ctx"]).ok().line()), want, "nothing to write");
    rbuild(&["image", "rm", "x"]).go().fails(3, &["Read-only file system", &store]);
}

#[test]
fn what_takes_how_much_is_told_and_what_is_not_needed_goes() {
    let sandbox = sandbox_with_context();
    for content in ["one", "two"] {
        sandbox.write("ctx/hello", content.repeat(10_000));
        sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).env(EPOCH.0, EPOCH.1).ok();
    }
    let usage = || -> Value {
        let printed = sandbox.rbuild(["cache", "du", "--json"]).ok();
        serde_json::from_str(&printed.stdout).expect("JSON")
    };
    let before = usage();
    assert_eq!(before["images"].as_array().expect("images").len(), 2, "{before}");
    let table = sandbox.rbuild(["cache", "du"]).ok().stdout;
    assert!(table.contains("total on disk") && table.contains("x:latest"), "{table}");
    let planned = sandbox.rbuild(["cache", "prune", "--all", "--dry-run"]).ok();
    assert!(planned.stderr.contains("would be removed: 1 images without a name"), "{planned}");
    assert_eq!(usage(), before);
    let pruned = sandbox.rbuild(["cache", "prune", "--all", "--json"]).ok();
    let pruned: Value = serde_json::from_str(&pruned.stdout).expect("JSON");
    assert_eq!(pruned["images"].as_array().expect("images").len(), 1, "{pruned}");
    let after = usage();
    assert_eq!(after["images"].as_array().expect("images").len(), 1, "{after}");
    assert!(after["total"].as_u64() < before["total"].as_u64(), "{before} {after}");
    for (args, status) in [
        (["--max-size", "much"], 2),
        (["--older-than", "7"], 2),
        (["--all", "--max-size=1GB"], 2),
        (["--older-than", "30d"], 0),
    ] {
        sandbox.rbuild(["cache", "prune"].into_iter().chain(args)).go().has_status(status);
    }
}

#[test]
fn damage_is_found_and_repaired() {
    let sandbox = sandbox_with_context();
    let build = || sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).env(EPOCH.0, EPOCH.1);
    let want = digest(build().ok().line());
    sandbox.rbuild(["cache", "verify"]).ok();
    let files = store::files(&sandbox.store());
    let is_content = |it: &&std::path::PathBuf| {
        it.starts_with(store::blobs(&sandbox.store()))
            || it.extension().is_some_and(|it| it == "pack")
    };
    for path in files.iter().filter(is_content) {
        let mut bytes = fs::read(path).expect("content");
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(path, bytes).expect("content");
    }
    sandbox.rbuild(["cache", "verify"]).go().fails(3, &["damaged: ", "--repair"]);
    sandbox.rbuild(["cache", "verify", "--repair"]).go().fails(3, &["damaged: ", "removed"]);
    sandbox.rbuild(["cache", "verify"]).ok();
    assert_eq!(digest(build().ok().line()), want);
    store::assert_nothing_is_half_written(&sandbox.store());
}

#[test]
fn the_store_stays_below_its_limit() {
    let sandbox = sandbox_with_context();
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..6 {
        let content: Vec<u8> = (0..200_000).map(|_| random.u8(..)).collect();
        sandbox.write("ctx/hello", content);
        let build = sandbox.rbuild(["image", "build", "-t", "x", "ctx"]);
        build.env("RBUILD_STORE_LIMIT", "700kB").ok();
    }
    let total: u64 = store::files(&sandbox.store())
        .iter()
        .map(|it| fs::metadata(it).expect("file of the store").len())
        .sum();
    assert!((200_000..900_000).contains(&total), "{total}");
}

#[test]
fn a_store_of_many_packs_and_objects_opens_fast() {
    let (packs, objects): (usize, usize) = if is_soak() { (1000, 50_000) } else { (100, 5000) };
    let key = |number: usize| Digest::of(&number.to_le_bytes());
    let folders = [("packs", packs, packs), ("objects", objects, 1)];
    for (what, count, commits) in folders {
        let scratch = Scratch::new();
        let writer = Store::open(scratch.path()).expect("store");
        let start = Instant::now();
        for number in 0..count {
            let bytes = number.to_le_bytes();
            writer.add_object(ObjectKind::Segment, key(number), &bytes).expect("object");
            if (number + 1) % (count / commits) == 0 {
                writer.commit().expect("commit");
            }
        }
        let written = start.elapsed();
        let start = Instant::now();
        let store = Store::open(scratch.path()).expect("store");
        let opened = start.elapsed();
        let start = Instant::now();
        assert!(store.has_object(ObjectKind::Segment, key(0)));
        let first = start.elapsed();
        let start = Instant::now();
        for number in 0..count {
            let found = store.object(ObjectKind::Segment, key(number)).expect("object");
            assert_eq!(found.expect("found"), number.to_le_bytes());
        }
        let read = start.elapsed();
        report(&format!(
            "store: {count} {what}: written in {written:.1?} with {commits} commits, opened in \
             {opened:.1?}, first look in {first:.1?}, all read in {read:.1?}"
        ));
    }
}
