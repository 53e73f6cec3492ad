//! The root filesystem that a stack of layers makes, without unpacking it.
//!
//! Reads the tables of contents of layers, so that `COPY` can see what is there (a folder, a link,
//! the users in `/etc/passwd`), and takes the files out that `COPY --from` asks for.
//!
//! **Architecture invariant:** layers are untrusted. Names never leave the root, sizes and counts
//! are bounded, and nothing is written to the host but contents under names of our own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    contents::{Contents, ContentsError, Damaged, Item, What},
    context,
    digest::Digest,
    image::{Compression, Layer},
    members::MembersError,
    store::{Store, StoreError},
    tree::{Content, ContentOrigin, Entry, InLayer, Kind, Meta, PathError, Tree, TreePath},
    unpack::{Layers, RemoteError},
};

/// The largest `/etc/passwd` and `/etc/group` that are read.
const LARGEST_USERS: u64 = 16 << 20;
/// The most bytes of memory that a tree may have, in estimation: a few million files.
const LARGEST_TREE: usize = 512 << 20;
/// What an entry has in memory, beside its names and attributes.
const ENTRY: usize = 250;
/// The most components that are followed on the way to files that lie behind links.
const MOST_FOLLOWED: usize = 4_000_000;

/// What a stack of layers holds, and in which layer each file's content lies.
#[derive(Clone, Debug, Default)]
pub struct Rootfs {
    tree: Tree,
    /// Files whose content is known: those that tell users and groups.
    kept: BTreeMap<InLayer, Vec<u8>>,
    layers: Vec<Layer>,
    /// Files that are neither here, nor below, nor on the way, are left out.
    near: Option<TreePath>,
    /// About what the tree has in memory.
    memory: usize,
    /// Components that were followed on the way to what lies behind links.
    followed: usize,
}

/// Why a layer could not be read.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The store could not give the layer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer is not in the store, and could not be had from elsewhere.
    #[error("layer {layer} could not be pulled")]
    Remote {
        /// The layer.
        layer: Digest,
        /// Why not.
        source: RemoteError,
    },
    /// The layer is no tar archive, or is damaged.
    #[error("layer {layer} could not be read as a tar archive")]
    Tar {
        /// The layer.
        layer: Digest,
        /// What is wrong.
        source: io::Error,
    },
    /// The layer is compressed otherwise than its media type says.
    #[error("layer {layer} is {}, and its media type says that it is {}", shown(*.found), shown(*.said))]
    Compression {
        /// The layer.
        layer: Digest,
        /// How it is compressed.
        found: Compression,
        /// What its media type says.
        said: Compression,
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
    /// A hard link leads to nothing that can have another name.
    #[error("layer {layer} has `{path}`, a hard link to `{target}`, which is no file")]
    Link {
        /// The layer.
        layer: Digest,
        /// The link.
        path: TreePath,
        /// What it should be another name of.
        target: TreePath,
    },
    /// The table of what a layer holds could not be made.
    #[error("the table of contents of layer {layer} could not be written")]
    Contents {
        /// The layer.
        layer: Digest,
        /// Why not.
        source: io::Error,
    },
    /// The table of what a layer holds is not what was written.
    #[error("the table of contents of layer {layer} is damaged")]
    Damaged {
        /// The layer.
        layer: Digest,
        /// What is wrong with it.
        source: Damaged,
    },
    /// A file that was taken out of a layer could not be written.
    #[error("`{path}` could not be written to the store")]
    Write {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// The file for what is taken out of layers could not be written.
    #[error("`{}` could not be written", path.display())]
    Take {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Links lead in circles.
    #[error("`{0}` has too many levels of symbolic links")]
    Loop(TreePath),
}

fn shown(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => "compressed with gzip",
        Compression::Zstd => "compressed with zstd",
        Compression::None => "not compressed",
    }
}

impl RootfsError {
    /// What is wrong with the members of a layer.
    pub(crate) fn members(layer: &Layer, err: MembersError) -> Self {
        let layer = layer.digest;
        match err {
            MembersError::Tar(source) => Self::Tar { layer, source },
            MembersError::Name(source) => Self::Name { layer, source },
            MembersError::Limit(what) => Self::Limit { layer, what },
            MembersError::Unsupported(what) => Self::Unsupported { layer, what },
        }
    }

    /// Why the table of a layer could not be made.
    pub(crate) fn contents(layer: &Layer, err: ContentsError) -> Self {
        match err {
            ContentsError::Members(err) => Self::members(layer, err),
            ContentsError::Write(source) => Self::Contents { layer: layer.digest, source },
        }
    }
}

impl Rootfs {
    /// Reads what a stack of layers, which are in the store, holds.
    pub fn read(store: &Store, layers: &[Layer]) -> Result<Self, RootfsError> {
        Self::read_from(Layers { store, remote: None }, layers)
    }

    /// Reads what a stack of layers holds.
    pub fn read_from(from: Layers<'_>, layers: &[Layer]) -> Result<Self, RootfsError> {
        let mut rootfs = Self::default();
        for layer in layers {
            rootfs.lay(&from.contents(layer)?, layer)?;
        }
        Ok(rootfs)
    }

    /// As [`Rootfs::read_from`], without the files that say nothing of what `path` is, what lies
    /// below, and what is on the way: those of a large base are not all in memory at once.
    pub fn read_near(
        from: Layers<'_>,
        layers: &[Layer],
        path: &TreePath,
    ) -> Result<Self, RootfsError> {
        let mut near = path.clone();
        loop {
            let mut rootfs = Self { near: Some(near.clone()), ..Self::default() };
            for layer in layers {
                rootfs.lay(&from.contents(layer)?, layer)?;
            }
            // Links and folders are all there: where it leads to is the same the next time.
            let resolved = rootfs.resolve(path, true)?;
            if resolved == near {
                return Ok(rootfs);
            }
            near = resolved;
        }
    }

    /// Adds a layer that was just written from `tree`.
    pub fn push(&mut self, tree: &Tree, layer: &Layer) -> Result<(), RootfsError> {
        let contents = Contents::of_tree(tree).map_err(|err| RootfsError::contents(layer, err))?;
        self.lay(&contents, layer)
    }

    /// Lays a layer over what is there: first what it removes, then what it has, in its order.
    pub fn lay(&mut self, contents: &Contents, layer: &Layer) -> Result<(), RootfsError> {
        self.layers.push(layer.clone());
        for item in contents.items() {
            let damaged = |source| RootfsError::Damaged { layer: layer.digest, source };
            let Item { path, number, what } = item.map_err(damaged)?;
            match what {
                What::Opaque => {
                    let path = self.landing(path, layer)?;
                    self.tree.remove_below(&path);
                }
                What::Removed => {
                    let path = self.landing(path, layer)?;
                    self.tree.remove(&path);
                }
                What::Here { mut kind, meta, kept } => {
                    let place = self.place(number, layer)?;
                    if let Some(bytes) = kept {
                        self.kept.insert(place, bytes);
                    }
                    if let Kind::File(content) = &mut kind {
                        content.origin = ContentOrigin::Layer(place);
                    }
                    self.put(path, Entry { kind, meta }, layer)?;
                }
            }
        }
        Ok(())
    }

    /// Where a member of the uppermost layer lies.
    fn place(&self, number: u64, layer: &Layer) -> Result<InLayer, RootfsError> {
        let place = u32::try_from(number).ok().zip(u32::try_from(self.layers.len() - 1).ok());
        let too_many =
            || RootfsError::Limit { layer: layer.digest, what: "thousands of millions of files" };
        place.map(|(member, layer)| InLayer { layer, member }).ok_or_else(too_many)
    }

    /// Puts one entry where it belongs, in place of what is there.
    fn put(&mut self, path: TreePath, entry: Entry, layer: &Layer) -> Result<(), RootfsError> {
        let path = self.landing(path, layer)?;
        self.add_parents(&path, layer)?;
        let entry = match &entry.kind {
            Kind::Hardlink(target) => {
                let kind = self.linked(&path, target.clone(), layer)?;
                Entry { kind, meta: entry.meta }
            }
            _ => entry,
        };
        if self.is_left_out(&path, &entry) {
            // What it replaces is gone all the same.
            self.tree.remove(&path);
            return Ok(());
        }
        let replaces_folder = self.tree.get(&path).is_some_and(Entry::is_folder);
        if replaces_folder && !entry.is_folder() {
            self.tree.remove_below(&path);
        }
        self.insert(path, entry, layer)
    }

    fn is_left_out(&self, path: &TreePath, entry: &Entry) -> bool {
        let is_near =
            |near: &TreePath| path.relative_to(near).is_some() || near.relative_to(path).is_some();
        matches!(entry.kind, Kind::File(_)) && !self.near.as_ref().is_none_or(is_near)
    }

    fn insert(&mut self, path: TreePath, entry: Entry, layer: &Layer) -> Result<(), RootfsError> {
        let Meta { xattrs, .. } = &entry.meta;
        let xattrs: usize = xattrs.iter().map(|(name, value)| 80 + name.len() + value.len()).sum();
        let link = match &entry.kind {
            Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        self.memory += ENTRY + path.as_bytes().len() + link + xattrs;
        if LARGEST_TREE < self.memory {
            let what = "more files than fit in 512 MiB of memory, with the layers below";
            return Err(RootfsError::Limit { layer: layer.digest, what });
        }
        self.tree.insert(path, entry);
        Ok(())
    }

    /// What is there.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What lies in or is `base`, with files that share their content in one layer as the hard
    /// links that they are.
    pub fn with_links(&self, base: &TreePath) -> Tree {
        let shared = self.tree.shared_subtree(base);
        let mut tree: Tree = shared.map(|(path, it)| (path.clone(), Arc::clone(it))).collect();
        let subtree = self.tree.subtree(base);
        let mut places: Vec<(InLayer, &TreePath)> =
            subtree.filter_map(|(path, entry)| Some((entry.in_layer()?, path))).collect();
        places.sort_unstable();
        for names in places.chunk_by(|(a, _), (b, _)| a == b) {
            let (_, first) = names[0];
            for (_, path) in &names[1..] {
                if let Some(entry) = tree.get_mut(path) {
                    entry.kind = Kind::Hardlink(first.clone());
                }
            }
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

    /// The layers, when what lies in them is not needed any more.
    pub fn into_layers(self) -> Vec<Layer> {
        self.layers
    }

    /// The text of a small file, e.g., `/etc/passwd`; none if it is not there.
    pub fn text(&self, from: Layers<'_>, path: &str) -> Result<Option<String>, RootfsError> {
        let path = TreePath::parse(path.as_bytes())
            .map_err(|source| RootfsError::Name { layer: Digest::of(b""), source })?;
        let path = self.resolve(&path, true)?;
        let Some(place) = self.tree.get(&path).and_then(Entry::in_layer) else { return Ok(None) };
        let layer = &self.layers[place.layer as usize];
        if let Some(bytes) = self.kept.get(&place) {
            return Ok(Some(String::from_utf8_lossy(bytes).into_owned()));
        }
        let mut text = Vec::new();
        from.for_each_member(layer, &mut |member, content| {
            if member.number == u64::from(place.member) {
                let read = content.take(LARGEST_USERS).read_to_end(&mut text);
                read.map_err(|source| RootfsError::Tar { layer: layer.digest, source })?;
            }
            Ok(())
        })?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Where an entry of an upper layer lands: a link on the way to it is followed, as by those
    /// who unpack layers.
    fn landing(&mut self, path: TreePath, layer: &Layer) -> Result<TreePath, RootfsError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Ok(path) };
        if parent.is_root() || self.tree.get(&parent).is_some_and(Entry::is_folder) {
            return Ok(path);
        }
        let (tree, mut count) = (&self.tree, 0);
        let followed = parent.follow::<RootfsError>(&mut |link, _| {
            count += 1;
            Ok(match tree.get(link).map(|it| &it.kind) {
                Some(Kind::Symlink(target)) => Some(target.clone()),
                _ => None,
            })
        })?;
        self.followed += count;
        if MOST_FOLLOWED < self.followed {
            let what = "millions of files behind links";
            return Err(RootfsError::Limit { layer: layer.digest, what });
        }
        match followed {
            Some(parent) => Ok(parent.join(name)),
            None => Err(RootfsError::Loop(path)),
        }
    }

    /// Adds the folders on the way to `path`, which layers need not have entries for. A file
    /// there is replaced, as where layers are unpacked side by side.
    fn add_parents(&mut self, path: &TreePath, layer: &Layer) -> Result<(), RootfsError> {
        let mut missing = Vec::new();
        let mut next = path.parent();
        while let Some(folder) = next.filter(|it| !it.is_root()) {
            if self.tree.get(&folder).is_some_and(Entry::is_folder) {
                break;
            }
            next = folder.parent();
            missing.push(folder);
        }
        for folder in missing {
            self.insert(folder, Entry::made_folder(0, 0, 0), layer)?;
        }
        Ok(())
    }

    /// What a hard link is another name of: something of this layer, or of one below.
    fn linked(
        &mut self,
        path: &TreePath,
        target: TreePath,
        layer: &Layer,
    ) -> Result<Kind, RootfsError> {
        let landed = self.landing(target.clone(), layer)?;
        match self.tree.get(&landed) {
            Some(found) if !found.is_folder() => Ok(found.kind.clone()),
            // A file that was left out.
            None if self.near.is_some() => Ok(Kind::File(Content {
                digest: Digest::of(b""),
                size: 0,
                origin: ContentOrigin::Layer(InLayer::default()),
            })),
            _ => Err(RootfsError::Link { layer: layer.digest, path: path.clone(), target }),
        }
    }
}

/// Takes the contents of `tree`'s files, which lie in `layers`, out of them into one file in
/// `folder`, one pass for each layer that has some of them.
pub fn fetch(
    from: Layers<'_>,
    layers: &[Layer],
    tree: &mut Tree,
    folder: &Path,
) -> Result<(), RootfsError> {
    let mut wanted: Vec<(InLayer, u64)> =
        tree.entries().filter_map(|(_, entry)| Some((entry.in_layer()?, 0))).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let path = folder.join("contents");
    let failed = |source| RootfsError::Take { path: path.clone(), source };
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = Arc::new(file.map_err(failed)?);
    let mut out = Counted { inner: BufWriter::with_capacity(1 << 18, &*file), count: 0 };
    for (number, layer) in (0..).zip(layers) {
        if wanted.iter().all(|(place, _)| place.layer != number) {
            continue;
        }
        from.for_each_member(layer, &mut |member, content| {
            let place = u32::try_from(member.number).ok();
            let place = place.map(|member| InLayer { layer: number, member });
            let at = wanted.binary_search_by_key(&place, |(it, _)| Some(*it));
            if let Some((_, start)) = at.ok().and_then(|it| wanted.get_mut(it)) {
                *start = out.count;
                take(content, &mut out, layer, member.path)?;
            }
            Ok(())
        })?;
    }
    out.inner.flush().map_err(failed)?;
    drop(out);
    for entry in tree.shared_entries_mut() {
        let place = entry.in_layer();
        let at = place.and_then(|it| wanted.binary_search_by_key(&it, |(it, _)| *it).ok());
        if let Some(at) = at
            && let Kind::File(content) = &mut Arc::make_mut(entry).kind
        {
            content.origin = ContentOrigin::Part(Arc::clone(&file), wanted[at].1);
        }
    }
    Ok(())
}

/// Writes one file's content; what cannot be read is the layer's fault, not the disk's.
fn take(
    content: &mut dyn Read,
    out: &mut impl Write,
    layer: &Layer,
    path: TreePath,
) -> Result<(), RootfsError> {
    let mut content = Noted { inner: content, error: None };
    match (context::copy(&mut content, out), content.error) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(source)) => Err(RootfsError::Tar { layer: layer.digest, source }),
        (Err(source), None) => Err(RootfsError::Write { path, source }),
    }
}

/// Counts what is written.
struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Keeps the error of who reads apart from that of who writes.
struct Noted<'a> {
    inner: &'a mut dyn Read,
    error: Option<io::Error>,
}

impl Read for Noted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|err| {
            let kind = err.kind();
            self.error = Some(err);
            kind.into()
        })
    }
}

#[cfg(test)]
mod tests;
