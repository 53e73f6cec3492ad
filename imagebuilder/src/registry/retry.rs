//! When to try again, and after how long.

use std::time::Duration;

use time::{PrimitiveDateTime, macros::format_description};

use super::{Options, RegistryError};

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    options: &'a Options,
    most: u32,
    done: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self::at_most(options, options.tries)
    }

    pub(super) fn at_most(options: &'a Options, most: u32) -> Self {
        Self { options, most: most.min(options.tries), done: 0 }
    }

    /// Forgets the tries so far: there was progress worth going on for.
    pub(super) fn forget(&mut self) {
        self.done = 0;
    }

    /// After a try that ended in `error`: waits and says yes, or says no.
    pub(super) async fn again(&mut self, error: &RegistryError) -> bool {
        error.retryable() && self.anew(error).await
    }

    /// As [`Tries::again`], whatever the error is.
    pub(super) async fn anew(&mut self, error: &RegistryError) -> bool {
        self.done += 1;
        if self.most <= self.done {
            return false;
        }
        tokio::time::sleep(self.pause(error.retry_after(), fastrand::f64())).await;
        true
    }

    /// The registry's own wish, and not less than twice as long as the last time; `chance` (0 to 1) takes up to
    /// half of it off, so that many clients do not come back at once.
    fn pause(&self, asked: Option<Duration>, chance: f64) -> Duration {
        let doubled = self.options.first_pause.saturating_mul(1 << (self.done - 1).min(16));
        let own = doubled.min(self.options.longest_pause).mul_f64(1.0 - chance / 2.0);
        // No time, or one that is over, would have all tries made at once.
        own.max(asked.unwrap_or_default().min(self.options.longest_pause))
    }
}

/// What `Retry-After` says (RFC 9110, section 10.2.3): seconds, or a date, which is compared with
/// the `Date` of the same answer, since the clock of the registry may not be ours.
pub(super) fn after(text: &str, date: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = parse_date(text)? - parse_date(date?)?;
    Some(wait.try_into().unwrap_or(Duration::ZERO))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn parse_date(text: &str) -> Option<PrimitiveDateTime> {
    let (_, date) = text.trim().strip_suffix(" GMT")?.split_once(", ")?;
    let format = format_description!("[day] [month repr:short] [year] [hour]:[minute]:[second]");
    PrimitiveDateTime::parse(date, format).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_wish_is_in_seconds_or_a_date() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, date, want) in [
            ("3", None, Some(3)),
            (" 120 ", now, Some(120)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", now, Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", now, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, None),
            ("soon", now, None),
            ("-1", now, None),
            ("", now, None),
        ] {
            assert_eq!(after(text, date), want.map(Duration::from_secs), "for `{text}`");
        }
    }

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
            (1, Some(0), 0.0, 1.0),
            (1, Some(3600), 0.0, 10.0),
        ] {
            let tries = Tries { options: &options, most: 5, done };
            let pause = tries.pause(asked.map(Duration::from_secs), chance);
            assert_eq!(pause, Duration::from_secs_f64(want), "after {done} tries");
        }
    }
}
