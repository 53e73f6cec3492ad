//! The fake registry passes the clients that others wrote: what they get from it, and what they ask
//! it for, is what they get from and ask a real one for.

use std::{collections::BTreeMap, fs, path::Path};

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::IMAGE_LAYER_MEDIA_TYPE,
    secrets::RegistryAuth,
};
use rbuild_tests::{
    FakeRegistry, Finished, Sandbox,
    fake_registry::{Anonymous, Bearer, Door, Lifetime, Quirk, Settings},
    peers, store,
};
use tokio::runtime::Runtime;

use crate::{build, digest, sandbox, sandbox_with_context};

/// What skopeo needs to be told of who it is: `user:password`, if anyone.
type Credentials = Option<String>;

fn skopeo(sandbox: &Sandbox, args: &[&str]) -> Finished {
    sandbox.run(peers::need("skopeo", "skopeo"), args).ok()
}

fn copy(sandbox: &Sandbox, from: &str, to: &str, credentials: &Credentials) -> Finished {
    let mut args = vec!["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    if let Some(credentials) = credentials {
        let kinds = [("--src-creds", from), ("--dest-creds", to)].into_iter();
        let kinds = kinds.filter(|(_, name)| name.starts_with("docker:"));
        args.extend(kinds.flat_map(|(kind, _)| [kind, credentials]));
    }
    args.extend([from, to]);
    skopeo(sandbox, &args)
}

/// An image as an OCI layout, and the sandbox it is in.
fn layout() -> (Sandbox, String) {
    let sandbox = sandbox_with_context();
    let large: Vec<u8> = fastrand::Rng::with_seed(3).choose_multiple(0..=255, 256);
    sandbox.write("ctx/large", large.repeat(40_000));
    sandbox.write("ctx/Dockerfile", "FROM scratch\nCOPY hello /etc/hello\nCOPY large /\n");
    build(&sandbox, "x:latest");
    let path = sandbox.path().join("layout").display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "x:latest"]).ok();
    (sandbox, path)
}

/// Copies an image in and out, and compares what came out with what went in.
fn there_and_back(settings: Settings, credentials: impl Fn(&FakeRegistry) -> Credentials) {
    let what = format!("{settings:?}");
    let registry = FakeRegistry::with(settings);
    registry.create_repository("team/x");
    let credentials = credentials(&registry);
    let (sandbox, path) = layout();
    let name = format!("docker://{}", registry.image("team/x:1"));
    copy(&sandbox, &format!("oci:{path}:latest"), &name, &credentials);
    let back = sandbox.path().join("back").display().to_string();
    copy(&sandbox, &name, &format!("oci:{back}:latest"), &credentials);
    assert_eq!(blobs(&path), blobs(&back), "{what}");
    registry.assert_was_asked_rightly();
    registry.assert_is_whole();
}

/// The blobs of a layout, and that each is what its name says.
fn blobs(layout: &str) -> BTreeMap<String, Vec<u8>> {
    let files = store::files(&Path::new(layout).join("blobs/sha256")).into_iter();
    let named = files.map(|path| {
        let name = path.file_name().expect("name of a blob").to_string_lossy().into_owned();
        assert_eq!(name, store::sha256(&path));
        (name, fs::read(path).expect("blob"))
    });
    named.collect()
}

#[test]
fn skopeo_copies_there_and_back() {
    there_and_back(Settings::default(), |_| None);
    let quirks = [Quirk::AbsoluteLocations, Quirk::NoSinglePost, Quirk::PatchCreated];
    there_and_back(Settings::with(quirks), |_| None);
    let basic = Settings::default().behind(Door::Basic("me", "secret"));
    there_and_back(basic, |_| Some("me:secret".into()));
    there_and_back(Settings::ecr(Lifetime::Unlimited), |registry| {
        Some(format!("AWS:{}", registry.password()))
    });
    there_and_back(Settings::ecr_public("me", "secret"), |_| Some("me:secret".into()));
    let anonymous = Bearer { anonymous: Anonymous::Everything, ..Bearer::default() };
    there_and_back(Settings::default().behind(Door::Bearer(anonymous)), |_| None);
}

#[test]
fn skopeo_inspects_lists_and_deletes() {
    let registry = FakeRegistry::start();
    let (sandbox, path) = layout();
    for tag in ["b", "a"] {
        let name = format!("docker://{}", registry.image(&format!("x:{tag}")));
        copy(&sandbox, &format!("oci:{path}:latest"), &name, &None);
    }
    let ask = |args: &[&str], name: &str| {
        let name = format!("docker://{}", registry.image(name));
        let args = [args, &["--tls-verify=false", &name]].concat();
        skopeo(&sandbox, &args).stdout
    };
    let tags = registry.tags("x");
    let found = ask(&["inspect", "--format", "{{.Digest}} {{len .Layers}}"], "x:a");
    assert_eq!(found.trim(), format!("{} 2", tags[0].1));
    let raw = ask(&["inspect", "--raw"], "x:a");
    assert_eq!(raw.trim().as_bytes(), registry.manifest("x", "a").unwrap().1);
    let list: serde_json::Value = serde_json::from_str(&ask(&["list-tags"], "x")).unwrap();
    assert_eq!(list["Tags"], serde_json::json!(["a", "b"]));
    ask(&["delete"], "x:a");
    assert!(registry.tags("x").is_empty(), "both were one image");
    registry.assert_was_asked_rightly();
}

#[test]
fn skopeo_mounts_between_repositories() {
    for (quirks, is_mounted) in
        [(vec![], true), (vec![Quirk::MountsReferenced], true), (vec![Quirk::NoMount], false)]
    {
        let registry = FakeRegistry::with(Settings::with(quirks));
        let (sandbox, path) = layout();
        let names = ["one:1", "two:1"].map(|it| format!("docker://{}", registry.image(it)));
        let from = format!("oci:{path}:latest");
        copy(&sandbox, &from, &names[0], &None);
        copy(&sandbox, &from, &names[1], &None);
        let requests = registry.requests("two");
        let mounts: Vec<_> = requests.iter().filter(|it| it.contains("mount=")).collect();
        assert!(!mounts.is_empty(), "{requests:?}");
        let status = if is_mounted { " 201" } else { " 202" };
        assert!(mounts.iter().all(|it| it.ends_with(status)), "{requests:?}");
        assert_eq!(registry.blobs("one"), registry.blobs("two"));
        registry.assert_was_asked_rightly();
    }
}

#[test]
fn skopeo_may_do_only_what_its_credentials_allow() {
    let registry = FakeRegistry::with(Settings::ecr_public("me", "secret"));
    registry.create_repository("x");
    let (sandbox, path) = layout();
    let (from, to) = (format!("oci:{path}:latest"), registry.image("x:1"));
    let to = format!("docker://{to}");
    let args = ["copy", "--dest-tls-verify=false", "--dest-no-creds", &from, &to];
    let refused = sandbox.run(peers::need("skopeo", "skopeo"), args).go();
    assert!(!refused.status.success(), "{refused}");
    copy(&sandbox, &from, &to, &Some("me:secret".into()));
    // Everyone may pull.
    copy(&sandbox, &to, "dir:copied", &None);
}

fn client(monolithic: Monolithic) -> Client {
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        use_monolithic_push: monolithic == Monolithic::Yes,
        ..ClientConfig::default()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Monolithic {
    Yes,
    /// Parts of 4 MiB.
    No,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn reference(registry: &FakeRegistry, name: &str) -> Reference {
    registry.image(name).parse().expect("a name")
}

/// Pushes two layers, the first of two parts, and pulls them again.
async fn push_and_pull(registry: &FakeRegistry, auth: &RegistryAuth, monolithic: Monolithic) {
    let client = client(monolithic);
    let name = reference(registry, "team/x:1");
    let large = vec![7; 6 * 1024 * 1024];
    let layers = [large.clone(), b"small".to_vec()].map(|it| ImageLayer::oci_v1(it, None));
    let config = Config::oci_v1(b"{}".to_vec(), None);
    client.push(&name, &layers, config, auth, None).await.expect("a push");
    let pulled = client.pull(&name, auth, vec![IMAGE_LAYER_MEDIA_TYPE]).await.expect("a pull");
    let mut found: Vec<_> = pulled.layers.iter().map(|it| it.data.to_vec()).collect();
    // Their order is lost on the way.
    found.sort_by_key(Vec::len);
    assert!(found == [b"small".to_vec(), large], "{}", registry.log());
    let known = client.fetch_manifest_digest(&name, auth).await.expect("a digest");
    assert_eq!(digest(&known), registry.tags("team/x")[0].1);
    registry.assert_was_asked_rightly();
    registry.assert_is_whole();
}

#[test]
fn oci_client_pushes_and_pulls() {
    runtime().block_on(async {
        for monolithic in [Monolithic::Yes, Monolithic::No] {
            push_and_pull(&FakeRegistry::start(), &RegistryAuth::Anonymous, monolithic).await;
        }
        let registry =
            FakeRegistry::with(Settings::default().behind(Door::Bearer(Bearer {
                user: Some(("me", "secret")),
                ..Bearer::default()
            })));
        let auth = RegistryAuth::Basic("me".into(), "secret".into());
        push_and_pull(&registry, &auth, Monolithic::Yes).await;
        assert_ne!(registry.tokens_given(), 0);
    });
}

/// As its users found at the real one, too: 201 for a part is no success to it, and it begins anew.
#[test]
fn oci_client_gets_along_with_ecr_by_sending_no_parts() {
    runtime().block_on(async {
        let registry = FakeRegistry::ecr();
        registry.create_repository("team/x");
        let auth = RegistryAuth::Basic("AWS".into(), registry.password());
        push_and_pull(&registry, &auth, Monolithic::Yes).await;
        assert!(!registry.log().contains("PATCH "), "{}", registry.log());

        let client = client(Monolithic::No);
        let name = reference(&registry, "team/x:2");
        client.auth(&name, &auth, RegistryOperation::Push).await.expect("a login");
        let large = vec![8; 6 * 1024 * 1024];
        client.push_blob(&name, large.clone(), &sha256(&large)).await.expect("a push");
        let uploads: Vec<_> = registry.asked().into_iter().rev().take(4).collect();
        let uploads = uploads.iter().rev().map(|it| (&*it.method, it.status));
        let want = [("POST", 202), ("PATCH", 201), ("POST", 202), ("PUT", 201)];
        assert_eq!(uploads.collect::<Vec<_>>(), want, "{}", registry.log());
        registry.assert_was_asked_rightly();
    });
}

#[test]
fn oci_client_mounts_lists_and_finds_referrers() {
    runtime().block_on(async {
        let registry = FakeRegistry::start();
        let (one, two) = (reference(&registry, "one:1"), reference(&registry, "two:1"));
        let (client, auth) = (client(Monolithic::Yes), RegistryAuth::Anonymous);
        let config = Config::oci_v1(b"{}".to_vec(), None);
        let layers = [ImageLayer::oci_v1(b"small".to_vec(), None)];
        client.push(&one, &layers, config, &auth, None).await.expect("a push");
        for blob in registry.blobs("one") {
            client.mount_blob(&two, &one, &blob).await.expect("a mount");
        }
        assert_eq!(registry.blobs("one"), registry.blobs("two"));
        for tag in ["a", "b", "c"] {
            let (kind, bytes) = registry.manifest("one", "1").unwrap();
            registry.put_manifest("one", tag, &kind, &bytes);
        }
        let page = client.list_tags(&one, &auth, Some(2), Some("1")).await.expect("tags");
        assert_eq!(page.tags, ["a", "b"]);
        let digest = &registry.tags("one")[0].1;
        let subject = serde_json::json!({
            "schemaVersion": 2, "layers": [], "subject": {"digest": digest},
            "artifactType": "application/x",
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let referrer = registry.put_manifest("one", "r", kind, subject.to_string().as_bytes());
        let name = registry.image(&format!("one@{digest}")).parse().expect("a name");
        let found = client.pull_referrers(&name, None).await.expect("referrers");
        assert_eq!(found.manifests.len(), 1);
        assert_eq!(found.manifests[0].digest, referrer);
        registry.assert_was_asked_rightly();
    });
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", store::hex(bytes))
}

/// A blob of this size passes without being held in memory.
#[test]
fn a_large_blob_passes_through_files() {
    let registry = FakeRegistry::start();
    let sandbox = sandbox(&[("ctx/Dockerfile", "FROM scratch\nCOPY large /\n")]);
    let mut random = fastrand::Rng::with_seed(9);
    let large: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(48 << 20).collect();
    sandbox.write("ctx/large", &large);
    drop(large);
    build(&sandbox, "x:latest");
    let path = sandbox.path().join("layout").display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "x:latest"]).ok();
    let name = format!("docker://{}", registry.image("x:1"));
    copy(&sandbox, &format!("oci:{path}:latest"), &name, &None);
    let received: u64 = registry.asked().iter().map(|it| it.received).sum();
    assert!((48 << 20) <= received, "{}", registry.log());
    registry.assert_is_whole();
}
