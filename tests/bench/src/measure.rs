//! Times and peaks of memory of two ways to do the same work.

use std::{
    fmt, fs, io,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// The most memory that any of these may take, in bytes.
const MOST_MEMORY: u64 = 40_000_000;

/// How one run went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) time: Duration,
    /// The peak of the memory of the process itself, in bytes; 0 if it was not looked at.
    pub(crate) peak: u64,
}

/// Two ways to do the same work, and what it should cost at most.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) what: &'static str,
    pub(crate) ours: Vec<Sample>,
    pub(crate) peer: &'static str,
    pub(crate) theirs: Vec<Sample>,
    pub(crate) goal: Goal,
}

/// What is good enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// So many times the time of the peer, at most.
    Ratio(f64),
    /// So much time, at most.
    Time(Duration),
}

/// Runs both ways by turns.
pub(crate) fn by_turns(
    rounds: usize,
    mut ours: impl FnMut() -> io::Result<Sample>,
    mut theirs: impl FnMut() -> io::Result<Sample>,
) -> io::Result<(Vec<Sample>, Vec<Sample>)> {
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        samples.0.push(ours()?);
        samples.1.push(theirs()?);
    }
    Ok(samples)
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) -> io::Result<Sample> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let peak = watch(&mut child)?;
    Ok(Sample { time: start.elapsed(), peak })
}

/// Waits for a process, and looks at its memory until then. The peak is told by the kernel, so
/// only what is used in the last moment can be missed.
pub(crate) fn watch(child: &mut Child) -> io::Result<u64> {
    let mut peak = 0;
    let mut pause = Duration::from_micros(200);
    loop {
        peak = peak.max(high_water(child.id()));
        if let Some(status) = child.try_wait()? {
            return match status.success() {
                true => Ok(peak),
                false => Err(io::Error::other(format!("a program ended with {status}"))),
            };
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// The most memory that a process has had so far, in bytes (`VmHWM` of proc(5)).
fn high_water(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|it| it.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

impl Comparison {
    /// The ratio of the least times.
    fn ratio(&self) -> f64 {
        least(&self.ours).as_secs_f64() / least(&self.theirs).as_secs_f64()
    }

    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::Ratio(most) => self.ratio() <= most,
            Goal::Time(most) => median(&self.ours) <= most,
        }
    }
}

fn least(samples: &[Sample]) -> Duration {
    samples.iter().map(|it| it.time).min().unwrap_or_default()
}

fn median(samples: &[Sample]) -> Duration {
    let mut times: Vec<Duration> = samples.iter().map(|it| it.time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(f, "\n{}", self.what)?;
        let sides = [("rbuild", &self.ours), (self.peer, &self.theirs)];
        for (name, samples) in sides {
            let (least, median) = (milliseconds(least(samples)), milliseconds(median(samples)));
            write!(f, "  {name:<34} least {least:9.2} ms, median {median:9.2} ms")?;
            match samples.iter().map(|it| it.peak).max() {
                Some(peak @ 1..) => {
                    let verdict = if peak < MOST_MEMORY { "reached" } else { "MISSED" };
                    writeln!(
                        f,
                        ", peak {} MB (goal: under 40: {verdict})",
                        peak.div_ceil(1_000_000)
                    )?;
                }
                _ => writeln!(f)?,
            }
        }
        let medians =
            median(&self.ours).as_secs_f64() / median(&self.theirs).as_secs_f64().max(1e-9);
        let goal = match self.goal {
            Goal::Ratio(most) => format!("at most {most} of the least"),
            Goal::Time(most) => format!("a median of at most {:.0} ms", milliseconds(most)),
        };
        let verdict = if self.is_reached() { "reached" } else { "MISSED" };
        let ratio = self.ratio();
        write!(f, "  ratio {ratio:.2} (medians {medians:.2}); goal: {goal}: {verdict}")
    }
}
