//! Random edits of a small tree: all ways in which a file can become another, the sly ones first.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use rbuild_tests::{peers, process::mortal};
use rustix::{
    fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, mknodat, renameat_with, setxattr},
    io::Errno,
};

/// A tree that is edited, and how it came to be what it is.
pub(super) struct Edited {
    random: fastrand::Rng,
    /// Where it is edited.
    folder: PathBuf,
    /// The same folder, mounted elsewhere, if it is.
    other: Option<PathBuf>,
    /// A folder beside it: its names of the same files are in no context.
    beside: PathBuf,
    mapper: Mapper,
    next: usize,
}

impl Edited {
    /// Fills `folder`, which is empty; `beside` is on the same filesystem.
    pub(super) fn new(seed: u64, folder: &Path, beside: &Path, other: Option<&Path>) -> Self {
        let mut edited = Self {
            random: fastrand::Rng::with_seed(seed),
            folder: folder.to_owned(),
            other: other.map(Path::to_owned),
            beside: beside.to_owned(),
            mapper: Mapper::new(),
            next: 0,
        };
        for name in ["keep", "keep/d", "e"] {
            fs::create_dir(folder.join(name)).expect("folder of a tree");
        }
        for _ in 0..10 {
            edited.add();
        }
        edited
    }

    /// Edits something, and says what.
    pub(super) fn edit(&mut self) -> String {
        let kind = self.random.usize(..18);
        let Some(path) = self.pick() else { return self.add() };
        let shown =
            path.strip_prefix(&self.folder).expect("path of the tree").display().to_string();
        let is_file = path.symlink_metadata().expect("file of the tree").is_file();
        let what = match kind {
            0 | 1 if is_file => self.same_size_and_time(&path),
            2 if is_file => self.same_size(&path),
            3 if is_file => self.append(&path),
            4 => self.swap(&path),
            5 => self.rename(&path),
            6 if is_file => self.mode(&path),
            7 if is_file => self.owner(&path),
            8 => self.attribute(&path),
            9 if is_file => self.link(&path),
            10 if is_file => self.replace(&path),
            11 => self.other_kind(&path),
            12 => return self.add(),
            13 => remove(&path),
            14 => self.point(&path),
            15 if is_file => self.map(&path),
            16 if is_file => self.by_another_name(&path),
            _ if is_file => self.by_another_mount(&path),
            _ => return self.add(),
        };
        format!("{what} {shown}")
    }

    /// A file, link or pipe of the tree.
    fn pick(&mut self) -> Option<PathBuf> {
        let mut found = Vec::new();
        list(&self.folder, &mut found);
        found.sort();
        self.random.choice(found)
    }

    fn fresh(&mut self) -> PathBuf {
        self.next += 1;
        let folder = ["", "keep", "keep/d", "e"][self.random.usize(..4)];
        self.folder.join(folder).join(format!("f{}", self.next))
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.random.alphanumeric() as u8).collect()
    }

    fn add(&mut self) -> String {
        let path = self.fresh();
        let length = [0, 1, 20, 600, 70_000][self.random.usize(..5)];
        fs::write(&path, self.bytes(length)).expect("file that is added");
        format!("add {}", path.display())
    }

    /// Changes one byte in place, without a change of the size.
    fn poke(&mut self, path: &Path) {
        let length = path.metadata().expect("size").len().max(1);
        let at = self.random.u64(..length);
        let byte = self.bytes(1);
        let file = OpenOptions::new().write(true).open(path).expect("file that is changed");
        file.write_all_at(&byte, at).expect("byte that is changed");
    }

    fn same_size_and_time(&mut self, path: &Path) -> &'static str {
        let before = path.metadata().expect("time");
        self.poke(path);
        restore_time(path, &before);
        "same size and time"
    }

    fn same_size(&mut self, path: &Path) -> &'static str {
        self.poke(path);
        "same size"
    }

    fn append(&mut self, path: &Path) -> &'static str {
        let bytes = self.bytes(3);
        let mut file = OpenOptions::new().append(true).open(path).expect("file that grows");
        file.write_all(&bytes).expect("bytes that are added");
        "append"
    }

    fn swap(&mut self, path: &Path) -> &'static str {
        let Some(other) = self.pick().filter(|it| it != path) else { return "nothing to swap" };
        renameat_with(CWD, path, CWD, &other, RenameFlags::EXCHANGE).expect("swap");
        "swap"
    }

    fn rename(&mut self, path: &Path) -> &'static str {
        let to = self.fresh();
        fs::rename(path, to).expect("rename");
        "rename"
    }

    fn mode(&mut self, path: &Path) -> &'static str {
        let mode = [0o600, 0o644, 0o755, 0o4755, 0o2711, 0o1600][self.random.usize(..6)];
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
        "mode"
    }

    fn owner(&mut self, path: &Path) -> &'static str {
        let owner = self.random.u32(..9);
        chown(path, Some(owner), Some(owner)).expect("owner (this needs root)");
        "owner"
    }

    fn attribute(&mut self, path: &Path) -> &'static str {
        let path = match self.random.bool() {
            true => path.parent().expect("folder of a file"),
            false if path.symlink_metadata().expect("kind").is_file() => path,
            false => return "no attribute of",
        };
        let value = self.bytes(2);
        match setxattr(path, "user.edit", &value, XattrFlags::empty()) {
            Ok(()) => "attribute",
            // tmpfs before Linux 6.6.
            Err(Errno::OPNOTSUPP) => "no attributes on the filesystem of",
            Err(err) => panic!("{err}"),
        }
    }

    fn link(&mut self, path: &Path) -> &'static str {
        let to = self.fresh();
        fs::hard_link(path, to).expect("link");
        "link"
    }

    /// Another file at the same place: of the same size, with the same time.
    fn replace(&mut self, path: &Path) -> &'static str {
        let before = path.metadata().expect("size and time");
        let length = usize::try_from(before.len()).expect("size");
        let new = self.beside.join("new");
        fs::write(&new, self.bytes(length)).expect("other file");
        restore_time(&new, &before);
        fs::rename(&new, path).expect("file that is replaced");
        "replace"
    }

    fn other_kind(&mut self, path: &Path) -> &'static str {
        fs::remove_file(path).expect("file that becomes something else");
        match self.random.usize(..4) {
            0 => symlink("keep", path).expect("link"),
            1 => {
                mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("pipe");
            }
            2 => {
                fs::create_dir(path).expect("folder");
                fs::write(path.join("in"), "in").expect("file of a folder");
            }
            _ => {
                // Often the inode that was just given back.
                let bytes = self.bytes(20);
                fs::write(path, bytes).expect("file");
            }
        }
        "other kind of"
    }

    fn point(&mut self, path: &Path) -> &'static str {
        let target = self.bytes(3);
        fs::remove_file(path).expect("file that becomes a link");
        symlink(String::from_utf8_lossy(&target).as_ref(), path).expect("link");
        "link elsewhere"
    }

    fn map(&mut self, path: &Path) -> &'static str {
        if path.metadata().expect("size").len() == 0 {
            return "nothing to map of";
        }
        self.mapper.write(path);
        "write through a mapping of"
    }

    fn by_another_name(&mut self, path: &Path) -> &'static str {
        let name = self.beside.join("name");
        fs::hard_link(path, &name).expect("another name");
        self.same_size_and_time(&name);
        fs::remove_file(name).expect("another name");
        "by another name of"
    }

    fn by_another_mount(&mut self, path: &Path) -> &'static str {
        let Some(other) = &self.other else { return self.same_size_and_time(path) };
        let inside = path.strip_prefix(&self.folder).expect("path of the tree");
        let path = other.join(inside);
        self.same_size_and_time(&path);
        "by another mount of"
    }
}

fn remove(path: &Path) -> &'static str {
    fs::remove_file(path).expect("file that is removed");
    "remove"
}

fn restore_time(path: &Path, before: &Metadata) {
    let file = OpenOptions::new().write(true).open(path).expect("file whose time is restored");
    file.set_modified(before.modified().expect("time")).expect("time that is restored");
}

/// All that is no folder, but for the files that say how to build.
fn list(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folder of a tree") {
        let path = entry.expect("name in a folder").path();
        match path.symlink_metadata().expect("kind of a file").is_dir() {
            true => list(&path, found),
            false if path.ends_with("Dockerfile") || path.ends_with(".dockerignore") => {}
            false => found.push(path),
        }
    }
}

/// A process that writes to files through shared mappings, and syncs and drops these.
struct Mapper {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Mapper {
    fn new() -> Self {
        let script = "
import mmap, random, sys
random.seed(1)
for line in sys.stdin:
    with open(line[:-1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[random.randrange(len(mapped))] = random.randrange(97, 123)
        mapped.flush()
    print(flush=True)
";
        peers::need("python3", "python3");
        let mut command = mortal("python3");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 that starts");
        let input = process.stdin.take().expect("its input");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, input, output }
    }

    fn write(&mut self, path: &Path) {
        writeln!(self.input, "{}", path.display()).expect("order to python3");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("answer of python3");
        assert_eq!(line, "\n", "a mapped file was not written");
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The name of the filesystem that a folder lies on, for the report.
pub(super) fn filesystem(folder: &Path) -> String {
    let mut mounts = String::new();
    let mut file = File::open("/proc/self/mounts").expect("/proc/self/mounts");
    file.read_to_string(&mut mounts).expect("mounts");
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.len());
    found.map_or("?", |(_, kind)| kind).to_owned()
}
