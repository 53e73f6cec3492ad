//! What an image needs: all blobs that its manifest, or its index, leads to.
//!
//! Who keeps, carries or removes an image asks here, so that all mean the same by "the image".
//!
//! **Architecture invariant:** no I/O: who walks is told what to read next, and reads it from
//! wherever the image lies.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    digest::Digest,
    image::{self, Descriptor, ImageError, Manifest},
};

/// How deep indexes may lie within indexes.
const DEEPEST: usize = 4;
/// The most manifests that an index may lead to.
const MOST_MANIFESTS: usize = 1000;
/// The most bytes that all manifests of an image may have.
const MOST_BYTES: usize = 32 << 20;

/// What one manifest or index names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Manifests, if it is an index.
    pub children: Vec<Descriptor>,
    /// Layers and config, if it is the manifest of one image.
    pub blobs: Vec<Descriptor>,
}

/// A manifest or an index, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Finds all that an image needs: [`Walk::next`] says what to read, [`Walk::give`] takes it.
#[derive(Debug)]
pub struct Walk {
    queue: VecDeque<(usize, Descriptor)>,
    seen: BTreeSet<Digest>,
    blobs: Vec<Descriptor>,
    images: Vec<Document>,
    indexes: Vec<Document>,
    bytes: usize,
}

/// All that an image needs, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct All {
    /// Layers and configs.
    pub blobs: Vec<Descriptor>,
    /// Manifests and indexes in an order in which they can be written: what names another comes
    /// after it, and the image itself is the last.
    pub documents: Vec<Document>,
}

impl Needs {
    /// Reads what a manifest or an index names.
    pub fn of(media_type: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        if image::is_index(media_type) {
            let entries = image::parse_index(bytes)?;
            let children = entries.into_iter().map(|it| it.manifest).collect();
            return Ok(Self { children, ..Self::default() });
        }
        let manifest = Manifest::parse(bytes)?;
        Ok(Self { blobs: manifest.blobs().cloned().collect(), ..Self::default() })
    }
}

impl Walk {
    /// Begins at a manifest or an index.
    pub fn new(top: Descriptor) -> Self {
        Self {
            seen: BTreeSet::from([top.digest]),
            queue: VecDeque::from([(0, top)]),
            blobs: Vec::new(),
            images: Vec::new(),
            indexes: Vec::new(),
            bytes: 0,
        }
    }

    /// The manifest or index that is to be read and given next; none if all is known.
    pub fn next(&self) -> Option<Descriptor> {
        self.queue.front().map(|(_, it)| it.clone())
    }

    /// Takes the bytes of what [`Walk::next`] said. Where its descriptor had no media type (it is
    /// not a must in old indexes), it is taken for a manifest of OCI's.
    pub fn give(&mut self, bytes: Vec<u8>) -> Result<(), ImageError> {
        let Some((depth, mut descriptor)) = self.queue.pop_front() else { return Ok(()) };
        if descriptor.media_type.is_empty() {
            image::OCI_MANIFEST.clone_into(&mut descriptor.media_type);
        }
        let media_type = &descriptor.media_type;
        let is_index = image::is_index(media_type);
        if !is_index && !image::is_manifest(media_type) {
            return Err(ImageError::MediaType(media_type.clone()));
        }
        let needs = Needs::of(media_type, &bytes)?;
        for child in needs.children {
            if self.seen.insert(child.digest) {
                self.queue.push_back((depth + 1, child));
            }
        }
        self.blobs.extend(needs.blobs.into_iter().filter(|it| self.seen.insert(it.digest)));
        self.bytes += bytes.len();
        let documents = if is_index { &mut self.indexes } else { &mut self.images };
        documents.push(Document { descriptor, bytes });
        let count = self.queue.len() + self.images.len() + self.indexes.len();
        match depth < DEEPEST && count <= MOST_MANIFESTS && self.bytes <= MOST_BYTES {
            true => Ok(()),
            false => Err(ImageError::LargeIndex),
        }
    }

    /// All that was found.
    pub fn finish(self) -> All {
        let mut documents = self.images;
        documents.extend(self.indexes.into_iter().rev());
        All { blobs: self.blobs, documents }
    }
}

impl All {
    /// The digests of all of it.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        let documents = self.documents.iter().map(|it| it.descriptor.digest);
        self.blobs.iter().map(|it| it.digest).chain(documents)
    }

    /// The digests of all of it, with their sizes in bytes.
    pub fn sizes(&self) -> impl Iterator<Item = (Digest, u64)> {
        let documents = self.documents.iter().map(|it| &it.descriptor);
        self.blobs.iter().chain(documents).map(|it| (it.digest, it.size))
    }
}

/// Finds all that an image needs, where `read` gives the bytes of a manifest at once.
pub fn all<E>(
    top: &Descriptor,
    mut read: impl FnMut(&Descriptor) -> Result<Vec<u8>, E>,
    broken: impl Fn(ImageError) -> E,
) -> Result<All, E> {
    let mut walk = Walk::new(top.clone());
    while let Some(next) = walk.next() {
        walk.give(read(&next)?).map_err(&broken)?;
    }
    Ok(walk.finish())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::image::{OCI_INDEX, OCI_MANIFEST};

    fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
        let size = bytes.len() as u64;
        Descriptor { media_type: media_type.into(), digest: Digest::of(bytes), size }
    }

    fn wire(it: &Descriptor) -> serde_json::Value {
        json!({ "mediaType": it.media_type, "digest": it.digest.to_string(), "size": it.size })
    }

    fn manifest(layers: &[&str]) -> Vec<u8> {
        let blob = |it: &&str| wire(&described("x", it.as_bytes()));
        let layers: Vec<_> = layers.iter().map(blob).collect();
        json!({ "config": blob(&"config"), "layers": layers }).to_string().into_bytes()
    }

    fn index(children: &[(&str, &[u8])]) -> Vec<u8> {
        let child = |it: &(&str, &[u8])| wire(&described(it.0, it.1));
        let children: Vec<_> = children.iter().map(child).collect();
        json!({ "manifests": children }).to_string().into_bytes()
    }

    fn found(media_type: &str, top: &[u8], others: &[&[u8]]) -> Result<All, ImageError> {
        let known: BTreeMap<_, _> =
            others.iter().chain([&top]).map(|it| (Digest::of(it), it.to_vec())).collect();
        let read = |it: &Descriptor| {
            let missing = || ImageError::MediaType(format!("missing {}", it.digest));
            known.get(&it.digest).cloned().ok_or_else(missing)
        };
        all(&described(media_type, top), read, |err| err)
    }

    #[test]
    fn what_is_named_comes_before_what_names_it() {
        let (one, two) = (manifest(&["a", "b"]), manifest(&["b", "c"]));
        let inner = index(&[(OCI_MANIFEST, &one)]);
        let outer = index(&[(OCI_INDEX, &inner), ("", &two), (OCI_MANIFEST, &one)]);
        let all = found(OCI_INDEX, &outer, &[&one, &two, &inner]).unwrap();
        assert_eq!(all.blobs.len(), 4, "a, b, c and the config, each once");
        let order: Vec<_> = all.documents.iter().map(|it| it.bytes.clone()).collect();
        assert_eq!(order[2..], [inner, outer]);
        assert_eq!(all.digests().count(), 8);
    }

    #[test]
    fn an_index_that_goes_on_and_on_is_refused() {
        let mut documents = vec![manifest(&["a"])];
        let mut media_type = OCI_MANIFEST;
        for _ in 0..DEEPEST {
            let last = documents.last().unwrap().clone();
            documents.push(index(&[(media_type, &last)]));
            media_type = OCI_INDEX;
        }
        let known: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
        let error = found(OCI_INDEX, documents.last().unwrap(), &known).unwrap_err();
        assert!(matches!(error, ImageError::LargeIndex), "{error}");
        assert!(found(OCI_INDEX, &documents[DEEPEST - 1], &known).is_ok());
        let other = index(&[("application/x", b"{}")]);
        let error = found(OCI_INDEX, &other, &[b"{}"]).unwrap_err();
        assert!(matches!(error, ImageError::MediaType(_)), "{error}");
    }
}
