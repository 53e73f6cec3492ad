//! A network and file system of a test's own, so that it can listen on port 80, rename hosts, or
//! fill a disk, and the machine notices nothing.

use std::{fmt::Debug, process::Command, time::Duration};

use crate::{
    peers,
    process::{Process, mortal},
    scratch::Scratch,
};

/// A private network (loopback only) and a private view of the file system, while the value lives.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
    _dir: Scratch,
}

impl Namespace {
    /// Makes both, and runs `setup` (a shell command) inside.
    pub fn new(setup: &str) -> Self {
        for (program, package) in
            [("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")]
        {
            peers::need(program, package);
        }
        let dir = Scratch::new();
        let ready = dir.join("ready");
        let script = format!("ip link set lo up && {setup} && touch \"$0\" && exec sleep infinity");
        let mut command: Command = mortal("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script]);
        command.arg(&ready);
        let mut holder = Process::start(command);
        let made = holder.until(Duration::from_secs(20), |_| ready.exists().then_some(()));
        assert!(made.is_some(), "no private namespaces: this needs root (CAP_SYS_ADMIN)");
        Self { holder, _dir: dir }
    }

    /// The id of a process that is inside as long as the value lives.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// The words before a command that is to run inside, in `folder`.
    pub fn enter(&self, folder: &str) -> Vec<String> {
        let target = self.holder.id();
        ["nsenter", "--net", "--mount", &format!("--target={target}"), &format!("--wdns={folder}")]
            .map(str::to_owned)
            .into()
    }
}

/// The words before a command that is to see the result of `mounts` (a shell command, to which
/// `"$0"` is `folder`), which nobody else sees.
pub fn with_mounts<'a>(mounts: &'a str, folder: &'a str, script: &'a mut String) -> [&'a str; 8] {
    *script = format!("{mounts} && exec \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, folder]
}
