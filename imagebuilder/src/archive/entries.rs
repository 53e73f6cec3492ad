//! The entries of a tar that nobody vouches for: ustar, GNU's long names, and PAX.
//!
//! **Architecture invariant:** no entry takes memory by its size: headers are bounded, contents
//! are streamed.

use std::{
    io::{self, Read},
    path::Path,
};

use tar::{EntryType, Header, PaxExtensions};

use crate::layout::{LayoutError, failed};

const BLOCK: u64 = 512;
/// The longest extended header or name that is read: names and times take a few hundred bytes.
const LONGEST_EXTENSION: u64 = 1 << 16;

/// Reads one entry after the other. As a reader it gives the content of the last one.
#[derive(Debug)]
pub(super) struct Entries<'a, R> {
    stream: R,
    path: &'a Path,
    /// Bytes of the content that were not read yet.
    left: u64,
    /// Bytes that fill the content's last block.
    padding: u64,
    /// Whether it is known to be a tar.
    is_tar: bool,
}

/// An entry, as its headers tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name; what is no UTF-8 is replaced, since no name that means something has it.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: EntryType,
    /// What it links to, if it is a link.
    pub(super) link: String,
    /// The size of its content in bytes.
    pub(super) size: u64,
}

/// What headers that come before an entry say of it.
#[derive(Default)]
struct Extensions {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    is_sparse: bool,
}

impl<'a, R: Read> Entries<'a, R> {
    /// The entries of a stream; `path` is its name in errors.
    pub(super) fn new(stream: R, path: &'a Path) -> Self {
        Self { stream, path, left: 0, padding: 0, is_tar: false }
    }

    /// The stream, after the last entry that was read.
    pub(super) fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry; what is left of the last one is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayoutError> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let mut entry = Entry {
                name: text(&header.path_bytes()),
                kind: header.entry_type(),
                link: header.link_name_bytes().map(|it| text(&it)).unwrap_or_default(),
                size: header.entry_size().map_err(failed("read", self.path))?,
            };
            if is_extension(entry.kind) {
                self.set_content(entry.size);
                self.extend(&entry, &mut extensions)?;
                continue;
            }
            entry.name = extensions.name.unwrap_or(entry.name);
            entry.link = extensions.link.unwrap_or(entry.link);
            entry.size = extensions.size.unwrap_or(entry.size);
            if extensions.is_sparse {
                entry.kind = EntryType::GNUSparse;
            }
            // Whatever a link's header says, no content follows it (POSIX `pax`, typeflag 1 and 2).
            let has_content =
                !matches!(entry.kind, EntryType::Link | EntryType::Symlink | EntryType::Directory);
            self.set_content(if has_content { entry.size } else { 0 });
            return Ok(Some(entry));
        }
    }

    fn set_content(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn header(&mut self) -> Result<Option<Header>, LayoutError> {
        self.skip().map_err(failed("read", self.path))?;
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                // A tar that was cut between two entries, or that has no end, as some write it.
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) if !self.is_tar => return Err(self.no_archive()),
                Ok(0) => {
                    return Err(failed("read", self.path)(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => filled += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(failed("read", self.path)(err)),
            }
        }
        if bytes.iter().all(|it| *it == 0) {
            return Ok(None);
        }
        match header.cksum() {
            Ok(sum) if sum == checksum(&header) => {
                self.is_tar = true;
                Ok(Some(header))
            }
            _ => Err(self.no_archive()),
        }
    }

    fn no_archive(&self) -> LayoutError {
        LayoutError::NoArchive { path: self.path.to_owned() }
    }

    /// Passes over what is left of the last entry, which must be there.
    fn skip(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut self.stream.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn extend(&mut self, entry: &Entry, found: &mut Extensions) -> Result<(), LayoutError> {
        let refused = |reason| {
            let (path, name) = (self.path.to_owned(), entry.name.clone());
            Err(LayoutError::Entry { path, name, reason })
        };
        if LONGEST_EXTENSION < entry.size {
            return refused("that is longer than an extended header should be");
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(failed("read", self.path))?;
        match entry.kind {
            EntryType::GNULongName => found.name = Some(text(until_zero(&bytes))),
            EntryType::GNULongLink => found.link = Some(text(until_zero(&bytes))),
            EntryType::XHeader => return self.pax(entry, &bytes, found),
            // A global header: what it says of names and sizes would be of all files that follow.
            _ => {
                let (mut global, name) = (Extensions::default(), entry.name.clone());
                self.pax(entry, &bytes, &mut global)?;
                if global.name.is_some() || global.link.is_some() || global.size.is_some() {
                    let (path, reason) = (self.path.to_owned(), "that says one thing of all files");
                    return Err(LayoutError::Entry { path, name, reason });
                }
            }
        }
        Ok(())
    }

    fn pax(&self, entry: &Entry, bytes: &[u8], found: &mut Extensions) -> Result<(), LayoutError> {
        let refused = || LayoutError::Entry {
            path: self.path.to_owned(),
            name: entry.name.clone(),
            reason: "that is not a valid extended header",
        };
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| refused())?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => found.name = Some(text(value)),
                b"linkpath" => found.link = Some(text(value)),
                b"size" => {
                    let number = std::str::from_utf8(value).ok().and_then(|it| it.parse().ok());
                    found.size = Some(number.ok_or_else(refused)?);
                }
                key if key.starts_with(b"GNU.sparse.") => found.is_sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Entries<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

/// The sum of all bytes of a header, those of the sum itself taken for spaces (POSIX `ustar`).
fn checksum(header: &Header) -> u32 {
    let bytes = header.as_bytes();
    let sum = |part: &[u8]| part.iter().map(|it| u32::from(*it)).sum::<u32>();
    sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..])
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|it| *it == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
