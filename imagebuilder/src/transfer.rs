//! Carries whole images between the store and registries.
//!
//! **Architecture invariant:** blobs go before the config, and the config before the manifest, in
//! both directions: whoever sees a manifest can have all that it names.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use thiserror::Error;

use crate::{
    catalog::{self, CatalogError, LARGEST_JSON},
    config::Platform,
    digest::{Blob, Digest, Framed},
    event::{Direction, Event},
    image::{self, Image, ImageError, Layer},
    layout,
    reference::Reference,
    registry::{self, Client, RegistryError},
    store::{Origin, Store, StoreError, StoredImage},
};

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
    /// The image is not in the store, and no registry may be asked.
    #[error("image `{0}` is not in the store, and registries are not asked")]
    Offline(Reference),
}

/// Pulls an image for `platform`; what is in the store already is not carried again.
pub async fn pull(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    now: u64,
    emit: Emit<'_>,
) -> Result<StoredImage, TransferError> {
    let reference = reference.clone().with_default_tag();
    let digest = match reference.digest() {
        Some(digest) => digest,
        None => client
            .manifest_digest(&reference)
            .await?
            .ok_or_else(|| TransferError::NotFound(reference.clone()))?,
    };
    let image = match stored(store, digest, platform)? {
        Some(image) => image,
        None => pull_digest(client, store, &reference, digest, platform, now, emit).await?,
    };
    if reference.tag().is_some() {
        catalog::tag(store, &reference, image.digest, Origin::Registry)?;
    }
    Ok(image)
}

/// The image that `FROM` names: one that was made here wins; else the registry is asked what the
/// tag points to now.
pub async fn base(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    network: Network,
    now: u64,
    emit: Emit<'_>,
) -> Result<StoredImage, TransferError> {
    let reference = reference.clone().with_default_tag();
    let local = match reference.digest() {
        Some(digest) => stored(store, digest, platform)?,
        None => match store.name(&reference.canonical())? {
            Some(name) if name.origin == Origin::Local || network == Network::Offline => {
                stored(store, name.digest, platform)?
            }
            _ => None,
        },
    };
    match (local, network) {
        (Some(image), _) => Ok(image),
        (None, Network::Offline) => Err(TransferError::Offline(reference)),
        (None, Network::Online) => pull(client, store, &reference, platform, now, emit).await,
    }
}

/// The image in the store that has `digest`, or that the index with that digest has for
/// `platform`.
fn stored(
    store: &Store,
    digest: Digest,
    platform: &Platform,
) -> Result<Option<StoredImage>, TransferError> {
    let digest = match store.recall::<String>(index_key(digest, platform))? {
        Some(text) => text.parse().unwrap_or(digest),
        None => digest,
    };
    let Some(found) = store.image(digest)? else { return Ok(None) };
    let Some(found) = catalog::choose(store, found, platform)? else { return Ok(None) };
    let image = catalog::load(store, found.digest)?;
    Ok(catalog::is_whole(store, &image)?.then_some(found))
}

/// Which image of an index is for a platform never changes: the index is named by its digest.
fn index_key(digest: Digest, platform: &Platform) -> Digest {
    Framed::new("rbuild index 1").with(digest.as_bytes()).with(platform.to_string()).finish()
}

async fn pull_digest(
    client: &Client,
    store: &Store,
    reference: &Reference,
    digest: Digest,
    platform: &Platform,
    now: u64,
    emit: Emit<'_>,
) -> Result<StoredImage, TransferError> {
    let broken = |source| TransferError::Image { name: reference.clone(), source };
    let mut manifest = client.manifest(&reference.pinned(digest)).await?;
    if image::is_index(&manifest.media_type) {
        let entries = image::parse_index(&manifest.bytes).map_err(broken)?;
        let Some(entry) = layout::select(&entries, platform) else {
            let found = entries.iter().filter_map(|it| it.platform.as_ref());
            let found = found.map(|(os, architecture, _)| format!("{os}/{architecture}"));
            let (name, platform) = (reference.clone(), platform.clone());
            return Err(TransferError::Platform { name, platform, found: found.collect() });
        };
        let chosen = entry.manifest.digest;
        store.remember(index_key(digest, platform), &chosen.to_string())?;
        if let Some(image) = stored(store, chosen, platform)? {
            return Ok(image);
        }
        manifest = client.manifest(&reference.pinned(chosen)).await?;
    }
    if !image::is_manifest(&manifest.media_type) {
        return Err(broken(ImageError::MediaType(manifest.media_type)));
    }
    let image = pull_config(client, reference, manifest).await?;
    let name = reference.to_string();
    let blobs = image.layers.len() + 1;
    emit(Event::TransferStarted { direction: Direction::Pull, name: &name, blobs });
    stream::iter(image.layers.iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |layer| pull_layer(client, store, reference, layer, emit))
        .await?;
    let stored = catalog::add(store, &image, now)?;
    let digest = stored.digest;
    emit(Event::TransferDone { direction: Direction::Pull, name: &name, digest });
    Ok(stored)
}

async fn pull_config(
    client: &Client,
    reference: &Reference,
    manifest: registry::Manifest,
) -> Result<Image, TransferError> {
    let broken = |source| TransferError::Image { name: reference.clone(), source };
    let parsed = image::Manifest::parse(&manifest.bytes).map_err(broken)?;
    let blob = Blob { digest: parsed.config.digest, size: parsed.config.size };
    if LARGEST_JSON < blob.size {
        return Err(TransferError::LargeConfig(reference.clone()));
    }
    let open = || Ok(Vec::new());
    let config = client.pull_blob(reference.repository(), blob, open, &|_| ()).await?;
    Image::parse(&manifest.media_type, manifest.bytes, config).map_err(broken)
}

async fn pull_layer(
    client: &Client,
    store: &Store,
    reference: &Reference,
    layer: &Layer,
    emit: Emit<'_>,
) -> Result<(), TransferError> {
    let Layer { digest, size, .. } = *layer;
    if store.has(digest, size)? {
        emit(Event::BlobExists { digest });
        return Ok(());
    }
    let open = || store.writer().map_err(std::io::Error::other);
    let progress = |done| emit(Event::BlobProgress { digest, done, total: size });
    let blob = Blob { digest, size };
    let writer = client.pull_blob(reference.repository(), blob, open, &progress).await?;
    writer.finish_as(Blob { digest, size })?;
    emit(Event::BlobDone { digest, size });
    Ok(())
}

/// Pushes an image under the name `reference`; what the repository has already is not carried.
pub async fn push(
    client: &Client,
    store: &Store,
    digest: Digest,
    reference: &Reference,
    emit: Emit<'_>,
) -> Result<(), TransferError> {
    let reference = reference.clone().with_default_tag();
    let image = catalog::load(store, digest)?;
    let name = reference.to_string();
    let blobs = image.layers.len() + 1;
    emit(Event::TransferStarted { direction: Direction::Push, name: &name, blobs });
    match client.manifest_digest(&reference).await {
        Ok(Some(found)) if found == digest => {
            emit(Event::TransferDone { direction: Direction::Push, name: &name, digest });
            return Ok(());
        }
        Err(err) if err.retryable() => return Err(err.into()),
        // Who may push need not be allowed to ask; the push itself will tell.
        _ => {}
    }
    let config = (image.config_digest(), image.config_bytes.len() as u64);
    let blobs = image.layers.iter().map(|it| (it.digest, it.size)).chain([config]);
    stream::iter(blobs)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |(digest, size)| {
            push_blob(client, store, &reference, Blob { digest, size }, emit)
        })
        .await?;
    client.push_manifest(&reference, &image.media_type, &image.manifest).await?;
    emit(Event::TransferDone { direction: Direction::Push, name: &name, digest });
    Ok(())
}

async fn push_blob(
    client: &Client,
    store: &Store,
    reference: &Reference,
    blob: Blob,
    emit: Emit<'_>,
) -> Result<(), TransferError> {
    let Blob { digest, size } = blob;
    if client.blob_exists(reference.repository(), digest).await? {
        emit(Event::BlobExists { digest });
        return Ok(());
    }
    // Said before anything is sent: that a layer is missing here is not the registry's fault.
    if !store.has(digest, size)? {
        return Err(StoreError::Missing(digest).into());
    }
    let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> {
        match store.open_blob(digest) {
            Ok(blob) => Ok(Box::new(blob)),
            Err(err) => Err(std::io::Error::other(err)),
        }
    };
    let progress = |done| emit(Event::BlobProgress { digest, done, total: size });
    let pushed = client.push_blob(reference.repository(), blob, &open, &progress).await;
    if let Err(RegistryError::Source { .. }) = pushed {
        store.remove_if_damaged(digest)?;
    }
    pushed?;
    emit(Event::BlobDone { digest, size });
    Ok(())
}
