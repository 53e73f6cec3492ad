//! The servers that the program talks to, on ports of this machine that the kernel chose.
//!
//! A server is asked to listen on port 0, and its port is then read from `/proc`: two tests can
//! never want the same one.

pub mod moto;
pub mod registry;
pub mod scripted;
pub mod token;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::{process::Process, scratch::Scratch};

pub use self::{
    moto::Moto,
    registry::{Auth, Registry},
    scripted::Scripted,
    token::Tokens,
};

const START: Duration = Duration::from_mins(1);

/// A server program that runs, and ends with its value.
#[derive(Debug)]
struct Server {
    /// The port on 127.0.0.1 that it listens on.
    port: u16,
    log: PathBuf,
    // In this order: the process must have ended when its folder is removed.
    process: Process,
    _dir: Scratch,
}

impl Server {
    /// Starts a server, whose files are in `dir`, and waits until it listens.
    fn start(mut command: Command, dir: Scratch) -> Self {
        let log = dir.join("log");
        let file = File::create(&log).expect("log of a server");
        let copy = file.try_clone().expect("log of a server");
        let name = format!("{command:?}");
        let mut process = Process::start({
            command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
            command
        });
        let Some(port) = process.until(START, |it| listens_on(it.id())) else {
            panic!("{name} does not listen:\n{}", read(&log));
        };
        Self { port, log, process, _dir: dir }
    }

    /// What it has written so far.
    fn log(&self) -> String {
        read(&self.log)
    }
}

fn read(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The port that a process listens on, in whatever network it lives.
pub fn listens_on(id: u32) -> Option<u16> {
    let entries = fs::read_dir(format!("/proc/{id}/fd")).ok()?;
    let sockets: Vec<_> = entries.filter_map(|it| fs::read_link(it.ok()?.path()).ok()).collect();
    let table = fs::read_to_string(format!("/proc/{id}/net/tcp")).ok()?;
    let is_own = |inode: &str| {
        let name = PathBuf::from(format!("socket:[{inode}]"));
        sockets.contains(&name)
    };
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, address, _, state, ..] = fields[..] else { return None };
        // 0A is TCP_LISTEN; the tenth field is the inode.
        let listens = state == "0A" && fields.get(9).is_some_and(|inode| is_own(inode));
        let port = address.split_once(':')?.1;
        listens.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sandbox, namespace::Namespace, peers};

    /// Copies an empty image, which `umoci` makes, into a registry. Whether `skopeo` may.
    fn may_push(registry: &Registry, credentials: &str) -> bool {
        let sandbox = Sandbox::new("skopeo", &[]);
        let layout = sandbox.path().join("layout").display().to_string();
        peers::run("umoci", "umoci", &["init", "--layout", &layout]);
        peers::run("umoci", "umoci", &["new", "--image", &format!("{layout}:latest")]);
        let from = format!("oci:{layout}:latest");
        let to = format!("docker://{}", registry.image("team/x:1"));
        let args = ["copy", "--dest-tls-verify=false", "--dest-creds", credentials, &from, &to];
        sandbox.rbuild(args).go().status.success()
    }

    #[test]
    fn registries_let_in_whom_they_should() {
        let tokens = Tokens::start("me", "secret");
        for auth in [Auth::Basic("me", "secret"), Auth::Bearer(&tokens)] {
            let registry = Registry::start(auth);
            assert!(may_push(&registry, "me:secret"), "{auth:?}");
            assert!(!may_push(&registry, "me:wrong"), "{auth:?}");
            assert!(!registry.requests("team/x").is_empty(), "{auth:?}");
        }
        assert_ne!(tokens.given(), 0);
    }

    #[test]
    fn moto_answers_in_a_network_of_its_own() {
        let sandbox = Sandbox::new("true", &[]);
        let namespace = Namespace::new("true");
        let moto = Moto::start_in(&namespace);
        let script = "print(client('sts').get_caller_identity()['Account'])";
        let run = || moto.python(&sandbox, script, &[]);
        let inside = namespace.enter(&sandbox.src().display().to_string());
        assert_eq!(run().under(inside).ok().line(), "123456789012");
        assert!(!run().go().status.success(), "it can be reached from outside");
    }
}
