//! A child process: how to wait for it without sleeping, and how it ends.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

/// A running child, the leader of a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program.
    pub fn start(command: Command) -> Self {
        let name = command.get_program().display().to_string();
        let child = spawn(command).unwrap_or_else(|err| panic!("`{name}` does not start: {err}"));
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd");
        Self { child, pidfd, ended: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends, but no longer than this. Also the way to pause while something else is
    /// awaited that the process brings about.
    pub fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() && is_over(&self.pidfd, limit) {
            self.ended = Some(self.child.wait().expect("status of a child"));
        }
        self.ended
    }

    /// Waits until `look` finds something, but no longer than `limit` nor than the process lives.
    pub fn until<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            // The last look comes after the end, since what is awaited may be its last deed.
            let last = self.ends_within(Duration::from_millis(5)).is_some() || end < Instant::now();
            let found = look(self);
            if found.is_some() || last {
                return found;
            }
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have ended in the meantime, which its status will tell.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }
}

fn is_over(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("a limit that fits");
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)) {
        Ok(ready) => 0 < ready,
        Err(rustix::io::Errno::INTR) => false,
        Err(err) => panic!("poll: {err}"),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            drop(self.child.wait());
        }
    }
}

/// A command that the kernel kills when the test process ends, however that happens.
pub fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// The processes, other than our own, whose environment, arguments or working folder name `folder`.
pub fn processes_that_know(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("a folder whose name is text");
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id()).filter_map(|id| knows(id, folder)).collect()
}

/// As [`processes_that_know`], but those that end within this time do not count.
pub fn processes_that_stay(folder: &Path, limit: Duration) -> Vec<String> {
    let end = Instant::now() + limit;
    loop {
        let found = processes_that_know(folder);
        let id = found.first().and_then(|it| it.split(' ').next()?.parse().ok());
        let Some(id) = id.and_then(Pid::from_raw) else { return found };
        let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { continue };
        let left = end.saturating_duration_since(Instant::now());
        if !is_over(&pidfd, left) {
            return found;
        }
    }
}

fn knows(id: u32, folder: &str) -> Option<String> {
    let read = |name| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let environment = String::from_utf8_lossy(&read("environ")).into_owned();
    let cwd = fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default().display().to_string();
    let known = [&arguments, &environment, &cwd].into_iter().any(|text| text.contains(folder));
    known.then(|| format!("{id} {arguments}"))
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as the test process: the kernel counts the
/// *thread* that started a child as its parent when it comes to signals on a parent's death, and a
/// thread that runs a test ends with the test.
fn spawn(mut command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    command.process_group(0);
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    keeper.lock().expect("keeper").send((command, reply)).expect("keeper that runs");
    answer.recv().expect("keeper that answers")
}
