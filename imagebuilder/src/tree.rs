//! What a layer holds, as a value: entries sorted by path, with parents present.
//!
//! **Architecture invariant:** a [`TreePath`] that exists stays inside the root: it has no `..`,
//! no `.`, no empty component, and does not start with a slash.

use std::{
    collections::{BTreeMap, btree_map},
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    ops::{Bound, Deref, DerefMut},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    context::Context,
    digest::{Digest, Framed},
};

/// A path below a root, e.g., `usr/bin/env`; the empty path is the root itself.
///
/// Paths are bytes: file names on Linux need not be text. A clone costs nothing: trees of many files
/// have the same paths several times. None is the root.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Option<Arc<[u8]>>);

/// Why some bytes are no path below a root.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It has `..`, and would leave the root.
    #[error("`{0}` leads outside of the root")]
    Escapes(String),
    /// It has a zero byte, which no file name can have.
    #[error("`{0}` has a zero byte")]
    Zero(String),
    /// It is longer than Linux lets paths be.
    #[error("a path has {0} bytes, and Linux lets paths have 4096")]
    Long(usize),
}

/// The longest path that Linux takes (`PATH_MAX`).
const LONGEST: usize = 4096;
/// Links to follow on the way to one file before it is called a loop, as in the kernel.
const MOST_LINKS: usize = 40;

/// Gives the target of a path that is a link, and is told whether it is the last component.
pub type FindLink<'a, E> = &'a mut dyn FnMut(&TreePath, bool) -> Result<Option<Vec<u8>>, E>;

/// What a layer holds. Entries are shared between trees until one is changed: the same files are
/// in several of them.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<TreePath, Arc<Entry>>,
}

/// One thing in a tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Who owns it, and what may be done with it.
    pub meta: Meta,
}

/// Owner, mode, time and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, set-user-id, set-group-id and sticky bit (12 bits).
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// When the content was changed, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

/// Extended attributes, sorted by name. Few files have some, and so they take the place of a
/// pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(Option<Arc<BTreeMap<Vec<u8>, Vec<u8>>>>);

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file with content.
    File(Content),
    /// A symbolic link to any text.
    Symlink(Vec<u8>),
    /// Another name of a file of the same tree.
    Hardlink(TreePath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// The number of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The content of a file: what it must be, and where it is read.
#[derive(Clone, Debug)]
pub struct Content {
    /// The digest of the content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is read.
    pub origin: ContentOrigin,
}

/// Where the content of a file is read.
#[derive(Clone, Debug)]
pub enum ContentOrigin {
    /// In the build context.
    Context(Arc<Whence>),
    /// In a file that rbuild made.
    File(PathBuf),
    /// In a file that rbuild made, from this byte on, with others.
    Part(Arc<File>, u64),
    /// In a layer of an image, and has to be taken out of it first (see [`crate::rootfs`]).
    Layer(InLayer),
}

/// Where files of the context lie: what is `target` in a tree is `base` in the context, and so is
/// what lies below. That is a value for all files that were copied at once, and none for each.
#[derive(Debug)]
pub struct Whence {
    /// The context.
    pub context: Context,
    /// Where the files lie in it.
    pub base: TreePath,
    /// Where they lie in the tree.
    pub target: TreePath,
}

/// Which member of which layer of a stack holds a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InLayer {
    /// The layer, counted from the lowest.
    pub layer: u32,
    /// The member of its tar stream.
    pub member: u32,
}

/// The content of a file, to be read from its beginning.
#[derive(Debug)]
pub struct Opened {
    file: Arc<File>,
    start: u64,
    /// The bytes that belong to it; none if all that there are do.
    size: Option<u64>,
    at: u64,
}

/// Whether a file is what it was when its digest was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// It is: its filesystem would have noticed a change.
    Same,
    /// It was changed.
    Changed,
    /// Only its content can tell.
    Unknown,
}

impl TreePath {
    /// The root itself.
    pub const ROOT: Self = Self(None);

    /// The path of bytes that are clean already.
    fn of(bytes: &[u8]) -> Self {
        Self((!bytes.is_empty()).then(|| bytes.into()))
    }

    /// Cleans a path as it is written: a leading slash, `.` and double slashes are dropped.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        if LONGEST < bytes.len() {
            return Err(PathError::Long(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(PathError::Zero(shown()));
        }
        let mut path = Self::ROOT;
        for part in bytes.split(|it| *it == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(PathError::Escapes(shown())),
                part => path = path.join(part),
            }
        }
        Ok(path)
    }

    /// As [`TreePath::parse`], but `..` goes up, and stays at the root there, as in a `chroot`.
    pub fn parse_in_root(bytes: &[u8]) -> Result<Self, PathError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|it| *it == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Self::parse(&parts.join(&b'/'))
    }

    /// The path with one more component.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        match self.is_root() {
            true => Self::of(name),
            false => Self(Some([self.as_bytes(), b"/", name].concat().into())),
        }
    }

    /// This path below `base`.
    #[must_use]
    pub fn below(&self, base: &Self) -> Self {
        match (self.is_root(), base.is_root()) {
            (true, _) => base.clone(),
            (false, true) => self.clone(),
            (false, false) => base.join(self.as_bytes()),
        }
    }

    /// The part of this path after `base`, if it lies in or is `base`.
    pub fn relative_to(&self, base: &Self) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        let rest = self.as_bytes().strip_prefix(base.as_bytes())?;
        match rest.split_first() {
            None => Some(Self::ROOT),
            Some((b'/', rest)) => Some(Self::of(rest)),
            Some(_) => None,
        }
    }

    /// The bytes after `base`, or all if it does not lie there.
    fn bytes_after(&self, base: &Self) -> &[u8] {
        let rest = self.as_bytes().strip_prefix(base.as_bytes());
        match rest.and_then(<[u8]>::split_first) {
            _ if base.is_root() => self.as_bytes(),
            Some((b'/', rest)) => rest,
            _ if self == base => b"",
            _ => self.as_bytes(),
        }
    }

    /// The paths between which all that lies below sorts, and nothing else.
    fn range_below(&self) -> (Bound<Self>, Bound<Self>) {
        if self.is_root() {
            return (Bound::Excluded(Self::ROOT), Bound::Unbounded);
        }
        let from = [self.as_bytes(), b"/"].concat();
        let to = [self.as_bytes(), b"0"].concat(); // `0` follows `/`
        (Bound::Included(Self::of(&from)), Bound::Excluded(Self::of(&to)))
    }

    /// The folder that it is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let bytes = self.as_bytes();
        let end = bytes.iter().rposition(|it| *it == b'/').unwrap_or(0);
        Some(Self::of(&bytes[..end]))
    }

    /// The last component; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.as_bytes().rsplit(|it| *it == b'/').next().filter(|it| !it.is_empty())
    }

    /// The components.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.as_bytes().split(|it| *it == b'/').filter(|it| !it.is_empty())
    }

    /// Follows the links on the way to this path and at its end, as in a `chroot`; none if there
    /// are more than the kernel would follow. `link` gives the target of what is a link, and is
    /// told whether it is the last component.
    pub fn follow<E>(&self, link: FindLink<'_, E>) -> Result<Option<Self>, E> {
        let components =
            |it: &Self| -> Vec<Vec<u8>> { it.parts().rev().map(<[u8]>::to_vec).collect() };
        let mut left = components(self);
        let mut done = Self::ROOT;
        let mut links = 0;
        while let Some(part) = left.pop() {
            let next = done.join(&part);
            let Some(target) = link(&next, left.is_empty())? else {
                done = next;
                continue;
            };
            links += 1;
            let base: &[u8] = if target.starts_with(b"/") { b"" } else { done.as_bytes() };
            let followed = Self::parse_in_root(&[base, b"/", &target].concat());
            let (Ok(followed), true) = (followed, links <= MOST_LINKS) else { return Ok(None) };
            left.extend(components(&followed));
            done = Self::ROOT;
        }
        Ok(Some(done))
    }

    /// Whether it is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes, without a slash at the start or the end.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// As a path for calls of the system, relative to the root.
    pub fn as_path(&self) -> &Path {
        match self.is_root() {
            true => Path::new("."),
            false => Path::new(OsStr::from_bytes(self.as_bytes())),
        }
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{self}`")
    }
}

impl Content {
    /// Opens the content of the file that is `path` in its tree. What is read is compared with
    /// [`Content::digest`] by who reads it, unless [`Content::still`] can tell it for less.
    pub fn open(&self, path: &TreePath) -> io::Result<Opened> {
        let (file, start, size) = match &self.origin {
            ContentOrigin::Context(whence) => (whence.open(path)?.into(), 0, None),
            ContentOrigin::File(path) => (File::open(path)?.into(), 0, None),
            ContentOrigin::Part(file, start) => (Arc::clone(file), *start, Some(self.size)),
            ContentOrigin::Layer(_) => {
                return Err(io::Error::other("the content lies in a layer"));
            }
        };
        Ok(Opened { file, start, size, at: 0 })
    }

    /// Whether what [`Content::open`] gave, and was read to its end since, still is what the digest
    /// was made of.
    pub fn still(&self, opened: &Opened) -> io::Result<Still> {
        match &self.origin {
            ContentOrigin::Context(whence) => whence.context.still(self, &opened.file),
            ContentOrigin::File(_) | ContentOrigin::Part(..) | ContentOrigin::Layer(_) => {
                Ok(Still::Unknown)
            }
        }
    }
}

impl Whence {
    fn open(&self, path: &TreePath) -> io::Result<File> {
        match path.relative_to(&self.target) {
            Some(rest) => self.context.open(&rest.below(&self.base)),
            None => Err(io::Error::other("the file was copied elsewhere")),
        }
    }
}

impl Opened {
    /// Reads from the middle, as far as there is something.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.size.map_or(u64::MAX, |it| it.saturating_sub(offset));
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read_at(&mut buffer[..length], self.start.saturating_add(offset))
    }

    /// Reads all of `buffer` from the middle.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Tree {
    /// Adds an entry, or replaces the one that was there.
    pub fn insert(&mut self, path: TreePath, entry: impl Into<Arc<Entry>>) {
        self.entries.insert(path, entry.into());
    }

    /// The entry at `path`.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path).map(Arc::as_ref)
    }

    /// All entries, sorted by path.
    pub fn entries(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path, entry.as_ref()))
    }

    /// All that lies in or is `base`, sorted by path, for another tree to share it.
    pub fn shared_subtree<'a>(
        &'a self,
        base: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Arc<Entry>)> {
        let itself = self.entries.get_key_value(base);
        itself.into_iter().chain(self.entries.range(base.range_below()))
    }

    /// All entries, to change them; other trees keep theirs.
    pub fn shared_entries_mut(&mut self) -> impl Iterator<Item = &mut Arc<Entry>> {
        self.entries.values_mut()
    }

    /// The entry at `path`, to change it; other trees keep theirs.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Entry> {
        self.entries.get_mut(path).map(Arc::make_mut)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Removes `path` and all that lies below it.
    pub fn remove(&mut self, path: &TreePath) {
        self.entries.remove(path);
        self.remove_below(path);
    }

    /// Removes all that lies below `path`.
    pub fn remove_below(&mut self, path: &TreePath) {
        if path.is_root() {
            self.entries.retain(|it, _| it.is_root());
            return;
        }
        let below: Vec<TreePath> =
            self.entries.range(path.range_below()).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// All that lies in or is `base`, sorted by path.
    pub fn subtree<'a>(
        &'a self,
        base: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Entry)> {
        self.shared_subtree(base).map(|(path, entry)| (path, entry.as_ref()))
    }

    /// The entry at `path`, for another tree to share it.
    pub fn share(&self, path: &TreePath) -> Option<Arc<Entry>> {
        self.entries.get(path).cloned()
    }

    /// All entries, sorted by path, one after the other taken out.
    pub fn into_entries(self) -> impl Iterator<Item = (TreePath, Arc<Entry>)> {
        self.entries.into_iter()
    }

    /// The names directly in the folder `base`.
    pub fn children(&self, base: &TreePath) -> Vec<TreePath> {
        self.subtree(base)
            .filter(|(path, _)| path.parent().as_ref() == Some(base))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// The bytes of all contents.
    pub fn size(&self) -> u64 {
        let size = |entry: &Arc<Entry>| match &entry.kind {
            Kind::File(content) => content.size,
            _ => 0,
        };
        self.entries.values().map(size).sum()
    }

    /// A digest over what lies in or is `base`, times aside: what is equal has equal digests,
    /// wherever it lies.
    ///
    /// Times are in no key, as in `BuildKit`: a file that was only touched does not make a new
    /// layer.
    pub fn fingerprint(&self, base: &TreePath) -> Digest {
        let mut framed = Framed::new("rbuild tree 2");
        for (path, entry) in self.subtree(base) {
            framed.add(path.bytes_after(base));
            entry.add_to(&mut framed, base);
        }
        framed.finish()
    }
}

impl FromIterator<(TreePath, Arc<Entry>)> for Tree {
    fn from_iter<I: IntoIterator<Item = (TreePath, Arc<Entry>)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

impl Deref for Xattrs {
    type Target = BTreeMap<Vec<u8>, Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        static NONE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Xattrs {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl FromIterator<(Vec<u8>, Vec<u8>)> for Xattrs {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(pairs: I) -> Self {
        let map: BTreeMap<_, _> = pairs.into_iter().collect();
        Self((!map.is_empty()).then(|| Arc::new(map)))
    }
}

impl<'a> IntoIterator for &'a Xattrs {
    type Item = (&'a Vec<u8>, &'a Vec<u8>);
    type IntoIter = btree_map::Iter<'a, Vec<u8>, Vec<u8>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Entry {
    /// A folder that was made because something lies in it.
    pub fn made_folder(uid: u64, gid: u64, mtime: i64) -> Self {
        let meta = Meta { mode: 0o755, uid, gid, mtime, ..Meta::default() };
        Self { kind: Kind::Folder, meta }
    }

    /// Which member of a layer holds its content, if it is a file that lies in one.
    pub fn in_layer(&self) -> Option<InLayer> {
        match &self.kind {
            Kind::File(Content { origin: ContentOrigin::Layer(place), .. }) => Some(*place),
            _ => None,
        }
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder)
    }

    /// Adds all that makes it what it is, its time aside; names of files are seen from `base`.
    fn add_to(&self, framed: &mut Framed, base: &TreePath) {
        let device = |tag: u8, Device { major, minor }: Device| {
            let number = u64::from(major) << 32 | u64::from(minor);
            (tag, number.to_le_bytes())
        };
        let Meta { mode, uid, gid, mtime: _, xattrs } = &self.meta;
        let (tag, number) = match &self.kind {
            Kind::Folder => (b'd', [0; 8]),
            Kind::File(content) => (b'f', content.size.to_le_bytes()),
            Kind::Symlink(_) => (b'l', [0; 8]),
            Kind::Hardlink(_) => (b'h', [0; 8]),
            Kind::CharDevice(number) => device(b'c', *number),
            Kind::BlockDevice(number) => device(b'b', *number),
            Kind::Fifo => (b'p', [0; 8]),
        };
        let count = xattrs.len() as u64;
        let mode = u64::from(*mode);
        let numbers = [mode, *uid, *gid, count].map(u64::to_le_bytes);
        framed.add([&[tag][..], &number, numbers.as_flattened()].concat());
        match &self.kind {
            Kind::File(content) => framed.add(content.digest.as_bytes()),
            Kind::Symlink(target) => framed.add(target),
            Kind::Hardlink(first) => framed.add(first.bytes_after(base)),
            _ => {}
        }
        for (name, value) in xattrs {
            framed.add(name);
            framed.add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_stays_inside_the_root() {
        for (text, want) in [
            ("/usr//bin/./env", Ok("usr/bin/env")),
            ("", Ok("")),
            ("/", Ok("")),
            ("../etc", Err(PathError::Escapes("../etc".into()))),
            ("a/../../etc", Err(PathError::Escapes("a/../../etc".into()))),
            ("a/..", Err(PathError::Escapes("a/..".into()))),
            ("..a/b..", Ok("..a/b..")),
            ("a\0b", Err(PathError::Zero("a\0b".into()))),
        ] {
            let got = TreePath::parse(text.as_bytes()).map(|it| it.to_string());
            assert_eq!(got, want.map(str::to_owned), "for `{text}`");
        }
        assert_eq!(TreePath::parse(&[b'a'; 5000]), Err(PathError::Long(5000)));
    }

    #[test]
    fn above_the_root_there_is_the_root() {
        for (text, want) in [("/a/../../b", "b"), ("../..", ""), ("a/b/..", "a")] {
            let got = TreePath::parse_in_root(text.as_bytes()).unwrap();
            assert_eq!(got.to_string(), want, "for `{text}`");
        }
    }

    #[test]
    fn a_path_is_relative_to_whole_components() {
        for (text, base, want) in [
            ("a/b", "a", Some("b")),
            ("ab", "a", None),
            ("a", "a", Some("")),
            ("a/b", "", Some("a/b")),
        ] {
            let got = path(text).relative_to(&path(base)).map(|it| it.to_string());
            assert_eq!(got.as_deref(), want, "for `{text}` in `{base}`");
        }
    }

    #[test]
    fn a_folder_is_removed_with_what_is_in_it_alone() {
        let mut tree = Tree::default();
        for text in ["a", "a-b", "a/b", "a/b/c", "a0", "b"] {
            tree.insert(path(text), Entry::made_folder(0, 0, 0));
        }
        assert_eq!(tree.children(&path("a")), [path("a/b")]);
        tree.remove(&path("a"));
        let left: Vec<String> = tree.entries().map(|(path, _)| path.to_string()).collect();
        assert_eq!(left, ["a-b", "a0", "b"]);
    }
}
