//! Sizes and times, for people.

use std::time::Duration;

/// A number of bytes with three digits: `1.23 MB` (units of 1,000, as disks and registries say).
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut scale = 1;
    while unit + 1 < UNITS.len() && 1000 * scale <= count {
        unit += 1;
        scale *= 1000;
    }
    if unit == 0 {
        return format!("{count} B");
    }
    let hundredths = count * 100 / scale;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match whole {
        0..=9 => format!("{whole}.{rest:02} {}", UNITS[unit]),
        10..=99 => format!("{whole}.{} {}", rest / 10, UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

/// A time with as much as matters: `0.12s`, `3.4s`, `2m05s`.
pub(crate) fn time(time: Duration) -> String {
    let milliseconds = time.as_millis();
    match milliseconds {
        0..1_000 => format!("0.{:02}s", milliseconds / 10),
        1_000..60_000 => format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{}m{:02}s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (count, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (1_234_567, "1.23 MB"),
            (999_999_999, "999 MB"),
            (5_000_000_000_000_000, "5000 TB"),
        ] {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn times_show_what_matters() {
        for (milliseconds, want) in
            [(0, "0.00s"), (129, "0.12s"), (3_490, "3.4s"), (125_000, "2m05s")]
        {
            assert_eq!(time(Duration::from_millis(milliseconds)), want);
        }
    }
}
