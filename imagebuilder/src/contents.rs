//! What a layer holds, without its contents: a table that is kept, so that a layer is unpacked once
//! in the life of a store, or never, if it was made here.
//!
//! ```text
//! rbtoc001    the number of the format
//! 8 bytes     xxh3-64 of all that follows
//! 4 bytes     the size of the first part
//! part        what the layer removes, in zstd
//! part        what it has, in zstd, in the order of its tar stream
//! ```
//!
//! What is removed stands first, because it is removed from the layers below alone, wherever it
//! stands in the stream. Numbers are LEB128; a path begins with the length that it has in common
//! with the one before.
//!
//! **Architecture invariant:** a table of a layer that others made is made of a stream that is
//! bounded, and is used only if the stream has the `diff_id` by which the table is kept.

use std::io::{self, BufReader, Read, Write};

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;
use zstd::stream::{read::Decoder, write::Encoder};

use self::wire::{Sink, Source};
use crate::{
    context,
    digest::{Digest, Hashing},
    members::{self, Member, MemberKind, MembersError},
    tree::{Content, ContentOrigin, Device, InLayer, Kind, Meta, Tree, TreePath},
};

mod wire;

/// The number of the format; a table of another one is no table.
const MAGIC: &[u8; 8] = b"rbtoc001";
/// The most bytes of a table.
const LARGEST: usize = 64 << 20;
/// More than the headers of a member have beside names and attributes, and what fills its blocks.
const LARGEST_HEADER: u64 = 8 << 10;
/// The largest file whose bytes are kept.
const LARGEST_KEPT: u64 = 1 << 20;
/// The files whose bytes are kept, since owners are looked up in them.
const KEPT: [&[u8]; 2] = [b"etc/passwd", b"etc/group"];
/// zstd's fastest level: the table is small, and half of it are digests.
const LEVEL: i32 = 1;

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it lies.
    pub path: TreePath,
    /// Which member of the tar stream it is, counted from 1.
    pub number: u64,
    /// What is there, or is gone.
    pub what: What,
}

/// What a line of a table says.
#[derive(Clone, Debug)]
pub enum What {
    /// Something is there.
    Here {
        /// What it is.
        kind: Kind,
        /// Owner, mode, time and attributes.
        meta: Meta,
        /// The bytes of a small file that is needed to know who owns something.
        kept: Option<Vec<u8>>,
    },
    /// What layers below have there is gone.
    Removed,
    /// What layers below have in that folder is gone.
    Opaque,
}

/// Why a table could not be made.
#[derive(Debug, Error)]
pub enum ContentsError {
    /// The layer's stream cannot be read.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The table could not be compressed.
    #[error("a table of contents could not be written")]
    Write(#[source] io::Error),
}

/// A table is not what was written: it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a table of contents is damaged")]
pub struct Damaged;

/// A table of contents.
#[derive(Clone, Debug)]
pub struct Contents(Vec<u8>);

impl Contents {
    /// Makes the table of a tar stream that has at most `limit` bytes; returns the digest of the
    /// stream, too, which is to be compared with the layer's `diff_id` before the table is used.
    pub fn of_stream(stream: impl Read, limit: u64) -> Result<(Self, Digest), ContentsError> {
        let mut stream = Hashed::new(stream);
        let mut table = Writer::new()?;
        members::for_each(&mut stream, limit, &mut |member, content| table.add(member, content))?;
        Ok((table.finish()?, stream.finish()))
    }

    /// Makes the table of a layer that is written from `tree`.
    pub fn of_tree(tree: &Tree) -> Result<Self, ContentsError> {
        let mut table = Writer::new()?;
        // The root is in no layer.
        let entries = tree.entries().filter(|(path, _)| !path.is_root());
        for ((path, entry), number) in entries.zip(1..) {
            let kept = kept_of_tree(path, &entry.kind);
            let what = What::Here { kind: entry.kind.clone(), meta: entry.meta.clone(), kept };
            table.write(&Item { path: path.clone(), number, what })?;
        }
        table.finish()
    }

    /// Puts a table together of its parts, in zstd: what is removed, and what is there. Whether they
    /// are such is seen when they are read.
    pub fn of_parts(removed: &[u8], here: &[u8]) -> Self {
        Self::put_together(removed, here.to_vec())
    }

    fn put_together(removed: &[u8], here: Vec<u8>) -> Self {
        let size = u32::try_from(removed.len()).unwrap_or(u32::MAX).to_le_bytes();
        let head = [MAGIC.as_slice(), &[0; 8], &size, removed].concat();
        // Once in memory: tables may be large.
        let mut table = here;
        table.splice(..0, head);
        let (head, rest) = table.split_at_mut(MAGIC.len() + 8);
        head[MAGIC.len()..].copy_from_slice(&xxh3_64(rest).to_le_bytes());
        Self(table)
    }

    /// A table as it was kept; none if it is of another format, or damaged.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (size, parts) = rest.split_first_chunk()?;
        let is_right = u64::from_le_bytes(*sum) == xxh3_64(rest)
            && u32::from_le_bytes(*size) as usize <= parts.len();
        is_right.then_some(Self(bytes))
    }

    /// As bytes, to be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// More bytes than the tar stream of a layer has that was written from these items.
    pub(crate) fn most_unpacked(&self) -> u64 {
        let items = self.items().filter_map(Result::ok);
        items.map(|it| it.most_unpacked()).fold(0, u64::saturating_add)
    }

    /// What the layer removes, and then what it has.
    pub fn items(&self) -> impl Iterator<Item = Result<Item, Damaged>> {
        let rest = &self.0[MAGIC.len() + 8..];
        let (size, parts) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let (removed, here) = parts.split_at(u32::from_le_bytes(*size) as usize);
        Items::new(removed).chain(Items::new(here))
    }
}

impl Item {
    fn most_unpacked(&self) -> u64 {
        let What::Here { kind, meta, .. } = &self.what else { return LARGEST_HEADER };
        let (content, link) = match kind {
            Kind::File(content) => (content.size, 0),
            Kind::Symlink(target) => (0, target.len()),
            Kind::Hardlink(target) => (0, target.as_bytes().len()),
            _ => (0, 0),
        };
        let named = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() + value.len() + 64;
        let records =
            self.path.as_bytes().len() + link + meta.xattrs.iter().map(named).sum::<usize>();
        content.saturating_add(LARGEST_HEADER + records as u64)
    }
}

/// The bytes of a file of a tree that are kept, if it still is what it was: who writes the layer
/// makes sure of that, so that what could not be read here is read from the layer.
fn kept_of_tree(path: &TreePath, kind: &Kind) -> Option<Vec<u8>> {
    let Kind::File(content) = kind else { return None };
    if !is_kept(path, content.size) {
        return None;
    }
    let mut bytes = Vec::new();
    content.open(path).ok()?.take(LARGEST_KEPT + 1).read_to_end(&mut bytes).ok()?;
    (Digest::of(&bytes) == content.digest).then_some(bytes)
}

fn is_kept(path: &TreePath, size: u64) -> bool {
    KEPT.contains(&path.as_bytes()) && size <= LARGEST_KEPT
}

/// Passes on what it reads, and remembers its digest.
pub(crate) struct Hashed<R> {
    inner: R,
    hashing: Hashing<io::Sink>,
}

impl<R> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hashing: Hashing::new(io::sink()) }
    }

    pub(crate) fn finish(self) -> Digest {
        let (_, digest, _) = self.hashing.finish();
        digest
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hashing.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Writes a table.
struct Writer {
    removed: Part,
    here: Part,
}

/// One part of a table that is being written.
struct Part {
    out: Encoder<'static, Vec<u8>>,
    count: u64,
    last: TreePath,
    number: u64,
}

impl Writer {
    fn new() -> Result<Self, ContentsError> {
        Ok(Self { removed: Part::new()?, here: Part::new()? })
    }

    fn add(&mut self, member: Member, content: &mut dyn Read) -> Result<(), ContentsError> {
        let Member { path, kind, meta, size, number } = member;
        let mut kept = None;
        let kind = match kind {
            MemberKind::File if is_kept(&path, size) => {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(MembersError::from)?;
                let content = content_of(Digest::of(&bytes), size);
                kept = Some(bytes);
                content
            }
            MemberKind::File => {
                let mut hashing = Hashing::new(io::sink());
                context::copy(&mut { content }, &mut hashing).map_err(MembersError::from)?;
                let (_, digest, _) = hashing.finish();
                content_of(digest, size)
            }
            MemberKind::Folder => Kind::Folder,
            MemberKind::Symlink(target) => Kind::Symlink(target),
            MemberKind::Hardlink(target) => Kind::Hardlink(target),
            MemberKind::CharDevice(device) => Kind::CharDevice(device),
            MemberKind::BlockDevice(device) => Kind::BlockDevice(device),
            MemberKind::Fifo => Kind::Fifo,
            MemberKind::Removed => return self.write(&Item { path, number, what: What::Removed }),
            MemberKind::Opaque => return self.write(&Item { path, number, what: What::Opaque }),
        };
        self.write(&Item { path, number, what: What::Here { kind, meta, kept } })
    }

    fn write(&mut self, item: &Item) -> Result<(), ContentsError> {
        let part = match item.what {
            What::Here { .. } => &mut self.here,
            What::Removed | What::Opaque => &mut self.removed,
        };
        part.write(item).map_err(ContentsError::Write)?;
        match part.out.get_ref().len() {
            ..=LARGEST => Ok(()),
            _ => Err(MembersError::Limit("a table of contents of more than 64 MiB").into()),
        }
    }

    fn finish(self) -> Result<Contents, ContentsError> {
        let removed = self.removed.finish().map_err(ContentsError::Write)?;
        let here = self.here.finish().map_err(ContentsError::Write)?;
        Ok(Contents::put_together(&removed, here))
    }
}

fn content_of(digest: Digest, size: u64) -> Kind {
    Kind::File(Content { digest, size, origin: ContentOrigin::Layer(InLayer::default()) })
}

const END: u8 = 0;
const FOLDER: u8 = 1;
const FILE: u8 = 2;
const FILE_KEPT: u8 = 3;
const SYMLINK: u8 = 4;
const HARDLINK: u8 = 5;
const CHAR_DEVICE: u8 = 6;
const BLOCK_DEVICE: u8 = 7;
const FIFO: u8 = 8;
const REMOVED: u8 = 9;
const OPAQUE: u8 = 10;

impl Part {
    fn new() -> Result<Self, ContentsError> {
        let out = Encoder::new(Vec::new(), LEVEL).map_err(ContentsError::Write)?;
        Ok(Self { out, count: 0, last: TreePath::ROOT, number: 0 })
    }

    fn write(&mut self, item: &Item) -> io::Result<()> {
        let tag = match &item.what {
            What::Removed => REMOVED,
            What::Opaque => OPAQUE,
            What::Here { kind, kept, .. } => match kind {
                Kind::Folder => FOLDER,
                Kind::File(_) if kept.is_some() => FILE_KEPT,
                Kind::File(_) => FILE,
                Kind::Symlink(_) => SYMLINK,
                Kind::Hardlink(_) => HARDLINK,
                Kind::CharDevice(_) => CHAR_DEVICE,
                Kind::BlockDevice(_) => BLOCK_DEVICE,
                Kind::Fifo => FIFO,
            },
        };
        let out = &mut Sink(&mut self.out);
        out.byte(tag)?;
        out.number(item.number - self.number)?;
        out.path(&self.last, &item.path)?;
        if let What::Here { kind, meta, kept } = &item.what {
            out.meta(meta)?;
            write_kind(out, kind)?;
            if let Some(bytes) = kept {
                out.bytes(bytes)?;
            }
        }
        self.count += 1;
        self.number = item.number;
        self.last = item.path.clone();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        let out = &mut Sink(&mut self.out);
        out.byte(END)?;
        out.number(self.count)?;
        self.out.finish()
    }
}

fn write_kind(out: &mut Sink<impl Write>, kind: &Kind) -> io::Result<()> {
    match kind {
        Kind::Folder | Kind::Fifo => Ok(()),
        Kind::File(Content { digest, size, .. }) => {
            out.number(*size)?;
            out.digest(*digest)
        }
        Kind::Symlink(target) => out.bytes(target),
        Kind::Hardlink(target) => out.bytes(target.as_bytes()),
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            out.number(u64::from(device.major))?;
            out.number(u64::from(device.minor))
        }
    }
}

/// One part of a table, unpacked.
type PartReader<'a> = Source<BufReader<Decoder<'static, BufReader<&'a [u8]>>>>;

/// Reads one part of a table; after damage, there is nothing more.
struct Items<'a> {
    /// None if the part cannot be unpacked.
    source: Option<PartReader<'a>>,
    is_over: bool,
    count: u64,
    last: TreePath,
    number: u64,
}

impl<'a> Items<'a> {
    fn new(part: &'a [u8]) -> Self {
        let source = Decoder::new(part).ok().map(|it| Source(BufReader::new(it)));
        Self { source, is_over: false, count: 0, last: TreePath::ROOT, number: 0 }
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<Item>, Damaged> {
        let source = self.source.as_mut().ok_or(Damaged)?;
        match source.byte().ok_or(Damaged)? {
            END if source.number() == Some(self.count) => Ok(None),
            END => Err(Damaged),
            tag => self.item(tag).map(Some).ok_or(Damaged),
        }
    }

    fn item(&mut self, tag: u8) -> Option<Item> {
        let source = self.source.as_mut()?;
        let number = self.number.checked_add(source.number()?)?;
        let path = source.path(&self.last)?;
        let what = match tag {
            REMOVED => What::Removed,
            OPAQUE => What::Opaque,
            tag => {
                let meta = source.meta()?;
                let kind = read_kind(source, tag)?;
                let kept = if tag == FILE_KEPT { Some(source.bytes()?) } else { None };
                What::Here { kind, meta, kept }
            }
        };
        (self.count, self.number, self.last) = (self.count + 1, number, path.clone());
        Some(Item { path, number, what })
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Item, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let line = self.line();
        self.is_over = !matches!(line, Ok(Some(_)));
        line.transpose()
    }
}

fn read_kind(source: &mut Source<impl Read>, tag: u8) -> Option<Kind> {
    Some(match tag {
        FOLDER => Kind::Folder,
        FILE | FILE_KEPT => {
            let size = source.number()?;
            content_of(source.digest()?, size)
        }
        SYMLINK => Kind::Symlink(source.bytes()?),
        HARDLINK => Kind::Hardlink(TreePath::parse(&source.bytes()?).ok()?),
        CHAR_DEVICE => Kind::CharDevice(device(source)?),
        BLOCK_DEVICE => Kind::BlockDevice(device(source)?),
        FIFO => Kind::Fifo,
        _ => return None,
    })
}

fn device(source: &mut Source<impl Read>) -> Option<Device> {
    let mut number = || u32::try_from(source.number()?).ok();
    Some(Device { major: number()?, minor: number()? })
}

#[cfg(test)]
mod tests;
