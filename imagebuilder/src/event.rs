//! What happens while images are built and carried: facts, not words.

use crate::{digest::Digest, layer};

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// One instruction of a stage begins, or was looked at.
    StepStarted {
        /// Which one, counted from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The name or number of the stage.
        stage: &'a str,
        /// The instruction as it is written.
        text: &'a str,
    },
    /// The instruction had been done before with the same input.
    StepCached,
    /// So many bytes of files were read for a layer that is being written.
    LayerProgress {
        /// Bytes read.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// A layer was written.
    LayerWritten {
        /// Files, folders and links in it.
        entries: usize,
        /// Bytes of its files.
        content: u64,
        /// Bytes of the blob.
        size: u64,
        /// The digest of the blob.
        digest: Digest,
        /// What it cost.
        bytes: layer::Stats,
    },
    /// Something in the Dockerfile is suspicious.
    Warning {
        /// The line that it is about, counted from 1; 0 for none.
        line: usize,
        /// What is suspicious.
        text: &'a str,
    },
    /// An image is whole, and in the store.
    ImageBuilt {
        /// The digest of the manifest.
        digest: Digest,
        /// Whether it had been built before.
        cached: bool,
        /// The layers that it has.
        layers: usize,
        /// The bytes of the layers' blobs.
        size: u64,
    },
    /// An image will be pulled or pushed.
    TransferStarted {
        /// Which way.
        direction: Direction,
        /// The image's name.
        name: &'a str,
        /// The blobs that it has.
        blobs: usize,
    },
    /// A blob was found where it should go.
    BlobExists {
        /// The blob.
        digest: Digest,
    },
    /// A registry took a blob from another of its repositories.
    BlobMounted {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes of a blob were carried.
    BlobProgress {
        /// The blob.
        digest: Digest,
        /// Bytes carried; goes back to 0 when it is tried again.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// A blob was carried.
    BlobDone {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// An image was pulled or pushed.
    TransferDone {
        /// Which way.
        direction: Direction,
        /// The image's name.
        name: &'a str,
        /// The digest of the manifest.
        digest: Digest,
    },
}

/// Which way an image is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a registry into the store.
    Pull,
    /// From the store to a registry.
    Push,
    /// From anywhere to anywhere.
    Copy,
}
