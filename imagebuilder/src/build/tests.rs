//! What a build does, seen from outside: files and a Dockerfile in, an image in the store out.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use expect_test::{Expect, expect};

use super::*;
use crate::{
    dockerfile::Dockerfile,
    image::Layer,
    patterns::Ignore,
    rootfs::Rootfs,
    steps,
    store::{Composed, ObjectKind},
    tree::{Kind, Meta},
};

/// A context and a store, and what is built from them.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    args: BTreeMap<String, String>,
    bases: BTreeMap<Base, Digest>,
    epoch: Option<i64>,
    now: i64,
    cache: Cache,
    remote: Option<Remote>,
}

/// Layers that lie elsewhere.
#[derive(Default)]
struct Remote {
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// What was opened.
    opened: std::sync::Mutex<Vec<Digest>>,
}

impl RemoteLayers for Remote {
    fn has(&self, layer: &Layer) -> bool {
        self.blobs.contains_key(&layer.digest)
    }

    fn open<'a>(
        &'a self,
        layer: &Layer,
    ) -> Result<Box<dyn std::io::Read + Send + 'a>, RemoteError> {
        self.opened.lock().unwrap().push(layer.digest);
        Ok(Box::new(self.blobs[&layer.digest].as_slice()))
    }
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let bench = Self {
            folder,
            store,
            args: BTreeMap::new(),
            bases: BTreeMap::new(),
            epoch: Some(0),
            now: 1000,
            cache: Cache::Use,
            remote: None,
        };
        fs::create_dir(bench.context()).unwrap();
        for (path, content) in files {
            bench.write(path, content);
        }
        bench
    }

    /// As if another process went on.
    fn reopen(&mut self) {
        self.store = Store::open(&self.folder.path().join("store")).unwrap();
    }

    fn context(&self) -> std::path::PathBuf {
        self.folder.path().join("context")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        set_modes(&self.context());
    }

    fn build(&self, dockerfile: &str) -> Result<Built, BuildError> {
        let dockerfile = Dockerfile::parse(dockerfile.as_bytes()).unwrap();
        let platform = Platform::linux("x86_64");
        let plan = steps::plan(
            &dockerfile,
            &steps::Inputs {
                build_args: self.args.clone(),
                target: None,
                platform: platform.clone(),
            },
        )
        .unwrap();
        let ignore = fs::read_to_string(self.context().join(".dockerignore")).unwrap_or_default();
        let ignore = Ignore::parse(&ignore).unwrap();
        let context = Context::open_folder(&self.context(), ignore).unwrap();
        let inputs = Inputs {
            plan: &plan,
            context: &context,
            store: &self.store,
            remote: self.remote.as_ref().map(|it| it as &dyn RemoteLayers),
            bases: &self.bases,
            build_args: &self.args,
            platform: &platform,
            layers: crate::layer::Options::default(),
            format: crate::image::Format::Oci,
            uploads: None,
            cache: self.cache,
            epoch: self.epoch,
            now: self.now,
        };
        build(&inputs, &mut |_| ())
    }

    fn rootfs(&self, built: &Built) -> Rootfs {
        Rootfs::read(&self.store, &built.image.layers).unwrap()
    }

    #[track_caller]
    fn check(&self, dockerfile: &str, want: Expect) {
        want.assert_eq(&match self.build(dockerfile) {
            Ok(built) => list(&self.rootfs(&built)),
            Err(err) => format!("{err}\n"),
        });
    }
}

/// The same modes whatever the umask is.
fn set_modes(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if path.is_dir() {
            set_modes(&path);
        }
    }
}

fn list(rootfs: &Rootfs) -> String {
    let mut text = String::new();
    for (path, entry) in rootfs.tree().entries() {
        let Meta { mode, uid, gid, .. } = entry.meta;
        let what = match &entry.kind {
            Kind::Folder => "/".to_owned(),
            Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
            _ => String::new(),
        };
        writeln!(text, "{path}{what} {mode:o} {uid}:{gid}").unwrap();
    }
    text
}

#[test]
fn copy_takes_files_folders_and_patterns() {
    let bench = Bench::new(&[("a.txt", "a"), ("b.txt", "b"), ("d/e/f", "f"), ("d/g", "g")]);
    bench.check(
        "FROM scratch\nCOPY a.txt /x\n",
        expect![[r#"
        x 644 0:0
    "#]],
    );
    bench.check(
        "FROM scratch\nWORKDIR /app\nCOPY *.txt ./\nCOPY d .\n",
        expect![[r#"
        app/ 755 0:0
        app/a.txt 644 0:0
        app/b.txt 644 0:0
        app/e/ 755 0:0
        app/e/f 644 0:0
        app/g 644 0:0
    "#]],
    );
    bench.check(
        "FROM scratch\nCOPY --chown=7:8 --chmod=700 d/* /x/\n",
        expect![[r#"
        x/ 755 7:8
        x/f 700 7:8
        x/g 700 7:8
    "#]],
    );
    bench.check(
        "FROM scratch\nCOPY [\"a.txt\", \"with space/\"]\n",
        expect![[r#"
        with space/ 755 0:0
        with space/a.txt 644 0:0
    "#]],
    );
}

#[test]
fn what_cannot_be_copied_is_said() {
    let bench = Bench::new(&[
        ("a", "a"),
        ("secret", "s"),
        (".dockerignore", "secret\n"),
        ("x.tar.gz", "\x1f\u{8b}"),
    ]);
    fs::write(bench.context().join("x.tar.gz"), b"\x1f\x8b\x08").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.context().join("out")).unwrap();
    for (line, want) in [
        ("COPY missing /", "`missing` is not in the build context"),
        ("COPY secret /", "`secret` is kept out of the build context by `.dockerignore`"),
        ("COPY ../missing /", "`../missing` is not in the build context"),
        (
            "COPY --chown=4294967295 a /",
            "there is no user `4294967295` in the image's `/etc/passwd`",
        ),
        (
            "COPY out /",
            "`out` leads outside of the build context: the link `out` points to `/etc/passwd`",
        ),
        ("COPY a secre[ /", "`secre[` is not a pattern"),
        (
            "COPY --chmod=u+x a /",
            "`u+x` is not an octal mode from 0 to 7777, and other forms are not supported yet",
        ),
        ("COPY --chown=web a /", "there is no user `web` in the image's `/etc/passwd`"),
        ("COPY $NOTHING /", "`$NOTHING` is empty once its variables are replaced"),
        (
            "ADD x.tar.gz /",
            "`ADD` of `x.tar.gz`, which looks like an archive, is not supported yet",
        ),
        ("STOPSIGNAL SIGNAL", "`SIGNAL` is not the name or the number of a signal"),
        ("EXPOSE 70000", "`70000` is not a port: ports are numbers from 0 to 65535"),
    ] {
        let error = bench.build(&format!("FROM scratch\n{line}\n")).unwrap_err();
        assert_eq!(error.to_string(), want, "for `{line}`");
        assert_eq!(error.place.map(|it| it.line), Some(2), "for `{line}`");
    }
}

#[test]
fn a_pattern_may_match_nothing() {
    let bench = Bench::new(&[("package.json", "{}")]);
    bench.check(
        "FROM scratch\nCOPY package.json yarn.lock* ./\n",
        expect![[r#"
        package.json 644 0:0
    "#]],
    );
    let built = bench.build("FROM scratch\nCOPY *.md /docs/\n").unwrap();
    assert_eq!(built.image.layers, []);
}

#[test]
fn exceptions_below_an_ignored_folder_are_found() {
    let ignore = "*\n!src/keep\n";
    let bench = Bench::new(&[
        ("src/keep", "k"),
        ("src/drop", "d"),
        ("other/x", "x"),
        (".dockerignore", ignore),
    ]);
    for line in ["COPY src /out", "COPY s* /out", "COPY . /"] {
        let built = bench.build(&format!("FROM scratch\n{line}\n")).unwrap();
        let text = list(&bench.rootfs(&built));
        assert!(text.contains("/keep 644") && !text.contains("drop"), "for `{line}`: {text}");
    }
    let error = bench.build("FROM scratch\nCOPY other /\n").unwrap_err();
    assert_eq!(error.to_string(), "`other` is kept out of the build context by `.dockerignore`");
}

#[test]
fn a_link_is_kept_out_by_its_own_name() {
    let bench = Bench::new(&[("a", "a"), (".dockerignore", "link\n")]);
    std::os::unix::fs::symlink("a", bench.context().join("link")).unwrap();
    assert!(bench.build("FROM scratch\nCOPY link /\n").is_err());
}

#[test]
fn arguments_are_inherited_with_the_stage() {
    let bench = Bench::new(&[]);
    let text = "FROM scratch AS base\nARG NAME=joe\nFROM base\nLABEL who=$NAME\n";
    let built = bench.build(text).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&built.image.config_bytes).unwrap();
    assert_eq!(config["config"]["Labels"]["who"], "joe");
}

/// Adds an image with one layer that holds these entries: folders end in a slash, links have
/// ` -> `; parents are as they are given.
fn base_of(bench: &Bench, entries: &[&str]) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(0);
        let (name, link) = entry.split_once(" -> ").unwrap_or((entry, ""));
        let kind = match (link, name.ends_with('/')) {
            ("", true) => tar::EntryType::Directory,
            ("", false) => tar::EntryType::Regular,
            _ => tar::EntryType::Symlink,
        };
        header.set_entry_type(kind);
        match link {
            "" => tar.append_data(&mut header, name, std::io::empty()).unwrap(),
            link => tar.append_link(&mut header, name, link).unwrap(),
        }
    }
    let blob = bench.store.write_blob(&tar.into_inner().unwrap()).unwrap();
    let media_type = crate::image::OCI_LAYER.to_owned();
    Layer { media_type, digest: blob.digest, size: blob.size, diff_id: blob.digest }
}

#[test]
fn layers_as_others_write_them_are_understood() {
    let bench = Bench::new(&[]);
    let show = |layers: &[&[&str]]| {
        let layers: Vec<Layer> = layers.iter().map(|it| base_of(&bench, it)).collect();
        Rootfs::read(&bench.store, &layers).map(|it| list(&it)).map_err(|it| it.to_string())
    };
    // No entries for parents.
    assert_eq!(
        show(&[&["app/bin/x"]]).unwrap(),
        "app/ 755 0:0\napp/bin/ 755 0:0\napp/bin/x 755 0:0\n"
    );
    // A folder of an upper layer lies behind a link of a lower one.
    let got =
        show(&[&["usr/", "usr/lib/", "lib -> usr/lib"], &["lib/arch/", "lib/arch/f"]]).unwrap();
    assert!(got.contains("usr/lib/arch/f 755"), "{got}");
    // Whiteouts, and such as name no file.
    let got = show(&[&["a/", "a/x", "a/y", "b"], &["a/.wh.x", ".wh.b"]]).unwrap();
    assert_eq!(got, "a/ 755 0:0\na/y 755 0:0\n");
    let got = show(&[&["a/", "a/x"], &["a/.wh..wh..opq", "a/z"]]).unwrap();
    assert_eq!(got, "a/ 755 0:0\na/z 755 0:0\n");
    assert!(show(&[&["a/.wh."]]).is_err() && show(&[&["a/.wh..."]]).is_err());
}

#[test]
fn the_root_of_a_stage_is_copied_with_its_hard_links() {
    let bench = Bench::new(&[("d/a", "a")]);
    fs::hard_link(bench.context().join("d/a"), bench.context().join("d/b")).unwrap();
    let built =
        bench.build("FROM scratch AS s\nCOPY d /q\nFROM scratch\nCOPY --from=s / /\n").unwrap();
    bench.check(
        "FROM scratch AS s\nCOPY d /q\nFROM scratch\nCOPY --from=s / /\n",
        expect![[r#"
        q/ 755 0:0
        q/a 644 0:0
        q/b 644 0:0
    "#]],
    );
    let first = bench.build("FROM scratch\nCOPY d /q\n").unwrap();
    assert_eq!(built.image.layers[0].diff_id, first.image.layers[0].diff_id);
}

#[test]
fn the_last_of_env_and_arg_counts() {
    let mut bench = Bench::new(&[]);
    bench.args.insert("Y".into(), "given".into());
    let built = bench
        .build(
            "FROM scratch\nENV X=env Y=env\nARG X=arg\nARG Y\nARG Z=1\nARG Z\nLABEL l=$X-$Y-$Z\n",
        )
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&built.image.config_bytes).unwrap();
    assert_eq!(config["config"]["Labels"]["l"], "arg-given-1");
    assert_eq!(config["config"]["Env"][1], "X=env");
}

#[test]
fn a_file_that_would_remove_another_is_refused() {
    let bench = Bench::new(&[("d/.wh.x", "")]);
    let error = bench.build("FROM scratch\nCOPY d /\n").unwrap_err();
    assert!(error.to_string().contains("names that begin with `.wh.`"), "{error}");
}

#[test]
fn values_cannot_grow_without_bound() {
    let bench = Bench::new(&[]);
    let mut text = format!("FROM scratch\nENV A={}\n", "x".repeat(1 << 16));
    for _ in 0..200 {
        text += "ENV B=$A\n";
    }
    let error = bench.build(&text).unwrap_err();
    assert!(matches!(error.kind, BuildErrorKind::LargeValues), "{error}");
}

/// Changes a byte of the first segment of a layer, in whichever file of the store it lies.
fn damage(store: &Store, layer: Digest) {
    let composed = store.object(ObjectKind::Composed, layer).unwrap().unwrap();
    let segment = Composed::parse(&composed).unwrap().segments().next().unwrap();
    let bytes = store.object(ObjectKind::Segment, segment).unwrap().unwrap();
    let mut folders = vec![store.root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut content = fs::read(&path).unwrap();
            if let Some(place) = content.windows(bytes.len()).position(|it| it == bytes) {
                content[place + 20] ^= 1;
                return fs::write(&path, content).unwrap();
            }
        }
    }
    panic!("the segment is in no file");
}

#[test]
fn a_damaged_layer_is_made_again_once_it_was_noticed() {
    let bench = Bench::new(&[("a", "a")]);
    let dockerfile = "FROM scratch AS s\nCOPY a /\nFROM scratch\nCOPY --from=s /a /b\n";
    let first = bench.build(dockerfile).unwrap();
    let damaged = bench.build("FROM scratch\nCOPY a /\n").unwrap().image.layers[0].digest;
    damage(&bench.store, damaged);
    let other = dockerfile.replace("/b", "/c");
    assert!(bench.build(&other).is_err(), "what is copied comes from the damaged layer");
    bench.build(&other).unwrap();
    assert_eq!(bench.build(dockerfile).unwrap().image.digest(), first.image.digest());
}

/// Changes a byte of every object of a kind. How many there are.
fn damage_all(store: &Store, kind: ObjectKind) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(store.root().join("packs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "idx") {
            continue;
        }
        let index = crate::store::index::Index::parse(fs::read(&path).unwrap()).unwrap();
        let pack = path.with_extension("pack");
        let mut bytes = fs::read(&pack).unwrap();
        for entry in index.entries().filter(|it| it.kind == kind) {
            bytes[usize::try_from(entry.offset).unwrap()] ^= 1;
            count += 1;
        }
        fs::write(pack, bytes).unwrap();
    }
    count
}

/// How many of the layers of an image can be read.
fn readable(store: &Store, built: &Built) -> usize {
    let layers = built.image.layers.iter();
    layers.filter(|it| store.read_blob(it.digest, 1 << 20).is_ok()).count()
}

#[test]
fn whatever_is_damaged_is_made_again() {
    let dockerfile = "FROM scratch AS s\nCOPY a /\nFROM scratch\nWORKDIR /w\nCOPY d /d\n\
                      COPY --from=s /a /b\n";
    let files = [("a", "a"), ("d/b", "b")];
    for kind in ObjectKind::ALL {
        let mut bench = Bench::new(&files);
        let want = bench.build(dockerfile).unwrap().image.digest();
        assert!(0 < damage_all(&bench.store, kind), "there is no {kind:?}");
        bench.reopen();
        let built = bench.build(dockerfile).unwrap();
        assert_eq!(built.image.digest(), want, "{kind:?}");
        if kind == ObjectKind::Segment {
            // A build that finds all reads none. Who reads one says so, and it is made again: here
            // by the first build, but for that of the first stage, which it reads and fails.
            assert_eq!(readable(&bench.store, &built), 0);
            bench.reopen();
            assert!(bench.build(dockerfile).is_err(), "what is copied comes from a damaged layer");
            bench.reopen();
            assert_eq!(bench.build(dockerfile).unwrap().image.digest(), want);
        }
        bench.reopen();
        assert_eq!(readable(&bench.store, &built), 3, "{kind:?}");
        bench.write("a", "changed");
        let changed = bench.build(dockerfile).unwrap();
        let fresh = Bench::new(&[("a", "changed"), files[1]]);
        assert_eq!(changed.image.digest(), fresh.build(dockerfile).unwrap().image.digest());
        bench.reopen();
        assert_eq!(readable(&bench.store, &changed), 3, "{kind:?}");
    }
}

#[test]
fn without_the_cache_what_is_damaged_is_replaced_at_once() {
    let mut bench = Bench::new(&[("a", "a")]);
    let dockerfile = "FROM scratch\nCOPY a /\n";
    bench.build(dockerfile).unwrap();
    bench.cache = Cache::Ignore;
    for kind in ObjectKind::ALL {
        assert!(0 < damage_all(&bench.store, kind), "there is no {kind:?}");
        bench.reopen();
        let built = bench.build(dockerfile).unwrap();
        bench.reopen();
        assert_eq!(readable(&bench.store, &built), 1, "{kind:?}");
        let verified = bench.store.verify(crate::store::Repair::Leave, &mut |_| ()).unwrap();
        assert_eq!(verified.damaged, [], "{kind:?}");
    }
}

#[test]
fn a_second_build_does_nothing_and_gives_the_same_image() {
    let mut bench = Bench::new(&[("a", "a"), ("d/b", "b")]);
    bench.epoch = None;
    let dockerfile = "FROM scratch\nENV A=1\nWORKDIR /w\nCOPY . .\nCMD [\"x\"]\n";
    let first = bench.build(dockerfile).unwrap();
    assert!(!first.cached);
    bench.now = 5000;
    let second = bench.build(dockerfile).unwrap();
    assert!(second.cached);
    assert_eq!(first.image.digest(), second.image.digest());

    bench.cache = Cache::Ignore;
    let third = bench.build(dockerfile).unwrap();
    assert!(!third.cached);
    assert_ne!(first.image.digest(), third.image.digest(), "it was made later");

    bench.cache = Cache::Use;
    bench.write("d/b", "c");
    let changed = bench.build(dockerfile).unwrap();
    assert!(!changed.cached);
    assert_ne!(first.image.layers, changed.image.layers);
    bench.write("d/b", "b");
    assert_eq!(bench.build(dockerfile).unwrap().image.layers, third.image.layers);
}

#[test]
fn modes_and_names_make_another_layer_and_times_do_not() {
    let mut bench = Bench::new(&[("a", "a")]);
    bench.epoch = None;
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let first = bench.build(dockerfile).unwrap();
    let file = fs::File::open(bench.context().join("a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(bench.build(dockerfile).unwrap().cached);
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!bench.build(dockerfile).unwrap().cached);
    file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(bench.build(dockerfile).unwrap().image.digest(), first.image.digest());
    fs::rename(bench.context().join("a"), bench.context().join("b")).unwrap();
    assert!(!bench.build(dockerfile).unwrap().cached);
}

#[test]
fn folders_that_are_made_on_the_way_keep_the_time_of_the_first_build() {
    let mut bench = Bench::new(&[("a", "a"), ("b", "b")]);
    bench.epoch = None;
    let dockerfile = "FROM scratch\nCOPY a /first/one/\nWORKDIR /w/deep\nCOPY b /made/on/\n";
    let times = |bench: &Bench| {
        let rootfs = bench.rootfs(&bench.build(dockerfile).unwrap());
        let of = |path: &str| {
            let path = TreePath::parse(path.as_bytes()).unwrap();
            rootfs.tree().get(&path).unwrap().meta.mtime
        };
        ["first", "first/one", "w", "w/deep", "made", "made/on"].map(of)
    };
    assert_eq!(times(&bench), [1000; 6]);
    bench.now = 5000;
    assert_eq!(times(&bench), [1000; 6]);
    // All steps are done again, or the last alone.
    for file in ["a", "b"] {
        bench.write(file, "changed");
        assert_eq!(times(&bench), [1000; 6], "{file}");
    }
    bench.reopen();
    bench.cache = Cache::Ignore;
    assert_eq!(times(&bench), [1000; 6], "without the cache");
    // The clock was wrong before.
    bench.now = 500;
    assert_eq!(times(&bench), [500; 6]);
}

#[test]
fn a_layer_that_is_gone_is_made_again() {
    let bench = Bench::new(&[("a", "a")]);
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let first = bench.build(dockerfile).unwrap();
    bench.store.remove_blob(first.image.layers[0].digest).unwrap();
    let second = bench.build(dockerfile).unwrap();
    assert!(!second.cached);
    assert_eq!(first.image.digest(), second.image.digest());
    assert!(catalog::is_whole(&bench.store, &second.image).unwrap());
}

/// A registry that had it once may have it no more, and what is built would be nowhere.
#[test]
fn a_layer_that_a_registry_had_is_made_again_too() {
    let mut bench = Bench::new(&[("a", "a")]);
    let dockerfile = "FROM scratch\nCOPY a /\n";
    let layer = bench.build(dockerfile).unwrap().image.layers.remove(0);
    let bytes = bench.store.read_blob(layer.digest, 1 << 20).unwrap();
    bench.remote = Some(Remote { blobs: [(layer.digest, bytes)].into(), ..Remote::default() });
    bench.store.remove_blob(layer.digest).unwrap();
    let again = bench.build(dockerfile).unwrap();
    assert!(!again.cached);
    assert!(catalog::is_whole(&bench.store, &again.image).unwrap());
}

#[test]
fn an_owner_that_is_called_as_none_is_written_is_not_none() {
    let bench = Bench::new(&[("passwd", "-:x:5:6::/:\n"), ("a", "a")]);
    let dockerfile = |flag: &str| format!("FROM scratch\nCOPY passwd /etc/\nCOPY {flag} a /\n");
    bench.build(&dockerfile("")).unwrap();
    let built = bench.build(&dockerfile("--chown=-")).unwrap();
    let rootfs = bench.rootfs(&built);
    let meta = &rootfs.tree().get(&TreePath::parse(b"a").unwrap()).unwrap().meta;
    assert_eq!((meta.uid, meta.gid), (5, 6));
}

#[test]
fn instructions_set_the_config() {
    let mut bench = Bench::new(&[]);
    bench.args.insert("GIVEN".into(), "given".into());
    let built = bench
        .build(
            r#"ARG BASE=scratch
ARG GLOBAL=global
FROM ${BASE}
ARG GIVEN=default OTHER="o t h e r" GLOBAL NOT_GIVEN TARGETARCH
ENV A=$GIVEN B="$OTHER" C='$OTHER' PATH=$PATH:/x
ENV A=2 D=$A$GLOBAL-$TARGETARCH
LABEL one=1 "two words"="${A:-none}${NOT_GIVEN:-none}"
EXPOSE 80 443/udp 8000-8001
VOLUME ["/data"]
WORKDIR /a
WORKDIR b/../c
USER 1:2
STOPSIGNAL SIGRTMIN+3
SHELL ["/bin/bash", "-c"]
CMD echo hi
ENTRYPOINT ["/x", "$A"]
HEALTHCHECK --interval=5s --retries=2 CMD x -y
MAINTAINER me
"#,
        )
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&built.image.config_bytes).unwrap();
    expect![[r#"
        {
          "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/x",
            "A=2",
            "B=o t h e r",
            "C=$OTHER",
            "D=givenglobal-amd64"
          ],
          "WorkingDir": "/a/c",
          "Labels": {
            "one": "1",
            "two words": "2none"
          },
          "ExposedPorts": {
            "80/tcp": {},
            "443/udp": {},
            "8000/tcp": {},
            "8001/tcp": {}
          },
          "Volumes": {
            "/data": {}
          },
          "User": "1:2",
          "StopSignal": "SIGRTMIN+3",
          "Shell": [
            "/bin/bash",
            "-c"
          ],
          "Cmd": [
            "/bin/bash",
            "-c",
            "echo hi"
          ],
          "Entrypoint": [
            "/x",
            "$A"
          ],
          "Healthcheck": {
            "Test": [
              "CMD-SHELL",
              "x -y"
            ],
            "Interval": 5000000000,
            "Retries": 2
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&config["config"]).unwrap());
    assert_eq!(config["author"], "me");
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    let history = config["history"].as_array().unwrap();
    let layers = history.iter().filter(|it| it.get("empty_layer").is_none()).count();
    assert_eq!(layers, built.image.layers.len());
    assert_eq!(layers, 2, "the two folders of WORKDIR");
}

const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n";

#[test]
fn a_stage_can_be_built_on_and_copied_from() {
    let bench = Bench::new(&[
        ("etc/passwd", PASSWD),
        ("etc/group", "www:x:33:\n"),
        ("app", "x"),
        ("lib/l", "l"),
    ]);
    let dockerfile = "FROM scratch AS base
COPY etc /etc/
COPY lib /usr/lib
FROM base AS made
COPY --chown=web app /usr/lib/app
COPY --chown=web:www app /usr/lib/app2
USER web
WORKDIR /home
FROM scratch
COPY --from=made /usr/lib /out
COPY --from=made /usr/l*/app* /some/
COPY --from=base --chown=9 /etc/passwd /x
";
    bench.check(
        dockerfile,
        expect![[r#"
        out/ 755 0:0
        out/app 644 101:102
        out/app2 644 101:33
        out/l 644 0:0
        some/ 755 0:0
        some/app 644 101:102
        some/app2 644 101:33
        x 644 9:9
    "#]],
    );
    assert!(bench.build(dockerfile).unwrap().cached);
    let home = "FROM scratch\nCOPY etc /etc/\nUSER web\nWORKDIR /home/x\n";
    bench.check(
        home,
        expect![[r#"
        etc/ 755 0:0
        etc/group 644 0:0
        etc/passwd 644 0:0
        home/ 755 101:102
        home/x/ 755 101:102
    "#]],
    );
}

#[test]
fn copied_content_is_found_wherever_it_came_from() {
    let bench = Bench::new(&[("a", "same"), ("b", "same")]);
    let dockerfile = |file: &str| {
        format!(
            "FROM scratch AS s\nENV X={file}\nCOPY {file} /f\nFROM scratch\nCOPY --from=s /f /g\n"
        )
    };
    let first = bench.build(&dockerfile("a")).unwrap();
    let second = bench.build(&dockerfile("b")).unwrap();
    assert_eq!(first.image.layers, second.image.layers);
}

#[test]
fn a_base_image_is_built_upon() {
    let mut bench = Bench::new(&[("bin/x", "x"), ("new", "n")]);
    fs::create_dir_all(bench.context().join("usr/bin")).unwrap();
    std::os::unix::fs::symlink("usr/bin", bench.context().join("sbin")).unwrap();
    set_modes(&bench.context());
    let base =
        bench.build("FROM scratch\nCOPY usr /usr\nCOPY sbin /\nENV A=1\nCMD [\"base\"]\n").unwrap();
    let reference =
        Base::Image("base".parse::<crate::reference::Reference>().unwrap().with_default_tag());
    bench.bases.insert(reference, base.image.digest());
    let built =
        bench.build("FROM base\nCOPY new /usr/bin/\nENV B=$A\nENTRYPOINT [\"/x\"]\n").unwrap();
    let config: serde_json::Value = serde_json::from_slice(&built.image.config_bytes).unwrap();
    assert_eq!(config["config"]["Env"][1], "A=1");
    assert_eq!(config["config"]["Env"][2], "B=1");
    assert!(config["config"].get("Cmd").is_none(), "the base's arguments were for another program");
    assert_eq!(built.image.layers[..base.image.layers.len()], base.image.layers);
    assert_eq!(config["history"].as_array().unwrap().len(), 4 + 3);
}

/// A base of three layers that lies elsewhere: only its manifest and config are here.
fn base_elsewhere(bench: &mut Bench) -> Vec<Layer> {
    let base = Bench::new(&[("etc/passwd", "joe:x:101:102::/:/bin/sh\n"), ("tool", "T")]);
    fs::create_dir_all(base.context().join("srv/srv/data")).unwrap();
    std::os::unix::fs::symlink("srv", base.context().join("srv/link")).unwrap();
    set_modes(&base.context());
    let dockerfile = "FROM scratch\nCOPY etc /etc\nCOPY srv /\nCOPY tool /\n";
    let image = base.build(dockerfile).unwrap().image;
    let mut remote = Remote::default();
    for Layer { digest, .. } in &image.layers {
        let blob = base.store.read_blob(*digest, 1 << 20).unwrap();
        remote.blobs.insert(*digest, blob);
    }
    catalog::add(&bench.store, &image, 0).unwrap();
    let reference = "base".parse::<crate::reference::Reference>().unwrap().with_default_tag();
    bench.bases.insert(Base::Image(reference), image.digest());
    bench.remote = Some(remote);
    image.layers
}

impl Bench {
    /// What was asked for elsewhere since the last time.
    fn opened(&self) -> Vec<Digest> {
        std::mem::take(&mut self.remote.as_ref().unwrap().opened.lock().unwrap())
    }
}

#[test]
fn no_layer_of_a_base_is_read_for_nothing() {
    let mut bench = Bench::new(&[("a", "a")]);
    let layers = base_elsewhere(&mut bench);
    let digests: Vec<Digest> = layers.iter().map(|it| it.digest).collect();
    let built = bench.build("FROM base\nENV A=1\nLABEL l=1\nUSER joe\nCMD [\"x\"]\n").unwrap();
    assert_eq!((bench.opened(), &built.image.layers), (vec![], &layers));

    // What lies in the base has to be known, once.
    let built = bench.build("FROM base\nCOPY a /app/\n").unwrap();
    assert_eq!(bench.opened(), digests);
    assert_eq!(built.image.layers[..3], layers);
    bench.build("FROM base\nWORKDIR /w\nCOPY --chown=joe a /link/data/\n").unwrap();
    bench.cache = Cache::Ignore;
    bench.build("FROM base\nCOPY a /app/\nUSER joe\nWORKDIR /w\n").unwrap();
    assert_eq!(bench.opened(), []);
    bench.cache = Cache::Use;

    // Files that are taken out of it are read from the layer that has them.
    let built = bench.build("FROM scratch\nCOPY --from=base /tool /\n").unwrap();
    assert_eq!(bench.opened(), [digests[2]]);
    assert_eq!(built.image.layers.len(), 1);
    bench.build("FROM scratch\nCOPY --from=base /tool /\nENV X=1\n").unwrap();
    assert_eq!(bench.opened(), []);
    assert!(!bench.store.has(digests[0], layers[0].size).unwrap(), "nothing is kept of it");
}

#[test]
fn a_base_that_lies_elsewhere_is_seen_as_it_is() {
    let mut bench = Bench::new(&[("a", "a")]);
    base_elsewhere(&mut bench);
    let built = bench.build("FROM base\nCOPY --chown=joe a /link/data/\n").unwrap();
    let tables = Layers { store: &bench.store, remote: None };
    let rootfs = Rootfs::read_from(tables, &built.image.layers).unwrap();
    assert!(list(&rootfs).contains("srv/data/a 644 101:102\n"), "{}", list(&rootfs));
}

#[test]
fn a_layer_that_can_be_had_nowhere_is_said() {
    let mut bench = Bench::new(&[("a", "a")]);
    let layers = base_elsewhere(&mut bench);
    bench.remote = None;
    bench.build("FROM base\nENV A=1\n").unwrap();
    let error = bench.build("FROM base\nCOPY a /\n").unwrap_err();
    assert_eq!(error.to_string(), format!("blob {} is not in the store", layers[0].digest));
}

/// A layer that was made here is not read again to know what lies in it.
#[test]
fn layers_of_ones_own_are_not_read() {
    let bench = Bench::new(&[("d/a", "a"), ("b", "b")]);
    let layers = bench.build("FROM scratch\nCOPY d /d\n").unwrap().image.layers;
    // Its segment is damaged where it lies: in a pack.
    let blob = bench.store.read_blob(layers[0].digest, 1 << 20).unwrap();
    let mut packs = fs::read_dir(bench.store.root().join("packs")).unwrap();
    let pack = packs.find_map(|it| {
        let path = it.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(10).position(|it| it == &blob[15..25])?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = pack.expect("a pack with the segment");
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(bench.store.read_blob(layers[0].digest, 1 << 20).is_err());
    bench.build("FROM scratch\nCOPY d /d\nCOPY b /d/\nWORKDIR /d/e\n").unwrap();
}
