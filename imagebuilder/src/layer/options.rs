//! How layers are made: the compressor and how hard it tries.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use thiserror::Error;

use super::compress::BackEnd;
use crate::image::Compression;

/// The number of everything that makes the bytes of a layer but the compressor: headers, order,
/// where segments end. Raise it with any of them.
const VERSION: u32 = 2;

/// How layers are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How they are compressed.
    pub compression: Method,
}

/// How a layer is compressed, and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// In one gzip member.
    Gzip(Level),
    /// In zstd frames, one after the other.
    Zstd(Level),
    /// Not at all.
    None,
}

/// A level that its compressor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(u8);

/// Why some text is no [`Method`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MethodError {
    /// It names no method.
    #[error("compression `{0}` is none of `gzip`, `zstd` and `none`")]
    Name(String),
    /// The level is none of that method.
    #[error("`{text}` is no level of {method}, which has {least} to {most}")]
    Level {
        /// The method.
        method: &'static str,
        /// What is written in place of a level.
        text: String,
        /// The lowest level.
        least: u8,
        /// The highest level.
        most: u8,
    },
    /// `none` has no levels.
    #[error("`none` has no levels: `{0}`")]
    NoLevels(String),
}

const GZIP: RangeInclusive<u8> = 1..=12;
const ZSTD: RangeInclusive<u8> = 1..=19;

impl Method {
    /// gzip at the level that is chosen by measurement: see [`super::compress`].
    pub const GZIP: Self = Self::Gzip(Level(4));
    /// zstd at its own default.
    pub const ZSTD: Self = Self::Zstd(Level(3));

    /// What a manifest calls it.
    pub fn compression(self) -> Compression {
        match self {
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
            Self::None => Compression::None,
        }
    }

    /// What compresses so.
    pub fn back_end(self) -> BackEnd {
        match self {
            Self::Gzip(level) => BackEnd::Libdeflate(level.0),
            Self::Zstd(level) => BackEnd::Zstd(level.0),
            Self::None => BackEnd::Stored,
        }
    }
}

impl Default for Method {
    fn default() -> Self {
        Self::GZIP
    }
}

impl FromStr for Method {
    type Err = MethodError;

    /// Reads `gzip[:LEVEL]`, `zstd[:LEVEL]` or `none`.
    fn from_str(text: &str) -> Result<Self, MethodError> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        match (name, level) {
            ("gzip", None) => Ok(Self::GZIP),
            ("zstd", None) => Ok(Self::ZSTD),
            ("none", None) => Ok(Self::None),
            ("gzip", Some(level)) => Level::parse(level, "gzip", GZIP).map(Self::Gzip),
            ("zstd", Some(level)) => Level::parse(level, "zstd", ZSTD).map(Self::Zstd),
            ("none", Some(_)) => Err(MethodError::NoLevels(text.to_owned())),
            _ => Err(MethodError::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip:{}", level.0),
            Self::Zstd(level) => write!(f, "zstd:{}", level.0),
            Self::None => f.write_str("none"),
        }
    }
}

impl Level {
    fn parse(
        text: &str,
        method: &'static str,
        levels: RangeInclusive<u8>,
    ) -> Result<Self, MethodError> {
        let (least, most) = levels.clone().into_inner();
        match text.parse() {
            Ok(level) if levels.contains(&level) => Ok(Self(level)),
            _ => Err(MethodError::Level { method, text: text.to_owned(), least, most }),
        }
    }
}

impl Options {
    /// What is in the key of every step that makes a layer, and of every segment: another format,
    /// compressor, version of it, or level gives other bytes.
    pub fn format(&self) -> String {
        format!("rbuild layer {VERSION}, {}", self.compression.back_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_as_they_are_shown() {
        for (text, want) in [
            ("gzip", Ok(Method::GZIP)),
            ("gzip:12", Ok(Method::Gzip(Level(12)))),
            ("zstd:19", Ok(Method::Zstd(Level(19)))),
            ("none", Ok(Method::None)),
        ] {
            let method = text.parse::<Method>();
            assert_eq!(method, want, "for `{text}`");
            let shown = method.unwrap().to_string();
            assert_eq!(shown.parse(), want, "for `{shown}`");
        }
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for (text, want) in [
            ("", "compression `` is none of `gzip`, `zstd` and `none`"),
            ("brotli:3", "compression `brotli:3` is none of `gzip`, `zstd` and `none`"),
            ("gzip:0", "`0` is no level of gzip, which has 1 to 12"),
            ("gzip:13", "`13` is no level of gzip, which has 1 to 12"),
            ("gzip:", "`` is no level of gzip, which has 1 to 12"),
            ("zstd:20", "`20` is no level of zstd, which has 1 to 19"),
            ("zstd:-1", "`-1` is no level of zstd, which has 1 to 19"),
            ("none:1", "`none` has no levels: `none:1`"),
        ] {
            assert_eq!(text.parse::<Method>().unwrap_err().to_string(), want, "for `{text}`");
        }
    }
}
