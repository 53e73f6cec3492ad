//! What the program does with a registry, the same with each: the fake one as it is specified, the
//! fake one with all that Amazon ECR does, and docker-registry.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rbuild_tests::{FakeRegistry, Sandbox, peers, servers::Registry, store};

use crate::{build, digest_of, push, sandbox};

const MIB: usize = 1024 * 1024;

/// A registry of one of the kinds.
#[derive(Debug)]
pub(crate) enum Peer {
    Plain(FakeRegistry),
    Ecr(FakeRegistry, String),
    Docker(&'static Registry),
}

impl Peer {
    pub(crate) fn all() -> [Self; 3] {
        let ecr = FakeRegistry::ecr();
        let password = ecr.password();
        let docker = Self::Docker(Registry::shared());
        [Self::Plain(FakeRegistry::start()), Self::Ecr(ecr, password), docker]
    }

    pub(crate) fn fake(&self) -> Option<&FakeRegistry> {
        match self {
            Self::Plain(fake) | Self::Ecr(fake, _) => Some(fake),
            Self::Docker(_) => None,
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Plain(fake) | Self::Ecr(fake, _) => fake.host(),
            Self::Docker(registry) => registry.host(),
        }
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    pub(crate) fn requests(&self, repository: &str) -> Vec<String> {
        match self {
            Self::Plain(fake) | Self::Ecr(fake, _) => fake.requests(repository),
            Self::Docker(registry) => registry.requests(repository),
        }
    }

    /// Lets a sandbox use these repositories.
    pub(crate) fn admit(&self, sandbox: &Sandbox, repositories: &[&str]) {
        let Self::Ecr(fake, password) = self else { return };
        for name in repositories {
            fake.create_repository(name);
        }
        let auth = BASE64_STANDARD.encode(format!("AWS:{password}"));
        let config = serde_json::json!({"auths": {fake.host(): {"auth": auth}}});
        sandbox.write("../home/.docker/config.json", config.to_string());
    }

    fn credentials(&self) -> String {
        match self {
            Self::Ecr(_, password) => format!("AWS:{password}"),
            Self::Plain(_) | Self::Docker(_) => String::new(),
        }
    }

    /// Asserts what the fakes can tell of a client.
    #[track_caller]
    pub(crate) fn assert_is_content(&self) {
        if let Some(fake) = self.fake() {
            fake.assert_was_asked_rightly();
            fake.assert_is_whole();
        }
    }
}

/// A sandbox whose image has two layers, one of them of some size and hard to compress.
pub(crate) fn sandbox_with_layers() -> Sandbox {
    let dockerfile = "FROM scratch\nCOPY large /\nCOPY hello /etc/hello\n";
    let sandbox = sandbox(&[("ctx/Dockerfile", dockerfile), ("ctx/hello", "hello\n")]);
    let mut random = fastrand::Rng::with_seed(7);
    let large: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(3 * MIB).collect();
    sandbox.write("ctx/large", large);
    sandbox
}

/// The blobs of an image as the program saves them, each of which is what its name says.
pub(crate) fn saved(sandbox: &Sandbox, name: &str) -> BTreeMap<String, Vec<u8>> {
    let saved = sandbox.path().join("compared");
    let path = saved.display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, name]).ok();
    let blobs = blobs(&saved);
    fs::remove_dir_all(saved).expect("a layout that is removed");
    blobs
}

pub(crate) fn blobs(layout: &Path) -> BTreeMap<String, Vec<u8>> {
    store::assert_every_blob_is_whole(layout);
    let files = store::files(&store::blobs(layout)).into_iter();
    let named = files.map(|path| {
        let name = path.file_name().expect("name of a blob").to_string_lossy().into_owned();
        (name, fs::read(path).expect("blob"))
    });
    named.collect()
}

#[test]
fn what_is_pushed_is_what_others_read_byte_for_byte() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["suite/read"]);
        let name = peer.image("suite/read:1");
        let built = build(&sandbox, &name);
        assert_eq!(push(&sandbox, &name), built, "{peer:?}");
        let layout = sandbox.path().join("layout");
        peers::skopeo_copy(&name, &layout, &peer.credentials());
        assert_eq!(blobs(&layout), saved(&sandbox, &name), "{peer:?}");
        if let Some((_, bytes)) = peer.fake().and_then(|it| it.manifest("suite/read", "1")) {
            assert_eq!(format!("sha256:{}", store::hex(&bytes)), built);
        }
        peer.assert_is_content();
    }
}

#[test]
fn a_push_with_nothing_new_takes_at_most_three_requests() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["suite/again"]);
        let name = peer.image("suite/again:1");
        let built = build(&sandbox, &name);
        push(&sandbox, &name);
        let count = || match peer.fake() {
            Some(fake) => fake.asked().len(),
            None => peer.requests("suite/again").len(),
        };
        let before = count();
        assert_eq!(push(&sandbox, &name), built, "{peer:?}");
        let new = count() - before;
        assert!(new <= 3, "{new} requests: {:?}", peer.requests("suite/again"));
    }
}

#[test]
fn only_what_is_new_is_uploaded() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["suite/changed"]);
        let names = ["suite/changed:1", "suite/changed:2"].map(|it| peer.image(it));
        build(&sandbox, &names[0]);
        push(&sandbox, &names[0]);
        let uploads = || {
            let requests = peer.requests("suite/changed").into_iter();
            requests.filter(|it| it.starts_with("POST ") && it.ends_with(" 202")).count()
        };
        let before = uploads();
        sandbox.write("ctx/hello", "other\n");
        let built = build(&sandbox, &names[1]);
        assert_eq!(push(&sandbox, &names[1]), built, "{peer:?}");
        let requests = peer.requests("suite/changed");
        assert_eq!(uploads() - before, 2, "a layer and a config: {requests:?}");
        if let Some(fake) = peer.fake() {
            let large = fake
                .asked()
                .iter()
                .filter(|it| MIB < usize::try_from(it.received).unwrap_or(0))
                .count();
            assert_eq!(large, 1, "the large layer is sent once: {}", fake.log());
        }
        peer.assert_is_content();
    }
}

#[test]
fn a_pull_into_an_empty_store_gives_the_same_image() {
    for peer in Peer::all() {
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        for sandbox in [&from, &to] {
            peer.admit(sandbox, &["suite/pulled"]);
        }
        let name = peer.image("suite/pulled:1");
        let built = build(&from, &name);
        push(&from, &name);
        let by_digest = format!("{}@{built}", peer.image("suite/pulled"));
        for name in [&name, &by_digest] {
            let pulled = to.rbuild(["image", "pull", name]).ok();
            assert_eq!(digest_of(pulled.line()), built, "{peer:?}");
        }
        assert_eq!(saved(&from, &name), saved(&to, &name), "{peer:?}");
        peer.assert_is_content();
    }
}

#[test]
fn an_image_that_others_pushed_is_pulled_as_it_is() {
    for peer in Peer::all() {
        let (from, to) = (sandbox_with_layers(), sandbox(&[]));
        peer.admit(&to, &["suite/others"]);
        build(&from, "x:latest");
        let path = from.path().join("layout").display().to_string();
        from.rbuild(["image", "save", "--format", "oci", "-o", &path, "x:latest"]).ok();
        let name = peer.image("suite/others:1");
        let (oci, docker) = (format!("oci:{path}:latest"), format!("docker://{name}"));
        let credentials = peer.credentials();
        let mut args = vec!["copy", "--quiet", "--dest-tls-verify=false", "--format", "v2s2"];
        if credentials.is_empty() {
            args.push("--dest-no-creds");
        } else {
            args.extend(["--dest-creds", &credentials]);
        }
        args.extend([&*oci, &*docker]);
        peers::run("skopeo", "skopeo", &args);
        let pulled = to.rbuild(["image", "pull", &name]).ok();
        if let Some((kind, bytes)) = peer.fake().and_then(|it| it.manifest("suite/others", "1")) {
            assert_eq!(kind, "application/vnd.docker.distribution.manifest.v2+json");
            assert_eq!(digest_of(pulled.line()), format!("sha256:{}", store::hex(&bytes)));
            // Kept as it came, under its own digest.
            let kept = saved(&to, &name);
            assert_eq!(kept.get(&store::hex(&bytes)), Some(&bytes));
        }
        peer.assert_is_content();
    }
}

#[test]
fn what_is_not_there_is_asked_for_wrongly() {
    for peer in Peer::all() {
        let sandbox = sandbox_with_layers();
        peer.admit(&sandbox, &["suite/known"]);
        for name in ["suite/unknown:1", "suite/known:none"] {
            let name = peer.image(name);
            sandbox.rbuild(["image", "pull", &name]).go().fails(2, &[&name]);
        }
        peer.assert_is_content();
    }
}
