//! Layers of bases that are not in the store: they come from the registries that have them, and are
//! read while they come.

use std::io::{self, Read};

use rbuild_imagebuilder::{
    build::{RemoteError, RemoteLayers},
    digest::Blob,
    event::Event,
    image::Layer,
    layer_sources,
    registry::Reading,
    store::Store,
    transfer::{FetchError, Network},
};

use super::Registries;
use crate::console::images::Images;

/// Asks the repositories that layers are known to be in.
pub(super) struct BaseLayers<'a> {
    registries: &'a Registries,
    network: Network,
    store: &'a Store,
    view: &'a Images,
}

impl<'a> BaseLayers<'a> {
    pub(super) fn new(
        registries: &'a Registries,
        network: Network,
        store: &'a Store,
        view: &'a Images,
    ) -> Self {
        Self { registries, network, store, view }
    }
}

impl RemoteLayers for BaseLayers<'_> {
    fn has(&self, layer: &Layer) -> bool {
        layer_sources::recall(self.store, layer.digest).is_ok_and(|it| !it.is_empty())
    }

    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>, RemoteError> {
        let Layer { digest, size, .. } = *layer;
        let repositories = layer_sources::recall(self.store, digest)?;
        if self.network == Network::Offline {
            return Err(FetchError::NotAsked { digest, repositories }.into());
        }
        let (blob, Registries { client, runtime }) = (Blob { digest, size }, self.registries);
        let reading = client.read_blob(&repositories, blob, runtime.handle());
        Ok(Box::new(Coming { reading, done: 0, blob, view: self.view }))
    }
}

/// A layer that is coming.
struct Coming<'a> {
    reading: Reading,
    done: u64,
    blob: Blob,
    view: &'a Images,
}

impl Coming<'_> {
    fn tell(&mut self, count: usize) {
        self.done += count as u64;
        let Self { done, blob: Blob { digest, size }, view, .. } = self;
        view.show(&match done == size {
            true => Event::BlobDone { digest: *digest, size: *size },
            false => Event::BlobProgress { digest: *digest, done: *done, total: *size },
        });
    }
}

impl Read for Coming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reading.read(buffer)?;
        if 0 < count {
            self.tell(count);
        }
        Ok(count)
    }
}
