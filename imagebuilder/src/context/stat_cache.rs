//! What was read of files before, by inode: digests and attributes, and the stamps that prove them.
//!
//! ```text
//! "rbuild stat 1\n\0\0"
//! number of records              u64; all numbers are little-endian
//! records, sorted by (dev, ino):
//!     dev ino ctime mtime size   u64 each
//!     mode uid gid               u32 each
//!     digest                     32 bytes
//!     age                        u16: how often this file was written since the record was used
//!     length of the attributes   u32
//!     attributes                 for each: length u32, name, length u32, value
//! XXH3-128 of all before         u128
//! ```
//!
//! Names are in none of it: an inode whose stamp is the same has the same content, wherever its
//! names are.
//!
//! **Architecture invariant:** only stamps that are settled, on trusted filesystems, get a record.
//! A file of another format, or one that is torn or damaged, is as none.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::stamp::Stamp;
use crate::{digest::Digest, tree::Xattrs};

const MAGIC: &[u8; 16] = b"rbuild stat 1\n\0\0";
/// The bytes of a record without its attributes.
const FIXED: usize = 5 * 8 + 3 * 4 + 32 + 2 + 4;
/// A record that was not used for so many builds that changed something is dropped.
const OLDEST: u16 = 8;

/// What was read of one file.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) stamp: Stamp,
    pub(super) digest: Digest,
    pub(super) xattrs: Xattrs,
    age: AtomicU16,
}

/// What was read of files, sorted by inode.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    records: Vec<Record>,
    /// All that is in memory of the records, if they are at rest.
    proofs: Option<Vec<Proof>>,
}

/// The beginning of a digest over a stamp and the digest of the content: who has both can see that
/// there is such a record, in a sixth of its memory.
type Proof = [u8; 16];

impl Record {
    pub(super) fn new(stamp: Stamp, digest: Digest, xattrs: Xattrs) -> Self {
        Self { stamp, digest, xattrs, age: AtomicU16::new(0) }
    }
}

impl StatCache {
    /// Reads a file that [`StatCache::write`] wrote; what is none gives an empty cache.
    pub(super) fn load(path: &Path) -> Self {
        let records = File::open(path).and_then(|it| read(&it)).unwrap_or_default();
        for record in &records {
            // It is as young again as soon as it is used.
            let age = record.age.load(Ordering::Relaxed).saturating_add(1);
            record.age.store(age, Ordering::Relaxed);
        }
        Self { records, proofs: None }
    }

    /// How many records there are in memory.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Forgets all but what [`StatCache::proves`] needs: the records are in a file.
    pub(super) fn rest(&mut self) {
        let mut proofs: Vec<Proof> =
            self.records.iter().map(|it| proof(&it.stamp, it.digest)).collect();
        proofs.sort_unstable();
        *self = Self { records: Vec::new(), proofs: Some(proofs) };
    }

    /// Whether it is at rest: nothing is found then.
    pub(super) fn is_at_rest(&self) -> bool {
        self.proofs.is_some()
    }

    /// Reads the records again, from the file that they are in.
    pub(super) fn wake(&mut self, path: &Path) {
        let records = File::open(path).and_then(|it| read(&it)).unwrap_or_default();
        *self = Self { records, proofs: None };
    }

    /// Whether the file that has this very stamp had this content when it was read.
    pub(super) fn proves(&self, stamp: &Stamp, digest: Digest) -> bool {
        match &self.proofs {
            Some(proofs) => proofs.binary_search(&proof(stamp, digest)).is_ok(),
            None => self.find(stamp).is_some_and(|it| it.digest == digest),
        }
    }

    /// What was read of the file that has this very stamp.
    pub(super) fn find(&self, stamp: &Stamp) -> Option<&Record> {
        let at = self.position(stamp.inode()).ok()?;
        let record = self.records.get(at).filter(|it| it.stamp == *stamp)?;
        if record.age.load(Ordering::Relaxed) != 0 {
            record.age.store(0, Ordering::Relaxed);
        }
        Some(record)
    }

    fn position(&self, inode: (u64, u64)) -> Result<usize, usize> {
        self.records.binary_search_by(|it| it.stamp.inode().cmp(&inode))
    }

    /// Adds records, in place of what was known of the same files.
    pub(super) fn add(&mut self, mut fresh: Vec<Record>) {
        // Names of one file may have been read at once.
        fresh.sort_unstable_by_key(|it| it.stamp.inode());
        fresh.dedup_by_key(|it| it.stamp.inode());
        fresh.retain_mut(|it| match self.position(it.stamp.inode()) {
            Ok(at) => {
                std::mem::swap(&mut self.records[at], it);
                false
            }
            Err(_) => true,
        });
        match self.records.is_empty() {
            true => self.records = fresh,
            false if fresh.is_empty() => {}
            false => {
                self.records.reserve_exact(fresh.len());
                self.records.append(&mut fresh);
                self.records.sort_unstable_by_key(|it| it.stamp.inode());
            }
        }
    }

    /// Writes all that is not too old.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let kept = || self.records.iter().filter(|it| it.age.load(Ordering::Relaxed) <= OLDEST);
        let mut out = Hashing { inner: out, hasher: Xxh3Default::new() };
        out.write_all(MAGIC)?;
        out.write_all(&(kept().count() as u64).to_le_bytes())?;
        let mut bytes = Vec::with_capacity(FIXED);
        for record in kept() {
            bytes.clear();
            encode(record, &mut bytes);
            out.write_all(&bytes)?;
        }
        let sum = out.hasher.digest128();
        out.inner.write_all(&sum.to_le_bytes())
    }
}

fn proof(stamp: &Stamp, digest: Digest) -> Proof {
    let mut bytes = Vec::with_capacity(FIXED);
    encode_stamp(stamp, &mut bytes);
    bytes.extend(digest.as_bytes());
    let mut proof = Proof::default();
    proof.copy_from_slice(&Digest::of(&bytes).as_bytes()[..size_of::<Proof>()]);
    proof
}

fn encode_stamp(stamp: &Stamp, bytes: &mut Vec<u8>) {
    let Stamp { dev, ino, ctime, mtime, size, mode, uid, gid } = *stamp;
    for number in [dev, ino, ctime.cast_unsigned(), mtime.cast_unsigned(), size] {
        bytes.extend(number.to_le_bytes());
    }
    for number in [mode, uid, gid] {
        bytes.extend(number.to_le_bytes());
    }
}

fn encode(record: &Record, bytes: &mut Vec<u8>) {
    let Record { stamp, digest, xattrs, age } = record;
    encode_stamp(stamp, bytes);
    bytes.extend(digest.as_bytes());
    bytes.extend(age.load(Ordering::Relaxed).to_le_bytes());
    let mut attributes = Vec::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        attributes.extend(u32::try_from(part.len()).unwrap_or_default().to_le_bytes());
        attributes.extend(part);
    }
    bytes.extend(u32::try_from(attributes.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(attributes);
}

fn read(file: &File) -> io::Result<Vec<Record>> {
    let size = file.metadata()?.len();
    let inner = BufReader::with_capacity(1 << 16, file);
    let mut from = Hashing { inner, hasher: Xxh3Default::new() };
    let (mut magic, mut count) = ([0; 16], [0; 8]);
    from.read_exact(&mut magic)?;
    from.read_exact(&mut count)?;
    let count = usize::try_from(u64::from_le_bytes(count)).map_err(io::Error::other)?;
    // A number that the file has no place for is no number of records.
    if magic != *MAGIC || size / (FIXED as u64) < count as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut records: Vec<Record> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut fixed = [0; FIXED];
        from.read_exact(&mut fixed)?;
        let (mut record, length) = decode(&fixed).ok_or(io::ErrorKind::InvalidData)?;
        if length != 0 {
            let mut attributes = Vec::new();
            (&mut from).take(length.into()).read_to_end(&mut attributes)?;
            record.xattrs = pairs(&attributes).ok_or(io::ErrorKind::InvalidData)?;
        }
        records.push(record);
    }
    let found = from.hasher.digest128();
    let mut sum = [0; 16];
    from.inner.read_exact(&mut sum)?;
    let is_sorted = records.is_sorted_by(|a, b| a.stamp.inode() < b.stamp.inode());
    match u128::from_le_bytes(sum) == found && is_sorted {
        true => Ok(records),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A record without its attributes, and how many bytes these have.
fn decode(bytes: &[u8; FIXED]) -> Option<(Record, u32)> {
    let (wide, rest) = bytes.split_first_chunk::<40>()?;
    let (narrow, rest) = rest.split_first_chunk::<12>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let (age, length) = rest.split_first_chunk::<2>()?;
    let wide = |at: usize| wide.as_chunks().0.get(at).map(|it| u64::from_le_bytes(*it));
    let narrow = |at: usize| narrow.as_chunks().0.get(at).map(|it| u32::from_le_bytes(*it));
    let stamp = Stamp {
        dev: wide(0)?,
        ino: wide(1)?,
        ctime: wide(2)?.cast_signed(),
        mtime: wide(3)?.cast_signed(),
        size: wide(4)?,
        mode: narrow(0)?,
        uid: narrow(1)?,
        gid: narrow(2)?,
    };
    let mut record = Record::new(stamp, Digest::from_bytes(*digest), Xattrs::default());
    record.age = AtomicU16::new(u16::from_le_bytes(*age));
    Some((record, u32::from_le_bytes(length.try_into().ok()?)))
}

fn pairs(mut bytes: &[u8]) -> Option<Xattrs> {
    let mut part = || -> Option<Vec<u8>> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let part = rest.get(..length)?.to_vec();
        bytes = rest.get(length..)?;
        Some(part)
    };
    let mut found = Vec::new();
    while let Some(name) = part() {
        found.push((name, part()?));
    }
    bytes.is_empty().then(|| found.into_iter().collect())
}

/// Passes bytes on, and keeps their sum.
struct Hashing<T> {
    inner: T,
    hasher: Xxh3Default,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64) -> Stamp {
        Stamp { dev: 7, ino, ctime: -1, mtime: 5, size: 3, mode: 0o100_644, uid: 1, gid: 2 }
    }

    fn record(ino: u64) -> Record {
        let xattrs = match ino % 2 {
            0 => Xattrs::default(),
            _ => [(b"user.a".to_vec(), ino.to_le_bytes().to_vec()), (b"user.b".to_vec(), vec![])]
                .into_iter()
                .collect(),
        };
        Record::new(stamp(ino), Digest::of(&ino.to_le_bytes()), xattrs)
    }

    fn written(cache: &StatCache) -> Vec<u8> {
        let mut bytes = Vec::new();
        cache.write(&mut bytes).unwrap();
        bytes
    }

    fn loaded(bytes: &[u8]) -> StatCache {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        StatCache::load(file.path())
    }

    fn inodes(cache: &StatCache) -> Vec<u64> {
        cache.records.iter().map(|it| it.stamp.ino).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut cache = StatCache::default();
        cache.add([5, 1, 4, 1].map(record).into());
        cache.add([2, 4].map(record).into());
        let read = loaded(&written(&cache));
        assert_eq!(inodes(&read), [1, 2, 4, 5]);
        for ino in inodes(&read) {
            let (found, want) = (read.find(&stamp(ino)).unwrap(), record(ino));
            assert_eq!((found.digest, &found.xattrs), (want.digest, &want.xattrs));
        }
        assert_eq!(written(&read), written(&cache));
    }

    #[test]
    fn a_stamp_that_differs_in_anything_is_another() {
        let mut cache = StatCache::default();
        cache.add(vec![record(1)]);
        let same = stamp(1);
        assert!(cache.find(&same).is_some());
        for other in [
            Stamp { dev: 8, ..same },
            Stamp { ino: 2, ..same },
            // The number of a removed file, given to another one.
            Stamp { ctime: 0, ..same },
            Stamp { mtime: 6, ..same },
            Stamp { size: 4, ..same },
            Stamp { mode: 0o100_600, ..same },
            Stamp { uid: 2, ..same },
            Stamp { gid: 3, ..same },
        ] {
            assert!(cache.find(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_file_that_is_torn_or_damaged_is_as_none() {
        let mut cache = StatCache::default();
        cache.add([1, 2, 3].map(record).into());
        let whole = written(&cache);
        assert_eq!(loaded(&whole).records.len(), 3);
        for end in 0..whole.len() {
            assert!(loaded(&whole[..end]).records.is_empty(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(loaded(&bytes).records.is_empty(), "damaged at {at}");
        }
        assert!(loaded(b"rbuild stat 1\n\0\0\xff\xff\xff\xff\xff\xff\xff\xff").records.is_empty());
        assert!(StatCache::load(Path::new("/nowhere")).records.is_empty());
    }

    #[test]
    fn what_is_at_rest_proves_the_same_and_is_as_it_was_when_it_wakes() {
        let mut cache = StatCache::default();
        cache.add([3, 1, 2].map(record).into());
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = written(&cache);
        std::fs::write(file.path(), &bytes).unwrap();
        let other = Digest::of(b"other");
        cache.rest();
        assert!(cache.is_at_rest() && cache.find(&stamp(1)).is_none());
        for ino in 1..=3 {
            let same = stamp(ino);
            assert!(cache.proves(&same, record(ino).digest));
            assert!(!cache.proves(&same, other));
            for changed in [
                Stamp { dev: 8, ..same },
                Stamp { ino: 4, ..same },
                Stamp { ctime: 0, ..same },
                Stamp { mtime: 6, ..same },
                Stamp { size: 4, ..same },
                Stamp { mode: 0o100_600, ..same },
                Stamp { uid: 2, ..same },
                Stamp { gid: 3, ..same },
            ] {
                assert!(!cache.proves(&changed, record(ino).digest), "{changed:?}");
            }
        }
        cache.wake(file.path());
        // No age is another: it is the same build.
        assert_eq!((cache.is_at_rest(), written(&cache)), (false, bytes));
        cache.wake(Path::new("/nowhere"));
        assert!(!cache.proves(&stamp(1), record(1).digest), "what is lost proves nothing");
    }

    #[test]
    fn what_is_not_used_for_long_is_dropped() {
        let mut cache = StatCache::default();
        cache.add([1, 2].map(record).into());
        for _ in 0..20 {
            cache = loaded(&written(&cache));
            cache.find(&stamp(1)).unwrap();
        }
        assert_eq!(inodes(&cache), [1]);
    }
}
