//! What a docker archive means: `manifest.json` names configs, layers and names, and an OCI layout
//! is made of them.
//!
//! The bytes of a config are kept, and with them the image's id; layers are compressed, as they are
//! when an image is pushed, always in the same way.
//!
//! **Architecture invariant:** a layer belongs to an image because its content has the digest that
//! the image's config names: what the archive calls it decides nothing.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use flate2::{Compression as Level, GzBuilder, bufread::MultiGzDecoder};
use serde::Deserialize;

use super::{Limits, Magic};
use crate::{
    bounded::{Bounded, Counted},
    catalog::LARGEST_JSON,
    digest::{Blob, Digest, Hashing},
    image::{self, Compression, Format, Image, ImageError, Layer, MOST_LAYERS},
    layout::{CopyError, Entry, LayoutError, Naming, Writing, copy, failed},
    reference::Reference,
};

/// The most images that an archive may have.
const MOST_IMAGES: usize = 1000;
/// Links that lead to links: one is what docker writes.
const LONGEST_CHAIN: usize = 8;
/// As much of a name as errors show, in characters.
const LONGEST_SHOWN: usize = 200;
/// Far smaller than the fastest, and not much slower.
const LEVEL: Level = Level::new(4);
/// Layers that are compressed at the same time.
const AT_ONCE: usize = 4;

/// What an entry of the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// Its content lies in this file.
    File { path: PathBuf, size: u64 },
    /// It is another one.
    Link(String),
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// What a layer's file turned out to be, and the blob that was made of it.
#[derive(Clone, Copy)]
struct Made {
    blob: Blob,
    compression: Compression,
    diff_id: Digest,
}

/// The files of an archive, found by their names there.
struct Archive<'a> {
    /// The archive, for errors.
    path: &'a Path,
    members: &'a BTreeMap<String, Member>,
    limits: Limits,
}

/// Makes a layout in `folder` of what was unpacked there.
pub(super) fn to_layout(
    folder: &Path,
    path: &Path,
    members: &BTreeMap<String, Member>,
    limits: Limits,
) -> Result<(), LayoutError> {
    let archive = Archive { path, members, limits };
    let items = archive.items()?;
    // An index of the archive's own that came without the rest of a layout.
    for name in ["index.json", "oci-layout"] {
        let _ = fs::remove_file(folder.join(name));
    }
    let made = archive.compress(&items, folder)?;
    fs::write(folder.join("oci-layout"), "").map_err(failed("written", folder))?;
    let mut writing = Writing::begin(folder)?;
    for item in items {
        archive.add(&item, &made, &mut writing)?;
    }
    writing.finish()
}

/// The entry that a link means: relative to `from`, a folder of the archive. None if it leaves the
/// archive.
pub(super) fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    if link.starts_with('/') {
        return None;
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Archive<'_> {
    fn items(&self) -> Result<Vec<Item>, LayoutError> {
        let bytes = self.json("manifest.json")?;
        let broken = |source| LayoutError::Image { path: self.path.to_owned(), source };
        image::check_json(&bytes).map_err(broken)?;
        let items: Vec<Item> =
            serde_json::from_slice(&bytes).map_err(|err| broken(ImageError::Json(err)))?;
        let layers = |it: &Item| it.layers.as_ref().map_or(0, Vec::len);
        if let Some(item) = items.iter().find(|it| MOST_LAYERS < layers(it)) {
            return Err(broken(ImageError::TooMany(layers(item))));
        }
        match items.len() <= MOST_IMAGES {
            true => Ok(items),
            false => {
                let (path, most) = (self.path.to_owned(), MOST_IMAGES as u64);
                Err(LayoutError::TooMuch { path, what: "images", most })
            }
        }
    }

    /// The file of an entry, and its size.
    fn file(&self, name: &str) -> Result<(&Path, u64), LayoutError> {
        let mut next = name.strip_prefix("./").unwrap_or(name);
        for _ in 0..LONGEST_CHAIN {
            match self.members.get(next) {
                Some(Member::File { path, size }) => return Ok((path, *size)),
                Some(Member::Link(target)) => next = target,
                None => break,
            }
        }
        let name = name.chars().take(LONGEST_SHOWN).collect();
        Err(LayoutError::NoEntry { path: self.path.to_owned(), name })
    }

    fn json(&self, name: &str) -> Result<Vec<u8>, LayoutError> {
        let (path, size) = self.file(name)?;
        if LARGEST_JSON < size {
            return Err(self.refused(name, "that is larger than any manifest or config should be"));
        }
        fs::read(path).map_err(|err| match err.kind() {
            // Layers go when they are compressed.
            io::ErrorKind::NotFound => self.refused(name, "that is a config and a layer"),
            _ => failed("read", path)(err),
        })
    }

    fn refused(&self, name: &str, reason: &'static str) -> LayoutError {
        let name = name.chars().take(LONGEST_SHOWN).collect();
        LayoutError::Entry { path: self.path.to_owned(), name, reason }
    }

    /// Makes blobs of all layers, each file once, several at a time.
    fn compress(
        &self,
        items: &[Item],
        folder: &Path,
    ) -> Result<BTreeMap<PathBuf, Made>, LayoutError> {
        let mut names = BTreeMap::new();
        for name in items.iter().flat_map(|it| it.layers.iter().flatten()) {
            names.insert(self.file(name)?.0.to_owned(), name);
        }
        let names: Vec<_> = names.into_iter().collect();
        let (next, made) = (AtomicUsize::new(0), Mutex::new(Ok(BTreeMap::new())));
        let work = || {
            while let Some((file, name)) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.layer(file, name, folder);
                let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
                match (result, made.as_mut()) {
                    (Ok(it), Ok(made)) => drop(made.insert(file.clone(), it)),
                    (Err(err), Ok(_)) => *made = Err(err),
                    (_, Err(_)) => return,
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
        thread::scope(|scope| {
            for _ in 1..threads.min(names.len()) {
                scope.spawn(work);
            }
            work();
        });
        made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a blob of a layer's file: what is compressed already is taken as it is.
    fn layer(&self, path: &Path, name: &str, folder: &Path) -> Result<Made, LayoutError> {
        let mut file = File::open(path).map_err(failed("read", path))?;
        let mut start = Vec::new();
        file.by_ref().take(6).read_to_end(&mut start).map_err(failed("read", path))?;
        file.rewind().map_err(failed("read", path))?;
        match Magic::of(&start) {
            Magic::Other(with) => {
                Err(LayoutError::Compression { path: self.path.join(name), with })
            }
            Magic::None => compress(file, path, folder),
            Magic::Gzip => {
                let packed = Rc::new(Cell::new(0));
                let content = MultiGzDecoder::new(BufReader::new(Counted::new(file, &packed)));
                let diff_id = self.unpacked(self.bounded(content, packed), name)?;
                Made::of(path, folder, Compression::Gzip, diff_id)
            }
            Magic::Zstd => {
                let packed = Rc::new(Cell::new(0));
                let content = super::zstd(BufReader::new(Counted::new(file, &packed)));
                let content = content.map_err(failed("read", path))?;
                let diff_id = self.unpacked(self.bounded(content, packed), name)?;
                Made::of(path, folder, Compression::Zstd, diff_id)
            }
        }
    }

    /// As the whole archive: what is packed may not be of far more than it takes.
    fn bounded(&self, content: impl Read, packed: Rc<Cell<u64>>) -> impl Read {
        let limits = self.limits;
        Bounded::new(content, packed, move |packed, unpacked| limits.check(packed, unpacked))
    }

    /// The digest of what a compressed layer unpacks to.
    fn unpacked(&self, content: impl Read, name: &str) -> Result<Digest, LayoutError> {
        let mut hashing = Hashing::new(io::sink());
        let mut content = content.take(self.limits.bytes);
        copy(&mut content, &mut hashing).map_err(|err| err.at(self.path, self.path))?;
        let (_, diff_id, size) = hashing.finish();
        match size < self.limits.bytes {
            true => Ok(diff_id),
            false => Err(self.refused(name, "that unpacks to more than is read")),
        }
    }

    /// Adds one image to the layout, under each of its names.
    fn add(
        &self,
        item: &Item,
        made: &BTreeMap<PathBuf, Made>,
        writing: &mut Writing,
    ) -> Result<(), LayoutError> {
        let broken = |source| LayoutError::Image { path: self.path.to_owned(), source };
        let mut layers = Vec::new();
        for name in item.layers.iter().flatten() {
            let missing = || self.refused(name, "that is not a layer");
            let Made { blob, compression, diff_id } =
                *made.get(self.file(name)?.0).ok_or_else(missing)?;
            let media_type = compression.media_type().to_owned();
            layers
                .push((name, Layer { media_type, digest: blob.digest, size: blob.size, diff_id }));
        }
        let config = self.json(&item.config)?;
        let just_layers = layers.iter().map(|it| it.1.clone()).collect();
        let image = Image::of_config(Format::Oci, config, just_layers).map_err(broken)?;
        let diff_ids = image.config.diff_ids();
        if diff_ids.len() != layers.len() {
            let (layers, diff_ids) = (layers.len(), diff_ids.len());
            return Err(broken(ImageError::Layers { layers, diff_ids }));
        }
        if let Some(((name, _), _)) =
            layers.iter().zip(diff_ids).find(|((_, layer), it)| layer.diff_id != *it)
        {
            return Err(self.refused(name, "with other content than the image's config says"));
        }
        for bytes in [&image.config_bytes, &image.manifest] {
            let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
            writing.copy(blob, &mut bytes.as_slice())?;
        }
        for naming in self.names(item)? {
            let platform = Some(image.config.platform());
            writing.put(&Entry { descriptor: image.descriptor(), platform, naming });
        }
        Ok(())
    }

    fn names(&self, item: &Item) -> Result<Vec<Naming>, LayoutError> {
        let tags = item.repo_tags.iter().flatten();
        let name = |it: &String| {
            let invalid = || self.refused(it, "that is not the name of an image");
            let name: Reference = it.parse().map_err(|_| invalid())?;
            match name.digest() {
                None => Ok(Naming::Full(name.with_default_tag())),
                Some(_) => Err(invalid()),
            }
        };
        let names = tags.map(name).collect::<Result<Vec<_>, LayoutError>>()?;
        Ok(if names.is_empty() { vec![Naming::Nameless] } else { names })
    }
}

impl Made {
    /// A file that is a blob as it is.
    fn of(
        path: &Path,
        folder: &Path,
        compression: Compression,
        diff_id: Digest,
    ) -> Result<Self, LayoutError> {
        let mut file = File::open(path).map_err(failed("read", path))?;
        let mut hashing = Hashing::new(io::sink());
        copy(&mut file, &mut hashing).map_err(|err| err.at(path, path))?;
        let (_, digest, size) = hashing.finish();
        let blob = Blob { digest, size };
        let target = crate::layout::blob_path(folder, digest);
        if path != target {
            fs::rename(path, &target).map_err(failed("written", &target))?;
        }
        Ok(Self { blob, compression, diff_id })
    }
}

/// Compresses a layer; the file is removed, since it may be large.
fn compress(mut tar: File, path: &Path, folder: &Path) -> Result<Made, LayoutError> {
    let target = path.with_extension("gz");
    let written = || failed("written", &target);
    let file = File::create_new(&target).map_err(written())?;
    // No name, no time: the same layer gives the same blob on every machine.
    let gzip = GzBuilder::new().write(Hashing::new(file), LEVEL);
    let mut hashing = Hashing::new(gzip);
    copy(&mut tar, &mut hashing).map_err(|err| match err {
        CopyError::Read(err) => failed("read", path)(err),
        CopyError::Write(err) => written()(err),
    })?;
    let (gzip, diff_id, _) = hashing.finish();
    let (_, digest, size) = gzip.finish().map_err(written())?.finish();
    let blob = crate::layout::blob_path(folder, digest);
    fs::rename(&target, &blob).map_err(failed("written", &blob))?;
    fs::remove_file(path).map_err(failed("written", path))?;
    Ok(Made { blob: Blob { digest, size }, compression: Compression::Gzip, diff_id })
}
