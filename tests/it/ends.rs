//! However a build ends, and whenever: nothing that it started is left, and no file but what the
//! next run clears.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rbuild_tests::{Sandbox, process::processes_that_stay};
use rustix::process::Signal;

use crate::{is_soak, report, sandbox};

/// Commands that try to outlive their build: in the background, in a session of their own, as
/// daemons whose parents are gone, deaf to SIGTERM and SIGHUP, without standard streams.
const BUILDSPEC: &str = r#"version: 0.2
env: {shell: bash}
phases:
  install:
    commands:
      - sleep 2001 &
      - nohup sleep 2002 >/dev/null 2>&1 &
      - setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 2003; done' &
      - ( ( setsid sh -c 'trap "" TERM; exec sleep 2004' <&- >&- 2>&- & ) & )
  build:
    commands:
      - for i in 1 2 3 4 5; do sh -c 'sleep 0.01 & sleep 0.005'; done
      - trap '' TERM INT; for i in 1 2 3; do sleep 0.02; done
      - setsid sh -c '( setsid sh -c "sleep 2005" & )'
      - sleep 2006
"#;

/// How long what is left may take to die: two seconds are its own, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn nothing_is_left_of_a_build_that_is_ended_at_any_moment() {
    let rounds = if is_soak() { 24 } else { 3 };
    let sandbox = sandbox(&[("buildspec.yml", BUILDSPEC)]);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut early, mut late) = (0, 0);
    for round in 0..rounds {
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            // Half of them while the build starts.
            let latest = if random.bool() { 30_000 } else { 400_000 };
            let moment = Duration::from_micros(random.u64(0..latest));
            let output = end_after(&sandbox, signal, moment);
            match output.contains("Entering phase BUILD") {
                true => late += 1,
                false => early += 1,
            }
            let left = processes_that_stay(sandbox.path(), LIMIT);
            assert_eq!(left, [] as [&str; 0], "round {round}, {signal:?} after {moment:?}");
        }
    }
    report(&format!(
        "ended {early} builds before the phase BUILD and {late} in it; nothing is left"
    ));
}

/// Runs the build, ends it with `signal` after some time, and checks that the next run clears
/// what the end has left in memory. Returns what it had printed.
fn end_after(sandbox: &Sandbox, signal: Signal, moment: Duration) -> String {
    let start = Instant::now();
    // Whoever runs the tests may ignore SIGINT, and would have all processes do so that start.
    let own_signals = ["env", "--default-signal=INT,TERM"];
    let build = sandbox.rbuild(["run", "--log", "codebuild"]).under(own_signals);
    let mut running = build.start();
    let id = running.process().id();
    running.until("its moment", |_| (start.elapsed() >= moment).then_some(()));
    running.signal(signal);
    let finished = running.finish();
    assert!(!finished.status.success(), "{finished}");
    let spec = "version: 0.2\nphases: {build: {commands: ['true']}}\n";
    let spec = sandbox.write("../other.yml", spec);
    // What ends the processes of a killed build clears its folder, too. It gives them two seconds,
    // and the next run does not wait for it.
    let end = Instant::now() + LIMIT;
    while !folders_of(id).is_empty() {
        assert!(
            Instant::now() < end,
            "{:?} after {signal:?} at {moment:?}\n{finished}",
            folders_of(id)
        );
        sandbox.rbuild([PathBuf::from("run"), spec.clone()]).ok();
    }
    finished.stdout
}

/// The private folders of a process, which is gone.
fn folders_of(id: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/shm").expect("memory for files").flatten();
    let start = format!("rbuild-{id}-");
    entries
        .filter(|it| it.file_name().to_string_lossy().starts_with(&start))
        .map(|it| it.path())
        .collect()
}
