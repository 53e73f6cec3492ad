//! The process above all commands of a build.
//!
//! It is a session of its own and a *subreaper*: whatever a command starts, and however it hides
//! (in a session of its own, under a parent that is gone), stays below this process. When the
//! build is over, or rbuild is gone, for whatever reason, it ends all of that, removes the folder
//! of the build, and exits.
//!
//! **Architecture invariant:** one thread, no runtime, and nothing of rbuild's memory: it is a
//! fresh process of our program, which knows two paths and a channel.

use std::{
    env, fs,
    io::{self, Stdin},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
};

use crate::shell::{
    channel::{self, Report, Request},
    folder,
};

/// How long processes have to end after a build that is over.
const GRACE: Duration = Duration::from_secs(2);

/// How long processes have to end when someone asks the build to stop.
const GRACE_TO_STOP: Duration = Duration::from_secs(5);

/// How long a process may take to die that was killed: it may hang in the kernel, or belong to
/// someone whom we may not send signals.
const GRACE_TO_DIE: Duration = Duration::from_secs(5);

/// Is the supervisor of a build: what the program does when its first argument is
/// [`SUPERVISE`](super::SUPERVISE), before it does anything else.
///
/// Its standard input is the channel, its standard output and error are what commands write to.
pub fn supervise() -> ExitCode {
    let mut arguments = env::args_os().skip(2).map(PathBuf::from);
    let (Some(folder), Some(shell)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    // It is removed in the end, so it had better be ours, should a person call this.
    if !folder::is_private_folder(&folder) {
        return ExitCode::from(2);
    }
    ignore_signals();
    if rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_err() {
        return ExitCode::from(3);
    }
    // This fails only where we lead a session already.
    let _ = rustix::process::setsid();
    let mut script = Command::new(shell);
    script.arg(folder::script_in(&folder)).stdin(Stdio::null());
    in_own_session(&mut script);
    Supervisor { channel: io::stdin(), is_open: true, script, running: None }.serve();
    // Our build may have removed it.
    let _ = fs::remove_dir_all(folder);
    ExitCode::SUCCESS
}

struct Supervisor {
    channel: Stdin,
    is_open: bool,
    script: Command,
    running: Option<Running>,
}

/// The shell of the command that runs.
struct Running {
    pid: Pid,
    /// Is readable when it has ended. Linux before 5.3 has none.
    pidfd: Option<OwnedFd>,
}

impl Supervisor {
    /// Does what it is asked until it is asked to quit, or there is nobody to ask.
    fn serve(&mut self) {
        while self.is_open {
            let timeout = match &self.running {
                Some(Running { pidfd: None, .. }) => Some(Duration::from_millis(5)),
                // Orphans that have ended are to be reaped some time.
                Some(_) => Some(Duration::from_secs(1)),
                None => None,
            };
            let is_asked = self.wait_for_something(timeout);
            self.reap();
            if !is_asked {
                continue;
            }
            match self.next_request() {
                Request::Run => self.start(),
                Request::Stop => {
                    self.end_everything(GRACE_TO_STOP);
                    self.tell(Report::Quiet);
                }
                Request::Kill => {
                    self.end_everything(Duration::ZERO);
                    self.tell(Report::Quiet);
                }
                Request::Quit => self.end_everything(GRACE),
            }
        }
    }

    fn next_request(&mut self) -> Request {
        let request = channel::receive(&self.channel);
        self.is_open = request != Request::Quit;
        request
    }

    fn tell(&self, report: Report) {
        // Who does not listen any more will be noticed when we listen next.
        let _ = channel::tell(&self.channel, report);
    }

    fn start(&mut self) {
        match self.script.spawn() {
            Ok(child) => {
                let pid = Pid::from_child(&child);
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                self.running = Some(Running { pid, pidfd });
            }
            Err(err) => self.tell(Report::NotStarted(err.raw_os_error().unwrap_or(0))),
        }
    }

    /// Waits for a request, for the end of the command, or for a while; true if it is a request.
    fn wait_for_something(&self, timeout: Option<Duration>) -> bool {
        let mut fds = Vec::new();
        if self.is_open {
            fds.push(PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN));
        }
        if let Some(Running { pidfd: Some(pidfd), .. }) = &self.running {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        let timeout = timeout.and_then(|it| Timespec::try_from(it).ok());
        // An error means a signal, or no memory: in both cases, look again.
        let is_ready = rustix::event::poll(&mut fds, timeout.as_ref()).is_ok();
        is_ready && self.is_open && !fds[0].revents().is_empty()
    }

    /// Takes note of all processes that have ended; true if there is none left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if self.running.as_ref().is_none_or(|it| it.pid != pid) {
            return;
        }
        self.running = None;
        self.tell(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Report::Exited(status),
            (None, signal) => Report::Killed(signal.unwrap_or(0)),
        });
    }

    /// Asks every process below this one to end, and kills what has not after `grace`.
    fn end_everything(&mut self, grace: Duration) {
        if self.reap() {
            return;
        }
        signal_all(Signal::TERM);
        let start = Instant::now();
        let mut grace = grace;
        let mut pause = Duration::from_millis(1);
        while !self.reap() {
            if start.elapsed() >= grace + GRACE_TO_DIE {
                return;
            }
            if start.elapsed() >= grace {
                signal_all(Signal::KILL);
            }
            if self.wait_for_something(Some(pause)) {
                match self.next_request() {
                    Request::Kill => grace = start.elapsed(),
                    Request::Quit => grace = grace.min(start.elapsed() + GRACE),
                    Request::Run | Request::Stop => {}
                }
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Sends `signal` to every process below this one.
fn signal_all(signal: Signal) {
    for pid in descendants() {
        // It may have ended by now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Every process below this one.
fn descendants() -> Vec<Pid> {
    let processes = processes();
    let mut found = vec![rustix::process::getpid()];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(processes.iter().filter(|it| it.parent == Some(parent)).map(|it| it.pid));
        next += 1;
    }
    found.split_off(1)
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
}

/// Every process that there is, from `/proc`.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid = Pid::from_raw(name.to_str()?.parse().ok()?)?;
            // What it is called stands in parentheses, and may hold some itself.
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
            let rest = String::from_utf8_lossy(&stat[end_of_name + 1..]).into_owned();
            let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
            Some(Process { pid, parent: Pid::from_raw(parent) })
        })
        .collect()
}

/// Makes the process lead a session, so that signals of a terminal do not reach it; and lets it
/// die with the supervisor, should anyone kill that.
#[expect(unsafe_code, reason = "the standard library has no other way to call setsid in a child")]
fn in_own_session(command: &mut Command) {
    // SAFETY: between fork and exec, the closure makes two system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
}

/// Lets signals do nothing to this process: rbuild decides when a build ends, and a supervisor
/// that ends before would leave the build's processes to nobody.
///
/// The signals have a handler rather than being ignored, since processes that we start would go
/// on to ignore them.
fn ignore_signals() {
    extern "C" fn nothing(_: i32) {}
    #[expect(unsafe_code, reason = "neither the standard library nor rustix sets signal handlers")]
    // SAFETY: this is the signature of signal(2) of the C library, which every program has that
    // uses the standard library, for handlers that are functions.
    unsafe extern "C" {
        safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    for it in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2] {
        signal(it.as_raw(), nothing);
    }
    // Whoever started rbuild may ignore this one, and then no process could be waited for.
    signal(Signal::CHILD.as_raw(), nothing);
}
