//! Tables of what was measured, and whether the goals are reached.
//!
//! The least time is what the work costs; ratios are of least times. Other figures are the largest
//! of all rounds.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Case, meter::Cost, programs::WALK};

/// What was measured: a plain command, or a program in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Limit(&'static str),
    Program(Case, &'static str),
}

/// All that was measured of one tree.
#[derive(Debug, Default)]
pub(crate) struct Results {
    rows: BTreeMap<Row, Vec<Cost>>,
}

/// The most memory that rbuild may take, in bytes.
const MOST_MEMORY: u64 = 64_000_000;
/// The most requests of a push with nothing new.
const MOST_REQUESTS: usize = 3;
/// The most of a no-op, in walks.
const MOST_WALKS: f64 = 2.0;
const RBUILD: &str = "rbuild";

/// How many times faster than another program rbuild should be, in which cases.
const FASTER: [(Case, &str, f64); 6] = [
    (Case::Cold, "docker", 10.0),
    (Case::Cold, "buildah", 10.0),
    (Case::Cold, "umoci", 1.0),
    (Case::First, "docker", 50.0),
    (Case::Last, "docker", 100.0),
    (Case::Front, "docker", 50.0),
];

impl Results {
    /// Adds a measurement.
    pub(crate) fn add(&mut self, row: Row, cost: Cost) {
        self.rows.entry(row).or_default().push(cost);
    }

    /// The programs that were measured in a case, rbuild first.
    fn programs(&self, case: Case) -> Vec<(&'static str, &[Cost])> {
        let found = self.rows.iter().filter_map(|(row, costs)| match row {
            Row::Program(of, name) if *of == case => Some((*name, costs.as_slice())),
            _ => None,
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(name, _)| *name != RBUILD);
        found
    }

    /// The goals of a case: what is wanted, what was found, and whether that is enough.
    fn goals(&self, case: Case) -> Vec<(String, String, bool)> {
        let programs = self.programs(case);
        let Some((RBUILD, ours)) = programs.first() else { return Vec::new() };
        let mut goals = Vec::new();
        for (_, name, wanted) in FASTER.iter().filter(|(of, ..)| *of == case) {
            for (full, theirs) in programs.iter().filter(|(it, _)| it.starts_with(name)) {
                let found = ratio(theirs, ours);
                let what = format!("at least {wanted} × faster than {full}");
                goals.push((what, format!("{found:.1} ×"), *wanted <= found));
            }
        }
        if case == Case::Noop {
            if let Some(walk) = self.rows.get(&Row::Limit(WALK)) {
                let found = ratio(ours, walk);
                let what = format!("at most {MOST_WALKS} × `{WALK}`");
                goals.push((what, format!("{found:.1} ×"), found <= MOST_WALKS));
            }
            let found = ours.iter().map(|it| it.requests).max().unwrap_or_default();
            let what = format!("at most {MOST_REQUESTS} requests");
            goals.push((what, found.to_string(), found <= MOST_REQUESTS));
        }
        let peak = ours.iter().map(|it| it.peak).max().unwrap_or_default();
        let what = format!("a peak of at most {} MB", MOST_MEMORY / 1_000_000);
        goals.push((what, format!("{} MB", megabytes(peak)), peak <= MOST_MEMORY));
        goals
    }

    fn write_case(&self, f: &mut fmt::Formatter<'_>, case: Case) -> fmt::Result {
        let programs = self.programs(case);
        let Some((_, ours)) = programs.first() else { return Ok(()) };
        let rounds = ours.len();
        writeln!(
            f,
            "\n{:<26} least s  median s  × rbuild    CPU s  peak MB  sent MB  requests",
            format!("{} ({rounds} rounds)", title(case))
        )?;
        for (name, costs) in &programs {
            let most =
                |figure: fn(&Cost) -> u64| costs.iter().map(figure).max().unwrap_or_default();
            let processor = costs.iter().map(|it| it.cpu).max().unwrap_or_default();
            write!(
                f,
                "  {name:<23} {:8.3}  {:8.3}",
                seconds(least(costs)),
                seconds(median(costs))
            )?;
            write!(f, "  {:8.1} {:8.2}", ratio(costs, ours), seconds(processor))?;
            let (peak, sent) = (megabytes(most(|it| it.peak)), most(|it| it.sent));
            write!(f, " {peak:8}  {:7}.{}", sent / 1_000_000, sent / 100_000 % 10)?;
            writeln!(f, " {:8}", costs.iter().map(|it| it.requests).max().unwrap_or_default())?;
        }
        for (what, bytes) in ours.iter().flat_map(|it| &it.told).collect::<BTreeMap<_, _>>() {
            writeln!(f, "  rbuild tells `{what}`: {bytes}")?;
        }
        for (wanted, found, is_reached) in self.goals(case) {
            let verdict = if is_reached { "reached" } else { "MISSED" };
            writeln!(f, "  goal: {wanted}: {found}: {verdict}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, costs) in &self.rows {
            if let Row::Limit(name) = row {
                let (least, median) = (seconds(least(costs)), seconds(median(costs)));
                writeln!(f, "  {name:<26} least {least:8.3} s, median {median:8.3} s")?;
            }
        }
        [Case::Cold, Case::Noop, Case::First, Case::Last, Case::Front]
            .into_iter()
            .try_for_each(|it| self.write_case(f, it))
    }
}

fn title(case: Case) -> &'static str {
    match case {
        Case::Cold => "cold",
        Case::Noop => "nothing changed",
        Case::First => "first file changed",
        Case::Last => "last file changed",
        Case::Front => "a file before all",
    }
}

/// How many times as long the first took as the second.
fn ratio(some: &[Cost], others: &[Cost]) -> f64 {
    least(some).as_secs_f64() / least(others).as_secs_f64().max(1e-6)
}

fn least(costs: &[Cost]) -> Duration {
    costs.iter().map(|it| it.wall).min().unwrap_or_default()
}

fn median(costs: &[Cost]) -> Duration {
    let mut times: Vec<_> = costs.iter().map(|it| it.wall).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_reached_or_missed() {
        let cost = |milliseconds, requests| Cost {
            wall: Duration::from_millis(milliseconds),
            requests,
            peak: 64_000_000,
            ..Cost::default()
        };
        let mut results = Results::default();
        results.add(Row::Limit(WALK), cost(50, 0));
        results.add(Row::Program(Case::Noop, RBUILD), cost(100, 4));
        results.add(Row::Program(Case::Cold, RBUILD), cost(100, 9));
        results.add(Row::Program(Case::Cold, "docker build, push"), cost(1000, 9));
        results.add(Row::Program(Case::Cold, "buildah bud, push"), cost(900, 9));
        let reached = |case| -> Vec<bool> {
            results.goals(case).into_iter().map(|(.., is_reached)| is_reached).collect()
        };
        assert_eq!(reached(Case::Cold), [true, false, true], "docker, buildah, memory");
        assert_eq!(reached(Case::Noop), [true, false, true], "walks, requests, memory");
        assert_eq!(reached(Case::First), [false; 0], "not measured");
        let text = results.to_string();
        assert!(text.contains("buildah bud, push: 9.0 ×: MISSED"), "{text}");
    }
}
