//! Never stale: whatever is done to a context, and however shortly before or after a build, the next
//! build gives what a build with an empty store gives.
//!
//! Nothing pauses between edits and builds, so that most edits fall into the same tick of the clock
//! as a build before or after them.

mod edits;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::{
    build::{self, Cache},
    catalog,
    config::Platform,
    context::Context,
    dockerfile::Dockerfile,
    image::Layer,
    layer,
    patterns::Ignore,
    rootfs::Rootfs,
    steps::{self, Plan},
    store::Store,
    tree::TreePath,
};
use rbuild_tests::{Sandbox, namespace::Namespace, scratch::Scratch};
use tempfile::TempDir;

use self::edits::{Edited, filesystem};
use crate::{digest, is_soak, report, sandbox};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all\nCOPY --chmod=640 keep /keep/\n";
/// `SOURCE_DATE_EPOCH`, where there is one.
const TIME: i64 = 1_700_000_000;
/// Where stores lie: they are made anew all the time, and need not last.
const MEMORY: &str = "/dev/shm";

#[test]
fn a_build_after_edits_is_as_one_from_nothing() {
    let scratch = Scratch::new();
    check_library(scratch.path(), if is_soak() { 8000 } else { 300 });
}

#[test]
fn a_build_after_edits_in_memory_is_as_one_from_nothing() {
    let folder = TempDir::new_in(MEMORY).expect("folder in memory");
    check_library(folder.path(), if is_soak() { 2000 } else { 200 });
}

#[test]
fn a_build_by_the_program_after_edits_is_as_one_from_nothing() {
    let sandbox = sandbox(&[]);
    let folder = sandbox.src();
    let run =
        |store: &Path, epoch: Option<i64>| run(&sandbox, &[], &folder.join("ctx"), store, epoch);
    check_program(&folder, None, if is_soak() { 1000 } else { 60 }, &run);
}

/// On an overlay, below which files lie that are copied up when they are changed, and which is
/// mounted in two places.
#[test]
fn a_build_after_edits_on_an_overlay_is_as_one_from_nothing() {
    let sandbox = sandbox(&[]);
    let mount = sandbox.path().join("mnt");
    let (mount, root) = (mount.display().to_string(), sandbox.path().display().to_string());
    let namespace = Namespace::new(&format!(
        "mkdir -p {mount} && mount -t tmpfs tmpfs {mount} && cd {mount} && \
         mkdir -p lower/src/ctx/low upper work all other && \
         for it in 1 2 3 4 5 6; do echo lower$it > lower/src/ctx/low/l$it; done && \
         mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay all && \
         mount --bind all/src/ctx other"
    ));
    let words = namespace.enter(&root);
    // As the processes in the namespace see it.
    let target = words.iter().find_map(|it| it.strip_prefix("--target=")).expect("process");
    let inside = PathBuf::from(format!("/proc/{target}/root{mount}"));
    let context = PathBuf::from(&mount).join("all/src/ctx");
    let run = |store: &Path, epoch: Option<i64>| run(&sandbox, &words, &context, store, epoch);
    let other = inside.join("other");
    check_program(&inside.join("all/src"), Some(&other), if is_soak() { 1000 } else { 60 }, &run);
}

/// Edits a tree in `folder`, and builds it with the library.
fn check_library(folder: &Path, edits: usize) {
    let (seeds, edits_each) = (edits.div_ceil(250), edits.min(250));
    let (mut done, mut builds) = (0, 0);
    for seed in 0..seeds as u64 {
        let (context, beside) = folders(folder, seed);
        let stores = TempDir::new_in(MEMORY).expect("folder in memory");
        let warm = stores.path().join("warm");
        let mut edited = Edited::new(seed, &context, &beside, None);
        let mut log = Vec::new();
        while log.len() < edits_each {
            for _ in 0..fastrand::Rng::with_seed(seed + builds).usize(1..5) {
                log.push(edited.edit());
            }
            let cold = stores.path().join("cold");
            let epoch = (builds % 4 != 3).then_some(TIME);
            let (got, want) = (built(&context, &warm, epoch), built(&context, &cold, epoch));
            assert_eq!(got, want, "seed {seed}, after {} edits: {:?}", log.len(), last(&log));
            fs::remove_dir_all(cold).expect("store that is removed");
            builds += 1;
        }
        done += log.len();
    }
    let kind = filesystem(folder);
    report(&format!("never stale: {done} edits, {builds} builds with the library, on {kind}"));
}

/// The same with the program, by `run`.
fn check_program(
    folder: &Path,
    other: Option<&Path>,
    edits: usize,
    run: &dyn Fn(&Path, Option<i64>) -> String,
) {
    let (context, beside) = (folder.join("ctx"), folder.join("beside"));
    for folder in [&context, &beside] {
        fs::create_dir_all(folder).expect("folder of a test");
    }
    fs::write(context.join("Dockerfile"), DOCKERFILE).expect("Dockerfile");
    fs::write(context.join(".dockerignore"), "Dockerfile\n").expect("ignore file");
    let stores = TempDir::new_in(MEMORY).expect("folder in memory");
    let warm = stores.path().join("warm");
    let mut edited = Edited::new(1, &context, &beside, other);
    let mut log = Vec::new();
    let mut builds = 0;
    while log.len() < edits {
        for _ in 0..=builds % 5 {
            log.push(edited.edit());
        }
        let cold = stores.path().join("cold");
        let epoch = (builds % 4 != 3).then_some(TIME);
        let (got, want) = (run(&warm, epoch), run(&cold, epoch));
        assert_eq!(got, want, "after {} edits: {:?}", log.len(), last(&log));
        fs::remove_dir_all(cold).expect("store that is removed");
        builds += 1;
    }
    let kind = filesystem(folder);
    let edits = log.len();
    let kind = if other.is_some() { "overlay".into() } else { kind };
    report(&format!("never stale: {edits} edits, {builds} builds with the program, on {kind}"));
}

fn last(log: &[String]) -> &[String] {
    &log[log.len().saturating_sub(8)..]
}

/// An empty context, and a folder beside it.
fn folders(folder: &Path, seed: u64) -> (PathBuf, PathBuf) {
    let [context, beside] = ["ctx", "beside"].map(|it| folder.join(format!("{it}{seed}")));
    for folder in [&context, &beside] {
        fs::create_dir(folder).expect("folder of a test");
    }
    (context, beside)
}

/// What is built from a context: the digest of the image, or without an epoch that of what lies in
/// its layers, times aside.
fn built(context: &Path, store: &Path, epoch: Option<i64>) -> String {
    let store = Store::open(store).expect("store");
    let context = Context::open_known(context, Ignore::default(), &store).expect("context");
    let inputs = build::Inputs {
        remote: None,
        format: rbuild_imagebuilder::image::Format::Oci,
        plan: &plan(),
        context: &context,
        store: &store,
        bases: &BTreeMap::new(),
        build_args: &BTreeMap::new(),
        platform: &Platform::linux("x86_64"),
        layers: layer::Options::default(),
        uploads: None,
        cache: Cache::Use,
        epoch,
        now: TIME + 1,
    };
    let built = build::build(&inputs, &mut |_| ()).expect("build");
    match epoch {
        Some(_) => built.image.digest().to_string(),
        None => content(&store, &built.image.layers),
    }
}

fn content(store: &Store, layers: &[Layer]) -> String {
    let rootfs = Rootfs::read(store, layers).expect("layers");
    rootfs.tree().fingerprint(&TreePath::ROOT).to_string()
}

fn plan() -> Plan {
    let dockerfile = Dockerfile::parse(DOCKERFILE.as_bytes()).expect("Dockerfile");
    let platform = Platform::linux("x86_64");
    let inputs = steps::Inputs { build_args: BTreeMap::new(), target: None, platform };
    steps::plan(&dockerfile, &inputs).expect("plan")
}

/// As [`built`], by the program.
fn run(
    sandbox: &Sandbox,
    words: &[String],
    context: &Path,
    store: &Path,
    epoch: Option<i64>,
) -> String {
    let [context, folder] = [context, store].map(|it| it.display().to_string());
    let run = sandbox.rbuild(["--store", &folder, "image", "build", &context]).under(words);
    let Some(time) = epoch else {
        let found = digest(run.ok().line());
        let store = Store::open(store).expect("store");
        let image = catalog::load(&store, found.parse().expect("digest")).expect("image");
        return content(&store, &image.layers);
    };
    digest(run.env("SOURCE_DATE_EPOCH", time.to_string()).ok().line())
}
