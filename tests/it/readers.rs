//! What others make of our images: every kind of image that is built here is read by skopeo, umoci,
//! buildah, docker, and our own oracle, and each of them must find what the context has.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::PathBuf,
    sync::OnceLock,
};

use rbuild_tests::{
    Sandbox,
    oracle::{
        self, Entry, Kind, Tree,
        forge::{self, Draft},
    },
    peers::{self, Buildah, Docker},
    scratch,
    servers::Registry,
    store,
};
use rustix::fs::{FileType, Mode, makedev, mknodat};

use crate::{EPOCH, digest_of, is_soak, push, sandbox};

/// How images are built, which, and who reads them then.
struct Format {
    name: &'static str,
    args: &'static [&'static str],
    cases: &'static [(&'static str, Case)],
    readers: &'static [Reader],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Skopeo,
    Umoci,
    Buildah,
    Docker,
}

const ALL: &[Reader] = &[Reader::Skopeo, Reader::Umoci, Reader::Buildah, Reader::Docker];

/// The formats. The readers are those of Debian 12: umoci (0.4) and docker (20.10) there know no
/// zstd, nor does skopeo where it writes archives for docker; umoci takes OCI's media types alone.
const FORMATS: [Format; 5] = [
    Format { name: "gzip", args: &[], cases: CASES, readers: ALL },
    Format { name: "none", args: &["--compression", "none"], cases: FEW, readers: ALL },
    Format { name: "pushed", args: &["--push"], cases: FEW, readers: ALL },
    Format {
        name: "zstd",
        args: &["--compression", "zstd"],
        cases: FEW,
        readers: &[Reader::Skopeo, Reader::Buildah],
    },
    Format {
        name: "docker",
        args: &["--format", "docker"],
        cases: FEW,
        readers: &[Reader::Skopeo, Reader::Buildah, Reader::Docker],
    },
];

/// An image that was built, saved, and pushed.
struct Built {
    format: &'static Format,
    /// Its repository; the tag is `1`.
    name: String,
    digest: String,
    /// An OCI layout with the image alone.
    layout: PathBuf,
    /// What is in it.
    want: Tree,
    sandbox: Sandbox,
}

impl Built {
    /// The image's name in the registry.
    fn reference(&self) -> String {
        Registry::shared().image(&format!("{}:1", self.name))
    }
}

/// A context, a Dockerfile, and what the image then has.
type Case = fn(&Sandbox) -> (String, Tree);

const CASES: &[(&str, Case)] = &[
    ("everything", everything),
    ("type-changes", type_changes),
    ("whiteouts", whiteouts),
    ("many-layers", many_layers),
];

/// The one in which formats can differ.
const FEW: &[(&str, Case)] = &[("everything", everything)];

/// All images in all formats, built once.
fn images() -> &'static [Built] {
    static IMAGES: OnceLock<Vec<Built>> = OnceLock::new();
    let all = |format: &'static Format| {
        format.cases.iter().map(move |(name, case)| built(format, name, *case))
    };
    IMAGES.get_or_init(|| FORMATS.iter().flat_map(all).collect())
}

/// The images that are for this reader.
fn images_for(reader: Reader) -> impl Iterator<Item = &'static Built> {
    let images: Vec<_> = images().iter().filter(|it| it.format.readers.contains(&reader)).collect();
    assert!(!images.is_empty(), "{reader:?} reads nothing");
    images.into_iter()
}

fn built(format: &'static Format, name: &str, case: Case) -> Built {
    let sandbox = sandbox(&[]);
    let name = format!("readers/{name}-{}", format.name);
    let (dockerfile, want) = case(&sandbox);
    sandbox.write("Dockerfile", dockerfile);
    let reference = Registry::shared().image(&format!("{name}:1"));
    let args = ["image", "build", "-f", "Dockerfile", "-t", &reference];
    let args = args.iter().chain(format.args).chain(&["ctx"]);
    let built = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).ok();
    let digest = if format.args == ["--push"] {
        digest_of(built.line())
    } else {
        push(&sandbox, &reference)
    };
    sandbox.rbuild(["image", "tag", &reference, "saved:latest"]).ok();
    let layout = sandbox.path().join("layout");
    let path = layout.display().to_string();
    sandbox.rbuild(["image", "save", "--format", "oci", "-o", &path, "saved:latest"]).ok();
    Built { format, name, digest, layout, want, sandbox }
}

/// One of every kind of file that a context can have.
fn everything(sandbox: &Sandbox) -> (String, Tree) {
    let context = sandbox.src().join("ctx");
    let write = |path: &str, text: &str, mode: u32| {
        let path = context.join(path);
        scratch::write(&path, text);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
        path
    };
    write("plain", "plain\n", 0o644);
    write("empty", "", 0o600);
    write("closed", "nobody may", 0o000);
    write("bin/setuid", "s", 0o4755);
    write("bin/setgid", "g", 0o2711);
    let capable = write("bin/capable", "cap", 0o755);
    peers::run("setcap", "libcap2-bin", &["cap_net_raw+ep", &capable.display().to_string()]);
    xattr::set(context.join("plain"), "user.note", b"a = b\n\0c").expect("an attribute");
    for length in [99, 100, 101, 155, 255] {
        write(&format!("long/{}", "n".repeat(length)), "named", 0o644);
        write(&format!("long/{}/{}", "d".repeat(length), "n".repeat(100)), "deep", 0o644);
    }
    scratch::write(&context.join(OsStr::from_bytes(b"caf\xe9 \xff")), "no text");
    scratch::write(&context.join("caf\u{e9} \u{1f980}"), "text");
    fs::hard_link(context.join("plain"), context.join("bin/another-name")).expect("link");
    fs::hard_link(context.join("plain"), context.join("zz")).expect("link");
    for (path, target) in
        [("relative", "bin/setuid"), ("absolute", "/etc/passwd"), ("nowhere", "../../x")]
    {
        symlink(target, context.join(path)).expect("link");
    }
    symlink("x".repeat(300), context.join("far")).expect("link");
    File::create(context.join("sparse")).and_then(|it| it.set_len(3_000_001)).expect("sparse");
    for (path, mode) in [("hollow", 0o755), ("sticky", 0o1777), ("private", 0o700)] {
        fs::create_dir(context.join(path)).expect("folder");
        fs::set_permissions(context.join(path), Permissions::from_mode(mode)).expect("mode");
    }
    for (path, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("loop", FileType::BlockDevice, makedev(7, 300)),
    ] {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(rustix::fs::CWD, context.join(path), kind, mode, device)
            .unwrap_or_else(|err| panic!("{path}: {err}: tests of images need root"));
    }
    let dockerfile = "FROM scratch\nCOPY . /all/\nCOPY --chown=3000000:2097152 plain /big/owner\n\
                      CMD [\"/all/bin/capable\"]\n";
    let plain = Tree::of_folder(&context).get("plain").expect("plain").clone();
    let big = Entry { path: b"big/owner".into(), uid: 3_000_000, gid: 2_097_152, ..plain };
    let made = folder("big");
    let made = Entry { uid: 3_000_000, gid: 2_097_152, ..made };
    let want = in_image(Tree::of_folder(&context).below("all"));
    (dockerfile.to_owned(), in_epoch(want.with(folder("all")).with(made).with(big)))
}

/// Copies over what was there as something else, in layers of our own.
fn type_changes(sandbox: &Sandbox) -> (String, Tree) {
    let context = sandbox.src().join("ctx");
    for (stage, kinds) in [("1", ["file", "link", "fifo"]), ("2", ["link", "fifo", "file"])] {
        for (name, kind) in ["a", "b", "c"].iter().zip(kinds) {
            let path = context.join(stage).join(name);
            fs::create_dir_all(context.join(stage)).expect("folder");
            match kind {
                "file" => scratch::write(&path, stage),
                "link" => symlink("elsewhere", path).expect("link"),
                _ => {
                    peers::run("mkfifo", "coreutils", &[&path.display().to_string()]);
                }
            }
        }
    }
    let want = in_image(Tree::of_folder(&context.join("2")).below("d"));
    let dockerfile = "FROM scratch\nCOPY 1 /d\nCOPY 2 /d\nCMD [\"/d/c\"]\n";
    (dockerfile.to_owned(), in_epoch(want.with(folder("d"))))
}

/// Builds on an image of others that removes things in layers of its own.
fn whiteouts(sandbox: &Sandbox) -> (String, Tree) {
    use forge::{file, folder as dir, hardlink, symlink as link};
    let lower = vec![
        dir("a"),
        file("a/1", b"1"),
        file("a/2", b"2"),
        dir("b"),
        dir("b/c"),
        file("b/c/1", b"1"),
        file("b/d", b"d"),
        dir("f"),
        file("f/1", b"1"),
        file("h", b"h"),
        hardlink("i", "h"),
        link("j", "h"),
    ];
    let middle = vec![
        file(".wh.j", b""),
        dir("a"),
        file("a/.wh.1", b""),
        file("a/3", b"3"),
        dir("b"),
        file("b/.wh..wh..opq", b""),
        file("b/e", b"e"),
        file("f", b"no folder"),
        dir("j"),
        file("j/k", b"k"),
    ];
    let upper = vec![file(".wh.h", b""), dir("a"), file("a/1", b"again")];
    let base = sandbox.path().join("base");
    Draft::new(vec![lower, middle, upper]).write(&base);
    let images = oracle::layout(&base).valid();
    sandbox.write("ctx/new", "new\n");
    sandbox.write("ctx/over/e", "another\n");
    let context = Tree::of_folder(&sandbox.src().join("ctx"));
    let copied = |from: &str, to: &str| {
        let entry = context.get(from).expect("file of the context").clone();
        let mut entry = Entry { path: to.into(), ..entry };
        (entry.uid, entry.gid, entry.mtime) = (0, 0, epoch());
        entry
    };
    let want = Tree::of_image(&images[0]).with(copied("new", "a/2")).with(copied("over/e", "b/e"));
    // What is copied into a folder changes its time.
    let want = want.with(folder("a")).with(folder("b"));
    let base = base.display();
    let dockerfile = format!("FROM oci:{base}:latest\nCOPY new /a/2\nCOPY over /b\nCMD [\"/i\"]\n");
    (dockerfile, want)
}

/// As many layers as a careless Dockerfile has.
fn many_layers(sandbox: &Sandbox) -> (String, Tree) {
    sandbox.write("ctx/f", "f\n");
    let file = Tree::of_folder(&sandbox.src().join("ctx")).get("f").expect("f").clone();
    let mut want = Tree::default();
    let mut dockerfile = "FROM scratch\n".to_owned();
    for number in 0..24 {
        let path = format!("n{}/f{number}", number % 3);
        dockerfile.extend(["COPY f /", &path, "\n"]);
        want = want.with(folder(&path[..2])).with(Entry { path: path.into(), ..file.clone() });
    }
    dockerfile += "CMD [\"/n0/f0\"]\n";
    (dockerfile, in_epoch(in_image(want)))
}

/// Builds on an image of a registry, which is not downloaded for that.
fn lazy_base(sandbox: &Sandbox) -> (String, Tree) {
    let base = crate::sandbox(&[("ctx/Dockerfile", "FROM scratch\nCOPY below /below/it\n")]);
    base.write("ctx/below", "below\n");
    let name = Registry::shared().image("readers/base:1");
    crate::build(&base, &name);
    push(&base, &name);
    sandbox.write("ctx/above", "above\n");
    let file = |sandbox: &Sandbox, name: &str, path: &str| {
        let tree = Tree::of_folder(&sandbox.src().join("ctx"));
        Entry { path: path.into(), ..tree.get(name).expect("a file").clone() }
    };
    let want = Tree::default().with(folder("below")).with(folder("new"));
    let want = want.with(file(&base, "below", "below/it")).with(file(sandbox, "above", "new/it"));
    let dockerfile = format!("FROM {name}\nCOPY above /new/it\nCMD [\"/new/it\"]\n");
    (dockerfile, in_epoch(in_image(want)))
}

/// A folder as `COPY` makes it.
fn folder(path: &str) -> Entry {
    let (mode, mtime, xattrs) = (0o755, epoch(), BTreeMap::new());
    Entry { path: path.into(), kind: Kind::Folder, mode, uid: 0, gid: 0, mtime, xattrs }
}

/// What `COPY` makes of a context: everything belongs to root.
fn in_image(tree: Tree) -> Tree {
    tree.with_each(|it| (it.uid, it.gid) = (0, 0))
}

fn in_epoch(tree: Tree) -> Tree {
    tree.with_each(|it| it.mtime = epoch())
}

fn epoch() -> i64 {
    EPOCH.1.parse().expect("a number")
}

#[test]
fn the_oracle_finds_no_fault_and_what_the_context_has() {
    images().iter().for_each(read_by_the_oracle);
}

/// The base is fetched when its bytes are needed: to save it, and not to build or to push.
#[test]
fn an_image_on_a_base_that_is_not_here_is_read_by_all() {
    // The short version has one format.
    for format in &FORMATS[..if is_soak() { FORMATS.len() } else { 1 }] {
        let built = built(format, "lazy-base", lazy_base);
        read_by_the_oracle(&built);
        for reader in format.readers {
            match reader {
                Reader::Skopeo => read_by_skopeo(&built),
                Reader::Umoci => read_by_umoci(&built),
                Reader::Buildah => read_by_buildah(&built),
                Reader::Docker => read_by_docker(&built),
            }
        }
    }
}

fn read_by_the_oracle(built: &Built) {
    let saved = oracle::layout(&built.layout).sound();
    let pushed = oracle::registry(Registry::shared().port(), &built.name, "1").sound();
    assert_eq!(saved, pushed, "{}", built.name);
    let [image] = &saved[..] else { panic!("one image: {}", built.name) };
    assert_eq!(image.digest, built.digest);
    built.want.assert_same(&Tree::of_image(image), &built.name);
}

#[test]
fn skopeo_copies_it_as_it_is() {
    images_for(Reader::Skopeo).for_each(read_by_skopeo);
}

fn read_by_skopeo(built: &Built) {
    let copy = built.layout.with_file_name("copy");
    peers::skopeo_copy(&built.reference(), &copy, "");
    let ours = oracle::layout(&built.layout).sound();
    if ["docker", "none"].contains(&built.format.name) {
        // In an OCI layout it gets OCI's media types, and is compressed.
        let copied = oracle::layout(&copy).valid();
        assert_eq!(Tree::of_image(&ours[0]), Tree::of_image(&copied[0]), "{}", built.name);
    } else {
        assert_eq!(ours, oracle::layout(&copy).sound(), "{}", built.name);
    }
    assert_eq!(peers::skopeo_digest(&built.reference()), built.digest);
    let from = format!("docker://{}", built.reference());
    let layout = format!("oci:{}", built.layout.display());
    for (number, from) in [from, layout].iter().enumerate() {
        let to = copy.with_extension(number.to_string());
        let to_text = format!("dir:{}", to.display());
        let args = ["copy", "--quiet", "--src-tls-verify=false", from, &to_text];
        peers::run("skopeo", "skopeo", &args);
        let manifest = fs::read(to.join("manifest.json")).expect("manifest");
        assert_eq!(format!("sha256:{}", store::hex(&manifest)), built.digest, "{from}");
    }
}

#[test]
fn umoci_unpacks_what_the_context_has() {
    images_for(Reader::Umoci).for_each(read_by_umoci);
}

fn read_by_umoci(built: &Built) {
    let bundle = built.layout.with_file_name("bundle");
    peers::umoci_unpack(&built.layout, &bundle);
    let found = Tree::of_folder(&bundle.join("rootfs"));
    built.want.assert_same(&found, &built.name);
}

#[test]
fn buildah_pulls_and_mounts_what_the_context_has() {
    images_for(Reader::Buildah).for_each(read_by_buildah);
}

fn read_by_buildah(built: &Built) {
    let buildah = Buildah::new();
    let folder = built.layout.parent().expect("folder of a layout");
    for image in [&format!("docker://{}", built.reference()), "oci:layout"] {
        let root = buildah.mount(folder, image);
        let what = format!("{} as {image}", built.name);
        built.want.assert_same(&Tree::of_folder(&root), &what);
    }
}

#[test]
fn docker_pulls_and_loads_what_the_context_has() {
    images_for(Reader::Docker).for_each(read_by_docker);
}

fn read_by_docker(built: &Built) {
    let docker = Docker::shared();
    let reference = built.reference();
    docker.run(["pull", "--quiet", &reference]);
    let pulled = seen_by_docker(docker, built, &reference);
    let archive = built.layout.with_file_name("archive.tar");
    let name = format!("loaded-{}:1", built.name);
    built.sandbox.rbuild(["image", "tag", &reference, &name]).ok();
    let path = archive.display().to_string();
    let args = ["image", "save", "--format", "docker-archive", "-o", &path, &name];
    built.sandbox.rbuild(args).ok();
    docker.run([OsStr::new("load"), OsStr::new("--input"), archive.as_os_str()]);
    assert_eq!(seen_by_docker(docker, built, &name), pulled, "{name}");
}

/// Compares what docker has with what it should have; returns its id of the image.
fn seen_by_docker(docker: &Docker, built: &Built, image: &str) -> String {
    let id = docker.run(["image", "inspect", "--format", "{{.Id}}", image]);
    let manifest = &oracle::layout(&built.layout).sound()[0].manifest;
    assert_eq!(id.trim(), manifest["config"]["digest"], "{image}");
    let found = Tree::of_archive(&docker.export(image));
    let found = Docker::MADE.iter().fold(found, |tree, path| tree.without(path));
    // Docker keeps all attributes, and exports this one alone.
    let is_exported = |name: &[u8]| name == b"security.capability";
    let want = built.want.clone().with_each(|it| it.xattrs.retain(|name, _| is_exported(name)));
    want.assert_same(&found, image);
    id
}
