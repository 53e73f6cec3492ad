//! The build context: a folder of the host, read without ever leaving it.
//!
//! **Architecture invariant:** this is the only module that reads host files for a layer. Every
//! file is opened below the context's own folder with `openat2` and `RESOLVE_BENEATH |
//! RESOLVE_NO_SYMLINKS`, so that no link, and no link that is swapped in meanwhile, leads outside.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use thiserror::Error;
use xattr::FileExt as _;

use crate::{
    digest::Hashing,
    patterns::{Ignore, Verdict},
    tree::{Content, ContentOrigin, Device, Entry, Kind, Meta, PathError, Tree, TreePath},
};

/// A folder whose files can be copied into an image.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    folder: OwnedFd,
    path: PathBuf,
    ignore: Ignore,
}

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
    /// A name is no path.
    #[error("a file of the context has a name that cannot be used")]
    Path(#[source] PathError),
}

/// What one name of a folder is, without its content.
#[derive(Clone, Debug)]
struct Found {
    path: TreePath,
    stat: Stat,
}

impl Context {
    /// Opens `folder`; files that match `ignore` are not there.
    pub fn open_folder(folder: &Path, ignore: Ignore) -> Result<Self, ContextError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = folder.to_owned();
        match sys::open(folder, flags, Mode::empty()) {
            Ok(folder) => Ok(Self { inner: Arc::new(Inner { folder, path, ignore }) }),
            Err(rustix::io::Errno::NOTDIR) => Err(ContextError::NoFolder { path }),
            Err(err) => Err(ContextError::Read { path, source: err.into() }),
        }
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
                let mut found = Vec::new();
                self.walk(path, &self.verdict(path), &mut found)?;
                Ok(!found.is_empty())
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
        let mut found = Vec::new();
        let verdict = self.verdict(base);
        self.walk(base, &verdict, &mut found)?;
        let mut tree = Tree::default();
        let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        for Found { path, stat } in found {
            let inode = (stat.st_dev, stat.st_ino);
            let shared = 1 < stat.st_nlink && FileType::from_raw_mode(stat.st_mode).is_file();
            if let Some(first) = first_names.get(&inode).filter(|_| shared) {
                let meta = tree.get(first).map(|it| it.meta.clone()).unwrap_or_default();
                tree.insert(path, Entry { kind: Kind::Hardlink(first.clone()), meta });
                continue;
            }
            if let Some(entry) = self.entry(&path, &stat)? {
                if shared {
                    first_names.insert(inode, path.clone());
                }
                tree.insert(path, entry);
            }
        }
        Ok(tree)
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

    fn walk(
        &self,
        path: &TreePath,
        verdict: &Verdict,
        found: &mut Vec<Found>,
    ) -> Result<(), ContextError> {
        let ignore = &self.inner.ignore;
        let ignored = verdict.ignored;
        if ignored && !ignore.may_have_exceptions_below(path.as_bytes()) {
            return Ok(());
        }
        let stat = self.lstat(path).map_err(|err| self.failed(path)(err.into()))?;
        let is_folder = FileType::from_raw_mode(stat.st_mode).is_dir();
        let before = found.len();
        found.push(Found { path: path.clone(), stat });
        if is_folder {
            for name in self.names(path)? {
                let path = path.join(&name);
                let verdict = ignore.matches_with_parent(path.as_bytes(), verdict);
                self.walk(&path, &verdict, found)?;
            }
        }
        // An ignored folder is there only if something in it is not ignored.
        if ignored && found.len() == before + 1 {
            found.pop();
        }
        Ok(())
    }

    fn entry(&self, path: &TreePath, stat: &Stat) -> Result<Option<Entry>, ContextError> {
        let device = || Device { major: sys::major(stat.st_rdev), minor: sys::minor(stat.st_rdev) };
        let mut xattrs = Vec::new();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let (content, attributes) = self.content(path)?;
                xattrs = attributes;
                Kind::File(content)
            }
            FileType::Directory => Kind::Folder,
            FileType::Symlink => match self.read_link(path)? {
                Some(target) => Kind::Symlink(target),
                None => return Ok(None),
            },
            FileType::CharacterDevice => Kind::CharDevice(device()),
            FileType::BlockDevice => Kind::BlockDevice(device()),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let meta = Meta {
            mode: stat.st_mode & 0o7777,
            mtime: stat.st_mtime,
            xattrs: xattrs.into_iter().collect(),
            ..Meta::default()
        };
        Ok(Some(Entry { kind, meta }))
    }

    #[expect(clippy::type_complexity, reason = "a content and its attributes, used once")]
    fn content(&self, path: &TreePath) -> Result<(Content, Vec<(Vec<u8>, Vec<u8>)>), ContextError> {
        let mut file = self.open(path).map_err(self.failed(path))?;
        let xattrs = attributes(&file).map_err(self.failed(path))?;
        let mut hashing = Hashing::new(io::sink());
        copy(&mut file, &mut hashing).map_err(self.failed(path))?;
        let (_, digest, size) = hashing.finish();
        let origin = ContentOrigin::Context(self.clone(), path.clone());
        Ok((Content { digest, size, origin }, xattrs))
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

/// Capabilities and what users set themselves: attributes that mean something in an image. Those
/// of the host's security modules, e.g., `SELinux` labels, do not.
fn attributes(file: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match file.list_xattr() {
        Ok(names) => names,
        Err(err) if err.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let mut found = Vec::new();
    for name in names {
        let bytes = name.as_bytes();
        if bytes == b"security.capability" || bytes.starts_with(b"user.") {
            let value = file.get_xattr(&name)?.unwrap_or_default();
            found.push((bytes.to_vec(), value));
        }
    }
    Ok(found)
}

/// Copies with a buffer that suits small files and large ones.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
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
mod tests {
    use std::fs;

    use super::*;

    fn context(ignore: &str, make: impl FnOnce(&Path)) -> (tempfile::TempDir, Context) {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let ignore = Ignore::parse(ignore).unwrap();
        let context = Context::open_folder(folder.path(), ignore).unwrap();
        (folder, context)
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn list(tree: &Tree) -> Vec<String> {
        tree.entries().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn ignored_files_are_not_there() {
        let (_folder, context) = context("*.log\nbuild\n!build/keep\n", |it| {
            fs::create_dir_all(it.join("build/sub")).unwrap();
            for name in ["a.log", "b", "build/keep", "build/drop", "build/sub/x"] {
                fs::write(it.join(name), name).unwrap();
            }
        });
        assert_eq!(list(&context.read(&TreePath::ROOT).unwrap()), ["", "b", "build", "build/keep"]);
        assert_eq!(context.stat(&path("a.log")).unwrap(), None);
        assert!(context.stat(&path("b")).unwrap().is_some());
    }

    #[test]
    fn hard_links_and_links_stay_what_they_are() {
        let (_folder, context) = context("", |it| {
            fs::write(it.join("a"), "x").unwrap();
            fs::hard_link(it.join("a"), it.join("b")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", it.join("l")).unwrap();
        });
        let tree = context.read(&TreePath::ROOT).unwrap();
        assert!(matches!(&tree.get(&path("a")).unwrap().kind, Kind::File(it) if it.size == 1));
        assert!(
            matches!(&tree.get(&path("b")).unwrap().kind, Kind::Hardlink(it) if *it == path("a"))
        );
        assert!(
            matches!(&tree.get(&path("l")).unwrap().kind, Kind::Symlink(it) if it == b"/etc/passwd")
        );
    }

    #[test]
    fn no_link_leads_outside() {
        let (_folder, context) = context("", |it| {
            let link = std::os::unix::fs::symlink::<&str, PathBuf>;
            fs::create_dir(it.join("d")).unwrap();
            fs::write(it.join("d/f"), "x").unwrap();
            link("d/f", it.join("inside")).unwrap();
            link("..", it.join("d/up")).unwrap();
            link("../..", it.join("d/out")).unwrap();
            link("/etc", it.join("abs")).unwrap();
            link("loop", it.join("loop")).unwrap();
            link("/d/f", it.join("rooted")).unwrap();
        });
        for (text, want) in [
            ("inside", "d/f"),
            ("d/up/d/f", "d/f"),
            ("missing", "missing"),
            ("d/out/x", "outside"),
            ("abs/passwd", "outside"),
            ("loop", "loop"),
            ("rooted", "d/f"),
        ] {
            let got = match context.resolve(&path(text)) {
                Ok(path) => path.to_string(),
                Err(ContextError::Outside { .. }) => "outside".into(),
                Err(ContextError::Loop { .. }) => "loop".into(),
                Err(err) => panic!("{err}"),
            };
            assert_eq!(got, want, "for `{text}`");
        }
        assert!(context.open(&path("inside")).is_err(), "a link is not opened");
        assert!(context.open(&path("d/up/d/f")).is_err(), "nor followed on the way");
    }

    #[test]
    fn attributes_of_the_host_alone_are_left_out() {
        let (folder, context) = context("", |it| fs::write(it.join("f"), "x").unwrap());
        xattr::set(folder.path().join("f"), "user.note", b"1").unwrap();
        let tree = context.read(&TreePath::ROOT).unwrap();
        let xattrs = &tree.get(&path("f")).unwrap().meta.xattrs;
        assert_eq!(xattrs.get(b"user.note".as_slice()), Some(&b"1".to_vec()));
    }
}
