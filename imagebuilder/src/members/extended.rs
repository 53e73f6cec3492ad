//! What headers say of the member that follows them: PAX records, and GNU's long names.

use std::{collections::BTreeMap, io};

use super::{
    MembersError,
    header::{Header, invalid, text},
    sparse,
};
use crate::tree::{Device, Meta};

/// What was said of the next member.
#[derive(Default)]
pub(super) struct Extended {
    /// GNU's long name.
    name: Option<Vec<u8>>,
    /// GNU's long target of a link.
    target: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data of a sparse file belongs, as GNU's first format says it: one record a number.
    map: Vec<u64>,
}

/// A sparse file as PAX records tell of it.
pub(super) struct SparseRecords {
    pub(super) map: Vec<u64>,
    /// The size of the content.
    pub(super) size: Option<u64>,
    /// Whether the map stands before the content.
    pub(super) is_in_data: bool,
}

/// Whether a header of that type tells of the next one.
pub(super) fn is_extended(kind: u8) -> bool {
    matches!(kind, b'x' | b'g' | b'L' | b'K')
}

impl Extended {
    /// Adds what one header says.
    pub(super) fn add(&mut self, kind: u8, bytes: Vec<u8>) -> Result<(), MembersError> {
        match kind {
            b'L' => self.name = Some(text(&bytes).to_vec()),
            b'K' => self.target = Some(text(&bytes).to_vec()),
            // Of the whole archive: others who unpack layers leave them out (git has its commit
            // there).
            b'g' => {}
            _ => self.read_records(&bytes)?,
        }
        Ok(())
    }

    /// Reads `LENGTH KEY=VALUE\n` records, in place of those before.
    fn read_records(&mut self, mut bytes: &[u8]) -> Result<(), MembersError> {
        self.records.clear();
        self.map.clear();
        while !bytes.is_empty() {
            let found = record(bytes).ok_or_else(|| invalid("a PAX record is malformed"))?;
            let (key, value, rest) = found;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.map.push(digits(value)?),
                _ => drop(self.records.insert(key.to_vec(), value.to_vec())),
            }
            bytes = rest;
        }
        // An empty value takes back what was said before.
        self.records.retain(|key, value| !value.is_empty() || key.starts_with(XATTR));
        Ok(())
    }

    /// The name, if it is not in the header. GNU's wins, as in Go.
    pub(super) fn path(&mut self) -> Option<Vec<u8>> {
        let long = self.name.take().filter(|it| !it.is_empty());
        long.or_else(|| self.records.remove(b"GNU.sparse.name".as_slice()))
            .or_else(|| self.records.remove(b"path".as_slice()))
    }

    /// The target of a link, if it is not in the header.
    pub(super) fn link(&mut self) -> Option<Vec<u8>> {
        let long = self.target.take().filter(|it| !it.is_empty());
        long.or_else(|| self.records.remove(b"linkpath".as_slice()))
    }

    /// A number, if it is given.
    pub(super) fn number(&self, key: &[u8]) -> io::Result<Option<u64>> {
        self.records.get(key).map(|it| digits(it)).transpose()
    }

    /// A device's number; star has records for what does not fit the header.
    pub(super) fn device(&self, header: &Header) -> io::Result<Device> {
        let (major, minor) = header.device()?;
        let major = self.number(b"SCHILY.devmajor")?.unwrap_or(major);
        let minor = self.number(b"SCHILY.devminor")?.unwrap_or(minor);
        let small = |it: u64| u32::try_from(it).map_err(|_| invalid("a device has no such number"));
        Ok(Device { major: small(major)?, minor: small(minor)? })
    }

    pub(super) fn meta(&self, header: &Header) -> io::Result<Meta> {
        let owner = |given: Option<u64>, field: io::Result<u64>| {
            let number = given.map_or(field, Ok)?;
            match u32::try_from(number) {
                Ok(_) => Ok(number),
                Err(_) => Err(invalid("an owner has no such number")),
            }
        };
        let xattrs = self
            .records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())));
        let mtime = self.records.get(b"mtime".as_slice());
        Ok(Meta {
            mode: header.mode()?,
            uid: owner(self.number(b"uid")?, header.uid())?,
            gid: owner(self.number(b"gid")?, header.gid())?,
            mtime: mtime.map_or_else(|| header.mtime(), |it| seconds(it))?,
            xattrs: xattrs.collect(),
        })
    }

    /// What is said of a sparse file (GNU tar manual, "Storing Sparse Files"); none if it has no
    /// holes.
    pub(super) fn sparse(&self) -> Result<Option<SparseRecords>, MembersError> {
        let has = |key: &str| self.records.contains_key(key.as_bytes());
        let version = (self.number(b"GNU.sparse.major")?, self.number(b"GNU.sparse.minor")?);
        let is_in_data = match version {
            (Some(1), Some(0)) => true,
            (None | Some(0), None | Some(0 | 1)) => false,
            _ => {
                let what = "a sparse file of an unknown kind".to_owned();
                return Err(MembersError::Unsupported(what));
            }
        };
        if !is_in_data && self.map.is_empty() && !has("GNU.sparse.map") && !has("GNU.sparse.size") {
            return Ok(None);
        }
        let map = match self.records.get(b"GNU.sparse.map".as_slice()) {
            Some(text) if !is_in_data => {
                text.split(|it| *it == b',').map(digits).collect::<io::Result<_>>()?
            }
            _ => self.map.clone(),
        };
        if let Some(count) = self.number(b"GNU.sparse.numblocks")?
            && !is_in_data
            && count != map.len() as u64 / 2
        {
            return Err(sparse::broken());
        }
        let size = match self.number(b"GNU.sparse.size")? {
            Some(size) => Some(size),
            None => self.number(b"GNU.sparse.realsize")?,
        };
        Ok(Some(SparseRecords { map, size, is_in_data }))
    }
}

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The first PAX record: its key, its value, and what follows it. (A value may have any bytes, also
/// a newline.)
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|it| *it == b' ')?;
    let length = usize::try_from(digits(&bytes[..space]).ok()?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|it| *it == b'=')?;
    (0 < equals).then(|| (&record[..equals], &record[equals + 1..], &bytes[length..]))
}

pub(super) fn digits(text: &[u8]) -> io::Result<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_number);
    let number = text.and_then(|it| it.parse::<u64>().ok());
    number
        .filter(|it| i64::try_from(*it).is_ok())
        .ok_or_else(|| invalid("a PAX record is not a number"))
}

/// Whole seconds of a time with a fraction, which may be before 1970.
fn seconds(text: &[u8]) -> io::Result<i64> {
    let (text, sign) = match text.strip_prefix(b"-") {
        Some(text) => (text, -1),
        None => (text, 1),
    };
    let mut parts = text.splitn(2, |it| *it == b'.');
    let whole = digits(parts.next().unwrap_or_default())?.cast_signed();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(invalid("a PAX record is not a time"));
    }
    let is_early = sign < 0 && fraction.iter().any(|it| *it != b'0');
    Ok(sign * whole - i64::from(is_early))
}
