//! The program is one file to carry: it runs where there is nothing else.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rbuild_tests::{
    Run, Sandbox, namespace::with_mounts, peers, scratch::copy_program, servers::Registry,
};

use crate::{RBUILD, digest, digest_of, sandbox_with_context};

#[test]
fn it_asks_for_no_loader() {
    let bytes = fs::read(RBUILD).expect("the program");
    let kinds = segments(&bytes);
    // PT_LOAD must be there, or this reads nothing of use; PT_INTERP names a loader.
    assert!(kinds.contains(&1) && !kinds.contains(&3), "segments of the program: {kinds:?}");
}

#[test]
fn it_builds_and_pushes_in_an_empty_root() {
    let sandbox = sandbox_with_context();
    copy_program(Path::new(RBUILD), &sandbox.src().join("rbuild"));
    chroot(&sandbox, &["/rbuild", "version"]).ok();
    builds_and_pushes(&sandbox, "from-an-empty-root:1", &[]);
}

#[test]
fn it_builds_and_pushes_in_the_root_of_busybox() {
    let sandbox = sandbox_with_context();
    let root = sandbox.src();
    copy_program(Path::new(RBUILD), &root.join("rbuild"));
    fs::create_dir(root.join("bin")).expect("folder");
    let busybox = peers::need("busybox", "busybox-static");
    for name in ["busybox", "sh"] {
        copy_program(&busybox, &root.join("bin").join(name));
    }
    builds_and_pushes(&sandbox, "from-busybox:1", &["/bin/sh", "-c", "exec \"$@\"", "sh"]);
    sandbox.write("buildspec.yml", "version: 0.2\nphases: {build: {commands: [echo $((6 * 7))]}}");
    // As containers have them.
    for folder in ["dev", "proc"] {
        fs::create_dir(root.join(folder)).expect("folder");
    }
    let mounts = "mount --rbind /proc \"$0/proc\" && mount --rbind /dev \"$0/dev\"";
    let (mut script, folder) = (String::new(), root.display().to_string());
    let log = chroot(&sandbox, &["/rbuild", "run", "--log", "codebuild"]);
    let log = log.under(with_mounts(mounts, &folder, &mut script)).ok();
    assert!(log.stdout.contains("\n42\n"), "{log}");
}

#[track_caller]
fn builds_and_pushes(sandbox: &Sandbox, name: &str, under: &[&str]) {
    let name = Registry::shared().image(name);
    let words = |args: &[&str]| chroot(sandbox, &[under, &["/rbuild"], args].concat());
    let built = digest(words(&["image", "build", "-t", &name, "/ctx"]).ok().line());
    assert_eq!(digest_of(words(&["image", "push", &name]).ok().line()), built);
    assert_eq!(peers::skopeo_digest(&name), built);
}

/// A run in which the source folder is the root.
fn chroot(sandbox: &Sandbox, words: &[&str]) -> Run {
    let root = sandbox.src();
    let folders: [&Path; 2] = [&root.join("tmp"), &root.join("home")];
    for folder in folders.into_iter().filter(|it| !it.exists()) {
        fs::create_dir(folder).expect("folder of a root");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).expect("its mode");
    }
    let args = [&["."], words].concat();
    let run = sandbox.run("/usr/sbin/chroot", args);
    run.env("HOME", "/home").env("TMPDIR", "/tmp").env("RBUILD_STORE", "/home/store")
}

/// The kinds of the program headers of an ELF file of 64 bits, little endian.
fn segments(elf: &[u8]) -> Vec<u64> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "an ELF file of 64 bits, little endian");
    let number = |at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let at = |value: u64| usize::try_from(value).expect("an offset in the file");
    let (start, size, count) = (at(number(32, 8)), at(number(54, 2)), at(number(56, 2)));
    (0..count).map(|index| number(start + index * size, 4)).collect()
}
