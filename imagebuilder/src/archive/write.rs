//! Writes a docker archive, which `docker load`, `podman load` and `skopeo docker-archive:` read:
//! configs with their bytes as they are, layers unpacked, and `manifest.json`.

use std::{
    cell::Cell,
    collections::{BTreeMap, btree_map},
    io::{self, BufReader, Read, Write},
    path::Path,
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};

use crate::{
    bounded::Counted,
    digest::{Blob, Digest, Hashing, Verifying},
    image::{self, Compression, Image, Layer},
    layout::{self, Blobs, LayoutError, Naming, Parcel, append, failed},
    reference::Reference,
    store::{Store, StoredImage},
    unpack,
};

/// Writes images, each with what it was asked for by, as [`crate::layout::save`] has it.
///
/// Image ids and layers stay what they are; the digests of manifests are lost, since docker's
/// archives have none. Times are 0 and the order is fixed, so that the same images give the same
/// archive.
pub fn save(
    store: &Store,
    images: &[(StoredImage, String)],
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), LayoutError> {
    if let Some((_, asked)) = images.iter().find(|it| image::is_index(&it.0.media_type)) {
        return Err(LayoutError::Index { name: asked.clone() });
    }
    write(&Blobs::Store(store.clone()), &layout::parcels(store, images)?, out, path)
}

/// Writes images whose blobs lie anywhere on this machine.
pub(crate) fn write(
    blobs: &Blobs,
    parcels: &[Parcel],
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), LayoutError> {
    let mut writing = Writing { blobs, tar: tar::Builder::new(out), path, layers: BTreeMap::new() };
    // The images in order, each with its names.
    let mut items: Vec<(Image, Vec<String>)> = Vec::new();
    for Parcel { entry, .. } in parcels {
        let image = blobs.image(&entry.descriptor)?;
        let names = tag(&entry.naming);
        match items.iter_mut().find(|it| it.0.config_bytes == image.config_bytes) {
            Some(item) => item.1.extend(names),
            None => items.push((image, names.into_iter().collect())),
        }
    }
    let items = items
        .into_iter()
        .map(|(image, names)| writing.image(&image, &names))
        .collect::<Result<Vec<Value>, _>>()?;
    writing.file("manifest.json", json!(items).to_string().as_bytes())?;
    writing.tar.finish().map_err(failed("written", path))
}

/// What `RepoTags` has of a name: names as people write them, with a tag.
fn tag(naming: &Naming) -> Option<String> {
    match naming {
        Naming::Nameless => None,
        Naming::Full(name) => Some(name.to_string()),
        Naming::Text(text) => {
            let name = text.parse::<Reference>().ok().filter(|it| it.digest().is_none());
            name.map(|it| it.with_default_tag().to_string())
        }
    }
}

struct Writing<'a> {
    blobs: &'a Blobs,
    tar: tar::Builder<&'a mut dyn Write>,
    path: &'a Path,
    /// The layers that are written already.
    layers: BTreeMap<Digest, String>,
}

impl Writing<'_> {
    fn image(&mut self, image: &Image, names: &[String]) -> Result<Value, LayoutError> {
        let config = format!("{}.json", image.config_digest().hex());
        self.file(&config, &image.config_bytes)?;
        let layers = image.layers.iter().map(|it| self.layer(it)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "Config": config, "RepoTags": names, "Layers": layers }))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let mut content = bytes;
        append(&mut self.tar, name, bytes.len() as u64, &mut content)
            .map_err(failed("written", self.path))
    }

    /// Unpacks a layer twice: a tar needs to know its size before its content.
    fn layer(&mut self, layer: &Layer) -> Result<String, LayoutError> {
        let name = match self.layers.entry(layer.diff_id) {
            btree_map::Entry::Occupied(it) => return Ok(it.get().clone()),
            btree_map::Entry::Vacant(it) => {
                it.insert(format!("{}/layer.tar", layer.diff_id.hex())).clone()
            }
        };
        let size = self.size(layer)?;
        let content = self.unpacked(layer)?;
        let mut content = Verifying::new(content, layer.diff_id, size);
        append(&mut self.tar, &name, size, &mut content).map_err(failed("written", self.path))?;
        Ok(name)
    }

    /// The size of a layer when it is unpacked; its content must be what the config says.
    fn size(&self, layer: &Layer) -> Result<u64, LayoutError> {
        let wrong = |reason| LayoutError::Layer { digest: layer.digest, reason };
        let mut hashing = Hashing::new(io::sink());
        let mut content = self.unpacked(layer)?;
        io::copy(&mut content, &mut hashing).map_err(failed("read", self.blobs.path()))?;
        let (_, found, size) = hashing.finish();
        match found == layer.diff_id {
            true => Ok(size),
            false => Err(wrong("it has other content than the image's config says".to_owned())),
        }
    }

    /// A layer's content, which may be no more than is read of any layer, unless it was made here.
    fn unpacked(&self, layer: &Layer) -> Result<Box<dyn Read>, LayoutError> {
        let blob = Blob { digest: layer.digest, size: layer.size };
        let packed = Rc::new(Cell::new(0));
        let content = BufReader::new(Counted::new(self.blobs.open(blob)?, &packed));
        let content: Box<dyn Read> = match Compression::of(&layer.media_type) {
            Some(Compression::None) => Box::new(content),
            Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(content)),
            Some(Compression::Zstd) => {
                Box::new(super::zstd(content).map_err(failed("read", self.blobs.path()))?)
            }
            None => {
                let reason = format!("`{}` is not a layer's media type", layer.media_type);
                return Err(LayoutError::Layer { digest: layer.digest, reason });
            }
        };
        Ok(match self.blobs.is_composed(layer.digest) {
            true => content,
            false => Box::new(unpack::bounded(content, packed, 0)),
        })
    }
}
