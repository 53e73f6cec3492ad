//! The members of a layer's tar stream, one at a time: what `docker` and others would unpack.
//!
//! Reads all that Go's `archive/tar` writes and GNU tar makes of files, since those wrote nearly all
//! layers there are: ustar, PAX, GNU's long names, numbers in base 256, sparse files of each kind.
//! (The tar crate takes sizes of more than 8 GiB and sparse files from PAX records only by halves,
//! and reads the data of members that have none.) Where writers contradict themselves, what Go's
//! reader does counts, because that is what unpacks the image elsewhere.
//!
//! **Architecture invariant:** the stream is untrusted. Nothing is held but one member's headers,
//! of bounded size; numbers are bounded before they are used.

use std::io::{self, Read};

use thiserror::Error;

use self::{
    extended::Extended,
    header::{BLOCK, Header},
    sparse::Sparse,
};
use crate::tree::{Device, Meta, PathError, TreePath};

mod extended;
mod header;
mod sparse;

/// The most members that a layer may have.
pub const MOST_MEMBERS: u64 = 1_000_000;
/// The most bytes of extended headers (long names, attributes) of one member.
const LONGEST_HEADER: u64 = 1 << 20;
/// The same for all members of a layer together.
const ALL_HEADERS: u64 = 256 << 20;
/// The longest text of a symbolic link (`PATH_MAX`).
const LONGEST_LINK: usize = 4096;

/// What is said of a stream that is larger than it may be.
pub(crate) const TOO_LARGE: &str = "more than 1 GiB and 100 times its own size when it is unpacked";

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where it lies.
    pub path: TreePath,
    /// What it is.
    pub kind: MemberKind,
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// The bytes that its content has, holes included.
    pub size: u64,
    /// Which one it is, counted from 1; extended headers are not counted.
    pub number: u64,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link to any text.
    Symlink(Vec<u8>),
    /// Another name of a file of this layer or one below.
    Hardlink(TreePath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// What layers below have at the path is gone (OCI image spec, `layer.md`, "Whiteouts").
    Removed,
    /// What layers below have in the folder is gone.
    Opaque,
}

/// Why a stream cannot be read.
#[derive(Debug, Error)]
pub enum MembersError {
    /// It is no tar archive, or is damaged, or could not be read at all.
    #[error("it is not a tar archive, or is damaged")]
    Tar(#[from] io::Error),
    /// A name in it cannot be a file's.
    #[error(transparent)]
    Name(#[from] PathError),
    /// There is too much of something.
    #[error("it has {0}")]
    Limit(&'static str),
    /// It has something that is not supported.
    #[error("it has {0}")]
    Unsupported(String),
}

/// What is done with a member and its content.
pub type Each<'a, E> = &'a mut dyn FnMut(Member, &mut dyn Read) -> Result<(), E>;

/// Calls `each` for every member of a stream that has at most `limit` bytes, and reads it to its
/// end, whatever follows the archive.
pub fn for_each<E: From<MembersError>>(
    stream: &mut dyn Read,
    limit: u64,
    each: Each<'_, E>,
) -> Result<(), E> {
    let mut members = Members { stream, left: limit, holes: limit, number: 0, headers: 0 };
    while let Some((member, data)) = members.next()? {
        members.give(member, data, each)?;
    }
    Ok(members.drain()?)
}

struct Members<'a> {
    stream: &'a mut dyn Read,
    /// Bytes that the stream may still have.
    left: u64,
    /// Bytes of contents, holes included, that there may still be.
    holes: u64,
    number: u64,
    headers: u64,
}

/// What follows a member's headers.
struct Data {
    /// Bytes of data, without what fills the last block.
    size: u64,
    /// Bytes of data and filling that were read already.
    read: u64,
    sparse: Option<Sparse>,
}

/// What lies in a name that begins so is removed, or is a note of who wrote the layer.
const WHITEOUT: &[u8] = b".wh.";

impl Members<'_> {
    /// The next member whose kind is known; none at the end of the archive.
    fn next(&mut self) -> Result<Option<(Member, Data)>, MembersError> {
        let mut extended = Extended::default();
        let mut size = 0;
        while let Some(header) = self.header()? {
            if !extended::is_extended(header.kind()) {
                let found = self.member(&header, extended)?;
                if found.is_some() {
                    return Ok(found);
                }
                (extended, size) = (Extended::default(), 0);
                continue;
            }
            let length = header.size()?;
            // An empty one counts too, so that their number is bounded.
            size += length.saturating_add(BLOCK as u64);
            if LONGEST_HEADER < size {
                return Err(MembersError::Limit("a member with more than 1 MiB of headers"));
            }
            self.headers += length + BLOCK as u64;
            if ALL_HEADERS < self.headers {
                return Err(MembersError::Limit("more than 256 MiB of extended headers"));
            }
            let bytes = self.bytes(length)?;
            extended.add(header.kind(), bytes)?;
        }
        Ok(None)
    }

    /// The next header; none where the archive ends, in empty blocks or without them.
    fn header(&mut self) -> Result<Option<Header>, MembersError> {
        let Some(block) = self.block_or_end()? else { return Ok(None) };
        if block.iter().any(|it| *it != 0) {
            return Ok(Some(Header::parse(&block)?));
        }
        match self.block_or_end()? {
            Some(block) if block.iter().any(|it| *it != 0) => {
                Err(header::invalid("an empty block is followed by one that is not").into())
            }
            _ => Ok(None),
        }
    }

    /// The member that a header begins; none, once its data was passed over, if it is a note of
    /// who wrote the layer.
    fn member(
        &mut self,
        header: &Header,
        mut extended: Extended,
    ) -> Result<Option<(Member, Data)>, MembersError> {
        self.number += 1;
        if MOST_MEMBERS < self.number {
            return Err(MembersError::Limit("more than 1,000,000 members"));
        }
        let path = extended.path().unwrap_or_else(|| header.path());
        let is_folder_by_name = path.ends_with(b"/");
        let path = TreePath::parse(&path)?;
        let kind = member_kind(header, &mut extended, &path, is_folder_by_name)?;
        let has_data = matches!(kind, MemberKind::File);
        let size = match extended.number(b"size")? {
            Some(size) => size,
            None => header.size()?,
        };
        let mut data = Data { size: if has_data { size } else { 0 }, read: 0, sparse: None };
        if self.left < data.size {
            return Err(too_large());
        }
        let mut size = data.size;
        if has_data && let Some(sparse) = self.sparse(header, &extended, &mut data)? {
            size = sparse.size;
            data.sparse = Some(sparse);
        }
        self.holes = self.holes.checked_sub(size).ok_or_else(too_large)?;
        let meta = extended.meta(header)?;
        let member = Member { path, kind, meta, size, number: self.number };
        match special(member)? {
            Some(member) => Ok(Some((member, data))),
            None => {
                self.skip(&data)?;
                Ok(None)
            }
        }
    }

    /// How the content lies in the data, if it has holes.
    fn sparse(
        &mut self,
        header: &Header,
        extended: &Extended,
        data: &mut Data,
    ) -> Result<Option<Sparse>, MembersError> {
        let mut map = Vec::new();
        let size = if header.kind() == b'S' {
            let mut more = header.sparse_map(&mut map)?;
            while more {
                let block = self.block()?;
                more = header::sparse_block(&block, &mut map)?;
                if LONGEST_HEADER < 16 * map.len() as u64 {
                    return Err(sparse::too_many());
                }
            }
            header.real_size()?
        } else {
            let Some(found) = extended.sparse()? else { return Ok(None) };
            map = found.map;
            if found.is_in_data {
                data.read = self.map_in_data(data.size, &mut map)?;
            }
            found.size.unwrap_or(data.size)
        };
        let stored = data.size.saturating_sub(data.read);
        Sparse::new(map, size, stored).map(Some)
    }

    /// Reads the map that stands before the content: lines of numbers, in whole blocks. Returns
    /// the bytes that it has.
    fn map_in_data(&mut self, size: u64, map: &mut Vec<u64>) -> Result<u64, MembersError> {
        let mut lines = sparse::Lines::default();
        let mut read = 0;
        while !lines.are_whole()? {
            if size < read + BLOCK as u64 {
                return Err(header::invalid("a map of a sparse file ends early").into());
            }
            lines.add(&self.block()?)?;
            read += BLOCK as u64;
        }
        *map = lines.into_map();
        Ok(read)
    }

    /// Hands a member over, and passes over what was not read of it.
    fn give<E: From<MembersError>>(
        &mut self,
        member: Member,
        mut data: Data,
        each: Each<'_, E>,
    ) -> Result<(), E> {
        let stored = data.size - data.read;
        let mut content = Content { stream: &mut *self.stream, left: stored };
        let result = match data.sparse.take() {
            Some(sparse) => each(member, &mut sparse.reader(&mut content)),
            None => each(member, &mut content),
        };
        let read = stored - content.left;
        self.left = self.left.saturating_sub(read);
        data.read += read;
        result?;
        Ok(self.skip(&data)?)
    }

    /// Passes over what was not read of a member's data, and what fills its last block: that may be
    /// missing at the end of the archive (as umoci writes them; others read it).
    fn skip(&mut self, data: &Data) -> Result<(), MembersError> {
        let whole = data.size.checked_next_multiple_of(BLOCK as u64).ok_or_else(too_large)?;
        let (content, rest) = (data.size - data.read, whole - data.read);
        self.left = self.left.checked_sub(content).ok_or_else(too_large)?;
        let skipped = io::copy(&mut Read::take(&mut *self.stream, rest), &mut io::sink())?;
        let filling = skipped.checked_sub(content).ok_or_else(ended)?;
        self.left = self.left.saturating_sub(filling);
        Ok(())
    }

    fn bytes(&mut self, size: u64) -> Result<Vec<u8>, MembersError> {
        let whole = size.next_multiple_of(BLOCK as u64);
        self.left = self.left.checked_sub(whole).ok_or_else(too_large)?;
        let mut bytes = Vec::new();
        Read::take(&mut *self.stream, whole).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < whole {
            return Err(ended().into());
        }
        bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], MembersError> {
        self.block_or_end()?.ok_or_else(|| ended().into())
    }

    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>, MembersError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ended().into()),
                Ok(count) => filled += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err.into()),
            }
        }
        self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(too_large)?;
        Ok(Some(block))
    }

    /// Reads what follows the archive, which is in the digest of the layer too.
    fn drain(&mut self) -> Result<(), MembersError> {
        let most = self.left.saturating_add(1);
        let count = io::copy(&mut Read::take(&mut *self.stream, most), &mut io::sink())?;
        if self.left < count {
            return Err(too_large());
        }
        Ok(())
    }
}

/// A member's data; that the archive ends in it is an error, so that nobody takes a part for all.
struct Content<'a> {
    stream: &'a mut dyn Read,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.stream.read(&mut buffer[..most])?;
        if count == 0 && 0 < most {
            return Err(ended());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn too_large() -> MembersError {
    MembersError::Limit(TOO_LARGE)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a member")
}

fn member_kind(
    header: &Header,
    extended: &mut Extended,
    path: &TreePath,
    is_folder_by_name: bool,
) -> Result<MemberKind, MembersError> {
    let link = extended.link().unwrap_or_else(|| header.link());
    Ok(match header.kind() {
        // Before POSIX, a folder was a file whose name ends in a slash.
        0 if is_folder_by_name => MemberKind::Folder,
        0 | b'0' | b'7' | b'S' => MemberKind::File,
        b'1' => MemberKind::Hardlink(TreePath::parse(&link)?),
        b'2' if LONGEST_LINK < link.len() => {
            return Err(MembersError::Limit("a symbolic link of more than 4096 bytes"));
        }
        // A PAX record can have one, and a header that is written of it would end there.
        b'2' if link.contains(&0) => {
            return Err(PathError::Zero(String::from_utf8_lossy(&link).into_owned()).into());
        }
        b'2' => MemberKind::Symlink(link),
        b'3' => MemberKind::CharDevice(extended.device(header)?),
        b'4' => MemberKind::BlockDevice(extended.device(header)?),
        b'5' => MemberKind::Folder,
        b'6' => MemberKind::Fifo,
        other => {
            let what = format!("`{path}`, a member of type {:?}", char::from(other));
            return Err(MembersError::Unsupported(what));
        }
    })
}

/// The member, or what its name says that it is; none if it is a note of who wrote the layer.
fn special(mut member: Member) -> Result<Option<Member>, MembersError> {
    if member.path.is_root() && member.kind != MemberKind::Folder {
        let what = "a root that is not a folder".to_owned();
        return Err(MembersError::Unsupported(what));
    }
    let parent = member.path.parent().unwrap_or_default();
    // Notes of storage drivers (`.wh..wh.aufs`, `.wh..wh.plnk/…`).
    let is_note = |it: &[u8]| it.starts_with(b".wh..wh.");
    if parent.parts().any(is_note) {
        return Ok(None);
    }
    if parent.parts().any(|it| it.starts_with(WHITEOUT)) {
        let what = format!("`{}`, which lies in what is removed", member.path);
        return Err(MembersError::Unsupported(what));
    }
    let Some(name) = member.path.name().and_then(|it| it.strip_prefix(WHITEOUT)) else {
        return Ok(Some(member));
    };
    match name {
        b".wh..opq" => (member.kind, member.path) = (MemberKind::Opaque, parent),
        name if name.starts_with(WHITEOUT) => return Ok(None),
        b"" | b"." | b".." => {
            let name = format!(".wh.{}", String::from_utf8_lossy(name));
            return Err(PathError::Escapes(name).into());
        }
        name => (member.kind, member.path) = (MemberKind::Removed, parent.join(name)),
    }
    Ok(Some(member))
}

#[cfg(test)]
mod tests;
