//! Blobs that are not kept as files: their bytes are put together from objects when they are read.
//!
//! A layer is kept so: its segments are shared with other layers, and are there once.

use std::io::{self, Read};

use super::{ObjectKind, Store, StoreError};
use crate::digest::Digest;

/// The number of the format of [`Composed`]; one of another version is no blob.
const MAGIC: &[u8; 8] = b"rbcomp01";

/// A blob as a list of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a composed blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// `size` bytes of the segment `key`, after its first `skip`.
    Segment {
        /// The key of the object, of the kind [`ObjectKind::Segment`].
        key: Digest,
        /// Bytes at its start that are not of the blob.
        skip: u32,
        /// Bytes of it that are.
        size: u32,
    },
}

impl Composed {
    /// The size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(Part::size).sum()
    }

    /// The segments that it needs.
    pub fn segments(&self) -> impl Iterator<Item = Digest> {
        self.parts.iter().filter_map(|it| match it {
            Part::Segment { key, .. } => Some(*key),
            Part::Bytes(_) => None,
        })
    }

    /// As bytes, to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => {
                    out.push(0);
                    out.extend((bytes.len() as u64).to_le_bytes());
                    out.extend(bytes);
                }
                Part::Segment { key, skip, size } => {
                    out.push(1);
                    out.extend(key.as_bytes());
                    out.extend(skip.to_le_bytes());
                    out.extend(size.to_le_bytes());
                }
            }
        }
        out
    }

    /// Reads what [`Composed::to_bytes`] wrote; none if it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut parts = Vec::new();
        while let Some((kind, after)) = rest.split_first() {
            let (part, after) = match kind {
                0 => {
                    let (size, after) = after.split_first_chunk()?;
                    let size = usize::try_from(u64::from_le_bytes(*size)).ok()?;
                    let (bytes, after) = after.split_at_checked(size)?;
                    (Part::Bytes(bytes.to_vec()), after)
                }
                1 => {
                    let (key, after) = after.split_first_chunk()?;
                    let (skip, after) = after.split_first_chunk()?;
                    let (size, after) = after.split_first_chunk()?;
                    let (skip, size) = (u32::from_le_bytes(*skip), u32::from_le_bytes(*size));
                    (Part::Segment { key: Digest::from_bytes(*key), skip, size }, after)
                }
                _ => return None,
            };
            parts.push(part);
            rest = after;
        }
        Some(Self { parts })
    }
}

impl Part {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Segment { size, .. } => u64::from(*size),
        }
    }
}

/// Reads a composed blob; what it needs is read a part at a time.
#[derive(Debug)]
pub(super) struct Reader {
    store: Store,
    parts: std::vec::IntoIter<Part>,
    part: io::Cursor<Vec<u8>>,
}

impl Reader {
    pub(super) fn new(store: Store, composed: Composed) -> Self {
        Self { store, parts: composed.parts.into_iter(), part: io::Cursor::default() }
    }

    fn load(&self, part: Part) -> io::Result<Vec<u8>> {
        let (key, skip, size) = match part {
            Part::Bytes(bytes) => return Ok(bytes),
            Part::Segment { key, skip, size } => (key, skip as usize, size as usize),
        };
        let found = self.store.object(ObjectKind::Segment, key).map_err(|err| match err {
            StoreError::Damaged { .. } => io::Error::new(io::ErrorKind::InvalidData, err),
            err => io::Error::other(err),
        })?;
        let mut bytes = found.ok_or_else(|| io::Error::other(format!("segment {key} is gone")))?;
        match bytes.len() == skip + size {
            true => Ok(bytes.split_off(skip)),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "a segment of another size")),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(buffer)?;
            if 0 < count || buffer.is_empty() {
                return Ok(count);
            }
            let Some(part) = self.parts.next() else { return Ok(0) };
            self.part = io::Cursor::new(self.load(part)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_blobs_are_read_as_they_were_written() {
        let key = Digest::of(b"x");
        let parts =
            vec![Part::Bytes(b"head".to_vec()), Part::Segment { key, skip: 8, size: 1 << 20 }];
        let composed = Composed { parts };
        assert_eq!(composed.size(), 4 + (1 << 20));
        let bytes = composed.to_bytes();
        assert_eq!(Composed::parse(&bytes), Some(composed));
        for cut in 0..bytes.len() {
            let parsed = Composed::parse(&bytes[..cut]);
            assert!(parsed.is_none_or(|it| it.parts.len() < 2), "cut at {cut}");
        }
    }
}
