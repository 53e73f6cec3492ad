//! Carries whole images between the store and registries.
//!
//! Read in this order: [`mod@pull`], [`mod@push`], [`mod@fetch`] (what the store knows of only is
//! brought), [`relay`] (or goes from one registry to another), [`uploads`] (layers go while they are
//! made).
//!
//! **Architecture invariant:** blobs go before the config, and the config before the manifest, in
//! both directions: whoever sees a manifest can have all that it names.

use thiserror::Error;

pub use self::{
    fetch::{FetchError, fetch, missing},
    pull::{base, pull},
    push::{ImmutableTag, push, push_with},
    uploads::{LayerUploads, Settled},
};
use crate::{
    catalog::{CatalogError, LARGEST_JSON},
    config::Platform,
    event::Event,
    image::ImageError,
    reference::Reference,
    registry::{LONGEST_MANIFEST, RegistryError},
    store::StoreError,
};

pub(crate) mod fetch;
mod pull;
mod push;
pub(crate) mod relay;
mod uploads;

/// Blobs that are carried at the same time.
const AT_ONCE: usize = 4;

/// What is told while images are carried; from several blobs at once.
pub type Emit<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// What to do when a registry cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Ask registries.
    Online,
    /// Use what is in the store, and nothing else.
    Offline,
}

/// Why an image could not be carried.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's images.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A layer that the store knows of only.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The registry has no such image.
    #[error("there is no image `{0}` in its registry")]
    NotFound(Reference),
    /// The registry has the image for other platforms only.
    #[error("image `{name}` is not there for {platform}; it is for {}", found.join(", "))]
    Platform {
        /// The image.
        name: Reference,
        /// What it should be for.
        platform: Platform,
        /// What it is for.
        found: Vec<String>,
    },
    /// What the registry gave is no image.
    #[error("image `{name}` cannot be used")]
    Image {
        /// The image.
        name: Reference,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The config is larger than any should be.
    #[error("image `{0}` has a config of more than {LARGEST_JSON} bytes")]
    LargeConfig(Reference),
    /// Registries take no manifest of that size.
    #[error(
        "image `{name}` has a manifest of {size} bytes, and registries take {LONGEST_MANIFEST} at \
         most"
    )]
    LargeManifest {
        /// The image.
        name: Reference,
        /// Its manifest's size in bytes.
        size: usize,
    },
    /// The registry keeps the tag as it is.
    #[error("tag `{name}` is there already, and the registry does not let it be changed")]
    Immutable {
        /// The tag.
        name: Reference,
        /// What the registry said.
        source: RegistryError,
    },
    /// The image is not in the store, and no registry may be asked.
    #[error("image `{0}` is not in the store, and registries are not asked")]
    Offline(Reference),
}

#[cfg(test)]
mod tests;
