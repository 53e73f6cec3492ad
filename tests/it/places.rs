//! Where images come from and go to: mounts, pushes that begin with the build, downloads that go
//! on, mirrors, certificates, proxies, logins.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rbuild_tests::{
    Sandbox,
    http::{Answer, Request},
    peers,
    servers::{Auth, Registry, Scripted},
    store,
};

use crate::{EPOCH, build, digest_of, push, sandbox, sandbox_with_context};

#[test]
fn a_layer_of_a_base_is_mounted_from_its_repository() {
    let (base, sandbox) = (sandbox_with_context(), sandbox_with_context());
    let registry = Registry::shared();
    let (below, above) = (registry.image("mount/base:1"), registry.image("mount/above:1"));
    build(&base, &below);
    push(&base, &below);
    sandbox.write("ctx/Dockerfile", format!("FROM {below}\nCOPY hello /usr/share/more\n"));
    let built = build(&sandbox, &above);
    let pushed = sandbox.rbuild(["image", "push", "--json", &above]).ok();
    let report: serde_json::Value = serde_json::from_str(pushed.line()).expect("JSON");
    assert_eq!(report["digest"], built);
    let outcomes: Vec<&str> = report["blobs"]
        .as_array()
        .expect("blobs")
        .iter()
        .map(|it| it["outcome"].as_str().expect("outcome"))
        .collect();
    let count = |what: &str| outcomes.iter().filter(|it| **it == what).count();
    assert_eq!((count("mounted"), count("carried")), (1, 2), "{report}");
    let requests = registry.requests("mount/above");
    let mounts = requests.iter().filter(|it| it.contains("mount=") && it.ends_with(" 201"));
    assert_eq!(mounts.count(), 1, "{requests:?}");
    peers::skopeo_copy(&above, &sandbox.path().join("layout"), "");
}

#[test]
fn another_tag_of_what_is_there_takes_three_requests() {
    let sandbox = sandbox_with_context();
    let registry = Registry::shared();
    let (one, two) = (registry.image("tags:1"), registry.image("tags:2"));
    build(&sandbox, &one);
    push(&sandbox, &one);
    sandbox.rbuild(["image", "tag", &one, &two]).ok();
    let before = registry.requests("tags").len();
    push(&sandbox, &two);
    let after = registry.requests("tags");
    assert!(after.len() - before <= 3, "{:?}", &after[before..]);
    push(&sandbox, &two);
    assert_eq!(registry.requests("tags").len(), after.len() + 1);
}

#[test]
fn a_build_pushes_all_its_names() {
    let sandbox = sandbox_with_context();
    let registry = Registry::shared();
    let (one, two) = (registry.image("pushing:1"), registry.image("pushing/two:2"));
    let args = ["image", "build", "--push", "-t", &one, "-t", &two, "ctx"];
    let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok();
    let lines: Vec<&str> = built.stdout.lines().collect();
    let [first, second] = lines[..] else { panic!("{lines:?}") };
    assert!(first.starts_with(one.trim_end_matches(":1")), "{first}");
    for (line, name) in [(first, &one), (second, &two)] {
        assert_eq!(digest_of(line), peers::skopeo_digest(name));
    }
}

#[test]
fn a_credential_that_will_not_do_is_told_before_the_build() {
    let registry = Registry::start(Auth::Basic("me", "secret"));
    let sandbox = sandbox_with_context();
    let name = registry.image("early:1");
    let args = ["image", "build", "--push", "-t", &name, "ctx"];
    let run = sandbox.rbuild(args).go();
    run.fails(3, &["401", "rbuild login"]);
    assert!(!run.stderr.contains("COPY"), "{}", run.stderr);
    sandbox.rbuild(["image", "build", "--push", "ctx"]).go().fails(2, &["--tag"]);
}

/// Serves an OCI layout as the repository `x`; `layer` answers for its largest blob.
fn serve(
    layout: PathBuf,
    layer: impl Fn(&Request, &[u8]) -> Answer + Send + Sync + 'static,
) -> Scripted {
    let index = fs::read(layout.join("index.json")).expect("index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let manifest = index["manifests"][0].clone();
    let text = move |key: &str| manifest[key].as_str().expect("text").to_owned();
    let blob = move |digest: &str| fs::read(store::blobs(&layout).join(digest)).ok();
    Scripted::start(move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let name = name.trim_start_matches("sha256:");
        let digest = text("digest");
        if request.path.contains("/manifests/") {
            let bytes = blob(digest.trim_start_matches("sha256:")).expect("manifest");
            let answer = Answer::of(200, bytes).with("Content-Type", text("mediaType"));
            return answer.with("Docker-Content-Digest", digest);
        }
        match blob(name) {
            Some(bytes) if 100_000 < bytes.len() => layer(request, &bytes),
            Some(bytes) => Answer::of(200, bytes),
            None => Answer::of(404, "{}"),
        }
    })
}

/// A layout with a layer of some 300,000 bytes that do not get smaller, and its digest.
fn large(sandbox: &Sandbox) -> (PathBuf, String) {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..300_000).map(|_| next()).collect();
    sandbox.write("ctx/hello", noise);
    let built = build(sandbox, "large:1");
    let layout = sandbox.path().join("large");
    let path = layout.display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "large:1"]).ok();
    (layout, built)
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_ended() {
    let (from, to) = (sandbox_with_context(), sandbox(&[]));
    let (layout, built) = large(&from);
    let ranges = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&ranges);
    let registry = serve(layout, move |request, bytes| {
        let range = request.header("range").unwrap_or("bytes=0-").to_owned();
        let start: usize = range["bytes=".len()..].trim_end_matches('-').parse().expect("start");
        seen.lock().expect("memory").push(start);
        let end = bytes.len().min(start + 120_000);
        let status = if start == 0 { 200 } else { 206 };
        let head = format!(
            "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            bytes.len() - start
        );
        Answer::Raw([head.as_bytes(), &bytes[start..end]].concat())
    });
    let pulled = to.rbuild(["image", "pull", &format!("{}/x:1", registry.host())]).ok();
    assert_eq!(digest_of(pulled.line()), built);
    let ranges = ranges.lock().expect("memory");
    assert_eq!(ranges[0], 0);
    assert!(ranges.windows(2).all(|it| it[0] < it[1]) && 2 < ranges.len(), "{ranges:?}");
    store::assert_every_blob_is_whole(&to.store());
}

#[test]
fn a_mirror_is_pulled_from_and_what_is_blocked_is_not() {
    let (from, to) = (sandbox_with_context(), sandbox(&[]));
    let registry = Registry::shared();
    let built = build(&from, &registry.image("mirrored/x:1"));
    push(&from, &registry.image("mirrored/x:1"));
    let mirror = format!("upstream.example.com={}/mirrored", registry.host());
    let args = ["image", "pull", "--registry-mirror", &mirror, "upstream.example.com/x:1"];
    assert_eq!(digest_of(to.rbuild(args).ok().line()), built);

    let config = format!(
        "[[registry]]\nprefix = \"other.example.com\"\nlater = 1\n[[registry.mirror]]\n\
         location = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{}/mirrored\"\n\
         [[registry]]\nlocation = \"bad.example.com\"\nblocked = true\n",
        registry.host()
    );
    let config = to.write("../registries.conf", config);
    let pull =
        |name: &str| to.rbuild(["image", "pull", name]).env("CONTAINERS_REGISTRIES_CONF", &config);
    let pulled = pull("other.example.com/x:1").ok();
    assert_eq!(digest_of(pulled.line()), built);
    for told in ["`registry.later` is not known", "mirror `127.0.0.1:1` is passed over"] {
        assert!(pulled.stderr.contains(told), "{}", pulled.stderr);
    }
    pull("bad.example.com/x:1").go().fails(2, &["blocked"]);
}

/// A CA and a certificate for 127.0.0.1 that it signed: `ca.crt`, `server.crt`, `server.key`.
fn certificates(folder: &Path) {
    fs::create_dir_all(folder).expect("folder");
    let file = |name: &str| folder.join(name).display().to_string();
    let openssl = |args: &[&str]| {
        peers::run("openssl", "openssl", args);
    };
    let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
    let (request, key, server) = (file("server.csr"), file("server.key"), file("server.crt"));
    let new = ["req", "-newkey", "rsa:2048", "-nodes"];
    openssl(
        &[
            &new[..],
            &["-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", &ca_key, "-out", &ca],
        ]
        .concat(),
    );
    openssl(&[&new[..], &["-subj", "/CN=server", "-keyout", &key, "-out", &request]].concat());
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").expect("extension");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &file("ext"),
        "-out",
        &server,
    ]);
}

#[test]
fn a_registry_is_trusted_by_its_own_ca() {
    let sandbox = sandbox_with_context();
    let folder = sandbox.path().join("certificates");
    certificates(&folder);
    let registry = Registry::start_with_tls(&folder.join("server.crt"), &folder.join("server.key"));
    let name = registry.image("tls:1");
    let built = build(&sandbox, &name);
    let push = || sandbox.rbuild(["image", "push", &name]);
    // This machine is spoken to with TLS if it has certificates of its own.
    push().go().fails(2, &["HTTPS server", "certs.d"]);
    let own = sandbox.home().join(".config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&own).expect("folder");
    push().go().fails(3, &["TLS", "--registry-ca"]);
    fs::copy(folder.join("ca.crt"), own.join("ca.crt")).expect("certificate");
    assert_eq!(digest_of(push().ok().line()), built);
    fs::remove_file(own.join("ca.crt")).expect("certificate");
    let ca = folder.join("ca.crt").display().to_string();
    let args = ["image", "push", "--registry-ca", &ca, &name];
    assert_eq!(digest_of(sandbox.rbuild(args).ok().line()), built);
    let args = ["image", "push", "--registry-ca", "ctx/hello", &name];
    sandbox.rbuild(args).go().fails(2, &["ctx/hello", "no certificate"]);
}

#[test]
fn a_registry_may_want_a_certificate_of_ours() {
    let sandbox = sandbox_with_context();
    let folder = sandbox.path().join("certificates");
    certificates(&folder);
    let [ca, certificate, key] = ["ca.crt", "server.crt", "server.key"].map(|it| folder.join(it));
    let registry = Registry::start_with_mutual_tls(&certificate, &key, &ca);
    let name = registry.image("tls:1");
    let built = build(&sandbox, &name);
    let own = sandbox.home().join(".config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&own).expect("folder");
    let put = |from: &Path, name: &str| fs::copy(from, own.join(name)).expect("certificate");
    put(&ca, "ca.crt");
    let push = || sandbox.rbuild(["image", "push", &name]);
    push().go().fails(3, &[&registry.host()]);
    put(&certificate, "client.cert");
    push().go().fails(2, &["client.key"]);
    put(&key, "client.key");
    assert_eq!(digest_of(push().ok().line()), built);
}

#[test]
fn a_proxy_is_used_but_for_this_machine_and_what_it_is_not_for() {
    let sandbox = sandbox(&[]);
    let proxy = Scripted::start(|_| Answer::of(404, "{}"));
    let pull = || {
        let name = "registry.invalid/x:1";
        let args = ["image", "pull", "--insecure-registry", "registry.invalid", name];
        sandbox.rbuild(args).env("HTTP_PROXY", format!("http://{}", proxy.host()))
    };
    pull().go().fails(2, &["no image"]);
    let asked: Vec<String> = proxy.asked().into_iter().map(|it| it.path).collect();
    assert_eq!(asked, ["http://registry.invalid/v2/x/manifests/1"]);
    pull().env("NO_PROXY", "registry.invalid").go().fails(3, &["cannot be reached"]);
    let near = Scripted::start(|_| Answer::of(404, "{}"));
    let near_pull = sandbox.rbuild(["image", "pull", &format!("{}/x:1", near.host())]);
    near_pull.env("HTTP_PROXY", format!("http://{}", proxy.host())).go().fails(2, &["no image"]);
    assert_eq!((proxy.asked().len(), near.asked().len()), (1, 1));
}

#[test]
fn a_login_is_tried_kept_and_forgotten() {
    let registry = Registry::start(Auth::Basic("me", "secret"));
    let (host, name) = (registry.host(), registry.image("logged-in:1"));
    let sandbox = sandbox_with_context();
    build(&sandbox, &name);
    let config = sandbox.home().join(".docker/config.json");
    let log_in = |password: &str| {
        let args = ["login", "-u", "me", "--password-stdin", &host];
        sandbox.rbuild(args).input(format!("{password}\n"))
    };
    log_in("wrong").go().fails(3, &["401"]);
    assert!(!config.exists());
    sandbox
        .write("../home/.docker/config.json", "{\"psFormat\": \"x\", \"auths\": {\"a.com\": {}}}");
    log_in("secret").ok();
    let text = fs::read_to_string(&config).expect("config");
    assert!(
        text.starts_with("{\n\t\"psFormat\": \"x\"") && text.contains("\"a.com\": {}"),
        "{text}"
    );
    assert_eq!(fs::metadata(&config).expect("config").permissions().mode() & 0o777, 0o600);
    push(&sandbox, &name);
    sandbox.rbuild(["logout", &host]).ok();
    assert!(!fs::read_to_string(&config).expect("config").contains(&host));
    let again = sandbox.rbuild(["image", "pull", &name]).go();
    again.fails(3, &["401", "rbuild login"]);
}

#[test]
fn a_credential_helper_keeps_what_it_is_given() {
    let registry = Registry::start(Auth::Basic("me", "secret"));
    let (host, name) = (registry.host(), registry.image("helped:1"));
    let sandbox = sandbox_with_context();
    build(&sandbox, &name);
    let helper = "#!/bin/sh\nset -e\nfile=$HOME/kept\ncase $1 in\n\
                  store) cat >$file ;;\n\
                  get) cat >/dev/null; cat $file 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;\n\
                  erase) cat >/dev/null; rm -f $file ;;\nesac\n";
    let program = sandbox.write("../bin/docker-credential-test", helper);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let path = format!("{}:/usr/bin:/bin", program.parent().expect("folder").display());
    sandbox.write("../home/.docker/config.json", "{\"credsStore\": \"test\"}");
    let run = |args: &[&str]| sandbox.rbuild(args).env("PATH", &path);
    run(&["image", "push", &name]).go().fails(3, &["401"]);
    run(&["login", "-u", "me", "--password-stdin", &host]).input("secret").ok();
    let config = fs::read_to_string(sandbox.home().join(".docker/config.json")).expect("config");
    assert!(config.contains(&host) && !config.contains("bWU6"), "{config}");
    run(&["image", "push", &name]).ok();
    run(&["logout", &host]).ok();
    assert!(!sandbox.home().join("kept").exists());
    run(&["image", "pull", &name]).go().fails(3, &["401"]);
}
