//! Archives of images: the tar of an OCI layout, and what `docker save` writes, in its old form (a
//! folder a layer) and its new one (an OCI layout with a `manifest.json`).
//!
//! Read in this order: [`unpack`] (any archive becomes an OCI layout in a scratch folder, in one
//! pass, whatever the order of its entries), [`entries`] (the tar itself), [`docker`] (what
//! `manifest.json` means), [`mod@write`] (a docker archive from images), [`part`] (a file that
//! appears as a whole).
//!
//! **Architecture invariant:** an archive is untrusted: nothing of it is written under a name that
//! it chose, its entries and bytes are bounded (those of what is unpacked too), and links are names
//! of other entries, never followed on disk.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;
use thiserror::Error;

use self::{
    docker::Member,
    entries::{Entries, Entry},
};
pub use self::{part::PartFile, write::save};
use crate::{
    bounded::{Bounded, Counted},
    digest::Digest,
    layout::{self, LayoutError, failed},
    store::{Scratch, Store},
};

mod docker;
mod entries;
mod part;
#[cfg(test)]
mod tests;
pub(crate) mod write;

/// What an archive may have before it is taken for an attempt to fill the disk.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Entries of the tar.
    entries: u64,
    /// Bytes of all files, unpacked.
    bytes: u64,
    /// Bytes that any compressed archive may unpack to …
    free: u64,
    /// … and how many more for each byte that it has.
    ratio: u64,
}

const LIMITS: Limits = Limits { entries: 100_000, bytes: 64 << 30, free: 1 << 30, ratio: 200 };
/// How much after the end of a tar is read, so that who writes it into a pipe sees no error.
const AFTER_END: u64 = 1 << 20;
/// The most memory that reading zstd may take, as a power of two: what its highest levels write
/// without being asked for long distances.
const ZSTD_WINDOW: u32 = 25;

/// Makes an OCI layout of an archive, in a scratch folder; `path` is its name in errors.
pub(crate) fn unpack(
    store: &Store,
    stream: impl Read,
    path: &Path,
) -> Result<Scratch, LayoutError> {
    unpack_within(store, stream, path, LIMITS)
}

fn unpack_within(
    store: &Store,
    stream: impl Read,
    path: &Path,
    limits: Limits,
) -> Result<Scratch, LayoutError> {
    let scratch = store.scratch()?;
    let folder = scratch.path();
    for path in [folder.join("blobs/sha256"), folder.join("members")] {
        fs::create_dir_all(&path).map_err(failed("written", &path))?;
    }
    let mut unpacking = Unpacking { folder, path, limits, members: BTreeMap::new(), bytes: 0 };
    unpacking.all(decompressed(stream, path, limits)?)?;
    let members = unpacking.members;
    let is_layout = ["oci-layout", "index.json"].iter().all(|it| members.contains_key(*it));
    match (is_layout, members.contains_key("manifest.json")) {
        (true, _) => {}
        (false, true) => docker::to_layout(folder, path, &members, limits)?,
        (false, false) if members.contains_key("oci-layout") => {
            return Err(LayoutError::NoLayout { path: path.to_owned(), missing: "index.json" });
        }
        (false, false) if members.contains_key("index.json") => {
            return Err(LayoutError::NoLayout { path: path.to_owned(), missing: "oci-layout" });
        }
        (false, false) => return Err(LayoutError::NoArchive { path: path.to_owned() }),
    }
    Ok(scratch)
}

/// An archive that is being unpacked.
struct Unpacking<'a> {
    folder: &'a Path,
    path: &'a Path,
    limits: Limits,
    members: BTreeMap<String, Member>,
    bytes: u64,
}

impl Unpacking<'_> {
    fn all(&mut self, stream: impl Read) -> Result<(), LayoutError> {
        let mut entries = Entries::new(stream, self.path);
        let mut count = 0;
        while let Some(entry) = entries.next()? {
            count += 1;
            if self.limits.entries < count {
                return Err(self.too_much("entries", self.limits.entries));
            }
            self.bytes = self.bytes.saturating_add(entry.size);
            if self.limits.bytes < self.bytes {
                return Err(self.too_much("bytes", self.limits.bytes));
            }
            self.entry(&entry, &mut entries)?;
        }
        let mut rest = entries.into_inner().take(AFTER_END);
        io::copy(&mut rest, &mut io::sink()).map_err(failed("read", self.path))?;
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), LayoutError> {
        let name = entry.name.strip_prefix("./").unwrap_or(&entry.name);
        if !is_wanted(name) {
            return Ok(());
        }
        let refused = |reason| {
            let (path, name) = (self.path.to_owned(), name.to_owned());
            Err(LayoutError::Entry { path, name, reason })
        };
        let member = match entry.kind {
            EntryType::Regular | EntryType::Continuous => self.file(name, entry, content)?,
            EntryType::Directory => return Ok(()),
            // Old dockers write a layer once, and links in place of the others.
            EntryType::Symlink | EntryType::Link if !is_of_layout(name) => {
                let is_hard = entry.kind == EntryType::Link;
                let from = if is_hard { "" } else { name.rsplit_once('/').map_or("", |it| it.0) };
                match docker::resolve(from, &entry.link) {
                    Some(target) => Member::Link(target),
                    None => return refused("that links out of the archive"),
                }
            }
            EntryType::GNUSparse => return refused("that is a sparse file, which is not read"),
            _ => return refused("that is not a regular file"),
        };
        match self.members.insert(name.to_owned(), member) {
            None => Ok(()),
            Some(_) => refused("that is there twice"),
        }
    }

    /// Writes an entry's content under a name of our own.
    fn file(
        &mut self,
        name: &str,
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<Member, LayoutError> {
        let target = match name {
            "oci-layout" | "index.json" => self.folder.join(name),
            _ => match blob_digest(name) {
                Some(digest) => layout::blob_path(self.folder, digest),
                None => self.folder.join(format!("members/{}", self.members.len())),
            },
        };
        let mut file = File::create(&target).map_err(failed("written", &target))?;
        layout::copy(content, &mut file).map_err(|err| err.at(self.path, &target))?;
        Ok(Member::File { path: target, size: entry.size })
    }

    fn too_much(&self, what: &'static str, most: u64) -> LayoutError {
        LayoutError::TooMuch { path: self.path.to_owned(), what, most }
    }
}

/// Whether an entry may belong to an image: what else is there is not even unpacked.
fn is_wanted(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    let ends = [".json", ".tar", ".tar.gz", ".tgz"];
    is_of_layout(name) || ends.iter().any(|it| last.ends_with(it)) || last.starts_with("sha256:")
}

fn is_of_layout(name: &str) -> bool {
    matches!(name, "oci-layout" | "index.json") || blob_digest(name).is_some()
}

fn blob_digest(name: &str) -> Option<Digest> {
    name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex)
}

/// What [`Limits::check`] found.
#[derive(Debug, Error)]
#[error("it is {unpacked} bytes of {packed} that are compressed")]
struct Bomb {
    packed: u64,
    unpacked: u64,
}

impl Limits {
    /// Stops when something compressed gives far more than it has.
    fn check(self, packed: u64, unpacked: u64) -> io::Result<()> {
        match unpacked <= self.free.saturating_add(packed.saturating_mul(self.ratio)) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, Bomb { packed, unpacked })),
        }
    }
}

/// What a stream holds, if it is compressed in a way that is known.
fn decompressed<'a>(
    mut stream: impl Read + 'a,
    path: &Path,
    limits: Limits,
) -> Result<Box<dyn Read + 'a>, LayoutError> {
    let mut start = Vec::new();
    stream.by_ref().take(6).read_to_end(&mut start).map_err(failed("read", path))?;
    let kind = Magic::of(&start);
    let packed = Rc::new(Cell::new(0));
    let stream = io::Cursor::new(start).chain(stream);
    let stream = BufReader::new(Counted::new(stream, &packed));
    let inner: Box<dyn Read + 'a> = match kind {
        Magic::Gzip => Box::new(MultiGzDecoder::new(stream)),
        Magic::Zstd => Box::new(zstd(stream).map_err(failed("read", path))?),
        Magic::None => return Ok(Box::new(stream)),
        Magic::Other(with) => {
            return Err(LayoutError::Compression { path: path.to_owned(), with });
        }
    };
    Ok(Box::new(Bounded::new(inner, packed, move |packed, unpacked| {
        limits.check(packed, unpacked)
    })))
}

/// How something is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magic {
    Gzip,
    Zstd,
    Other(&'static str),
    None,
}

impl Magic {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            _ => Self::None,
        }
    }
}

fn zstd<R: BufRead>(stream: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
}
