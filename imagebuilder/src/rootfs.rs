//! The root filesystem that a stack of layers makes, without unpacking it.
//!
//! Reads layers as tar streams, so that `COPY` can see what is there (a folder, a link, the users
//! in `/etc/passwd`), and takes the files out that `COPY --from` asks for.
//!
//! **Architecture invariant:** layers are untrusted. Names never leave the root, sizes and counts
//! are bounded, and nothing is written to the host but contents under names of our own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};
use thiserror::Error;

use crate::{
    context,
    digest::{Digest, Hashing},
    image::{Compression, Layer},
    store::{Store, StoreError},
    tree::{Content, ContentOrigin, Device, Entry, Kind, Meta, PathError, Tree, TreePath},
};

/// The most bytes of extended headers (long names, attributes) of one entry that are read.
const LONGEST_HEADER: u64 = 1 << 20;
/// The same for all entries of a layer together.
const ALL_HEADERS: u64 = 256 << 20;
/// The most entries of one layer that are read.
const MOST_ENTRIES: u64 = 5_000_000;
/// The largest `/etc/passwd` and `/etc/group` that are read.
const LARGEST_USERS: u64 = 16 << 20;

/// What a stack of layers holds, and in which layer each file's content lies.
#[derive(Clone, Debug, Default)]
pub struct Rootfs {
    tree: Tree,
    /// For each file, the layer and the number of the entry in it.
    places: BTreeMap<TreePath, Place>,
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    layer: usize,
    entry: u64,
}

/// Why a layer could not be read.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The store could not give the layer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer is no tar archive, is damaged, or is compressed otherwise than it says.
    #[error("layer {layer} could not be read as a tar archive")]
    Tar {
        /// The layer.
        layer: Digest,
        /// What is wrong.
        source: io::Error,
    },
    /// A name in the layer cannot be a file's.
    #[error("layer {layer} has a name that cannot be used")]
    Name {
        /// The layer.
        layer: Digest,
        /// What is wrong.
        source: PathError,
    },
    /// The layer is larger than what is read.
    #[error("layer {layer} has {what}, which is more than rbuild reads")]
    Limit {
        /// The layer.
        layer: Digest,
        /// What there is too much of.
        what: &'static str,
    },
    /// The layer has something that is not supported.
    #[error("layer {layer} has {what}, which is not supported yet")]
    Unsupported {
        /// The layer.
        layer: Digest,
        /// What it has.
        what: String,
    },
    /// The content of a layer is not what its image says.
    #[error("layer {layer} unpacks to {found} in place of {expected}")]
    DiffId {
        /// The layer.
        layer: Digest,
        /// What the image's config says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A file that was taken out of a layer could not be written.
    #[error("`{path}` could not be written to the store")]
    Write {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// Links lead in circles.
    #[error("`{0}` has too many levels of symbolic links")]
    Loop(TreePath),
}

/// One entry of a layer's tar stream, with its extended headers applied.
struct Member {
    path: TreePath,
    kind: MemberKind,
    meta: Meta,
    size: u64,
    number: u64,
}

enum MemberKind {
    Folder,
    File,
    Symlink(Vec<u8>),
    Hardlink(TreePath),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// What extended headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    /// The bytes that they have.
    size: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Rootfs {
    /// Reads what a stack of layers holds; contents are hashed, not kept.
    pub fn read(store: &Store, layers: &[Layer]) -> Result<Self, RootfsError> {
        let mut rootfs = Self::default();
        for layer in layers {
            rootfs.add(store, layer)?;
        }
        Ok(rootfs)
    }

    /// Reads one more layer.
    pub fn add(&mut self, store: &Store, layer: &Layer) -> Result<(), RootfsError> {
        let number = self.layers.len();
        let mut upper = Upper::default();
        for_each_member(store, layer, &mut |member, content| {
            upper.add(member, content, number, layer)
        })?;
        self.layers.push(layer.clone());
        self.apply(upper);
        Ok(())
    }

    /// Adds a layer that was just written from `tree`, in the order of its paths.
    pub fn push(&mut self, tree: &Tree, layer: &Layer) {
        let mut upper = Upper::default();
        let number = self.layers.len();
        for ((path, entry), count) in tree.entries().zip(1..) {
            let mut entry = entry.clone();
            let mut place = Some(Place { layer: number, entry: count });
            match &mut entry.kind {
                Kind::File(content) => content.origin = ContentOrigin::Layer,
                Kind::Hardlink(target) => {
                    if let Some((Entry { kind, .. }, found)) = upper.entries.get(target) {
                        place = *found;
                        entry.kind = kind.clone();
                    }
                }
                _ => place = None,
            }
            upper.entries.insert(path.clone(), (entry, place));
        }
        self.layers.push(layer.clone());
        self.apply(upper);
    }

    /// What is there.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What lies in or is `base`, with files that share their content in one layer as the hard
    /// links that they are.
    pub fn with_links(&self, base: &TreePath) -> Tree {
        let mut tree = Tree::default();
        let mut first_names: BTreeMap<Place, TreePath> = BTreeMap::new();
        for (path, entry) in self.tree.subtree(base) {
            let mut entry = entry.clone();
            if let Some(place) = self.places.get(path) {
                match first_names.get(place) {
                    Some(first) => entry.kind = Kind::Hardlink(first.clone()),
                    None => drop(first_names.insert(*place, path.clone())),
                }
            }
            tree.insert(path.clone(), entry);
        }
        tree
    }

    /// Follows the links on the way to `path` (and, with `follow_last`, at its end) as in a
    /// `chroot`. What is not there has no links.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, RootfsError> {
        let followed = path.follow::<RootfsError>(&mut |link, is_last| {
            Ok(match self.tree.get(link).map(|it| &it.kind) {
                Some(Kind::Symlink(target)) if follow_last || !is_last => Some(target.clone()),
                _ => None,
            })
        })?;
        followed.ok_or_else(|| RootfsError::Loop(path.clone()))
    }

    /// Takes the contents of `tree`'s files, which came from here, out of the layers into
    /// `folder`, one pass for each layer that has some of them.
    pub fn fetch(
        &self,
        store: &Store,
        tree: &mut Tree,
        origins: &BTreeMap<TreePath, TreePath>,
        folder: &Path,
    ) -> Result<(), RootfsError> {
        let mut wanted: BTreeMap<Place, Vec<TreePath>> = BTreeMap::new();
        for (path, entry) in tree.entries() {
            let origin = origins.get(path).unwrap_or(path);
            if matches!(&entry.kind, Kind::File(_))
                && let Some(place) = self.places.get(origin)
            {
                wanted.entry(*place).or_default().push(path.clone());
            }
        }
        let layers: BTreeSet<usize> = wanted.keys().map(|it| it.layer).collect();
        for number in layers {
            for_each_member(store, &self.layers[number], &mut |member, content| {
                let place = Place { layer: number, entry: member.number };
                if let Some(paths) = wanted.get(&place) {
                    let file = folder.join(format!("{number}-{}", member.number));
                    write_content(content, &file)
                        .map_err(|source| RootfsError::Write { path: member.path, source })?;
                    point(tree, paths, &file);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The text of a small file, e.g., `/etc/passwd`; none if it is not there.
    pub fn text(&self, store: &Store, path: &str) -> Result<Option<String>, RootfsError> {
        let path = TreePath::parse(path.as_bytes())
            .map_err(|source| RootfsError::Name { layer: Digest::of(b""), source })?;
        let path = self.resolve(&path, true)?;
        let Some(place) = self.places.get(&path) else { return Ok(None) };
        let layer = &self.layers[place.layer];
        let mut text = Vec::new();
        for_each_member(store, layer, &mut |member, content| {
            if member.number == place.entry {
                let read = content.take(LARGEST_USERS).read_to_end(&mut text);
                read.map_err(|source| RootfsError::Tar { layer: layer.digest, source })?;
            }
            Ok(())
        })?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Lays a layer over what is there: first what it removes, then what it has.
    fn apply(&mut self, upper: Upper) {
        for path in &upper.opaque {
            self.tree.remove_below(path);
        }
        for path in &upper.removed {
            self.tree.remove(path);
        }
        for (path, (entry, place)) in upper.entries {
            let path = self.landing(path);
            self.add_parents(&path);
            let (entry, place) = self.linked(entry, place);
            let replaces_folder = self.tree.get(&path).is_some_and(Entry::is_folder);
            if replaces_folder && !entry.is_folder() {
                self.tree.remove_below(&path);
            }
            match place {
                Some(place) => drop(self.places.insert(path.clone(), place)),
                None => drop(self.places.remove(&path)),
            }
            self.tree.insert(path, entry);
        }
        let Self { tree, places, .. } = self;
        places.retain(|path, _| tree.get(path).is_some());
    }
}

impl Rootfs {
    /// Where an entry of an upper layer lands: a link on the way to it is followed, as by those
    /// who unpack layers.
    fn landing(&self, path: TreePath) -> TreePath {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return path };
        if self.tree.get(&parent).is_some_and(Entry::is_folder) {
            return path;
        }
        match self.resolve(&parent, true) {
            Ok(parent) => parent.join(name),
            Err(_) => path,
        }
    }

    /// Adds the folders on the way to `path`, which layers need not have entries for.
    fn add_parents(&mut self, path: &TreePath) {
        let mut missing = Vec::new();
        let mut next = path.parent();
        while let Some(folder) = next.filter(|it| !it.is_root()) {
            if self.tree.get(&folder).is_some() {
                break;
            }
            next = folder.parent();
            missing.push(folder);
        }
        for folder in missing {
            self.tree.insert(folder, Entry::made_folder(0, 0, 0));
        }
    }

    /// A hard link to a file of a layer below is that file.
    fn linked(&self, entry: Entry, place: Option<Place>) -> (Entry, Option<Place>) {
        let Kind::Hardlink(target) = &entry.kind else { return (entry, place) };
        match self.tree.get(target) {
            Some(found) => {
                let place = self.places.get(target).copied();
                (Entry { kind: found.kind.clone(), meta: entry.meta }, place)
            }
            None => (entry, place),
        }
    }
}

/// What one layer has and removes.
#[derive(Default)]
struct Upper {
    entries: BTreeMap<TreePath, (Entry, Option<Place>)>,
    removed: Vec<TreePath>,
    opaque: Vec<TreePath>,
}

impl Upper {
    /// Takes note of one member (OCI image spec, `layer.md`, "Whiteouts").
    fn add(
        &mut self,
        member: Member,
        content: &mut dyn Read,
        number: usize,
        layer: &Layer,
    ) -> Result<(), RootfsError> {
        let parent = member.path.parent().unwrap_or_default();
        match member.path.name().and_then(|it| it.strip_prefix(b".wh.")) {
            Some(b".wh..opq") => {
                self.opaque.push(parent);
                return Ok(());
            }
            // Other names that start so are of the storage driver that wrote them.
            Some(name) if name.starts_with(b".wh.") => return Ok(()),
            Some(name @ (b"" | b"." | b"..")) => {
                let name = format!(".wh.{}", String::from_utf8_lossy(name));
                let source = PathError::Escapes(name);
                return Err(RootfsError::Name { layer: layer.digest, source });
            }
            Some(name) => {
                self.removed.push(parent.join(name));
                return Ok(());
            }
            None => {}
        }
        let place = Place { layer: number, entry: member.number };
        let (kind, place) = match member.kind {
            MemberKind::File => (Kind::File(hash(content, layer)?), Some(place)),
            MemberKind::Hardlink(target) => match self.entries.get(&target) {
                // The same content, which lies where the first name is.
                Some((Entry { kind: Kind::File(content), .. }, place)) => {
                    (Kind::File(content.clone()), *place)
                }
                Some((Entry { kind, .. }, _)) => (kind.clone(), None),
                // It lies in a layer below: see `apply`.
                None => (Kind::Hardlink(target), None),
            },
            MemberKind::Folder => (Kind::Folder, None),
            MemberKind::Symlink(target) => (Kind::Symlink(target), None),
            MemberKind::CharDevice(device) => (Kind::CharDevice(device), None),
            MemberKind::BlockDevice(device) => (Kind::BlockDevice(device), None),
            MemberKind::Fifo => (Kind::Fifo, None),
        };
        self.entries.insert(member.path, (Entry { kind, meta: member.meta }, place));
        Ok(())
    }
}

fn point(tree: &mut Tree, paths: &[TreePath], file: &Path) {
    for path in paths {
        if let Some(Entry { kind: Kind::File(content), .. }) = tree.get_mut(path) {
            content.origin = ContentOrigin::File(file.to_owned());
        }
    }
}

fn write_content(content: &mut dyn Read, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    context::copy(&mut { content }, &mut file)?;
    file.flush()
}

fn hash(content: &mut dyn Read, layer: &Layer) -> Result<Content, RootfsError> {
    let mut hashing = Hashing::new(io::sink());
    context::copy(&mut { content }, &mut hashing)
        .map_err(|source| RootfsError::Tar { layer: layer.digest, source })?;
    let (_, digest, size) = hashing.finish();
    Ok(Content { digest, size, origin: ContentOrigin::Layer })
}

/// Passes on what it reads, and remembers its digest: what a layer unpacks to.
struct Unpacked<R> {
    inner: R,
    hashing: Hashing<io::Sink>,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hashing.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Opens a layer as an uncompressed stream.
fn open(store: &Store, layer: &Layer) -> Result<Box<dyn Read>, RootfsError> {
    let blob = BufReader::with_capacity(1 << 17, store.open_blob(layer.digest)?);
    match Compression::of(&layer.media_type) {
        Some(Compression::Gzip) => Ok(Box::new(MultiGzDecoder::new(blob))),
        Some(Compression::None) => Ok(Box::new(blob)),
        Some(Compression::Zstd) | None => {
            let what = format!("the media type `{}`", layer.media_type);
            Err(RootfsError::Unsupported { layer: layer.digest, what })
        }
    }
}

/// Calls `each` for every member of a layer, to its very end, so that its digest is checked.
fn for_each_member(
    store: &Store,
    layer: &Layer,
    each: &mut dyn FnMut(Member, &mut dyn Read) -> Result<(), RootfsError>,
) -> Result<(), RootfsError> {
    let broken = |source| {
        // A blob that is damaged here can be made or pulled again when it is gone; one that is
        // what its digest says was never a tar archive. The next command tells which.
        let _ = store.remove_if_damaged(layer.digest);
        RootfsError::Tar { layer: layer.digest, source }
    };
    let stream = Unpacked { inner: open(store, layer)?, hashing: Hashing::new(io::sink()) };
    let mut archive = Archive::new(stream);
    let mut extended = Extended::default();
    let (mut number, mut headers) = (0, 0);
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let before = extended.size;
        if extended.read(&mut entry, layer)? {
            headers += extended.size - before;
            if ALL_HEADERS < headers {
                let what = "more than 256 MiB of extended headers";
                return Err(RootfsError::Limit { layer: layer.digest, what });
            }
            continue;
        }
        number += 1;
        if MOST_ENTRIES < number {
            return Err(RootfsError::Limit { layer: layer.digest, what: "5 million entries" });
        }
        let header = entry.header().clone();
        let found = std::mem::take(&mut extended);
        if let Some(member) = member(&header, found, number, layer)? {
            let size = entry.size();
            if member.size != size {
                let what = format!("`{}`, a file of more than 8 GiB", member.path);
                return Err(RootfsError::Unsupported { layer: layer.digest, what });
            }
            each(member, &mut entry)?;
        }
    }
    let mut stream = archive.into_inner();
    context::copy(&mut stream, &mut io::sink()).map_err(broken)?;
    let (_, found, _) = stream.hashing.finish();
    match found == layer.diff_id {
        true => Ok(()),
        false => {
            let expected = layer.diff_id;
            Err(RootfsError::DiffId { layer: layer.digest, expected, found })
        }
    }
}

impl Extended {
    /// Reads an entry that describes the next one; no others.
    fn read(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        layer: &Layer,
    ) -> Result<bool, RootfsError> {
        let kind = entry.header().entry_type();
        let is_extended = matches!(
            kind,
            EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink
        );
        if !is_extended {
            return Ok(false);
        }
        // An empty one counts too, so that their number is bounded.
        self.size += entry.size() + 512;
        if LONGEST_HEADER < self.size {
            let what = "an entry with more than 1 MiB of extended headers";
            return Err(RootfsError::Limit { layer: layer.digest, what });
        }
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(|source| RootfsError::Tar { layer: layer.digest, source })?;
        match kind {
            EntryType::GNULongName => self.path = Some(without_zeros(bytes)),
            EntryType::GNULongLink => self.link = Some(without_zeros(bytes)),
            // Records for the whole archive are comments in practice (git writes its commit).
            EntryType::XGlobalHeader => {}
            _ => self.read_records(&bytes, layer)?,
        }
        Ok(true)
    }

    /// Reads `LENGTH KEY=VALUE\n` records. (The tar crate ends a value at its first newline, and
    /// the values of attributes may have some.)
    fn read_records(&mut self, mut bytes: &[u8], layer: &Layer) -> Result<(), RootfsError> {
        while !bytes.is_empty() {
            let Some((key, value, rest)) = record(bytes) else {
                let source =
                    io::Error::new(io::ErrorKind::InvalidData, "a PAX record is malformed");
                return Err(RootfsError::Tar { layer: layer.digest, source });
            };
            self.records.insert(key.to_vec(), value.to_vec());
            bytes = rest;
        }
        Ok(())
    }

    fn number(&self, key: &str) -> Option<u64> {
        std::str::from_utf8(self.records.get(key.as_bytes())?).ok()?.parse().ok()
    }
}

/// The first PAX record: its key, its value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|it| *it == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|it| *it == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

fn without_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn member(
    header: &tar::Header,
    mut extended: Extended,
    number: u64,
    layer: &Layer,
) -> Result<Option<Member>, RootfsError> {
    let broken = |source| RootfsError::Tar { layer: layer.digest, source };
    let named = |source| RootfsError::Name { layer: layer.digest, source };
    if extended.records.keys().any(|it| it.starts_with(b"GNU.sparse.")) {
        let what = "a sparse file".to_owned();
        return Err(RootfsError::Unsupported { layer: layer.digest, what });
    }
    let path = extended.records.remove(b"path".as_slice()).or(extended.path.take());
    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
    let path = TreePath::parse(&path).map_err(named)?;
    let link = extended.records.remove(b"linkpath".as_slice()).or(extended.link.take());
    let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let link = link.unwrap_or_default();
    let device = || -> io::Result<Device> {
        let major = header.device_major()?.unwrap_or_default();
        Ok(Device { major, minor: header.device_minor()?.unwrap_or_default() })
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => MemberKind::File,
        EntryType::Directory => MemberKind::Folder,
        EntryType::Symlink => MemberKind::Symlink(link),
        EntryType::Link => MemberKind::Hardlink(TreePath::parse(&link).map_err(named)?),
        EntryType::Char => MemberKind::CharDevice(device().map_err(broken)?),
        EntryType::Block => MemberKind::BlockDevice(device().map_err(broken)?),
        EntryType::Fifo => MemberKind::Fifo,
        other => {
            let what = format!("`{path}`, an entry of type {:?}", char::from(other.as_byte()));
            return Err(RootfsError::Unsupported { layer: layer.digest, what });
        }
    };
    let size = match extended.number("size") {
        Some(size) => size,
        None => header.entry_size().map_err(broken)?,
    };
    let meta = meta(header, &extended).map_err(broken)?;
    Ok(Some(Member { path, kind, meta, size, number }))
}

fn meta(header: &tar::Header, extended: &Extended) -> io::Result<Meta> {
    let xattrs = extended.records.iter().filter_map(|(key, value)| {
        Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
    });
    let old = header.as_old();
    let seconds = |text: &Vec<u8>| {
        let text = std::str::from_utf8(text).ok()?;
        text.split('.').next()?.parse().ok()
    };
    let mtime = match extended.records.get(b"mtime".as_slice()).and_then(seconds) {
        Some(mtime) => mtime,
        None => i64::try_from(number(&old.mtime, header.mtime())?).unwrap_or_default(),
    };
    Ok(Meta {
        mode: header.mode()? & 0o7777,
        uid: extended.number("uid").map_or_else(|| number(&old.uid, header.uid()), Ok)?,
        gid: extended.number("gid").map_or_else(|| number(&old.gid, header.gid()), Ok)?,
        mtime,
        xattrs: xattrs.collect(),
    })
}

/// A field that is left blank is 0, as for other readers.
fn number(field: &[u8], read: io::Result<u64>) -> io::Result<u64> {
    match field.iter().all(|it| matches!(it, 0 | b' ')) {
        true => Ok(0),
        false => read,
    }
}
