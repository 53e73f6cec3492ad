//! Killed at any instant, the program leaves a store and a registry with which the next run
//! succeeds; nothing half-written is ever visible.

use std::{
    collections::HashMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use rbuild_imagebuilder::{
    catalog,
    image::Image,
    store::{Origin, Store, StoredImage},
};
use rbuild_tests::{Run, Sandbox, peers, servers::Registry, store};
use regex::Regex;
use rustix::process::Signal;

use crate::{EPOCH, digest, digest_of, is_soak, report, sandbox};

/// What changes files, and what sends to a registry. A question mark: not on every architecture.
pub(crate) const CALLS: [&str; 19] = [
    "write",
    "writev",
    "pwrite64",
    "sendto",
    "sendmsg",
    "?rename",
    "renameat",
    "?renameat2",
    "?link",
    "linkat",
    "fsync",
    "fdatasync",
    "openat",
    "?mkdir",
    "mkdirat",
    "?unlink",
    "unlinkat",
    "ftruncate",
    "copy_file_range",
];

/// How many kills there were, and how many came while something was being written.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    mid_write: usize,
}

impl Tally {
    fn count(&mut self, store: &Path) {
        self.kills += 1;
        self.mid_write += usize::from(0 < store::unfinished(store));
    }

    /// Counts a kill of a push: mid-write is when the registry has blobs of it, and no manifest yet.
    fn count_push(&mut self, repository: &str) {
        let requests = Registry::shared().requests(repository);
        let has = |part: &str| requests.iter().any(|it| it.starts_with('P') && it.contains(part));
        self.kills += 1;
        self.mid_write += usize::from(has("/blobs/uploads/") && !has("/manifests/"));
    }

    fn report(&self, what: &str) {
        let Self { kills, mid_write } = self;
        report(&format!("kill: {kills} kills of a {what}, {mid_write} of them mid-write"));
    }
}

#[test]
fn a_build_that_is_killed_at_a_system_call_is_built_by_the_next_run() {
    let sandbox = sandbox_with_layers(200_000);
    let want = digest(build_in(&sandbox, "want").ok().line());
    let mut tally = Tally::default();
    for call in CALLS {
        for number in numbers() {
            let name = &format!("{}-{number}", call.trim_start_matches('?'));
            if !is_killed(build_in(&sandbox, name), call, number) {
                break;
            }
            let store = sandbox.path().join(name);
            tally.count(&store);
            store::assert_nothing_is_half_written(&store);
            assert_only_whole_images_are_listed(&sandbox, name);
            assert_eq!(digest(build_in(&sandbox, name).ok().line()), want, "after {name}");
            store::assert_nothing_is_half_written(&store);
            fs::remove_dir_all(store).expect("store that is removed");
        }
    }
    tally.report("build, each at a system call");
    assert!(20 < tally.kills && 0 < tally.mid_write, "too few to show anything: {tally:?}");
}

#[test]
fn a_push_that_is_killed_at_a_system_call_is_finished_by_the_next() {
    let sandbox = sandbox_with_layers(200_000);
    let built = digest(build_in(&sandbox, "store").ok().line());
    let mut tally = Tally::default();
    for call in CALLS {
        for number in numbers() {
            // A repository of its own, in which nothing exists yet.
            let repository = format!("killed/{}-{number}", call.trim_start_matches('?'));
            let image = Registry::shared().image(&format!("{repository}:1"));
            sandbox.rbuild(["image", "tag", "built:1", &image]).ok();
            if !is_killed(sandbox.rbuild(["image", "push", &image]), call, number) {
                break;
            }
            tally.count_push(&repository);
            store::assert_nothing_is_half_written(&sandbox.store());
            let pushed = sandbox.rbuild(["image", "push", &image]).ok();
            assert_eq!(digest_of(pushed.line()), built, "after {repository}");
            let copy = sandbox.path().join("copy");
            peers::skopeo_copy(&image, &copy, "");
            fs::remove_dir_all(copy).expect("copy that is removed");
        }
    }
    tally.report("push, each at a system call");
    assert!(10 < tally.kills && 0 < tally.mid_write, "too few to show anything: {tally:?}");
}

#[test]
fn a_build_that_is_killed_while_it_writes_is_built_by_the_next_run() {
    let sandbox = sandbox_with_layers(6_000_000);
    let start = Instant::now();
    let want = digest(build_in(&sandbox, "want").ok().line());
    let whole = start.elapsed();
    let mut random = fastrand::Rng::with_seed(5);
    let mut tally = Tally::default();
    for number in 0..if is_soak() { 300 } else { 8 } {
        let name = &format!("random-{number}");
        let store = sandbox.path().join(name);
        let mut running = build_in(&sandbox, name).start();
        running.process().until(whole * 10, |_| (0 < store::unfinished(&store)).then_some(()));
        running.process().ends_within(whole.mul_f64(random.f64() * 0.7));
        running.signal(Signal::KILL);
        if running.finish().status.signal().is_some() {
            tally.count(&store);
        }
        store::assert_nothing_is_half_written(&store);
        assert_eq!(digest(build_in(&sandbox, name).ok().line()), want, "after {name}");
        store::assert_nothing_is_half_written(&store);
        fs::remove_dir_all(store).expect("store that is removed");
    }
    tally.report("build, each at a random moment");
    assert!(2 < tally.kills && 0 < tally.mid_write, "too few to show anything: {tally:?}");
}

/// A kill cannot show that a sync is missing: only a machine that loses its power does. So the order
/// of the calls is looked at.
#[test]
fn what_gets_a_name_in_the_store_was_synced_before_and_its_folder_after() {
    let sandbox = sandbox_with_layers(1000);
    let store = sandbox.path().join("built");
    let named = assert_named_in_order(&sandbox, build_in(&sandbox, "built"), &store);
    assert!(named.iter().all(|it| !it.starts_with("blobs")), "small ones are in a pack: {named:?}");

    let image = Registry::shared().image("synced:1");
    let run = |args: &[&str], store: &Path| sandbox.rbuild(args).env("RBUILD_STORE", store);
    run(&["image", "tag", "built:1", &image], &store).ok();
    run(&["image", "push", &image], &store).ok();
    let store = sandbox.path().join("pulled");
    let pull = run(&["image", "pull", &image], &store);
    let named = assert_named_in_order(&sandbox, pull, &store);
    assert_eq!(named.iter().filter(|it| it.starts_with("blobs")).count(), 3, "{named:?}");
}

/// Asserts that a run, which adds one image with one name to a store, gives nothing a name before it
/// lasts. Returns the names, in order.
#[track_caller]
fn assert_named_in_order(sandbox: &Sandbox, run: Run, store: &Path) -> Vec<PathBuf> {
    let log = sandbox.path().join("calls");
    let calls = "trace=fsync,fdatasync,?rename,renameat,?renameat2,?link,linkat";
    let words = ["strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", calls, "-o"];
    let words = words.into_iter().map(str::to_owned).chain([log.display().to_string()]);
    run.under(words).ok();
    let calls = read_calls(&fs::read_to_string(log).expect("log of strace"));
    let named: Vec<_> = (0..calls.len()).filter(|at| is_naming(&calls[*at], store)).collect();
    for at in &named {
        let [from, to] = &calls[*at].paths[..] else { panic!("two paths: {:?}", calls[*at]) };
        let is_sync = |call: &Call, path: &Path| call.is_sync() && call.paths == [path];
        let before = calls[..*at].iter().any(|it| is_sync(it, from));
        assert!(before, "{} is not synced before it is named {}", from.display(), to.display());
        let folder = to.parent().expect("folder of a file");
        let after = calls[*at..].iter().any(|it| is_sync(it, folder));
        assert!(after, "{} is not synced after {} came", folder.display(), to.display());
    }
    let named_in = |folder: &str| -> Vec<usize> {
        let folder = store.join(folder);
        named.iter().copied().filter(|at| calls[*at].paths[1].starts_with(&folder)).collect()
    };
    let [blobs, packs, images, tags] = ["blobs", "packs", "images", "names"].map(named_in);
    let is_index = |at: &usize| calls[*at].paths[1].extension().is_some_and(|it| it == "idx");
    let (index, pack) = packs.split_last().expect("a pack and its index");
    assert!(is_index(index) && !pack.iter().all(is_index), "the index comes last: {calls:?}");
    assert_eq!((images.len(), tags.len()), (1, 1), "an image and its name: {calls:?}");
    // What is named refers only to what lasts.
    let blobs = blobs.into_iter().map(|at| (at, images[0], "blobs/sha256"));
    let others = [(*index, images[0], "packs"), (images[0], tags[0], "images")];
    for (from, to, folder) in blobs.chain(others) {
        let is_sync = |it: &Call| it.is_sync() && it.paths == [store.join(folder)];
        let is_between = from < to && calls[from..to].iter().any(is_sync);
        assert!(is_between, "`{folder}` is not synced before what refers to it: {calls:?}");
    }
    let inside = |at: usize| calls[at].paths[1].strip_prefix(store).expect("in the store").into();
    named.into_iter().map(inside).collect()
}

#[test]
fn a_prune_that_is_killed_at_a_system_call_leaves_what_is_named() {
    let sandbox = sandbox_with_layers(100_000);
    for content in ["one", "two", "three"] {
        sandbox.write("ctx/small/0", content);
        build_in(&sandbox, "full").ok();
    }
    let want = digest(build_in(&sandbox, "full").ok().line());
    let mut kills = 0;
    for call in CALLS {
        for number in numbers() {
            let name = &format!("prune-{}-{number}", call.trim_start_matches('?'));
            let store = sandbox.path().join(name);
            copy_folder(&sandbox.path().join("full"), &store);
            let run = |args: &[&str]| sandbox.rbuild(args).env("RBUILD_STORE", &store);
            if !is_killed(run(&["cache", "prune", "--all"]), call, number) {
                break;
            }
            kills += 1;
            store::assert_nothing_is_half_written(&store);
            assert_only_whole_images_are_listed(&sandbox, name);
            run(&["cache", "prune", "--all"]).ok();
            run(&["cache", "verify"]).ok();
            assert_eq!(store::unfinished(&store), 0, "after {name}");
            assert_eq!(digest(build_in(&sandbox, name).ok().line()), want, "after {name}");
            fs::remove_dir_all(store).expect("store that is removed");
        }
    }
    report(&format!("kill: {kills} kills of a prune, each at a system call"));
    assert!(20 < kills, "too few to show anything: {kills}");
}

#[test]
fn a_prune_that_is_killed_at_a_system_call_takes_nothing_from_who_lives() {
    let sandbox = sandbox_with_layers(100_000);
    for content in ["one", "two"] {
        sandbox.write("ctx/small/0", content);
        build_in(&sandbox, "full").ok();
    }
    let mut kills = 0;
    for call in CALLS {
        for number in numbers() {
            let name = &format!("living-{}-{number}", call.trim_start_matches('?'));
            let folder = sandbox.path().join(name);
            copy_folder(&sandbox.path().join("full"), &folder);
            let run = |args: &[&str]| sandbox.rbuild(args).env("RBUILD_STORE", &folder);
            // A build that goes on from all that there is, and to which another prunes.
            let living = Store::open(&folder).expect("store");
            let images = living.images().expect("images");
            let load = |it: &StoredImage| catalog::load(&living, it.digest).expect("image");
            let images: Vec<Image> = images.iter().map(load).collect();
            for layer in images.iter().flat_map(|it| &it.layers) {
                assert!(living.has(layer.digest, layer.size).expect("a look"));
            }
            if !is_killed(run(&["cache", "prune", "--all"]), call, number) {
                break;
            }
            kills += 1;
            run(&["cache", "prune", "--all"]).ok();
            for (number, image) in images.iter().enumerate() {
                let added = catalog::add(&living, image, 1).expect("image that is added");
                let name = format!("found:{number}").parse().expect("name");
                catalog::tag(&living, &name, added.digest, Origin::Local).expect("name");
            }
            drop(living);
            run(&["cache", "verify"]).ok();
            for number in 0..images.len() {
                let saved = folder.join("../saved").display().to_string();
                let image = format!("found:{number}");
                run(&["image", "save", "--format", "oci", "-o", &saved, &image]).ok();
                assert_eq!(store::assert_every_blob_is_whole(Path::new(&saved)), 5, "{name}");
                fs::remove_dir_all(saved).expect("layout that is removed");
            }
            run(&["cache", "prune", "--all"]).ok();
            assert_eq!(store::unfinished(&folder), 0, "after {name}");
            fs::remove_dir_all(folder).expect("store that is removed");
        }
    }
    report(&format!("kill: {kills} kills of a prune while another process lives"));
    assert!(20 < kills, "too few to show anything: {kills}");
}

#[test]
fn a_migration_that_is_killed_at_a_system_call_is_done_by_the_next_run() {
    let sandbox = sandbox_with_layers(10_000);
    let want = digest(build_in(&sandbox, "new").ok().line());
    let old = sandbox.path().join("old");
    store::downgrade(&sandbox.path().join("new"), &old);
    let mut kills = 0;
    for call in CALLS {
        for number in numbers() {
            let name = &format!("migrate-{}-{number}", call.trim_start_matches('?'));
            let store = sandbox.path().join(name);
            copy_folder(&old, &store);
            let run = |args: &[&str]| sandbox.rbuild(args).env("RBUILD_STORE", &store);
            if !is_killed(run(&["image", "ls"]), call, number) {
                break;
            }
            kills += 1;
            assert_only_whole_images_are_listed(&sandbox, name);
            let version = fs::read_to_string(store.join("version")).expect("version");
            assert_eq!(version, "2\n", "after {name}");
            run(&["cache", "verify"]).ok();
            assert_eq!(digest(build_in(&sandbox, name).ok().line()), want, "after {name}");
            fs::remove_dir_all(store).expect("store that is removed");
        }
    }
    report(&format!("kill: {kills} kills of a migration, each at a system call"));
    assert!(10 < kills, "too few to show anything: {kills}");
}

/// Copies a folder with all that is in it.
fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--"]).args([from, to]).status().expect("cp");
    assert!(status.success(), "{} was not copied", from.display());
}

/// The numbers of the calls at which to kill: each in a long run, and ever fewer in a short one.
fn numbers() -> Box<dyn Iterator<Item = usize>> {
    if is_soak() {
        return Box::new(1..);
    }
    let mut pair = (1, 2);
    Box::new(std::iter::repeat_with(move || {
        let number = pair.0;
        pair = (pair.1, pair.0 + pair.1);
        number
    }))
}

/// Runs it to the call with this number (of whichever thread comes first) and kills it there.
/// Whether there was such a call.
#[track_caller]
pub(crate) fn is_killed(run: Run, call: &str, number: usize) -> bool {
    peers::need("strace", "strace");
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let trace = format!("trace={call}");
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let finished = run.under(words).go();
    let is_killed = finished.status.signal() == Some(Signal::KILL.as_raw());
    assert!(is_killed || finished.status.success(), "{call} {number}: {finished}");
    is_killed
}

/// A sandbox whose image has three layers, the first of so many bytes that do not compress.
pub(crate) fn sandbox_with_layers(size: usize) -> Sandbox {
    let dockerfile = "FROM scratch\nCOPY large /\nCOPY small /small\nCOPY Dockerfile /\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile)]);
    let mut random = fastrand::Rng::with_seed(1);
    let large: Vec<u8> = (0..size).map(|_| random.u8(..)).collect();
    sandbox.write("ctx/large", large);
    for number in 0..20 {
        sandbox.write(format!("ctx/small/{number}"), number.to_string());
    }
    sandbox
}

/// A build into a store of that name.
fn build_in(sandbox: &Sandbox, store: &str) -> Run {
    let args = ["image", "build", "-t", "built:1", "ctx"];
    let run = sandbox.rbuild(args).env("RBUILD_STORE", sandbox.path().join(store));
    run.env(EPOCH.0, EPOCH.1)
}

/// What is listed after a kill must be there as a whole.
#[track_caller]
fn assert_only_whole_images_are_listed(sandbox: &Sandbox, store: &str) {
    let store = sandbox.path().join(store);
    let rbuild = |args: &[&str]| sandbox.rbuild(args).env("RBUILD_STORE", &store).ok();
    if rbuild(&["image", "ls"]).stdout.contains("built") {
        let saved = store.join("../saved").display().to_string();
        rbuild(&["image", "save", "--format", "oci", "-o", &saved, "built:1"]);
        assert_eq!(store::assert_every_blob_is_whole(Path::new(&saved)), 5);
        fs::remove_dir_all(saved).expect("layout that is removed");
    }
}

/// A call of the system that strace saw succeed, and the paths that it was about.
#[derive(Debug)]
struct Call {
    name: String,
    paths: Vec<PathBuf>,
}

impl Call {
    fn is_sync(&self) -> bool {
        ["fsync", "fdatasync"].contains(&&*self.name)
    }
}

/// Whether a call gives something its name in the store.
fn is_naming(call: &Call, store: &Path) -> bool {
    let folders = ["blobs", "packs", "images", "names"].map(|it| store.join(it));
    let to = call.paths.last();
    !call.is_sync() && to.is_some_and(|to| folders.iter().any(|it| to.starts_with(it)))
}

/// The calls in a log of `strace -f -y`, in the order in which they returned.
fn read_calls(log: &str) -> Vec<Call> {
    let mut begun = HashMap::new();
    log.lines().filter_map(|line| whole_line(line, &mut begun)).filter_map(|it| call(&it)).collect()
}

/// A line of the log, put together where another thread's came in between.
fn whole_line(line: &str, begun: &mut HashMap<String, String>) -> Option<String> {
    let (thread, text) = line.split_once(' ')?;
    let text = text.trim_start();
    if let Some(start) = text.strip_suffix("<unfinished ...>") {
        begun.insert(thread.to_owned(), start.to_owned());
        return None;
    }
    if !text.starts_with("<... ") {
        return Some(text.to_owned());
    }
    let (_, end) = text.split_once("resumed>")?;
    Some(begun.remove(thread)? + end)
}

fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(')')?;
    if result.trim_start_matches([' ', '=']) != "0" {
        return None;
    }
    // A path is in quotes, perhaps after the folder that it is relative to; a descriptor that stands
    // alone is followed by its path.
    let pattern = Regex::new(r#"(?:<([^>]*)>, )?"([^"]*)"|<([^>]*)>"#).expect("a pattern");
    let paths = pattern.captures_iter(arguments).map(|found| {
        // An absolute path takes the place of the folder before it.
        found.iter().skip(1).flatten().map(|part| part.as_str()).collect()
    });
    Some(Call { name: name.to_owned(), paths: paths.collect() })
}

#[test]
fn calls_are_read_from_a_log_of_strace() {
    let log = "\
        7  fsync(3</s/tmp/a> <unfinished ...>\n\
        8  renameat2(AT_FDCWD</w>, \"/s/b\", 4</s>, \"c\", 0) = -1 ENOENT (No such file)\n\
        7  <... fsync resumed>) = 0\n\
        7  rename(\"/s/tmp/a\", \"/s/blobs/a\") = 0\n\
        8  renameat(AT_FDCWD</w>, \"/s/b\", 4</s>, \"c\") = 0\n";
    let calls: Vec<_> = read_calls(log).into_iter().map(|it| (it.name, it.paths)).collect();
    let want = [
        ("fsync", vec!["/s/tmp/a"]),
        ("rename", vec!["/s/tmp/a", "/s/blobs/a"]),
        ("renameat", vec!["/s/b", "/s/c"]),
    ];
    let want = want.map(|(name, paths)| {
        (name.to_owned(), paths.into_iter().map(PathBuf::from).collect::<Vec<_>>())
    });
    assert_eq!(calls, want);
}
