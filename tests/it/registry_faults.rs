//! A registry that goes wrong: it cuts, stalls, truncates, corrupts, asks to come back later, and
//! ends tokens half-way. What comes of it is the right image or a clear error, in bounded time, and
//! never a wrong or half image; and the next run without faults finds nothing in its way.

use std::{
    thread,
    time::{Duration, Instant},
};

use rbuild_tests::{
    FakeRegistry, Finished, Run, Sandbox,
    fake_registry::{
        Anonymous, Bearer, Door, Fault, Quirk, Settings,
        fault::Trouble::{
            self, Corrupt, Cut, LyingLength, Mute, Slow, Stall, Truncate, WrongDigest,
        },
    },
    store,
};

use crate::{
    build, digest_of, is_soak, push,
    registry_suite::{sandbox_with_layers, saved},
    sandbox,
};

/// What is to come of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The right image, in spite of it.
    Success,
    /// An error with this exit status.
    Error(i32),
    /// Either: the right image, or an error that says whether to try again.
    Truth,
}
use Want::{Error, Success, Truth};

const ENOUGH: Duration = Duration::from_mins(1);
const KIB: u64 = 1024;

/// All that a push asks: what may go wrong there.
const PUSH: [(&str, &str); 5] = [
    ("HEAD", "/manifests/"),
    ("HEAD", "/blobs/"),
    ("POST", "/blobs/uploads/"),
    ("PUT", "/blobs/uploads/"),
    ("PUT", "/manifests/"),
];
/// All that a pull asks.
const PULL: [(&str, &str); 3] =
    [("HEAD", "/manifests/"), ("GET", "/manifests/"), ("GET", "/blobs/")];

fn transfer(sandbox: &Sandbox, verb: &str, name: &str) -> Run {
    sandbox.rbuild(["image", verb, name]).within(ENOUGH)
}

/// Asserts that a run ended as it was to, and that what it says of an image is true.
#[track_caller]
fn assert_came_of_it(finished: &Finished, want: Want, built: &str, what: &str) {
    match want {
        Truth => match finished.status.code() {
            Some(0) => assert_came_of_it(finished, Success, built, what),
            Some(status @ 2..=3) => assert_came_of_it(finished, Error(status), built, what),
            _ => panic!("{what}: {finished}"),
        },
        Success => {
            assert!(finished.status.success(), "{what}: {finished}");
            assert_eq!(digest_of(finished.line()), built, "{what}");
        }
        Error(status) => {
            assert_eq!(finished.status.code(), Some(status), "{what}: {finished}");
            finished.fails(status, &[]);
            assert!(finished.stdout.is_empty(), "{what}: {finished}");
        }
    }
}

/// Pushes with a fault, and again without.
fn check_push(fault: Fault, want: Want) {
    let what = format!("{fault:?}");
    // Whether there is a question is the client's affair; what it sends it has to send.
    let is_certain = want == Success && !fault.is_for_method("HEAD");
    let registry = FakeRegistry::start();
    let sandbox = sandbox_with_layers();
    let name = registry.image("x:1");
    let built = build(&sandbox, &name);
    registry.inject(fault);
    let pushed = transfer(&sandbox, "push", &name).go();
    assert_came_of_it(&pushed, want, &built, &what);
    if is_certain {
        assert_eq!(registry.faults_left(), 0, "{what} never came: {}", registry.log());
    }
    if let Some((_, bytes)) = registry.manifest("x", "1") {
        assert_eq!(format!("sha256:{}", store::hex(&bytes)), built, "{what}: another image");
    }
    registry.assert_is_whole();
    registry.heal();
    assert_eq!(push(&sandbox, &name), built, "{what}");
    assert_eq!(registry.tags("x"), [("1".to_owned(), built)]);
    registry.assert_is_whole();
    registry.assert_was_asked_rightly();
}

/// Pulls with a fault, and again without.
fn check_pull(fault: Fault, want: Want) {
    let what = format!("{fault:?}");
    let registry = FakeRegistry::start();
    let (from, to) = (sandbox_with_layers(), sandbox(&[]));
    let name = registry.image("x:1");
    let built = build(&from, &name);
    push(&from, &name);
    registry.inject(fault);
    let pulled = transfer(&to, "pull", &name).go();
    assert_came_of_it(&pulled, want, &built, &what);
    if want == Success {
        assert_eq!(registry.faults_left(), 0, "{what} never came: {}", registry.log());
    }
    if !pulled.status.success() {
        to.rbuild(["image", "inspect", &name]).go().fails(2, &[]);
    }
    registry.heal();
    let again = transfer(&to, "pull", &name).ok();
    assert_eq!(digest_of(again.line()), built, "{what}");
    assert_eq!(saved(&to, &name), saved(&from, &name), "{what}");
    registry.assert_was_asked_rightly();
}

/// Checks them at the same time: most of it is waiting for the next try.
fn side_by_side(check: fn(Fault, Want), want: Want, faults: Vec<Fault>) {
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || check(fault, want));
        }
    });
}

#[test]
fn a_push_survives_what_passes() {
    thread::scope(|scope| {
        for (method, path) in PUSH {
            for trouble in [Trouble::status(500), Trouble::status(503), Trouble::status(429), Mute]
            {
                let fault = Fault::new(method, path, trouble).times(2);
                scope.spawn(move || check_push(fault, Success));
            }
        }
    });
    check_push(Fault::new("POST", "/blobs/uploads/", Trouble::retry_after("1")), Success);
}

#[test]
fn a_push_survives_a_connection_that_ends() {
    let put = |trouble| Fault::new("PUT", "/blobs/uploads/", trouble);
    let mut faults: Vec<_> = [0, 1, 64 * KIB, 1024 * KIB].map(|it| put(Cut(it))).into();
    faults.push(put(Slow(Duration::from_millis(5))));
    faults.push(Fault::new("PUT", "/manifests/", Cut(10)));
    side_by_side(check_push, Success, faults);
}

#[test]
fn a_push_that_arrives_as_something_else_is_no_push() {
    let mut faults = Vec::new();
    for trouble in [Corrupt(5), Truncate(100), WrongDigest, LyingLength(3)] {
        for path in ["/blobs/uploads/", "/manifests/"] {
            faults.push(Fault::new("PUT", path, trouble.clone()));
        }
    }
    side_by_side(check_push, Success, faults);
    let lasting = [Corrupt(5), WrongDigest]
        .map(|trouble| Fault::new("PUT", "/blobs/uploads/", trouble).times(1000));
    side_by_side(check_push, Error(3), lasting.into());
}

#[test]
fn a_push_does_not_go_on_for_ever() {
    let begin = Instant::now();
    // Most of it is waiting for the next try.
    thread::scope(|scope| {
        for (method, path) in PUSH {
            let want = if method == "HEAD" { Truth } else { Error(3) };
            for trouble in [Trouble::status(429), Trouble::status(503), Mute] {
                let fault = Fault::new(method, path, trouble).times(1000);
                scope.spawn(move || check_push(fault, want));
            }
        }
    });
    assert!(begin.elapsed() < ENOUGH);
}

#[test]
fn a_pull_survives_what_passes() {
    thread::scope(|scope| {
        for (method, path) in PULL {
            for trouble in [Trouble::status(500), Trouble::status(503), Trouble::status(429), Mute]
            {
                let fault = Fault::new(method, path, trouble).times(2);
                scope.spawn(move || check_pull(fault, Success));
            }
        }
    });
    check_pull(Fault::new("GET", "/blobs/", Trouble::retry_after("1")), Success);
}

#[test]
fn a_pull_survives_content_that_is_cut() {
    let get = |path, trouble| Fault::new("GET", path, trouble);
    let mut faults = vec![get("/blobs/", Slow(Duration::from_millis(5)))];
    for trouble in [Cut(0), Cut(1), Cut(100), LyingLength(7)] {
        faults.push(get("/manifests/", trouble));
    }
    for trouble in [Cut(0), Cut(1), Cut(100)] {
        faults.push(get("/blobs/", trouble));
    }
    for trouble in [Cut(64 * KIB), Cut(1024 * KIB)] {
        // After the first, which is the config.
        faults.push(get("/blobs/", trouble).after(1).times(2));
    }
    side_by_side(check_pull, Success, faults);
}

#[test]
fn a_pull_of_something_else_is_no_pull() {
    let mut faults = Vec::new();
    for (method, path) in PULL {
        for trouble in [Corrupt(5), Truncate(100), LyingLength(7), LyingLength(-7), WrongDigest] {
            faults.push(Fault::new(method, path, trouble));
        }
    }
    for trouble in [Corrupt(1024 * KIB), Truncate(1024 * KIB)] {
        faults.push(Fault::new("GET", "/blobs/", trouble).after(1));
    }
    side_by_side(check_pull, Success, faults);
}

#[test]
fn a_pull_does_not_go_on_for_ever() {
    let begin = Instant::now();
    let mut faults = Vec::new();
    for (method, path) in PULL {
        for trouble in [Trouble::status(429), Trouble::status(503), Mute] {
            faults.push(Fault::new(method, path, trouble).times(1000));
        }
    }
    for trouble in [Cut(100), Corrupt(5), LyingLength(7), Truncate(100)] {
        faults.push(Fault::new("GET", "/blobs/", trouble).times(1000));
    }
    for trouble in [Cut(100), Corrupt(5), WrongDigest] {
        faults.push(Fault::new("GET", "/manifests/", trouble).times(1000));
    }
    side_by_side(check_pull, Error(3), faults);
    assert!(begin.elapsed() < ENOUGH);
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let mib = 1024 * 1024;
    for quirks in [vec![], vec![Quirk::RedirectsBlobs]] {
        let registry = FakeRegistry::with(Settings::with(quirks));
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        let name = registry.image("x:1");
        let built = build(&from, &name);
        push(&from, &name);
        let large = registry.blobs("x").into_iter();
        let large = large.max_by_key(|it| registry.blob(it).metadata().unwrap().len()).unwrap();
        for _ in 0..2 {
            registry.inject(Fault::new("GET", &large, Trouble::Cut(mib)));
        }
        if registry.log().contains(" 307 ") {
            registry.heal();
            registry.inject(Fault::new("GET", "/storage/", Trouble::Cut(mib)).after(1));
        }
        let pulled = to.rbuild(["image", "pull", &name]).ok();
        assert_eq!(digest_of(pulled.line()), built);
        let asked = registry.asked();
        let parts = asked.iter().filter(|it| it.status == 206);
        assert!(parts.clone().all(|it| it.header("range").is_some()));
        assert!(1 <= parts.count(), "{}", registry.log());
        let size = registry.blob(&large).metadata().unwrap().len();
        let gets = asked.iter().filter(|it| it.method == "GET" && it.path.contains(&large));
        let sent: u64 = gets.filter(|it| it.status != 307).map(|it| it.sent).sum();
        // What was under way when the connection ended may come again.
        assert!(sent <= size + mib, "{sent} of {size}: {}", registry.log());
        assert_eq!(saved(&from, &name), saved(&to, &name));
        registry.assert_was_asked_rightly();
    }
}

/// Tokens end once, at each request in turn.
#[test]
fn tokens_may_end_half_way() {
    let bearer = Bearer { anonymous: Anonymous::Everything, ..Bearer::default() };
    let settings = Settings::default().behind(Door::Bearer(bearer));
    for requests in 1..=12 {
        let registry = FakeRegistry::with(settings.clone());
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        let name = registry.image("x:1");
        let built = build(&from, &name);
        registry.end_tokens_after(requests);
        let pushed = transfer(&from, "push", &name).go();
        assert_came_of_it(&pushed, Success, &built, &registry.log());
        registry.end_tokens_after(requests / 3);
        let pulled = transfer(&to, "pull", &name).go();
        assert_came_of_it(&pulled, Success, &built, &registry.log());
        assert!(2 < registry.tokens_given(), "{}", registry.log());
        registry.assert_was_asked_rightly();
        registry.assert_is_whole();
    }
}

/// The long version has the patience of the program, a minute and more.
#[test]
fn what_stalls_is_given_up() {
    let (patience, limit) = match is_soak() {
        true => ("60", Duration::from_mins(8)),
        false => ("1", ENOUGH),
    };
    let check = |verb: &str, fault: Fault| {
        let registry = FakeRegistry::start();
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        let name = registry.image("x:1");
        let built = build(&from, &name);
        if verb == "pull" {
            push(&from, &name);
        }
        registry.inject(fault);
        let sandbox = if verb == "pull" { &to } else { &from };
        let run = sandbox.rbuild(["image", verb, &name]).env("RBUILD_REGISTRY_TIMEOUT", patience);
        let run = run.within(limit).start();
        (registry, [from, to], run, built)
    };
    let all = [
        check("push", Fault::new("PUT", "/blobs/uploads/", Stall(64 * KIB))),
        check("push", Fault::new("POST", "/blobs/uploads/", Stall(0))),
        check("pull", Fault::new("GET", "/blobs/", Stall(100))),
        check("pull", Fault::new("GET", "/manifests/", Stall(0))),
    ];
    for (registry, _sandboxes, run, built) in all {
        assert_came_of_it(&run.finish(), Success, &built, &registry.log());
        registry.assert_is_whole();
    }
}
