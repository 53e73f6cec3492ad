//! HEALTHCHECK, and durations as Go writes them.

use super::{
    Word,
    error::{DockerfileError, ErrorKind},
    flags::{Flags, shown},
    instruction::{Check, CommandLine, Healthcheck},
};

/// No check is done more often.
const MIN_NANOSECONDS: u64 = 1_000_000;

/// The check that runs `command` as `flags` say.
pub(super) fn check(flags: &Flags, command: CommandLine) -> Result<Healthcheck, DockerfileError> {
    let retries = match flags.one("retries") {
        None => 0,
        Some(word) => retries(&word)?,
    };
    Ok(Healthcheck::Check(Check {
        command,
        interval: time(flags, "interval")?,
        timeout: time(flags, "timeout")?,
        start_period: time(flags, "start-period")?,
        start_interval: time(flags, "start-interval")?,
        retries,
    }))
}

fn retries(word: &Word) -> Result<u32, DockerfileError> {
    let number = word.text.parse::<i32>().ok().and_then(|it| u32::try_from(it).ok());
    number.ok_or_else(|| ErrorKind::Retries { value: shown(&word.text) }.at(word.place))
}

fn time(flags: &Flags, flag: &'static str) -> Result<u64, DockerfileError> {
    let Some(word) = flags.one(flag) else { return Ok(0) };
    let duration = duration(&word.text)
        .ok_or_else(|| ErrorKind::Duration { value: shown(&word.text) }.at(word.place))?;
    match u64::try_from(duration) {
        Ok(nanoseconds @ (0 | MIN_NANOSECONDS..)) => Ok(nanoseconds),
        _ => Err(ErrorKind::DurationTooShort { flag }.at(word.place)),
    }
}

/// The nanoseconds of a duration like `1h30m`, `-1.5s` or `0`.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (nanoseconds, after) = quantity(rest)?;
        total = total.checked_add(nanoseconds)?;
        rest = after;
    }
    Some(sign * total)
}

/// One number with its unit, and what follows it.
fn quantity(text: &str) -> Option<(i64, &str)> {
    let is_number = |it: char| it.is_ascii_digit() || it == '.';
    let (number, rest) = text.split_at(text.find(|it| !is_number(it))?);
    let (unit, rest) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
    let unit: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What is beyond these digits is less than a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let (part, scale) = fraction
        .bytes()
        .fold((0, 1), |(part, scale), digit| (part * 10 + i128::from(digit - b'0'), scale * 10));
    let nanoseconds = i128::from(whole) * i128::from(unit) + part * i128::from(unit) / scale;
    Some((i64::try_from(nanoseconds).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_in_go() {
        for (text, want) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("+0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("1us", Some(1_000)),
            ("1µs2ns", Some(1_002)),
            ("-1s", Some(-1_000_000_000)),
            ("0.123456789s", Some(123_456_789)),
            ("2562047h", Some(9_223_369_200_000_000_000)),
            ("2562048h", None),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("5 s", None),
            ("5S", None),
            ("5d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text), want, "for `{text}`");
        }
    }
}
