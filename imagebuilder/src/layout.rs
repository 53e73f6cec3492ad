//! Images in an OCI layout: a folder, or a tar of one (OCI image spec, `image-layout.md`).
//!
//! **Architecture invariant:** a layout that others made is untrusted: blobs are found by their
//! digests alone, copied, and verified on the way into the store.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use tar::{Archive, EntryType, Header};
use thiserror::Error;

use crate::{
    catalog::{self, CatalogError, LARGEST_JSON},
    config::Platform,
    context,
    digest::{Digest, Verifying},
    image::{self, Descriptor, Image, ImageError, IndexEntry, Manifest},
    reference::Reference,
    store::{Blob, Origin, Scratch, Store, StoreError, StoredImage},
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

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The most entries and bytes of an archive that is loaded.
const MOST_ENTRIES: usize = 100_000;

/// Writes images, each with the name it gets in the layout, as a folder.
///
/// An OCI layout that is there already keeps its images, except those of the same names.
pub fn save(
    store: &Store,
    images: &[(StoredImage, String)],
    folder: &Path,
) -> Result<(), LayoutError> {
    let mut entries = existing(folder)?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("written", &blobs))?;
    for (stored, name) in images {
        let image = catalog::load(store, stored.digest)?;
        for (digest, size) in all_blobs(&image) {
            copy_out(store, digest, size, &blobs.join(digest.hex()))?;
        }
        entries.retain(|it| name_of(it) != Some(name.as_str()));
        entries.push(index_entry(stored, &image, name));
    }
    write_whole(&folder.join("oci-layout"), LAYOUT.as_bytes())?;
    write_whole(&folder.join("index.json"), &index(entries))
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
    let mut blobs = std::collections::BTreeMap::new();
    for (stored, name) in images {
        let image = catalog::load(store, stored.digest)?;
        blobs.extend(all_blobs(&image));
        entries.push(index_entry(stored, &image, name));
    }
    let mut tar = tar::Builder::new(out);
    let written = failed("written", path);
    let write = || -> io::Result<()> {
        append(&mut tar, "oci-layout", LAYOUT.len() as u64, &mut LAYOUT.as_bytes())?;
        let index = index(entries);
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

fn copy_out(store: &Store, digest: Digest, size: u64, path: &Path) -> Result<(), LayoutError> {
    if fs::metadata(path).is_ok_and(|it| it.len() == size) {
        return Ok(());
    }
    let temporary = path.with_extension("part");
    let mut blob = store.open_blob(digest)?;
    let mut copy = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        context::copy(&mut blob, &mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    copy().map_err(failed("written", path))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    let temporary = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("written", path))
}

fn existing(folder: &Path) -> Result<Vec<serde_json::Value>, LayoutError> {
    let occupied = || LayoutError::Occupied { path: folder.to_owned() };
    match fs::read(folder.join("index.json")) {
        Ok(bytes) => {
            let mut index: serde_json::Value =
                serde_json::from_slice(&bytes).map_err(|_| occupied())?;
            match index["manifests"].take() {
                serde_json::Value::Array(entries) => Ok(entries),
                _ => Err(occupied()),
            }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir(folder).map(|mut it| it.next().is_none()) {
                Ok(false) => Err(occupied()),
                _ => Ok(Vec::new()),
            }
        }
        Err(err) => Err(failed("read", folder)(err)),
    }
}

fn name_of(entry: &serde_json::Value) -> Option<&str> {
    entry["annotations"]["org.opencontainers.image.ref.name"].as_str()
}

fn index_entry(stored: &StoredImage, image: &Image, name: &str) -> serde_json::Value {
    let platform = image.config.platform();
    json!({
        "mediaType": stored.media_type,
        "digest": stored.digest.to_string(),
        "size": stored.size,
        "annotations": { "org.opencontainers.image.ref.name": name },
        "platform": { "architecture": platform.architecture, "os": platform.os },
    })
}

fn index(entries: Vec<serde_json::Value>) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": entries });
    index.to_string().into_bytes()
}

/// Loads all images for `platform` of a layout, a folder or a tar, into the store. They get the
/// names that they have there, where those are names of images or tags of `default_name`.
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
    let scratch = unpack(store, stream, path)?;
    load_folder(store, scratch.path(), path, platform, now)
}

/// Unpacks what belongs to a layout into a scratch folder, under names of our own.
fn unpack(store: &Store, stream: impl Read, path: &Path) -> Result<Scratch, LayoutError> {
    let scratch = store.scratch()?;
    let blobs = scratch.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("written", &blobs))?;
    let mut is_docker = false;
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(failed("read", path))?;
    for entry in entries.take(MOST_ENTRIES) {
        let mut entry = entry.map_err(failed("read", path))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        is_docker |= name == "manifest.json";
        let target = match name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex) {
            Some(digest) => blobs.join(digest.hex()),
            None if name == "oci-layout" || name == "index.json" => scratch.path().join(name),
            None => continue,
        };
        let mut file = File::create(&target).map_err(failed("written", &target))?;
        context::copy(&mut entry, &mut file).map_err(failed("read", path))?;
    }
    if is_docker && !scratch.path().join("index.json").exists() {
        return Err(LayoutError::DockerArchive { path: path.to_owned() });
    }
    Ok(scratch)
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
        let names: Vec<Reference> = entry.name.iter().filter_map(|it| full_name(it)).collect();
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

/// A name in a layout may be a whole image's name, or a tag alone, which names nothing here.
fn full_name(text: &str) -> Option<Reference> {
    let is_whole = text.contains('/') || text.contains(':');
    text.parse().ok().filter(|_| is_whole)
}

/// Loads one image of a layout in a folder: the one called `name`, or the only one.
pub fn load_one(
    store: &Store,
    folder: &Path,
    name: Option<&str>,
    platform: &Platform,
    now: u64,
) -> Result<StoredImage, LayoutError> {
    let mut entries = read_index(folder, folder)?;
    if let Some(name) = name {
        entries.retain(|it| it.name.as_deref().is_some_and(|it| it == name || ends_in(it, name)));
    }
    let path = folder.to_owned();
    match (entries.len(), name) {
        (0, Some(name)) => Err(LayoutError::NotFound { path, wanted: format!("called `{name}`") }),
        (0, None) => Err(LayoutError::NotFound { path, wanted: "at all".into() }),
        (1, _) => load_entry(store, folder, folder, &entries[0], platform, now),
        (count, _) => Err(LayoutError::Several { path, count }),
    }
}

fn ends_in(name: &str, tag: &str) -> bool {
    name.strip_suffix(tag).is_some_and(|it| it.ends_with(':'))
}

fn read_index(folder: &Path, shown: &Path) -> Result<Vec<IndexEntry>, LayoutError> {
    let no_layout = |missing| LayoutError::NoLayout { path: shown.to_owned(), missing };
    let marker = read_small(&folder.join("oci-layout")).map_err(|_| no_layout("oci-layout"))?;
    let marker: serde_json::Value =
        serde_json::from_slice(&marker).map_err(|_| no_layout("oci-layout"))?;
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
    context::copy(&mut reader, &mut writer).map_err(failed("read", &path))?;
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
        let blob = store.write_blob(b"a layer").unwrap();
        let media_type = OCI_LAYER.to_owned();
        let layer =
            Layer { media_type, digest: blob.digest, size: blob.size, diff_id: blob.digest };
        let config = Config::scratch(&Platform::linux("x86_64"));
        let image = Image::assemble(&config, vec![layer], "2024-01-01T00:00:00Z", &[]);
        catalog::add(store, &image, 1).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
        let stored = image(&from);
        let images = [(stored.clone(), "docker.io/library/shop:1".to_owned())];
        let layout = folder.path().join("layout");
        save(&from, &images, &layout).unwrap();
        save(&from, &images, &layout).unwrap();
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
    }

    #[test]
    fn a_layout_that_lies_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
        let layout = folder.path().join("layout");
        save(&from, &[(image(&from), "1".into())], &layout).unwrap();
        fs::write(blob_path(&layout, Digest::of(b"a layer")), "another").unwrap();
        let platform = Platform::linux("x86_64");
        assert!(load_one(&to, &layout, Some("1"), &platform, 2).is_err());
        assert_eq!(to.images().unwrap(), []);
        assert_eq!(to.size(Digest::of(b"a layer")).unwrap(), None);
    }

    #[test]
    fn one_image_is_chosen_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let from = store(folder.path(), "from");
        let layout = folder.path().join("layout");
        let stored = image(&from);
        let images = [(stored.clone(), "x:1".into()), (stored.clone(), "2".into())];
        save(&from, &images, &layout).unwrap();
        let platform = Platform::linux("x86_64");
        for name in ["x:1", "1", "2"] {
            let found = load_one(&from, &layout, Some(name), &platform, 2).unwrap();
            assert_eq!(found.digest, stored.digest, "for `{name}`");
        }
        let several = load_one(&from, &layout, None, &platform, 2).unwrap_err();
        assert!(matches!(several, LayoutError::Several { count: 2, .. }), "{several}");
        let missing = load_one(&from, &layout, Some("3"), &platform, 2).unwrap_err();
        assert!(matches!(missing, LayoutError::NotFound { .. }), "{missing}");
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
        let error = save(&store, &[(image(&store), "1".into())], &other).unwrap_err();
        assert!(matches!(error, LayoutError::Occupied { .. }), "{error}");
        let error = load_tar(&store, &b"no tar"[..], Path::new("x"), &platform, 2).unwrap_err();
        assert!(matches!(error, LayoutError::NoLayout { .. } | LayoutError::Io { .. }), "{error}");
    }
}
