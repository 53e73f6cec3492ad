//! When to try again, and after how long.

use std::time::Duration;

use super::{Options, RegistryError};

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    options: &'a Options,
    done: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, done: 0 }
    }

    /// After a try that ended in `error`: waits and says yes, or says no.
    pub(super) async fn again(&mut self, error: &RegistryError) -> bool {
        self.done += 1;
        if self.options.tries <= self.done || !error.retryable() {
            return false;
        }
        tokio::time::sleep(self.pause(error.retry_after(), fastrand::f64())).await;
        true
    }

    /// The registry's own wish, or twice as long as the last time; `chance` (0 to 1) takes up to
    /// half of it off, so that many clients do not come back at once.
    fn pause(&self, asked: Option<Duration>, chance: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.min(self.options.longest_pause);
        }
        let doubled = self.options.first_pause.saturating_mul(1 << (self.done - 1).min(16));
        doubled.min(self.options.longest_pause).mul_f64(1.0 - chance / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_a_registrys_wish_goes_first() {
        let (first_pause, longest_pause) = (Duration::from_secs(1), Duration::from_secs(10));
        let options = Options { first_pause, longest_pause, ..Options::default() };
        for (done, asked, chance, want) in [
            (1, None, 0.0, 1.0),
            (2, None, 0.0, 2.0),
            (3, None, 1.0, 2.0),
            (4, None, 0.5, 6.0),
            (5, None, 0.0, 10.0),
            (40, None, 0.0, 10.0),
            (1, Some(3), 1.0, 3.0),
            (1, Some(0), 0.0, 0.0),
            (1, Some(3600), 0.0, 10.0),
        ] {
            let tries = Tries { options: &options, done };
            let pause = tries.pause(asked.map(Duration::from_secs), chance);
            assert_eq!(pause, Duration::from_secs_f64(want), "after {done} tries");
        }
    }
}
