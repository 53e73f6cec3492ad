//! The build context: a folder of the host, read without ever leaving it.
//!
//! Read in this order: [`Context`] (paths and links), [`mod@walk`] (what is there), [`stamp`] (when a file
//! is known to be unchanged), [`stat_cache`] (what was read before), [`readers`] (what has to be read).
//!
//! **Architecture invariant:** this is the only module that reads host files for a layer. Every
//! file is opened below the context's own folder with `openat2` and `RESOLVE_BENEATH |
//! RESOLVE_NO_SYMLINKS`, or looked up as one name of a folder that was opened so, and not followed:
//! no link, and no link that is swapped in meanwhile, leads outside.
//!
//! **Architecture invariant:** a digest is kept only with a stamp that every later change of the file
//! must change. Known limits, where the kernel itself does not say that a file was changed: a process
//! that maps a file shared, and goes on writing to a page that it made dirty before the file was read
//! (on tmpfs: any page that it had mapped then); and a power cut that keeps new content, and loses the
//! new ctime.

mod attributes;
mod readers;
mod stamp;
mod stat_cache;
mod walk;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatFs};
use thiserror::Error;

use self::{
    stamp::Stamp,
    stat_cache::StatCache,
    walk::{Found, State, walk},
};
use crate::{
    digest::Digest,
    patterns::{Ignore, Verdict},
    store::Store,
    tree::{Content, Entry, Kind, PathError, Still, Tree, TreePath, Whence},
};

/// The most records of what was read that stay in memory while a layer is written: more of them are
/// read again from the store, if they are needed again.
const MOST_KEPT: usize = 20_000;

/// A folder whose files can be copied into an image.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    folder: OwnedFd,
    path: PathBuf,
    ignore: Ignore,
    /// What was read of files so far.
    known: RwLock<StatCache>,
    /// Where that is kept for the next build.
    kept: Option<(Store, Digest)>,
    /// Whether there is more than what is kept.
    has_news: AtomicBool,
    filesystems: Filesystems,
    clock: Clock,
}

/// Which filesystems, by device number, say by their ctime that a file was changed.
#[derive(Default)]
struct Filesystems {
    known: Mutex<BTreeMap<u64, bool>>,
}

/// The clock that files get their times from.
struct Clock(Box<dyn Fn() -> i64 + Send + Sync>);

/// Why a file of the context could not be used.
#[derive(Debug, Error)]
pub enum ContextError {
    /// It could not be read.
    #[error("`{}` could not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The context is no folder.
    #[error("`{}` is not a folder", path.display())]
    NoFolder {
        /// What was given as the context.
        path: PathBuf,
    },
    /// A link on the way to a source leads in circles.
    #[error("`{path}` has too many levels of symbolic links")]
    Loop {
        /// The source.
        path: TreePath,
    },
    /// A link on the way to a source leads outside of the context.
    #[error("`{path}` leads outside of the build context: the link `{link}` points to `{target}`")]
    Outside {
        /// The source.
        path: TreePath,
        /// The link.
        link: TreePath,
        /// What it points to.
        target: String,
    },
    /// A file was changed again and again.
    #[error("`{path}` changed while it was read")]
    Changing {
        /// The file.
        path: TreePath,
    },
    /// A name is no path.
    #[error("a file of the context has a name that cannot be used")]
    Path(#[source] PathError),
}

impl Context {
    /// Opens `folder`; files that match `ignore` are not there.
    pub fn open_folder(folder: &Path, ignore: Ignore) -> Result<Self, ContextError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = folder.to_owned();
        let folder = match sys::open(folder, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(rustix::io::Errno::NOTDIR) => return Err(ContextError::NoFolder { path }),
            Err(err) => return Err(ContextError::Read { path, source: err.into() }),
        };
        let inner = Inner {
            folder,
            path,
            ignore,
            known: RwLock::default(),
            kept: None,
            has_news: AtomicBool::new(false),
            filesystems: Filesystems::default(),
            clock: Clock(Box::new(stamp::now)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// As [`Context::open_folder`], and does not read again what it knows from earlier builds:
    /// that is kept in `store`.
    pub fn open_known(folder: &Path, ignore: Ignore, store: &Store) -> Result<Self, ContextError> {
        let mut context = Self::open_folder(folder, ignore)?;
        // One that cannot be named is read as if it was not known.
        if let (Ok(path), Some(inner)) = (folder.canonicalize(), Arc::get_mut(&mut context.inner)) {
            let key = Digest::of(path.as_os_str().as_bytes());
            store.note_stat_cache_use(key);
            inner.known = RwLock::new(StatCache::load(&store.stat_cache_path(key)));
            inner.kept = Some((store.clone(), key));
        }
        Ok(context)
    }

    /// The folder, as it was given.
    pub fn folder(&self) -> &Path {
        &self.inner.path
    }

    /// Whether the ignore file keeps `path` out.
    pub fn is_ignored(&self, path: &TreePath) -> bool {
        !path.is_root() && self.inner.ignore.matches(path.as_bytes())
    }

    /// Opens a file of the context; the path must not go through a link.
    pub fn open(&self, path: &TreePath) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(self.open_at(path, flags)?))
    }

    fn open_at(&self, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let folder = self.inner.folder.as_fd();
        match sys::openat2(folder, path.as_path(), flags, Mode::empty(), resolve) {
            // Kernels before 5.6 have no openat2, and some sandboxes forbid it (those that are
            // older than it say EPERM): open each folder on the way.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                self.open_by_steps(path, flags)
            }
            other => other,
        }
    }

    fn open_by_steps(&self, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = sys::openat(&self.inner.folder, ".", way, Mode::empty())?;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let name = OsStr::from_bytes(part);
            if parts.peek().is_none() {
                return sys::openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty());
            }
            folder = sys::openat(&folder, name, way, Mode::empty())?;
        }
        sys::openat(&folder, ".", flags, Mode::empty())
    }

    /// What `path` is, without following it; none if it is not there or is ignored.
    pub fn stat(&self, path: &TreePath) -> Result<Option<FileType>, ContextError> {
        if path.is_root() {
            return Ok(Some(FileType::Directory));
        }
        if self.is_ignored(path) && !self.has_exceptions(path)? {
            return Ok(None);
        }
        match self.lstat(path) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(err) => Err(self.failed(path)(err.into())),
        }
    }

    /// Whether an ignored folder is there all the same, since something in it is not ignored.
    fn has_exceptions(&self, path: &TreePath) -> Result<bool, ContextError> {
        if !self.inner.ignore.may_have_exceptions_below(path.as_bytes()) {
            return Ok(false);
        }
        match self.lstat(path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                let known = self.known();
                Ok(!walk(&self.whence(), &known, path)?.is_empty())
            }
            _ => Ok(false),
        }
    }

    fn lstat(&self, path: &TreePath) -> rustix::io::Result<Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        sys::statat(self.open_at(path, flags)?, "", AtFlags::EMPTY_PATH)
    }

    /// Follows the links on the way to `path` and at its end, inside the context as in a `chroot`.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath, ContextError> {
        let mut outside = None;
        let followed = path.follow(&mut |link, _| {
            let target = self.read_link(link)?;
            if let Some(target) = &target {
                let folder = link.parent().unwrap_or_default();
                if target.starts_with(b"/") || climbs_out(&folder, target) {
                    outside = Some((link.clone(), target.clone()));
                }
            }
            Ok(target)
        })?;
        let followed = followed.ok_or_else(|| ContextError::Loop { path: path.clone() })?;
        match outside {
            // It is a file of the host that is meant, and not one of the context.
            Some((link, target)) if self.lstat(&followed).is_err() => Err(ContextError::Outside {
                path: path.clone(),
                link,
                target: String::from_utf8_lossy(&target).into_owned(),
            }),
            _ => Ok(followed),
        }
    }

    fn read_link(&self, path: &TreePath) -> Result<Option<Vec<u8>>, ContextError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match self.open_at(path, flags) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(err) => return Err(self.failed(path)(err.into())),
        };
        match sys::readlinkat(&file, "", Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            // What is no link has no target.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(None),
            Err(err) => Err(self.failed(path)(err.into())),
        }
    }

    /// The names in a folder of the context, sorted.
    pub fn names(&self, folder: &TreePath) -> Result<Vec<Vec<u8>>, ContextError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = self.open_at(folder, flags).map_err(|err| self.failed(folder)(err.into()))?;
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(&file).map_err(|err| self.failed(folder)(err.into()))? {
            let entry = entry.map_err(|err| self.failed(folder)(err.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads what lies in or is `base`: entries with the digests of their contents.
    ///
    /// Owners are 0: whose a file of the context is says nothing about the image. Sockets are
    /// left out, as by docker.
    pub fn read(&self, base: &TreePath) -> Result<Tree, ContextError> {
        let known = self.known();
        let mut found = walk(&self.whence(), &known, base)?;
        drop(known);
        let links = other_names(&found);
        let unread = found
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| !links.contains_key(at))
            .map(|(_, it)| it);
        let unread: Vec<&mut Found> = unread.filter(|it| it.state == State::Unread).collect();
        if !unread.is_empty() {
            self.keep(readers::read(self, unread)?);
        }
        for (at, first) in links {
            let first = &found[first];
            let kind = Kind::Hardlink(first.path.clone());
            found[at].entry = Arc::new(Entry { kind, meta: first.entry.meta.clone() });
        }
        Ok(found.into_iter().map(|it| (it.path, it.entry)).collect())
    }

    /// What is read here has the paths that it has in the context.
    fn whence(&self) -> Arc<Whence> {
        let (base, target) = (TreePath::ROOT, TreePath::ROOT);
        Arc::new(Whence { context: self.clone(), base, target })
    }

    /// What was read so far.
    fn known(&self) -> RwLockReadGuard<'_, StatCache> {
        let known = self.inner.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.is_at_rest() {
            true => {
                drop(known);
                RwLockWriteGuard::downgrade(self.awake())
            }
            false => known,
        }
    }

    /// The same, to add to it.
    fn awake(&self) -> RwLockWriteGuard<'_, StatCache> {
        let mut known = self.inner.known.write().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some((store, key))) = (known.is_at_rest(), &self.inner.kept) {
            known.wake(&store.stat_cache_path(*key));
        }
        known
    }

    /// Leaves in memory only what [`Content::still`] needs, if the rest is much: what was read is
    /// kept in the store before, and read from there when it is needed again.
    pub(crate) fn rest(&self) {
        self.rest_above(MOST_KEPT);
    }

    fn rest_above(&self, most: usize) {
        let mut known = self.inner.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((store, key)) = &self.inner.kept
            && most < known.len()
        {
            if self.inner.has_news.load(Ordering::Relaxed) {
                match store.write_stat_cache(*key, &mut |out| known.write(out)) {
                    Ok(()) => self.inner.has_news.store(false, Ordering::Relaxed),
                    Err(_) => return,
                }
            }
            known.rest();
        }
    }

    /// Remembers what was read: for this build, and at its end for the next.
    fn keep(&self, records: Vec<stat_cache::Record>) {
        if records.is_empty() {
            return;
        }
        self.awake().add(records);
        self.inner.has_news.store(true, Ordering::Relaxed);
    }

    /// See [`Content::still`].
    pub(crate) fn still(&self, content: &Content, file: &File) -> io::Result<Still> {
        let stamp = Stamp::of(&sys::fstat(file)?);
        if !self.inner.filesystems.is_trusted(stamp.dev, || sys::fstatfs(file)) {
            return Ok(Still::Unknown);
        }
        let known = self.inner.known.read().unwrap_or_else(PoisonError::into_inner);
        // Another time, mode or inode may come with the same content.
        Ok(match known.proves(&stamp, content.digest) {
            true => Still::Same,
            false if stamp.is_file() && stamp.size == content.size => Still::Unknown,
            false => Still::Changed,
        })
    }

    /// What the ignore file says of `path`, judged from the root down.
    fn verdict(&self, path: &TreePath) -> Verdict {
        let mut verdict = Verdict::default();
        let mut way = TreePath::ROOT;
        for part in path.parts() {
            way = way.join(part);
            verdict = self.inner.ignore.matches_with_parent(way.as_bytes(), &verdict);
        }
        verdict
    }

    /// Reads the first bytes of a file: enough to see what kind of file it is.
    pub fn head(&self, path: &TreePath) -> Result<Vec<u8>, ContextError> {
        let mut bytes = Vec::new();
        let file = self.open(path).map_err(self.failed(path))?;
        if file.metadata().map_err(self.failed(path))?.mode() & 0o170_000 == 0o100_000 {
            file.take(512).read_to_end(&mut bytes).map_err(self.failed(path))?;
        }
        Ok(bytes)
    }

    fn failed(&self, path: &TreePath) -> impl FnOnce(io::Error) -> ContextError + use<> {
        let path = self.inner.path.join(path.as_path());
        move |source| ContextError::Read { path, source }
    }
}

impl Drop for Inner {
    /// What was read is kept when nobody reads any more, if it was not before.
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some((store, key)), true) = (&self.kept, *self.has_news.get_mut()) {
            // It is no fault of the build if it cannot be kept: the next one reads more.
            let _ = store.write_stat_cache(*key, &mut |out| known.write(out));
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.inner.path.display())
    }
}

/// Whether `target`, seen from the folder `base`, goes above the root.
fn climbs_out(base: &TreePath, target: &[u8]) -> bool {
    let mut depth = base.parts().count();
    for part in target.split(|it| *it == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The files that are other names of one that comes before them, and the place of that one.
fn other_names(found: &[Found]) -> BTreeMap<usize, usize> {
    let mut first_names = HashMap::new();
    let mut links = BTreeMap::new();
    for (at, it) in found.iter().enumerate() {
        let Some(inode) = it.inode.as_deref() else { continue };
        let first = *first_names.entry(inode).or_insert(at);
        if first != at {
            links.insert(at, first);
        }
    }
    links
}

impl Filesystems {
    fn is_trusted(&self, device: u64, ask: impl FnOnce() -> rustix::io::Result<StatFs>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_trusted) = known.get(&device) {
            return *is_trusted;
        }
        let kind = ask().ok().and_then(|it| u64::try_from(it.f_type).ok());
        let is_trusted = kind.is_some_and(stamp::is_trusted);
        known.insert(device, is_trusted);
        is_trusted
    }
}

impl Clock {
    fn now(&self) -> i64 {
        self.0()
    }
}

/// Copies with a buffer that suits small files and large ones.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<u64> {
    copy_with(from, to, &mut vec![0; 1 << 16])
}

/// Copies with a buffer that is there already.
fn copy_with(from: &mut impl Read, to: &mut impl io::Write, buffer: &mut [u8]) -> io::Result<u64> {
    let mut total = 0;
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                total += count as u64;
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

#[cfg(test)]
mod tests;
