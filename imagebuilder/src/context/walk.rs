//! Finds what lies in a folder of the context: one look at each name, folders side by side.
//!
//! **Architecture invariant:** a folder is opened below the context, never through a link, and each
//! name is looked up as one component of the opened folder, without following it: no link leads
//! outside, whenever it is swapped in.

use std::{
    collections::HashSet,
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::{
    fs::{self as sys, AtFlags, FileType, OFlags, RawDir, Stat},
    io::Errno,
};

use super::{Context, ContextError, attributes, stamp::Stamp, stat_cache::StatCache};
use crate::{
    digest::Digest,
    patterns::Verdict,
    tree::{Content, ContentOrigin, Device, Entry, Kind, Meta, TreePath, Whence, Xattrs},
};

const FEWEST: usize = 2;
const MOST: usize = 4;
/// What is read of a folder at once.
const BUFFER: usize = 1 << 15;

/// What one name is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: TreePath,
    pub(super) entry: Arc<Entry>,
    pub(super) state: State,
    /// What names the file, if it has other names too, as few files do.
    pub(super) inode: Option<Box<(u64, u64)>>,
}

/// How much is known of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All of it.
    Known,
    /// Not what the file holds.
    Unread,
    /// It is a folder that is ignored, and there only if something in it is not.
    Ignored,
}

/// All that lies in or is `base`, sorted by path.
pub(super) fn walk(
    whence: &Arc<Whence>,
    cache: &StatCache,
    base: &TreePath,
) -> Result<Vec<Found>, ContextError> {
    let context = &whence.context;
    let verdict = context.verdict(base);
    if verdict.ignored && !context.inner.ignore.may_have_exceptions_below(base.as_bytes()) {
        return Ok(Vec::new());
    }
    let queue = Queue { folders: Vec::new(), busy: 0, failed: None };
    let walk = Walk { whence, context, cache, queue: Mutex::new(queue), wake: Condvar::new() };
    let mut found = walk.start(base, verdict)?;
    if walk.lock().folders.is_empty() {
        return Ok(found);
    }
    let count = thread::available_parallelism().map_or(FEWEST, usize::from).clamp(FEWEST, MOST);
    thread::scope(|scope| {
        let walkers: Vec<_> = (1..count).map(|_| scope.spawn(|| walk.work())).collect();
        found.append(&mut walk.work());
        for walker in walkers {
            match walker.join() {
                Ok(mut more) => found.append(&mut more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    if let Some(failed) = walk.lock().failed.take() {
        return Err(failed);
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(without_empty_ignored(found))
}

/// Owners are 0: whose a file of the context is says nothing about the image.
pub(super) fn meta(stamp: &Stamp, xattrs: Xattrs) -> Meta {
    let mtime = stamp.mtime.div_euclid(1_000_000_000);
    Meta { mode: stamp.mode & 0o7777, mtime, xattrs, ..Meta::default() }
}

/// An ignored folder is there only if something in it is.
fn without_empty_ignored(mut found: Vec<Found>) -> Vec<Found> {
    if found.iter().all(|it| it.state != State::Ignored) {
        return found;
    }
    let mut folders = HashSet::new();
    let mut kept = Vec::with_capacity(found.len());
    // What lies in a folder comes after it.
    while let Some(it) = found.pop() {
        if it.state != State::Ignored || folders.contains(&it.path) {
            folders.extend(it.path.parent());
            kept.push(it);
        }
    }
    kept.reverse();
    kept
}

struct Walk<'a> {
    whence: &'a Arc<Whence>,
    context: &'a Context,
    cache: &'a StatCache,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// What is to be done.
struct Queue {
    folders: Vec<Folder>,
    /// How many walkers may still find folders.
    busy: usize,
    failed: Option<ContextError>,
}

/// A folder that was not opened yet.
struct Folder {
    path: TreePath,
    verdict: Verdict,
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is walked itself.
    fn start(&self, base: &TreePath, verdict: Verdict) -> Result<Vec<Found>, ContextError> {
        let failed = |err: Errno| self.context.failed(base)(err.into());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.context.open_at(base, flags).map_err(failed)?;
        let stat = sys::statat(&file, "", AtFlags::EMPTY_PATH).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            self.lock().folders.push(Folder { path: base.clone(), verdict });
            return Ok(Vec::new());
        }
        if verdict.ignored {
            return Ok(Vec::new());
        }
        let target = || sys::readlinkat(&file, "", Vec::new()).map(std::ffi::CString::into_bytes);
        let found = self.found(base, &stat, &mut Trust::default(), &file, &target);
        Ok(found.map_err(failed)?.into_iter().collect())
    }

    /// Walks until there is nothing left to walk.
    fn work(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut trust = Trust::default();
        while let Some(folder) = self.next() {
            let result = self.list(&folder, &mut found, &mut buffer, &mut trust);
            let mut queue = self.lock();
            queue.busy -= 1;
            match result {
                Ok(mut below) => queue.folders.append(&mut below),
                Err(err) => queue.failed = Some(err),
            }
            drop(queue);
            self.wake.notify_all();
        }
        found
    }

    fn next(&self) -> Option<Folder> {
        let mut queue = self.lock();
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(folder) = queue.folders.pop() {
                queue.busy += 1;
                return Some(folder);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Finds a folder and the names in it, and gives the folders in it that are to be walked.
    fn list(
        &self,
        folder: &Folder,
        found: &mut Vec<Found>,
        buffer: &mut [MaybeUninit<u8>],
        trust: &mut Trust,
    ) -> Result<Vec<Folder>, ContextError> {
        let failed = |err: Errno| self.context.failed(&folder.path)(err.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match self.context.open_at(&folder.path, flags) {
            Ok(file) => file,
            // It is gone since its name was read.
            Err(Errno::NOENT) if !folder.path.is_root() => return Ok(Vec::new()),
            Err(err) => return Err(failed(err)),
        };
        let stamp = Stamp::of(&sys::fstat(&file).map_err(failed)?);
        // Asking again costs less than looking up what was said before.
        let xattrs = attributes::read(&file).map_err(self.context.failed(&folder.path))?;
        let entry = Arc::new(Entry { kind: Kind::Folder, meta: meta(&stamp, xattrs) });
        let state = if folder.verdict.ignored { State::Ignored } else { State::Known };
        found.push(Found { path: folder.path.clone(), entry, state, inode: None });
        let mut below = Vec::new();
        let mut names = RawDir::new(&file, buffer);
        while let Some(name) = names.next() {
            let name = name.map_err(failed)?;
            let (kind, name) = (name.file_type(), name.file_name());
            if name != c"." && name != c".." {
                let path = folder.path.join(name.to_bytes());
                self.look(folder, &file, (path, name, kind), trust, found, &mut below)?;
            }
        }
        Ok(below)
    }

    /// Looks at one name of a folder.
    fn look(
        &self,
        folder: &Folder,
        file: &OwnedFd,
        (path, name, mut kind): (TreePath, &CStr, FileType),
        trust: &mut Trust,
        found: &mut Vec<Found>,
        below: &mut Vec<Folder>,
    ) -> Result<(), ContextError> {
        let ignore = &self.context.inner.ignore;
        let verdict = ignore.matches_with_parent(path.as_bytes(), &folder.verdict);
        if verdict.ignored && !ignore.may_have_exceptions_below(path.as_bytes()) {
            return Ok(());
        }
        let failed = |err: Errno| self.context.failed(&path)(err.into());
        let mut stat = None;
        if !kind.is_dir() {
            match sys::statat(file, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(it) => kind = FileType::from_raw_mode(stat.insert(it).st_mode),
                // It is gone since its name was read.
                Err(Errno::NOENT) => return Ok(()),
                Err(err) => return Err(failed(err)),
            }
        }
        match stat {
            _ if kind.is_dir() => below.push(Folder { path, verdict }),
            Some(stat) if !verdict.ignored => {
                let target = || {
                    let target = sys::readlinkat(file, name, Vec::new())?;
                    Ok(target.into_bytes())
                };
                found.extend(self.found(&path, &stat, trust, file, &target).map_err(failed)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// What is found, given what the kernel says of it; `near` is the file or its folder. None if
    /// it cannot be in an image: sockets are left out, as by docker.
    fn found(
        &self,
        path: &TreePath,
        stat: &Stat,
        trust: &mut Trust,
        near: &OwnedFd,
        target: &dyn Fn() -> rustix::io::Result<Vec<u8>>,
    ) -> rustix::io::Result<Option<Found>> {
        let device = || Device { major: sys::major(stat.st_rdev), minor: sys::minor(stat.st_rdev) };
        let stamp = Stamp::of(stat);
        let mut xattrs = Xattrs::default();
        let mut state = State::Known;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let origin = ContentOrigin::Context(Arc::clone(self.whence));
                let is_trusted = trust.of(&stamp, self.context, path, near);
                let digest = match self.cache.find(&stamp).filter(|_| is_trusted) {
                    Some(record) => {
                        xattrs = record.xattrs.clone();
                        record.digest
                    }
                    None => {
                        state = State::Unread;
                        Digest::from_bytes([0; 32])
                    }
                };
                Kind::File(Content { digest, size: stamp.size, origin })
            }
            FileType::Symlink => Kind::Symlink(target()?),
            FileType::CharacterDevice => Kind::CharDevice(device()),
            FileType::BlockDevice => Kind::BlockDevice(device()),
            FileType::Fifo => Kind::Fifo,
            FileType::Directory | FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let inode = (1 < stat.st_nlink && stamp.is_file()).then(|| Box::new(stamp.inode()));
        let entry = Arc::new(Entry { kind, meta: meta(&stamp, xattrs) });
        Ok(Some(Found { path: path.clone(), entry, state, inode }))
    }
}

/// What one walker was told last, since most files lie on one filesystem.
#[derive(Default)]
struct Trust {
    last: Option<(u64, bool)>,
}

impl Trust {
    fn of(&mut self, stamp: &Stamp, context: &Context, path: &TreePath, near: &OwnedFd) -> bool {
        if let Some((_, is_trusted)) = self.last.filter(|(dev, _)| *dev == stamp.dev) {
            return is_trusted;
        }
        let is_trusted = context.inner.filesystems.is_trusted(stamp.dev, || {
            // A single file can be mounted too.
            match sys::fstat(near)?.st_dev == stamp.dev {
                true => sys::fstatfs(near.as_fd()),
                false => {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    sys::fstatfs(context.open_at(path, flags)?)
                }
            }
        });
        self.last = Some((stamp.dev, is_trusted));
        is_trusted
    }
}
