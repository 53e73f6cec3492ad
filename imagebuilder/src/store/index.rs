//! The index of a pack: what is in it, and where.
//!
//! ```text
//! "rbindex2"                         8 bytes
//! number of records, size of pack    2 × u64, as all numbers here with the lowest byte first
//! records, sorted by kind and key    64 bytes each:
//!     kind, three zeros              4 bytes
//!     length                         u32
//!     offset in the pack             u64
//!     XXH3-128 of the object         u128
//!     key                            32 bytes
//! XXH3-128 of all before             u128
//! ```
//!
//! **Architecture invariant:** an [`Index`] that exists is whole and sorted, and all that it names
//! is inside the pack.

use xxhash_rust::xxh3::xxh3_128;

use super::ObjectKind;
use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"rbindex2";
const HEADER: usize = 24;
const RECORD: usize = 64;
const TRAILER: usize = 16;

/// Where an object lies in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: ObjectKind,
    /// What it is found by.
    pub key: Digest,
    /// Where it begins in the pack.
    pub offset: u64,
    /// Its size in bytes.
    pub length: u32,
    /// The XXH3-128 of its bytes.
    pub hash: u128,
}

/// What is in one pack. Kept as it is on disk: 64 bytes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    bytes: Vec<u8>,
}

impl Index {
    /// Reads an index; none if it is anything but a whole one.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (body, trailer) = bytes.split_last_chunk::<TRAILER>()?;
        let is_whole = HEADER <= body.len()
            && body.starts_with(MAGIC)
            && xxh3_128(body) == u128::from_le_bytes(*trailer);
        if !is_whole || !(body.len() - HEADER).is_multiple_of(RECORD) {
            return None;
        }
        let index = Self { bytes };
        let count = index.number(8);
        let is_counted = usize::try_from(count).is_ok_and(|it| it == index.len());
        (is_counted && index.is_sound()).then_some(index)
    }

    /// Whether all records mean something, lie in the pack, and are sorted.
    fn is_sound(&self) -> bool {
        let mut last = None;
        (0..self.len()).all(|at| {
            let Some(entry) = read(self.record(at)) else { return false };
            let end = entry.offset.checked_add(u64::from(entry.length));
            let is_next = last.is_none_or(|it| it < (entry.kind, entry.key));
            last = Some((entry.kind, entry.key));
            is_next && end.is_some_and(|it| it <= self.pack_size())
        })
    }

    /// The bytes of an index of a pack of that size.
    pub fn to_bytes(mut entries: Vec<Entry>, pack_size: u64) -> Vec<u8> {
        entries.sort_by_key(|it| (it.kind, it.key));
        let mut bytes = Vec::with_capacity(HEADER + entries.len() * RECORD + TRAILER);
        bytes.extend(MAGIC);
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(pack_size.to_le_bytes());
        for entry in &entries {
            bytes.extend([entry.kind.number(), 0, 0, 0]);
            bytes.extend(entry.length.to_le_bytes());
            bytes.extend(entry.offset.to_le_bytes());
            bytes.extend(entry.hash.to_le_bytes());
            bytes.extend(entry.key.as_bytes());
        }
        Self::sealed(&bytes)
    }

    /// Some bytes, and the checksum that an index with them has at its end.
    pub fn sealed(body: &[u8]) -> Vec<u8> {
        [body, &xxh3_128(body).to_le_bytes()].concat()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        (self.bytes.len() - HEADER - TRAILER) / RECORD
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the pack in bytes.
    pub fn pack_size(&self) -> u64 {
        self.number(16)
    }

    /// The object with that number.
    pub fn entry(&self, at: usize) -> Option<Entry> {
        if self.len() <= at { None } else { read(self.record(at)) }
    }

    /// All objects, sorted.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.len()).filter_map(|at| self.entry(at))
    }

    /// The number of the object with that key.
    pub fn find(&self, kind: ObjectKind, key: Digest) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(middle)?;
            match (entry.kind, entry.key).cmp(&(kind, key)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn record(&self, at: usize) -> &[u8] {
        &self.bytes[HEADER + at * RECORD..][..RECORD]
    }

    fn number(&self, at: usize) -> u64 {
        self.bytes[at..].first_chunk().map_or(0, |it| u64::from_le_bytes(*it))
    }
}

fn read(record: &[u8]) -> Option<Entry> {
    let ([kind, 0, 0, 0], rest) = record.split_first_chunk()? else { return None };
    let (length, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    Some(Entry {
        kind: ObjectKind::of_number(*kind)?,
        key: Digest::from_bytes(*rest.first_chunk()?),
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
        hash: u128::from_le_bytes(*hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: ObjectKind, name: &str, offset: u64) -> Entry {
        let hash = xxh3_128(name.as_bytes());
        Entry { kind, key: Digest::of(name.as_bytes()), offset, length: 10, hash }
    }

    fn entries() -> Vec<Entry> {
        let mut entries = Vec::new();
        for (at, kind) in (0..).zip(ObjectKind::ALL) {
            entries.push(entry(kind, "a", 20 * at));
            entries.push(entry(kind, "b", 20 * at + 10));
        }
        entries
    }

    #[test]
    fn what_was_written_is_found() {
        let bytes = Index::to_bytes(entries(), 1000);
        let index = Index::parse(bytes).unwrap();
        assert_eq!((index.len(), index.pack_size()), (10, 1000));
        for entry in entries() {
            let at = index.find(entry.kind, entry.key).unwrap();
            assert_eq!(index.entry(at), Some(entry));
        }
        assert_eq!(index.find(ObjectKind::Blob, Digest::of(b"c")), None);
        assert!(Index::parse(Index::to_bytes(Vec::new(), 0)).unwrap().is_empty());
    }

    #[test]
    fn an_index_that_is_torn_or_changed_is_none() {
        let bytes = Index::to_bytes(entries(), 1000);
        for at in 0..bytes.len() {
            assert_eq!(Index::parse(bytes[..at].to_vec()), None, "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Index::parse(changed), None, "changed at {at}");
        }
    }

    #[test]
    fn an_index_that_leads_out_of_its_pack_is_none() {
        let sizes = [(1000, true), (100, true), (99, false), (0, false)];
        for (size, is_sound) in sizes {
            let found = Index::parse(Index::to_bytes(entries(), size));
            assert_eq!(found.is_some(), is_sound, "for a pack of {size} bytes");
        }
        let mut twice = entries();
        twice.extend(entries());
        assert_eq!(Index::parse(Index::to_bytes(twice, 1000)), None);
    }
}
