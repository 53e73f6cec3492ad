//! The packs that a process knows, and one sorted list of all that is in them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{ObjectKind, index::Index};
use crate::digest::Digest;

/// A pack that others see, too.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) name: String,
    pub(super) index: Index,
    /// The objects that this process has found here.
    pub(super) used: Bits,
    /// Those that are damaged, or were removed.
    pub(super) bad: Bits,
}

/// A set of the objects of a pack.
#[derive(Debug)]
pub(super) struct Bits(Vec<AtomicU64>);

/// All packs that are known.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// When the folder of packs had changed last before it was read.
    pub(super) seen: Option<(i64, i64)>,
    /// Sorted by name: the newest last.
    packs: Vec<Arc<Pack>>,
    /// Those that others took out of the store, where this process has found something.
    gone: Vec<Arc<Pack>>,
    /// Those of which nothing can be found.
    broken: Vec<String>,
    slots: Vec<Slot>,
}

/// Where an object may be: the beginning of its key, its pack (counted from the newest), its
/// number there.
type Slot = (u64, u32, u32);

impl Pack {
    pub(super) fn new(name: String, index: Index) -> Self {
        let count = index.len();
        Self { name, index, used: Bits::new(count), bad: Bits::new(count) }
    }
}

impl Bits {
    fn new(count: usize) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn set(&self, at: usize) {
        let bit = 1 << (at % 64);
        if let Some(word) = self.0.get(at / 64)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|it| it.load(Ordering::Relaxed) & (1 << (at % 64)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|it| it.load(Ordering::Relaxed) == 0)
    }
}

impl Loaded {
    pub(super) fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }

    pub(super) fn gone(&self) -> &[Arc<Pack>] {
        &self.gone
    }

    pub(super) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Whether a pack needs not be read.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.packs.binary_search_by(|it| it.name.as_str().cmp(name)).is_ok()
            || self.broken.iter().any(|it| it == name)
    }

    /// Adds a pack that this process has made: it needs what is in it.
    pub(super) fn add(&mut self, pack: Pack) {
        (0..pack.index.len()).for_each(|at| pack.used.set(at));
        self.packs.push(Arc::new(pack));
        self.arrange();
    }

    /// Takes over what the folder holds now.
    pub(super) fn update(
        &mut self,
        seen: (i64, i64),
        names: &[String],
        added: Vec<Pack>,
        broken: Vec<String>,
    ) {
        self.seen = Some(seen);
        self.broken.extend(broken);
        let is_there = |it: &Arc<Pack>| names.binary_search(&format!("{}.idx", it.name)).is_ok();
        let count = self.packs.len();
        let (kept, gone): (Vec<_>, Vec<_>) = self.packs.drain(..).partition(is_there);
        let is_same = kept.len() == count && added.is_empty();
        self.packs = kept;
        self.gone.extend(gone.into_iter().filter(|it| !it.used.is_empty()));
        if !is_same {
            self.packs.extend(added.into_iter().map(Arc::new));
            self.arrange();
        }
    }

    /// Finds nothing in a pack any more, and does not read it again.
    pub(super) fn forget(&mut self, name: &str) {
        self.gone.retain(|it| it.name != name);
        let count = self.packs.len();
        self.packs.retain(|it| it.name != name);
        if self.packs.len() < count {
            self.broken.push(name.to_owned());
            self.arrange();
        }
    }

    /// The pack with an object, and its number there; the newest where there are several.
    pub(super) fn find(&self, kind: ObjectKind, key: Digest) -> Option<(Arc<Pack>, usize)> {
        self.find_present(kind, key).or_else(|| {
            let found = self.gone.iter().find_map(|pack| {
                let at = pack.index.find(kind, key).filter(|at| !pack.bad.has(*at))?;
                Some((pack, at))
            });
            found.map(|(pack, at)| (Arc::clone(pack), at))
        })
    }

    /// As [`Loaded::find`], but only where all find it.
    pub(super) fn find_present(&self, kind: ObjectKind, key: Digest) -> Option<(Arc<Pack>, usize)> {
        let prefix = prefix(key);
        let first = self.slots.partition_point(|it| it.0 < prefix);
        let same = self.slots[first..].iter().take_while(|it| it.0 == prefix);
        for (_, from_newest, at) in same {
            let pack = &self.packs[self.packs.len() - 1 - *from_newest as usize];
            let at = *at as usize;
            let is_it = pack.index.entry(at).is_some_and(|it| (it.kind, it.key) == (kind, key));
            if is_it && !pack.bad.has(at) {
                return Some((Arc::clone(pack), at));
            }
        }
        None
    }

    /// Makes the list anew.
    fn arrange(&mut self) {
        self.packs.sort_by(|a, b| a.name.cmp(&b.name));
        self.packs.dedup_by(|a, b| a.name == b.name);
        self.slots.clear();
        self.slots.reserve_exact(self.packs.iter().map(|it| it.index.len()).sum());
        for (from_newest, pack) in (0..).zip(self.packs.iter().rev()) {
            let keys = (0..).zip(pack.index.entries());
            self.slots.extend(keys.map(|(at, it)| (prefix(it.key), from_newest, at)));
        }
        self.slots.sort_unstable();
    }
}

fn prefix(key: Digest) -> u64 {
    key.as_bytes().first_chunk().map_or(0, |it| u64::from_be_bytes(*it))
}
