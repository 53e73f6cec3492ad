//! Where images are copied to.

use std::io;

use super::{CarryError, Source, told};
use crate::{
    catalog,
    digest::Blob,
    layout::{Naming, Writing, failed},
    needs::Document,
    reference::{Reference, Repository},
    registry::{Client, Progress, RegistryError},
    store::{Origin, Store, StoredImage},
    transfer::relay,
};

/// One end of a copy, to which blobs are written.
pub(super) enum Target {
    /// A repository; the tag is written last.
    Registry { client: Client, name: Reference },
    /// The store.
    Store { store: Store, now: u64, naming: Naming, origin: Origin },
    /// A layout, whose index is written by [`Target::finish`].
    Folder(Writing),
}

/// Which of the manifests of a copy one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// One that an index names.
    Child,
    /// The one that gets the name.
    Top,
}

impl Target {
    /// Whether a blob is there.
    pub(super) async fn has(&self, blob: Blob) -> Result<bool, CarryError> {
        match self {
            Self::Store { store, .. } => Ok(store.has(blob.digest, blob.size)?),
            Self::Folder(writing) => Ok(writing.has(blob)),
            Self::Registry { client, name } => {
                match client.blob_exists(name.repository(), blob.digest).await {
                    // Who may push need not be allowed to ask; the push itself will tell.
                    Err(err) if err.is_denied() => Ok(false),
                    asked => Ok(asked?),
                }
            }
        }
    }

    /// Carries a blob, verified; a registry that has it in another repository gives it.
    pub(super) async fn blob(
        &self,
        source: &Source,
        blob: Blob,
        progress: Progress<'_>,
    ) -> Result<(), CarryError> {
        match (self, source) {
            (Self::Registry { client, name }, source) => {
                let to = name.repository();
                let known = source.repositories(blob.digest)?;
                let can = |it: &&Repository| it.registry() == to.registry() && *it != to;
                let from: Vec<Repository> = known.iter().filter(can).cloned().collect();
                // What came wrong is read once more.
                if matches!(source, Source::Registry { .. }) || source.is_elsewhere(blob)? {
                    relay::carry(client, to, blob, &from, &known, progress).await??;
                    return Ok(());
                }
                let open = || source.open(blob);
                match client.mount_or_push_blob(to, blob, &from, &open, progress).await {
                    // What could not be read may be another registry's fault.
                    Err(RegistryError::Source { digest, source }) => {
                        Err(told(source, |source| RegistryError::Source { digest, source }.into()))
                    }
                    pushed => Ok(pushed.map(drop)?),
                }
            }
            (Self::Store { store, .. }, Source::Registry { client, name, .. }) => {
                let open = || store.writer().map_err(io::Error::other);
                let writer = client.pull_blob(name.repository(), blob, open, progress).await?;
                writer.finish_as(blob)?;
                Ok(())
            }
            (Self::Folder(writing), Source::Registry { client, name, .. }) => {
                let open = || writing.part();
                let part = client.pull_blob(name.repository(), blob, open, progress).await?;
                let path = writing.blob(blob.digest);
                Ok(part.publish(&path).map_err(failed("written", &path))?)
            }
            (Self::Folder(writing), Source::Local(blobs)) => {
                Ok(writing.copy(blob, &mut blobs.open(blob)?)?)
            }
            (Self::Store { store, .. }, Source::Local(blobs)) => {
                Ok(crate::layout::copy_in(store, blobs, blob)?)
            }
        }
    }

    /// Writes a manifest or an index whose blobs are there.
    pub(super) async fn document(&self, document: &Document, rank: Rank) -> Result<(), CarryError> {
        let Document { descriptor, bytes } = document;
        match self {
            Self::Registry { client, name } => {
                let name = match rank {
                    Rank::Child => name.pinned(descriptor.digest),
                    Rank::Top => name.clone(),
                };
                client.push_manifest(&name, &descriptor.media_type, bytes).await?;
            }
            Self::Folder(writing) => {
                let blob = Blob { digest: descriptor.digest, size: bytes.len() as u64 };
                writing.copy(blob, &mut bytes.as_slice())?;
            }
            Self::Store { store, now, naming, origin } => {
                store.write_blob(bytes)?;
                if rank == Rank::Top {
                    let (digest, size) = (descriptor.digest, bytes.len() as u64);
                    let media_type = descriptor.media_type.clone();
                    store.add_image(&StoredImage { digest, size, media_type, added: *now })?;
                    if let Naming::Full(name) = naming {
                        catalog::tag(store, name, digest, *origin)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes all visible, where that is left to do.
    pub(super) fn finish(self) -> Result<(), CarryError> {
        match self {
            Self::Folder(writing) => Ok(writing.finish()?),
            Self::Registry { .. } | Self::Store { .. } => Ok(()),
        }
    }
}
