//! The headers of a tar stream: ustar's own, and PAX records for what it cannot hold.
//!
//! **Architecture invariant:** a header is made of the entry alone: no time, name or number of this
//! machine gets in.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

use crate::tree::{Device, Entry, Kind, Meta, TreePath};

/// The unit of a tar stream.
pub(super) const BLOCK: usize = 512;
/// The largest number that fits the octal fields of ustar: owners and device numbers.
const OCTAL_7: u64 = 0o7_777_777;
/// The same for sizes and times.
const OCTAL_11: u64 = 0o77_777_777_777;

/// The zero bytes that follow `size` bytes of content.
pub(super) fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - rest) % BLOCK
}

/// The header blocks of one entry: a PAX header where ustar does not do, then ustar's own.
pub(super) fn append(out: &mut Vec<u8>, path: &TreePath, entry: &Entry) {
    let mut name = path.as_bytes().to_vec();
    if entry.is_folder() {
        name.push(b'/');
    }
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut main = Header::new_ustar();
    set_name(&mut main, &name, &mut records);
    let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
    main.set_mode(*mode);
    main.set_uid(in_octal(*uid, OCTAL_7, "uid", &mut records));
    main.set_gid(in_octal(*gid, OCTAL_7, "gid", &mut records));
    main.set_mtime(time(*mtime, &mut records));
    set_kind(&mut main, &entry.kind, &mut records);
    for (key, value) in xattrs {
        records.insert([b"SCHILY.xattr.", key.as_slice()].concat(), value.clone());
    }
    main.set_cksum();
    append_pax(out, path, &records);
    out.extend_from_slice(main.as_bytes());
}

/// The header blocks of one entry, in a buffer of their own.
pub(super) fn header(path: &TreePath, entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    append(&mut bytes, path, entry);
    bytes
}

fn set_kind(header: &mut Header, kind: &Kind, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    header.set_size(0);
    match kind {
        Kind::Folder => header.set_entry_type(EntryType::Directory),
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            in_octal(content.size, OCTAL_11, "size", records);
            // What does not fit in octal stands in binary here too: some readers skip by it.
            header.set_size(content.size);
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            set_link(header, target, records);
        }
        Kind::Hardlink(first) => {
            header.set_entry_type(EntryType::Link);
            set_link(header, first.as_bytes(), records);
        }
        Kind::CharDevice(device) => set_device(header, EntryType::Char, *device, records),
        Kind::BlockDevice(device) => set_device(header, EntryType::Block, *device, records),
        Kind::Fifo => header.set_entry_type(EntryType::Fifo),
    }
}

fn set_device(
    header: &mut Header,
    kind: EntryType,
    device: Device,
    records: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) {
    header.set_entry_type(kind);
    let major = in_octal(device.major.into(), OCTAL_7, "SCHILY.devmajor", records);
    let minor = in_octal(device.minor.into(), OCTAL_7, "SCHILY.devminor", records);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(u32::try_from(major).unwrap_or_default());
        ustar.set_device_minor(u32::try_from(minor).unwrap_or_default());
    }
}

/// Puts a name into ustar's two fields if it fits, and into a record if not.
fn set_name(header: &mut Header, name: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let (prefix, rest) = match split(name) {
        Some(parts) => parts,
        None => {
            records.insert(b"path".to_vec(), name.to_vec());
            (&b""[..], &name[..name.len().min(100)])
        }
    };
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..rest.len()].copy_from_slice(rest);
        ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    }
}

/// Splits a name at a slash into at most 155 and at most 100 bytes.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let from = name.len().checked_sub(101)?;
    let end = name.len() - 1;
    let slash = (from..end.min(156)).find(|it| name[*it] == b'/' && *it <= 155)?;
    Some((&name[..slash], &name[slash + 1..])).filter(|(prefix, _)| !prefix.is_empty())
}

fn set_link(header: &mut Header, target: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if 100 < target.len() {
        records.insert(b"linkpath".to_vec(), target.to_vec());
    }
    let short = &target[..target.len().min(100)];
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.linkname[..short.len()].copy_from_slice(short);
    }
}

/// The number for ustar's field: itself, or 0 with a record.
fn in_octal(number: u64, most: u64, key: &str, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    if number <= most {
        return number;
    }
    records.insert(key.as_bytes().to_vec(), number.to_string().into_bytes());
    0
}

/// Whether ustar's own field can hold a time.
pub(super) fn is_common(mtime: i64) -> bool {
    u64::try_from(mtime).is_ok_and(|it| it <= OCTAL_11)
}

fn time(mtime: i64, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    match u64::try_from(mtime) {
        Ok(time) if time <= OCTAL_11 => time,
        _ => {
            records.insert(b"mtime".to_vec(), mtime.to_string().into_bytes());
            0
        }
    }
}

/// A PAX header with `records`, if there are any.
fn append_pax(out: &mut Vec<u8>, path: &TreePath, records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    if records.is_empty() {
        return;
    }
    let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    let mut header = Header::new_ustar();
    let name = [b"PaxHeaders.0/", path.name().unwrap_or_default()].concat();
    if let Some(ustar) = header.as_ustar_mut() {
        let length = name.len().min(100);
        ustar.name[..length].copy_from_slice(&name[..length]);
    }
    header.set_entry_type(EntryType::XHeader);
    header.set_size(body.len() as u64);
    for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
        set(&mut header, 0);
    }
    header.set_mode(0o644);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(body.len() as u64), 0);
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for (value, want) in [("", "5 k=\n"), ("x", "6 k=x\n"), ("12345", "11 k=12345\n")] {
            assert_eq!(String::from_utf8(record(b"k", value.as_bytes())).unwrap(), want);
        }
    }

    #[test]
    fn content_is_padded_to_whole_blocks() {
        for (size, want) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(size), want, "for {size}");
        }
    }
}
