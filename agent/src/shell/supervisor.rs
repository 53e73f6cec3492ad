//! The process above all commands of a build.
//!
//! It is a session of its own and a *subreaper*: whatever a command starts, and however it hides
//! (in a session of its own, under a parent that is gone), stays below this process. When the
//! build is over, or rbuild is gone, for whatever reason, it ends all of that, removes the folder
//! of the build, and exits.
//!
//! The process of the next command is there before it is needed: it waits for its order, and then
//! becomes the shell. So a command costs one `exec`, and no time for making a process.
//!
//! **Architecture invariant:** one thread, no runtime, and nothing of rbuild's memory: it is a
//! fresh process of our program, which knows a folder, the arguments of a shell, and two channels.

use std::{
    env, fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    pipe::PipeFlags,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
    thread::{Gid, Uid},
};

use crate::shell::{
    channel::{self, Order, Report, Request},
    folder,
    processes::{GRACE_TO_DIE, signal_all},
    user::Identity,
};

/// How long processes have to end after a build that is over, or before one that starts afresh.
const GRACE: Duration = Duration::from_secs(2);

/// How long processes have to end when someone asks the build to stop.
const GRACE_TO_STOP: Duration = Duration::from_secs(5);

/// Is the supervisor of a build: what the program does when its first argument is
/// [`SUPERVISE`](super::SUPERVISE), before it does anything else.
///
/// Its standard input is the channel of requests, its standard output is what commands write to,
/// and its standard error is the pipe of orders.
pub fn supervise() -> ExitCode {
    let mut arguments = env::args_os().skip(2);
    let (Some(folder), Some(shell)) = (arguments.next().map(PathBuf::from), arguments.next())
    else {
        return ExitCode::from(2);
    };
    // It is removed in the end, so it had better be ours, should a person call this.
    if !folder::is_private_folder(&folder) {
        return ExitCode::from(2);
    }
    // As long as this is held, nobody takes the folder for one that was left behind.
    let _lock = folder::lock(&folder);
    let mut script = Command::new(shell);
    script.args(arguments);
    let Ok(mut supervisor) = Supervisor::new(script) else { return ExitCode::from(3) };
    supervisor.serve();
    // Our build may have removed it.
    let _ = fs::remove_dir_all(folder);
    ExitCode::SUCCESS
}

struct Supervisor {
    /// Requests come from here, and reports go there.
    channel: OwnedFd,
    is_open: bool,
    orders: OwnedFd,
    script: Command,
    next: Option<Next>,
    /// The shell of the next command says here that it has its order, and why it cannot be run.
    notes: (OwnedFd, OwnedFd),
}

/// The process of the command that runs, or of the one that comes next.
struct Next {
    pid: Pid,
    /// Is readable when it has ended. Linux before 5.3 has none.
    pidfd: Option<OwnedFd>,
}

/// How long to wait before another try to make a process.
const PAUSE: Duration = Duration::from_millis(20);

impl Supervisor {
    /// Makes this process one: standard streams are then those of commands.
    fn new(script: Command) -> rustix::io::Result<Self> {
        ignore_signals();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // This fails only where we lead a session already.
        let _ = rustix::process::setsid();
        let channel = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let orders = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
        rustix::stdio::dup2_stdin(open(Path::new("/dev/null"))?)?;
        rustix::stdio::dup2_stderr(io::stdout())?;
        let notes = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { channel, is_open: true, orders, script, next: None, notes })
    }

    /// Does what it is asked until it is asked to quit, or there is nobody to ask.
    fn serve(&mut self) {
        while self.is_open {
            self.prepare();
            let timeout = match &self.next {
                None => PAUSE,
                Some(Next { pidfd: None, .. }) => Duration::from_millis(5),
                // Orphans that have ended are to be reaped some time.
                Some(_) => Duration::from_secs(1),
            };
            let is_asked = self.wait_for_something(timeout);
            self.reap();
            if !is_asked {
                continue;
            }
            match self.next_request() {
                Request::Reset => self.end_everything(GRACE),
                Request::Stop => self.end_everything(GRACE_TO_STOP),
                Request::Kill => self.end_everything(Duration::ZERO),
                Request::Quit => {
                    self.end_everything(GRACE);
                    return;
                }
            }
            self.tell(Report::Quiet);
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

    /// Sees to it that there is a process for the next command.
    fn prepare(&mut self) {
        if self.next.is_some() {
            return;
        }
        match fork() {
            Ok(None) => self.become_shell(),
            Ok(Some(pid)) => {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                self.next = Some(Next { pid, pidfd });
            }
            // It matters when the process is wanted, and not before.
            Err(errno) if is_readable(&self.orders) => {
                channel::take_order(&self.orders);
                self.tell(Report::NotStarted(errno.raw_os_error()));
            }
            Err(_) => {}
        }
    }

    /// Is the process of the next command, and never returns.
    fn become_shell(&mut self) -> ! {
        default_signals();
        let _ = rustix::process::setsid();
        die_with_the_supervisor();
        let Some(order) = channel::take_order(&self.orders) else { std::process::exit(0) };
        let _ = channel::write(&self.notes.1, &[0]);
        let err = match obey(&order) {
            Ok(()) => self.script.exec(),
            Err(errno) => errno.into(),
        };
        let errno = err.raw_os_error().unwrap_or_default();
        let _ = channel::write(&self.notes.1, &errno.to_le_bytes());
        std::process::exit(127)
    }

    /// Waits for a request, for the end of the command, or for a while; true if it is a request.
    fn wait_for_something(&self, timeout: Duration) -> bool {
        let mut fds = Vec::with_capacity(2);
        if self.is_open {
            fds.push(PollFd::new(&self.channel, PollFlags::IN));
        }
        if let Some(Next { pidfd: Some(pidfd), .. }) = &self.next {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        let timeout = Timespec::try_from(timeout).ok();
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
        if self.next.as_ref().is_none_or(|it| it.pid != pid) {
            return;
        }
        self.next = None;
        let mut notes = [0; 5];
        match rustix::io::read(&self.notes.0, &mut notes) {
            Ok(1) => self.tell(match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => Report::Exited(status),
                (None, signal) => Report::Killed(signal.unwrap_or(0)),
            }),
            Ok(_) => {
                let errno = i32::from_le_bytes([notes[1], notes[2], notes[3], notes[4]]);
                self.tell(Report::NotStarted(errno));
            }
            // Someone ended it before its turn: the next one takes the order.
            Err(_) => {}
        }
    }

    /// Ends the process that waits for the next command.
    fn dismiss(&mut self) {
        let (notes, _) = &self.notes;
        if let Some(next) = self.next.take_if(|_| !is_readable(notes)) {
            let _ = rustix::process::kill_process(next.pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(next.pid), WaitOptions::empty());
        }
    }

    /// Asks every process below this one to end, and kills what has not after `grace`.
    fn end_everything(&mut self, grace: Duration) {
        self.dismiss();
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
            if self.wait_for_something(pause) {
                match self.next_request() {
                    Request::Kill => grace = start.elapsed(),
                    Request::Quit => grace = grace.min(start.elapsed() + GRACE),
                    Request::Reset | Request::Stop => {}
                }
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Gives this process what the order says.
fn obey(order: &Order) -> rustix::io::Result<()> {
    if let Some(terminal) = &order.terminal {
        // A session without a terminal gets the first one that its leader opens.
        let terminal = open_terminal(terminal)?;
        rustix::stdio::dup2_stdin(&terminal)?;
        rustix::stdio::dup2_stdout(&terminal)?;
        rustix::stdio::dup2_stderr(&terminal)?;
    }
    if let Some(identity) = &order.identity {
        assume(identity)?;
        // The kernel forgets this when a process changes its user.
        die_with_the_supervisor();
    }
    Ok(())
}

/// Makes this process, which has one thread, one of another user.
fn assume(Identity { uid, gid, groups }: &Identity) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_gid(Gid::from_raw(*gid))?;
    rustix::thread::set_thread_uid(Uid::from_raw(*uid))
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn open_terminal(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Lets this process die with its parent, should anyone kill that.
fn die_with_the_supervisor() {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}

#[expect(unsafe_code, reason = "neither the standard library nor rustix has these")]
// SAFETY: these are the signatures of fork(2) and signal(2) of the C library, which every program
// has that uses the standard library; for handlers that are functions, and for SIG_DFL, which is 0.
unsafe extern "C" {
    #[link_name = "fork"]
    fn c_fork() -> i32;
    #[link_name = "signal"]
    safe fn c_signal(number: i32, handler: Option<extern "C" fn(i32)>) -> usize;
}

/// Makes a process like this one; none is the one that was made.
fn fork() -> rustix::io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "neither the standard library nor rustix has this")]
    // SAFETY: this process has one thread, so the new one finds no lock held and no half-done work.
    let pid = unsafe { c_fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::AGAIN, Errno::from_raw_os_error)),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The signals that do nothing to a supervisor.
const DEAF_TO: [Signal; 6] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Lets signals do nothing to this process: rbuild decides when a build ends, and a supervisor
/// that ends before would leave the build's processes to nobody.
fn ignore_signals() {
    extern "C" fn nothing(_: i32) {}
    for it in DEAF_TO {
        c_signal(it.as_raw(), Some(nothing));
    }
    // Whoever started rbuild may ignore this one, and then no process could be waited for.
    c_signal(Signal::CHILD.as_raw(), None);
}

/// Lets signals do what they do to every process.
fn default_signals() {
    for it in DEAF_TO {
        c_signal(it.as_raw(), None);
    }
}
