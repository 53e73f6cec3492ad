//! What a phase asks for if it fails: `ABORT`, `CONTINUE`, or `RETRY` with a count and a pattern.
//!
//! **Architecture invariant:** what was read here can be obeyed: its pattern compiles.

use thiserror::Error;

use crate::phase::{OnFailure, Retry};

/// How often something is tried again if nobody says (`CodeBuild` user guide, "Build
/// specification reference", `on-failure`).
const TRIES: u8 = 3;

/// The largest count.
const MOST_TRIES: u8 = 100;

/// Why some text says nothing about what to do.
#[derive(Debug, Error)]
pub(super) enum OnFailureError {
    #[error("it is not ABORT, CONTINUE, or RETRY")]
    Keyword,
    #[error("what follows `RETRY-` is missing")]
    Nothing,
    #[error("the count is not from 0 to {MOST_TRIES}")]
    Count,
    #[error("the pattern is no regular expression")]
    Pattern(#[source] Box<regex::Error>),
}

/// Reads the value of `on-failure`.
pub(super) fn parse(text: &str) -> Result<OnFailure, OnFailureError> {
    let (keyword, rest) = match text.split_once('-') {
        Some((keyword, rest)) => (keyword, Some(rest)),
        None => (text, None),
    };
    match (keyword.to_ascii_uppercase().as_str(), rest) {
        ("ABORT", None) => Ok(OnFailure::Abort),
        ("CONTINUE", None) => Ok(OnFailure::Continue),
        ("RETRY", None) => Ok(OnFailure::Retry(Retry { count: TRIES, pattern: None })),
        ("RETRY", Some(rest)) => retry(rest).map(OnFailure::Retry),
        _ => Err(OnFailureError::Keyword),
    }
}

/// Reads what follows `RETRY-`: digits up to the end or up to a hyphen are a count, the rest is a
/// pattern.
fn retry(rest: &str) -> Result<Retry, OnFailureError> {
    let (first, after) = match rest.split_once('-') {
        Some((first, after)) => (first, Some(after)),
        None => (rest, None),
    };
    let is_count = !first.is_empty() && first.bytes().all(|it| it.is_ascii_digit());
    let (count, pattern) = match is_count {
        true => (self::count(first)?, after),
        false => (TRIES, Some(rest)),
    };
    let Some(pattern) = pattern else { return Ok(Retry { count, pattern: None }) };
    if pattern.is_empty() {
        return Err(OnFailureError::Nothing);
    }
    match regex::bytes::Regex::new(pattern) {
        Ok(_) => Ok(Retry { count, pattern: Some(pattern.to_owned()) }),
        Err(err) => Err(OnFailureError::Pattern(Box::new(err))),
    }
}

fn count(digits: &str) -> Result<u8, OnFailureError> {
    let count = digits.parse().ok().filter(|it| *it <= MOST_TRIES);
    count.ok_or(OnFailureError::Count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(text: &str) -> String {
        match parse(text) {
            Ok(OnFailure::Abort) => "abort".to_owned(),
            Ok(OnFailure::Continue) => "continue".to_owned(),
            Ok(OnFailure::Retry(Retry { count, pattern })) => match pattern {
                Some(pattern) => format!("{count} times on {pattern}"),
                None => format!("{count} times"),
            },
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn a_retry_has_a_count_and_a_pattern_or_either_or_none() {
        for (text, want) in [
            ("ABORT", "abort"),
            ("Abort", "abort"),
            ("continue", "continue"),
            ("RETRY", "3 times"),
            ("retry", "3 times"),
            ("Retry-1", "1 times"),
            ("RETRY-0", "0 times"),
            ("RETRY-10", "10 times"),
            ("RETRY-100", "100 times"),
            ("RETRY-007", "7 times"),
            ("RETRY-3-.*timed out.*", "3 times on .*timed out.*"),
            ("RETRY-.*connection-reset", "3 times on .*connection-reset"),
            ("RETRY-3x", "3 times on 3x"),
            ("RETRY-3x-5", "3 times on 3x-5"),
            ("RETRY-5-10", "5 times on 10"),
            ("RETRY--1", "3 times on -1"),
            (r"retry-2-(?i)timed\s+out", r"2 times on (?i)timed\s+out"),
            (r"RETRY-\p{L}+: é", r"3 times on \p{L}+: é"),
        ] {
            assert_eq!(describe(text), want, "for {text}");
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_an_error() {
        for (text, want) in [
            ("", "it is not ABORT, CONTINUE, or RETRY"),
            ("IGNORE", "it is not ABORT, CONTINUE, or RETRY"),
            ("RETRY3", "it is not ABORT, CONTINUE, or RETRY"),
            ("ABORT-3", "it is not ABORT, CONTINUE, or RETRY"),
            ("RETRY-", "what follows `RETRY-` is missing"),
            ("RETRY-3-", "what follows `RETRY-` is missing"),
            ("RETRY-101", "the count is not from 0 to 100"),
            ("RETRY-99999999999999999999-x", "the count is not from 0 to 100"),
            ("RETRY-3-(", "the pattern is no regular expression"),
            ("RETRY-((a{1000}){1000}){1000}", "the pattern is no regular expression"),
        ] {
            assert_eq!(describe(text), want, "for {text}");
        }
    }
}
