//! A tar stream, read by hand: ustar (POSIX.1-1988) with PAX headers (POSIX.1-2001), and what is
//! odd about it.

use std::collections::BTreeMap;

use super::{Fault, Rule};
use crate::store::hex;

const BLOCK: usize = 512;
/// The largest numbers that fit the octal fields: owners and device numbers, and sizes and times.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, without a slash at the end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The permission bits, with setuid, setgid and the sticky bit.
    pub mode: u32,
    /// The user.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// The time of the last change, in whole seconds since 1970.
    pub mtime: i64,
    /// The extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file: its size and the digest of its content, in hex.
    File(u64, String),
    /// A folder.
    Folder,
    /// A symbolic link, and where it leads.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    Hardlink(Vec<u8>),
    /// A character device.
    CharDevice(u64, u64),
    /// A block device.
    BlockDevice(u64, u64),
    /// A FIFO.
    Fifo,
}

/// The entries of a stream, and its faults.
pub(super) fn read(bytes: &[u8], faults: &mut Vec<Fault>) -> Vec<Entry> {
    let mut reader = Reader { rest: bytes, faults, entries: Vec::new(), seen: BTreeMap::new() };
    while reader.next_entry() {}
    reader.entries
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

struct Reader<'a> {
    rest: &'a [u8],
    faults: &'a mut Vec<Fault>,
    entries: Vec<Entry>,
    /// The types of the entries so far, by path.
    seen: BTreeMap<Vec<u8>, u8>,
}

impl<'a> Reader<'a> {
    fn fault(&mut self, rule: Rule, what: impl Into<String>) {
        self.faults.push(Fault { rule, what: what.into() });
    }

    /// Takes so many bytes and what fills their last block, which must be zero.
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let whole = length.checked_next_multiple_of(BLOCK)?;
        if self.rest.len() < whole {
            self.fault(Rule::Truncated, format!("{} bytes of {whole}", self.rest.len()));
            return None;
        }
        let (taken, rest) = self.rest.split_at(whole);
        self.rest = rest;
        let (taken, padding) = taken.split_at(length);
        if padding.iter().any(|it| *it != 0) {
            self.fault(Rule::Padding, "what fills a block is not zero");
        }
        Some(taken)
    }

    /// Reads one entry. Whether another one may follow.
    fn next_entry(&mut self) -> bool {
        let mut records = Records::new();
        let Some(mut header) = self.header() else { return false };
        if header.kind == b'x' {
            let Some(body) = self.take(header.size) else { return false };
            self.check_pax_header(&header);
            records = self.records(body);
            let Some(next) = self.header() else {
                self.fault(Rule::Truncated, "nothing follows a PAX header");
                return false;
            };
            header = next;
        }
        self.entry(&header, &records)
    }

    /// The next header; none at the end.
    fn header(&mut self) -> Option<Header> {
        let Some(block) = self.rest.get(..BLOCK) else {
            let rule = if self.rest.is_empty() { Rule::End } else { Rule::Truncated };
            self.fault(rule, "the stream ends without two zero blocks");
            return None;
        };
        if block.iter().all(|it| *it == 0) {
            let zeros = self.rest.iter().take_while(|it| **it == 0).count();
            if zeros < 2 * BLOCK {
                self.fault(Rule::End, format!("the stream ends with {zeros} zero bytes"));
            }
            if 2 * BLOCK < self.rest.len() {
                let more = self.rest.len() - 2 * BLOCK;
                self.fault(
                    Rule::Trailing,
                    format!("{more} bytes follow the end of the tar stream"),
                );
            }
            return None;
        }
        self.rest = &self.rest[BLOCK..];
        let header = Header::parse(block);
        if header.is_none() {
            self.fault(Rule::Checksum, "a header is damaged");
        }
        header
    }

    /// A PAX header is about nobody and from no time.
    fn check_pax_header(&mut self, header: &Header) {
        if (header.uid, header.gid, header.mtime) != (0, 0, 0) {
            self.fault(Rule::PaxHeader, format!("`{}` has an owner or a time", header.name()));
        }
    }

    fn records(&mut self, mut body: &[u8]) -> Records {
        let mut records = Records::new();
        while !body.is_empty() {
            let Some((key, value, rest)) = record(body) else {
                self.fault(Rule::Pax, "a record is damaged");
                return records;
            };
            if records.insert(key.to_vec(), value.to_vec()).is_some() {
                self.fault(Rule::Pax, format!("`{}` is there twice", shown(key)));
            }
            body = rest;
        }
        records
    }

    fn entry(&mut self, header: &Header, records: &Records) -> bool {
        self.check_records(header, records);
        let number = |key: &str, field: u64| decimal(records, key).unwrap_or(field);
        let size = number("size", header.size);
        let record = |key: &str, field: &[u8]| {
            records.get(key.as_bytes()).map_or_else(|| field.to_vec(), Clone::clone)
        };
        let name = record("path", &header.path);
        let link = record("linkpath", &header.link);
        let Some(content) = self.take(size) else { return false };
        let device = || {
            let (major, minor) = header.device;
            (number("SCHILY.devmajor", major), number("SCHILY.devminor", minor))
        };
        let kind = match header.kind {
            b'0' | 0 => Kind::File(size, hex(content)),
            b'1' => Kind::Hardlink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::CharDevice(device().0, device().1),
            b'4' => Kind::BlockDevice(device().0, device().1),
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => {
                self.fault(Rule::Format, format!("an entry of type `{}`", char::from(other)));
                return true;
            }
        };
        let xattrs = records.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
        });
        let entry = Entry {
            path: name.strip_suffix(b"/").unwrap_or(&name).to_vec(),
            kind,
            mode: header.mode & 0o7777,
            uid: number("uid", header.uid),
            gid: number("gid", header.gid),
            mtime: mtime(records).unwrap_or(i64::try_from(header.mtime).unwrap_or_default()),
            xattrs: xattrs.collect(),
        };
        self.check_entry(header, &entry, &name, size);
        self.entries.push(entry);
        true
    }

    /// PAX records are there where ustar does not do, and nowhere else.
    fn check_records(&mut self, header: &Header, records: &Records) {
        for (key, value) in records {
            let key = shown(key);
            let number = std::str::from_utf8(value).ok().and_then(|it| it.parse::<u64>().ok());
            let exceeds = |most: u64| number.is_some_and(|it| most < it);
            let is_needed = match &*key {
                "path" => !fits_ustar(value),
                "linkpath" => 100 < value.len(),
                "size" => exceeds(OCTAL_11),
                "uid" | "gid" | "SCHILY.devmajor" | "SCHILY.devminor" => exceeds(OCTAL_7),
                "mtime" => exceeds(OCTAL_11) || value.starts_with(b"-"),
                "atime" | "ctime" => {
                    self.fault(Rule::Times, format!("`{}` has `{key}`", header.name()));
                    true
                }
                "uname" | "gname" => {
                    self.fault(Rule::Owners, format!("`{}` has `{key}`", header.name()));
                    true
                }
                other => other.starts_with("SCHILY.xattr."),
            };
            if key == "mtime" && value.contains(&b'.') {
                self.fault(Rule::Times, format!("`{}` has a fraction", header.name()));
            } else if !is_needed {
                self.fault(Rule::Pax, format!("`{}` needs no `{key}`", header.name()));
            }
        }
        if !header.is_ustar {
            self.fault(Rule::Format, format!("the header of `{}` is not ustar", header.name()));
        }
        if 0o7777 < header.mode {
            self.fault(Rule::Format, format!("the mode of `{}` has more", header.name()));
        }
        if header.has_owner_names {
            self.fault(Rule::Owners, format!("`{}` has names of owners", header.name()));
        }
    }

    fn check_entry(&mut self, header: &Header, entry: &Entry, name: &[u8], size: u64) {
        let path = &entry.path;
        let is_folder = entry.kind == Kind::Folder;
        let mut parts = path.split(|it| *it == b'/');
        let has_bad_part = parts.any(|it| matches!(it, b"" | b"." | b".."));
        if has_bad_part || path.contains(&0) || name.ends_with(b"/") != is_folder {
            return self.fault(Rule::Name, format!("`{}`", shown(name)));
        }
        if !matches!(header.kind, b'0' | 0) && size != 0 {
            self.fault(Rule::Body, format!("`{}` has a body and is no file", shown(path)));
        }
        if self.seen.contains_key(path) {
            self.fault(Rule::Duplicate, format!("`{}` is there twice", shown(path)));
        } else if self.entries.last().is_some_and(|last| *path < last.path) {
            self.fault(Rule::Order, format!("`{}` comes too late", shown(path)));
        }
        if parent(path).is_some_and(|it| self.seen.get(it) != Some(&b'5')) {
            self.fault(Rule::Parent, format!("the folder of `{}` is not there", shown(path)));
        }
        self.check_kind(entry);
        self.seen.insert(path.clone(), header.kind);
    }

    fn check_kind(&mut self, entry: &Entry) {
        let path = shown(&entry.path);
        match &entry.kind {
            Kind::Hardlink(target) if !matches!(self.seen.get(target), Some(b'0' | 0)) => {
                let target = shown(target);
                self.fault(Rule::Hardlink, format!("`{path}`: no file `{target}` before it"));
            }
            Kind::Symlink(target) if target.is_empty() => {
                self.fault(Rule::Symlink, format!("`{path}` leads nowhere"));
            }
            _ => {}
        }
        let name = entry.path.rsplit(|it| *it == b'/').next().unwrap_or_default();
        let is_empty_file = matches!(entry.kind, Kind::File(0, _));
        if name.starts_with(b".wh.") && !is_empty_file {
            self.fault(Rule::Whiteout, format!("`{path}` is no empty file"));
        }
    }
}

/// What ustar says of an entry.
struct Header {
    path: Vec<u8>,
    link: Vec<u8>,
    kind: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    device: (u64, u64),
    is_ustar: bool,
    has_owner_names: bool,
}

impl Header {
    /// Reads a block; none if its sum is wrong or a number is none.
    fn parse(block: &[u8]) -> Option<Self> {
        let blanks = 148..156;
        let bytes = block.iter().enumerate();
        let sum: u64 = bytes
            .map(|(index, byte)| if blanks.contains(&index) { 32 } else { u64::from(*byte) })
            .sum();
        if octal(&block[148..156])? != sum {
            return None;
        }
        let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
        let path = match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, name].join(&b'/'),
        };
        Some(Self {
            path,
            link: text(&block[157..257]).to_vec(),
            kind: block[156],
            mode: u32::try_from(octal(&block[100..108])?).ok()?,
            uid: octal(&block[108..116])?,
            gid: octal(&block[116..124])?,
            size: octal(&block[124..136])?,
            mtime: octal(&block[136..148])?,
            device: (octal(&block[329..337])?, octal(&block[337..345])?),
            is_ustar: block[257..265] == *b"ustar\x0000",
            has_owner_names: block[265..329].iter().any(|it| *it != 0),
        })
    }

    fn name(&self) -> String {
        shown(&self.path)
    }
}

/// A number: octal digits, or bytes after one with the highest bit set (GNU's way).
fn octal(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let start = u64::from(first & 0x7f);
        return Some(rest.iter().fold(start, |sum, it| sum << 8 | u64::from(*it)));
    }
    let digits = std::str::from_utf8(text(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// What is before the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|it| *it == 0).next().unwrap_or_default()
}

/// The first record: key, value, and what follows.
fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().position(|it| *it == b' ')?;
    let length: usize = std::str::from_utf8(&body[..space]).ok()?.parse().ok()?;
    let (record, rest) = body.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|it| *it == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn decimal(records: &Records, key: &str) -> Option<u64> {
    std::str::from_utf8(records.get(key.as_bytes())?).ok()?.parse().ok()
}

/// The time of a record, in whole seconds.
fn mtime(records: &Records) -> Option<i64> {
    let value = std::str::from_utf8(records.get(b"mtime".as_slice())?).ok()?;
    value.split('.').next()?.parse().ok()
}

/// Whether a path can be stored in ustar's two fields.
fn fits_ustar(path: &[u8]) -> bool {
    let splits = |at: usize| path[at] == b'/' && at != 0 && at <= 155;
    let rest = |at: usize| (1..=100).contains(&(path.len() - at - 1));
    path.len() <= 100 || (0..path.len()).any(|at| splits(at) && rest(at))
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|it| *it == b'/').map(|at| &path[..at])
}

/// A path for people.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
