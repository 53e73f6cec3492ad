//! What a root filesystem holds: as layers say it, as it lies on disk, or as an archive has it;
//! and what differs.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use rustix::fs::{major, minor};

use super::{
    Entry, Image, Kind,
    stream::{self, shown},
};
use crate::store;

/// The entries below a root, by path. The root itself is not one of them.
///
/// An entry that is a hard link has the kind of the file; what is linked with what is beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// For each name of a file that has several: the first of them.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Tree {
    /// The root filesystem of an image: its layers, one on top of the other (OCI image spec,
    /// `layer.md`, "Applying Changesets").
    pub fn of_image(image: &Image) -> Self {
        let mut tree = Self::default();
        for layer in &image.layers {
            tree.apply(&layer.entries);
        }
        tree.normalized()
    }

    /// What lies in a folder of this machine.
    pub fn of_folder(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut files = BTreeMap::new();
        tree.read(root, root, &mut files);
        tree.normalized()
    }

    /// What is in a tar archive, whatever is odd about it.
    pub fn of_archive(bytes: &[u8]) -> Self {
        let mut tree = Self::default();
        tree.apply(&stream::read(bytes, &mut Vec::new()));
        tree.normalized()
    }

    /// The same with each entry changed so.
    #[must_use]
    pub fn with_each(mut self, change: impl Fn(&mut Entry)) -> Self {
        self.entries.values_mut().for_each(change);
        self
    }

    /// The same with this entry on top, as if it came in a layer.
    #[must_use]
    pub fn with(mut self, entry: Entry) -> Self {
        self.add(entry);
        self.normalized()
    }

    /// The same without this path and what is below.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.remove(path.as_bytes());
        self.normalized()
    }

    /// The same, below a folder. The folders on the way are not added.
    #[must_use]
    pub fn below(self, folder: &str) -> Self {
        let moved = |path: &[u8]| [folder.as_bytes(), b"/", path].concat();
        let entries = self.entries.into_values().map(|mut entry| {
            entry.path = moved(&entry.path);
            (entry.path.clone(), entry)
        });
        let links = self.links.iter().map(|(path, first)| (moved(path), moved(first)));
        Self { links: links.collect(), entries: entries.collect() }
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.as_bytes())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asserts that `found` is the same.
    #[track_caller]
    pub fn assert_same(&self, found: &Self, what: &str) {
        let mut told = Vec::new();
        let paths = self.entries.keys().chain(found.entries.keys());
        let mut paths: Vec<_> = paths.collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let sides = [self, found].map(|it| (it.entries.get(path), it.links.get(path)));
            if sides[0] != sides[1] {
                let [wanted, found] = sides.map(|(entry, link)| described(entry, link));
                told.push(format!("{}\n  wanted {wanted}\n  found  {found}", shown(path)));
            }
        }
        let some = told.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(told.is_empty(), "{what} differs in {} entries:\n{some}", told.len());
    }

    /// Puts the entries of a layer on top: first it removes, then it adds.
    fn apply(&mut self, layer: &[Entry]) {
        for entry in layer {
            let (folder, name) = split(&entry.path);
            match name.strip_prefix(b".wh.") {
                Some(b".wh..opq") => self.remove_below(folder),
                Some(removed) => self.remove(&join(folder, removed)),
                None => {}
            }
        }
        for entry in layer.iter().filter(|it| !split(&it.path).1.starts_with(b".wh.")) {
            self.add(entry.clone());
        }
    }

    fn add(&mut self, mut entry: Entry) {
        let path = entry.path.clone();
        if let Kind::Hardlink(target) = &entry.kind {
            let target = target.strip_prefix(b"/").unwrap_or(target).to_vec();
            // What a target is that is not there, the comparison tells.
            if let Some(file) = self.entries.get(&target).cloned() {
                entry = Entry { path: path.clone(), ..file };
                let first = self.links.get(&target).cloned().unwrap_or_else(|| target.clone());
                self.remove(&path);
                self.links.insert(target, first.clone());
                self.links.insert(path.clone(), first);
                self.entries.insert(path, entry);
                return;
            }
        }
        match (self.entries.get(&path).map(|it| &it.kind), &entry.kind) {
            (Some(Kind::Folder), Kind::Folder) | (None, _) => {}
            _ => self.remove(&path),
        }
        self.entries.insert(path, entry);
    }

    fn remove(&mut self, path: &[u8]) {
        self.remove_below(path);
        self.entries.remove(path);
        self.links.remove(path);
    }

    fn remove_below(&mut self, folder: &[u8]) {
        let is_below = |path: &[u8]| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|it| it.starts_with(b"/"))
        };
        self.entries.retain(|path, _| !is_below(path));
        self.links.retain(|path, _| !is_below(path));
    }

    fn read(&mut self, root: &Path, folder: &Path, files: &mut BTreeMap<(u64, u64), Vec<u8>>) {
        let entries =
            fs::read_dir(folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
        for found in entries.map(|it| it.expect("entry of a folder").path()) {
            let entry = entry(root, &found);
            let metadata = fs::symlink_metadata(&found).expect("metadata");
            if matches!(entry.kind, Kind::File(..)) && 1 < metadata.nlink() {
                let first = files.entry((metadata.dev(), metadata.ino()));
                let first = first.or_insert_with(|| entry.path.clone());
                self.links.insert(entry.path.clone(), first.clone());
            }
            if entry.kind == Kind::Folder {
                self.read(root, &found, files);
            }
            self.entries.insert(entry.path.clone(), entry);
        }
    }

    /// The first of several names is the one that sorts first, and one name alone is no link.
    fn normalized(mut self) -> Self {
        let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, first) in &self.links {
            groups.entry(first.clone()).or_default().push(path.clone());
        }
        let groups = groups.into_values().filter(|names| 1 < names.len());
        self.links = groups
            .flat_map(|names| {
                let first = names[0].clone();
                names.into_iter().map(move |name| (name, first.clone()))
            })
            .collect();
        self
    }
}

/// An entry for people, without its path.
fn described(entry: Option<&Entry>, first: Option<&Vec<u8>>) -> String {
    let Some(entry) = entry else { return "nothing".to_owned() };
    let Entry { kind, mode, uid, gid, mtime, xattrs, .. } = entry;
    let xattrs: Vec<_> = xattrs.iter().map(|(name, value)| (shown(name), value)).collect();
    let first = first.map(|it| shown(it));
    format!("{kind:?} {mode:o} {uid}:{gid} {mtime} {xattrs:?}, linked with {first:?}")
}

/// What lies at a path of this machine.
fn entry(root: &Path, path: &Path) -> Entry {
    let metadata = fs::symlink_metadata(path).expect("metadata");
    let (kind, device) = (metadata.file_type(), metadata.rdev());
    let device = (u64::from(major(device)), u64::from(minor(device)));
    let kind = if kind.is_symlink() {
        let target = fs::read_link(path).expect("target of a link");
        Kind::Symlink(target.into_os_string().into_vec())
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_char_device() {
        Kind::CharDevice(device.0, device.1)
    } else if kind.is_block_device() {
        Kind::BlockDevice(device.0, device.1)
    } else {
        Kind::File(metadata.len(), store::sha256(path))
    };
    let names = xattr::list(path).into_iter().flatten();
    let xattrs = names.filter_map(|name| {
        let value = xattr::get(path, &name).ok().flatten()?;
        Some((name.into_vec(), value))
    });
    Entry {
        path: path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec(),
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid().into(),
        gid: metadata.gid().into(),
        mtime: metadata.mtime(),
        xattrs: xattrs.collect(),
    }
}

/// The folder and the name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|it| *it == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}
