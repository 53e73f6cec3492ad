//! Reads the files whose content is not known, several at once: a cold disk answers many faster
//! than one, and each is hashed by who read it.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::fs::fstat;

use super::{
    Context, ContextError, attributes, copy_with,
    stamp::Stamp,
    stat_cache::Record,
    walk::{self, Found},
};
use crate::{
    digest::{Digest, Hashing},
    tree::{Kind, TreePath, Xattrs},
};

/// How many files are read at once.
const FEWEST: usize = 4;
const MOST: usize = 8;
/// How often a file is read that changes while it is read.
const ATTEMPTS: u32 = 3;
/// What is read at once.
const BUFFER: usize = 1 << 17;

/// What one file holds.
struct Outcome {
    stamp: Stamp,
    digest: Digest,
    size: u64,
    xattrs: Xattrs,
    /// What may be kept of it, if the stamp proves it.
    record: Option<Record>,
}

/// Reads `files`, and gives what may be kept of them.
pub(super) fn read(context: &Context, files: Vec<&mut Found>) -> Result<Vec<Record>, ContextError> {
    let processors = thread::available_parallelism().map_or(FEWEST, usize::from);
    let count = processors.clamp(FEWEST, MOST).min(files.len());
    // One place for all, as large as it gets: they are many, and stay.
    let records = Mutex::new(Vec::with_capacity(files.len()));
    let files = Mutex::new(files.into_iter());
    if count == 1 {
        read_some(context, &files, &records)?;
    } else {
        thread::scope(|scope| {
            let reader = || scope.spawn(|| read_some(context, &files, &records));
            let readers: Vec<_> = (0..count).map(|_| reader()).collect();
            readers.into_iter().try_for_each(|it| match it.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
    }
    Ok(records.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Reads files until there is none left.
fn read_some<'a>(
    context: &Context,
    files: &Mutex<impl Iterator<Item = &'a mut Found>>,
    records: &Mutex<Vec<Record>>,
) -> Result<(), ContextError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let next = files.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(found) = next else { return Ok(()) };
        let Outcome { stamp, digest, size, xattrs, record } =
            read_file(context, &found.path, &mut buffer)?;
        let entry = Arc::make_mut(&mut found.entry);
        entry.meta = walk::meta(&stamp, xattrs);
        if let Kind::File(content) = &mut entry.kind {
            (content.digest, content.size) = (digest, size);
        }
        records.lock().unwrap_or_else(PoisonError::into_inner).extend(record);
    }
}

fn read_file(
    context: &Context,
    path: &TreePath,
    buffer: &mut [u8],
) -> Result<Outcome, ContextError> {
    for _ in 0..ATTEMPTS {
        let file = context.open(path).map_err(context.failed(path))?;
        if let Some(outcome) = attempt(context, file, buffer).map_err(context.failed(path))? {
            return Ok(outcome);
        }
    }
    Err(ContextError::Changing { path: path.clone() })
}

/// Reads a file from its beginning to its end; none if it is changed meanwhile.
fn attempt(context: &Context, mut file: File, buffer: &mut [u8]) -> io::Result<Option<Outcome>> {
    // The clock comes first: what is changed after it must get another ctime.
    let clock = context.inner.clock.now();
    let before = Stamp::of(&fstat(&file)?);
    if !before.is_file() {
        return Ok(None);
    }
    let xattrs = attributes::read(&file)?;
    let mut hashing = Hashing::new(io::sink());
    copy_with(&mut file, &mut hashing, buffer)?;
    hashing.flush()?;
    let (_, digest, size) = hashing.finish();
    let is_trusted =
        context.inner.filesystems.is_trusted(before.dev, || rustix::fs::fstatfs(&file));
    // Elsewhere times and sizes say nothing (a file of /proc has no size), and what is read when
    // the layer is written has to have the same digest.
    if is_trusted && (Stamp::of(&fstat(&file)?) != before || size != before.size) {
        return Ok(None);
    }
    let record = (is_trusted && before.is_settled(clock))
        .then(|| Record::new(before, digest, xattrs.clone()));
    Ok(Some(Outcome { stamp: before, digest, size, xattrs, record }))
}
