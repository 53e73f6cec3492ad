//! What is wrong from outside gets its own clear error and exit status: 2 where a file or an
//! argument is wrong, 3 where the machine, the network or a service is.

use std::{
    fs,
    os::unix::fs::symlink,
    thread,
    time::{Duration, Instant},
};

use rbuild_tests::{
    Finished, Process, Run, Running, Sandbox,
    http::Answer,
    namespace::with_mounts,
    process::{processes_that_know, processes_that_stay},
    servers::Scripted,
    store,
};
use rustix::process::Signal;
use serde_json::json;

use crate::{EPOCH, build, sandbox, sandbox_with_context};

#[test]
fn a_buildspec_that_cannot_be_read() {
    let sandbox = sandbox(&[("folder/x", "")]);
    sandbox.write("binary.yml", (0..=255).collect::<Vec<u8>>());
    for (file, phrases) in [
        ("missing.yml", ["missing.yml", "hint: "]),
        ("folder", ["folder", "is a folder"]),
        ("binary.yml", ["binary.yml", "text"]),
    ] {
        sandbox.rbuild(["run", file]).go().fails(2, &phrases);
    }
    sandbox.rbuild(["run"]).go().fails(2, &["buildspec.yml"]);
    sandbox.rbuild(["run", "-C", "nowhere"]).go().fails(2, &["nowhere"]);
}

#[test]
fn a_buildspec_that_says_something_else() {
    let command = "phases:\n  build:\n    commands:\n      - touch was-run\n";
    for (text, phrases) in [
        ("version: 0.2\nphases:\n\tbuild:\n", &["buildspec.yml:3:", "tab"][..]),
        (&format!("version: 0.9\n{command}"), &["buildspec.yml:1:10", "`0.9`", "0.2"]),
        (
            &format!("version: 0.2\n{command}  postbuild:\n    commands: [ls]\n"),
            &["buildspec.yml:6:3", "POSTBUILD", "post_build"],
        ),
        (
            &format!("version: 0.2\n{command}      - echo a: b\n"),
            &["buildspec.yml:6:", "6 |       - echo a: b", "hint: "],
        ),
        (&format!("version: 0.2\nrun-as: me\n{command}"), &["buildspec.yml:2:9", "user `me`"]),
        ("version: 0.2\nbatch: {build-list: [{identifier: a}]}\n", &["buildspec.yml:2:1", "batch"]),
        (
            &format!("version: 0.2\n{command}reports: {{a: {{files: [{{b: c}}]}}}}\n"),
            &["buildspec.yml:6:23", "reports"],
        ),
        ("", &[" --> buildspec.yml\n", "version"]),
        ("- a\n", &["buildspec.yml:1:"]),
        ("version: 0.2\n", &["buildspec.yml", "phases"]),
    ] {
        let sandbox = sandbox(&[("buildspec.yml", text)]);
        sandbox.rbuild(["run"]).go().fails(2, phrases);
        assert!(!sandbox.src().join("was-run").exists(), "a command ran: {text}");
    }
}

/// AWS does not look at `batch` in such a build, and can do without a report or a cache.
#[test]
fn what_is_wrong_with_what_is_left_out_stops_no_build() {
    let text = "version: 0.2
phases: {build: {commands: [touch was-run]}}
batch: {build-graph: [{identifier: a, depend-on: [b]}], fast-fail: [x]}
reports: {unit: {file-format: JUNIT, files: a}}
cache: {action: both}
";
    let sandbox = sandbox(&[("buildspec.yml", text)]);
    let run = sandbox.rbuild(["run"]).ok();
    for want in [
        "warning: buildspec.yml:3:51: `a` waits for `b`, which does not exist\n",
        "warning: buildspec.yml:3:68: `batch.fast-fail` is a list, not text\n",
        "warning: buildspec.yml:4:31: `reports.unit.file-format` cannot be `JUNIT`: write one of",
        "warning: buildspec.yml:5:17: `cache.action` cannot be `both`: write one of",
    ] {
        assert!(run.stderr.contains(want), "{want}\n{run}");
    }
    assert!(sandbox.src().join("was-run").exists());
    // Who checks the file wants to know.
    sandbox.rbuild(["check"]).go().has_status(2);
}

#[test]
fn warnings_name_the_file_and_the_line() {
    let spec = "version: 0.2\nphases:\n  build:\n    commands: [ls]\n    comands: [ls]\n";
    let dockerfile = "FROM scratch\nMAINTAINER me\nCOPY Dockerfile /\n";
    let sandbox = sandbox(&[("ci/a.yml", spec), ("ctx/Dockerfile", dockerfile)]);
    for (args, want) in [
        (&["run", "ci/a.yml"][..], "warning: ci/a.yml:5:5: `comands` means nothing here"),
        (&["image", "build", "ctx"], "warning: ctx/Dockerfile:2: "),
    ] {
        let finished = sandbox.rbuild(args).ok();
        assert!(finished.stderr.contains(want), "{finished}");
    }
}

/// What nobody named may be a link that came with the source: none of its lines are shown.
#[test]
fn files_that_are_looked_for_are_not_read_through_links_that_lead_outside() {
    let sandbox =
        sandbox(&[("secret", "secret: of the host\n"), ("ctx/a", "a"), ("ignored/a", "a")]);
    sandbox.write("ignored/Dockerfile", "FROM scratch\nCOPY a /\n");
    for link in ["ctx/Dockerfile", "ctx/buildspec.yml", "ignored/.dockerignore"] {
        symlink("../secret", sandbox.src().join(link)).expect("link");
    }
    for (args, phrases) in [
        (&["image", "build", "ctx"][..], &["ctx/Dockerfile", "../secret", "hint: "][..]),
        (&["image", "build", "ignored"], &["ignored/.dockerignore", "../secret"]),
        (&["run", "-C", "ctx"], &["buildspec.yml", "hint: "]),
    ] {
        let finished = sandbox.rbuild(args).go();
        finished.fails(2, phrases);
        assert!(!finished.stderr.contains("of the host"), "{finished}");
    }
    // Who names a file wants it, wherever it is.
    let named = sandbox.rbuild(["image", "build", "-f", "ctx/Dockerfile", "ctx"]).go();
    named.fails(2, &["secret: of the host"]);
    let named = sandbox.src().join("ctx/buildspec.yml").display().to_string();
    sandbox.rbuild(["run", "-C", "ctx", &named]).go().fails(2, &["`version` is missing"]);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let sandbox = sandbox(&[("ctx/a", "a")]);
    sandbox.run("mkfifo", ["buildspec.yml", "ctx/Dockerfile", "ctx/.dockerignore"]).ok();
    sandbox.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    for (args, phrases) in [
        (&["run"][..], ["buildspec.yml", "FIFO"]),
        (&["run", "/dev/zero"], ["/dev/zero", "device"]),
        (&["image", "build", "ctx"], ["ctx/Dockerfile", "FIFO"]),
        (&["image", "build", "-f", "/dev/zero", "ctx"], ["/dev/zero", "device"]),
        (&["image", "build", "-f", "Dockerfile", "ctx"], ["ctx/.dockerignore", "FIFO"]),
    ] {
        sandbox.rbuild(args).within(Duration::from_secs(20)).go().fails(2, &phrases);
    }
}

#[test]
fn a_file_cannot_change_the_terminal() {
    let dockerfile = "FROM scratch\nLABEL a=\"\u{1b}[2Jb\"\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile)]);
    let finished = sandbox.rbuild(["image", "build", "ctx"]).ok();
    assert!(finished.stderr.contains("a=\"\\u{1b}[2Jb\""), "{finished}");
    assert!(!finished.stderr.contains('\u{1b}'), "{finished}");
}

#[test]
fn a_bomb_of_aliases_is_refused_quickly_and_in_little_memory() {
    let levels = (1..12).map(|level| {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("a{level}: &a{level} [{below}]")
    });
    let levels = levels.collect::<Vec<_>>().join("\n");
    let start = "version: 0.2\na0: &a0 [x, x, x, x, x, x, x, x, x]";
    let bomb = format!("{start}\n{levels}\nphases: {{build: {{commands: *a11}}}}\n");
    let sandbox = sandbox(&[("buildspec.yml", &bomb)]);
    let limit = ["prlimit", "--as=1000000000"];
    let run = sandbox.rbuild(["run"]).under(limit).within(Duration::from_secs(10));
    run.go().fails(2, &["buildspec.yml:", "alias"]);
}

#[test]
fn a_buildspec_of_any_size_is_quick_and_needs_little_memory() {
    let mut huge = b"version: 0.2\nphases: {build: {commands: [ls]}}\n".to_vec();
    huge.resize(100_000_000, b'#');
    let start = "version: 0.2\nphases:\n  build:\n    commands:\n".to_owned();
    let many = start + &"      - ':'\n".repeat(10_000);
    let sandbox = sandbox(&[("many.yml", &many)]);
    sandbox.write("huge.yml", huge);
    sandbox.write("latin.yml", b"version: 0.2\nphases: {build: {commands: [echo \xE9]}}\n");
    for (args, status, want) in [
        (&["run", "huge.yml"][..], 2, "`huge.yml` could not be read\ncaused by: it has more than"),
        (&["check", "huge.yml"], 2, "`huge.yml` could not be read: it has more than 2.00 MB"),
        (&["run", "--dry-run", "many.yml"], 0, "\n  10000  :  (many.yml:10004)\n"),
        (&["check", "--no-shellcheck", "many.yml"], 0, "no findings"),
        (&["run", "latin.yml"], 2, "not UTF-8\n --> latin.yml:2:34\n"),
    ] {
        let limit = ["prlimit", "--as=500000000"];
        let run = sandbox.rbuild(args).under(limit).within(Duration::from_secs(20)).go();
        run.has_status(status);
        assert!(run.stdout.contains(want) || run.stderr.contains(want), "{want}\n{run}");
    }
}

#[test]
fn a_shell_that_is_not_there() {
    let text = "version: 0.2\nenv: {shell: bash}\nphases: {build: {commands: [touch was-run]}}\n";
    let sandbox = sandbox(&[("buildspec.yml", text), ("bin/x", "")]);
    let path = sandbox.src().join("bin");
    let run = sandbox.rbuild(["run"]).env("PATH", path).go();
    run.fails(
        2,
        &["the shell `bash` was not found", " --> buildspec.yml:2:14\n", "hint: install it"],
    );
    assert!(!sandbox.src().join("was-run").exists());
}

#[test]
fn a_dockerfile_that_cannot_be_built() {
    let binary = (0..=255).map(char::from).collect::<String>();
    for (text, phrases) in [
        ("FROM scratch\nCOPPY a /\n", &["Dockerfile:2:1", "COPPY", "`COPY`"][..]),
        ("FROM scratch\nCOPY no-such-file /\n", &["Dockerfile:2:", "no-such-file"]),
        ("FROM scratch\nCOPY ../../etc/passwd /\n", &["Dockerfile:2:", "../../etc/passwd"]),
        ("FROM scratch\nRUN true\n", &["Dockerfile:2:1", "RUN"]),
        ("FROM scratch\nADD https://host/a /\n", &["Dockerfile:2:", "ADD"]),
        ("FROM scratch\nCOPY --link a /\n", &["Dockerfile:2:", "--link"]),
        ("COPY a /\n", &["Dockerfile:1:1", "FROM"]),
        ("FROM scratch\nCOPY a\n", &["Dockerfile:2:"]),
        ("", &["Dockerfile", "FROM"]),
        (&binary, &["Dockerfile"]),
    ] {
        let sandbox = sandbox(&[("ctx/Dockerfile", text), ("ctx/a", "a")]);
        let finished = sandbox.rbuild(["image", "build", "ctx"]).go();
        assert_eq!(finished.fails(2, phrases).stdout, "", "{finished}");
    }
}

#[test]
fn a_context_that_is_not_there() {
    let sandbox = sandbox(&[("file", ""), ("empty/x", "")]);
    for (args, phrase) in [
        (&["nowhere"][..], "nowhere"),
        (&["file"], "file"),
        (&["empty"], "Dockerfile"),
        (&["-f", "empty", "empty"], "empty"),
        (&["-f", "other", "empty"], "other"),
    ] {
        sandbox.rbuild([&["image", "build"], args].concat()).go().fails(2, &[phrase]);
    }
}

#[test]
fn links_do_not_lead_out_of_a_context() {
    for (copy, named) in [
        ("COPY link/secret /x", "link/secret"),
        ("COPY link /x", "link"),
        ("COPY file /x", "file"),
        ("COPY link/s* /x/", "link/s*"),
    ] {
        let sandbox = sandbox_with_links(copy);
        let finished = sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).go();
        finished.fails(2, &["Dockerfile:2:", named]);
        assert!(!has_in_a_layer(&sandbox, SECRET), "{copy}");
    }
    // As a link, as everywhere: it is whoever reads it in the image that resolves it.
    let sandbox = sandbox_with_links("COPY . /x");
    build(&sandbox, "x");
    assert!(has_in_a_layer(&sandbox, "../outside/secret"));
    assert!(!has_in_a_layer(&sandbox, SECRET));
}

const SECRET: &str = "secret of the host";

/// A sandbox whose context has links to a folder and a file outside of it.
fn sandbox_with_links(copy: &str) -> Sandbox {
    let sandbox = sandbox(&[("outside/secret", SECRET), ("ctx/a", "a")]);
    sandbox.write("ctx/Dockerfile", format!("FROM scratch\n{copy}\n"));
    symlink("../outside", sandbox.src().join("ctx/link")).expect("link");
    symlink("../outside/secret", sandbox.src().join("ctx/file")).expect("link");
    sandbox
}

/// Every answer that a registry should not give, for a pull and for a push.
#[test]
fn a_registry_that_does_not_do_what_was_asked() {
    let unauthorized = || {
        let challenge = "Basic realm=\"tests\"";
        Answer::of(401, "{}").with("WWW-Authenticate", challenge)
    };
    let half =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"";
    let cases: [(&str, i32, &[&str], Answer); 7] = [
        ("401", 3, &["401"], unauthorized()),
        ("404", 2, &[], Answer::of(404, "{}")),
        ("429", 3, &["429"], Answer::of(429, "{}").with("Retry-After", "0")),
        ("500", 3, &["500"], Answer::of(500, "oops")),
        ("no HTTP", 3, &[], Answer::Raw(b"\x00\x01 this is no HTTP\r\n\r\n".into())),
        ("closed half-way", 3, &[], Answer::Raw(half.into())),
        ("closed at once", 3, &[], Answer::Raw(Vec::new())),
    ];
    thread::scope(|scope| {
        for (what, status, phrases, answer) in &cases {
            for verb in ["pull", "push"] {
                scope.spawn(move || {
                    let answer = answer.clone();
                    let registry = Scripted::start(move |_| answer.clone());
                    let sandbox = sandbox_with_context();
                    let name = format!("{}/x:1", registry.host());
                    build(&sandbox, &name);
                    let finished = sandbox.rbuild(["image", verb, &name]).go();
                    finished.fails(*status, phrases).fails(*status, &[&registry.host()]);
                    assert_eq!(finished.stdout, "", "{verb}, {what}");
                    store::assert_nothing_is_half_written(&sandbox.store());
                });
            }
        }
    });
}

#[test]
fn a_registry_whose_content_is_not_what_its_name_says() {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", store::hex(b"x"))]},
    });
    let (config, layer) = (&*config.to_string(), "the layer that was named");
    let manifest = manifest(config, layer);
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\nthe layer";
    let config_name = store::hex(config.as_bytes());
    let whole = |text: &str| Answer::of(200, text);
    let mut cases = Vec::new();
    for (what, manifest, config, layer) in [
        ("a manifest of garbage", "{", whole(config), whole(layer)),
        ("another config", &*manifest, whole("{}"), whole(layer)),
        ("another layer", &manifest, whole(config), whole("the layer that was other")),
        ("a longer layer", &manifest, whole(config), whole("the layer that was named, and on")),
        ("half a layer", &manifest, whole(config), Answer::Raw(half.into())),
    ] {
        let manifest = whole(manifest).with("Content-Type", MANIFEST);
        let config_name = config_name.clone();
        cases.push(thread::spawn(move || {
            let registry = Scripted::start(move |request| match &request.path {
                path if path.contains("/manifests/") => manifest.clone(),
                path if path.contains(&config_name) => config.clone(),
                _ => layer.clone(),
            });
            let sandbox = sandbox(&[]);
            let name = format!("{}/x:1", registry.host());
            let finished = sandbox.rbuild(["image", "pull", &name]).go();
            assert_eq!(finished.fails(3, &[&registry.host()]).stdout, "", "{what}");
            store::assert_nothing_is_half_written(&sandbox.store());
        }));
    }
    // At the same time, since each is tried more than once.
    for case in cases {
        case.join().expect("a case");
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The manifest of an image with this config and this layer.
fn manifest(config: &str, layer: &str) -> String {
    let blob = |kind: &str, content: &str| {
        let digest = format!("sha256:{}", store::hex(content.as_bytes()));
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    };
    let (config, layer) = (blob("config.v1+json", config), blob("layer.v1.tar+gzip", layer));
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
        .to_string()
}

#[test]
fn no_registry_at_all() {
    // Port 1 is one that nothing listens on.
    let name = "127.0.0.1:1/x:1";
    let dockerfile = format!("FROM {name}\n");
    let base = sandbox(&[("ctx/Dockerfile", &dockerfile)]);
    let sandbox = sandbox_with_context();
    build(&sandbox, name);
    let runs = [
        sandbox.rbuild(["image", "pull", name]),
        sandbox.rbuild(["image", "push", name]),
        base.rbuild(["image", "build", "ctx"]),
    ];
    // At the same time, since each tries more than once.
    let running = runs.map(Run::start);
    for finished in running.map(Running::finish) {
        finished.fails(3, &["127.0.0.1:1"]);
    }
}

#[test]
fn names_that_are_none() {
    let sandbox = sandbox_with_context();
    for args in [
        &["image", "push", "Not A Name"][..],
        &["image", "pull", "UPPER/case"],
        &["image", "build", "-t", "a:b:c", "ctx"],
        &["image", "inspect", "nothing-of-this-name"],
        &["image", "push", "nothing-of-this-name"],
        &["image", "rm", "nothing-of-this-name"],
        &["image", "tag", "nothing-of-this-name", "x"],
        &["image", "load", "-i", "nowhere"],
        &["run", "--env", "no-equals-sign"],
        &["run", "--no-such-flag"],
        &["no-such-verb"],
    ] {
        sandbox.rbuild(args).go().fails(2, &[]);
    }
}

#[test]
fn digits_of_a_digest_are_no_name_to_push_by() {
    let sandbox = sandbox_with_context();
    let digest = build(&sandbox, "x:1");
    let hex = digest.strip_prefix("sha256:").expect("digest");
    for text in [&digest, hex, &hex[..6], &digest[..20]] {
        sandbox.rbuild(["image", "push", text]).go().fails(2, &[text, "hint: ", "image tag"]);
    }
}

#[test]
fn a_damaged_image_is_not_saved() {
    let sandbox = sandbox_with_context();
    for path in ["saved", "saved.tar"] {
        build(&sandbox, "x");
        let packs = store::files(&sandbox.store().join("packs"));
        for pack in packs.iter().filter(|it| it.extension().is_some_and(|it| it == "pack")) {
            let damaged = vec![b'x'; fs::read(pack).expect("pack").len()];
            fs::write(pack, damaged).expect("pack");
        }
        let finished = sandbox.rbuild(["image", "save", "--format", "oci", "-o", path, "x"]).go();
        finished.fails(3, &["damaged", "hint: "]);
        assert!(!finished.stderr.contains("could not be written"), "{finished}");
    }
}

#[test]
fn a_full_disk() {
    let sandbox = sandbox_with_context();
    let mut random = fastrand::Rng::with_seed(2);
    let large: Vec<u8> = (0..3_000_000).map(|_| random.u8(..)).collect();
    sandbox.write("ctx/hello", large);
    let mounts = "mount -t tmpfs -o size=1m tmpfs \"$0\"";
    let finished = with_store(&sandbox, mounts);
    finished.fails(3, &["No space left on device", "store"]);
}

#[test]
fn a_store_that_cannot_be_written_to() {
    let sandbox = sandbox_with_context();
    // First one that does not exist yet, and then one in which an image is.
    let mounts = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    for _ in 0..2 {
        let finished = with_store(&sandbox, mounts);
        let store = sandbox.store().display().to_string();
        finished.fails(3, &["Read-only file system", &store]);
        build(&sandbox, "x");
        sandbox.write("ctx/hello", "changed\n");
    }
}

#[test]
fn a_store_of_something_else_is_left_alone() {
    let sandbox = sandbox_with_context();
    sandbox.write("../store/precious", "not of rbuild");
    sandbox.rbuild(["image", "build", "ctx"]).go().fails(2, &["precious"]);
    assert_eq!(store::files(&sandbox.store()).len(), 1);
}

#[test]
fn a_failing_build_is_the_users_own() {
    let spec = "version: 0.2\nphases: {build: {commands: [exit 7]}}\n";
    let finished = sandbox(&[("buildspec.yml", spec)]).rbuild(["run"]).go();
    finished.has_status(1);
    let wanted = "COMMAND_EXECUTION_ERROR Message: Error while executing command: exit 7. \
                  Reason: exit status 7";
    assert!(finished.stdout.contains(wanted), "{finished}");
}

#[test]
fn ctrl_c_ends_a_run_and_all_that_it_started() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (sandbox, running) = run_with_children();
        let finished = interrupt(running, &sandbox, signal);
        assert!(!finished.stdout.contains("\nnever\n"), "{finished}");
    }
}

#[test]
fn what_a_run_started_ends_even_when_the_program_is_killed() {
    let (sandbox, running) = run_with_children();
    running.signal(Signal::KILL);
    running.finish();
    let left = processes_that_stay(sandbox.path(), Duration::from_secs(10));
    assert_eq!(left, [] as [&str; 0]);
}

/// A run whose commands started processes in the background, one of them in a session of its own.
fn run_with_children() -> (Sandbox, Running) {
    let spec = "version: 0.2\nphases:\n  build:\n    commands:\n      - sleep 1001 &\n      \
                - echo started; (setsid sleep 1002 & sleep 1003)\n      - echo never\n";
    let sandbox = sandbox(&[("buildspec.yml", spec)]);
    let mut running = sandbox.rbuild(["run", "--log", "codebuild"]).start();
    running.until_it_says("\nstarted\n");
    (sandbox, running)
}

#[test]
fn ctrl_c_ends_a_build_and_the_store_stays_good() {
    let sandbox = sandbox_with_context();
    let store = sandbox.store();
    // They have no blocks on disk, and yet it takes long to read the one and to write the other.
    for (size, is_written) in [(200_000_000_000, false), (1_500_000_000, true)] {
        let large = fs::File::create(sandbox.src().join("ctx/hello")).expect("file");
        large.set_len(size).expect("size of a file");
        let mut running = sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).start();
        if is_written {
            let file = |_: &Process| (0 < store::unfinished(&store)).then_some(());
            running.until("a temporary file", file);
        } else {
            running.until_it_says("COPY");
        }
        interrupt(running, &sandbox, Signal::INT);
        store::assert_nothing_is_half_written(&store);
    }
    sandbox.write("ctx/hello", "small\n");
    build(&sandbox, "x");
    assert_eq!(store::unfinished(&store), 0);
}

#[test]
fn ctrl_c_ends_a_push() {
    let registry = Scripted::start(|_| Answer::Silence);
    let sandbox = sandbox_with_context();
    let name = format!("{}/x:1", registry.host());
    build(&sandbox, &name);
    let mut running = sandbox.rbuild(["image", "push", &name]).start();
    running.until("a request", |_| (!registry.asked().is_empty()).then_some(()));
    interrupt(running, &sandbox, Signal::INT);
}

#[test]
fn ctrl_c_ends_a_build_that_nobody_listens_to() {
    // Standard error is full, and who could read it does not.
    let script = "mkfifo full; exec 3<>full; head -c 65536 /dev/zero >&3; exec \"$@\" 2>&3";
    let sandbox = sandbox_with_context();
    let build = sandbox.rbuild(["image", "build", "ctx"]).under(["sh", "-c", script, "sh"]);
    let mut running = build.start();
    running.until("a write that waits", |process| {
        let waits_in = fs::read_to_string(format!("/proc/{}/wchan", process.id()));
        waits_in.is_ok_and(|it| it.contains("pipe_write")).then_some(())
    });
    interrupt(running, &sandbox, Signal::TERM);
}

/// Sends what Ctrl-C (or the machine) sends, and asserts that the program ends as told, soon, and leaves no process.
#[track_caller]
fn interrupt(running: Running, sandbox: &Sandbox, signal: Signal) -> Finished {
    let start = Instant::now();
    running.signal(signal);
    let finished = running.finish();
    finished.has_status(128 + signal.as_raw());
    assert!(start.elapsed() < Duration::from_secs(10), "it takes {:?}", start.elapsed());
    assert_eq!(processes_that_know(sandbox.path()), [] as [&str; 0], "{finished}");
    finished
}

/// Builds while the store's folder is what `mounts` makes of it.
fn with_store(sandbox: &Sandbox, mounts: &str) -> Finished {
    let store = sandbox.store();
    fs::create_dir_all(&store).expect("store");
    let mut script = String::new();
    let store = store.display().to_string();
    let words = with_mounts(mounts, &store, &mut script);
    let run: Run = sandbox.rbuild(["image", "build", "-t", "x", "ctx"]).env(EPOCH.0, EPOCH.1);
    run.under(words).go()
}

/// Whether some layer in the store, unpacked, has this text in it.
fn has_in_a_layer(sandbox: &Sandbox, text: &str) -> bool {
    let contents = store::contents(&sandbox.store()).into_values();
    let has_text = |it: Vec<u8>| it.windows(text.len()).any(|found| found == text.as_bytes());
    contents.map(unpacked).any(has_text)
}

fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let mut tar = Vec::new();
    match std::io::copy(&mut flate2::read::GzDecoder::new(&*bytes), &mut tar) {
        Ok(_) => tar,
        Err(_) => bytes,
    }
}

#[test]
fn a_path_that_is_too_long_is_a_wrong_argument() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "shop:1");
    let (deep, wide) = ("x/".repeat(2500), "x".repeat(300));
    for long in [deep.as_str(), &wide] {
        let layout = format!("oci:{long}");
        let (tar, archive) = (format!("{layout}/x.tar"), format!("docker-archive:{long}:x"));
        sandbox.write("long/Dockerfile", format!("FROM oci:{long}\n"));
        for args in [
            &["image", "build", long][..],
            &["image", "build", "long"],
            &["image", "build", "-f", long, "ctx"],
            &["image", "build", "--iidfile", long, "ctx"],
            &["image", "build", "--store", long, "ctx"],
            &["image", "ls", "--store", long],
            &["cache", "du", "--store", long],
            &["cache", "prune", "--store", long],
            &["image", "load", "-i", long],
            &["image", "save", "-o", long, "shop:1"],
            &["image", "save", "-o", &format!("{long}.tar"), "shop:1"],
            &["image", "copy", "store:shop:1", &layout],
            &["image", "copy", &layout, "store:x:1"],
            &["image", "copy", "store:shop:1", &tar],
            &["image", "copy", "store:shop:1", &archive],
            &["image", "copy", &archive, "store:x:1"],
        ] {
            sandbox.rbuild(args).go().fails(2, &[]);
        }
    }
}

#[test]
fn what_docker_has_no_media_type_for_is_refused_before_anything_is_built() {
    let sandbox = sandbox_with_context();
    let args = ["image", "build", "--format", "docker", "--compression", "zstd:3", "ctx"];
    sandbox.rbuild(args).go().fails(2, &["zstd", "hint: ", "--compression"]);
    assert!(!sandbox.store().exists(), "a store was made");
    sandbox.rbuild(["image", "build", "--compression", "zstd", "-t", "base:1", "ctx"]).ok();
    sandbox.rbuild(["image", "save", "-o", "base", "base:1"]).ok();
    let dockerfile = "FROM scratch AS x\nCOPY hello /\nFROM oci:../base\nCOPY --from=x hello /x\n";
    sandbox.write("ctx/Dockerfile", dockerfile);
    let refused = sandbox.rbuild(["image", "build", "--format", "docker", "ctx"]).go();
    refused.fails(2, &["zstd", "ctx/Dockerfile:3"]);
    assert!(!refused.stderr.contains("COPY hello"), "{refused}");
}
