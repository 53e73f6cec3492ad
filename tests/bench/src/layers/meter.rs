//! What some commands cost: time, processor, memory, and what a registry got of it.
//!
//! The processor's time has the resolution of the kernel's clock (10 ms), and has that of the
//! children that ended and of a daemon's processes. The peak of memory is what all processes held
//! at the same moment, or one of them ever, whichever is more; it is looked at every few
//! milliseconds. What was sent is what the registry wrote, to its files and in answers.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rbuild_tests::servers::Registry;
use serde_json::Value;

/// What something cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Bytes.
    pub(crate) peak: u64,
    /// Bytes.
    pub(crate) sent: u64,
    pub(crate) requests: usize,
    /// What the program itself told of its work, in bytes.
    pub(crate) told: BTreeMap<String, u64>,
}

/// Runs commands, one after the other, each to a good end. What a daemon does meanwhile counts.
pub(crate) fn measure(
    commands: Vec<Command>,
    daemon: Option<u32>,
    registry: Option<&Registry>,
) -> io::Result<Cost> {
    // What others wrote must not go to the disk in our time.
    rustix::fs::sync();
    let processor = || children_time() + daemon.map(tree_time).unwrap_or_default();
    let got = || registry.map(|it| (written(it.process_id()), it.request_count()));
    let (processor_before, got_before) = (processor(), got().unwrap_or_default());
    let mut cost = Cost::default();
    for mut command in commands {
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
        let start = Instant::now();
        let mut child = command.spawn()?;
        let (is_good, peak) = watch(&mut child, daemon)?;
        cost.wall += start.elapsed();
        cost.peak = cost.peak.max(peak);
        if !is_good {
            let program = command.get_program().display().to_string();
            let text = text(&mut err)?;
            let end: Vec<_> = text.lines().rev().take(5).collect();
            return Err(io::Error::other(format!("{program}: {}", end.join(" / "))));
        }
        cost.told.extend(told(&text(&mut out)?));
    }
    cost.cpu = processor().saturating_sub(processor_before);
    let (written, requests) = got().unwrap_or_default();
    cost.sent = written.saturating_sub(got_before.0);
    cost.requests = requests - got_before.1;
    Ok(cost)
}

/// Waits for a child; whether its end was a good one, and the peak of memory until then.
fn watch(child: &mut Child, daemon: Option<u32>) -> io::Result<(bool, u64)> {
    let mut peak = 0;
    let mut pause = Duration::from_micros(200);
    loop {
        let processes = tree(child.id());
        let own = processes.iter().map(|it| memory(*it, "VmHWM:")).max().unwrap_or_default();
        let others = daemon.map(tree).unwrap_or_default();
        let all = processes.iter().chain(&others).map(|it| memory(*it, "VmRSS:")).sum();
        peak = peak.max(own).max(all);
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), peak));
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many bytes were hashed and compressed, as the JSON of a build says.
fn told(text: &str) -> BTreeMap<String, u64> {
    let values = text.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    let bytes = values.filter_map(|it| it.get("bytes")?.as_object().cloned()).flatten();
    let meant = bytes.filter(|(key, _)| ["hashed", "compressed"].contains(&key.as_str()));
    meant.filter_map(|(key, number)| Some((key, number.as_u64()?))).collect()
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut processes = vec![root];
    let mut next = 0;
    while let Some(id) = processes.get(next).copied() {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
        for task in tasks.filter_map(Result::ok) {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
        }
    }
    processes
}

/// A figure of `/proc/PID/status` in bytes (proc(5)).
fn memory(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix(name));
    let kilobytes = line.and_then(|it| it.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// The time of our children that have ended, and of theirs.
fn children_time() -> Duration {
    ticks(std::process::id(), 13..15)
}

/// The time of all processes of a tree, and of what they have started and that has ended.
fn tree_time(root: u32) -> Duration {
    tree(root).into_iter().map(|id| ticks(id, 11..15)).sum()
}

/// The sum of some fields of `/proc/PID/stat`, counted from behind the name: `utime`, `stime`,
/// `cutime` and `cstime` are 11 to 14, in ticks of 10 ms (proc(5)).
fn ticks(id: u32, fields: std::ops::Range<usize>) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let numbers: Vec<u64> =
        rest.split_whitespace().map(|it| it.parse().unwrap_or_default()).collect();
    let sum: u64 = numbers.get(fields).unwrap_or_default().iter().sum();
    Duration::from_millis(10 * sum)
}

/// The bytes that a process has written so far, wherever to (`wchar` of proc(5)).
fn written(id: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
    let line = io.lines().find_map(|it| it.strip_prefix("wchar: "));
    line.and_then(|it| it.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_costs_is_seen() {
        let mut command = Command::new("sh");
        // Some 100 MB in one process, and some time of a child of a child.
        command.args([
            "-c",
            "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; \
                             head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null",
        ]);
        let cost = measure(vec![command], None, None).unwrap();
        assert!(Duration::from_millis(50) < cost.cpu, "{cost:?}");
        assert!((100_000_000..200_000_000).contains(&cost.peak), "{cost:?}");
    }

    #[test]
    fn what_a_program_says_of_its_work_is_found_once() {
        let text = r#"{"bytes": {"hashed": 7, "read": 9}, "layers": [{"bytes": {"hashed": 7}}]}"#;
        assert_eq!(told(text), BTreeMap::from([("hashed".to_owned(), 7)]));
        assert_eq!(told("sha256:00"), BTreeMap::new());
    }
}
