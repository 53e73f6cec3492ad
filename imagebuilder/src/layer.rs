//! A tree becomes a layer: a deterministic tar stream, in one gzip member, into the store.
//!
//! One pass yields the digest of the stream (`diff_id`), the digest of the blob and its size; the
//! memory is bounded whatever the layer holds.
//!
//! **Architecture invariant:** the same tree gives the same bytes: entries are sorted, owners are
//! numbers, times are whole seconds, and no time, name or number of this machine gets in. What
//! ustar cannot hold goes into PAX records (POSIX.1-2001, `pax` interchange format).

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use flate2::{Compression as Level, GzBuilder, write::GzEncoder};
use tar::{EntryType, Header};
use thiserror::Error;

use crate::{
    digest::{Blob, Digest, Hashing},
    image::{Compression, Layer},
    store::{BlobWriter, Store, StoreError},
    tree::{Content, Device, Entry, Kind, Meta, Tree, TreePath},
};

/// gzip's level: within 2 % of the size at level 6, in half the time.
const LEVEL: Level = Level::new(4);
const BLOCK: usize = 512;
/// What is read of a file at once.
const CHUNK: usize = 1 << 17;
/// The largest number that fits the octal fields of ustar: owners and device numbers.
const OCTAL_7: u64 = 0o7_777_777;
/// The same for sizes and times.
const OCTAL_11: u64 = 0o77_777_777_777;

/// How layers are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How they are compressed.
    pub compression: Method,
}

/// How a layer is compressed, and how hard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// In one gzip member.
    #[default]
    Gzip,
}

impl Options {
    /// What is in the key of every step that makes a layer: another format, compressor or level
    /// gives other bytes. Change it with them.
    pub fn format(&self) -> String {
        match self.compression {
            Method::Gzip => "rbuild layer 1, zlib-rs 0.6 level 4".to_owned(),
        }
    }
}

/// What one layer is made with.
pub struct Job<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// How it is made.
    pub options: Options,
    /// Names what this layer is most like: the one that was made last under the same name is
    /// looked at for a beginning that is the same, which then is not hashed again.
    pub like: Digest,
    /// Takes the layer's bytes while they are made, if it is worth it.
    pub uploads: Option<&'a dyn Uploads>,
    /// Is told of the bytes of files that were read.
    pub progress: &'a mut dyn FnMut(u64),
}

/// Starts uploads of layers whose digests are not known yet.
pub trait Uploads: Sync {
    /// Starts one; none if there is no use in it.
    fn begin(&self) -> Option<Box<dyn Upload>>;
}

/// Takes the bytes of one layer. Dropped before [`Upload::finish`], it gives the upload up.
pub trait Upload: Send {
    /// Takes the next bytes. What goes wrong is no fault of the layer: it is kept, and the layer
    /// is pushed from the store later.
    fn write(&mut self, bytes: &[u8]);
    /// The layer is whole, and in the store.
    fn finish(self: Box<Self>, blob: Blob);
}

/// Why a layer could not be written.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream could not be written to the store.
    #[error("the layer could not be written to the store")]
    Write(#[source] io::Error),
    /// A file could not be read.
    #[error("`{path}` could not be read")]
    Read {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// A file has other content than when its digest was made.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The file.
        path: TreePath,
    },
}

/// Writes `tree` as a layer.
pub fn write(tree: &Tree, job: &mut Job<'_>) -> Result<Layer, LayerError> {
    let mut out = LayerWriter::new(job.store.writer()?);
    for (path, entry) in tree.entries() {
        // The root is there without an entry, and a layer's own would change the base's.
        if !path.is_root() {
            out.append(path, entry, job.progress)?;
        }
    }
    out.finish()
}

/// Hashes what goes in, compresses it, and hashes what comes out.
struct LayerWriter<'a> {
    out: Hashing<GzEncoder<BlobWriter<'a>>>,
    buffer: Vec<u8>,
}

impl<'a> LayerWriter<'a> {
    fn new(blob: BlobWriter<'a>) -> Self {
        // No name and no time in gzip's own header.
        let gzip = GzBuilder::new().write(blob, LEVEL);
        Self { out: Hashing::new(gzip), buffer: vec![0; CHUNK] }
    }

    fn finish(mut self) -> Result<Layer, LayerError> {
        // Two zero blocks end a tar stream.
        self.out.write_all(&[0; 2 * BLOCK]).map_err(LayerError::Write)?;
        let (gzip, diff_id, _) = self.out.finish();
        let blob = gzip.finish().map_err(LayerError::Write)?.finish()?;
        let media_type = Compression::Gzip.media_type().to_owned();
        Ok(Layer { media_type, digest: blob.digest, size: blob.size, diff_id })
    }

    fn append(
        &mut self,
        path: &TreePath,
        entry: &Entry,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayerError> {
        let header = header(path, entry);
        self.out.write_all(&header).map_err(LayerError::Write)?;
        match &entry.kind {
            Kind::File(content) => self.append_content(path, content, progress),
            _ => Ok(()),
        }
    }

    fn append_content(
        &mut self,
        path: &TreePath,
        content: &Content,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayerError> {
        let failed = |source| LayerError::Read { path: path.clone(), source };
        let changed = || LayerError::Changed { path: path.clone() };
        let mut file = content.open().map_err(failed)?;
        let mut hashing = Hashing::new(&mut self.out);
        let mut left = content.size;
        loop {
            let count = file.read(&mut self.buffer).map_err(failed)?;
            let Some(rest) = left.checked_sub(count as u64) else { return Err(changed()) };
            if count == 0 {
                break;
            }
            hashing.write_all(&self.buffer[..count]).map_err(LayerError::Write)?;
            progress(count as u64);
            left = rest;
        }
        let (_, digest, _) = hashing.finish();
        if left != 0 || digest != content.digest {
            return Err(changed());
        }
        let padding = usize::try_from(content.size % BLOCK as u64).unwrap_or_default();
        let padding = (BLOCK - padding) % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding]).map_err(LayerError::Write)
    }
}

/// The header blocks of one entry: a PAX header where ustar does not do, then ustar's own.
fn header(path: &TreePath, entry: &Entry) -> Vec<u8> {
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
    let mut bytes = pax(path, &records);
    bytes.extend_from_slice(main.as_bytes());
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
fn pax(path: &TreePath, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
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
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
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

/// A digest over what lies in or is `base`, as it would be written, times aside: what is equal has
/// equal digests, wherever it lies.
///
/// Times are in no key, as in BuildKit: a file that was only touched does not make a new layer.
pub fn fingerprint(tree: &Tree, base: &TreePath) -> Digest {
    tree.fingerprint(base)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{context::Context, patterns::Ignore, rootfs::Rootfs, tree::ContentOrigin};

    fn job<'a>(store: &'a Store, progress: &'a mut dyn FnMut(u64)) -> Job<'a> {
        Job { store, options: Options::default(), like: Digest::of(b""), uploads: None, progress }
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn entry(kind: Kind) -> Entry {
        let meta = Meta { mode: 0o640, uid: 1, gid: 2, mtime: 1_700_000_000, ..Meta::default() };
        Entry { kind, meta }
    }

    fn file(folder: &Path, name: &str, content: &str) -> Kind {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        let digest = Digest::of(content.as_bytes());
        let origin = ContentOrigin::File(path);
        Kind::File(Content { digest, size: content.len() as u64, origin })
    }

    /// One of everything that a tree can hold, at the limits of what ustar can.
    fn everything(folder: &Path) -> Tree {
        let mut tree = Tree::default();
        let mut add = |name: &str, kind: Kind| tree.insert(path(name), entry(kind));
        add("d", Kind::Folder);
        add("d/empty", file(folder, "1", ""));
        add("d/file", file(folder, "2", "hello"));
        add("d/hard", Kind::Hardlink(path("d/file")));
        add("link", Kind::Symlink(b"../x".to_vec()));
        add("long-link", Kind::Symlink(vec![b'x'; 200]));
        add(&format!("d/{}", "n".repeat(98)), file(folder, "3", "3"));
        add(&format!("d/{}", "n".repeat(99)), file(folder, "4", "4"));
        add(&format!("{}/{}", "p".repeat(155), "n".repeat(100)), file(folder, "5", "5"));
        add(&format!("{}/{}", "p".repeat(156), "n".repeat(100)), file(folder, "6", "6"));
        add(&"q".repeat(101), Kind::Folder);
        for length in [155, 156] {
            add(&"p".repeat(length), Kind::Folder);
        }
        add("null", Kind::CharDevice(Device { major: 1, minor: 3 }));
        add("disk", Kind::BlockDevice(Device { major: 8, minor: 4_000_000 }));
        add("pipe", Kind::Fifo);
        let mut odd = entry(file(folder, "7", "7"));
        odd.meta = Meta { mode: 0o6755, uid: 3_000_000, gid: 2_097_152, mtime: -5, ..odd.meta };
        odd.meta.xattrs.insert(b"user.x".to_vec(), b"a\n\0b".to_vec());
        tree.insert(TreePath::parse(b"od\xff\xc3d").unwrap(), odd);
        tree
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let tree = everything(folder.path());
        let mut read = 0;
        let layer = write(&tree, &mut job(&store, &mut |count| read += count)).unwrap();
        assert_eq!(read, tree.size());
        let again = Rootfs::read(&store, &[layer]).unwrap();
        let mut count = 0;
        for (path, entry) in tree.entries() {
            let found = again.tree().get(path).unwrap_or_else(|| panic!("no {path:?}"));
            assert_eq!(found.meta, entry.meta, "for {path:?}");
            let alike = match (&found.kind, &entry.kind) {
                (Kind::File(a), Kind::File(b)) => (a.digest, a.size) == (b.digest, b.size),
                (Kind::File(a), Kind::Hardlink(_)) => a.size == 5,
                (Kind::Symlink(a), Kind::Symlink(b)) => a == b,
                (Kind::CharDevice(a), Kind::CharDevice(b))
                | (Kind::BlockDevice(a), Kind::BlockDevice(b)) => a == b || b.minor == 4_000_000,
                (Kind::Folder, Kind::Folder) | (Kind::Fifo, Kind::Fifo) => true,
                _ => false,
            };
            assert!(alike, "for {path:?}: {found:?}");
            count += 1;
        }
        assert_eq!(again.tree().len(), count);
    }

    #[test]
    fn a_layer_is_the_same_on_every_machine() {
        // If this fails, the layers of users change their names: raise the number in `FORMAT`.
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let layer = write(&everything(folder.path()), &mut job(&store, &mut |_| ())).unwrap();
        expect_test::expect!["sha256:3ef6bd9b0f48b88bf2a85b55b4cd6c28226b15a51c9b6c3d96d9869532583d96 sha256:ff9ae81a2057d85ebcdadae2ce86d1eb10be986ba392483d20de086cd45efe89"].assert_eq(&format!("{} {}", layer.diff_id, layer.digest));
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("f"), "hello").unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let opened = Context::open_folder(&context, Ignore::parse("").unwrap()).unwrap();
        for content in ["hallo", "hell", "hello!"] {
            fs::write(context.join("f"), "hello").unwrap();
            let tree = opened.read(&TreePath::ROOT).unwrap();
            fs::write(context.join("f"), content).unwrap();
            let error = write(&tree, &mut job(&store, &mut |_| ())).unwrap_err();
            assert!(matches!(error, LayerError::Changed { .. }), "{content}: {error}");
        }
    }

    fn change(tree: &mut Tree, how: fn(&mut Entry)) {
        let paths: Vec<TreePath> = tree.entries().map(|(path, _)| path.clone()).collect();
        for path in paths {
            how(tree.get_mut(&path).unwrap());
        }
    }

    #[test]
    fn times_are_in_no_fingerprint_and_all_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let tree = everything(folder.path());
        let mut other = tree.clone();
        let root = &TreePath::ROOT;
        change(&mut other, |it| it.meta.mtime = 7);
        assert_eq!(fingerprint(&tree, root), fingerprint(&other, root));
        change(&mut other, |it| it.meta.uid = 7);
        assert_ne!(fingerprint(&tree, root), fingerprint(&other, root));
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for (value, want) in [("", "5 k=\n"), ("x", "6 k=x\n"), ("12345", "11 k=12345\n")] {
            assert_eq!(String::from_utf8(record(b"k", value.as_bytes())).unwrap(), want);
        }
    }
}
