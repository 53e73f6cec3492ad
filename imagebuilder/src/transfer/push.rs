//! Brings images from the store to registries.

use std::{collections::BTreeMap, io};

use futures_util::{TryStreamExt as _, stream};

use super::{AT_ONCE, Emit, TransferError, relay};
use crate::{
    catalog,
    digest::{Blob, Digest},
    event::{Direction, Event},
    image::Image,
    layer_sources,
    reference::{Reference, Repository},
    registry::{Client, LONGEST_MANIFEST, Placed, RegistryError},
    store::Store,
};

/// What to do about a tag that the registry does not let be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImmutableTag {
    /// It is an error.
    #[default]
    Refuse,
    /// It is an error unless it is this very image already.
    AcceptSame,
}

/// One image on its way.
struct Push<'a> {
    client: &'a Client,
    store: &'a Store,
    target: &'a Reference,
    emit: Emit<'a>,
}

/// Pushes an image under the name `reference`; what the repository has already is not carried.
pub async fn push(
    client: &Client,
    store: &Store,
    digest: Digest,
    reference: &Reference,
    emit: Emit<'_>,
) -> Result<(), TransferError> {
    push_with(client, store, digest, reference, ImmutableTag::default(), emit).await
}

/// As [`push`], with a choice about tags that cannot be changed.
pub async fn push_with(
    client: &Client,
    store: &Store,
    digest: Digest,
    reference: &Reference,
    immutable: ImmutableTag,
    emit: Emit<'_>,
) -> Result<(), TransferError> {
    let target = reference.clone().with_default_tag();
    let image = catalog::load(store, digest)?;
    if LONGEST_MANIFEST < image.manifest.len() {
        let size = image.manifest.len();
        return Err(TransferError::LargeManifest { name: target, size });
    }
    let name = target.to_string();
    let blobs = image.layers.len() + 1;
    emit(Event::TransferStarted { direction: Direction::Push, name: &name, blobs });
    let push = Push { client, store, target: &target, emit };
    let is_there = push.is_there(digest).await?;
    if is_there || push.put_known(&image, digest).await? {
        push.tell_existing(&image);
    } else {
        push.carry(&image, digest, immutable).await?;
    }
    for layer in &image.layers {
        layer_sources::remember(store, layer.digest, target.repository())?;
    }
    emit(Event::TransferDone { direction: Direction::Push, name: &name, digest });
    Ok(())
}

impl Push<'_> {
    /// Whether the name points to this image already.
    async fn is_there(&self, digest: Digest) -> Result<bool, TransferError> {
        match self.client.pushed_digest(self.target).await {
            Ok(found) => Ok(found == Some(digest)),
            Err(err) if err.retryable() => Err(err.into()),
            // Who may push need not be allowed to ask; the push itself will tell.
            Err(_) => Ok(false),
        }
    }

    async fn carry(
        &self,
        image: &Image,
        digest: Digest,
        immutable: ImmutableTag,
    ) -> Result<(), TransferError> {
        stream::iter(blobs(image).map(Ok))
            .try_for_each_concurrent(AT_ONCE, |blob| self.blob(blob))
            .await?;
        match self.put(image).await {
            Ok(()) => Ok(()),
            Err(source) if source.is_immutable_tag() => {
                if immutable == ImmutableTag::AcceptSame && self.is_there(digest).await? {
                    return Ok(());
                }
                Err(TransferError::Immutable { name: self.target.clone(), source })
            }
            Err(err) => Err(err.into()),
        }
    }

    /// What has the manifest has all that it names.
    fn tell_existing(&self, image: &Image) {
        blobs(image).for_each(|it| (self.emit)(Event::BlobExists { digest: it.digest }));
    }

    /// A repository that has the manifest under another tag has its blobs too: then one request
    /// does. If it says that it has not after all, all is carried.
    async fn put_known(&self, image: &Image, digest: Digest) -> Result<bool, TransferError> {
        if self.target.tag().is_none() {
            return Ok(false);
        }
        let pinned = self.target.pinned(digest);
        if !matches!(self.client.pushed_digest(&pinned).await, Ok(Some(_))) {
            return Ok(false);
        }
        Ok(self.put(image).await.is_ok())
    }

    async fn put(&self, image: &Image) -> Result<(), RegistryError> {
        let put = self.client.push_manifest(self.target, &image.media_type, &image.manifest);
        put.await.map(|_| ())
    }

    async fn blob(&self, blob: Blob) -> Result<(), TransferError> {
        let Blob { digest, size } = blob;
        let exists = match self.client.blob_exists(self.repository(), digest).await {
            // As for [`Self::is_there`].
            Err(err) if err.is_denied() => false,
            asked => asked?,
        };
        if exists {
            (self.emit)(Event::BlobExists { digest });
            return Ok(());
        }
        let sources = layer_sources::recall(self.store, digest)?;
        let placed = if self.store.has(digest, size)? {
            self.stored(blob, &sources).await?
        } else {
            let mounts = self.mounts(&sources);
            let progress = |done| (self.emit)(Event::BlobProgress { digest, done, total: size });
            relay::carry(self.client, self.repository(), blob, &mounts, &sources, &progress)
                .await??
        };
        (self.emit)(match placed {
            Placed::Mounted => Event::BlobMounted { digest, size },
            Placed::Uploaded => Event::BlobDone { digest, size },
        });
        Ok(())
    }

    async fn stored(&self, blob: Blob, sources: &[Repository]) -> Result<Placed, TransferError> {
        let Blob { digest, size } = blob;
        let open = || -> io::Result<Box<dyn io::Read + Send>> {
            match self.store.open_blob(digest) {
                Ok(blob) => Ok(Box::new(blob)),
                Err(err) => Err(io::Error::other(err)),
            }
        };
        let progress = |done| (self.emit)(Event::BlobProgress { digest, done, total: size });
        let (repository, mounts) = (self.repository(), self.mounts(sources));
        let pushed =
            self.client.mount_or_push_blob(repository, blob, &mounts, &open, &progress).await;
        if let Err(RegistryError::Source { .. }) = pushed {
            self.store.remove_if_damaged(digest)?;
        }
        Ok(pushed?)
    }

    fn repository(&self) -> &Repository {
        self.target.repository()
    }

    /// The repositories that a blob can be mounted from.
    fn mounts(&self, sources: &[Repository]) -> Vec<Repository> {
        let own = self.repository();
        let can = |it: &&Repository| it.registry() == own.registry() && *it != own;
        sources.iter().filter(can).cloned().collect()
    }
}

/// Layers and config, each once.
fn blobs(image: &Image) -> impl Iterator<Item = Blob> {
    let config = (image.config_digest(), image.config_bytes.len() as u64);
    let all = image.layers.iter().map(|it| (it.digest, it.size)).chain([config]);
    all.collect::<BTreeMap<_, _>>().into_iter().map(|(digest, size)| Blob { digest, size })
}
