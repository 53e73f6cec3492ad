//! Whether a phase that failed is tried again, and the end of the output that may decide it.
//!
//! **Architecture invariant:** no output is kept unless a pattern wants it, and then no more than a
//! fixed amount.

use crate::{
    choice::RetryScope,
    event::Event,
    phase::{OnFailure, Phase, Stage},
    shell::ShellError,
};

use super::{Break, Build, Course};

/// Another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    phase: Phase,
    /// Which one; the first is 1.
    attempt: u8,
    /// How many there may be.
    of: u8,
}

impl Build<'_> {
    /// Whether `phase`, which ended like this, is worth another try.
    pub(super) fn another_try(&mut self, phase: Phase, ended: &Result<(), Break>) -> Option<Again> {
        let Err(Break::Failed(_)) = ended else { return None };
        let on_failure = self.plan.on_failure(Stage::Commands(phase));
        let Some(OnFailure::Retry(retry)) = on_failure else { return None };
        let tries = self.tries.entry(phase).or_default();
        let output = self.failed_output.as_ref().map_or(&[][..], Tail::bytes);
        if retry.count <= *tries || !retry.applies_to(output) {
            return None;
        }
        *tries += 1;
        Some(Again { phase, attempt: *tries, of: retry.count })
    }

    /// Goes back to where the next try begins.
    pub(super) fn try_again(&mut self, again: Again) -> Result<Stage, ShellError> {
        let Again { phase, attempt, of } = again;
        let scope = self.plan.choices().retry;
        (self.emit)(Event::Retrying { scope, phase, attempt, of });
        if scope == RetryScope::Build {
            self.begin()?;
            self.course = Course { wants_runtimes: true, ..Course::default() };
        }
        Ok(Stage::Commands(phase).again(scope))
    }
}

/// The end of what a command writes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// How much is kept, in bytes.
    const LIMIT: usize = 64 * 1024;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::LIMIT)..];
        // What is too much is dropped now and then, and not byte by byte.
        if 2 * Self::LIMIT < self.bytes.len() + bytes.len() {
            self.bytes.drain(..self.bytes.len().saturating_sub(Self::LIMIT));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// At most [`LIMIT`](Self::LIMIT) bytes.
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(Self::LIMIT)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_however_they_come() {
        let all: Vec<u8> = (0..=250).cycle().take(5 * Tail::LIMIT + 3).collect();
        for size in [1, 7, 4096, Tail::LIMIT - 1, Tail::LIMIT, Tail::LIMIT + 1, all.len()] {
            let mut tail = Tail::default();
            let mut most = 0;
            for (index, chunk) in all.chunks(size).enumerate() {
                tail.push(chunk);
                most = most.max(tail.bytes.len());
                if index == 0 {
                    assert_eq!(tail.bytes(), &chunk[chunk.len().saturating_sub(Tail::LIMIT)..]);
                }
            }
            assert!(tail.bytes() == &all[all.len() - Tail::LIMIT..], "in pieces of {size}");
            assert!(most <= 2 * Tail::LIMIT, "{most} bytes were held");
        }
    }
}
