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
    let here = rustix::process::getpid();
    let Some(own) = process(here) else { return Vec::new() };
    let mut orphans = below(here);
    orphans.retain(|it| 0 < it.session && it.session != own.session);
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
        let (children, others) = left.into_iter().partition(|it| it.parent == parent.as_raw_pid());
        left = others;
        let children: Vec<Process> = children;
        parents.extend(children.iter().map(|it| it.pid));
        found.extend(children);
    }
    found
}

struct Process {
    pid: Pid,
    /// 0 for one outside of this PID namespace.
    parent: i32,
    /// 0 if its leader is outside of this PID namespace, as it is for what `docker exec` or
    /// `unshare --pid` start, and -1 for a process that is just ending.
    session: i32,
}

/// Every process that there is.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            process(Pid::from_raw(name.to_str()?.parse().ok()?)?)
        })
        .collect()
}

/// What `/proc` says of a process.
///
/// `getsid` will not do for the session: rustix takes its answer for a PID, which 0 is not.
fn process(pid: Pid) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (parent, session) = parent_and_session(&stat)?;
    Some(Process { pid, parent, session })
}

/// Takes them from what stands in a file `stat`, `proc_pid_stat(5)`.
fn parent_and_session(stat: &[u8]) -> Option<(i32, i32)> {
    // What the process is called stands in parentheses, and may hold some itself.
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    // State, parent, process group, session.
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_and_sessions_are_read_whatever_they_are() {
        let of = |stat: &[u8]| parent_and_session(stat);
        assert_eq!(of(b"7 (sh) S 5 6 4 0 -1 4194304"), Some((5, 4)));
        assert_eq!(of(b"7 (a) R 1 1 1 (\xff) S 5 6 4 0 -1"), Some((5, 4)), "a name of any bytes");
        assert_eq!(of(b"2 (cat) R 1 0 0 0 -1"), Some((1, 0)), "a session from outside");
        assert_eq!(of(b"7 (sh) X 0 -1 -1 0 -1"), Some((0, -1)), "a process that is ending");
        assert_eq!(of(b"7 (sh) S 5"), None);
        assert_eq!(of(b""), None);
    }
}
