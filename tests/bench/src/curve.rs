//! How compressors trade time for size, and what layers cost beside them, on trees of this machine.
//!
//! `cargo run --profile ci --locked -p rbuild-bench curve [MEGABYTES | FOLDER]`
//!
//! Each tree is cut into segments of 1 MiB, as layers are. One thread is measured by the time that
//! it was on a processor, so that other work on the machine does not count; all threads by the
//! clock. Sizes stand beside that of `gzip -6` of the same tar in the same run.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rbuild_imagebuilder::{
    context::Context,
    digest::Digest,
    layer::{
        self, Job, Options, Reuse, Stats,
        compress::{BackEnd, Compressor},
    },
    patterns::Ignore,
    store::Store,
    tree::{Kind, Tree, TreePath},
};

use crate::report;

const SEGMENT: usize = 1 << 20;
/// The most bytes of a tree, in megabytes, if nothing else is asked for.
const MOST: u64 = 100;

/// Folders of this machine that look like what is put into images.
const TREES: [(&str, &[&str]); 4] = [
    ("node_modules", &["/usr/lib/node_modules", "/usr/share/nodejs"]),
    ("site-packages and documents", &["/usr/lib/python3", "/usr/share/doc"]),
    ("JVM: jars and classes", &["/usr/share/java", "/usr/share/maven-repo"]),
    ("binaries", &["/usr/bin", "/usr/lib/x86_64-linux-gnu"]),
];

const BACK_ENDS: [BackEnd; 16] = [
    BackEnd::Libdeflate(1),
    BackEnd::Libdeflate(2),
    BackEnd::Libdeflate(3),
    BackEnd::Libdeflate(4),
    BackEnd::Libdeflate(5),
    BackEnd::Libdeflate(6),
    BackEnd::Libdeflate(9),
    BackEnd::Libdeflate(12),
    BackEnd::ZlibRs(1),
    BackEnd::ZlibRs(3),
    BackEnd::ZlibRs(4),
    BackEnd::ZlibRs(6),
    BackEnd::Zstd(1),
    BackEnd::Zstd(3),
    BackEnd::Zstd(9),
    BackEnd::Stored,
];

/// Prints a table for each tree, or for the folder that is asked for.
pub(crate) fn run(place: &Path, asked: Option<OsString>) -> io::Result<()> {
    let number = asked.as_ref().and_then(|it| it.to_str()).and_then(|it| it.parse::<u64>().ok());
    if let (Some(folder), None) = (&asked, number) {
        return measure("as asked", place, Path::new(folder));
    }
    for (name, folders) in TREES {
        let files = files(folders, number.unwrap_or(MOST) * 1_000_000)?;
        if files.is_empty() {
            report(&format!("\n{name}: nothing of that kind on this machine"));
            continue;
        }
        let folder = place.join("tree");
        copy(&files, &folder)?;
        measure(name, place, &folder)?;
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn measure(name: &str, place: &Path, folder: &Path) -> io::Result<()> {
    let tar = place.join("tree.tar");
    succeed(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(folder).arg("."))?;
    layers(place, folder)?;
    table(name, &tar)?;
    fs::remove_file(&tar)
}

/// Files below the folders, in the order of their names, until there are enough bytes.
fn files(folders: &[&str], most: u64) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // Of several folders, each has its share.
    let share = most / folders.iter().filter(|it| Path::new(it).exists()).count().max(1) as u64;
    for folder in folders.iter().filter(|it| Path::new(it).exists()) {
        let mut listing = Command::new("find");
        listing.args([folder, "-type", "f", "-readable", "-print0"]);
        let output = listing.output()?.stdout;
        let mut paths: Vec<&[u8]> =
            output.split(|it| *it == 0).filter(|it| !it.is_empty()).collect();
        paths.sort_unstable();
        let mut size = 0;
        for path in paths {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            size += fs::metadata(&path)?.len();
            if share < size {
                break;
            }
            found.push(path);
        }
    }
    Ok(found)
}

fn copy(files: &[PathBuf], folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    let mut child = Command::new("xargs")
        .args(["-0", "cp", "--parents", "--preserve=timestamps", "-t"])
        .arg(folder)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    for file in files {
        input.write_all(file.as_os_str().as_bytes())?;
        input.write_all(&[0])?;
    }
    drop(input);
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("the tree could not be copied")),
    }
}

fn succeed(command: &mut Command) -> io::Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?} failed"))),
    }
}

fn table(name: &str, tar: &Path) -> io::Result<()> {
    let start = Instant::now();
    let gzip = Command::new("gzip").arg("-6c").arg(tar).output()?.stdout.len();
    let time = start.elapsed();
    let bytes = fs::read(tar)?;
    let all = thread::available_parallelism()?.get();
    report(&format!("\n{name}: {:.0} MB of tar", megabytes(bytes.len())));
    report(&format!("| back end | MB/s, 1 thread | MB/s, {all} threads | size of gzip -6 |"));
    report("| --- | --- | --- | --- |");
    let alone = speed(bytes.len(), time);
    report(&format!("| gzip -6 (by the clock) | {alone:.0} | | 1.000 |"));
    for back_end in BACK_ENDS {
        let start = on_processor()?;
        let size = compress(back_end, &bytes, 1)?;
        let one = on_processor()?.saturating_sub(start);
        let start = Instant::now();
        compress(back_end, &bytes, all)?;
        let wall = start.elapsed();
        let ratio = ratio(size, gzip);
        let (one, many) = (speed(bytes.len(), one), speed(bytes.len(), wall));
        report(&row(&back_end.to_string(), one, many, ratio));
    }
    Ok(())
}

fn row(name: &str, one: f64, many: f64, ratio: f64) -> String {
    format!("| {name} | {one:.0} | {many:.0} | {ratio:.3} |")
}

/// Compresses all segments, and gives the size of what comes out.
fn compress(back_end: BackEnd, bytes: &[u8], threads: usize) -> io::Result<usize> {
    let segments: Vec<&[u8]> = bytes.chunks(SEGMENT).collect();
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<usize> {
        let mut compressor = Compressor::new(back_end)?;
        let mut size = 0;
        while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            size += compressor.compress(segment)?.len();
        }
        Ok(size)
    };
    if threads == 1 {
        return work();
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|it| it.join().unwrap_or(Ok(0))).sum()
    })
}

/// The time that this thread was on a processor (`/proc/thread-self/schedstat`, the first number).
fn on_processor() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().and_then(|it| it.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| io::Error::other("the kernel does not tell the time of threads"))
}

/// Layers of the same tree: the first, the same again, and with one file changed.
fn layers(place: &Path, folder: &Path) -> io::Result<()> {
    let ignore = Ignore::parse("").map_err(io::Error::other)?;
    let context = Context::open_folder(folder, ignore).map_err(io::Error::other)?;
    let tree = context.read(&TreePath::ROOT).map_err(io::Error::other)?;
    let root = place.join("store");
    let store = Store::open(&root).map_err(io::Error::other)?;
    let (entries, format) = (tree.len(), Options::default().format());
    report(&format!("\n{entries} entries as a layer ({format}), by the clock:"));
    let files: Vec<&TreePath> =
        tree.entries().filter(|(_, it)| matches!(it.kind, Kind::File(_))).map(|it| it.0).collect();
    let touched = |path: Option<&&TreePath>| {
        let mut touched = tree.clone();
        if let Some(entry) = path.and_then(|it| touched.get_mut(it)) {
            entry.meta.mtime += 1;
        }
        touched
    };
    for (what, tree) in [
        ("cold", tree.clone()),
        ("the same", tree.clone()),
        ("the last file touched", touched(files.last())),
        ("the first file touched", touched(files.first())),
    ] {
        let start = Instant::now();
        let size = write(&store, &tree)?;
        let wall = start.elapsed();
        report(&format!("  {what:<24} {:8.1} ms, {size} bytes", wall.as_secs_f64() * 1e3));
    }
    fs::remove_dir_all(root)
}

fn write(store: &Store, tree: &Tree) -> io::Result<u64> {
    let like = Digest::of(b"curve");
    let progress = &mut |_| ();
    let mut job = Job {
        store,
        options: Options::default(),
        like,
        reuse: Reuse::Stored,
        stats: Stats::default(),
        uploads: None,
        progress,
    };
    Ok(layer::write(tree, &mut job).map_err(io::Error::other)?.size)
}

fn speed(bytes: usize, time: Duration) -> f64 {
    megabytes(bytes) / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(size: usize, other: usize) -> f64 {
    size as f64 / other as f64
}
