//! Carries a blob that is not in the store from one registry to another, as it comes.
//!
//! **Architecture invariant:** the target gets the blob only under its digest, so that what came
//! wrong is no blob there.

use std::io::{self, Read};

use tokio::runtime::Handle;

use super::FetchError;
use crate::{
    digest::Blob,
    reference::Repository,
    registry::{Client, Placed, Progress, RegistryError},
};

/// How often the sources are read where what came was something else; each reading has tries of its
/// own.
const READINGS: usize = 3;

/// Mounts a blob, or streams it from the first of `sources` that has it into `target`.
pub(crate) async fn carry(
    client: &Client,
    target: &Repository,
    blob: Blob,
    mounts: &[Repository],
    sources: &[Repository],
    progress: Progress<'_>,
) -> Result<Result<Placed, FetchError>, RegistryError> {
    if sources.is_empty() {
        return Ok(Err(FetchError::Unknown(blob.digest)));
    }
    let runtime = Handle::current();
    let open = || -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(client.read_blob(sources, blob, &runtime)))
    };
    let mut readings = 0;
    loop {
        readings += 1;
        // The source, and not the target, may be what fails.
        let source = match client.mount_or_push_blob(target, blob, mounts, &open, progress).await {
            Err(RegistryError::Source { source, .. }) => source,
            placed => return placed.map(Ok),
        };
        let Ok(error) = source.downcast::<RegistryError>() else {
            return Ok(Err(FetchError::Unknown(blob.digest)));
        };
        let is_other = matches!(error, RegistryError::DigestMismatch { .. });
        if !is_other || readings == READINGS {
            return Ok(Err(FetchError::of(blob.digest, sources, error)));
        }
    }
}
