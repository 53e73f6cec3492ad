//! What was known at the end of each segment while a layer was made, so that a layer with the same
//! beginning starts behind it.
//!
//! **Architecture invariant:** a record that is not whole, or of another layer or format, is no
//! record: all is done from the start then. A wrong one could give a wrong digest.

use sha2::{
    Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{
    digest::Digest,
    store::{ObjectKind, Store, StoreError},
};

const MAGIC: &[u8; 8] = b"rblchk01";
/// The bytes of the state of a hash.
const STATE: usize = 104;
const MARK: usize = 32 + 8 + 8 + 4 + 2 * STATE;

/// The two streams of a layer, as far as they are known.
#[derive(Clone, Default)]
pub(super) struct Streams {
    pub(super) tar: Stream,
    pub(super) blob: Stream,
    /// The CRC-32 of the tar stream.
    pub(super) crc: u32,
}

/// The digest and length of a stream, so far.
#[derive(Clone, Default)]
pub(super) struct Stream {
    hasher: Sha256,
    pub(super) length: u64,
}

/// What was known at the end of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) key: Digest,
    tar_length: u64,
    pub(super) blob_length: u64,
    crc: u32,
    tar: [u8; STATE],
    blob: [u8; STATE],
}

impl Stream {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.hasher, bytes);
        self.length += bytes.len() as u64;
    }

    pub(super) fn digest(self) -> Digest {
        Digest::from_bytes(sha2::Digest::finalize(self.hasher).into())
    }

    fn restore(state: &[u8; STATE], length: u64) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(state.as_slice()).ok()?;
        Some(Self { hasher: Sha256::deserialize(&state).ok()?, length })
    }

    fn state(&self) -> [u8; STATE] {
        self.hasher.serialize().into()
    }
}

impl Mark {
    pub(super) fn new(key: Digest, streams: &Streams) -> Self {
        let Streams { tar, blob, crc } = streams;
        let (tar_length, blob_length) = (tar.length, blob.length);
        Self { key, tar_length, blob_length, crc: *crc, tar: tar.state(), blob: blob.state() }
    }

    /// The streams as they were then.
    pub(super) fn streams(&self) -> Option<Streams> {
        let tar = Stream::restore(&self.tar, self.tar_length)?;
        let blob = Stream::restore(&self.blob, self.blob_length)?;
        Some(Streams { tar, blob, crc: self.crc })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&self.tar_length.to_le_bytes());
        out.extend_from_slice(&self.blob_length.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.tar);
        out.extend_from_slice(&self.blob);
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (tar_length, rest) = rest.split_first_chunk()?;
        let (blob_length, rest) = rest.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (tar, blob) = rest.split_first_chunk()?;
        Some(Self {
            key: Digest::from_bytes(*key),
            tar_length: u64::from_le_bytes(*tar_length),
            blob_length: u64::from_le_bytes(*blob_length),
            crc: u32::from_le_bytes(*crc),
            tar: *tar,
            blob: blob.try_into().ok()?,
        })
    }
}

/// Keeps the marks of the layer `blob`, which was made in `format`.
pub(super) fn save(
    store: &Store,
    format: &str,
    blob: Digest,
    marks: &[Mark],
) -> Result<(), StoreError> {
    store.add_object(ObjectKind::Checkpoints, blob, &to_bytes(format, blob, marks))
}

/// The marks that were kept of the layer `blob`, if they are whole.
pub(super) fn load(store: &Store, format: &str, blob: Digest) -> Result<Vec<Mark>, StoreError> {
    let bytes = store.whole_object(ObjectKind::Checkpoints, blob)?;
    Ok(bytes.and_then(|it| parse(&it, format, blob)).unwrap_or_default())
}

fn to_bytes(format: &str, blob: Digest, marks: &[Mark]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + 96 + marks.len() * MARK);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(Digest::of(format.as_bytes()).as_bytes());
    out.extend_from_slice(blob.as_bytes());
    for mark in marks {
        mark.write(&mut out);
    }
    let check = Digest::of(&out);
    out.extend_from_slice(check.as_bytes());
    out
}

fn parse(bytes: &[u8], format: &str, blob: Digest) -> Option<Vec<Mark>> {
    let (rest, check) = bytes.split_last_chunk()?;
    if Digest::of(rest).as_bytes() != check {
        return None;
    }
    let rest = rest.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix(Digest::of(format.as_bytes()).as_bytes())?;
    let rest = rest.strip_prefix(blob.as_bytes())?;
    let (marks, []) = rest.as_chunks::<MARK>() else { return None };
    let marks: Vec<Mark> = marks.iter().map(|it| Mark::parse(it)).collect::<Option<_>>()?;
    let grows =
        |it: &[Mark]| it[0].tar_length < it[1].tar_length && it[0].blob_length < it[1].blob_length;
    marks.windows(2).all(grows).then_some(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<Mark> {
        let mut streams = Streams::default();
        let mut mark = |text: &str| {
            streams.tar.update(text.as_bytes());
            streams.blob.update(&text.as_bytes()[1..]);
            streams.crc = crc32fast::hash(text.as_bytes());
            Mark::new(Digest::of(text.as_bytes()), &streams)
        };
        vec![mark("one"), mark(&"two".repeat(100)), mark("three")]
    }

    #[test]
    fn marks_are_read_as_they_were_written_or_not_at_all() {
        let (blob, marks) = (Digest::of(b"blob"), marks());
        let bytes = to_bytes("format", blob, &marks);
        assert_eq!(parse(&bytes, "format", blob), Some(marks));
        assert_eq!(parse(&bytes, "other", blob), None);
        assert_eq!(parse(&bytes, "format", Digest::of(b"other")), None);
        for place in 0..bytes.len() {
            assert_eq!(parse(&bytes[..place], "format", blob), None, "cut at {place}");
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(parse(&damaged, "format", blob), None, "damaged at {place}");
        }
    }

    #[test]
    fn a_stream_goes_on_where_it_was() {
        let text = "x".repeat(1000);
        for cut in [0, 1, 63, 64, 65, 512, 999, 1000] {
            let mut streams = Streams::default();
            streams.tar.update(&text.as_bytes()[..cut]);
            let mut again = Mark::new(Digest::of(b""), &streams).streams().unwrap();
            again.tar.update(&text.as_bytes()[cut..]);
            assert_eq!(again.tar.length, 1000);
            assert_eq!(again.tar.digest(), Digest::of(text.as_bytes()), "cut at {cut}");
        }
    }
}
