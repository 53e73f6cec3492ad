//! Where the tar stream of a tree is cut into segments, and what each is called.
//!
//! **Architecture invariant:** the plan of a segment needs no file of it (but for the first time
//! that a large content is seen), and its key says all that its bytes depend on.
//!
//! **Architecture invariant:** where a segment ends depends on the names and contents near it, not
//! on what is before or on times: an entry that is added or changed moves one segment or two.

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    LayerError, Options,
    chunks::{self, Chunk, Cutter},
    content, header,
    header::BLOCK,
};
use crate::{
    digest::Digest,
    store::Store,
    tree::{Content, Entry, Kind, Meta, Tree, TreePath},
};

/// Files that are larger are cut themselves.
const LARGE: u64 = 1 << 20;
/// No segment ends before it has so many bytes.
const LEAST: u64 = 256 << 10;
/// Behind that, one in so many bytes is an end.
const RATE: u64 = 768 << 10;
/// A segment ends before it has more (but for what PAX records add).
const MOST: u64 = chunks::MOST as u64;
/// Two zero blocks end a tar stream.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A piece of the tar stream.
pub(super) struct Segment<'a> {
    /// A digest over all that its compressed bytes depend on.
    pub(super) key: Digest,
    /// Its bytes in the stream.
    pub(super) length: u64,
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    /// A header without the content behind it.
    Header(&'a TreePath, &'a Entry),
    /// The content of a file that is not large, padded.
    File(&'a TreePath, &'a Content),
    /// A piece of one that is.
    Chunk(Box<LargePart<'a>>),
    /// The end of the stream.
    End,
}

struct LargePart<'a> {
    path: &'a TreePath,
    content: &'a Content,
    chunk: Chunk,
    padding: usize,
}

/// Gives the segments of a tree, one after the other.
pub(super) struct Planner<'a, I> {
    entries: I,
    store: &'a Store,
    format: Digest,
    open: Open<'a>,
    header: Vec<u8>,
    /// An entry that came when its segment was full.
    kept: Option<(&'a TreePath, &'a Entry)>,
    large: Option<(&'a TreePath, &'a Content, Cutter<'a>)>,
    is_ended: bool,
}

/// A segment that more may be added to.
struct Open<'a> {
    parts: Vec<Part<'a>>,
    key: Sha256,
    length: u64,
    /// The length as it counts for where it ends.
    nominal: u64,
}

/// Starts the plan of `tree`.
pub(super) fn plan<'a>(
    tree: &'a Tree,
    store: &'a Store,
    options: &Options,
) -> Planner<'a, impl Iterator<Item = (&'a TreePath, &'a Entry)>> {
    let format = Digest::of(options.format().as_bytes());
    Planner {
        // The root is there without an entry, and a layer's own would change the base's.
        entries: tree.entries().filter(|(path, _)| !path.is_root()),
        store,
        format,
        open: Open::new(format),
        header: Vec::new(),
        kept: None,
        large: None,
        is_ended: false,
    }
}

impl<'a, I: Iterator<Item = (&'a TreePath, &'a Entry)>> Planner<'a, I> {
    /// The next segment; none behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Segment<'a>>, LayerError> {
        while !self.is_ended {
            if let Some(segment) = self.next_chunk()? {
                return Ok(Some(segment));
            }
            let Some((path, entry)) = self.kept.take().or_else(|| self.entries.next()) else {
                self.is_ended = true;
                self.open.end();
                break;
            };
            self.header.clear();
            header::append(&mut self.header, path, entry);
            let nominal = nominal_length(path, entry, self.header.len());
            if 0 < self.open.nominal && MOST < self.open.nominal + nominal {
                self.kept = Some((path, entry));
                return Ok(Some(self.close()));
            }
            self.add(path, entry)?;
            self.open.nominal += nominal;
            let is_long = LEAST <= self.open.nominal && self.large.is_none();
            if is_long && is_end(path, entry, nominal) {
                return Ok(Some(self.close()));
            }
        }
        Ok((0 < self.open.length).then(|| self.close()))
    }

    /// Adds an entry whose header was just made.
    fn add(&mut self, path: &'a TreePath, entry: &'a Entry) -> Result<(), LayerError> {
        self.open.add(b'h', &self.header, self.header.len() as u64, Part::Header(path, entry));
        match &entry.kind {
            Kind::File(content) if LARGE < content.size => {
                self.large = Some((path, content, Cutter::new(self.store, path, content)?));
            }
            Kind::File(content) => {
                let length = content.size + header::padding(content.size) as u64;
                let part = Part::File(path, content);
                self.open.add(b'f', content.digest.as_bytes(), length, part);
            }
            _ => {}
        }
        Ok(())
    }

    /// The next segment of the large file at hand, if there is one.
    fn next_chunk(&mut self) -> Result<Option<Segment<'a>>, LayerError> {
        let Some((path, content, cutter)) = &mut self.large else { return Ok(None) };
        let (path, content) = (*path, *content);
        let Some(chunk) = cutter.next()? else { return Err(content::changed(path)) };
        let end = chunk.offset + u64::from(chunk.length);
        let padding = match end == content.size {
            true => header::padding(content.size),
            false => 0,
        };
        if end == content.size {
            self.large = None;
        }
        let (digest, length) = (chunk.digest, u64::from(chunk.length) + padding as u64);
        let part = Part::Chunk(Box::new(LargePart { path, content, chunk, padding }));
        self.open.add(b'c', digest.as_bytes(), length, part);
        Ok(Some(self.close()))
    }

    fn close(&mut self) -> Segment<'a> {
        let Open { parts, key, length, .. } =
            std::mem::replace(&mut self.open, Open::new(self.format));
        Segment { key: Digest::from_bytes(key.finalize().into()), length, parts }
    }
}

impl<'a> Open<'a> {
    fn new(format: Digest) -> Self {
        let key = Sha256::new().chain_update(format.as_bytes());
        Self { parts: Vec::new(), key, length: 0, nominal: 0 }
    }

    /// Adds a part that makes `length` bytes, which depend on `what`.
    fn add(&mut self, kind: u8, what: &[u8], length: u64, part: Part<'a>) {
        // Framed by kind and lengths, so that no two lists of parts have the same bytes.
        self.key.update([kind]);
        self.key.update(length.to_le_bytes());
        self.key.update((what.len() as u64).to_le_bytes());
        self.key.update(what);
        self.length += length;
        self.parts.push(part);
    }

    fn end(&mut self) {
        self.add(b'e', b"", END.len() as u64, Part::End);
    }
}

/// The bytes of an entry in the stream, as they would be at a common time; a large file fills a
/// segment.
fn nominal_length(path: &TreePath, entry: &Entry, header: usize) -> u64 {
    let header = match header::is_common(entry.meta.mtime) {
        true => header,
        false => {
            let meta = Meta { mtime: 0, ..entry.meta.clone() };
            header::header(path, &Entry { kind: entry.kind.clone(), meta }).len()
        }
    };
    header as u64
        + match &entry.kind {
            Kind::File(content) if LARGE < content.size => MOST,
            Kind::File(content) => content.size + header::padding(content.size) as u64,
            _ => 0,
        }
}

/// Whether a segment ends behind an entry: as likely as the entry is long, whatever is before it.
fn is_end(path: &TreePath, entry: &Entry, nominal: u64) -> bool {
    let content = match &entry.kind {
        Kind::File(content) => content.digest.as_bytes().as_slice(),
        _ => b"",
    };
    let drawn = xxh3_64_with_seed(content, xxh3_64(path.as_bytes()));
    u128::from(drawn) * u128::from(RATE) < u128::from(nominal) << 64
}

impl Segment<'_> {
    /// Puts the bytes into `out`, and gives how many of them are contents of files.
    pub(super) fn read(&self, out: &mut Vec<u8>) -> Result<u64, LayerError> {
        let mut contents = 0;
        for part in &self.parts {
            match part {
                Part::Header(path, entry) => header::append(out, path, entry),
                Part::File(path, content) => {
                    content::append_file(out, path, content)?;
                    contents += content.size;
                    out.resize(out.len() + header::padding(content.size), 0);
                }
                Part::Chunk(part) => {
                    let LargePart { path, content, chunk, padding } = &**part;
                    content::append_chunk(out, path, content, chunk)?;
                    contents += u64::from(chunk.length);
                    out.resize(out.len() + padding, 0);
                }
                Part::End => out.extend_from_slice(&END),
            }
        }
        Ok(contents)
    }
}
