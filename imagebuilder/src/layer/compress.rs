//! Compresses segments of a tar stream, each by itself, so that they can stand one after another.
//!
//! The default is the fastest level within 5 % of the size that `gzip -6` gives, on every tree that
//! was measured (`rbuild-bench curve`; MB/s of one thread, and the size beside `gzip -6`):
//!
//! | | npm | Python, documents | jars | binaries |
//! | --- | --- | --- | --- | --- |
//! | gzip -6 | 29, 1.000 | 38, 1.000 | 39, 1.000 | 24, 1.000 |
//! | libdeflate 1 | 252, 1.119 | 174, 1.036 | 130, 1.003 | 157, 1.074 |
//! | libdeflate 3 | 196, 1.055 | 144, 1.011 | 110, 1.001 | 123, 1.024 |
//! | **libdeflate 4** | 183, 1.040 | 138, 1.007 | 109, 1.000 | 118, 1.019 |
//! | libdeflate 5 | 153, 1.018 | 125, 0.997 | 109, 0.999 | 104, 0.998 |
//! | libdeflate 6 | 126, 1.006 | 109, 0.993 | 107, 0.999 | 88, 0.993 |
//! | libdeflate 12 | 6, 0.957 | 8, 0.974 | 21, 0.997 | 9, 0.961 |
//! | zlib-rs 1 | 335, 1.513 | 223, 1.179 | 148, 1.057 | 232, 1.304 |
//! | zlib-rs 4 | 137, 1.048 | 104, 1.016 | 72, 1.003 | 98, 1.042 |
//! | zlib-rs 6 | 97, 1.017 | 86, 1.005 | 66, 1.002 | 77, 1.026 |
//! | zstd 1 | 601, 0.985 | 734, 0.925 | 1479, 1.002 | 585, 1.078 |
//! | zstd 3 | 425, 0.894 | 490, 0.852 | 627, 0.994 | 361, 0.983 |
//!
//! libdeflate's speeds include what it costs to find the last block of its streams, so that they
//! can be opened: see [`super::deflate`].

use std::{fmt, io};

use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::CompressionLvl;

use super::deflate::{self, MARGIN, Walker};

/// The version of libdeflate: other versions write other bytes.
const LIBDEFLATE: &str = "1.26.1";
/// The same of zlib-rs, which steps in where libdeflate's output cannot be used.
const ZLIB_RS: &str = "0.6.8";
/// The level of zlib-rs where it steps in.
const ZLIB_RS_LEVEL: u8 = 6;

/// What compresses, and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// Deflate by libdeflate, whose streams are opened at their end: levels 1 to 12.
    Libdeflate(u8),
    /// Deflate by zlib-rs, with a full flush: levels 1 to 9.
    ZlibRs(u8),
    /// zstd, a frame for each segment: levels 1 to 19.
    Zstd(u8),
    /// Nothing: segments stay as they are.
    Stored,
}

/// Compresses one segment after another; its buffers are used again.
pub struct Compressor {
    engine: Engine,
    out: Vec<u8>,
}

enum Engine {
    Libdeflate(Box<Libdeflate>),
    ZlibRs(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
    Stored,
}

struct Libdeflate {
    compressor: libdeflater::Compressor,
    walker: Walker,
    /// Made when it is needed, which no known stream does.
    other: Option<Compress>,
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Libdeflate(level) => {
                write!(f, "libdeflate {LIBDEFLATE} level {level} (or zlib-rs {ZLIB_RS})")
            }
            Self::ZlibRs(level) => write!(f, "zlib-rs {ZLIB_RS} level {level}"),
            Self::Zstd(level) => {
                write!(f, "zstd {} level {level}", zstd::zstd_safe::version_string())
            }
            Self::Stored => f.write_str("not compressed"),
        }
    }
}

impl Compressor {
    /// Makes one; a level that the back end does not have is the nearest that it has.
    pub fn new(back_end: BackEnd) -> io::Result<Self> {
        let engine = match back_end {
            BackEnd::Libdeflate(level) => Engine::Libdeflate(Box::new(Libdeflate::new(level))),
            BackEnd::ZlibRs(level) => Engine::ZlibRs(zlib_rs(level)),
            BackEnd::Zstd(level) => {
                Engine::Zstd(zstd::bulk::Compressor::new(level.clamp(1, 19).into())?)
            }
            BackEnd::Stored => Engine::Stored,
        };
        Ok(Self { engine, out: Vec::new() })
    }

    /// Compresses one segment.
    ///
    /// Deflate's streams have no last block, and end at a byte: what follows is another such
    /// stream, or [`END_OF_DEFLATE`].
    pub fn compress<'a>(&'a mut self, segment: &'a [u8]) -> io::Result<&'a [u8]> {
        let out = &mut self.out;
        match &mut self.engine {
            Engine::Libdeflate(libdeflate) => libdeflate.compress(segment, out),
            Engine::ZlibRs(zlib_rs) => flushed(zlib_rs, segment, out),
            Engine::Zstd(zstd) => {
                out.clear();
                out.reserve(zstd::zstd_safe::compress_bound(segment.len()));
                zstd.compress_to_buffer(segment, out)?;
                Ok(out)
            }
            Engine::Stored => Ok(segment),
        }
    }
}

/// An empty last block, which ends what [`Compressor::compress`] gave for deflate.
pub const END_OF_DEFLATE: [u8; 2] = [3, 0];

impl Libdeflate {
    fn new(level: u8) -> Self {
        let level = CompressionLvl::new(level.into()).unwrap_or_default();
        let compressor = libdeflater::Compressor::new(level);
        Self { compressor, walker: Walker::new(), other: None }
    }

    fn compress<'a>(&mut self, segment: &[u8], out: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let bound = self.compressor.deflate_compress_bound(segment.len()) + MARGIN;
        if out.len() < bound {
            // Fresh zeros take no memory before they are written to, and most never are.
            *out = vec![0; bound];
        }
        let opened = self
            .compressor
            .deflate_compress(segment, out)
            .ok()
            .and_then(|length| deflate::open_end(&mut self.walker, out, length, segment.len()));
        match opened {
            Some(length) => Ok(&out[..length]),
            None => {
                let other = self.other.get_or_insert_with(|| zlib_rs(ZLIB_RS_LEVEL));
                flushed(other, segment, out)
            }
        }
    }
}

fn zlib_rs(level: u8) -> Compress {
    Compress::new(Compression::new(level.clamp(1, 9).into()), false)
}

/// Compresses to a full flush: an empty stored block that ends at a byte.
fn flushed<'a>(
    zlib_rs: &mut Compress,
    segment: &[u8],
    out: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    zlib_rs.reset();
    out.clear();
    // More than deflate needs at its worst.
    out.reserve(segment.len() + segment.len() / 64 + 1024);
    loop {
        let done = usize::try_from(zlib_rs.total_in()).map_err(io::Error::other)?;
        let status = zlib_rs
            .compress_vec(&segment[done..], out, FlushCompress::Full)
            .map_err(io::Error::other)?;
        let is_read = zlib_rs.total_in() == segment.len() as u64;
        if is_read && (out.len() < out.capacity() || status == Status::BufError) {
            return Ok(out);
        }
        out.reserve(1 << 16);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, path::Path};

    use super::*;

    /// Bytes of all kinds: none, few, random, text, zeros, long matches, rare symbols.
    fn samples() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut noise = |length| std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let random: Vec<u8> = noise(300_000);
        let text: Vec<u8> =
            (0..60_000_u64).flat_map(|it| format!("{} ", it * it % 977).into_bytes()).collect();
        let mixed = [&random[..70_000], &text[..], &vec![0; 100_000], &random[..70_000]].concat();
        let skewed = random.iter().map(|it| u8::try_from(it.leading_zeros()).unwrap()).collect();
        let geometric = (0..200_000_u32).map(|it| it.trailing_zeros().to_le_bytes()[0]).collect();
        let small = |length: usize| text[..length].to_vec();
        vec![
            Vec::new(),
            vec![7],
            small(2),
            small(100),
            small(512),
            small(70_000),
            vec![0; 1 << 20],
            random,
            text,
            mixed,
            skewed,
            geometric,
        ]
    }

    const DEFLATE: [BackEnd; 6] = [
        BackEnd::Libdeflate(1),
        BackEnd::Libdeflate(4),
        BackEnd::Libdeflate(6),
        BackEnd::Libdeflate(10),
        BackEnd::ZlibRs(1),
        BackEnd::ZlibRs(6),
    ];

    fn inflate(stream: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = flate2::read::DeflateDecoder::new(stream);
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(reader.total_in(), stream.len() as u64, "all of the stream is read");
        bytes
    }

    #[test]
    fn segments_follow_each_other_in_one_stream() {
        for back_end in DEFLATE {
            let mut compressor = Compressor::new(back_end).unwrap();
            let (mut stream, mut want) = (Vec::new(), Vec::new());
            for sample in samples() {
                stream.extend_from_slice(compressor.compress(&sample).unwrap());
                want.extend_from_slice(&sample);
            }
            stream.extend_from_slice(&END_OF_DEFLATE);
            assert!(inflate(&stream) == want, "for {back_end}");
        }
    }

    /// Small numbers are as likely as large ones.
    fn up_to(random: &mut fastrand::Rng, bits: u32) -> usize {
        let most = 1 << random.u32(0..bits);
        random.usize(1..=most)
    }

    /// Runs of bytes, of few symbols or many, of what was before, near or far, and of noise.
    fn any_bytes(random: &mut fastrand::Rng) -> Vec<u8> {
        let length = up_to(random, 19) - 1;
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        while bytes.len() < length {
            let run = up_to(random, 15).min(length - bytes.len());
            let symbols = random.u8(1..=255);
            match random.u8(0..5) {
                0 => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(run)),
                1 => bytes.extend(std::iter::repeat_with(|| random.u8(..symbols)).take(run)),
                2 => bytes.resize(bytes.len() + run, symbols),
                3 => bytes.extend((0..run).map(|it| it.to_le_bytes()[0] / symbols)),
                _ => {
                    let back = random.usize(1..=40_000).min(bytes.len());
                    let from = bytes.len() - back;
                    (0..if back == 0 { 0 } else { run })
                        .for_each(|it| bytes.push(bytes[from + it]));
                }
            }
        }
        bytes
    }

    #[test]
    fn what_is_compressed_in_pieces_unpacks_to_the_whole() {
        let mut random = fastrand::Rng::with_seed(3);
        for level in (1..=12).cycle().take(120) {
            let mut libdeflate = Libdeflate::new(level);
            let (mut stream, mut want, mut out) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..random.usize(0..6) {
                let piece = any_bytes(&mut random);
                stream.extend_from_slice(libdeflate.compress(&piece, &mut out).unwrap());
                want.extend_from_slice(&piece);
            }
            assert!(libdeflate.other.is_none(), "level {level}");
            stream.extend_from_slice(&END_OF_DEFLATE);
            assert!(inflate(&stream) == want, "level {level}");
            let mut at_once = vec![0; want.len()];
            let done = libdeflater::Decompressor::new().deflate_decompress(&stream, &mut at_once);
            assert!(done.is_ok() && at_once == want, "level {level}");
        }
    }

    #[test]
    fn a_compressor_that_was_used_gives_the_same() {
        for back_end in DEFLATE.into_iter().chain([BackEnd::Zstd(3), BackEnd::Stored]) {
            let mut used = Compressor::new(back_end).unwrap();
            for sample in samples() {
                let again =
                    Compressor::new(back_end).unwrap().compress(&sample).map(<[u8]>::to_vec);
                assert!(used.compress(&sample).unwrap() == again.unwrap(), "for {back_end}");
            }
        }
    }

    #[test]
    fn libdeflate_needs_no_help() {
        for level in 1..=12 {
            let mut libdeflate = Libdeflate::new(level);
            for sample in samples() {
                let mut out = Vec::new();
                libdeflate.compress(&sample, &mut out).unwrap();
                assert!(libdeflate.other.is_none(), "level {level}, {} bytes", sample.len());
            }
        }
    }

    #[test]
    fn a_stream_that_is_damaged_is_refused_or_of_the_same_length() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut walker = Walker::new();
        for sample in samples() {
            let mut libdeflate = Libdeflate::new(6);
            let mut out = vec![0; sample.len() * 2 + 100];
            let length = libdeflate.compressor.deflate_compress(&sample, &mut out).unwrap();
            for wrong in [length - 1, length + 1] {
                let opened = deflate::open_end(&mut walker, &mut out.clone(), wrong, sample.len());
                assert_eq!(opened, None, "{wrong} in place of {length} bytes");
            }
            for wrong in [sample.len().wrapping_sub(1), sample.len() + 1] {
                assert_eq!(deflate::open_end(&mut walker, &mut out.clone(), length, wrong), None);
            }
            for _ in 0..50 {
                let mut damaged = out.clone();
                damaged[random.usize(..length)] ^= 1 << random.u32(..8);
                let opened = deflate::open_end(&mut walker, &mut damaged, length, sample.len());
                if let Some(opened) = opened {
                    damaged.truncate(opened);
                    damaged.extend_from_slice(&END_OF_DEFLATE);
                    assert_eq!(inflate(&damaged).len(), sample.len());
                }
            }
        }
    }

    #[test]
    fn the_versions_are_those_of_the_lock_file() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let lock = fs::read_to_string(file).unwrap();
        for (package, version) in [("libdeflate-sys", LIBDEFLATE), ("zlib-rs", ZLIB_RS)] {
            let want = format!("name = \"{package}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&want), "{package} has another version than {version}");
        }
    }
}
