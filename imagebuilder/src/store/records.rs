//! Small records: images, names, and what steps gave.
//!
//! Images and names are synced before they are seen. What steps gave is not: after a crash such a
//! record may be torn, and one that is not whole, or not the one that was asked for, is none.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Name, Origin, Store, StoreError, StoredImage,
    files::{failed, names_in, publish, remove, sync_folder, sync_folder_of},
    leases::Gate,
    version::foreign,
};
use crate::digest::Digest;

/// How a record of a step begins; the checksum follows.
const PREFIX: &str = "rbuild 2 ";
/// A record that was used last so long after this process began has a wrong time.
const FUTURE: Duration = Duration::from_hours(24);
/// The use of a record is noted if the last one was this long before the process began.
const USE_NOTED_EVERY: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageRecord {
    media_type: String,
    digest: String,
    size: u64,
    added: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameRecord {
    name: String,
    digest: String,
    origin: Origin,
}

impl Store {
    /// All images, the newest first.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let records: Vec<(PathBuf, ImageRecord)> = read_records(&self.root().join("images"))?;
        let mut images = Vec::new();
        for (path, record) in records {
            let digest = record.digest.parse().map_err(|_| foreign(&path, &record.digest))?;
            let ImageRecord { media_type, size, added, .. } = record;
            images.push(StoredImage { digest, size, media_type, added });
        }
        images.sort_by(|a, b| b.added.cmp(&a.added).then(a.digest.cmp(&b.digest)));
        Ok(images)
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<Name>, StoreError> {
        let records: Vec<(PathBuf, NameRecord)> = read_records(&self.root().join("names"))?;
        let mut names = records
            .into_iter()
            .map(|(path, record)| name(&path, record))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    /// What `name` (in its full form) points to.
    pub fn name(&self, full: &str) -> Result<Option<Name>, StoreError> {
        let path = self.name_path(full);
        match read_record(&path)? {
            Some(record) => name(&path, record).map(Some),
            None => Ok(None),
        }
    }

    /// The image with that manifest, if it is here.
    pub fn image(&self, digest: Digest) -> Result<Option<StoredImage>, StoreError> {
        let record: Option<ImageRecord> = read_record(&self.image_path(digest))?;
        Ok(record.map(|ImageRecord { media_type, size, added, .. }| StoredImage {
            digest,
            size,
            media_type,
            added,
        }))
    }

    /// Notes that a manifest, whose blobs are all here, is an image. Commits what was added.
    pub fn add_image(&self, image: &StoredImage) -> Result<(), StoreError> {
        let gate = Gate::shared(self.root())?;
        super::lock(&self.inner.images).insert(image.digest);
        let had_pack = self.inner.packs.is_pending();
        self.commit_inside(&gate)?;
        let path = self.image_path(image.digest);
        if self.image(image.digest)?.is_some() {
            // It is used now; and whoever made it may not have synced it yet.
            note_use(&path);
            return Ok(());
        }
        // What another process made may not be on the disk yet. A commit syncs the packs' folder.
        if !had_pack {
            sync_folder(&self.root().join("packs"))?;
        }
        self.sync_found_files()?;
        let StoredImage { digest, size, media_type, added } = image.clone();
        let record = ImageRecord { media_type, digest: digest.to_string(), size, added };
        self.write_record(&path, &record)?;
        self.note_synced(digest);
        Ok(())
    }

    /// Points `name` to an image, in place of what it pointed to.
    pub fn add_name(&self, name: &Name) -> Result<(), StoreError> {
        let _gate = Gate::shared(self.root())?;
        if self.name(&name.name)?.as_ref() == Some(name) {
            return Ok(());
        }
        if !self.is_synced(name.digest) {
            sync_folder(&self.root().join("images"))?;
        }
        // It may have been removed since it was found.
        if self.image(name.digest)?.is_none() {
            return Err(StoreError::Missing(name.digest));
        }
        let Name { name, digest, origin } = name.clone();
        let path = self.name_path(&name);
        self.write_record(&path, &NameRecord { name, digest: digest.to_string(), origin })
    }

    /// Forgets a name.
    pub fn remove_name(&self, full: &str) -> Result<(), StoreError> {
        remove_last(&self.name_path(full))
    }

    /// Forgets an image; its blobs stay.
    pub fn remove_image(&self, digest: Digest) -> Result<(), StoreError> {
        remove_last(&self.image_path(digest))
    }

    /// What was remembered under `key`, if anything.
    pub fn recall<T: DeserializeOwned>(&self, key: Digest) -> Result<Option<T>, StoreError> {
        let path = self.root().join("cache").join(key.hex());
        let bytes = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("read", &path))?,
        };
        // An entry of another version is no entry.
        let found = content(key, &bytes).and_then(|it| serde_json::from_slice(it).ok());
        let last = fs::metadata(&path).and_then(|it| it.modified());
        if found.is_some() && last.is_ok_and(|it| is_long_before(it, self.start())) {
            note_use(&path);
        }
        Ok(found)
    }

    /// Remembers a value under `key`. Not synced: it is a hint, and after a crash it may be gone.
    pub fn remember<T: Serialize>(&self, key: Digest, value: &T) -> Result<(), StoreError> {
        let path = self.root().join("cache").join(key.hex());
        let bytes = to_json(&path, value)?;
        let (mut file, temporary) = self.temporaries().file()?;
        let head = format!("{PREFIX}{:032x}\n", checksum(key, &bytes));
        let written = file.write_all(&[head.as_bytes(), &bytes].concat());
        written.map_err(failed("write", &temporary.path))?;
        temporary.rename(&path)
    }

    pub(super) fn image_path(&self, digest: Digest) -> PathBuf {
        self.root().join("images").join(digest.hex())
    }

    pub(super) fn name_path(&self, full: &str) -> PathBuf {
        self.root().join("names").join(Digest::of(full.as_bytes()).hex())
    }

    fn write_record<T: Serialize>(&self, path: &Path, record: &T) -> Result<(), StoreError> {
        let bytes = to_json(path, record)?;
        let (mut file, temporary) = self.temporaries().file()?;
        file.write_all(&bytes).map_err(failed("write", &temporary.path))?;
        publish(&file, temporary, path)
    }
}

/// Whether the use of a record is to be noted again: also if its time is one that is yet to come.
fn is_long_before(last: SystemTime, start: SystemTime) -> bool {
    last.checked_add(USE_NOTED_EVERY).is_none_or(|it| it < start) || FUTURE < since(start, last)
}

/// How much `last` is behind `start`.
fn since(start: SystemTime, last: SystemTime) -> Duration {
    last.duration_since(start).unwrap_or_default()
}

/// The content of a record of a step, if it is whole and the one that was asked for.
pub(super) fn content(key: Digest, bytes: &[u8]) -> Option<&[u8]> {
    let Some(rest) = bytes.strip_prefix(PREFIX.as_bytes()) else {
        // Layout 1 synced its records, and had no checksums.
        return Some(bytes);
    };
    let (sum, rest) = rest.split_at_checked(32)?;
    let json = rest.strip_prefix(b"\n")?;
    (format!("{:032x}", checksum(key, json)).as_bytes() == sum).then_some(json)
}

fn checksum(key: Digest, json: &[u8]) -> u128 {
    xxh3_128(&[key.as_bytes(), json].concat())
}

/// Notes that a file was used now. It is not worth an error if that cannot be noted.
pub(super) fn note_use(path: &Path) {
    let _ = rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &rustix::fs::Timestamps { last_access: NOW, last_modification: NOW },
        rustix::fs::AtFlags::empty(),
    );
}

const NOW: rustix::fs::Timespec =
    rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };

/// Sets when a file was used last.
#[cfg(test)]
pub(super) fn set_use(path: &Path, time: SystemTime) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
}

/// When a file was used last; none if it is gone.
pub(super) fn last_use(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    match fs::metadata(path).and_then(|it| it.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(failed("read", path)(err)),
    }
}

fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Record { path: path.to_owned(), source })
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StoreError::Record { path: path.to_owned(), source }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(failed("read", path)(err)),
    }
}

/// All records of a folder, with their files.
fn read_records<T: DeserializeOwned>(folder: &Path) -> Result<Vec<(PathBuf, T)>, StoreError> {
    let mut records = Vec::new();
    for name in names_in(folder)? {
        let path = folder.join(name);
        if let Some(record) = read_record(&path)? {
            records.push((path, record));
        }
    }
    Ok(records)
}

/// Whether the record of an image can be read.
pub(super) fn is_image(path: &Path) -> Result<bool, StoreError> {
    match read_record::<ImageRecord>(path) {
        Err(StoreError::Record { .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

/// What a name's record leads to; none if it is damaged.
pub(super) fn named(path: &Path) -> Result<Option<Digest>, StoreError> {
    match read_record::<NameRecord>(path) {
        Err(StoreError::Record { .. }) => Ok(None),
        other => Ok(other?.and_then(|it| it.digest.parse().ok())),
    }
}

fn remove_last(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        return Ok(());
    }
    remove(path)?;
    sync_folder_of(path)
}

fn name(path: &Path, record: NameRecord) -> Result<Name, StoreError> {
    let digest = record.digest.parse().map_err(|_| foreign(path, &record.digest))?;
    Ok(Name { name: record.name, digest, origin: record.origin })
}
