//! The process above all commands of a build.
//!
//! It is a session of its own and a *subreaper*: whatever a command starts, and however it hides
//! (in a session of its own, under a parent that is gone), stays below this process. When the
//! build is over, or rbuild is gone, for whatever reason, it ends all of that, removes the folder
//! of the build, and exits.
//!
//! Shells are started with `posix_spawn`, which copies nothing of this process: its program is
//! large, and a copy of what describes its memory takes longer than many a command.
//!
//! **Architecture invariant:** one thread, no runtime, and nothing of rbuild's memory: it is a
//! fresh process of our program, which knows a folder, the arguments and the variables of a shell, and
//! two channels.

use std::{
    env,
    ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_short},
    fs, io,
    os::{
        fd::{BorrowedFd, OwnedFd, RawFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::{Errno, FdFlags},
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
    let Some(folder) = arguments.next().map(PathBuf::from) else { return ExitCode::from(2) };
    let script: Vec<OsString> = arguments.collect();
    if script.is_empty() {
        return ExitCode::from(2);
    }
    // It is removed in the end, so it had better be ours, should a person call this.
    if !folder::is_private_folder(&folder) {
        return ExitCode::from(2);
    }
    // As long as this is held, nobody takes the folder for one that was left behind.
    let _lock = folder::lock(&folder);
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
    /// Orders come from here, for as long as someone can give one.
    orders: Option<OwnedFd>,
    /// The shell, and its arguments.
    script: Vec<CString>,
    /// The variables of each command, `NAME=value` and a NUL each: those that all have, and those
    /// that came with an order.
    fixed: Vec<u8>,
    variables: Vec<u8>,
    running: Option<Running>,
}

/// The shell of the command that runs.
struct Running {
    pid: Pid,
    /// Is readable when it has ended. Linux before 5.3 has none.
    pidfd: Option<OwnedFd>,
}

/// What a supervisor is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// There is a request.
    Request,
    /// There is an order.
    Order,
    Nothing,
}

impl Supervisor {
    /// Makes this process one: standard streams are then those of commands.
    fn new(script: Vec<OsString>) -> rustix::io::Result<Self> {
        ignore_signals();
        keep_from_commands();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // This fails only where we lead a session already.
        let _ = rustix::process::setsid();
        let channel = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let orders = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
        rustix::stdio::dup2_stdin(open(Path::new("/dev/null"))?)?;
        rustix::stdio::dup2_stderr(io::stdout())?;
        let script = script.into_iter().map(|it| CString::new(it.into_vec()));
        Ok(Self {
            channel,
            is_open: true,
            orders: Some(orders),
            script: script.collect::<Result<_, _>>().map_err(|_| Errno::INVAL)?,
            fixed: block(env::vars_os()),
            variables: Vec::new(),
            running: None,
        })
    }

    /// Does what it is asked until it is asked to quit, or there is nobody to ask.
    fn serve(&mut self) {
        while self.is_open {
            let timeout = match &self.running {
                Some(Running { pidfd: None, .. }) => Some(Duration::from_millis(5)),
                // Orphans that have ended are to be reaped some time.
                Some(_) => Some(Duration::from_secs(1)),
                None => None,
            };
            let asked = self.wait_for_something(timeout);
            self.reap();
            match asked {
                Asked::Request => self.answer(),
                Asked::Order => self.take_order(),
                Asked::Nothing => {}
            }
        }
    }

    fn answer(&mut self) {
        self.forget_order();
        match self.next_request() {
            Request::Reset => self.end_everything(GRACE),
            Request::Stop => self.end_everything(GRACE_TO_STOP),
            Request::Kill => self.end_everything(Duration::ZERO),
            Request::Quit => return self.end_everything(GRACE),
        }
        self.tell(Report::Quiet);
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

    fn take_order(&mut self) {
        let Some(mut order) = self.orders.as_ref().and_then(channel::take_order) else {
            self.orders = None;
            return;
        };
        if let Some(variables) = order.variables.take() {
            self.variables = variables;
        }
        let variables = [self.variables.as_slice(), &self.fixed];
        let started = match order == Order::default() {
            true => spawn(&self.script, variables),
            false => fork(&self.script, variables, order),
        };
        match started {
            Ok(pid) => {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                self.running = Some(Running { pid, pidfd });
            }
            Err(err) => self.tell(Report::NotStarted(err.raw_os_error().unwrap_or_default())),
        }
    }

    /// Waits for a request, for an order if no command runs, for the end of the one that runs, or
    /// for a while.
    fn wait_for_something(&self, timeout: Option<Duration>) -> Asked {
        let pidfd = self.running.as_ref().and_then(|it| it.pidfd.as_ref());
        let orders = self.orders.as_ref().filter(|_| self.running.is_none());
        let [is_requested, is_ordered, _] =
            poll([Some(&self.channel).filter(|_| self.is_open), orders, pidfd], timeout);
        match (is_requested, is_ordered) {
            (true, _) => Asked::Request,
            (false, true) => Asked::Order,
            (false, false) => Asked::Nothing,
        }
    }

    /// Waits for a while, or for a request, or for the end of the command; true if it is a request.
    fn pause(&self, time: Duration) -> bool {
        let pidfd = self.running.as_ref().and_then(|it| it.pidfd.as_ref());
        let [is_requested, _] =
            poll([Some(&self.channel).filter(|_| self.is_open), pidfd], Some(time));
        is_requested
    }

    /// Forgets the order that was given just before everything is to end.
    fn forget_order(&mut self) {
        if let Some(orders) = &self.orders
            && let [true] = poll([Some(orders)], Some(Duration::ZERO))
        {
            channel::take_order(orders);
        }
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
        if self.running.take_if(|it| it.pid == pid).is_none() {
            return;
        }
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
            if self.pause(pause) {
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

/// Waits until one of the files can be read, or has an end, or `timeout` is over; which ones do.
fn poll<const N: usize>(files: [Option<&OwnedFd>; N], timeout: Option<Duration>) -> [bool; N] {
    let mut fds: Vec<PollFd<'_>> =
        files.iter().flatten().map(|it| PollFd::new(*it, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|it| Timespec::try_from(it).ok());
    // An error means a signal, or no memory: in both cases, look again.
    let is_polled = rustix::event::poll(&mut fds, timeout.as_ref()).is_ok();
    let mut fds = fds.iter();
    files.map(|it| {
        it.and_then(|_| fds.next()).is_some_and(|it| is_polled && !it.revents().is_empty())
    })
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

/// Variables, `NAME=value` and a NUL each.
fn block(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in variables {
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            block.extend_from_slice(part);
        }
    }
    block
}

/// Each `NAME=value` of two blocks.
fn each(blocks: [&[u8]; 2]) -> impl Iterator<Item = &CStr> {
    let all = blocks.into_iter().flat_map(|it| it.split_inclusive(|byte| *byte == 0));
    all.filter_map(|it| CStr::from_bytes_with_nul(it).ok())
}

/// Starts a shell as an order says that is out of the ordinary.
fn fork(script: &[CString], variables: [&[u8]; 2], order: Order) -> io::Result<Pid> {
    let of_bytes = |it: &[u8]| OsStr::from_bytes(it).to_owned();
    let (shell, arguments) = script.split_first().ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(of_bytes(shell.to_bytes()));
    command.args(arguments.iter().map(|it| of_bytes(it.to_bytes()))).env_clear();
    for it in each(variables) {
        let it = it.to_bytes();
        let equals = it.iter().position(|byte| *byte == b'=').unwrap_or(it.len());
        let value = it.get(equals + 1..).unwrap_or_default();
        command.env(of_bytes(&it[..equals]), of_bytes(value));
    }
    #[expect(unsafe_code, reason = "the standard library has no other way to do this in a child")]
    // SAFETY: this process has one thread, so no lock is held by another one when it forks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            Ok(obey(&order)?)
        });
    }
    Ok(Pid::from_child(&command.spawn()?))
}

/// Starts a shell that leads a session, so that no terminal and no signal to a group reaches it.
fn spawn(script: &[CString], variables: [&[u8]; 2]) -> io::Result<Pid> {
    let null = [std::ptr::null()];
    let arguments: Vec<*const c_char> = script.iter().map(|it| it.as_ptr()).chain(null).collect();
    let environment: Vec<*const c_char> = each(variables).map(CStr::as_ptr).chain(null).collect();
    let mut attributes = Attributes([0; 64]);
    let mut pid = 0;
    // Rust programs ignore this signal; others should not.
    let mut signals = Signals([0; 16]);
    signals.0[0] = 1 << (Signal::PIPE.as_raw() - 1);
    #[expect(unsafe_code, reason = "the standard library has no other way to use SETSID")]
    // SAFETY: `attributes` is large enough for the attributes of each C library, and initialised
    // before it is used; `arguments`, of which there is one, and `environment` end in a null, and what
    // they point to lives until the end.
    let errno = unsafe {
        posix_spawnattr_init(&raw mut attributes);
        posix_spawnattr_setsigdefault(&raw mut attributes, &raw const signals);
        posix_spawnattr_setflags(&raw mut attributes, SPAWN_SETSIGDEF | SPAWN_SETSID);
        let program = arguments[0];
        let no_actions = std::ptr::null();
        posix_spawn(
            &raw mut pid,
            program,
            no_actions,
            &raw const attributes,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    match (errno, Pid::from_raw(pid)) {
        (0, Some(pid)) => Ok(pid),
        (errno, _) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `posix_spawnattr_t`, which has 336 bytes in glibc and in musl; and then some.
#[repr(C, align(16))]
struct Attributes([u64; 64]);

/// `sigset_t`: a bit for each signal, the first one for 1.
#[repr(C)]
struct Signals([u64; 16]);

// spawn.h; these are the same in glibc and in musl.
const SPAWN_SETSIGDEF: c_short = 0x04;
const SPAWN_SETSID: c_short = 0x80;

#[expect(unsafe_code, reason = "neither the standard library nor rustix has these")]
// SAFETY: these are the signatures of the C library, which every program has that uses the standard
// library. `signal` gets functions, or SIG_DFL, which is 0.
unsafe extern "C" {
    fn posix_spawnattr_init(attributes: *mut Attributes) -> c_int;
    fn posix_spawnattr_setsigdefault(attributes: *mut Attributes, signals: *const Signals)
    -> c_int;
    fn posix_spawnattr_setflags(attributes: *mut Attributes, flags: c_short) -> c_int;
    fn posix_spawn(
        pid: *mut c_int,
        program: *const c_char,
        actions: *const u8,
        attributes: *const Attributes,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
    safe fn signal(number: c_int, handler: Option<extern "C" fn(c_int)>) -> usize;
}

/// Keeps files from commands that whoever called rbuild has left open: they are none of the build's,
/// and who waits for the end of one would wait for a command that holds it.
fn keep_from_commands() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> =
        entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|it| 2 < *it) {
        #[expect(unsafe_code, reason = "the standard library and rustix list no open files")]
        // SAFETY: it is used for this call alone. The file is open, or the call says that it is
        // not, as for the one that was read above; nothing else opens or closes files meanwhile.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}

/// Lets signals do nothing to this process: rbuild decides when a build ends, and a supervisor
/// that ends before would leave the build's processes to nobody.
///
/// The signals have a handler rather than being ignored, since processes that we start would go
/// on to ignore them.
fn ignore_signals() {
    extern "C" fn nothing(_: i32) {}
    for it in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2] {
        signal(it.as_raw(), Some(nothing));
    }
    // Whoever started rbuild may ignore this one, and then no process could be waited for.
    signal(Signal::CHILD.as_raw(), None);
}
