//! Killed at any instant while it carries an image, the program leaves files, a store and a registry
//! with which the next run succeeds; nothing half-written is ever visible.

use std::{fs, path::PathBuf};

use rbuild_tests::{Finished, Run, Sandbox, oracle, servers::Registry, store};

use crate::{
    EPOCH, build, digest_of, is_soak,
    kill::{CALLS, is_killed, sandbox_with_layers},
    push, report,
};

/// A way to carry an image, each time under a name that is new.
struct Way<'a> {
    what: &'static str,
    /// The run that is killed. It uses the sandbox's store, or one of that name.
    run: &'a dyn Fn(&str) -> Run,
    /// What there may be after a kill.
    left: &'a dyn Fn(&str),
    /// The digest of what came of a whole run.
    found: &'a dyn Fn(&str, &Finished) -> String,
}

impl Way<'_> {
    /// Kills it at each system call, looks at what is left, and runs it again.
    fn is_killed_everywhere(&self, sandbox: &Sandbox, want: &str) {
        let mut kills = 0;
        for call in CALLS {
            for number in numbers() {
                let name = format!("{}-{}-{number}", self.what, call.trim_start_matches('?'));
                let own = sandbox.path().join(&name);
                if !is_killed((self.run)(&name), call, number) {
                    remove(&own);
                    break;
                }
                kills += 1;
                (self.left)(&name);
                let store = if own.exists() { own.clone() } else { sandbox.store() };
                assert_is_good(sandbox, &store);
                let again = (self.run)(&name).ok();
                assert_eq!((self.found)(&name, &again), want, "after {name}");
                store::assert_nothing_is_half_written(&store);
                remove(&own);
            }
        }
        report(&format!("kill: {kills} kills of a {}, each at a system call", self.what));
        assert!(4 < kills, "too few to show anything: {kills}");
    }
}

/// Asserts that nothing in a store is half-written or damaged.
#[track_caller]
fn assert_is_good(sandbox: &Sandbox, store: &PathBuf) {
    store::assert_nothing_is_half_written(store);
    sandbox.rbuild(["cache", "verify"]).env("RBUILD_STORE", store).ok();
}

fn remove(folder: &PathBuf) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("a folder that is removed");
    }
}

/// The numbers of the calls at which to kill: each in a long run, a few in a short one.
fn numbers() -> Box<dyn Iterator<Item = usize>> {
    match is_soak() {
        true => Box::new(1..),
        false => Box::new((0..).map(|it| 1 << (3 * it))),
    }
}

/// The digest that the last line ends with.
fn said(_: &str, finished: &Finished) -> String {
    let line = finished.line();
    crate::digest(line.rsplit('@').next().unwrap_or(line))
}

/// A sandbox with an image in its store and in the registry, the image's name there, and its digest.
fn pushed(repository: &str) -> (Sandbox, String, String) {
    let sandbox = sandbox_with_layers(100_000);
    let name = Registry::shared().image(&format!("{repository}:1"));
    let built = build(&sandbox, &name);
    assert_eq!(push(&sandbox, &name), built);
    (sandbox, name, built)
}

fn path(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).display().to_string()
}

/// The name of an image in a repository in which nothing is yet.
fn fresh(name: &str) -> String {
    Registry::shared().image(&format!("carried/{name}:1"))
}

#[test]
fn a_pull_that_is_killed_at_a_system_call_is_done_by_the_next() {
    let (sandbox, image, built) = pushed("kill/pulled");
    let run = |name: &str| {
        sandbox.rbuild(["image", "pull", &image]).env("RBUILD_STORE", path(&sandbox, name))
    };
    let way = Way { what: "pull", run: &run, left: &|_| (), found: &said };
    way.is_killed_everywhere(&sandbox, &built);
}

#[test]
fn a_build_with_its_push_that_is_killed_at_a_system_call_is_done_by_the_next() {
    let sandbox = sandbox_with_layers(100_000);
    let built = build(&sandbox, "built:1");
    let run = |name: &str| {
        let args = ["image", "build", "--push", "-t", &fresh(name), "ctx"];
        sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).env("RBUILD_STORE", path(&sandbox, name))
    };
    let found = |name: &str, finished: &Finished| {
        let repository = format!("carried/{name}");
        let pushed = oracle::registry(Registry::shared().port(), &repository, "1").sound();
        assert_eq!(pushed[0].digest, digest_of(finished.line()));
        pushed[0].digest.clone()
    };
    let way = Way { what: "build-and-push", run: &run, left: &|_| (), found: &found };
    way.is_killed_everywhere(&sandbox, &built);
}

#[test]
fn a_copy_that_is_killed_at_a_system_call_is_done_by_the_next() {
    let (sandbox, image, built) = pushed("kill/copied");
    let from = format!("docker://{image}");
    let to_registry = |name: &str| {
        let to = format!("docker://{}", fresh(name));
        sandbox.rbuild(["image", "copy", "store:built:1", &to])
    };
    sandbox.rbuild(["image", "tag", &image, "built:1"]).ok();
    let way = Way { what: "copy-to-registry", run: &to_registry, left: &|_| (), found: &said };
    way.is_killed_everywhere(&sandbox, &built);
    let to_store = |name: &str| {
        let run = sandbox.rbuild(["image", "copy", &from, "store:copied:1"]);
        run.env("RBUILD_STORE", path(&sandbox, name))
    };
    let way = Way { what: "copy-to-store", run: &to_store, left: &|_| (), found: &said };
    way.is_killed_everywhere(&sandbox, &built);
}

#[test]
fn a_save_that_is_killed_at_a_system_call_leaves_nothing_half_written() {
    let sandbox = sandbox_with_layers(100_000);
    let built = build(&sandbox, "built:1");
    let save = |path: &str| sandbox.rbuild(["image", "save", "-o", path, "built:1"]);
    let layout = |name: &str| sandbox.path().join("saved").join(name);
    fs::create_dir(sandbox.path().join("saved")).expect("a folder");
    let to_folder = |name: &str| save(&layout(name).display().to_string());
    let found = |name: &str, _: &Finished| {
        oracle::layout(&layout(name)).sound().iter().map(|it| it.digest.clone()).collect()
    };
    let left = |name: &str| {
        if layout(name).join("index.json").exists() {
            oracle::layout(&layout(name)).sound();
        }
        store::assert_every_blob_is_whole(&layout(name));
    };
    let way = Way { what: "save-to-folder", run: &to_folder, left: &left, found: &found };
    way.is_killed_everywhere(&sandbox, &built);

    let archive = |name: &str| layout(name).with_extension("tar");
    save(&archive("want").display().to_string()).ok();
    let want = store::sha256(&archive("want"));
    let to_file = |name: &str| save(&archive(name).display().to_string());
    let left = |name: &str| {
        let path = archive(name);
        assert!(!path.exists() || store::sha256(&path) == want, "{} is half", path.display());
    };
    let found = |name: &str, _: &Finished| store::sha256(&archive(name));
    let way = Way { what: "save-to-file", run: &to_file, left: &left, found: &found };
    way.is_killed_everywhere(&sandbox, &want);
}

#[test]
fn a_load_that_is_killed_at_a_system_call_is_done_by_the_next() {
    let sandbox = sandbox_with_layers(100_000);
    let built = build(&sandbox, "built:1");
    for format in ["saved.tar", "saved"] {
        let saved = path(&sandbox, format);
        sandbox.rbuild(["image", "save", "-o", &saved, "built:1"]).ok();
        let run = |name: &str| {
            let run = sandbox.rbuild(["image", "load", "-i", &saved]);
            run.env("RBUILD_STORE", path(&sandbox, name))
        };
        let way = Way { what: "load", run: &run, left: &|_| (), found: &said };
        way.is_killed_everywhere(&sandbox, &built);
    }
}
