//! Layers of bases, which stay where they are until someone needs them: what is asked of a registry
//! for an image that is built on one, and for all that is done with it then.

use rbuild_tests::{FakeRegistry, Sandbox, store};

use crate::{
    build, digest_of, push,
    registry_mounts::uploaded,
    registry_suite::{Peer, blobs, sandbox_with_layers},
    sandbox,
};

/// A base of two layers in a registry, and a sandbox that builds on it.
struct Lazy {
    registry: FakeRegistry,
    above: Sandbox,
    base: String,
}

impl Lazy {
    fn start() -> Self {
        let registry = FakeRegistry::start();
        let (below, above) = (sandbox_with_layers(), sandbox_with_layers());
        let base = registry.image("base:1");
        build(&below, &base);
        push(&below, &base);
        Self { registry, above, base }
    }

    /// Builds on the base without a need for its layers.
    fn build(&self) -> String {
        self.above.write("ctx/Dockerfile", format!("FROM {}\nENV A=b\n", self.base));
        build(&self.above, "lazy:1")
    }

    fn image_ls(&self) -> serde_json::Value {
        let listed = self.above.rbuild(["image", "ls", "--json"]).ok();
        let all: Vec<serde_json::Value> = serde_json::from_str(listed.line()).expect("JSON");
        let is_lazy = |it: &&serde_json::Value| it["names"].to_string().contains("\"lazy:1\"");
        all.iter().find(is_lazy).expect("the image").clone()
    }

    /// How often a layer of the base was asked for.
    fn downloads(&self) -> usize {
        layer_downloads(&self.registry.requests("base"), &layers(&self.registry, "base"))
    }
}

/// The digests of the layers of an image with the tag `1`.
fn layers(registry: &FakeRegistry, repository: &str) -> Vec<String> {
    let (_, manifest) = registry.manifest(repository, "1").expect("a manifest");
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let layers = parsed["layers"].as_array().expect("layers").iter();
    layers.map(|it| it["digest"].as_str().expect("digest").to_owned()).collect()
}

fn layer_downloads(requests: &[String], layers: &[String]) -> usize {
    let is_layer = |it: &&String| {
        it.starts_with("GET ") && layers.iter().any(|layer| it.contains(layer.as_str()))
    };
    requests.iter().filter(is_layer).count()
}

/// Requests with `B` and `C` for the names of a manifest and a config, and `0`, `1` … for layers.
fn named(requests: Vec<String>, registry: &FakeRegistry) -> Vec<String> {
    let (_, manifest) = registry.manifest("lazy/base", "1").expect("a manifest");
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let config = parsed["config"]["digest"].as_str().expect("digest").to_owned();
    let mut names = vec![(format!("sha256:{}", store::hex(&manifest)), "B".to_owned())];
    names.push((config, "C".to_owned()));
    let layers = layers(registry, "lazy/base").into_iter().enumerate();
    names.extend(layers.map(|(number, it)| (it, number.to_string())));
    let name = |line: String| {
        // ECR has its blobs elsewhere.
        let line = line.replace("/v2/lazy/base/", "").replace(" 307", " 200");
        names.iter().fold(line, |line, (digest, name)| line.replace(digest, name))
    };
    requests.into_iter().map(name).collect()
}

#[test]
fn a_base_is_asked_for_what_is_needed_of_it_and_once() {
    for peer in Peer::all() {
        let (below, above) = (sandbox_with_layers(), sandbox_with_layers());
        for sandbox in [&below, &above] {
            peer.admit(sandbox, &["lazy/base", "lazy/above"]);
        }
        let [base, name] = ["lazy/base:1", "lazy/above:1"].map(|it| peer.image(it));
        build(&below, &base);
        push(&below, &base);
        // That a credential is wanted is said once a process.
        let from = |before: usize| {
            let mut requests = peer.requests("lazy/base").split_off(before);
            requests.retain(|it| !it.ends_with(" 401"));
            requests
        };
        let check = |dockerfile: &str, want: &[&str]| {
            above.write("ctx/Dockerfile", dockerfile.replace("BASE", &base));
            let before = peer.requests("lazy/base").len();
            let built = build(&above, &name);
            let new = from(before);
            if let Some(fake) = peer.fake() {
                let mut asked = named(new, fake);
                // Layers come at the same time.
                asked.sort();
                assert_eq!(asked, want, "{peer:?} {dockerfile}");
            } else {
                assert_eq!(new.len(), want.len(), "{peer:?} {dockerfile}: {new:?}");
            }
            built
        };
        let config_alone = "FROM BASE\nENV A=b\nLABEL c=d\nCMD [\"/hello\"]\n";
        check(config_alone, &["GET blobs/C 200", "GET manifests/B 200", "HEAD manifests/1 200"]);
        check(config_alone, &["HEAD manifests/1 200"]);
        let copy = "FROM BASE\nENV A=b\nCOPY hello /new\n";
        check(copy, &["GET blobs/0 200", "GET blobs/1 200", "HEAD manifests/1 200"]);
        check(copy, &["HEAD manifests/1 200"]);
        above.write("ctx/hello", "changed");
        let built = check(copy, &["HEAD manifests/1 200"]);

        let before = peer.requests("lazy/base").len();
        assert_eq!(push(&above, &name), built, "{peer:?}");
        assert_eq!(from(before), Vec::<String>::new(), "{peer:?}");
        let requests = peer.requests("lazy/above");
        let mounted = requests.iter().filter(|it| it.contains("mount=") && it.ends_with(" 201"));
        assert_eq!(mounted.count(), 2, "{peer:?}: {requests:?}");
        if let Some(fake) = peer.fake() {
            assert!(uploaded(fake, "lazy/above") < 64 * 1024, "{}", fake.log());
        }
        peer.assert_is_content();
    }
}

#[test]
fn an_image_whose_layers_are_elsewhere_is_listed_as_what_it_is() {
    let lazy = Lazy::start();
    lazy.build();
    let listed = lazy.image_ls();
    assert_eq!((&listed["complete"], &listed["damaged"]), (&false.into(), &false.into()));
    let size = listed["size"].as_u64().expect("size");
    let table = lazy.above.rbuild(["image", "ls"]).ok();
    assert!(table.stdout.contains("not fetched"), "{table}");
    assert_eq!(lazy.downloads(), 0);
    lazy.above.rbuild(["image", "save", "-o", "x.tar", "lazy:1"]).ok();
    let listed = lazy.image_ls();
    assert_eq!((&listed["complete"], &listed["size"]), (&true.into(), &size.into()));
    let table = lazy.above.rbuild(["image", "ls"]).ok();
    assert!(!table.stdout.contains("not fetched"), "{table}");
}

#[test]
fn what_is_elsewhere_comes_when_an_image_is_saved_or_copied() {
    let oci = ["image", "save", "--format", "oci", "-o", "out", "lazy:1"];
    for args in [
        &oci[..],
        &["image", "save", "--format", "oci", "-o", "out.tar", "lazy:1"],
        &["image", "save", "-o", "out.tar", "lazy:1"],
        &["image", "copy", "store:lazy:1", "oci:out"],
        &["image", "copy", "store:lazy:1", "oci:out.tar"],
        &["image", "copy", "store:lazy:1", "docker-archive:out.tar"],
        &["image", "copy", "store:lazy:1", "store:other:1"],
    ] {
        let lazy = Lazy::start();
        let built = lazy.build();
        let done = lazy.above.rbuild(args).ok();
        assert!(done.stderr.contains("pulling lazy:1"), "{done}");
        assert_eq!(lazy.downloads(), 2, "{args:?}: {}", lazy.registry.log());
        // It is here now.
        lazy.above.rbuild(oci).ok();
        assert_eq!(lazy.downloads(), 2, "{args:?}");
        let saved = blobs(&lazy.above.src().join("out"));
        assert!(saved.contains_key(built.trim_start_matches("sha256:")));
        assert_eq!(saved.len(), 4, "a manifest, a config, two layers");
        if args.contains(&"out.tar") {
            let loaded = sandbox(&[]);
            let file = lazy.above.src().join("out.tar").display().to_string();
            loaded.rbuild(["image", "load", "-i", &file]).ok();
        }
        lazy.registry.assert_was_asked_rightly();
    }
}

#[test]
fn what_is_elsewhere_goes_from_registry_to_registry() {
    for args in
        [&["image", "push", "OTHER"][..], &["image", "copy", "store:lazy:1", "docker://OTHER"]]
    {
        let (lazy, other) = (Lazy::start(), FakeRegistry::start());
        let built = lazy.build();
        let name = other.image("x:1");
        lazy.above.rbuild(["image", "tag", "lazy:1", &name]).ok();
        let args: Vec<String> = args.iter().map(|it| it.replace("OTHER", &name)).collect();
        lazy.above.rbuild(&args).ok();
        assert_eq!(other.tags("x"), [("1".to_owned(), built)]);
        assert_eq!(lazy.downloads(), 2, "{args:?}");
        // It is not kept on the way.
        assert_eq!(lazy.image_ls()["complete"], false);
        other.assert_is_whole();
        for registry in [&lazy.registry, &other] {
            registry.assert_was_asked_rightly();
        }
    }
}

#[test]
fn an_image_that_is_here_in_part_is_pulled_whole() {
    let lazy = Lazy::start();
    lazy.build();
    let pulled = lazy.above.rbuild(["image", "pull", &lazy.base]).ok();
    let (_, manifest) = lazy.registry.manifest("base", "1").expect("a manifest");
    assert_eq!(digest_of(pulled.line()), format!("sha256:{}", store::hex(&manifest)));
    assert_eq!(lazy.downloads(), 2);
    assert_eq!(lazy.image_ls()["complete"], true);
    lazy.above.rbuild(["image", "pull", &lazy.base]).ok();
    assert_eq!(lazy.downloads(), 2);
}

#[test]
fn what_cannot_be_had_any_more_is_said_by_the_name_of_its_base() {
    let lazy = Lazy::start();
    lazy.build();
    let repository = lazy.base.trim_end_matches(":1").to_owned();
    // Offline by wish, where a layer is needed.
    lazy.above.write("ctx/Dockerfile", format!("FROM {}\nCOPY hello /new\n", lazy.base));
    let build = ["image", "build", "--offline", "-t", "y", "ctx"];
    lazy.above.rbuild(build).go().fails(2, &[&repository, "registries are not asked", "--offline"]);
    let Lazy { registry, above, .. } = lazy;
    let other = FakeRegistry::start();
    let elsewhere = other.image("x:1");
    above.rbuild(["image", "tag", "lazy:1", &elsewhere]).ok();
    // The registry is there no more.
    drop(registry);
    for args in [
        &["image", "save", "-o", "out.tar", "lazy:1"][..],
        &["image", "save", "--format", "oci", "-o", "out", "lazy:1"],
        &["image", "copy", "store:lazy:1", "oci:out"],
        &["image", "copy", "store:lazy:1", &format!("docker://{elsewhere}")],
        &["image", "push", &elsewhere],
    ] {
        above.rbuild(args).go().fails(3, &[&repository, "is not in the store"]);
        assert!(!above.src().join("out.tar").exists(), "{args:?}");
    }
    assert_eq!(other.tags("x"), []);
}
