//! Objects in pack files: many small contents in few files, found by an index in memory.
//!
//! A process adds to a pack of its own in `tmp`; [`Packs::commit`] syncs it, writes and syncs its
//! index, gives both their names (the index last) and syncs the folder: five calls for all that was
//! added. Whoever misses something looks whether there are new packs.
//!
//! **Architecture invariant:** a pack and its index are never written to after they have their
//! names. What is damaged in one is named in a file beside it, and is no longer found.
//!
//! **Architecture invariant:** every object is compared with its XXH3-128 when it is read.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    ObjectKind, StoreError,
    files::{Temporaries, Temporary, failed, has_extension, names_in, publish, sync_folder},
    index::{Entry, Index},
    leases::Gate,
    loaded::{Loaded, Pack},
    retired,
};
use crate::{digest::Digest, unique};

/// A pack of this size is committed, and the next one begun.
const PACK_SIZE: u64 = 256 << 20;
const MAGIC: &[u8; 8] = b"rbpack02";
/// Files that are kept open.
const OPEN_FILES: usize = 32;

/// The objects of a store, as one process sees them.
#[derive(Debug)]
pub(super) struct Packs {
    root: PathBuf,
    temporaries: Arc<Temporaries>,
    state: RwLock<State>,
    commits: Mutex<()>,
    files: Mutex<Vec<(String, Arc<File>)>>,
    /// Bytes that were committed.
    committed: AtomicU64,
    /// The highest number of a pack that this process has seen: no name is used twice.
    last_number: AtomicU64,
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Arc<Open>>,
    /// Full, or about to be committed.
    sealed: Vec<Arc<Open>>,
    loaded: Loaded,
}

/// A pack that is being written.
#[derive(Debug)]
struct Open {
    file: File,
    size: AtomicU64,
    entries: Mutex<HashMap<(ObjectKind, Digest), Entry>>,
    /// Shared by who writes, so that a commit can wait for them.
    writers: RwLock<()>,
    temporary: Mutex<Option<Temporary>>,
}

/// Where an object was found.
enum Found {
    Open(Arc<Open>, Entry),
    Pack(Arc<Pack>, usize),
}

impl Packs {
    pub(super) fn new(root: &Path, temporaries: Arc<Temporaries>) -> Self {
        Self {
            root: root.to_owned(),
            temporaries,
            state: RwLock::default(),
            commits: Mutex::default(),
            files: Mutex::default(),
            committed: AtomicU64::new(0),
            last_number: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Whether an object is there.
    pub(super) fn has(&self, kind: ObjectKind, key: Digest) -> Result<bool, StoreError> {
        Ok(self.find(kind, key)?.is_some())
    }

    /// The size of an object in bytes.
    pub(super) fn size(&self, kind: ObjectKind, key: Digest) -> Result<Option<u32>, StoreError> {
        Ok(match self.find(kind, key)? {
            Some(Found::Open(_, entry)) => Some(entry.length),
            Some(Found::Pack(pack, at)) => pack.index.entry(at).map(|it| it.length),
            None => None,
        })
    }

    /// The bytes of an object, verified. One that is damaged is an error once, and then not there.
    pub(super) fn read(
        &self,
        kind: ObjectKind,
        key: Digest,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut damage = None;
        loop {
            let (pack, at) = match self.find(kind, key)? {
                None => return damage.map_or(Ok(None), Err),
                Some(Found::Open(open, entry)) => {
                    return read_entry(&open.file, &entry)
                        .map_err(failed("read", &self.root.join("tmp")))?
                        .map(Some)
                        .ok_or_else(|| damaged(&entry));
                }
                Some(Found::Pack(pack, at)) => (pack, at),
            };
            let Some(entry) = pack.index.entry(at) else { return Ok(None) };
            let Some(file) = self.file(&pack)? else {
                // Another process put its objects into another pack, or removed them.
                self.forget_pack(&pack);
                continue;
            };
            let path = self.path(&pack.name, "pack");
            if let Some(bytes) = read_entry(&file, &entry).map_err(failed("read", &path))? {
                return Ok(Some(bytes));
            }
            // There may be another copy. A disk that is full or cannot be written to keeps nobody from
            // reading: others find it to be damaged themselves.
            let _ = self.mark_bad(&pack, &[at]);
            damage = Some(damaged(&entry));
        }
    }

    /// Adds an object. One with the same content that is there already, and whole, is not added
    /// again.
    pub(super) fn add(
        &self,
        kind: ObjectKind,
        key: Digest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let hash = xxh3_128(bytes);
        let known = match self.find(kind, key)? {
            Some(Found::Open(_, entry)) => Some(entry),
            Some(Found::Pack(pack, at)) => pack.index.entry(at),
            None => None,
        };
        if known.is_some_and(|it| it.hash == hash && it.length as usize == bytes.len())
            && self.is_whole(kind, key)?
        {
            return Ok(());
        }
        if PACK_SIZE <= self.append(kind, key, bytes, hash)? {
            self.commit(&Gate::shared(&self.root)?)?;
        }
        Ok(())
    }

    fn is_whole(&self, kind: ObjectKind, key: Digest) -> Result<bool, StoreError> {
        match self.read(kind, key) {
            Err(StoreError::Damaged { .. }) => Ok(false),
            other => Ok(other?.is_some()),
        }
    }

    /// Adds an object, whether it is there or not.
    pub(super) fn add_again(
        &self,
        kind: ObjectKind,
        key: Digest,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.append(kind, key, bytes, xxh3_128(bytes)).map(|_| ())
    }

    /// The size of the pack with it.
    fn append(
        &self,
        kind: ObjectKind,
        key: Digest,
        bytes: &[u8],
        hash: u128,
    ) -> Result<u64, StoreError> {
        let length = u32::try_from(bytes.len()).map_err(|_| {
            failed("write", &self.root.join("packs"))(io::ErrorKind::FileTooLarge.into())
        })?;
        let end = loop {
            let open = self.open()?;
            let _writing = open.writers.read().unwrap_or_else(PoisonError::into_inner);
            if lock(&open.temporary).is_none() {
                // It was committed meanwhile.
                continue;
            }
            let offset = open.size.fetch_add(u64::from(length), Ordering::Relaxed);
            let written = open.file.write_all_at(bytes, offset);
            written.map_err(failed("write", &self.root.join("tmp")))?;
            let entry = Entry { kind, key, offset, length, hash };
            lock(&open.entries).insert((kind, key), entry);
            break offset + u64::from(length);
        };
        Ok(end)
    }

    /// The pack that is being written.
    fn open(&self) -> Result<Arc<Open>, StoreError> {
        if let Some(open) = &self.state().open {
            return Ok(Arc::clone(open));
        }
        let mut state = self.change();
        if let Some(open) = &state.open {
            return Ok(Arc::clone(open));
        }
        let (file, temporary) = self.temporaries.file()?;
        file.write_all_at(MAGIC, 0).map_err(failed("write", &temporary.path))?;
        let open = Arc::new(Open {
            file,
            size: AtomicU64::new(MAGIC.len() as u64),
            entries: Mutex::default(),
            writers: RwLock::default(),
            temporary: Mutex::new(Some(temporary)),
        });
        state.open = Some(Arc::clone(&open));
        Ok(open)
    }

    /// Whether something was added that others do not see yet.
    pub(super) fn is_pending(&self) -> bool {
        let state = self.state();
        state.open.is_some() || !state.sealed.is_empty()
    }

    /// Bytes that this process has committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// As [`Packs::committed`], and begins to count anew.
    pub(super) fn take_committed(&self) -> u64 {
        self.committed.swap(0, Ordering::Relaxed)
    }

    /// Makes what was added last, and visible to others.
    pub(super) fn commit(&self, _gate: &Gate) -> Result<(), StoreError> {
        let _turn = lock(&self.commits);
        {
            let mut state = self.change();
            let open = state.open.take();
            state.sealed.extend(open);
        }
        loop {
            let Some(open) = self.state().sealed.first().cloned() else { break };
            self.publish(&open)?;
            self.change().sealed.retain(|it| !Arc::ptr_eq(it, &open));
        }
        match self.has_failed.load(Ordering::Relaxed) {
            // What could not be synced once cannot be synced later: the kernel has let it go.
            true => Err(failed("sync", &self.root.join("packs"))(io::Error::other(
                "what was written before is lost",
            ))),
            false => Ok(()),
        }
    }

    fn publish(&self, open: &Open) -> Result<(), StoreError> {
        // Whoever writes to it now is done after this; the next ones find it closed.
        let _closed = open.writers.write().unwrap_or_else(PoisonError::into_inner);
        let entries: Vec<Entry> = lock(&open.entries).values().copied().collect();
        if lock(&open.temporary).is_none() || entries.is_empty() {
            *lock(&open.temporary) = None;
            return Ok(());
        }
        let size = open.size.load(Ordering::Relaxed);
        let index = Index::to_bytes(entries, size);
        // A disk that is full now may have space later: until here all can be tried again.
        let (mut file, temporary) = self.temporaries.file()?;
        file.write_all(&index).map_err(failed("write", &temporary.path))?;
        let named = self.name(open, &file, temporary);
        if named.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        self.committed.fetch_add(size + index.len() as u64, Ordering::Relaxed);
        if let Some(index) = Index::parse(index) {
            self.change().loaded.add(Pack::new(named?, index));
        }
        Ok(())
    }

    /// Syncs a pack and its index, and gives them their name.
    fn name(&self, open: &Open, index: &File, beside: Temporary) -> Result<String, StoreError> {
        let folder = self.root.join("packs");
        let Some(pack) = lock(&open.temporary).take() else { return Ok(String::new()) };
        open.file.sync_all().map_err(failed("write", &pack.path))?;
        index.sync_all().map_err(failed("write", &beside.path))?;
        let last = names_in(&folder)?.iter().filter_map(|it| number(it)).max().unwrap_or_default();
        // One that is gone again had a name that others may still know it by.
        let before = self.last_number.fetch_max(last, Ordering::Relaxed).max(last);
        let number = before.saturating_add(1);
        self.last_number.fetch_max(number, Ordering::Relaxed);
        let name = format!("{number:010}-{}", self.temporaries.owner());
        pack.rename(&self.path(&name, "pack"))?;
        beside.rename(&self.path(&name, "idx"))?;
        sync_folder(&folder)?;
        Ok(name)
    }

    fn find(&self, kind: ObjectKind, key: Digest) -> Result<Option<Found>, StoreError> {
        if let Some(found) = self.look(kind, key) {
            return Ok(Some(found));
        }
        Ok(if self.refresh()? { self.look(kind, key) } else { None })
    }

    fn look(&self, kind: ObjectKind, key: Digest) -> Option<Found> {
        let state = self.state();
        for open in state.open.iter().chain(&state.sealed) {
            if let Some(entry) = lock(&open.entries).get(&(kind, key)) {
                return Some(Found::Open(Arc::clone(open), *entry));
            }
        }
        let (pack, at) = state.loaded.find(kind, key)?;
        pack.used.set(at);
        Some(Found::Pack(pack, at))
    }

    /// Reads the list of packs again if it changed. Whether it did.
    fn refresh(&self) -> Result<bool, StoreError> {
        let seen = self.stamp()?;
        if self.state().loaded.seen == Some(seen) {
            return Ok(false);
        }
        self.reload()?;
        Ok(true)
    }

    /// Reads the list of packs again, and the indexes that are new.
    pub(super) fn reload(&self) -> Result<(), StoreError> {
        let seen = self.stamp()?;
        let names = names_in(&self.root.join("packs"))?;
        let mut added = Vec::new();
        let mut broken = Vec::new();
        for name in names.iter().filter_map(|it| it.strip_suffix(".idx")) {
            if self.state().loaded.knows(name) {
                continue;
            }
            match self.load(name, &names)? {
                Some(pack) => added.push(pack),
                None => broken.push(name.to_owned()),
            }
        }
        self.change().loaded.update(seen, &names, added, broken);
        Ok(())
    }

    /// What changes when packs come or go.
    fn stamp(&self) -> Result<(i64, i64), StoreError> {
        let folder = self.root.join("packs");
        let metadata = fs::metadata(&folder).map_err(failed("read", &folder))?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    }

    /// Reads an index; none if it is damaged or gone.
    fn load(&self, name: &str, names: &[String]) -> Result<Option<Pack>, StoreError> {
        let path = self.path(name, "idx");
        let bytes = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("read", &path))?,
        };
        let Some(index) = Index::parse(bytes) else { return Ok(None) };
        // A pack gets its name before its index does, and loses it later.
        if !self.path(name, "pack").exists() {
            return Ok(None);
        }
        let pack = Pack::new(name.to_owned(), index);
        for file in names.iter().filter(|it| it.starts_with(name) && has_extension(it, "bad")) {
            let bytes = fs::read(self.root.join("packs").join(file)).unwrap_or_default();
            for at in bytes.chunks_exact(4).filter_map(|it| it.first_chunk()) {
                pack.bad.set(u32::from_le_bytes(*at) as usize);
            }
        }
        Ok(Some(pack))
    }

    /// The file of a pack; none if it is gone.
    fn file(&self, pack: &Pack) -> Result<Option<Arc<File>>, StoreError> {
        if let Some((_, file)) = lock(&self.files).iter().find(|it| it.0 == pack.name) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = self.path(&pack.name, "pack");
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                match retired::find(&self.root, &format!("{}.pack", pack.name))? {
                    Some(path) => File::open(&path).map_err(failed("read", &path))?,
                    None => return Ok(None),
                }
            }
            other => other.map_err(failed("read", &path))?,
        };
        let file = Arc::new(file);
        let mut files = lock(&self.files);
        if OPEN_FILES <= files.len() {
            files.remove(0);
        }
        files.push((pack.name.clone(), Arc::clone(&file)));
        Ok(Some(file))
    }

    /// Finds nothing in a pack any more.
    fn forget_pack(&self, pack: &Pack) {
        self.change().loaded.forget(&pack.name);
    }

    /// Adds again what this process has found in packs that were taken out meanwhile, and that is
    /// nowhere else. Whether there was such a thing.
    pub(super) fn rescue(&self, _gate: &Gate) -> Result<bool, StoreError> {
        if retired::is_empty(&self.root)? {
            return Ok(false);
        }
        self.reload()?;
        let mut is_any = false;
        let gone = self.state().loaded.gone().to_vec();
        for pack in gone {
            for at in (0..pack.index.len()).filter(|at| pack.used.has(*at) && !pack.bad.has(*at)) {
                let Some(entry) = pack.index.entry(at) else { continue };
                if self.is_elsewhere(entry.kind, entry.key) {
                    continue;
                }
                let Some(file) = self.file(&pack)? else { break };
                let path = self.path(&pack.name, "pack");
                if let Some(bytes) = read_entry(&file, &entry).map_err(failed("read", &path))? {
                    self.append(entry.kind, entry.key, &bytes, entry.hash)?;
                    is_any = true;
                }
            }
            self.forget_pack(&pack);
        }
        Ok(is_any)
    }

    /// Forgets what was added and not committed.
    pub(super) fn abandon(&self) {
        let mut state = self.change();
        state.open = None;
        state.sealed.clear();
    }

    /// Whether an object is in a pack that was not taken out.
    fn is_elsewhere(&self, kind: ObjectKind, key: Digest) -> bool {
        let state = self.state();
        let mut written = state.open.iter().chain(&state.sealed);
        written.any(|it| lock(&it.entries).contains_key(&(kind, key)))
            || state.loaded.find_present(kind, key).is_some()
    }

    /// Needs nothing of what was taken out.
    pub(super) fn forget_gone(&self, _gate: &Gate) -> Result<(), StoreError> {
        self.reload()?;
        let gone = self.state().loaded.gone().to_vec();
        for pack in &gone {
            self.forget_pack(pack);
        }
        lock(&self.files).clear();
        Ok(())
    }

    /// The packs that all see, the oldest first.
    pub(super) fn all(&self) -> Result<Vec<Arc<Pack>>, StoreError> {
        self.reload()?;
        Ok(self.state().loaded.packs().to_vec())
    }

    /// The names of packs whose index is damaged.
    pub(super) fn broken(&self) -> Vec<String> {
        let is_there = |it: &&String| self.path(it, "idx").exists();
        self.state().loaded.broken().iter().filter(is_there).cloned().collect()
    }

    /// The bytes of the object with that number; none if they are damaged or gone.
    pub(super) fn read_at(&self, pack: &Pack, at: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(entry) = pack.index.entry(at) else { return Ok(None) };
        let Some(file) = self.file(pack)? else { return Ok(None) };
        read_entry(&file, &entry).map_err(failed("read", &self.path(&pack.name, "pack")))
    }

    /// Whether a pack is still where all see it.
    pub(super) fn is_present(&self, pack: &Pack) -> bool {
        self.path(&pack.name, "idx").exists()
    }

    /// Forgets objects of a pack, for all who read its index from now on.
    pub(super) fn mark_bad(&self, pack: &Pack, objects: &[usize]) -> Result<(), StoreError> {
        for at in objects {
            pack.bad.set(*at);
        }
        let numbers = objects.iter().filter_map(|it| u32::try_from(*it).ok());
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        let (mut file, temporary) = self.temporaries.file()?;
        file.write_all(&bytes).map_err(failed("write", &temporary.path))?;
        publish(&file, temporary, &self.path(&pack.name, &format!("{}.bad", unique::name())))
    }

    /// Forgets an object, wherever it is.
    pub(super) fn remove(&self, kind: ObjectKind, key: Digest) -> Result<(), StoreError> {
        while let Some(found) = self.find(kind, key)? {
            match found {
                Found::Open(open, _) => drop(lock(&open.entries).remove(&(kind, key))),
                Found::Pack(pack, at) => self.mark_bad(&pack, &[at])?,
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.root.join("packs").join(format!("{name}.{extension}"))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease of who wrote a pack, by its name.
pub(super) fn writer(name: &str) -> &str {
    name.split_once('-').map_or(name, |(_, writer)| writer)
}

/// The number in the name of a file in `packs`.
fn number(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

/// Reads an object; none if it is damaged.
fn read_entry(file: &File, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; entry.length as usize];
    match file.read_exact_at(&mut bytes, entry.offset) {
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(err) => Err(err),
        Ok(()) => Ok((xxh3_128(&bytes) == entry.hash).then_some(bytes)),
    }
}

fn damaged(entry: &Entry) -> StoreError {
    let reason = format!("its {:?} in a pack has other bytes", entry.kind).to_lowercase();
    StoreError::Damaged { expected: entry.key, reason }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
