//! Reads all that is in the store, and says what is not as it should be.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BUFFER, Composed, ObjectKind, Store, StoreError,
    files::{failed, names_in, remove, sync_folder},
    leases::Gate,
    loaded::Pack,
    records,
};
use crate::digest::{Digest, Verifying};

/// What to do with what is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Leave it.
    Leave,
    /// Remove it, so that it is made again.
    Remove,
}

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it is: a file of the store, or an object in one.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Objects in packs.
    pub objects: usize,
    /// Blobs, however they are kept.
    pub blobs: usize,
    /// Images, names, and records of steps.
    pub records: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
}

/// A check that goes through the store.
struct Check<'a> {
    store: &'a Store,
    repair: Repair,
    found: Verified,
    progress: &'a mut dyn FnMut(u64),
}

impl Store {
    /// Reads everything. `progress` is told how many bytes were read since the last time.
    pub fn verify(
        &self,
        repair: Repair,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verified, StoreError> {
        self.commit()?;
        let mut check = Check { store: self, repair, found: Verified::default(), progress };
        let mut composed = Vec::new();
        for pack in self.inner.packs.all()? {
            composed.extend(check.pack(&pack)?);
        }
        check.broken_packs()?;
        for digest in composed {
            check.composed(digest)?;
        }
        check.files()?;
        check.steps()?;
        check.images()?;
        check.names()?;
        Ok(check.found)
    }

    /// Bytes that [`Store::verify`] will read, about.
    pub fn bytes_to_verify(&self) -> Result<u64, StoreError> {
        let size = |folder: &str| -> Result<u64, StoreError> {
            let folder = self.root().join(folder);
            let names = names_in(&folder)?;
            Ok(names
                .iter()
                .filter_map(|it| fs::metadata(folder.join(it)).ok())
                .map(|it| it.len())
                .sum())
        };
        // Composed blobs are read once more, as wholes.
        Ok(2 * size("packs")? + size("blobs/sha256")?)
    }
}

impl Check<'_> {
    fn note(&mut self, what: String, reason: impl ToString) {
        self.found.damaged.push(Damage { what, reason: reason.to_string() });
    }

    fn read(&mut self, bytes: u64) {
        self.found.bytes += bytes;
        (self.progress)(bytes);
    }

    /// Reads all objects of a pack. The composed blobs in it.
    fn pack(&mut self, pack: &Arc<Pack>) -> Result<Vec<Digest>, StoreError> {
        let mut composed = Vec::new();
        let mut bad = Vec::new();
        for (at, entry) in pack.index.entries().enumerate() {
            if pack.bad.has(at) {
                continue;
            }
            let bytes = self.store.inner.packs.read_at(pack, at)?;
            // Another process may have put its objects elsewhere meanwhile.
            if bytes.is_none() && !self.store.inner.packs.is_present(pack) {
                break;
            }
            self.found.objects += 1;
            self.read(entry.length.into());
            if let Some(reason) = wrong(entry.kind, entry.key, bytes.as_deref()) {
                bad.push(at);
                let kind = format!("{:?}", entry.kind).to_lowercase();
                self.note(format!("{kind} {} in packs/{}.pack", entry.key, pack.name), reason);
            } else if entry.kind == ObjectKind::Composed {
                composed.push(entry.key);
            } else if entry.kind == ObjectKind::Blob {
                self.found.blobs += 1;
            }
        }
        if self.repair == Repair::Remove && !bad.is_empty() {
            self.store.inner.packs.mark_bad(pack, &bad)?;
        }
        Ok(composed)
    }

    fn broken_packs(&mut self) -> Result<(), StoreError> {
        for name in self.store.inner.packs.broken() {
            self.note(format!("packs/{name}.idx"), "it is no index, or was changed");
            if self.repair == Repair::Remove {
                let _gate = Gate::exclusive(self.store.root())?;
                remove(&self.store.inner.packs.path(&name, "idx"))?;
                remove(&self.store.inner.packs.path(&name, "pack"))?;
                sync_folder(&self.store.root().join("packs"))?;
            }
        }
        Ok(())
    }

    /// Reads a blob that is put together. One that lacks a segment is none.
    fn composed(&mut self, digest: Digest) -> Result<(), StoreError> {
        let object = self.store.object(ObjectKind::Composed, digest);
        let Ok(Some(bytes)) = object else { return Ok(()) };
        let Some(composed) = Composed::parse(&bytes) else { return Ok(()) };
        self.found.blobs += 1;
        let lacks = |it: &Digest| !self.store.has_object(ObjectKind::Segment, *it);
        let lacking: Vec<Digest> = composed.segments().filter(lacks).collect();
        let size = composed.size();
        let reason = match lacking.first() {
            Some(segment) => Some(format!("it lacks segment {segment}")),
            None => {
                let reader = super::composed::Reader::new(self.store.clone(), composed);
                self.content(&mut Verifying::new(reader, digest, size))?
            }
        };
        let Some(reason) = reason else { return Ok(()) };
        self.note(format!("blob {digest}"), reason);
        match self.repair {
            Repair::Remove => self.store.remove_object(ObjectKind::Composed, digest),
            Repair::Leave => Ok(()),
        }
    }

    /// What is wrong with what a reader gives.
    fn content(&mut self, reader: &mut impl io::Read) -> Result<Option<String>, StoreError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.read(count as u64),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                    return Ok(Some(err.to_string()));
                }
                Err(err) => return Err(failed("read", self.store.root())(err)),
            }
        }
    }

    fn files(&mut self) -> Result<(), StoreError> {
        for (path, name) in self.paths("blobs/sha256")? {
            let file = match fs::File::open(&path) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed("read", &path))?,
            };
            self.found.blobs += 1;
            let size = file.metadata().map_err(failed("read", &path))?.len();
            let reason = match Digest::from_hex(&name) {
                Some(digest) => self.content(&mut Verifying::new(file, digest, size))?,
                None => Some("its name is no digest".to_owned()),
            };
            self.settle("blobs/sha256", &name, &path, reason)?;
        }
        Ok(())
    }

    /// Records of steps: what is torn is none, and nothing is lost with it.
    fn steps(&mut self) -> Result<(), StoreError> {
        for (path, name) in self.paths("cache")? {
            let Ok(bytes) = fs::read(&path) else { continue };
            self.found.records += 1;
            let json = Digest::from_hex(&name).and_then(|it| records::content(it, &bytes));
            let is_whole =
                json.is_some_and(|it| serde_json::from_slice::<serde_json::Value>(it).is_ok());
            let reason = (!is_whole).then(|| "it is torn, or was changed".to_owned());
            self.settle("cache", &name, &path, reason)?;
        }
        Ok(())
    }

    fn images(&mut self) -> Result<(), StoreError> {
        for (path, name) in self.paths("images")? {
            self.found.records += 1;
            let reason = self.wrong_image(&path, &name)?;
            self.settle("images", &name, &path, reason)?;
        }
        Ok(())
    }

    /// What is wrong with an image. That it lacks layers is not: they may be in a registry.
    fn wrong_image(&self, path: &Path, name: &str) -> Result<Option<String>, StoreError> {
        let Some(digest) = Digest::from_hex(name) else {
            return Ok(Some("its name is no digest".to_owned()));
        };
        if !records::is_image(path)? {
            return Ok(Some("it is no record".to_owned()));
        }
        let mut needed = vec![digest];
        let mut seen = 0;
        while let Some(digest) = needed.pop() {
            let bytes = match self.store.read_blob(digest, crate::catalog::LARGEST_JSON) {
                Ok(bytes) => bytes,
                Err(StoreError::Io { action, path, source }) => {
                    return Err(StoreError::Io { action, path, source });
                }
                Err(err) => return Ok(Some(err.to_string())),
            };
            if seen == 0 {
                let manifest = crate::image::Manifest::parse(&bytes).ok();
                needed.extend(manifest.map(|it| it.config.digest));
            }
            seen += 1;
        }
        Ok(None)
    }

    fn names(&mut self) -> Result<(), StoreError> {
        for (path, name) in self.paths("names")? {
            self.found.records += 1;
            let reason = match records::named(&path)? {
                None => Some("it is no record".to_owned()),
                Some(digest) if self.store.image_path(digest).exists() => None,
                Some(digest) => Some(format!("it leads to {digest}, which is no image")),
            };
            self.settle("names", &name, &path, reason)?;
        }
        Ok(())
    }

    fn paths(&self, folder: &str) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let folder = self.store.root().join(folder);
        let names = names_in(&folder)?;
        Ok(names.into_iter().map(|it| (folder.join(&it), it)).collect())
    }

    /// Notes what is wrong with a file, and removes it if that is asked for.
    fn settle(
        &mut self,
        folder: &str,
        name: &str,
        path: &Path,
        reason: Option<String>,
    ) -> Result<(), StoreError> {
        // What another process removed meanwhile is not damaged.
        let Some(reason) = reason.filter(|_| path.exists()) else { return Ok(()) };
        self.note(format!("{folder}/{name}"), reason);
        if self.repair == Repair::Remove {
            remove(path)?;
            sync_folder(&self.store.root().join(folder))?;
        }
        Ok(())
    }
}

/// What is wrong with an object.
fn wrong(kind: ObjectKind, key: Digest, bytes: Option<&[u8]>) -> Option<String> {
    let Some(bytes) = bytes else { return Some("its bytes are others".to_owned()) };
    let is_right = match kind {
        ObjectKind::Blob => Digest::of(bytes) == key,
        ObjectKind::Composed => Composed::parse(bytes).is_some(),
        ObjectKind::Segment | ObjectKind::Contents | ObjectKind::Checkpoints => true,
    };
    (!is_right).then(|| "it is not what its key says".to_owned())
}
