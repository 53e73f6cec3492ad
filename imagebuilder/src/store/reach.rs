//! What is needed: all that can be reached from some digests.
//!
//! A blob or a record that is text refers to every digest that is in it, whatever it is for: so a
//! manifest keeps its config and layers, a config the contents of its layers by their `diff_id`,
//! and a step's record the layer that it made. A composed blob keeps its segments.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
};

use super::{Composed, ObjectKind, Store, StoreError, files::failed};
use crate::digest::Digest;

/// The largest blob that is looked through for digests.
const LARGEST_TEXT: u64 = 8 << 20;
/// The kinds that are found by a digest that something refers to.
const BY_DIGEST: [ObjectKind; 4] =
    [ObjectKind::Blob, ObjectKind::Composed, ObjectKind::Contents, ObjectKind::Checkpoints];

/// What was reached, and how many bytes it has.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    store: &'a Store,
    pub(super) digests: HashMap<Digest, u64>,
    pub(super) segments: HashMap<Digest, u64>,
    pub(super) size: u64,
}

impl<'a> Reach<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, digests: HashMap::new(), segments: HashMap::new(), size: 0 }
    }

    /// Whether an object is needed.
    pub(super) fn needs(&self, kind: ObjectKind, key: Digest) -> bool {
        match kind {
            ObjectKind::Segment => self.segments.contains_key(&key),
            _ => self.digests.contains_key(&key),
        }
    }

    /// Adds an object, and all that it needs.
    pub(super) fn add_object(&mut self, kind: ObjectKind, key: Digest) -> Result<(), StoreError> {
        match kind {
            ObjectKind::Segment => self.add_segment(key),
            _ => self.add(key),
        }
    }

    /// Adds all that some text refers to.
    pub(super) fn add_text(&mut self, text: &[u8]) -> Result<(), StoreError> {
        digests(text).into_iter().try_for_each(|it| self.add(it))
    }

    /// Adds all that is kept under a digest, and all that this needs.
    pub(super) fn add(&mut self, root: Digest) -> Result<(), StoreError> {
        let mut next = vec![root];
        while let Some(digest) = next.pop() {
            if self.digests.contains_key(&digest) {
                continue;
            }
            let mut size = 0;
            for kind in BY_DIGEST {
                size += self.kept(kind, digest, &mut next)?;
            }
            size += self.file(digest, &mut next)?;
            self.digests.insert(digest, size);
            self.size += size;
        }
        Ok(())
    }

    fn kept(
        &mut self,
        kind: ObjectKind,
        key: Digest,
        next: &mut Vec<Digest>,
    ) -> Result<u64, StoreError> {
        let packs = &self.store.inner.packs;
        let Some(size) = packs.size(kind, key)? else { return Ok(0) };
        if matches!(kind, ObjectKind::Contents | ObjectKind::Checkpoints) {
            return Ok(size.into());
        }
        let bytes = match packs.read(kind, key) {
            // What a damaged one needs is not known; nobody can use it.
            Err(StoreError::Damaged { .. }) | Ok(None) => return Ok(0),
            Ok(Some(bytes)) => bytes,
            Err(err) => return Err(err),
        };
        if kind == ObjectKind::Blob {
            next.extend(text_digests(&bytes));
        } else if let Some(composed) = Composed::parse(&bytes) {
            composed.segments().try_for_each(|it| self.add_segment(it))?;
        }
        Ok(size.into())
    }

    fn add_segment(&mut self, key: Digest) -> Result<(), StoreError> {
        if !self.segments.contains_key(&key) {
            let size = self.store.inner.packs.size(ObjectKind::Segment, key)?.unwrap_or_default();
            self.segments.insert(key, size.into());
            self.size += u64::from(size);
        }
        Ok(())
    }

    fn file(&self, digest: Digest, next: &mut Vec<Digest>) -> Result<u64, StoreError> {
        let path = self.store.blob(digest);
        let mut file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(failed("read", &path))?,
        };
        let size = file.metadata().map_err(failed("read", &path))?.len();
        let mut bytes = vec![0];
        let is_text = file.read(&mut bytes).map_err(failed("read", &path))? == 1 && is_json(&bytes);
        if is_text && size <= LARGEST_TEXT {
            file.read_to_end(&mut bytes).map_err(failed("read", &path))?;
            next.extend(text_digests(&bytes));
        }
        Ok(size)
    }
}

fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(b'{' | b'['))
}

fn text_digests(bytes: &[u8]) -> Vec<Digest> {
    if is_json(bytes) { digests(bytes) } else { Vec::new() }
}

/// All runs of just 64 digits.
pub(super) fn digests(text: &[u8]) -> Vec<Digest> {
    let runs = text.split(|it| !matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let runs = runs.filter(|it| it.len() == 64).filter_map(|it| str::from_utf8(it).ok());
    runs.filter_map(Digest::from_hex).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_refers_to_the_digests_in_it() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let text = format!(r#"{{"x":"{a}","y":["{}","{}0","abc"]}}"#, b.hex(), a.hex());
        assert_eq!(digests(text.as_bytes()), [a, b]);
    }
}
