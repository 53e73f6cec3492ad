//! The fields of a tar header (POSIX.1-1988 ustar, GNU tar's `tar.h`, and those of star).

use std::io;

/// The size of a header, and of what data is filled up to.
pub(super) const BLOCK: usize = 512;
/// Where GNU's headers have the first places of a sparse file's data, and how many.
const SPARSE: (usize, usize) = (386, 4);
/// The number of places in a block that follows such a header.
const MORE_SPARSE: usize = 21;

/// What the checksum counts for its own field: eight spaces.
const SPACES: i64 = 8 * 32;

/// A header whose sum is right.
pub(super) struct Header([u8; BLOCK]);

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> io::Result<Self> {
        let header = Self(*block);
        let stored = number(header.field(148, 8)).unwrap_or(-1);
        let field: i64 = header.field(148, 8).iter().map(|it| i64::from(*it)).sum();
        let mut sum = SPACES - field;
        for byte in block {
            sum += i64::from(*byte);
        }
        let is_right = stored == sum || stored == signed_sum(block);
        match is_right {
            true => Ok(header),
            false => Err(invalid("a header has a wrong checksum")),
        }
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        &self.0[at..at + length]
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with what stands in front of it.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = match (self.field(257, 6), self.field(508, 4)) {
            (b"ustar\0", b"tar\0") => text(self.field(345, 131)),
            (b"ustar\0", _) => text(self.field(345, 155)),
            _ => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok(u32::try_from(number(self.field(100, 8))? & 0o7777).unwrap_or_default())
    }

    pub(super) fn uid(&self) -> io::Result<u64> {
        unsigned(self.field(108, 8))
    }

    pub(super) fn gid(&self) -> io::Result<u64> {
        unsigned(self.field(116, 8))
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        unsigned(self.field(124, 12))
    }

    pub(super) fn mtime(&self) -> io::Result<i64> {
        number(self.field(136, 12))
    }

    pub(super) fn device(&self) -> io::Result<(u64, u64)> {
        match self.field(257, 5) {
            b"ustar" => Ok((unsigned(self.field(329, 8))?, unsigned(self.field(337, 8))?)),
            _ => Ok((0, 0)),
        }
    }

    /// Adds the first places of a sparse file's data, and tells whether a block with more follows.
    pub(super) fn sparse_map(&self, map: &mut Vec<u64>) -> io::Result<bool> {
        places(&self.0[SPARSE.0..], SPARSE.1, map)?;
        Ok(self.0[482] != 0)
    }

    /// The size of a sparse file's content.
    pub(super) fn real_size(&self) -> io::Result<u64> {
        unsigned(self.field(483, 12))
    }
}

/// The sum as some old writers made it, who took bytes for signed.
fn signed_sum(block: &[u8; BLOCK]) -> i64 {
    let bytes = block.iter().enumerate().filter(|(at, _)| !(148..156).contains(at));
    SPACES + bytes.map(|(_, it)| i64::from(it.cast_signed())).sum::<i64>()
}

/// Adds the places in a block that follows the header of a sparse file, and tells whether one more
/// follows.
pub(super) fn sparse_block(block: &[u8; BLOCK], map: &mut Vec<u64>) -> io::Result<bool> {
    places(block, MORE_SPARSE, map)?;
    Ok(block[504] != 0)
}

fn places(bytes: &[u8], count: usize, map: &mut Vec<u64>) -> io::Result<()> {
    for place in bytes.chunks_exact(24).take(count) {
        if place[0] == 0 {
            break;
        }
        map.push(unsigned(&place[..12])?);
        map.push(unsigned(&place[12..])?);
    }
    Ok(())
}

pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|it| *it == 0).next().unwrap_or_default()
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| invalid("a number in a header is negative"))
}

/// A number: octal digits, or, if the highest bit is set, base 256 in two's complement. A field
/// that is left blank is 0, as for other readers.
fn number(field: &[u8]) -> io::Result<i64> {
    let (first, rest) = (field[0], &field[1..]);
    if first & 0x80 == 0 {
        return octal(field);
    }
    // The highest bit says what it is; the next one is the sign.
    let first = i64::from((first << 1).cast_signed() >> 1);
    rest.iter()
        .try_fold(first, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)))
        .ok_or_else(|| invalid("a number in a header is too large"))
}

fn octal(field: &[u8]) -> io::Result<i64> {
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    // Not `-` or `+`, which the parser would take.
    let digits = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with(['+', '-']));
    let number = digits.and_then(|it| i64::from_str_radix(it, 8).ok());
    number.ok_or_else(|| invalid("a field of a header is not a number"))
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
