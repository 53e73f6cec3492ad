//! A tree becomes a layer: a deterministic tar stream, compressed in segments, into the store.
//!
//! Read in this order: [`options`] (what can be asked for), [`header`] (an entry's tar headers),
//! [`plan`] and [`chunks`] (where the stream is cut, and what the pieces are called), [`content`]
//! (files are read, and checked), [`compress`] and [`deflate`], [`segments`] (the threads that make
//! them), [`checkpoints`] (what is known of the layer that was made before), [`assembly`] (pieces
//! become a blob).
//!
//! A segment that is in the store is not compressed again; as long as all segments are those of the
//! layer before, they are not even read: one changed file costs what is behind it to hash, and one
//! segment to compress.
//!
//! **Architecture invariant:** the same tree gives the same bytes, whatever is in the store and
//! however many threads there are: entries are sorted, owners are numbers, times are whole seconds,
//! and no time, name or number of this machine gets in. What ustar cannot hold goes into PAX
//! records (POSIX.1-2001, `pax` interchange format).

use std::{io, thread};

use thiserror::Error;

use self::assembly::Assembly;
pub use self::options::{Level, Method, MethodError, Options};
use crate::{
    digest::{Blob, Digest},
    image::Layer,
    store::{Store, StoreError},
    tree::{Tree, TreePath},
};

mod assembly;
mod checkpoints;
mod chunks;
pub mod compress;
mod content;
mod deflate;
mod header;
mod options;
mod plan;
mod segments;
#[cfg(test)]
mod tests;

/// What one layer is made with.
pub struct Job<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// How it is made.
    pub options: Options,
    /// Names what this layer is most like: the one that was made last under the same name is
    /// looked at for a beginning that is the same, which then is not hashed again.
    pub like: Digest,
    /// Whether what was made before is used.
    pub reuse: Reuse,
    /// What it cost, when the layer is written.
    pub stats: Stats,
    /// Takes the layer's bytes while they are made, if it is worth it.
    pub uploads: Option<&'a dyn Uploads>,
    /// Is told of the bytes of files that were read.
    pub progress: &'a mut dyn FnMut(u64),
}

/// Whether what was made before is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// What the store has of it.
    Stored,
    /// Nothing: all is read, hashed and compressed. The store keeps what it has if that is the
    /// same and whole.
    Nothing,
}

/// What it cost to write a layer, in bytes; nothing if it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Contents of files that were read for the tar stream.
    pub read: u64,
    /// Bytes of the tar stream that were hashed.
    pub hashed: u64,
    /// Bytes of the tar stream that were compressed.
    pub compressed: u64,
    /// Bytes of the tar stream whose compressed form was in the store.
    pub reused: u64,
}

/// Starts uploads of layers whose digests are not known yet.
pub trait Uploads: Sync {
    /// Starts one; none if there is no use in it.
    fn begin(&self) -> Option<Box<dyn Upload>>;
}

/// Takes the bytes of one layer. Dropped before [`Upload::finish`], it gives the upload up.
pub trait Upload: Send {
    /// Takes the next bytes. What goes wrong is no fault of the layer: it is kept, and the layer
    /// is pushed from the store later.
    fn write(&mut self, bytes: &[u8]);
    /// The layer is whole, and in the store.
    fn finish(self: Box<Self>, blob: Blob);
}

/// Why a layer could not be written.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The compressor gave up.
    #[error("the layer could not be compressed")]
    Compress(#[source] io::Error),
    /// A file could not be read.
    #[error("`{path}` could not be read")]
    Read {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// A file has other content than when its digest was made.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The file.
        path: TreePath,
    },
}

/// So many compress as fast as one can hash what they make; each more would take memory alone.
const MOST_THREADS: usize = 8;

/// Writes `tree` as a layer.
pub fn write(tree: &Tree, job: &mut Job<'_>) -> Result<Layer, LayerError> {
    let threads = thread::available_parallelism().map_or(2, |it| it.get().clamp(2, MOST_THREADS));
    write_on(threads, tree, job)
}

fn write_on(threads: usize, tree: &Tree, job: &mut Job<'_>) -> Result<Layer, LayerError> {
    let (store, options, reuse) = (job.store, job.options, job.reuse);
    job.stats = Stats::default();
    let mut planner = plan::plan(tree, store, &options);
    let mut layer = Assembly::new(job)?;
    if let Some(first) = layer.take_known(&mut planner)? {
        let back_end = options.compression.back_end();
        let mut take = |made: &segments::Made| layer.take(made);
        segments::make((store, reuse), back_end, threads, first, &mut planner, &mut take)?;
    }
    layer.finish()
}

/// A digest over what lies in or is `base`, as it would be written, times aside: what is equal has
/// equal digests, wherever it lies.
///
/// Times are in no key, as in BuildKit: a file that was only touched does not make a new layer.
pub fn fingerprint(tree: &Tree, base: &TreePath) -> Digest {
    tree.fingerprint(base)
}
