//! Finds and signals what runs below a process, by what `/proc` says.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::{
    event::Timespec,
    process::{Pid, Signal, WaitOptions},
};

/// How long a process may take to die that was killed: it may hang in the kernel, or belong to
/// someone whom we may not send signals.
pub(super) const GRACE_TO_DIE: Duration = Duration::from_secs(5);

/// How long processes have to end that nobody looks after any more.
const GRACE_OF_ORPHANS: Duration = Duration::from_millis(500);

/// Sends `signal` to every process below this one.
pub(super) fn signal_all(signal: Signal) {
    signal_each(&below(rustix::process::getpid()), signal);
}

fn signal_each(processes: &[Process], signal: Signal) {
    for it in processes {
        // It may have ended by now.
        let _ = rustix::process::kill_process(it.pid, signal);
    }
}

/// Ends what a killed supervisor left to this process, which is a subreaper: each process below
/// this one in another session. What this process starts by itself is in its own session.
pub(super) fn end_orphans() {
    let start = Instant::now();
    let mut signal = Some(Signal::TERM);
    loop {
        let orphans = orphans();
        if orphans.is_empty() || GRACE_OF_ORPHANS + GRACE_TO_DIE < start.elapsed() {
            return;
        }
        if GRACE_OF_ORPHANS < start.elapsed() {
            signal = Some(Signal::KILL);
        }
        if let Some(signal) = signal.take() {
            signal_each(&orphans, signal);
        }
        pause(Duration::from_millis(5));
    }
}

/// Those that have not ended yet. Those that have are no more when this returns.
fn orphans() -> Vec<Process> {
    let own = rustix::process::getsid(None).ok();
    let mut orphans = below(rustix::process::getpid());
    orphans.retain(|it| it.session.is_some() && it.session != own);
    orphans.retain(|it| {
        let ended = rustix::process::waitpid(Some(it.pid), WaitOptions::NOHANG);
        !matches!(ended, Ok(Some(_)))
    });
    orphans
}

fn pause(time: Duration) {
    let time = Timespec::try_from(time).ok();
    // An error is a signal: then the pause is shorter.
    let _ = rustix::event::poll(&mut [], time.as_ref());
}

/// Every process below `root`.
fn below(root: Pid) -> Vec<Process> {
    let mut left = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let (children, others) = left.into_iter().partition(|it| it.parent == Some(parent));
        left = others;
        let children: Vec<Process> = children;
        parents.extend(children.iter().map(|it| it.pid));
        found.extend(children);
    }
    found
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
    session: Option<Pid>,
}

/// Every process that there is.
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
            // proc_pid_stat(5): state, parent, process group, session.
            let mut fields = rest.split_whitespace().skip(1);
            let parent = fields.next()?.parse().ok()?;
            let session = fields.nth(1)?.parse().ok()?;
            Some(Process { pid, parent: Pid::from_raw(parent), session: Pid::from_raw(session) })
        })
        .collect()
}
