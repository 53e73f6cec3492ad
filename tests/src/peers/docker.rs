//! Docker as Debian has it: a daemon of our own, with BuildKit in it.

use std::{
    ffi::OsStr,
    fs,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;

use super::{finish, need};
use crate::{
    process::{Process, mortal},
    scratch::Scratch,
};

const START: Duration = Duration::from_mins(1);

/// A docker daemon that runs, with a storage of its own, and ends with its value.
///
/// Its mounts are in a namespace of its own. It starts no containers: no test needs that.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    config: PathBuf,
    // In this order: the process must have ended when its folders are removed.
    process: Process,
    _dir: Scratch,
    /// For sockets, whose paths must be short.
    _run: Scratch,
}

impl Docker {
    /// One for all tests of this process. Its storage needs nothing of the file system.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Docker> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("vfs", Scratch::new()))
    }

    /// Starts one that keeps everything in a folder of its own there.
    pub fn start_below(folder: &Path) -> Self {
        Self::start("overlay2", Scratch::below(folder))
    }

    fn start(driver: &str, dir: Scratch) -> Self {
        let daemon = need("dockerd", "docker.io");
        let run = Scratch::new();
        let (socket, log, config) = (run.join("socket"), dir.join("log"), dir.join("config"));
        fs::create_dir(&config).expect("folder of the configuration");
        let log_file = File::create(&log).expect("log of dockerd");
        let mut command = mortal("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(daemon);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        // The file of the machine's own daemon, if it has one, says nothing here.
        let settings = dir.write("daemon.json", "{}");
        command.arg("--config-file").arg(settings);
        command.args(["--storage-driver", driver, "--data-root"]).arg(dir.join("data"));
        command.arg("--exec-root").arg(run.join("exec")).arg("--pidfile").arg(dir.join("pid"));
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(log_file.try_clone().expect("log of dockerd"));
        command.stderr(log_file);
        let mut process = Process::start(command);
        let answers = process.until(START, |_| answers(&socket).then_some(()));
        if answers.is_none() {
            let log = fs::read(log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let end: Vec<_> = log.lines().rev().take(10).collect();
            panic!("dockerd does not start; the end of its log, backwards:\n{}", end.join("\n"));
        }
        Self { socket, config, process, _dir: dir, _run: run }
    }

    /// Ends it, and keeps what it has stored.
    pub fn stop(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.ends_within(START);
    }

    /// The daemon's process; containerd is a child of it.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// A command of the client that was written for this daemon.
    pub fn command(&self) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.env("DOCKER_CONFIG", &self.config).env("DOCKER_BUILDKIT", "1");
        command
    }

    /// Runs the client to its end, which must be a good one; returns what it printed.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        String::from_utf8_lossy(&finish(self.command().args(args))).into_owned()
    }

    /// The root filesystem of an image, as an archive: that of a container that was not started,
    /// in which the daemon has made what it mounts things on ([`Docker::MADE`]).
    #[track_caller]
    pub fn export(&self, image: &str) -> Vec<u8> {
        let container = self.run(["create", "--network", "none", image]);
        let archive = finish(self.command().args(["export", container.trim()]));
        self.run(["rm", container.trim()]);
        archive
    }

    /// What a container has that its image need not have.
    pub const MADE: [&str; 5] = [".dockerenv", "dev", "etc", "proc", "sys"];
}

/// Whether the daemon answers on its socket.
fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(START))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|it: String| it.starts_with("HTTP/1.0 200"))
}
