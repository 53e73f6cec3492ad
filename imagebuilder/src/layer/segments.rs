//! Makes segments on several threads, and gives them in order.
//!
//! **Architecture invariant:** what is in memory at once is bounded by bytes: a thread takes the
//! next segment when there is room for it, and the first one is always somebody's, so nobody waits
//! for ever.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{
    LayerError, Reuse,
    compress::{BackEnd, Compressor},
    plan::{Planner, Segment},
};
use crate::{
    digest::Digest,
    store::{ObjectKind, Store},
    tree::{Entry, TreePath},
};

/// The bytes of a segment's object that are not of the blob: the length of its part of the tar
/// stream, and the CRC-32 of those that follow.
pub(super) const SKIP: u32 = 8;
/// The bytes of the tar stream that are in memory, for each thread, and at least and at most.
const ROOM: u64 = 2 << 20;
const LEAST_ROOM: u64 = 4 << 20;
const MOST_ROOM: u64 = 10 << 20;

/// How many buffers wait for being used again: each is as large as the largest that was in it.
const MOST_SPARE: usize = 2;

/// A segment that is ready.
pub(super) struct Made {
    pub(super) key: Digest,
    /// Its bytes of the tar stream.
    pub(super) tar: Vec<u8>,
    /// The CRC-32 of these.
    pub(super) crc: u32,
    /// How many of them are contents of files.
    pub(super) contents: u64,
    /// What is stored: [`SKIP`] bytes, then those of the blob.
    pub(super) object: Vec<u8>,
    pub(super) origin: Origin,
}

/// Where a segment's compressed bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were made now.
    New,
    /// They were in the store.
    Store,
}

/// What the threads share.
struct Shared<'a, 'p, I> {
    store: &'a Store,
    reuse: Reuse,
    back_end: BackEnd,
    plan: Mutex<Plan<'a, 'p, I>>,
    room: u64,
    state: Mutex<State>,
    changed: Condvar,
}

/// The segments that nobody has taken yet.
struct Plan<'a, 'p, I> {
    first: Option<Segment<'a>>,
    rest: &'p mut Planner<'a, I>,
    taken: usize,
}

#[derive(Default)]
struct State {
    /// The bytes of the tar stream that are taken and not given yet.
    bytes: u64,
    ready: BTreeMap<usize, Result<Made, LayerError>>,
    /// Buffers of the tar stream that are done with. New ones would have to be given zeroed pages
    /// by the kernel, which costs about as much as hashing what comes into them.
    spare: Vec<Vec<u8>>,
    /// How many segments there are, when that is known.
    count: Option<usize>,
    is_stopped: bool,
}

/// Makes `first` and what `rest` gives on so many threads, and gives all to `take` in order.
pub(super) fn make<'a, I>(
    (store, reuse): (&'a Store, Reuse),
    back_end: BackEnd,
    threads: usize,
    first: Segment<'a>,
    rest: &mut Planner<'a, I>,
    take: &mut dyn FnMut(&Made) -> Result<(), LayerError>,
) -> Result<(), LayerError>
where
    I: Iterator<Item = (&'a TreePath, &'a Entry)> + Send,
{
    let room = (ROOM * threads as u64).clamp(LEAST_ROOM, MOST_ROOM);
    let shared = Shared {
        store,
        reuse,
        back_end,
        plan: Mutex::new(Plan { first: Some(first), rest, taken: 0 }),
        room,
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        let stop = shared.stop(|| true);
        for _ in 0..threads {
            scope.spawn(|| shared.work());
        }
        for index in 0.. {
            let Some(made) = shared.wait_for(index).transpose()? else { break };
            take(&made)?;
            shared.give_back(made);
        }
        drop(stop);
        Ok(())
    })
}

impl<'a, I: Iterator<Item = (&'a TreePath, &'a Entry)>> Shared<'a, '_, I> {
    fn work(&self) {
        // Who waits for a thread that is gone would wait for ever.
        let _stop = self.stop(thread::panicking);
        let mut compressor = None;
        while let Some((index, segment)) = self.next() {
            let made = segment.and_then(|it| self.make(it, &mut compressor));
            self.lock().ready.insert(index, made);
            self.changed.notify_all();
        }
    }

    /// The next segment, as soon as there is room for it.
    fn next(&self) -> Option<(usize, Result<Segment<'a>, LayerError>)> {
        let mut plan = lock(&self.plan);
        let mut state = self.lock();
        while self.room <= state.bytes && !state.is_stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_stopped || state.count.is_some() {
            return None;
        }
        // Large files may be read for this: the others go on meanwhile.
        drop(state);
        let segment = match plan.first.take() {
            Some(first) => Ok(Some(first)),
            None => plan.rest.next(),
        };
        let index = plan.taken;
        plan.taken += 1;
        let mut state = self.lock();
        match segment {
            Ok(Some(segment)) => {
                state.bytes += segment.length;
                Some((index, Ok(segment)))
            }
            Ok(None) => {
                state.count = Some(index);
                self.changed.notify_all();
                None
            }
            Err(err) => {
                state.count = Some(index + 1);
                Some((index, Err(err)))
            }
        }
    }

    fn make(
        &self,
        segment: Segment<'_>,
        compressor: &mut Option<Compressor>,
    ) -> Result<Made, LayerError> {
        let mut tar = self.lock().spare.pop().unwrap_or_default();
        tar.reserve_exact(usize::try_from(segment.length).unwrap_or_default());
        let contents = segment.read(&mut tar)?;
        let (key, crc) = (segment.key, crc32fast::hash(&tar));
        // It may have a chunk's bytes.
        drop(segment);
        if self.reuse == Reuse::Stored
            && let Some(object) = self.store.whole_object(ObjectKind::Segment, key)?
            && is_object(&object, tar.len())
        {
            return Ok(Made { key, tar, crc, contents, object, origin: Origin::Store });
        }
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => {
                compressor.insert(Compressor::new(self.back_end).map_err(LayerError::Compress)?)
            }
        };
        let compressed = compressor.compress(&tar).map_err(LayerError::Compress)?;
        let object = [&head(tar.len(), compressed), compressed].concat();
        Ok(Made { key, tar, crc, contents, object, origin: Origin::New })
    }

    /// Waits for a segment; none if there are fewer.
    fn wait_for(&self, index: usize) -> Option<Result<Made, LayerError>> {
        let mut state = self.lock();
        loop {
            if let Some(made) = state.ready.remove(&index) {
                return Some(made);
            }
            if state.count == Some(index) || state.is_stopped {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes room when a segment is done with.
    fn give_back(&self, made: Made) {
        let mut tar = made.tar;
        drop(made.object);
        let length = tar.len() as u64;
        tar.clear();
        let mut state = self.lock();
        state.bytes -= length;
        if state.spare.len() < MOST_SPARE {
            state.spare.push(tar);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn stop(&self, is_needed: fn() -> bool) -> Stop<'_> {
        Stop { state: &self.state, changed: &self.changed, is_needed }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an object is what was made of so many bytes of the tar stream.
fn is_object(object: &[u8], length: usize) -> bool {
    match object.split_first_chunk::<{ SKIP as usize }>() {
        Some((found, compressed)) => *found == head(length, compressed),
        None => false,
    }
}

fn head(length: usize, compressed: &[u8]) -> [u8; SKIP as usize] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(compressed);
    let mut head = [0; SKIP as usize];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Stops the threads when it is dropped, if that is needed then.
struct Stop<'a> {
    state: &'a Mutex<State>,
    changed: &'a Condvar,
    is_needed: fn() -> bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if (self.is_needed)() {
            lock(self.state).is_stopped = true;
            self.changed.notify_all();
        }
    }
}
