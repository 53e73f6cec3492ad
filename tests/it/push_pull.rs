//! Images go to registries that others wrote, and are read there by programs that others wrote.

use std::{collections::HashSet, fs, sync::Mutex};

use rbuild_tests::{
    Sandbox,
    http::{Answer, Request},
    namespace::Namespace,
    peers,
    servers::{Auth, Moto, Registry, Scripted, Tokens},
    store,
};

use crate::{build, digest_of, push, sandbox, sandbox_with_context};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

#[test]
fn a_pushed_image_is_what_others_read() {
    let sandbox = sandbox_with_context();
    let name = Registry::shared().image("read-by-others:1");
    let built = build(&sandbox, &name);
    assert_eq!(push(&sandbox, &name), built);
    assert_eq!(peers::skopeo_digest(&name), built);
    let (layout, bundle) = (sandbox.path().join("layout"), sandbox.path().join("bundle"));
    peers::skopeo_copy(&name, &layout, "");
    peers::umoci_unpack(&layout, &bundle);
    let hello = fs::read_to_string(bundle.join("rootfs/etc/hello")).unwrap();
    assert_eq!(hello, "hello\n");
}

#[test]
fn a_second_push_uploads_nothing() {
    let sandbox = sandbox_with_context();
    let registry = Registry::shared();
    let name = registry.image("pushed-twice:1");
    let built = build(&sandbox, &name);
    assert_eq!(push(&sandbox, &name), built);
    let uploads = || {
        let requests = registry.requests("pushed-twice").into_iter();
        requests.filter(|it| it.starts_with("POST ") || it.starts_with("PATCH ")).count()
    };
    let first = uploads();
    assert_eq!(first, 2, "a layer and a config: {:?}", registry.requests("pushed-twice"));
    assert_eq!(push(&sandbox, &name), built);
    assert_eq!(uploads(), first, "{:?}", registry.requests("pushed-twice"));
}

#[test]
fn a_blob_is_uploaded_by_one_post_and_one_put() {
    let sandbox = sandbox_with_context();
    let registry = Registry::shared();
    let name = registry.image("one-put:1");
    build(&sandbox, &name);
    push(&sandbox, &name);
    let requests = registry.requests("one-put");
    let count = |start: &str| requests.iter().filter(|it| it.starts_with(start)).count();
    let found = (count("POST "), count("PATCH "), count("PUT /v2/one-put/blobs/uploads/"));
    assert_eq!(found, (2, 0, 2), "{requests:?}");
}

#[test]
fn a_pull_into_an_empty_store_gives_the_same_image() {
    let (from, to) = (sandbox_with_context(), sandbox(&[]));
    let name = Registry::shared().image("pulled:1");
    let built = build(&from, &name);
    push(&from, &name);
    let pulled = to.rbuild(["image", "pull", &name]).ok();
    assert_eq!(digest_of(pulled.line()), built);
    assert_eq!(store::assert_every_blob_is_whole(&to.store()), 3, "manifest, config, layer");
    assert_same_image(&from, &to, &name);
}

#[test]
fn a_saved_image_is_loaded_elsewhere_as_the_same() {
    for path in ["saved", "saved.tar"] {
        let (from, to) = (sandbox_with_context(), sandbox(&[]));
        build(&from, "saved:1");
        let path = from.path().join(path).display().to_string();
        from.rbuild(["image", "save", "--format", "oci", "-o", &path, "saved:1"]).ok();
        to.rbuild(["image", "load", "-i", &path]).ok();
        assert_same_image(&from, &to, "saved:1");
    }
}

#[test]
fn a_saved_image_is_what_others_read() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "saved:latest");
    let (layout, bundle) = (sandbox.path().join("layout"), sandbox.path().join("bundle"));
    let path = layout.display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "saved:latest"]).ok();
    peers::umoci_unpack(&layout, &bundle);
    let hello = fs::read_to_string(bundle.join("rootfs/etc/hello")).unwrap();
    assert_eq!(hello, "hello\n");
}

#[test]
fn an_image_of_a_registry_is_built_upon() {
    let (base, sandbox) = (sandbox_with_context(), sandbox_with_context());
    let (below, above) =
        (Registry::shared().image("base:1"), Registry::shared().image("above/it:1"));
    build(&base, &below);
    push(&base, &below);
    let dockerfile = format!("FROM {below}\nCOPY hello /usr/share/more\n");
    sandbox.write("ctx/Dockerfile", dockerfile);
    let built = build(&sandbox, &above);
    assert_eq!(push(&sandbox, &above), built);
    let (layout, bundle) = (sandbox.path().join("layout"), sandbox.path().join("bundle"));
    peers::skopeo_copy(&above, &layout, "");
    peers::umoci_unpack(&layout, &bundle);
    for path in ["rootfs/etc/hello", "rootfs/usr/share/more"] {
        assert_eq!(fs::read_to_string(bundle.join(path)).unwrap(), "hello\n", "{path}");
    }
}

/// How many requests of each kind there were since `from`: manifests (HEAD, GET), blobs (HEAD, GET).
fn asked(registry: &Registry, repository: &str, from: usize) -> [usize; 4] {
    let requests = registry.requests(repository);
    let count = |method: &str, what: &str| {
        let start = format!("{method} /v2/{repository}/{what}/");
        requests[from..].iter().filter(|it| it.starts_with(&start)).count()
    };
    let [head, get] = ["HEAD", "GET"];
    [count(head, "manifests"), count(get, "manifests"), count(head, "blobs"), count(get, "blobs")]
}

#[test]
fn no_layer_of_a_base_is_downloaded_for_nothing() {
    let (base, sandbox) = (sandbox_with_context(), sandbox_with_context());
    let registry = Registry::shared();
    let (below, above) = (registry.image("lazy:1"), registry.image("above-lazy:1"));
    build(&base, &below);
    push(&base, &below);
    let built = |dockerfile: &str, want: [usize; 4]| {
        sandbox.write("ctx/Dockerfile", dockerfile.replace("BASE", &below));
        let from = registry.requests("lazy").len();
        build(&sandbox, &above);
        assert_eq!(asked(registry, "lazy", from), want, "{dockerfile}");
    };
    let config_alone = "FROM BASE\nENV A=1\nLABEL b=2\nCMD [\"/x\"]\n";
    // A tag, a manifest and a config; then what the tag points to now.
    built(config_alone, [1, 1, 0, 1]);
    built(config_alone, [1, 0, 0, 0]);
    // What is in the layer, once.
    let copy = "FROM BASE\nCOPY hello /app/\n";
    built(copy, [1, 0, 0, 1]);
    built(copy, [1, 0, 0, 0]);
    built("FROM BASE\nWORKDIR /w\nCOPY hello /etc/other\n", [1, 0, 0, 0]);
    // A file of it.
    built("FROM scratch\nCOPY --from=BASE /etc/hello /\n", [1, 0, 0, 1]);
    built("FROM scratch\nCOPY --from=BASE /etc/hello /\nENV A=1\n", [1, 0, 0, 0]);

    // What is built on it is pushed, with the layer that is not here.
    sandbox.write("ctx/Dockerfile", copy.replace("BASE", &below));
    let pushed = build(&sandbox, &above);
    assert_eq!(push(&sandbox, &above), pushed);
    assert_eq!(peers::skopeo_digest(&above), pushed);
}

/// A layer is cut while it is read: what comes then goes on where it stopped.
#[test]
fn a_layer_of_a_base_that_is_cut_is_read_on() {
    let base = sandbox_with_context();
    base.write(
        "ctx/hello",
        (0..300_000_u32).flat_map(|it| it.wrapping_mul(it).to_le_bytes()).collect::<Vec<_>>(),
    );
    let saved = base.path().join("saved");
    let digest = build(&base, "x:1");
    base.rbuild(["image", "save", "--format", "oci", "-o", &saved.display().to_string(), "x:1"])
        .ok();
    let blob = move |digest: &str| {
        fs::read(store::blobs(&saved).join(digest.trim_start_matches("sha256:"))).expect("blob")
    };
    let manifest = blob(&digest);
    let layers = serde_json::from_slice::<serde_json::Value>(&manifest).expect("manifest");
    let layer = layers["layers"][0]["digest"].as_str().expect("digest").to_owned();
    let seen = Mutex::new(HashSet::new());
    let of_manifest = digest.clone();
    let registry = Scripted::start(move |request| {
        let name = request.path.rsplit('/').next().expect("name");
        if request.path.contains("/manifests/") {
            return Answer::of(200, manifest.clone())
                .with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                .with("Docker-Content-Digest", &*of_manifest);
        }
        let bytes = blob(name);
        if name == layer && seen.lock().expect("memory").insert(name.to_owned()) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            return Answer::Raw([head.as_bytes(), &bytes[..bytes.len() / 2]].concat());
        }
        Answer::of(200, bytes)
    });
    let sandbox = sandbox(&[("ctx/Dockerfile", "")]);
    let dockerfile = format!("FROM scratch\nCOPY --from={}/x:1 /etc/hello /two\n", registry.host());
    sandbox.write("ctx/Dockerfile", dockerfile);
    build(&sandbox, "two:1");
    let layout = sandbox.path().join("layout");
    sandbox
        .rbuild(["image", "save", "--format", "oci", "-o", &layout.display().to_string(), "two:1"])
        .ok();
    let bundle = sandbox.path().join("bundle");
    peers::umoci_unpack(&layout, &bundle);
    let (one, two) = (base.src().join("ctx/hello"), bundle.join("rootfs/two"));
    assert_eq!(store::sha256(&two), store::sha256(&one));
    let tries = registry.asked().iter().filter(|it| it.path.contains("/blobs/")).count();
    assert!(3 <= tries, "a config, half a layer and a whole one");
}

#[test]
fn a_registry_with_a_password_gets_it_from_where_docker_keeps_it() {
    let registry = Registry::start(Auth::Basic("me", "secret"));
    let name = registry.image("private:1");
    let sandbox = sandbox_with_context();
    let built = build(&sandbox, &name);
    log_in(&sandbox, &registry.host(), "bWU6d3Jvbmc=");
    sandbox.rbuild(["image", "push", &name]).go().fails(3, &["401"]);
    log_in(&sandbox, &registry.host(), "bWU6c2VjcmV0");
    assert_eq!(push(&sandbox, &name), built);
    peers::skopeo_copy(&name, &sandbox.path().join("layout"), "me:secret");
}

#[test]
fn a_registry_that_sends_to_a_token_server_gets_a_token() {
    let tokens = Tokens::start("me", "secret");
    let registry = Registry::start(Auth::Bearer(&tokens));
    let name = registry.image("team/private:1");
    let (from, to) = (sandbox_with_context(), sandbox(&[]));
    let built = build(&from, &name);
    from.rbuild(["image", "push", &name]).go().fails(3, &["401"]);
    assert_eq!(tokens.given(), 0);
    log_in(&from, &registry.host(), "bWU6c2VjcmV0");
    assert_eq!(push(&from, &name), built);
    assert_ne!(tokens.given(), 0);
    log_in(&to, &registry.host(), "bWU6c2VjcmV0");
    let pulled = to.rbuild(["image", "pull", &name]).ok();
    assert_eq!(digest_of(pulled.line()), built);
    peers::skopeo_copy(&name, &from.path().join("layout"), "me:secret");
}

/// The first of each request fails, in one of the ways that pass.
#[test]
fn a_push_goes_on_after_failures_that_pass() {
    for failure in [
        Answer::of(503, "busy"),
        Answer::of(429, "slowly").with("Retry-After", "0"),
        Answer::Raw(Vec::new()),
    ] {
        let seen = Mutex::new(HashSet::new());
        let what = format!("{failure:?}");
        let registry = Scripted::start(move |request| {
            let is_first = seen.lock().expect("memory").insert(identity(request));
            if is_first { failure.clone() } else { accept(request) }
        });
        let sandbox = sandbox_with_context();
        let name = format!("{}/x:1", registry.host());
        let built = build(&sandbox, &name);
        assert_eq!(push(&sandbox, &name), built, "{what}");
        let asked = registry.asked();
        let uploads = asked.iter().filter(|it| it.method == "PUT" && it.query.contains("digest="));
        let whole = uploads.filter(|it| it.query.contains(&store::hex(&it.body)));
        assert!(2 <= whole.count(), "a layer and a config: {what}");
        let manifest = asked.iter().rfind(|it| it.path == "/v2/x/manifests/1").expect("manifest");
        assert_eq!(format!("sha256:{}", store::hex(&manifest.body)), built, "{what}");
    }
}

fn identity(request: &Request) -> String {
    let Request { method, path, query, .. } = request;
    format!("{method} {path} {query}")
}

/// What a registry answers that has nothing yet and accepts everything.
fn accept(request: &Request) -> Answer {
    match &*request.method {
        "POST" => Answer::of(202, "").with("Location", "/v2/x/blobs/uploads/1?state=s"),
        "PUT" => Answer::of(201, ""),
        _ => Answer::of(404, "{}"),
    }
}

/// In a network of its own a registry answers on port 80 of the host that ECR would have, and
/// accepts only the password that AWS's API (moto's) gives for a token.
#[test]
fn ecr_is_recognised_and_gets_the_password_that_aws_gives() {
    let sandbox = sandbox_with_context();
    let hosts = sandbox.write("../hosts", format!("127.0.0.1 localhost {ECR}\n"));
    let namespace = Namespace::new(&format!("mount --bind {} /etc/hosts", hosts.display()));
    let inside = namespace.enter(&sandbox.src().display().to_string());
    let moto = Moto::start_in(&namespace);
    let script = "print(client('ecr').get_authorization_token()['authorizationData'][0]\
                  ['authorizationToken'])";
    let token = moto.python(&sandbox, script, &[]).under(&inside).ok();
    let token = decoded(token.line());
    let (user, password) = token.split_once(':').expect("user and password");
    assert_eq!(user, "AWS");
    let _registry = Registry::start_in(&namespace, 80, Auth::Basic(user, password));
    let name = format!("{ECR}/shop:1");
    let built = build(&sandbox, &name);

    let args = ["image", "push", &name, "--insecure-registry", ECR];
    let pushed = moto.known_to(sandbox.rbuild(args)).under(&inside).ok();
    assert_eq!(digest_of(pushed.line()), built);

    let no_keys = sandbox.rbuild(args).env("AWS_EC2_METADATA_DISABLED", "true").under(&inside);
    no_keys.env("AWS_REGION", "eu-west-1").go().fails(3, &["credentials"]);
    assert!(!on_disk(&sandbox, password), "the token of ECR is kept in memory alone");
}

/// Writes the credentials (`user:password` in base64) to where docker keeps them.
fn log_in(sandbox: &Sandbox, host: &str, auth: &str) {
    let config = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}");
    sandbox.write("../home/.docker/config.json", config);
}

fn decoded(text: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let bytes = BASE64_STANDARD.decode(text).expect("base64");
    String::from_utf8(bytes).expect("text")
}

/// Whether some file of the home folder or the store has `text` in it.
fn on_disk(sandbox: &Sandbox, text: &str) -> bool {
    let folders = [sandbox.home(), sandbox.store(), sandbox.path().join("tmp")];
    let files = folders.iter().flat_map(|it| store::files(it));
    let contents = files.filter_map(|it| fs::read(it).ok());
    contents.into_iter().any(|it| String::from_utf8_lossy(&it).contains(text))
}

/// Asserts that both stores have the same image under a name.
#[track_caller]
fn assert_same_image(one: &Sandbox, other: &Sandbox, name: &str) {
    let [one, other] = [one, other].map(|it| {
        let saved = it.path().join("compared");
        let path = saved.display().to_string();
        it.rbuild(["image", "save", "--format", "oci", "-o", &path, name]).ok();
        store::assert_every_blob_is_whole(&saved);
        store::files(&store::blobs(&saved))
            .into_iter()
            .map(|it| it.file_name().expect("name of a blob").to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(one, other);
}
