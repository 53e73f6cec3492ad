//! Where the blobs of an image are read from on this machine: the store, or a folder.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::{LayoutError, blob_path, failed, write::Entry};
use crate::{
    catalog::LARGEST_JSON,
    config::Platform,
    digest::{Blob, Digest, Verifying},
    image::{self, Descriptor, Image, ImageError},
    needs::{self, All},
    store::{BlobReader, ObjectKind, Store},
};

/// Blobs of this machine.
#[derive(Clone, Debug)]
pub(crate) enum Blobs {
    /// Those of the store.
    Store(Store),
    /// Those of a layout; the second path is its name in errors.
    Folder(PathBuf, PathBuf),
}

/// An image that is to be written somewhere, and all that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// What an index says of it.
    pub(crate) entry: Entry,
    /// What it needs.
    pub(crate) all: All,
}

impl Blobs {
    /// Opens a blob; content that is not what it should be is an error at its end.
    pub(crate) fn open(&self, blob: Blob) -> Result<BlobReader, LayoutError> {
        match self {
            Self::Store(store) => Ok(store.open_blob(blob.digest)?),
            Self::Folder(folder, _) => {
                let path = blob_path(folder, blob.digest);
                let file = File::open(&path).map_err(failed("read", &path))?;
                Ok(Verifying::new(Box::new(file), blob.digest, blob.size))
            }
        }
    }

    /// Whether a blob was put together here, of segments.
    pub(crate) fn is_composed(&self, digest: Digest) -> bool {
        match self {
            Self::Store(store) => store.has_object(ObjectKind::Composed, digest),
            Self::Folder(..) => false,
        }
    }

    /// Reads a manifest, an index or a config, verified.
    pub(crate) fn json(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let Descriptor { digest, size, .. } = *descriptor;
        match self {
            Self::Store(store) => Ok(store.read_blob(digest, LARGEST_JSON)?),
            Self::Folder(folder, shown) => {
                if LARGEST_JSON < size {
                    let (path, what) = (shown.clone(), "bytes in a manifest or config");
                    return Err(LayoutError::TooMuch { path, what, most: LARGEST_JSON });
                }
                let mut bytes = Vec::new();
                let read = self.open(Blob { digest, size })?.read_to_end(&mut bytes);
                read.map_err(failed("read", &blob_path(folder, digest)))?;
                Ok(bytes)
            }
        }
    }

    /// All that an image needs.
    pub(crate) fn all(&self, top: &Descriptor) -> Result<All, LayoutError> {
        needs::all(top, |it| self.json(it), |source| self.broken(source))
    }

    /// One image: its manifest, and its config.
    pub(crate) fn image(&self, descriptor: &Descriptor) -> Result<Image, LayoutError> {
        let broken = |source| self.broken(source);
        let bytes = self.json(descriptor)?;
        let manifest = image::Manifest::parse(&bytes).map_err(broken)?;
        let config = self.json(&manifest.config)?;
        Image::parse(&descriptor.media_type, bytes, config).map_err(broken)
    }

    /// What an image is for; none if it is an index, or no image that has a config.
    pub(crate) fn platform(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Option<Platform>, LayoutError> {
        if image::is_index(&descriptor.media_type) {
            return Ok(None);
        }
        Ok(Some(self.image(descriptor)?.config.platform()))
    }

    /// Where they lie, for errors.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Store(store) => store.root(),
            Self::Folder(_, shown) => shown,
        }
    }

    /// A manifest that is none.
    pub(crate) fn broken(&self, source: ImageError) -> LayoutError {
        LayoutError::Image { path: self.path().to_owned(), source }
    }
}
