//! Images in an OCI layout: a folder, or a tar of one (OCI image spec, `image-layout.md`).
//!
//! **Architecture invariant:** a layout that others made is untrusted: blobs are found by their
//! digests alone, copied, and verified on the way into the store.
//!
//! Read in this order: [`load`] and [`save`], [`blobs`] (where blobs are read from), [`write`] (the
//! files of a folder that is written). Archives are [`crate::archive`]'s.
//!
//! **Architecture invariant:** who writes a layout holds the lock of its folder, and every file
//! appears by a rename after it was synced; `index.json` comes last.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;
use tar::{EntryType, Header};
use thiserror::Error;

pub(crate) use self::{
    blobs::{Blobs, Parcel},
    write::{CopyError, Entry, Naming, Writing, copy},
};
use crate::{
    archive,
    catalog::{self, CatalogError, LARGEST_JSON},
    config::Platform,
    digest::{Blob, Digest},
    image::{self, Descriptor, ImageError, IndexEntry},
    reference::Reference,
    store::{Origin, Store, StoreError, StoredImage},
};

mod blobs;
#[cfg(test)]
mod tests;
mod write;

/// Where an image is loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub digest: Digest,
    /// The names that it got.
    pub names: Vec<Reference>,
}

/// Why a layout could not be read or written.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A file of it could not be read or written.
    #[error("`{}` could not be {action}", path.display())]
    Io {
        /// `read` or `written`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no OCI layout.
    #[error("`{}` is not an OCI layout: it has no valid `{missing}`", path.display())]
    NoLayout {
        /// The folder or archive.
        path: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// It is neither an OCI layout nor an archive as `docker save` makes them.
    #[error("`{}` is neither an OCI layout nor a docker archive", path.display())]
    NoArchive {
        /// The archive.
        path: PathBuf,
    },
    /// An archive is compressed in a way that is not read.
    #[error("`{}` is compressed with {with}, and only gzip and zstd are read", path.display())]
    Compression {
        /// The archive.
        path: PathBuf,
        /// The program.
        with: &'static str,
    },
    /// An index is to be written where only single images fit.
    #[error(
        "`{name}` is an index of images for several platforms, and a docker archive has one image \
         a name"
    )]
    Index {
        /// The image.
        name: String,
    },
    /// A layer cannot be unpacked into a docker archive.
    #[error("layer {digest} cannot be written into a docker archive: {reason}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why not.
        reason: String,
    },
    /// A manifest in it is none.
    #[error("`{}` has a manifest that cannot be used", path.display())]
    Image {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        source: ImageError,
    },
    /// It has no image of that name, or none for this platform.
    #[error("`{}` has no image {wanted}", path.display())]
    NotFound {
        /// The folder or archive.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
    },
    /// It has several images, and it was not said which.
    #[error("`{}` has {count} images: name one of them", path.display())]
    Several {
        /// The folder or archive.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// An entry of an archive cannot be used.
    #[error("`{}` has an entry `{name}` {reason}", path.display())]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What `manifest.json` names is not in the archive.
    #[error("`{}` has no entry `{name}`, which its `manifest.json` names", path.display())]
    NoEntry {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
    },
    /// An archive has more in it than is read.
    #[error("`{}` has more than {most} {what}", path.display())]
    TooMuch {
        /// The archive.
        path: PathBuf,
        /// `entries`, `bytes` …
        what: &'static str,
        /// The most of them that are read.
        most: u64,
    },
    /// There is something else where the layout should go.
    #[error("`{}` is there already, and not an OCI layout", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image in the store could not be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// How the names of files begin that are being written into a layout.
const TEMPORARY: &str = ".rbuild-part-";
/// What tools look for by a name in a layout; mostly a tag alone.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an image, with registry and tag.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Writes images, each with what it was asked for by, as a folder.
///
/// An image that was asked for by a name which it has in the store gets that name; one that was
/// asked for by digits gets none. An OCI layout that is there already keeps its images, except
/// those of the same full names. `org.opencontainers.image.ref.name` is the tag, or the full name
/// if an image of another name has that tag in the layout already.
pub fn save(
    store: &Store,
    images: &[(StoredImage, String)],
    folder: &Path,
) -> Result<(), LayoutError> {
    let mut writing = Writing::begin(folder)?;
    let blobs = Blobs::Store(store.clone());
    for Parcel { entry, all } in parcels(store, images)? {
        for (digest, size) in all.sizes() {
            let blob = Blob { digest, size };
            if !writing.has(blob) {
                writing.copy(blob, &mut blobs.open(blob)?)?;
            }
        }
        writing.put(&entry);
    }
    writing.finish()
}

/// Writes images as the tar of a layout. Times are 0 and the order is fixed, so that the same
/// images give the same archive.
pub fn save_tar(
    store: &Store,
    images: &[(StoredImage, String)],
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), LayoutError> {
    write_tar(&Blobs::Store(store.clone()), &parcels(store, images)?, out, path)
}

/// Images of the store, each by what it was asked for, with all that they need.
pub(crate) fn parcels(
    store: &Store,
    images: &[(StoredImage, String)],
) -> Result<Vec<Parcel>, LayoutError> {
    let blobs = Blobs::Store(store.clone());
    let parcel = |(stored, asked): &(StoredImage, String)| {
        let descriptor = stored.descriptor();
        let name = name_of(store, stored, asked)?;
        let naming = name.map_or(Naming::Nameless, Naming::Full);
        let all = blobs.all(&descriptor)?;
        let platform = blobs.platform(&descriptor)?;
        Ok(Parcel { entry: Entry { descriptor, platform, naming }, all })
    };
    images.iter().map(parcel).collect()
}

/// Writes the tar of a layout of blobs that lie anywhere on this machine.
pub(crate) fn write_tar(
    blobs: &Blobs,
    parcels: &[Parcel],
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), LayoutError> {
    let mut entries = Vec::new();
    let mut needed = BTreeMap::new();
    for Parcel { entry, all } in parcels {
        needed.extend(all.sizes());
        write::put(&mut entries, entry);
    }
    let mut tar = tar::Builder::new(out);
    let written = failed("written", path);
    let write = || -> io::Result<()> {
        append(&mut tar, "oci-layout", LAYOUT.len() as u64, &mut LAYOUT.as_bytes())?;
        let index = write::index(&entries);
        append(&mut tar, "index.json", index.len() as u64, &mut index.as_slice())?;
        for (digest, size) in needed {
            let mut blob = blobs.open(Blob { digest, size }).map_err(io::Error::other)?;
            append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), size, &mut blob)?;
        }
        tar.finish()
    };
    write().map_err(written)
}

/// Adds a file to a tar; its content must have that size.
pub(crate) fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

/// The name that an image was asked for by, if it has that name: digits may look like a name too.
fn name_of(
    store: &Store,
    stored: &StoredImage,
    asked: &str,
) -> Result<Option<Reference>, LayoutError> {
    let Ok(name) = asked.parse::<Reference>() else { return Ok(None) };
    let name = name.with_default_tag();
    let found = store.name(&name.canonical())?;
    Ok(found.filter(|it| it.digest == stored.digest).map(|_| name))
}

/// Loads all images for `platform` of a layout (a folder or a tar), or of a
/// docker archive, into the store. They get the
/// full names that they have there; a tag alone names nothing here.
pub fn load(
    store: &Store,
    path: &Path,
    platform: &Platform,
    now: u64,
) -> Result<Vec<Loaded>, LayoutError> {
    let is_folder = fs::metadata(path).map_err(failed("read", path))?.is_dir();
    if is_folder {
        return load_folder(store, path, path, platform, now);
    }
    let file = File::open(path).map_err(failed("read", path))?;
    load_tar(store, file, path, platform, now)
}

/// As [`load`], from the stream of a tar; `path` is its name in errors.
pub fn load_tar(
    store: &Store,
    stream: impl Read,
    path: &Path,
    platform: &Platform,
    now: u64,
) -> Result<Vec<Loaded>, LayoutError> {
    let scratch = archive::unpack(store, stream, path)?;
    load_folder(store, scratch.path(), path, platform, now)
}

fn load_folder(
    store: &Store,
    folder: &Path,
    shown: &Path,
    platform: &Platform,
    now: u64,
) -> Result<Vec<Loaded>, LayoutError> {
    let mut loaded: Vec<Loaded> = Vec::new();
    for entry in read_index(folder, shown)? {
        let stored = load_entry(store, folder, shown, &entry, platform, now)?;
        let name = full_name(entry.image_name.as_deref(), entry.name.as_deref());
        let names: Vec<Reference> = name.into_iter().collect();
        for name in &names {
            catalog::tag(store, name, stored.digest, Origin::Local)?;
        }
        loaded.push(Loaded { digest: stored.digest, names });
    }
    match loaded.is_empty() {
        true => Err(LayoutError::NotFound { path: shown.to_owned(), wanted: "at all".into() }),
        false => Ok(loaded),
    }
}

/// The full name of an image in a layout: the one that says so, or else the other if it is whole.
pub(crate) fn full_name(image_name: Option<&str>, ref_name: Option<&str>) -> Option<Reference> {
    image_name.and_then(whole_name).or_else(|| ref_name.and_then(whole_name))
}

/// What may be a tag alone is no whole name, and a digest is none that can be given.
fn whole_name(text: &str) -> Option<Reference> {
    let is_whole = text.contains('/') || text.contains(':');
    let name: Reference = text.parse().ok().filter(|_| is_whole)?;
    name.digest().is_none().then(|| name.with_default_tag())
}

/// Loads one image of a layout in a folder: the one called `name`, or the only one.
///
/// The name is what the layout itself calls it (`org.opencontainers.image.ref.name`), or else its
/// full or familiar name, or else its tag.
pub fn load_one(
    store: &Store,
    folder: &Path,
    name: Option<&str>,
    platform: &Platform,
    now: u64,
) -> Result<StoredImage, LayoutError> {
    let entries = read_index(folder, folder)?;
    let entry = one(&entries, name, folder)?;
    load_entry(store, folder, folder, entry, platform, now)
}

/// The one entry that is called `name`, or the only one.
pub(crate) fn one<'a>(
    entries: &'a [IndexEntry],
    name: Option<&str>,
    shown: &Path,
) -> Result<&'a IndexEntry, LayoutError> {
    let found = match name {
        Some(name) => called(entries, name),
        None => entries.iter().collect(),
    };
    let path = shown.to_owned();
    match (found.len(), name) {
        (0, Some(name)) => Err(LayoutError::NotFound { path, wanted: format!("called `{name}`") }),
        (0, None) => Err(LayoutError::NotFound { path, wanted: "at all".into() }),
        (1, _) => Ok(found[0]),
        (count, _) => Err(LayoutError::Several { path, count }),
    }
}

fn called<'a>(entries: &'a [IndexEntry], name: &str) -> Vec<&'a IndexEntry> {
    let wanted = name.parse().ok().map(Reference::with_default_tag);
    let full = |it: &IndexEntry| full_name(it.image_name.as_deref(), it.name.as_deref());
    let has_tag = |it: &str| it.strip_suffix(name).is_some_and(|it| it.ends_with(':'));
    let is_called = |it: &&IndexEntry| it.name.as_deref() == Some(name);
    let is_named = |it: &&IndexEntry| wanted.is_some() && full(it) == wanted;
    let is_tagged = |it: &&IndexEntry| {
        it.name.as_deref().is_some_and(has_tag) || full(it).is_some_and(|it| it.tag() == Some(name))
    };
    let found = |fits: &dyn Fn(&&IndexEntry) -> bool| entries.iter().filter(fits).collect();
    let ways: [&dyn Fn(&&IndexEntry) -> bool; 3] = [&is_called, &is_named, &is_tagged];
    ways.into_iter().map(found).find(|it: &Vec<_>| !it.is_empty()).unwrap_or_default()
}

pub(crate) fn read_index(folder: &Path, shown: &Path) -> Result<Vec<IndexEntry>, LayoutError> {
    let no_layout = |missing| LayoutError::NoLayout { path: shown.to_owned(), missing };
    let marker = read_small(&folder.join("oci-layout")).map_err(|_| no_layout("oci-layout"))?;
    let marker: Value = serde_json::from_slice(&marker).map_err(|_| no_layout("oci-layout"))?;
    if !marker["imageLayoutVersion"].as_str().is_some_and(|it| it.starts_with("1.")) {
        return Err(no_layout("oci-layout"));
    }
    let index = read_small(&folder.join("index.json")).map_err(|_| no_layout("index.json"))?;
    image::parse_index(&index).map_err(|_| no_layout("index.json"))
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_JSON).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn load_entry(
    store: &Store,
    folder: &Path,
    shown: &Path,
    entry: &IndexEntry,
    platform: &Platform,
    now: u64,
) -> Result<StoredImage, LayoutError> {
    let blobs = Blobs::Folder(folder.to_owned(), shown.to_owned());
    let chosen = choose(&blobs, &entry.manifest, platform)?;
    let image = blobs.image(&chosen)?;
    for layer in &image.layers {
        copy_in(store, &blobs, Blob { digest: layer.digest, size: layer.size })?;
    }
    Ok(catalog::add(store, &image, now)?)
}

/// The manifest of an index that is for `platform`; what is no index is itself.
fn choose(blobs: &Blobs, top: &Descriptor, platform: &Platform) -> Result<Descriptor, LayoutError> {
    if !image::is_index(&top.media_type) {
        return Ok(top.clone());
    }
    let entries = image::parse_index(&blobs.json(top)?).map_err(|err| blobs.broken(err))?;
    let Some(found) = select(&entries, platform) else {
        let (path, wanted) = (blobs.path().to_owned(), format!("for {platform}"));
        return Err(LayoutError::NotFound { path, wanted });
    };
    match image::is_index(&found.manifest.media_type) {
        true => Err(blobs.broken(ImageError::MediaType(found.manifest.media_type.clone()))),
        false => Ok(found.manifest.clone()),
    }
}

/// The entry of an index that is for `platform`: of several, the first.
pub fn select<'a>(entries: &'a [IndexEntry], platform: &Platform) -> Option<&'a IndexEntry> {
    let fits = |it: &&IndexEntry| {
        it.platform.as_ref().is_some_and(|(os, architecture, _)| {
            *os == platform.os && *architecture == platform.architecture
        })
    };
    // What names no platform is for all, but attestations (which say `unknown`) are no images.
    entries.iter().find(fits).or_else(|| entries.iter().find(|it| it.platform.is_none()))
}

/// Where a layout has a blob.
pub(crate) fn blob_path(folder: &Path, digest: Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

/// Copies a blob into the store, verified.
pub(crate) fn copy_in(store: &Store, blobs: &Blobs, blob: Blob) -> Result<(), LayoutError> {
    if store.has(blob.digest, blob.size)? {
        return Ok(());
    }
    let mut reader = blobs.open(blob)?;
    let mut writer = store.writer()?;
    let path = blob_path(blobs.path(), blob.digest);
    copy(&mut reader, &mut writer).map_err(|err| err.at(&path, store.root()))?;
    writer.finish_as(blob)?;
    Ok(())
}

/// Says what failed with a file.
pub(crate) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LayoutError + use<> {
    let path = path.to_owned();
    move |source| LayoutError::Io { action, path, source }
}
