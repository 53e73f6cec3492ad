//! Docker's own daemon, with folders of its own: what it loads is what the rest of the world loads.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    peers,
    process::{Process, mortal},
    scratch::Scratch,
};

const START: Duration = Duration::from_mins(1);

/// A docker that runs, without any network.
#[derive(Debug)]
pub struct Docker {
    // In this order: the process must have ended when its folder is removed.
    _process: Process,
    dir: Scratch,
}

impl Docker {
    /// Starts one, in file systems of its own, so that nothing that it mounts is left.
    pub fn start() -> Self {
        let program = peers::need("dockerd", "docker.io");
        let dir = Scratch::new();
        let path = |name: &str| dir.join(name).display().to_string();
        let mut command: Command = mortal("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(program);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        // Needs nothing of the kernel, and what is small is copied quickly.
        command.args(["--storage-driver", "vfs"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.args(["--pidfile", &path("pid"), "--host", &format!("unix://{}", path("socket"))]);
        let log = std::fs::File::create(dir.join("log")).expect("log of docker");
        let copy = log.try_clone().expect("log of docker");
        command.stdin(std::process::Stdio::null()).stdout(log).stderr(copy);
        let mut process = Process::start(command);
        let docker = dir.join("socket");
        let answers = || docker.exists() && answers(&docker);
        let started = process.until(START, |_| answers().then_some(()));
        let text = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(started.is_some(), "dockerd does not start (it needs root):\n{text}");
        Self { _process: process, dir }
    }

    /// Asks it for something, which it must do; what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let host = format!("unix://{}", self.dir.join("socket").display());
        let mut words = vec!["--host", &host];
        words.extend(args);
        peers::run("docker", "docker.io", &words)
    }
}

fn answers(socket: &PathBuf) -> bool {
    let mut command = Command::new(peers::need("docker", "docker.io"));
    command.arg("--host").arg(format!("unix://{}", socket.display())).arg("version");
    command.output().is_ok_and(|it| it.status.success())
}
