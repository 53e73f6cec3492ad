//! Segments become a blob: both streams are hashed, and the store learns how they stand together.
//!
//! **Architecture invariant:** the blob is known to the store when all of its segments are.

use super::{
    Job, LayerError, Method, Reuse, Upload,
    checkpoints::{self, Mark, Streams},
    compress::END_OF_DEFLATE,
    plan::{Planner, Segment},
    segments::{Made, Origin, SKIP},
};
use crate::{
    digest::{Blob, Digest, Framed},
    image::{Compression, Layer},
    store::{Composed, ObjectKind, Part},
    tree::{Entry, TreePath},
};

/// A gzip header (RFC 1952, 2.3) with no name, no time, and no system.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A layer that is being put together.
pub(super) struct Assembly<'j, 'a> {
    job: &'j mut Job<'a>,
    format: String,
    /// What the layer before had at the end of each of its segments.
    known: Vec<Mark>,
    parts: Vec<Part>,
    marks: Vec<Mark>,
    streams: Streams,
    upload: Uploading,
}

/// How the upload of the blob stands.
enum Uploading {
    /// Nothing new is in it yet.
    NotAsked,
    /// Nobody wants it.
    No,
    /// All bytes so far went to it.
    Yes(Box<dyn Upload>),
}

impl<'j, 'a> Assembly<'j, 'a> {
    pub(super) fn new(job: &'j mut Job<'a>) -> Result<Self, LayerError> {
        let format = job.options.format();
        let known = known(job, &format)?;
        let head = head(job.options.compression);
        let mut streams = Streams::default();
        streams.blob.update(head);
        let parts = Vec::from_iter((!head.is_empty()).then(|| Part::Bytes(head.to_vec())));
        let upload = Uploading::NotAsked;
        Ok(Self { job, format, known, parts, marks: Vec::new(), streams, upload })
    }

    /// Takes the segments that are those of the layer before, and gives the first that is not.
    pub(super) fn take_known<'t, I>(
        &mut self,
        planner: &mut Planner<'t, I>,
    ) -> Result<Option<Segment<'t>>, LayerError>
    where
        I: Iterator<Item = (&'t TreePath, &'t Entry)>,
    {
        let known = std::mem::take(&mut self.known);
        let mut start = self.streams.blob.length;
        for mark in known {
            let Some(segment) = planner.next()? else { break };
            let size = mark.blob_length.checked_sub(start).and_then(|it| u32::try_from(it).ok());
            // A blob that came as a file has no segments.
            let is_same =
                mark.key == segment.key && self.job.store.has_object(ObjectKind::Segment, mark.key);
            let (Some(size), Some(streams), true) = (size, mark.streams(), is_same) else {
                return Ok(Some(segment));
            };
            start = mark.blob_length;
            self.job.stats.reused = streams.tar.length;
            self.streams = streams;
            self.parts.push(Part::Segment { key: mark.key, skip: SKIP, size });
            self.marks.push(mark);
        }
        planner.next()
    }

    /// Takes the next segment.
    pub(super) fn take(&mut self, made: &Made) -> Result<(), LayerError> {
        let Made { key, tar, crc, contents, object, origin } = made;
        let (key, length) = (*key, tar.len() as u64);
        let stats = &mut self.job.stats;
        stats.read += *contents;
        stats.hashed += length;
        match origin {
            Origin::New => stats.compressed += length,
            Origin::Store => stats.reused += length,
        }
        if *origin == Origin::New {
            self.job.store.add_object(ObjectKind::Segment, key, object)?;
            self.begin_upload()?;
        }
        let bytes = &object[SKIP as usize..];
        self.streams.tar.update(tar);
        self.streams.crc = combine(self.streams.crc, *crc, length);
        self.put(bytes);
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.parts.push(Part::Segment { key, skip: SKIP, size });
        self.marks.push(Mark::new(key, &self.streams));
        (self.job.progress)(*contents);
        Ok(())
    }

    /// Adds bytes to the blob.
    fn put(&mut self, bytes: &[u8]) {
        self.streams.blob.update(bytes);
        if let Uploading::Yes(upload) = &mut self.upload {
            upload.write(bytes);
        }
    }

    /// Starts the upload when the first thing is new, with what was not.
    fn begin_upload(&mut self) -> Result<(), LayerError> {
        if !matches!(self.upload, Uploading::NotAsked) {
            return Ok(());
        }
        self.upload = Uploading::No;
        let Some(mut upload) = self.job.uploads.and_then(super::Uploads::begin) else {
            return Ok(());
        };
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => upload.write(bytes),
                Part::Segment { key, .. } => {
                    // One that is gone again: the push from the store tells of it.
                    let object = self.job.store.whole_object(ObjectKind::Segment, *key)?;
                    let Some(object) = object else { return Ok(()) };
                    upload.write(object.get(SKIP as usize..).unwrap_or_default());
                }
            }
        }
        self.upload = Uploading::Yes(upload);
        Ok(())
    }

    /// Ends the blob, and tells the store of it.
    pub(super) fn finish(mut self) -> Result<Layer, LayerError> {
        let compression = self.job.options.compression;
        let trailer = trailer(compression, &self.streams);
        if !trailer.is_empty() {
            self.put(&trailer);
            self.parts.push(Part::Bytes(trailer));
        }
        let Streams { tar, blob, .. } = self.streams;
        let (diff_id, size) = (tar.digest(), blob.length);
        let blob = Blob { digest: blob.digest(), size };
        let store = self.job.store;
        // What is there already, whole, is not added again.
        let is_new = self.job.reuse == Reuse::Nothing;
        if is_new || !store.has(blob.digest, blob.size)? {
            store.add_composed(blob.digest, &Composed { parts: self.parts })?;
        }
        if is_new || !store.has_object(ObjectKind::Checkpoints, blob.digest) {
            checkpoints::save(store, &self.format, blob.digest, &self.marks)?;
        }
        let last = last(self.job.like, &self.format);
        let hex = blob.digest.hex();
        if store.recall::<String>(last)?.as_ref() != Some(&hex) {
            store.remember(last, &hex)?;
        }
        if let Uploading::Yes(upload) = self.upload {
            upload.finish(blob);
        }
        let media_type = compression.compression().media_type().to_owned();
        Ok(Layer { media_type, digest: blob.digest, size: blob.size, diff_id })
    }
}

/// The marks of the layer that this one is most like, if all of it is in the store.
fn known(job: &Job<'_>, format: &str) -> Result<Vec<Mark>, LayerError> {
    if job.reuse == Reuse::Nothing {
        return Ok(Vec::new());
    }
    let hex = job.store.recall::<String>(last(job.like, format))?;
    match hex.and_then(|it| Digest::from_hex(&it)) {
        // One that is gone may have been damaged: each of its segments is looked at then.
        Some(blob) if job.store.size(blob)?.is_some() => {
            Ok(checkpoints::load(job.store, format, blob)?)
        }
        _ => Ok(Vec::new()),
    }
}

/// Where the digest of the layer that was made last is remembered.
fn last(like: Digest, format: &str) -> Digest {
    Framed::new("rbuild last layer 1").with(like.as_bytes()).with(format).finish()
}

fn head(method: Method) -> &'static [u8] {
    match method.compression() {
        Compression::Gzip => &GZIP,
        Compression::Zstd | Compression::None => &[],
    }
}

fn trailer(method: Method, streams: &Streams) -> Vec<u8> {
    match method.compression() {
        Compression::Gzip => {
            // The length counts modulo 2^32 (RFC 1952, 2.3.1).
            let [a, b, c, d, ..] = streams.tar.length.to_le_bytes();
            [&END_OF_DEFLATE[..], &streams.crc.to_le_bytes(), &[a, b, c, d]].concat()
        }
        Compression::Zstd | Compression::None => Vec::new(),
    }
}

/// The CRC-32 of two streams, one after the other.
fn combine(first: u32, second: u32, second_length: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(first);
    crc.combine(&crc32fast::Hasher::new_with_initial_len(second, second_length));
    crc.finalize()
}
