//! Bars for what takes its time: how much of how much, and how fast.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::size;
use crate::host;

/// Time in which nothing is drawn: what is done by then needs no bar.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// A bar that is drawn on a terminal once some time has passed, until it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    name: String,
    total: u64,
    /// When it began, and how much was done by then.
    begun: (Instant, u64),
    draws: bool,
    drawn: Option<ProgressBar>,
}

impl Bar {
    /// Begins to tell of `total` bytes, of which `done` were done before.
    pub(crate) fn begin(name: impl Into<String>, done: u64, total: u64) -> Self {
        let begun = (Instant::now(), done);
        Self { name: name.into(), total, begun, draws: host::is_terminal(), drawn: None }
    }

    /// Tells how many bytes are done.
    pub(crate) fn set(&mut self, done: u64) {
        if self.draws && self.drawn.is_none() && QUIET < self.begun.0.elapsed() {
            self.drawn = Some(draw(&self.name, self.begun, (done, self.total)));
        }
        if let Some(bar) = &self.drawn {
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}

/// The bar is younger than what it tells of: the rate is counted here.
fn draw(name: &str, (started, before): (Instant, u64), (done, total): (u64, u64)) -> ProgressBar {
    let of = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // A bar that lacks a word is no failure.
        let _ = text.write_str(&words(state.pos(), before, total, started.elapsed()));
    };
    let style = ProgressStyle::with_template("        {prefix} {wide_bar} {of}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("of", of)
        .progress_chars("=> ");
    super::drawn().add(
        ProgressBar::new(total).with_style(style).with_position(done).with_prefix(name.to_owned()),
    )
}

fn words(done: u64, before: u64, total: u64, time: Duration) -> String {
    let mut words = format!("{} of {}", size::bytes(done), size::bytes(total));
    if let Some(rate) = per_second(done.saturating_sub(before), time) {
        let _ = write!(words, ", {}/s", size::bytes(rate));
    }
    words
}

/// The bytes in a second; of what took no time there is none to tell.
pub(super) fn per_second(bytes: u64, time: Duration) -> Option<u64> {
    let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(rate).ok().filter(|_| QUIET < time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_what_was_done_since_the_beginning() {
        for (done, before, milliseconds, want) in [
            (10_350_000, 0, 2000, "10.3 MB of 150 MB, 5.17 MB/s"),
            (10_350_000, 10_000_000, 1000, "10.3 MB of 150 MB, 350 kB/s"),
            (0, 10_000_000, 1000, "0 B of 150 MB, 0 B/s"),
            (10_350_000, 0, 100, "10.3 MB of 150 MB"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(words(done, before, 150_000_000, time), want);
        }
    }
}
