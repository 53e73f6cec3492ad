//! `image build --push`: layers go to the registry while they are made, and whatever goes wrong with
//! that, the image is there in the end.

use rbuild_tests::{
    FakeRegistry, Run, Sandbox,
    fake_registry::{Bearer, Door, Fault, Quirk, Settings, fault::Trouble},
    store,
};

use crate::{
    EPOCH, build, digest,
    registry_suite::{Peer, sandbox_with_layers},
};

/// Seconds after which a connection is given up here.
const PATIENCE: (&str, &str) = ("RBUILD_REGISTRY_TIMEOUT", "1");

fn build_and_push(sandbox: &Sandbox, name: &str) -> Run {
    let args = ["image", "build", "--push", "-t", name, "ctx"];
    sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).env(PATIENCE.0, PATIENCE.1)
}

/// The digest that a build prints, with or without the name that it pushed it by.
#[track_caller]
fn said(line: &str) -> String {
    digest(line.rsplit('@').next().unwrap_or_default())
}

/// All that was asked of a repository, with names for digests and for what upload it was.
fn asked(registry: &FakeRegistry, repository: &str) -> Vec<String> {
    let (_, manifest) = registry.manifest(repository, "1").expect("a manifest");
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let blob = |it: &serde_json::Value| it["digest"].as_str().expect("digest").to_owned();
    let layers = parsed["layers"].as_array().expect("layers").iter().map(blob);
    let mut names: Vec<(String, String)> =
        layers.enumerate().map(|(number, it)| (it, format!("LAYER{number}"))).collect();
    names.push((blob(&parsed["config"]), "CONFIG".into()));
    names.push((format!("sha256:{}", store::hex(&manifest)), "IMAGE".into()));
    let known = |line: String| {
        let line = line.replace("%3A", ":");
        let line = names.iter().fold(line, |line, (digest, name)| line.replace(digest, name));
        let words: Vec<&str> = line.split(' ').collect();
        let [method, path, status] = words[..] else { panic!("not three words: {line}") };
        // Which upload it is, is in the path or the query.
        let digest = path.split(['?', '&']).find(|it| it.starts_with("digest="));
        match path.split_once("/blobs/uploads/") {
            Some((_, "")) => format!("{method} uploads {status}"),
            Some(_) => format!("{method} upload {} {status}", digest.unwrap_or("-")),
            None => format!("{method} {} {status}", path.trim_start_matches("/v2/")),
        }
    };
    registry.requests(repository).into_iter().map(known).collect()
}

#[test]
fn a_build_that_pushes_sends_a_layer_while_it_is_made() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["stream/x"]);
        let name = peer.image("stream/x:1");
        let built = build_and_push(&sandbox, &name).ok();
        let built = said(built.line());
        let requests = peer.requests("stream/x");
        let patches = requests.iter().filter(|it| it.starts_with("PATCH ")).count();
        assert!(patches <= 2, "one a layer, never parts: {requests:?}");
        if let Some(fake) = peer.fake() {
            let (_, bytes) = fake.manifest("stream/x", "1").expect("a manifest");
            assert_eq!(format!("sha256:{}", store::hex(&bytes)), built);
            let asked = fake.asked();
            let streams = asked.iter().filter(|it| it.method == "PATCH");
            assert!(streams.clone().all(|it| it.header("content-length").is_none()));
            assert!(streams.clone().any(|it| 1024 * 1024 < it.received), "{}", fake.log());
        }
        peer.assert_is_content();
    }
}

/// No part of it comes twice, and nothing is asked for that is known.
#[test]
fn a_new_layer_takes_a_post_a_patch_and_a_put() {
    for (settings, patched) in [(Settings::default(), 202), (Settings::with(Quirk::ECR), 201)] {
        let registry = FakeRegistry::with(settings);
        registry.create_repository("x");
        let sandbox = sandbox_with_layers();
        sandbox.write("ctx/Dockerfile", "FROM scratch\nCOPY large hello /\n");
        build_and_push(&sandbox, &registry.image("x:1")).ok();
        let want = [
            // Whether a push may begin is known before the build.
            "POST uploads 202",
            "DELETE upload - 204",
            "POST uploads 202",
            &format!("PATCH upload - {patched}"),
            "PUT upload digest=LAYER0 201",
        ];
        let mut asked = asked(&registry, "x");
        let mut rest = asked.split_off(want.len());
        assert_eq!(asked, want);
        // What is left for the push; blobs go at the same time.
        rest.sort();
        let want = [
            "HEAD x/blobs/CONFIG 404",
            "HEAD x/blobs/LAYER0 200",
            "HEAD x/manifests/1 404",
            "HEAD x/manifests/IMAGE 404",
            "POST uploads 202",
            "PUT upload digest=CONFIG 201",
            "PUT x/manifests/1 201",
        ];
        assert_eq!(rest, want);
    }
}

/// Layers of the base and the push are asked for with one token.
#[test]
fn a_build_that_pushes_logs_in_once() {
    let bearer = Bearer { user: Some(("me", "secret")), ..Bearer::default() };
    let registry = FakeRegistry::with(Settings::default().behind(Door::Bearer(bearer)));
    let sandbox = sandbox_with_layers();
    let login = ["login", "-u", "me", "--password-stdin", &registry.host()];
    sandbox.rbuild(login).input("secret\n").ok();
    let name = registry.image("x:1");
    build_and_push(&sandbox, &name).ok();
    sandbox.write("ctx/Dockerfile", format!("FROM {name}\nCOPY hello /more\n"));
    sandbox.write("ctx/hello", "more");
    let before = registry.tokens_given();
    build_and_push(&sandbox, &name).ok();
    // To pull, and to push.
    assert_eq!(registry.tokens_given() - before, 2, "{}", registry.log());
    registry.assert_was_asked_rightly();
    registry.assert_is_whole();
}

/// Whatever goes wrong with the upload, the build and its push go on from the store.
#[test]
fn a_build_that_pushes_survives_what_passes() {
    for (method, trouble) in [
        ("POST", Trouble::status(503)),
        ("PATCH", Trouble::status(500)),
        ("PATCH", Trouble::Cut(64 * 1024)),
        ("PATCH", Trouble::Cut(2 * 1024 * 1024)),
        ("PATCH", Trouble::status(404)),
        ("PATCH", Trouble::Stall(64 * 1024)),
        ("PATCH", Trouble::Stall(0)),
        ("PATCH", Trouble::Mute),
        ("PATCH", Trouble::Corrupt(5)),
        ("PUT", Trouble::Mute),
        ("PUT", Trouble::status(404)),
        ("PUT", Trouble::Stall(0)),
    ] {
        let what = format!("{method} {trouble:?}");
        let registry = FakeRegistry::start();
        let sandbox = sandbox_with_layers();
        let name = registry.image("x:1");
        registry.inject(Fault::new(method, "/blobs/uploads/", trouble));
        let built = build_and_push(&sandbox, &name).go();
        assert!(built.status.success(), "{what}: {built}\n{}", registry.log());
        let digest = said(built.line());
        assert_eq!(registry.tags("x"), [("1".to_owned(), digest.clone())], "{what}");
        assert_eq!(build(&sandbox, "other"), digest, "{what}");
        assert_eq!(registry.faults_left(), 0, "{what} never came: {}", registry.log());
        registry.assert_is_whole();
        registry.assert_was_asked_rightly();
    }
}
