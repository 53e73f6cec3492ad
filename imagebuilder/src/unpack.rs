//! Layers as streams: found in the store or elsewhere, verified, and unpacked.
//!
//! **Architecture invariant:** a layer is verified by its digest and its size wherever it comes
//! from, and is unpacked in bounded memory.

use std::{
    cell::Cell,
    collections::HashMap,
    error::Error,
    fmt,
    io::{self, BufReader, Cursor, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use crate::{
    bounded::{Bounded, Counted},
    contents::Contents,
    digest::{Digest, Verifying},
    image::{Compression, Layer},
    members::{self, Each, MembersError},
    rootfs::RootfsError,
    store::{Composed, ObjectKind, Store, StoreError},
};

/// What is read of a blob at once.
const BUFFER: usize = 1 << 17;
/// The largest window of zstd, as a power of 2: 32 MiB. What `--long` or `--ultra` ask for beyond
/// would have to be held in memory.
const LARGEST_WINDOW: u32 = 25;
/// What any layer may unpack to.
const SMALLEST_LIMIT: u64 = 1 << 30;
/// How much larger than its blob a larger one may be: files shrink to a third, and what shrinks to
/// a hundredth is zeros.
const MOST_EXPANSION: u64 = 100;

/// Layers that are not in the store.
pub trait RemoteLayers: Sync {
    /// Whether there is a place to ask for a layer; asks none.
    fn has(&self, layer: &Layer) -> bool;

    /// Opens a layer's blob; what comes is verified by who reads it.
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>, RemoteError>;
}

/// Why a layer could not be had from elsewhere.
pub type RemoteError = Box<dyn Error + Send + Sync>;

/// Where layers are found.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    /// First here.
    pub store: &'a Store,
    /// Then there.
    pub remote: Option<&'a dyn RemoteLayers>,
}

impl fmt::Debug for Layers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("store", self.store).finish_non_exhaustive()
    }
}

impl<'a> Layers<'a> {
    /// Whether a layer is in the store, whole, or there is a place to ask for it.
    pub fn has(&self, layer: &Layer) -> Result<bool, StoreError> {
        Ok(self.store.has(layer.digest, layer.size)? || self.remote.is_some_and(|it| it.has(layer)))
    }

    /// The table of contents of a layer; made first if there is none yet.
    pub fn contents(&self, layer: &Layer) -> Result<Contents, RootfsError> {
        let known = self.store.whole_object(ObjectKind::Contents, layer.diff_id)?;
        if let Some(contents) = known.and_then(Contents::parse) {
            return Ok(contents);
        }
        let known = self.made_size(layer)?;
        let made = self.unpack(layer, known).and_then(|stream| {
            let made = Contents::of_stream(stream, most(layer.size).max(known));
            let (contents, found) = made.map_err(|err| RootfsError::contents(layer, err))?;
            check(layer, found)?;
            Ok(contents)
        });
        let contents = made.inspect_err(|err| self.note(layer, err))?;
        self.store.add_object(ObjectKind::Contents, layer.diff_id, contents.as_bytes())?;
        Ok(contents)
    }

    /// What a layer unpacks to at most, as its table says, or its segments: nothing if there are
    /// none.
    ///
    /// Zeros shrink to less than a hundredth, and a layer that was made here may be full of them.
    fn known_size(&self, layer: &Layer) -> Result<u64, StoreError> {
        let known = self.store.object(ObjectKind::Contents, layer.diff_id)?;
        match known.and_then(Contents::parse) {
            Some(contents) => Ok(contents.most_unpacked()),
            None => self.made_size(layer),
        }
    }

    /// What a layer unpacks to that was made here, as each of its segments says; nothing if it was
    /// not, or if some of it is lost.
    fn made_size(&self, layer: &Layer) -> Result<u64, StoreError> {
        let found = self.store.whole_object(ObjectKind::Composed, layer.digest)?;
        let Some(composed) = found.and_then(|it| Composed::parse(&it)) else { return Ok(0) };
        let (mut lengths, mut total) = (HashMap::new(), 0_u64);
        // Zeros are the same segment again and again.
        for key in composed.segments() {
            let length = match lengths.get(&key) {
                Some(length) => *length,
                None => {
                    let Some(length) = self.segment_length(key)? else { return Ok(0) };
                    *lengths.entry(key).or_insert(length)
                }
            };
            total = total.saturating_add(length);
        }
        Ok(total)
    }

    /// The bytes of a segment in the tar stream, which are the first that is kept of it.
    fn segment_length(&self, key: Digest) -> Result<Option<u64>, StoreError> {
        let found = self.store.whole_object(ObjectKind::Segment, key)?;
        let length = found.as_ref().and_then(|it| it.first_chunk());
        Ok(length.map(|it| u32::from_le_bytes(*it).into()))
    }

    /// Calls `each` for every member of a layer. What it was given is to be used only if all went
    /// well: the layer is verified at its end.
    pub(crate) fn for_each_member(
        &self,
        layer: &Layer,
        each: Each<'_, RootfsError>,
    ) -> Result<(), RootfsError> {
        let known = self.known_size(layer)?;
        let limit = most(layer.size).max(known);
        let read = self.unpack(layer, known).and_then(|stream| {
            let mut stream = crate::contents::Hashed::new(stream);
            let read = members::for_each::<Within>(&mut stream, limit, &mut |member, content| {
                each(member, content).map_err(Within::Each)
            });
            read.map_err(|err| match err {
                Within::Members(err) => RootfsError::members(layer, err),
                Within::Each(err) => err,
            })?;
            check(layer, stream.finish())
        });
        read.inspect_err(|err| self.note(layer, err))
    }

    /// A blob that is damaged here can be made or pulled again when it is gone; one that is what
    /// its digest says was never a layer. The next command tells which.
    fn note(&self, layer: &Layer, err: &RootfsError) {
        if matches!(err, RootfsError::Tar { .. }) {
            let _ = self.store.remove_if_damaged(layer.digest);
        }
    }

    /// Opens a layer as an uncompressed stream, which may have `known` bytes however few it is
    /// made of.
    fn unpack(&self, layer: &Layer, known: u64) -> Result<Box<dyn Read + 'a>, RootfsError> {
        let Some(said) = Compression::of(&layer.media_type) else {
            let what = match is_foreign(&layer.media_type) {
                true => "a media type of what must not be distributed",
                false => "the media type",
            };
            let what = format!("{what} `{}`", layer.media_type);
            return Err(RootfsError::Unsupported { layer: layer.digest, what });
        };
        let broken = |source| RootfsError::Tar { layer: layer.digest, source };
        let packed = Rc::new(Cell::new(0));
        let mut blob = Counted::new(self.open(layer)?, &packed);
        let (head, found) = sniff(&mut blob).map_err(broken)?;
        if found != said {
            return Err(RootfsError::Compression { layer: layer.digest, found, said });
        }
        let blob = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(blob));
        let inner: Box<dyn Read + 'a> = match found {
            Compression::Gzip => Box::new(MultiGzDecoder::new(blob)),
            Compression::None => Box::new(blob),
            Compression::Zstd => {
                let mut decoder = Decoder::with_buffer(blob).map_err(broken)?;
                decoder.window_log_max(LARGEST_WINDOW).map_err(broken)?;
                Box::new(decoder)
            }
        };
        Ok(Box::new(bounded(inner, packed, known)))
    }

    /// Opens a layer's blob: content that is not what its digest says is an error at the end.
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + 'a>, RootfsError> {
        let Layer { digest, size, .. } = *layer;
        match (self.store.open_blob(digest), self.remote) {
            (Ok(blob), _) if self.store.has(digest, size)? => Ok(Box::new(blob)),
            (Ok(_), _) => {
                let reason = format!("its image says that it has {size} bytes");
                Err(StoreError::Damaged { expected: digest, reason }.into())
            }
            (Err(StoreError::Missing(_)), Some(remote)) if remote.has(layer) => {
                let opened = remote.open(layer);
                let blob =
                    opened.map_err(|source| RootfsError::Remote { layer: digest, source })?;
                Ok(Box::new(Verifying::new(blob, digest, size)))
            }
            (Err(err), _) => Err(err.into()),
        }
    }
}

/// Ends where more is unpacked than what was read may hold: the size that an image tells of a
/// layer is not known to be right before its end.
pub(crate) fn bounded<R: Read>(inner: R, packed: Rc<Cell<u64>>, known: u64) -> impl Read {
    Bounded::new(inner, packed, move |packed, unpacked| match unpacked <= most(packed).max(known) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, members::TOO_LARGE)),
    })
}

/// What [`Layers::for_each_member`] stopped for.
enum Within {
    Members(MembersError),
    Each(RootfsError),
}

impl From<MembersError> for Within {
    fn from(err: MembersError) -> Self {
        Self::Members(err)
    }
}

/// The most bytes that so many may unpack to.
fn most(packed: u64) -> u64 {
    packed.saturating_mul(MOST_EXPANSION).saturating_add(SMALLEST_LIMIT)
}

fn check(layer: &Layer, found: Digest) -> Result<(), RootfsError> {
    match found == layer.diff_id {
        true => Ok(()),
        false => {
            let expected = layer.diff_id;
            Err(RootfsError::DiffId { layer: layer.digest, expected, found })
        }
    }
}

/// Whether it is one of the media types of layers that registries do not have (OCI image spec,
/// `layer.md`, "Non-Distributable Layers"; docker's "foreign" ones).
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// The first bytes of a blob, and how it is compressed as they tell.
fn sniff(blob: &mut impl Read) -> io::Result<(Vec<u8>, Compression)> {
    let mut head = Vec::new();
    blob.by_ref().take(4).read_to_end(&mut head)?;
    let found = match head.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or one that readers skip (RFC 8878, section 3.1).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    };
    Ok((head, found))
}

#[cfg(test)]
mod tests;
