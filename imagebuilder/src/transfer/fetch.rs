//! Brings blobs into the store that it knows of only: layers of bases that were not needed until
//! now.

use std::io;

use futures_util::{TryStreamExt as _, stream};
use thiserror::Error;

use super::{AT_ONCE, Emit};
use crate::{
    digest::{Blob, Digest},
    event::{Direction, Event},
    layer_sources,
    layout::{Blobs, LayoutError},
    reference::Repository,
    registry::{Client, RegistryError},
    store::{Store, StoreError, StoredImage},
};

/// Why a layer that is known of could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was not pulled, nor made here, or what told of it is gone.
    #[error("layer {0} is not in the store, and no repository is known to have it")]
    Unknown(Digest),
    /// It is in repositories, and no registry may be asked.
    #[error(
        "layer {digest} is not in the store but in {}, and registries are not asked",
        listed(repositories)
    )]
    NotAsked {
        /// The layer.
        digest: Digest,
        /// Those that have it: mostly that of the base.
        repositories: Vec<Repository>,
    },
    /// The repositories that had it do not give it.
    #[error("layer {digest} is not in the store, and does not come from {}", listed(repositories))]
    Failed {
        /// The layer.
        digest: Digest,
        /// Those that had it: mostly that of the base.
        repositories: Vec<Repository>,
        /// Why not.
        source: Box<RegistryError>,
    },
}

impl FetchError {
    pub(super) fn of(digest: Digest, repositories: &[Repository], source: RegistryError) -> Self {
        Self::Failed { digest, repositories: repositories.to_vec(), source: Box::new(source) }
    }
}

fn listed(repositories: &[Repository]) -> String {
    repositories.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(" or ")
}

/// The blobs of an image, or of all images of an index, that are not in the store.
pub fn missing(store: &Store, image: &StoredImage) -> Result<Vec<Blob>, LayoutError> {
    let all = Blobs::Store(store.clone()).all(&image.descriptor())?;
    let blobs = all.blobs.iter().map(|it| Blob { digest: it.digest, size: it.size });
    Ok(lacking(store, blobs)?)
}

/// Those of `blobs` that are not in the store.
pub(crate) fn lacking(
    store: &Store,
    blobs: impl Iterator<Item = Blob>,
) -> Result<Vec<Blob>, StoreError> {
    let mut lacking = Vec::new();
    for blob in blobs {
        if !store.has(blob.digest, blob.size)? {
            lacking.push(blob);
        }
    }
    Ok(lacking)
}

/// Brings blobs of the image `name` into the store, from where they were seen last.
pub async fn fetch(
    client: &Client,
    store: &Store,
    name: &str,
    blobs: &[Blob],
    emit: Emit<'_>,
) -> Result<(), FetchError> {
    if blobs.is_empty() {
        return Ok(());
    }
    // All of them can be had, as far as is known, before the first is.
    for blob in blobs {
        sources(store, blob.digest)?;
    }
    emit(Event::TransferStarted { direction: Direction::Pull, name, blobs: blobs.len() });
    stream::iter(blobs.iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |blob| fetch_one(client, store, *blob, emit))
        .await
}

fn sources(store: &Store, digest: Digest) -> Result<Vec<Repository>, FetchError> {
    let sources = layer_sources::recall(store, digest)?;
    if sources.is_empty() { Err(FetchError::Unknown(digest)) } else { Ok(sources) }
}

async fn fetch_one(
    client: &Client,
    store: &Store,
    blob: Blob,
    emit: Emit<'_>,
) -> Result<(), FetchError> {
    let Blob { digest, size } = blob;
    let sources = sources(store, digest)?;
    let progress = |done| emit(Event::BlobProgress { digest, done, total: size });
    let mut failure = None;
    for repository in &sources {
        let open = || store.writer().map_err(io::Error::other);
        match client.pull_blob(repository, blob, open, &progress).await {
            Ok(writer) => {
                writer.finish_as(blob)?;
                emit(Event::BlobDone { digest, size });
                return Ok(());
            }
            Err(error) => failure = Some(RegistryError::graver(failure, error)),
        }
    }
    let unknown = FetchError::Unknown(digest);
    Err(failure.map_or(unknown, |error| FetchError::of(digest, &sources, error)))
}
