//! What people ask for and cannot mean, or cannot have: it is refused with exit status 2 before
//! anything is done, and they are told what to do instead.

use std::fs;

use crate::{EPOCH, build, sandbox_with_context};

#[test]
fn a_copy_replaces_no_file() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "shop:1");
    sandbox.write("notes.tar", "mine");
    for target in ["docker-archive:notes.tar", "docker-archive:notes.tar:shop:2", "oci:notes.tar"] {
        let refused = sandbox.rbuild(["image", "copy", "store:shop:1", target]).go();
        refused.fails(2, &["`notes.tar` is there already", "remove it"]);
    }
    assert_eq!(fs::read_to_string(sandbox.src().join("notes.tar")).unwrap(), "mine");
    for target in ["docker-archive:-", "oci:-"] {
        let refused = sandbox.rbuild(["image", "copy", "store:shop:1", target]).go();
        refused.fails(2, &[target, "standard output", "image save"]);
    }
    // A layout takes another image, and what is empty was made to be written.
    sandbox.write("empty.tar", "");
    for target in ["oci:layout:1", "oci:layout:2", "docker-archive:empty.tar"] {
        sandbox.rbuild(["image", "copy", "store:shop:1", target]).ok();
    }
}

#[test]
fn what_a_build_cannot_do_is_said_before_it_builds() {
    let sandbox = sandbox_with_context();
    sandbox.write("folder/x", "");
    for (args, phrases) in [
        (&["--iidfile", "nowhere/id"][..], &["nowhere/id", "no folder `nowhere`"][..]),
        (&["--iidfile", "folder"], &["folder", "name a file in it"]),
        (&["--create-repository"], &["--push"]),
        (&["--ignore-immutable"], &["--push"]),
        (&["--create-repository", "--repository-immutable"], &["--push"]),
        (&["--platform", "plan9/mips"], &["plan9/mips", "this machine's"]),
        (&["--secret", "id=x"], &["`--secret` is not supported", "hint: "]),
        (&["--ssh", "default"], &["`--ssh` is not supported", "hint: "]),
        (&["-q"], &["`-q` is not supported", "standard error"]),
        (&["--squash"], &["`--squash` is not supported", "hint: "]),
        (&["--load"], &["`--load` is not supported", "docker load"]),
        (&["--target", "nope"], &["there is no stage `nope`; no stage has a name"]),
    ] {
        let words = ["image", "build"].iter().chain(args).chain(&["ctx"]);
        let refused = sandbox.rbuild(words).go();
        refused.fails(2, phrases);
        assert!(!refused.stderr.contains("a similar argument"), "{refused}");
        assert!(!sandbox.store().exists(), "a store was made for {args:?}");
    }
    sandbox.rbuild(["image", "build", "-"]).go().fails(2, &["standard input", "-f - FOLDER"]);
    let platform =
        format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    sandbox.rbuild(["image", "build", "--platform", &platform, "ctx"]).ok();
}

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let sandbox = sandbox_with_context();
    let built = build(&sandbox, "shop:1");
    let dockerfile = fs::read(sandbox.src().join("ctx/Dockerfile")).unwrap();
    fs::remove_file(sandbox.src().join("ctx/Dockerfile")).unwrap();
    let args = ["image", "build", "-f", "-", "ctx"];
    let piped = sandbox.rbuild(args).env(EPOCH.0, EPOCH.1).input(dockerfile).ok();
    assert_eq!(piped.line(), built);
    let wrong = sandbox.rbuild(args).input("FROM scratch\nCOPPY a /\n").go();
    wrong.fails(2, &["standard input:2:1"]);
}

#[test]
fn an_archive_is_written_to_what_can_take_it() {
    let sandbox = sandbox_with_context();
    build(&sandbox, "shop:1");
    let save = |path: &str| {
        sandbox.rbuild(["image", "save", "--format", "docker-archive", "-o", path, "shop:1"])
    };
    sandbox.rbuild(["image", "save", "-o", "a.tar", "shop:1"]).ok();
    save("b.tar").ok();
    sandbox.write("folder/x", "");
    save("folder").go().fails(2, &["`folder` is a folder", "hint: "]);
    let full = save("/dev/full").go();
    full.fails(3, &["`/dev/full` could not be written", "hint: "]);
    assert!(!full.stderr.contains("--store"), "{full}");
    // A link leads to the archive, and a pipe gives it to who reads.
    std::os::unix::fs::symlink("b.tar", sandbox.src().join("link")).unwrap();
    save("link").ok();
    let link = sandbox.src().join("link");
    assert!(link.is_symlink() && link.metadata().unwrap().len() > 0);
    let program = super::RBUILD;
    let pipe = format!("{program} image save -o - shop:1 | cat > c.tar");
    sandbox.run("sh", ["-c", &pipe]).ok();
    let read = |name: &str| fs::read(sandbox.src().join(name)).unwrap();
    assert_eq!(read("a.tar"), read("c.tar"));
    let closed = format!("({program} image save shop:1; echo $? >&2) | true");
    let quiet = sandbox.run("sh", ["-c", &closed]).ok();
    assert!(["3\n", "0\n"].contains(&quiet.stderr.as_str()), "{quiet}");
}

#[test]
fn names_that_are_not_found_are_told_of_with_what_was_meant() {
    let sandbox = sandbox_with_context();
    let digest = build(&sandbox, "shop:1");
    let digits = &digest["sha256:".len()..];
    sandbox.rbuild(["image", "inspect", &digits[..6]]).ok();
    let few = sandbox.rbuild(["image", "inspect", &digits[..4]]).go();
    few.fails(2, &["6 digits or more", "image ls"]);
    build(&sandbox, "localhost:1/shop:1");
    let copy = sandbox.rbuild(["image", "copy", "localhost:1/shop:1", "oci:x"]).go();
    copy.fails(3, &["the store has `localhost:1/shop:1`: write `store:localhost:1/shop:1`"]);
}

#[test]
fn what_is_wrong_with_a_login_is_said_before_a_password_is_sent() {
    let sandbox = sandbox_with_context();
    for (args, phrases) in [
        (
            &["-p", "secret", "a.example.com"][..],
            &["`-p` is not supported", "--password-stdin"][..],
        ),
        (&["a.example.com/v2/"], &["has a path", "write `a.example.com`"]),
        (&["http://a.example.com"], &["plain HTTP", "--insecure-registry"]),
    ] {
        let refused = sandbox.rbuild(["login"].iter().chain(args)).go();
        refused.fails(2, phrases);
        assert!(!refused.stderr.contains("secret"), "{refused}");
    }
}

#[test]
fn a_variable_that_is_wrong_is_told_of_by_its_name() {
    let sandbox = sandbox_with_context();
    for (name, value) in [
        ("RBUILD_STORE_LIMIT", "much"),
        ("RBUILD_REGISTRY_MIRRORS", "a=b,nonsense"),
        ("RBUILD_REGISTRY_TIMEOUT", "0"),
    ] {
        let refused = sandbox.rbuild(["image", "ls"]).env(name, value).go();
        refused.fails(2, &[name, "hint: "]);
        assert!(!refused.stderr.contains("--"), "{refused}");
        sandbox.rbuild(["image", "ls"]).env(name, "").ok();
    }
    sandbox.rbuild(["image", "ls"]).env("RBUILD_STORE", "").ok();
    assert!(sandbox.home().join(".cache/rbuild").exists(), "an empty variable is not set");
    let usage = sandbox.rbuild(["image", "rm"]).go();
    usage.fails(2, &["Usage: rbuild image rm"]);
    assert!(!usage.stderr.contains("--store"), "{usage}");
}

#[test]
fn an_image_that_has_lost_a_layer_is_damaged() {
    let sandbox = sandbox_with_context();
    sandbox.write("ctx/hello", "hello ".repeat(1000));
    build(&sandbox, "shop:1");
    for (folder, ending) in [("packs", "pack"), ("cache", "")] {
        for entry in fs::read_dir(sandbox.store().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            match ending {
                "" => fs::remove_file(path).unwrap(),
                _ if path.extension().is_some_and(|it| it == ending) => {
                    let mut bytes = fs::read(&path).unwrap();
                    // The layer's own segment is the first object.
                    bytes[40] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
                _ => {}
            }
        }
    }
    sandbox.rbuild(["cache", "verify", "--repair"]).go().has_status(3);
    let table = sandbox.rbuild(["image", "ls"]).ok();
    assert!(table.stdout.contains("(damaged: ") && table.stdout.contains(" missing)"), "{table}");
    let pushed = sandbox.rbuild(["image", "save", "-o", "x.tar", "shop:1"]).go();
    pushed.fails(3, &["build or pull the image again"]);
}
