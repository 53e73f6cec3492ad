//! What may be typed after `rbuild cache`.

use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Cache {
    /// Say what takes how much of the store
    #[command(after_help = "Example: rbuild cache du --json | jq .total")]
    Du {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for the longest time
    Prune(Prune),
    /// Read everything in the store, and say what is damaged
    #[command(after_help = "Exit status: 3 if something is damaged.

Example: rbuild cache verify --repair")]
    Verify {
        /// Remove what is damaged, so that it is made again
        #[arg(long)]
        repair: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Names, what they point to, and what a running build may need always stay.
Without an option, only what nothing refers to goes.

Examples:
  rbuild cache prune --max-size 10GB
  rbuild cache prune --older-than 2w --dry-run
  rbuild cache prune --all")]
pub(crate) struct Prune {
    /// Keep what was used last, up to this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_size: Option<u64>,

    /// Remove what was not used for so long, e.g., 12h, 30d, 2w
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,

    /// Remove all that no name points to
    #[arg(long, conflicts_with_all = ["max_size", "older_than"])]
    pub(crate) all: bool,

    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads a size: `500MB`, `20GiB`, `1000000`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 12] = [
        ("", 1),
        ("b", 1),
        ("k", 1000),
        ("kb", 1000),
        ("m", 1_000_000),
        ("mb", 1_000_000),
        ("g", 1_000_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];
    let (number, unit) = split(text);
    let unit = unit.to_lowercase();
    let factor = UNITS.iter().find(|it| it.0 == unit).map(|it| it.1);
    let product = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    product.ok_or_else(|| "write it like 500MB or 20GiB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    let product = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    product.map(Duration::from_secs).ok_or_else(|| "write it like 12h, 30d or 2w".to_owned())
}

/// A number, and what comes after it.
fn split(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().ok(), text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("500MB", Some(500_000_000)),
            ("20GiB", Some(20 << 30)),
            ("20 gib", Some(20 << 30)),
            ("3k", Some(3000)),
            ("1TB", Some(1_000_000_000_000)),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1.5GB", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(size(text).ok(), want, "for `{text}`");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, want) in
            [("90s", Some(90)), ("12h", Some(43_200)), ("2w", Some(1_209_600)), ("7", None)]
        {
            assert_eq!(duration(text).ok(), want.map(Duration::from_secs), "for `{text}`");
        }
    }
}
