//! Writes images as a folder: the lock, the files that appear as a whole, and the index.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::{IMAGE_NAME, LAYOUT, LayoutError, REF_NAME, TEMPORARY, blob_path, failed, full_name};
use crate::{
    config::Platform,
    digest::{Blob, Digest, Verifying},
    image::{self, Descriptor},
    reference::Reference,
    store::StoreError,
    unique,
};

/// Which side of a copy failed: what is read may be a wrong argument, what is written a full disk.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// The side that is read.
    Read(io::Error),
    /// The side that is written.
    Write(io::Error),
}

/// What an index of a layout says of one image.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its manifest or index.
    pub(crate) descriptor: Descriptor,
    /// What it is for, if it is one image.
    pub(crate) platform: Option<Platform>,
    /// What it is called.
    pub(crate) naming: Naming,
}

/// How an image is called in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Not at all.
    Nameless,
    /// By a full name: its tag is what tools look for, unless another image has that tag.
    Full(Reference),
    /// By this text: it is what tools look for; and by the full name, if it is one.
    Text(String),
}

/// A layout that is being written, under the lock of its folder.
#[derive(Debug)]
pub(crate) struct Writing {
    folder: PathBuf,
    entries: Vec<Value>,
    // Closing the folder gives the lock back.
    locked: File,
}

/// A file of a layout that has no name of its own yet. It is removed if it does not get one.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    done: bool,
}

impl Writing {
    /// Takes the lock, and reads what is there already. A folder with something else in it is left
    /// alone.
    pub(crate) fn begin(folder: &Path) -> Result<Self, LayoutError> {
        if fs::metadata(folder).is_ok_and(|it| !it.is_dir()) {
            return Err(LayoutError::Occupied { path: folder.to_owned() });
        }
        fs::create_dir_all(folder).map_err(failed("written", folder))?;
        let locked = lock(folder)?;
        clear_leftovers(folder);
        let entries = existing(folder)?;
        write_whole(folder, "oci-layout", LAYOUT.as_bytes())?;
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("written", &blobs))?;
        Ok(Self { folder: folder.to_owned(), entries, locked })
    }

    /// Whether a blob is there, and what it should be: others may have written the layout, and a
    /// disk may have lost some of it. It is read for that.
    pub(crate) fn has(&self, blob: Blob) -> bool {
        let path = blob_path(&self.folder, blob.digest);
        let fits = |it: fs::Metadata| it.is_file() && it.len() == blob.size;
        fs::metadata(&path).is_ok_and(fits)
            && File::open(&path).is_ok_and(|file| {
                let mut content = Verifying::new(file, blob.digest, blob.size);
                copy(&mut content, &mut io::sink()).is_ok()
            })
    }

    /// Copies a blob, unless it is there; `content` verifies it. What is there in its place goes.
    pub(crate) fn copy(&self, blob: Blob, content: &mut impl Read) -> Result<(), LayoutError> {
        if self.has(blob) {
            return Ok(());
        }
        let path = blob_path(&self.folder, blob.digest);
        publish(&self.folder, content, &path).map_err(|err| match err {
            CopyError::Read(err) => {
                StoreError::Damaged { expected: blob.digest, reason: err.to_string() }.into()
            }
            CopyError::Write(err) => failed("written", &path)(err),
        })
    }

    /// A file for a blob that comes in pieces.
    pub(crate) fn part(&self) -> io::Result<Part> {
        Part::new(&self.folder)
    }

    /// Where a blob goes when it is whole.
    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        blob_path(&self.folder, digest)
    }

    /// Adds an image whose blobs are there.
    pub(crate) fn put(&mut self, entry: &Entry) {
        put(&mut self.entries, entry);
    }

    /// Writes the index, which makes all visible.
    pub(crate) fn finish(self) -> Result<(), LayoutError> {
        for path in [self.folder.join("blobs/sha256"), self.folder.join("blobs")] {
            File::open(&path).and_then(|it| it.sync_all()).map_err(failed("written", &path))?;
        }
        write_whole(&self.folder, "index.json", &index(&self.entries))?;
        self.locked.sync_all().map_err(failed("written", &self.folder))
    }
}

impl Part {
    fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{TEMPORARY}{}", unique::name()));
        let file = File::create_new(&path)?;
        Ok(Self { path, file, done: false })
    }

    /// Syncs it, and gives it its name.
    pub(crate) fn publish(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.done = true;
        Ok(())
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            // What stays behind is cleared by who writes this layout next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits until nobody else writes the layout; the lock goes when the folder is closed.
fn lock(folder: &Path) -> Result<File, LayoutError> {
    let file = File::open(folder).map_err(failed("read", folder))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|err| failed("written", folder)(err.into()))?;
    Ok(file)
}

/// Removes what a killed rbuild left half-written, which nobody else is writing under the lock.
fn clear_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_whole(folder: &Path, name: &str, mut bytes: &[u8]) -> Result<(), LayoutError> {
    let path = folder.join(name);
    publish(folder, &mut bytes, &path).map_err(|err| err.at(&path, &path))
}

/// Writes under a name of its own in `folder`, syncs, renames: `path` is there as a whole or not.
fn publish(folder: &Path, content: &mut impl Read, path: &Path) -> Result<(), CopyError> {
    let mut part = Part::new(folder).map_err(CopyError::Write)?;
    copy(content, &mut part)?;
    part.publish(path).map_err(CopyError::Write)
}

/// Copies all that there is to read.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(CopyError::Write)?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(CopyError::Read(err)),
        }
    }
}

impl CopyError {
    /// Says which file it was.
    pub(crate) fn at(self, from: &Path, to: &Path) -> LayoutError {
        match self {
            Self::Read(err) => failed("read", from)(err),
            Self::Write(err) => failed("written", to)(err),
        }
    }
}

fn existing(folder: &Path) -> Result<Vec<Value>, LayoutError> {
    let occupied = || LayoutError::Occupied { path: folder.to_owned() };
    match fs::read(folder.join("index.json")) {
        Ok(bytes) => {
            let mut index: Value = serde_json::from_slice(&bytes).map_err(|_| occupied())?;
            match index["manifests"].take() {
                Value::Array(entries) => Ok(entries),
                _ => Err(occupied()),
            }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            // A layout without an index is one that was killed before its end.
            let is_begun = folder.join("oci-layout").exists();
            let mut files = fs::read_dir(folder).map_err(failed("read", folder))?;
            match is_begun || files.next().is_none() {
                true => Ok(Vec::new()),
                false => Err(occupied()),
            }
        }
        Err(err) => Err(failed("read", folder)(err)),
    }
}

/// Adds an image in place of the one of that name. Without a name it is there only if it is not
/// there with one.
pub(super) fn put(entries: &mut Vec<Value>, new: &Entry) {
    let digest = new.descriptor.digest.to_string();
    let is_same = |it: &Value| it["digest"] == *digest;
    let is_nameless =
        |it: &Value| annotation(it, REF_NAME).or(annotation(it, IMAGE_NAME)).is_none();
    let (full, text) = match &new.naming {
        Naming::Nameless => {
            if !entries.iter().any(is_same) {
                entries.push(index_entry(new));
            }
            return;
        }
        Naming::Full(name) => (Some(name.clone()), None),
        Naming::Text(text) => (full_name(None, Some(text)), Some(text)),
    };
    entries.retain(|it| {
        let other = full_name(annotation(it, IMAGE_NAME), annotation(it, REF_NAME));
        let same_name = full.is_some() && other == full;
        let same_text = text.is_some_and(|text| annotation(it, REF_NAME) == Some(text));
        let replaced = is_same(it) && is_nameless(it);
        !(same_name || same_text || replaced)
    });
    let mut entry = index_entry(new);
    entry["annotations"] = annotations(entries, full.as_ref(), text.map(String::as_str));
    entries.push(entry);
}

fn annotations(entries: &[Value], full: Option<&Reference>, text: Option<&str>) -> Value {
    let Some(full) = full else { return json!({ REF_NAME: text.unwrap_or_default() }) };
    let canonical = full.canonical();
    let is_free = |tag: &&str| entries.iter().all(|it| annotation(it, REF_NAME) != Some(tag));
    let ref_name = text.or(full.tag().filter(is_free)).unwrap_or(&canonical);
    json!({ IMAGE_NAME: canonical, REF_NAME: ref_name })
}

pub(super) fn annotation<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry["annotations"][key].as_str()
}

fn index_entry(new: &Entry) -> Value {
    let Descriptor { media_type, digest, size } = &new.descriptor;
    let mut entry = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
    if let Some(Platform { os, architecture }) = &new.platform {
        entry["platform"] = json!({ "architecture": architecture, "os": os });
    }
    entry
}

/// The bytes of an index of these entries.
pub(super) fn index(entries: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": image::OCI_INDEX, "manifests": entries });
    index.to_string().into_bytes()
}
