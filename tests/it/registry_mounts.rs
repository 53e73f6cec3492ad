//! Blobs that a registry takes from another of its repositories, and images that are copied within
//! one and between two.

use rbuild_tests::{
    FakeRegistry,
    fake_registry::{Bearer, Door, Quirk, Settings},
};

use crate::{
    build, push,
    registry_suite::{Peer, sandbox_with_layers},
};

/// The sizes of what was uploaded to a repository by PATCH and PUT.
pub(crate) fn uploaded(registry: &FakeRegistry, repository: &str) -> u64 {
    let wanted = format!("/v2/{repository}/blobs/uploads/");
    let asked = registry.asked().into_iter();
    asked.filter(|it| it.path.starts_with(&wanted)).map(|it| it.received).sum()
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
