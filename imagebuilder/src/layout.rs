//! Images in an OCI layout: a folder, or a tar of one (OCI image spec, `image-layout.md`).
//!
//! **Architecture invariant:** a layout that others made is untrusted: blobs are found by their
//! digests alone, copied, and verified on the way into the store.
//!
//! **Architecture invariant:** who writes a layout holds the lock of its folder, and every file
//! appears by a rename after it was synced; `index.json` comes last.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tar::{Archive, Entry, EntryType, Header, PaxExtensions};
use thiserror::Error;

use crate::{
    catalog::{self, CatalogError, LARGEST_JSON},
    config::Platform,
    digest::{Blob, Digest, Verifying},
    image::{self, Descriptor, Image, ImageError, IndexEntry, Manifest},
    reference::Reference,
    store::{Origin, Scratch, Store, StoreError, StoredImage},
};

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
    /// It is an archive as `docker save` makes them.
    #[error("`{}` is a docker archive, which is not supported yet", path.display())]
    DockerArchive {
        /// The archive.
        path: PathBuf,
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
    /// An archive has more in it than is read.
    #[error("`{}` has more than {most} {what}", path.display())]
    TooMuch {
        /// The archive.
        path: PathBuf,
        /// `entries` or `bytes`.
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

/// What an archive may have before it is taken for an attempt to fill the disk.
struct Limits {
    entries: u64,
    bytes: u64,
}

/// Which side of a copy failed: what is read may be a wrong argument, what is written a full disk.
#[derive(Debug)]
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const LIMITS: Limits = Limits { entries: 100_000, bytes: 64 << 30 };
/// The longest extended header that is read: names and times take a few hundred bytes.
const LONGEST_PAX: u64 = 1 << 16;
/// How the names of files begin that are being written into a layout.
const TEMPORARY: &str = ".rbuild-part-";
/// What tools look for by a name in a layout; mostly a tag alone.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an image, with registry and tag.
const IMAGE_NAME: &str = "io.containerd.image.name";

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
    if fs::metadata(folder).is_ok_and(|it| !it.is_dir()) {
        return Err(LayoutError::Occupied { path: folder.to_owned() });
    }
    fs::create_dir_all(folder).map_err(failed("written", folder))?;
    let locked = lock(folder)?;
    clear_leftovers(folder);
    let mut entries = existing(folder)?;
    write_whole(folder, "oci-layout", LAYOUT.as_bytes())?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("written", &blobs))?;
    for (stored, asked) in images {
        let image = catalog::load(store, stored.digest)?;
        for (digest, size) in all_blobs(&image) {
            copy_out(store, digest, size, folder)?;
        }
        put(&mut entries, stored, &image, name_of(store, stored, asked)?.as_ref());
    }
    for path in [&blobs, &folder.join("blobs")] {
        File::open(path).and_then(|it| it.sync_all()).map_err(failed("written", path))?;
    }
    write_whole(folder, "index.json", &index(&entries))?;
    locked.sync_all().map_err(failed("written", folder))
}

/// Writes images as the tar of a layout. Times are 0 and the order is fixed, so that the same
/// images give the same archive.
pub fn save_tar(
    store: &Store,
    images: &[(StoredImage, String)],
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), LayoutError> {
    let mut entries = Vec::new();
    let mut blobs = BTreeMap::new();
    for (stored, asked) in images {
        let image = catalog::load(store, stored.digest)?;
        blobs.extend(all_blobs(&image));
        put(&mut entries, stored, &image, name_of(store, stored, asked)?.as_ref());
    }
    let mut tar = tar::Builder::new(out);
    let written = failed("written", path);
    let write = || -> io::Result<()> {
        append(&mut tar, "oci-layout", LAYOUT.len() as u64, &mut LAYOUT.as_bytes())?;
        let index = index(&entries);
        append(&mut tar, "index.json", index.len() as u64, &mut index.as_slice())?;
        for (digest, size) in blobs {
            let mut blob = store.open_blob(digest).map_err(io::Error::other)?;
            append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), size, &mut blob)?;
        }
        tar.finish()
    };
    write().map_err(written)
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

fn all_blobs(image: &Image) -> Vec<(Digest, u64)> {
    let mut blobs: Vec<(Digest, u64)> =
        image.layers.iter().map(|it| (it.digest, it.size)).collect();
    blobs.push((image.config_digest(), image.config_bytes.len() as u64));
    blobs.push((image.digest(), image.manifest.len() as u64));
    blobs
}

/// Waits until nobody else writes the layout; the lock goes when the folder is closed.
fn lock(folder: &Path) -> Result<File, LayoutError> {
    let file = File::open(folder).map_err(failed("read", folder))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|err| failed("written", folder)(err.into()))?;
    Ok(file)
}

/// Removes what a killed rbuild left half-written, which nobody else is writing under the lock.
fn clear_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn copy_out(store: &Store, digest: Digest, size: u64, folder: &Path) -> Result<(), LayoutError> {
    let path = blob_path(folder, digest);
    // Blobs appear as a whole: one of the right size is no half of one.
    if fs::metadata(&path).is_ok_and(|it| it.len() == size) {
        return Ok(());
    }
    let mut blob = store.open_blob(digest)?;
    publish(folder, &mut blob, &path).map_err(|err| match err {
        CopyError::Read(err) => {
            StoreError::Damaged { expected: digest, reason: err.to_string() }.into()
        }
        CopyError::Write(err) => failed("written", &path)(err),
    })
}

fn write_whole(folder: &Path, name: &str, mut bytes: &[u8]) -> Result<(), LayoutError> {
    let path = folder.join(name);
    publish(folder, &mut bytes, &path).map_err(|err| err.at(&path, &path))
}

/// Writes under a name of its own in `folder`, syncs, renames: `path` is there as a whole or not.
fn publish(folder: &Path, content: &mut impl Read, path: &Path) -> Result<(), CopyError> {
    let temporary = folder.join(format!("{TEMPORARY}{:016x}", fastrand::u64(..)));
    let published = write_new(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path).map_err(CopyError::Write));
    if published.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    published
}

fn write_new(path: &Path, content: &mut impl Read) -> Result<(), CopyError> {
    let mut file = File::create_new(path).map_err(CopyError::Write)?;
    copy(content, &mut file)?;
    file.sync_all().map_err(CopyError::Write)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(CopyError::Write)?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(CopyError::Read(err)),
        }
    }
}

impl CopyError {
    fn at(self, from: &Path, to: &Path) -> LayoutError {
        match self {
            Self::Read(err) => failed("read", from)(err),
            Self::Write(err) => failed("written", to)(err),
        }
    }
}

fn existing(folder: &Path) -> Result<Vec<Value>, LayoutError> {
    let occupied = || LayoutError::Occupied { path: folder.to_owned() };
    match fs::read(folder.join("index.json")) {
        Ok(bytes) => {
            let mut index: Value = serde_json::from_slice(&bytes).map_err(|_| occupied())?;
            match index["manifests"].take() {
                Value::Array(entries) => Ok(entries),
                _ => Err(occupied()),
            }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            // A layout without an index is one that was killed before its end.
            let is_begun = folder.join("oci-layout").exists();
            let mut files = fs::read_dir(folder).map_err(failed("read", folder))?;
            match is_begun || files.next().is_none() {
                true => Ok(Vec::new()),
                false => Err(occupied()),
            }
        }
        Err(err) => Err(failed("read", folder)(err)),
    }
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

/// Adds an image in place of the one of that name. Without a name it is there only if it is not
/// there with one.
fn put(entries: &mut Vec<Value>, stored: &StoredImage, image: &Image, name: Option<&Reference>) {
    let digest = stored.digest.to_string();
    let is_same = |it: &Value| it["digest"] == *digest;
    let is_nameless =
        |it: &Value| annotation(it, REF_NAME).or(annotation(it, IMAGE_NAME)).is_none();
    let Some(name) = name else {
        if !entries.iter().any(is_same) {
            entries.push(index_entry(stored, image));
        }
        return;
    };
    entries.retain(|it| {
        let full = full_name(annotation(it, IMAGE_NAME), annotation(it, REF_NAME));
        full.as_ref() != Some(name) && !(is_same(it) && is_nameless(it))
    });
    let full = name.canonical();
    let is_free = |tag: &&str| entries.iter().all(|it| annotation(it, REF_NAME) != Some(tag));
    let ref_name = name.tag().filter(is_free).unwrap_or(&full);
    let mut entry = index_entry(stored, image);
    entry["annotations"] = json!({ IMAGE_NAME: full, REF_NAME: ref_name });
    entries.push(entry);
}

fn annotation<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry["annotations"][key].as_str()
}

fn index_entry(stored: &StoredImage, image: &Image) -> Value {
    let platform = image.config.platform();
    json!({
        "mediaType": stored.media_type,
        "digest": stored.digest.to_string(),
        "size": stored.size,
        "platform": { "architecture": platform.architecture, "os": platform.os },
    })
}

fn index(entries: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": entries });
    index.to_string().into_bytes()
}

/// Loads all images for `platform` of a layout, a folder or a tar, into the store. They get the
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
    let scratch = unpack(store, stream, path, &LIMITS)?;
    load_folder(store, scratch.path(), path, platform, now)
}

/// Unpacks what belongs to a layout into a scratch folder, under names of our own.
///
/// Entries are taken as they are, without the long names and sparse files of later formats: what
/// belongs to a layout needs neither, and both can make much of a small archive.
fn unpack(
    store: &Store,
    stream: impl Read,
    path: &Path,
    limits: &Limits,
) -> Result<Scratch, LayoutError> {
    let scratch = store.scratch()?;
    let blobs = scratch.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("written", &blobs))?;
    let too_much = |what, most| LayoutError::TooMuch { path: path.to_owned(), what, most };
    let mut is_docker = false;
    let (mut count, mut bytes) = (0, 0_u64);
    let mut archive = Archive::new(stream);
    for entry in archive.entries().map_err(failed("read", path))?.raw(true) {
        let mut entry = entry.map_err(failed("read", path))?;
        count += 1;
        if limits.entries < count {
            return Err(too_much("entries", limits.entries));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        refuse_hidden_size(&mut entry, &name, path)?;
        let name = name.strip_prefix("./").unwrap_or(&name);
        is_docker |= name == "manifest.json";
        let Some(target) = target(scratch.path(), name) else { continue };
        bytes = bytes.saturating_add(entry.size());
        if limits.bytes < bytes {
            return Err(too_much("bytes", limits.bytes));
        }
        unpack_file(&mut entry, name, &target, path)?;
    }
    if is_docker && !scratch.path().join("index.json").exists() {
        return Err(LayoutError::DockerArchive { path: path.to_owned() });
    }
    Ok(scratch)
}

/// Where an entry goes, if it belongs to a layout.
fn target(folder: &Path, name: &str) -> Option<PathBuf> {
    match name {
        "oci-layout" | "index.json" => Some(folder.join(name)),
        _ => {
            let digest = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex)?;
            Some(blob_path(folder, digest))
        }
    }
}

fn unpack_file(
    entry: &mut Entry<'_, impl Read>,
    name: &str,
    target: &Path,
    path: &Path,
) -> Result<(), LayoutError> {
    if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
        let reason = "that is not a regular file";
        return Err(LayoutError::Entry { path: path.to_owned(), name: name.to_owned(), reason });
    }
    let mut file = File::create(target).map_err(failed("written", target))?;
    copy(entry, &mut file).map_err(|err| err.at(path, target))
}

/// Refuses a size that only an extended header tells: without it, the content of the file that
/// follows would be taken for entries.
fn refuse_hidden_size(
    entry: &mut Entry<'_, impl Read>,
    name: &str,
    path: &Path,
) -> Result<(), LayoutError> {
    let kind = entry.header().entry_type();
    if !kind.is_pax_local_extensions() && !kind.is_pax_global_extensions() {
        return Ok(());
    }
    let (path, name) = (path.to_owned(), name.to_owned());
    if LONGEST_PAX < entry.size() {
        let reason = "that is longer than an extended header should be";
        return Err(LayoutError::Entry { path, name, reason });
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(failed("read", &path))?;
    if PaxExtensions::new(&text).flatten().any(|it| it.key_bytes() == b"size") {
        let reason = "for a file of 8 GiB or more, which is only read from a folder";
        return Err(LayoutError::Entry { path, name, reason });
    }
    Ok(())
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
fn full_name(image_name: Option<&str>, ref_name: Option<&str>) -> Option<Reference> {
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
    let entries = match name {
        Some(name) => called(&entries, name),
        None => entries.iter().collect(),
    };
    let path = folder.to_owned();
    match (entries.len(), name) {
        (0, Some(name)) => Err(LayoutError::NotFound { path, wanted: format!("called `{name}`") }),
        (0, None) => Err(LayoutError::NotFound { path, wanted: "at all".into() }),
        (1, _) => load_entry(store, folder, folder, entries[0], platform, now),
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

fn read_index(folder: &Path, shown: &Path) -> Result<Vec<IndexEntry>, LayoutError> {
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
    let broken = |source| LayoutError::Image { path: shown.to_owned(), source };
    let bytes = read_json(folder, &entry.manifest)?;
    if image::is_index(&entry.manifest.media_type) {
        let entries = image::parse_index(&bytes).map_err(broken)?;
        let Some(found) = select(&entries, platform) else {
            let wanted = format!("for {platform}");
            return Err(LayoutError::NotFound { path: shown.to_owned(), wanted });
        };
        if image::is_index(&found.manifest.media_type) {
            return Err(broken(ImageError::MediaType(found.manifest.media_type.clone())));
        }
        return load_entry(store, folder, shown, found, platform, now);
    }
    let manifest = Manifest::parse(&bytes).map_err(broken)?;
    let config = read_json(folder, &manifest.config)?;
    let image = Image::parse(&entry.manifest.media_type, bytes, config).map_err(broken)?;
    for layer in &image.layers {
        let blob = Blob { digest: layer.digest, size: layer.size };
        copy_in(store, folder, blob)?;
    }
    Ok(catalog::add(store, &image, now)?)
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

fn blob_path(folder: &Path, digest: Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

fn read_json(folder: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
    let path = blob_path(folder, descriptor.digest);
    let file = File::open(&path).map_err(failed("read", &path))?;
    let mut bytes = Vec::new();
    Verifying::new(file.take(LARGEST_JSON), descriptor.digest, descriptor.size)
        .read_to_end(&mut bytes)
        .map_err(failed("read", &path))?;
    Ok(bytes)
}

fn copy_in(store: &Store, folder: &Path, blob: Blob) -> Result<(), LayoutError> {
    if store.has(blob.digest, blob.size)? {
        return Ok(());
    }
    let path = blob_path(folder, blob.digest);
    let file = File::open(&path).map_err(failed("read", &path))?;
    let mut writer = store.writer()?;
    let mut reader = Verifying::new(file, blob.digest, blob.size);
    copy(&mut reader, &mut writer).map_err(|err| err.at(&path, store.root()))?;
    writer.finish_as(blob)?;
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError + use<> {
    let path = path.to_owned();
    move |source| LayoutError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        image::{Layer, OCI_LAYER},
    };

    fn store(folder: &Path, name: &str) -> Store {
        Store::open(&folder.join(name)).unwrap()
    }

    fn image(store: &Store) -> StoredImage {
        image_of(store, b"a layer", &[])
    }

    /// An image with one layer and these names.
    fn image_of(store: &Store, layer: &[u8], names: &[&str]) -> StoredImage {
        let blob = store.write_blob(layer).unwrap();
        let media_type = OCI_LAYER.to_owned();
        let layer =
            Layer { media_type, digest: blob.digest, size: blob.size, diff_id: blob.digest };
        let config = Config::scratch(&Platform::linux("x86_64"));
        let image = Image::assemble(&config, vec![layer], "2024-01-01T00:00:00Z", &[]);
        let stored = catalog::add(store, &image, 1).unwrap();
        for name in names {
            catalog::tag(store, &name.parse().unwrap(), stored.digest, Origin::Local).unwrap();
        }
        stored
    }

    /// What the index of a layout says of names, sorted: `ref.name`, then the full name.
    fn saved_names(layout: &Path) -> Vec<(String, String)> {
        let index: Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let text = |it, key| annotation(it, key).unwrap_or_default().to_owned();
        let entries = index["manifests"].as_array().unwrap().iter();
        let mut names: Vec<_> =
            entries.map(|it| (text(it, REF_NAME), text(it, IMAGE_NAME))).collect();
        names.sort();
        names
    }

    fn leftovers(layout: &Path) -> usize {
        let files = fs::read_dir(layout).unwrap().map(|it| it.unwrap().file_name());
        files.filter(|it| it.to_string_lossy().starts_with(TEMPORARY)).count()
    }

    /// A tar of these entries: type, name, content.
    fn tar_of(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_path(name).unwrap();
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
        let stored = image_of(&from, b"a layer", &["shop:1"]);
        let images = [(stored.clone(), "docker.io/library/shop:1".to_owned())];
        let layout = folder.path().join("layout");
        save(&from, &images, &layout).unwrap();
        save(&from, &images, &layout).unwrap();
        assert_eq!(leftovers(&layout), 0);
        let loaded = load(&to, &layout, &Platform::linux("x86_64"), 2).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].digest, stored.digest);
        assert_eq!(catalog::find(&to, "shop:1").unwrap().digest, stored.digest);

        let mut tar = Vec::new();
        save_tar(&from, &images, &mut tar, Path::new("x.tar")).unwrap();
        let third = store(folder.path(), "third");
        let platform = Platform::linux("x86_64");
        let loaded = load_tar(&third, tar.as_slice(), Path::new("x.tar"), &platform, 2).unwrap();
        assert_eq!(loaded[0].digest, stored.digest);
        assert_eq!(loaded[0].names, ["shop:1".parse().unwrap()]);
    }

    #[test]
    fn a_layout_that_lies_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
        let layout = folder.path().join("layout");
        let stored = image_of(&from, b"a layer", &["x:1"]);
        save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
        fs::write(blob_path(&layout, Digest::of(b"a layer")), "another").unwrap();
        let platform = Platform::linux("x86_64");
        let error = load_one(&to, &layout, Some("1"), &platform, 2).unwrap_err();
        assert!(matches!(error, LayoutError::Io { action: "read", .. }), "{error}");
        assert_eq!(to.images().unwrap(), []);
        assert_eq!(to.size(Digest::of(b"a layer")).unwrap(), None);
    }

    #[test]
    fn images_of_the_same_tag_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
        let layout = folder.path().join("layout");
        let (one, two) = (image_of(&from, b"1", &["one"]), image_of(&from, b"2", &["two"]));
        let full = |name: &str| format!("docker.io/library/{name}:latest");
        let (first, second) = ((one.clone(), full("one")), (two.clone(), full("two")));
        let want =
            [("docker.io/library/two:latest".into(), full("two")), ("latest".into(), full("one"))];
        for images in [&[first.clone(), second.clone()][..], &[second], &[first]] {
            save(&from, images, &layout).unwrap();
            assert_eq!(saved_names(&layout), want);
        }
        let platform = Platform::linux("x86_64");
        for (name, want) in [
            ("latest", &one),
            ("one", &one),
            ("one:latest", &one),
            ("two", &two),
            ("two:latest", &two),
            ("docker.io/library/two:latest", &two),
        ] {
            let found = load_one(&to, &layout, Some(name), &platform, 2).unwrap();
            assert_eq!(found.digest, want.digest, "for `{name}`");
        }
        load(&to, &layout, &platform, 2).unwrap();
        for (name, image) in [("one", one), ("two", two)] {
            assert_eq!(catalog::find(&to, name).unwrap().digest, image.digest);
        }
    }

    #[test]
    fn an_image_that_was_asked_for_by_digits_gets_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        let stored = image_of(&from, b"a layer", &["x:1"]);
        let hex = stored.digest.hex();
        for asked in [
            stored.digest.to_string(),
            format!("x@{}", stored.digest),
            format!("docker.io/library/sha256:{hex}"),
            format!("docker.io/library/{}:latest", &hex[..12]),
        ] {
            save(&from, &[(stored.clone(), asked.clone())], &layout).unwrap();
            assert_eq!(saved_names(&layout), [(String::new(), String::new())], "for `{asked}`");
        }
        save(&from, &[(stored.clone(), "docker.io/library/x:1".into())], &layout).unwrap();
        assert_eq!(saved_names(&layout), [("1".into(), "docker.io/library/x:1".into())]);
        save(&from, &[(stored.clone(), stored.digest.to_string())], &layout).unwrap();
        assert_eq!(saved_names(&layout), [("1".into(), "docker.io/library/x:1".into())]);
    }

    #[test]
    fn one_image_is_chosen_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        let stored = image_of(&from, b"a layer", &["x:1", "y:2"]);
        let names = ["docker.io/library/x:1", "docker.io/library/y:2"];
        save(&from, &names.map(|it| (stored.clone(), it.to_owned())), &layout).unwrap();
        let platform = Platform::linux("x86_64");
        for name in ["x:1", "1", "2", "docker.io/library/y:2"] {
            let found = load_one(&from, &layout, Some(name), &platform, 2).unwrap();
            assert_eq!(found.digest, stored.digest, "for `{name}`");
        }
        let several = load_one(&from, &layout, None, &platform, 2).unwrap_err();
        assert!(matches!(several, LayoutError::Several { count: 2, .. }), "{several}");
        let missing = load_one(&from, &layout, Some("3"), &platform, 2).unwrap_err();
        assert!(matches!(missing, LayoutError::NotFound { .. }), "{missing}");
    }

    #[test]
    fn the_name_that_is_whole_is_the_one_that_counts() {
        for (image_name, ref_name, want) in [
            (Some("docker.io/library/a:1"), Some("1"), Some("a:1")),
            (Some("no name"), Some("b:2"), Some("b:2")),
            (None, Some("localhost/c"), Some("localhost/c:latest")),
            (None, Some("latest"), None),
            (None, None, None),
        ] {
            let got = full_name(image_name, ref_name).map(|it| it.to_string());
            assert_eq!(got.as_deref(), want, "for {image_name:?}, {ref_name:?}");
        }
    }

    #[test]
    fn layouts_of_others_keep_their_images() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        fs::create_dir(&layout).unwrap();
        let index = r#"{"manifests":[
            {"annotations":{"org.opencontainers.image.ref.name":"1"}},
            {"annotations":{"org.opencontainers.image.ref.name":"x:1"}}]}"#;
        fs::write(layout.join("index.json"), index).unwrap();
        let stored = image_of(&from, b"a layer", &["x:1"]);
        save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
        let full = || "docker.io/library/x:1".to_owned();
        assert_eq!(saved_names(&layout), [("1".into(), String::new()), (full(), full())]);
    }

    #[test]
    fn images_that_are_saved_at_the_same_time_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        let names: Vec<String> = (0..8).map(|it| format!("docker.io/library/x:{it}")).collect();
        let images: Vec<_> =
            names.iter().map(|it| (image_of(&from, it.as_bytes(), &[it]), it.clone())).collect();
        std::thread::scope(|scope| {
            let save = |it| save(&from, std::slice::from_ref(it), &layout).unwrap();
            for image in &images {
                scope.spawn(move || save(image));
            }
        });
        assert_eq!(saved_names(&layout).len(), 8);
        assert_eq!(leftovers(&layout), 0);
    }

    #[test]
    fn a_save_that_was_killed_is_made_good_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::write(layout.join("oci-layout"), LAYOUT).unwrap();
        fs::write(layout.join(format!("{TEMPORARY}0123")), "half").unwrap();
        let stored = image_of(&from, b"a layer", &["x:1"]);
        save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
        assert_eq!((saved_names(&layout).len(), leftovers(&layout)), (1, 0));
    }

    #[test]
    fn a_copy_tells_which_side_failed() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let said = |err: CopyError| err.at(Path::new("from"), Path::new("to")).to_string();
        let error = copy(&mut &b"content"[..], &mut Full).unwrap_err();
        assert_eq!(said(error), "`to` could not be written");
        let mut wrong = Verifying::new(&b"content"[..], Digest::of(b"other"), 7);
        let error = copy(&mut wrong, &mut Vec::new()).unwrap_err();
        assert_eq!(said(error), "`from` could not be read");
    }

    #[test]
    fn an_archive_is_unpacked_only_as_far_as_a_layout_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "store");
        let blob = format!("blobs/sha256/{}", Digest::of(b"a layer").hex());
        let limits = Limits { entries: 3, bytes: 10 };
        let regular = EntryType::Regular;
        let pax = b"16 size=1000000\n".as_slice();
        for (entries, want) in [
            (vec![(regular, "./index.json", &b"{}"[..]), (regular, &blob, b"a layer")], "2"),
            (
                vec![(regular, "diary", b"longer than ten"), (EntryType::Directory, "blobs", b"")],
                "0",
            ),
            (
                vec![
                    (EntryType::Symlink, "diary", b""),
                    (EntryType::Continuous, "oci-layout", b""),
                ],
                "1",
            ),
            (
                vec![(EntryType::GNULongName, "././@LongLink", b"index.json"), (regular, "x", b"")],
                "0",
            ),
            (
                vec![(EntryType::Symlink, "index.json", b"")],
                "an entry `index.json` that is not a regular file",
            ),
            (vec![(EntryType::GNUSparse, &blob, b"")], "that is not a regular file"),
            (vec![(EntryType::XHeader, "pax", pax)], "`pax` for a file of 8 GiB or more"),
            (vec![(EntryType::XHeader, "pax", &[b'x'; 1 << 17])], "longer than an extended header"),
            (vec![(EntryType::XHeader, "pax", b"11 mtime=1\n"), (regular, &blob, b"")], "1"),
            (
                vec![(regular, &blob, b"a layer"), (regular, "index.json", b"more")],
                "more than 10 bytes",
            ),
            (vec![(regular, "x", b""); 4], "more than 3 entries"),
            (vec![(regular, "manifest.json", b"[]")], "a docker archive"),
            (vec![(regular, "manifest.json", b"[]"), (regular, "index.json", b"{}")], "1"),
        ] {
            let tar = tar_of(&entries);
            let got = match unpack(&store, tar.as_slice(), Path::new("x.tar"), &limits) {
                Ok(it) => {
                    let blobs = fs::read_dir(it.path().join("blobs/sha256")).unwrap();
                    (blobs.count() + fs::read_dir(it.path()).unwrap().count() - 1).to_string()
                }
                Err(err) => err.to_string(),
            };
            assert!(got.contains(want), "for {:?}: {got}", &entries[0].1);
        }
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_layout_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "store");
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("diary"), "x").unwrap();
        let platform = Platform::linux("x86_64");
        let error = load(&store, &other, &platform, 2).unwrap_err();
        assert!(matches!(error, LayoutError::NoLayout { .. }), "{error}");
        for path in [&other, &other.join("diary")] {
            let error = save(&store, &[(image(&store), "1".into())], path).unwrap_err();
            assert!(matches!(error, LayoutError::Occupied { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
        let error = load_tar(&store, &b"no tar"[..], Path::new("x"), &platform, 2).unwrap_err();
        assert!(matches!(error, LayoutError::NoLayout { .. } | LayoutError::Io { .. }), "{error}");
    }
}
