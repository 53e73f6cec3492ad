//! Registries as the program uses them where they allow more than the least: mounts, parts of
//! blobs, uploads while a layer is made, repositories that are created, tags that stay.

use rbuild_tests::{
    FakeRegistry,
    fake_registry::{Bearer, Door, ECR, Fault, Lifetime, Quirk, Settings, fault::Trouble},
    store,
};

use crate::{
    EPOCH, build, digest, digest_of, push,
    registry_ecr::Aws,
    registry_suite::{Peer, sandbox_with_layers, saved},
    sandbox,
};

/// The sizes of what was uploaded to a repository by PATCH and PUT.
fn uploaded(registry: &FakeRegistry, repository: &str) -> u64 {
    let wanted = format!("/v2/{repository}/blobs/uploads/");
    let asked = registry.asked().into_iter();
    asked.filter(|it| it.path.starts_with(&wanted)).map(|it| it.received).sum()
}

/// The digest that a build prints, with or without the name that it pushed it by.
#[track_caller]
fn said(line: &str) -> String {
    digest(line.rsplit('@').next().unwrap_or_default())
}

#[test]
fn a_second_repository_gets_its_layers_from_the_first() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["mount/one", "mount/two"]);
        let names = ["mount/one:1", "mount/two:1"].map(|it| peer.image(it));
        let built = build(&sandbox, &names[0]);
        push(&sandbox, &names[0]);
        sandbox.rbuild(["image", "tag", &names[0], &names[1]]).ok();
        assert_eq!(push(&sandbox, &names[1]), built, "{peer:?}");
        let requests = peer.requests("mount/two");
        let mounted = requests.iter().filter(|it| it.contains("mount=") && it.ends_with(" 201"));
        assert!(2 <= mounted.count(), "two layers: {requests:?}");
        if let Some(fake) = peer.fake() {
            let sent = uploaded(fake, "mount/two");
            assert!(sent < 64 * 1024, "{sent} bytes at most of a config: {}", fake.log());
        }
        peer.assert_is_content();
    }
}

#[test]
fn a_layer_of_a_base_is_mounted_and_not_downloaded() {
    for peer in Peer::all() {
        let (below, above) = (sandbox_with_layers(), sandbox_with_layers());
        for sandbox in [&below, &above] {
            peer.admit(sandbox, &["lazy/base", "lazy/above"]);
        }
        let names = ["lazy/base:1", "lazy/above:1"].map(|it| peer.image(it));
        build(&below, &names[0]);
        push(&below, &names[0]);
        let dockerfile = format!("FROM {}\nENV A=b\nCOPY hello /new\n", names[0]);
        above.write("ctx/Dockerfile", dockerfile);
        let before = peer.requests("lazy/base").len();
        let built = build(&above, &names[1]);
        assert_eq!(push(&above, &names[1]), built, "{peer:?}");
        if let Some(fake) = peer.fake() {
            assert!(uploaded(fake, "lazy/above") < 64 * 1024, "{}", fake.log());
        }
        let requests = peer.requests("lazy/base").split_off(before);
        let blobs = requests.iter().filter(|it| it.starts_with("GET ") && it.contains("/blobs/"));
        assert!(blobs.count() <= 1, "the config, and no layer: {requests:?}");
        peer.assert_is_content();
    }
}

#[test]
fn what_may_not_be_mounted_is_uploaded() {
    for quirk in [Quirk::NoMount, Quirk::MountsReferenced] {
        let registry = FakeRegistry::with(Settings::with([quirk]));
        let sandbox = sandbox_with_layers();
        let names = ["one:1", "two:1"].map(|it| registry.image(it));
        let built = build(&sandbox, &names[0]);
        push(&sandbox, &names[0]);
        if quirk == Quirk::MountsReferenced {
            // The blobs are there, and no manifest names them any more.
            let path = format!("docker://{}", names[0]);
            let args = ["delete", "--tls-verify=false", &path];
            rbuild_tests::peers::run("skopeo", "skopeo", &args);
        }
        sandbox.rbuild(["image", "tag", &names[0], &names[1]]).ok();
        assert_eq!(push(&sandbox, &names[1]), built, "{quirk:?}");
        assert!(
            !registry.requests("two").iter().any(|it| it.contains("mount=") && it.ends_with("201"))
        );
        registry.assert_was_asked_rightly();
        registry.assert_is_whole();
    }
}

/// A token for both repositories is one that a client has to ask for both.
#[test]
fn a_mount_needs_a_token_for_both_repositories() {
    let bearer = Bearer { user: Some(("me", "secret")), ..Bearer::default() };
    let registry = FakeRegistry::with(Settings::default().behind(Door::Bearer(bearer)));
    let sandbox = sandbox_with_layers();
    let login = ["login", "-u", "me", "--password-stdin", &registry.host()];
    sandbox.rbuild(login).input("secret\n").ok();
    let names = ["one:1", "two:1"].map(|it| registry.image(it));
    let built = build(&sandbox, &names[0]);
    push(&sandbox, &names[0]);
    sandbox.rbuild(["image", "tag", &names[0], &names[1]]).ok();
    assert_eq!(push(&sandbox, &names[1]), built);
    assert!(uploaded(&registry, "two") < 64 * 1024, "{}", registry.log());
    sandbox.rbuild(["logout", &registry.host()]).ok();
    sandbox
        .rbuild(["image", "pull", &names[0]])
        .env("RBUILD_STORE", sandbox.path().join("other"))
        .go()
        .fails(3, &["401"]);
    registry.assert_was_asked_rightly();
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

#[test]
fn a_build_that_pushes_sends_a_layer_while_it_is_made() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["stream/x"]);
        let name = peer.image("stream/x:1");
        let args = ["image", "build", "--push", "-t", &name, "ctx"];
        let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok();
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

/// Whatever goes wrong with the upload, the build and its push go on from the store.
#[test]
fn a_build_that_pushes_survives_what_passes() {
    for (method, trouble) in [
        ("POST", Trouble::status(503)),
        ("PATCH", Trouble::status(500)),
        ("PATCH", Trouble::Cut(64 * 1024)),
        ("PATCH", Trouble::Mute),
        ("PATCH", Trouble::Corrupt(5)),
        ("PUT", Trouble::Mute),
    ] {
        let what = format!("{method} {trouble:?}");
        let registry = FakeRegistry::start();
        let sandbox = sandbox_with_layers();
        let name = registry.image("x:1");
        registry.inject(Fault::new(method, "/blobs/uploads/", trouble));
        let args = ["image", "build", "--push", "-t", &name, "ctx"];
        let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).go();
        assert!(built.status.success(), "{what}: {built}\n{}", registry.log());
        assert_eq!(registry.tags("x"), [("1".to_owned(), said(built.line()))], "{what}");
        assert_eq!(registry.faults_left(), 0, "{what} never came: {}", registry.log());
        registry.assert_is_whole();
        registry.assert_was_asked_rightly();
    }
}

#[test]
fn ecr_gets_the_repository_that_it_lacks() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/team/shop:1");
    let built = build(&sandbox, &name);
    aws.rbuild(&sandbox, &["image", "push", &name]).go().fails(2, &["--create-repository"]);
    let args = [
        "image",
        "push",
        "--create-repository",
        "--repository-scan-on-push",
        "--repository-encryption",
        "KMS:alias/images",
        "--repository-immutable",
        &name,
    ];
    let pushed = aws.rbuild(&sandbox, &args).ok();
    assert_eq!(digest_of(pushed.line()), built);
    let calls = aws.registry.calls();
    let created: Vec<_> = calls.iter().filter(|(call, _)| call == "CreateRepository").collect();
    let [(_, input)] = &created[..] else { panic!("one call: {calls:?}") };
    assert_eq!(input["repositoryName"], "team/shop");
    assert_eq!(input["imageScanningConfiguration"]["scanOnPush"], true);
    assert_eq!(input["imageTagMutability"], "IMMUTABLE");
    let encryption = &input["encryptionConfiguration"];
    assert_eq!(
        (&encryption["encryptionType"], &encryption["kmsKey"]),
        (&"KMS".into(), &"alias/images".into())
    );
    // It is there now, and that is no error.
    assert_eq!(digest_of(aws.rbuild(&sandbox, &args).ok().line()), built);
    aws.registry.assert_was_asked_rightly();
    aws.registry.assert_is_whole();
}

#[test]
fn ecr_keeps_a_tag_and_the_same_image_is_no_error() {
    let aws = Aws::start(Settings::ecr(Lifetime::Unlimited));
    aws.registry.create_repository("shop");
    let sandbox = sandbox_with_layers();
    let name = format!("{ECR}/shop:1");
    let first = build(&sandbox, &name);
    let push = || aws.rbuild(&sandbox, &["image", "push", "--ignore-immutable", &name]);
    assert_eq!(digest_of(push().ok().line()), first);
    assert_eq!(digest_of(push().ok().line()), first);
    sandbox.write("ctx/hello", "other\n");
    assert_ne!(build(&sandbox, &name), first);
    push().go().fails(2, &["immutable"]);
    assert_eq!(aws.registry.tags("shop"), [("1".to_owned(), first)]);
}

#[test]
fn an_image_is_copied_between_registries() {
    let (one, two) = (FakeRegistry::start(), FakeRegistry::start());
    let sandbox = sandbox_with_layers();
    let (from, to) = (one.image("x:1"), two.image("y/z:2"));
    let built = build(&sandbox, &from);
    push(&sandbox, &from);
    let [from, to] = [from, to].map(|it| format!("docker://{it}"));
    let elsewhere = crate::sandbox(&[]);
    elsewhere.rbuild(["image", "copy", &from, &to]).ok();
    assert_eq!(two.tags("y/z"), [("2".to_owned(), built)]);
    assert_eq!(one.manifest("x", "1"), two.manifest("y/z", "2"));
    assert_eq!(one.blobs("x"), two.blobs("y/z"));
    // Within one registry nothing is carried.
    let same = format!("docker://{}", two.image("same:1"));
    elsewhere.rbuild(["image", "copy", &to, &same]).ok();
    assert!(uploaded(&two, "same") < 64 * 1024, "{}", two.log());
    for registry in [one, two] {
        registry.assert_was_asked_rightly();
        registry.assert_is_whole();
    }
}
