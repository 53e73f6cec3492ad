//! Where images are copied from.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::Value;
use tokio::runtime::Handle;

use super::{CarryError, Order, Place, is_tar};
use crate::{
    archive,
    catalog::{self, LARGEST_JSON},
    config::Platform,
    digest::{Blob, Digest},
    image::{self, Descriptor, ImageError, Manifest},
    layer_sources,
    layout::{self, Blobs, LayoutError, failed, full_name},
    reference::{Reference, Repository},
    registry::Client,
    store::{Scratch, StoreError},
};

/// One end of a copy, from which blobs are read.
pub(super) enum Source {
    /// A repository, and what it has under that name.
    Registry { client: Client, name: Reference, top: Vec<u8> },
    /// The store or a folder.
    Local(Blobs),
}

/// A source that is ready to be read.
pub(super) struct Opened {
    pub(super) source: Source,
    /// The image.
    pub(super) top: Descriptor,
    /// What it is called there.
    pub(super) name: Option<Reference>,
    /// What goes when the copy is done.
    _scratch: Option<Scratch>,
}

/// Looks the image up that is to be copied.
pub(super) async fn open(order: &Order<'_>) -> Result<Opened, CarryError> {
    match order.from {
        Place::Registry(name) => registry(order, name).await,
        Place::Store(text) => {
            let stored = catalog::find(order.store, text)?;
            let source = Source::Local(Blobs::Store(order.store.clone()));
            let name = named(order, text, &stored)?;
            Ok(Opened { source, top: stored.descriptor(), name, _scratch: None })
        }
        Place::Layout { path, name } if !is_tar(path) && path.is_dir() => {
            folder(path, path, name.as_deref(), None)
        }
        Place::Layout { path, name } | Place::Archive { path, name } => {
            let file = File::open(path).map_err(failed("read", path))?;
            let scratch = archive::unpack(order.store, file, path)?;
            let unpacked = scratch.path().to_owned();
            folder(&unpacked, path, name.as_deref(), Some(scratch))
        }
    }
}

async fn registry(order: &Order<'_>, name: &Reference) -> Result<Opened, CarryError> {
    let name = name.clone().with_default_tag();
    let manifest = order.client.manifest(&name).await?;
    let (digest, size) = (manifest.digest, manifest.bytes.len() as u64);
    let top = Descriptor { media_type: manifest.media_type, digest, size };
    let (client, bytes) = (order.client.clone(), manifest.bytes);
    let source = Source::Registry { client, name: name.clone(), top: bytes };
    let name = Some(name).filter(|it| it.digest().is_none());
    Ok(Opened { source, top, name, _scratch: None })
}

/// The name of an image of the store, if it was asked for by one: digits may look like one too.
fn named(
    order: &Order<'_>,
    text: &str,
    stored: &crate::store::StoredImage,
) -> Result<Option<Reference>, CarryError> {
    let Ok(name) = text.parse::<Reference>() else { return Ok(None) };
    let name = name.with_default_tag();
    let found = order.store.name(&name.canonical())?;
    Ok(found.filter(|it| it.digest == stored.digest).map(|_| name))
}

fn folder(
    folder: &Path,
    shown: &Path,
    name: Option<&str>,
    scratch: Option<Scratch>,
) -> Result<Opened, CarryError> {
    let entries = layout::read_index(folder, shown)?;
    let entry = one(&entries, name, shown)?;
    let source = Source::Local(Blobs::Folder(folder.to_owned(), shown.to_owned()));
    let name = full_name(entry.image_name.as_deref(), entry.name.as_deref());
    Ok(Opened { source, top: entry.manifest.clone(), name, _scratch: scratch })
}

/// The entry that is wanted; an image that is there under several names is one image.
fn one<'a>(
    entries: &'a [image::IndexEntry],
    name: Option<&str>,
    shown: &Path,
) -> Result<&'a image::IndexEntry, LayoutError> {
    if let (None, Some(first)) = (name, entries.first())
        && entries.iter().all(|it| it.manifest.digest == first.manifest.digest)
    {
        return Ok(first);
    }
    layout::one(entries, name, shown)
}

impl Source {
    /// Reads a manifest, an index or a config, verified.
    pub(super) async fn json(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CarryError> {
        let (client, name, top) = match self {
            Self::Local(blobs) => return Ok(blobs.json(descriptor)?),
            Self::Registry { client, name, top } => (client, name, top),
        };
        let Descriptor { digest, size, .. } = *descriptor;
        if size == top.len() as u64 && Digest::of(top) == digest {
            return Ok(top.clone());
        }
        let is_document = image::is_index(&descriptor.media_type)
            || image::is_manifest(&descriptor.media_type)
            || descriptor.media_type.is_empty();
        if is_document {
            return Ok(client.manifest(&name.pinned(digest)).await?.bytes);
        }
        let blob = Blob { digest, size };
        if LARGEST_JSON < size {
            let (path, what) = (name.to_string().into(), "bytes in a config");
            return Err(LayoutError::TooMuch { path, what, most: LARGEST_JSON }.into());
        }
        Ok(client.pull_blob(name.repository(), blob, || Ok(Vec::new()), &|_| ()).await?)
    }

    /// What an image is for, and its variant, if it has one.
    pub(super) async fn platform(
        &self,
        descriptor: &Descriptor,
    ) -> Result<(Platform, Option<String>), CarryError> {
        let broken = |source| CarryError::Image { place: descriptor.digest.to_string(), source };
        let manifest = Manifest::parse(&self.json(descriptor).await?).map_err(broken)?;
        let config = self.json(&manifest.config).await?;
        image::check_json(&config).map_err(broken)?;
        let config: Value =
            serde_json::from_slice(&config).map_err(|err| broken(ImageError::Json(err)))?;
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let platform = Platform { os: text("os"), architecture: text("architecture") };
        Ok((platform, config["variant"].as_str().map(str::to_owned)))
    }

    /// The repositories that have a blob, the best first.
    pub(super) fn repositories(&self, digest: Digest) -> Result<Vec<Repository>, StoreError> {
        match self {
            Self::Registry { name, .. } => Ok(vec![name.repository().clone()]),
            Self::Local(Blobs::Store(store)) => layer_sources::recall(store, digest),
            Self::Local(Blobs::Folder(..)) => Ok(Vec::new()),
        }
    }

    /// Whether a blob is one of the store's that only registries have.
    pub(super) fn is_elsewhere(&self, blob: Blob) -> Result<bool, StoreError> {
        match self {
            Self::Local(Blobs::Store(store)) => Ok(!store.has(blob.digest, blob.size)?),
            Self::Registry { .. } | Self::Local(Blobs::Folder(..)) => Ok(false),
        }
    }

    /// A blob from its start, which is verified at its end. For a registry this must be called
    /// within the runtime; the blob then comes as fast as it is read.
    pub(super) fn open(&self, blob: Blob) -> io::Result<Box<dyn Read + Send>> {
        let (client, name) = match self {
            Self::Local(blobs) => {
                return Ok(Box::new(blobs.open(blob).map_err(io::Error::other)?));
            }
            Self::Registry { client, name, .. } => (client.clone(), name.clone()),
        };
        let from = [name.repository().clone()];
        Ok(Box::new(client.read_blob(&from, blob, &Handle::current())))
    }
}
