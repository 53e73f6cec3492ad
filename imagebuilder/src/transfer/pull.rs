//! Brings images from registries into the store.

use std::mem;

use futures_util::{TryStreamExt as _, stream};

use super::{AT_ONCE, Emit, Network, TransferError};
use crate::{
    catalog::{self, CatalogError, LARGEST_JSON},
    config::Platform,
    digest::{Blob, Digest, Framed},
    event::{Direction, Event},
    image::{self, Image, ImageError, Layer},
    layer_sources, layout,
    reference::Reference,
    registry::{self, Client, RegistryError},
    store::{Origin, Store, StoreError, StoredImage},
};

/// How often a tag may be moved while its image is fetched.
const MOST_MOVES: usize = 3;

/// What is needed of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// All of it.
    Layers,
    /// Its manifest and config; where its layers are is enough.
    Names,
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
    pull_as(client, store, reference, platform, Need::Layers, now, emit).await
}

async fn pull_as(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    need: Need,
    now: u64,
    emit: Emit<'_>,
) -> Result<StoredImage, TransferError> {
    let reference = reference.clone().with_default_tag();
    let mut digest = resolve(client, &reference).await?;
    let mut moves = 0;
    let image = loop {
        if let Some(image) = stored(store, digest, platform, need)? {
            break image;
        }
        match pull_digest(client, store, &reference, digest, platform, need, now, emit).await {
            // A tag may have been moved meanwhile, and what it pointed to removed.
            Err(err @ TransferError::Registry(RegistryError::NotFound { .. })) => {
                let before = mem::replace(&mut digest, resolve(client, &reference).await?);
                moves += 1;
                if before == digest || MOST_MOVES < moves {
                    return Err(err);
                }
            }
            pulled => break pulled?,
        }
    };
    if reference.tag().is_some() {
        catalog::tag(store, &reference, image.digest, Origin::Registry)?;
    }
    Ok(image)
}

/// The digest that the name has, or that its tag points to now.
async fn resolve(client: &Client, reference: &Reference) -> Result<Digest, TransferError> {
    match reference.digest() {
        Some(digest) => Ok(digest),
        None => client
            .manifest_digest(reference)
            .await?
            .ok_or_else(|| TransferError::NotFound(reference.clone())),
    }
}

/// The image that `FROM` names: one that was made here wins; else the registry is asked what the
/// tag points to now. Its layers stay where they are: who needs one asks for it.
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
        Some(digest) => stored(store, digest, platform, Need::Names)?,
        None => match store.name(&reference.canonical())? {
            Some(name) if name.origin == Origin::Local || network == Network::Offline => {
                stored(store, name.digest, platform, Need::Names)?
            }
            _ => None,
        },
    };
    match (local, network) {
        (Some(image), _) => Ok(image),
        (None, Network::Offline) => Err(TransferError::Offline(reference)),
        (None, Network::Online) => {
            pull_as(client, store, &reference, platform, Need::Names, now, emit).await
        }
    }
}

/// The image in the store that has `digest`, or that the index with that digest has for
/// `platform`.
fn stored(
    store: &Store,
    digest: Digest,
    platform: &Platform,
    need: Need,
) -> Result<Option<StoredImage>, TransferError> {
    let digest = match store.recall::<String>(index_key(digest, platform))? {
        Some(text) => text.parse().unwrap_or(digest),
        None => digest,
    };
    let Some(found) = store.image(digest)? else { return Ok(None) };
    let Some(found) = catalog::choose(store, found, platform)? else { return Ok(None) };
    let image = match catalog::load(store, found.digest) {
        // What is damaged is pulled again.
        Err(CatalogError::Store(StoreError::Damaged { .. } | StoreError::Missing(_))) => {
            return Ok(None);
        }
        other => other?,
    };
    let is_enough = match need {
        Need::Layers => catalog::is_whole(store, &image)?,
        Need::Names => can_be_had(store, &image)?,
    };
    Ok(is_enough.then_some(found))
}

/// Whether each layer is in the store, or it is known where it is.
fn can_be_had(store: &Store, image: &Image) -> Result<bool, StoreError> {
    for layer in &image.layers {
        let is_here = store.has(layer.digest, layer.size)?;
        if !is_here && layer_sources::recall(store, layer.digest)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which image of an index is for a platform never changes: the index is named by its digest.
fn index_key(digest: Digest, platform: &Platform) -> Digest {
    Framed::new("rbuild index 1").with(digest.as_bytes()).with(platform.to_string()).finish()
}

#[expect(clippy::too_many_arguments, reason = "all of them are of one pull")]
async fn pull_digest(
    client: &Client,
    store: &Store,
    reference: &Reference,
    digest: Digest,
    platform: &Platform,
    need: Need,
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
        if let Some(image) = stored(store, chosen, platform, need)? {
            return Ok(image);
        }
        manifest = client.manifest(&reference.pinned(chosen)).await?;
    }
    if !image::is_manifest(&manifest.media_type) {
        return Err(broken(ImageError::MediaType(manifest.media_type)));
    }
    let image = pull_config(client, reference, manifest).await?;
    for layer in &image.layers {
        layer_sources::remember(store, layer.digest, reference.repository())?;
    }
    if need == Need::Names {
        return Ok(catalog::add(store, &image, now)?);
    }
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
