//! The images of a store: add, find, list and remove them.
//!
//! **Architecture invariant:** an image is added after its last blob, and a name after its image;
//! on removal it is the other way round. So what a name points to is always whole.

use thiserror::Error;

use crate::{
    config::Platform,
    digest::Digest,
    image::{self, Image, ImageError, IndexEntry, Manifest},
    layout,
    reference::{Reference, ReferenceError},
    store::{Name, Origin, Store, StoreError, StoredImage},
};

/// The largest manifest or config that is read: ECR's limit is 4 MiB.
pub const LARGEST_JSON: u64 = 8 << 20;
/// The fewest digits of an image's digest that stand for all of it.
const FEWEST_DIGITS: usize = 6;

/// An image as people see it in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The image.
    pub image: StoredImage,
    /// What it is called, if anything.
    pub names: Vec<Reference>,
    /// What it holds; none if it is damaged.
    pub content: Option<Content>,
}

/// What a name of the store may mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// One image.
    Image(Image),
    /// An index of images for several platforms; those of them that are in the store have their
    /// image here too.
    Index(Vec<(IndexEntry, Option<Image>)>),
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<String>,
    /// The image that is gone with its last name, if it is.
    pub image: Option<Digest>,
    /// Bytes of blobs that nothing needed any more.
    pub freed: u64,
}

/// Why an image was not found, or cannot be removed.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text is neither a name nor a digest.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// There is no such image.
    #[error("there is no image `{0}` in the store")]
    NotFound(String),
    /// There is no image of that name, and it is too short for a digest.
    #[error(
        "there is no image `{0}` in the store; a digest is known by {FEWEST_DIGITS} digits or more"
    )]
    FewDigits(String),
    /// Several images' digests begin so.
    #[error("several images have a digest that begins with `{0}`")]
    Ambiguous(String),
    /// It is an index where one image is needed.
    #[error("{0} is an index of images for several platforms, and not one image")]
    Index(Digest),
    /// An image in the store is damaged.
    #[error("image {digest} in the store is damaged")]
    Damaged {
        /// The image.
        digest: Digest,
        /// What is wrong with it.
        source: ImageError,
    },
    /// An image is asked to go by its digest, and has several names.
    #[error("image {digest} has several names: {}", names.join(", "))]
    SeveralNames {
        /// The image.
        digest: Digest,
        /// Its names.
        names: Vec<String>,
    },
}

/// Adds an image whose layers are in the store already.
pub fn add(store: &Store, image: &Image, added: u64) -> Result<StoredImage, StoreError> {
    store.write_blob(&image.config_bytes)?;
    let blob = store.write_blob(&image.manifest)?;
    let stored = StoredImage {
        digest: blob.digest,
        size: blob.size,
        media_type: image.media_type.clone(),
        added,
    };
    store.add_image(&stored)?;
    Ok(stored)
}

/// Gives an image a name, which it takes from the one that had it.
pub fn tag(
    store: &Store,
    reference: &Reference,
    digest: Digest,
    origin: Origin,
) -> Result<(), StoreError> {
    let name = reference.clone().with_default_tag().canonical();
    store.add_name(&Name { name, digest, origin })
}

/// Reads an image's manifest and config; its layers are looked at, not read.
pub fn load(store: &Store, digest: Digest) -> Result<Image, CatalogError> {
    let stored = store.image(digest)?.ok_or_else(|| CatalogError::NotFound(digest.to_string()))?;
    match image::is_index(&stored.media_type) {
        true => Err(CatalogError::Index(digest)),
        false => read_image(store, digest, &stored.media_type),
    }
}

fn read_image(store: &Store, digest: Digest, media_type: &str) -> Result<Image, CatalogError> {
    let damaged = |source| CatalogError::Damaged { digest, source };
    let manifest = store.read_blob(digest, LARGEST_JSON)?;
    let parsed = Manifest::parse(&manifest).map_err(damaged)?;
    let config = store.read_blob(parsed.config.digest, LARGEST_JSON)?;
    Image::parse(media_type, manifest, config).map_err(damaged)
}

/// Reads an image or an index; of an index, also those of its images that are here.
pub fn content(store: &Store, stored: &StoredImage) -> Result<Content, CatalogError> {
    if !image::is_index(&stored.media_type) {
        return load(store, stored.digest).map(Content::Image);
    }
    let images = entries(store, stored)?.into_iter().map(|entry| {
        let it = &entry.manifest;
        let read = || read_image(store, it.digest, &it.media_type).map(Some);
        // An index that is kept whole has them all; but what is no image has no config.
        let is_here = image::is_manifest(&it.media_type) && store.has(it.digest, it.size)?;
        let image = if is_here { read().or_else(none_if_damaged)? } else { None };
        Ok((entry, image))
    });
    images.collect::<Result<_, _>>().map(Content::Index)
}

fn entries(store: &Store, index: &StoredImage) -> Result<Vec<IndexEntry>, CatalogError> {
    let digest = index.digest;
    let bytes = store.read_blob(digest, LARGEST_JSON)?;
    image::parse_index(&bytes).map_err(|source| CatalogError::Damaged { digest, source })
}

fn none_if_damaged<T>(err: CatalogError) -> Result<Option<T>, CatalogError> {
    match err {
        CatalogError::Damaged { .. }
        | CatalogError::Store(StoreError::Damaged { .. } | StoreError::Missing(_)) => Ok(None),
        err => Err(err),
    }
}

/// The image that an index of the store has for `platform`, which becomes one of its own; what is
/// no index is itself. None if the index has none, or has it elsewhere.
pub fn choose(
    store: &Store,
    stored: StoredImage,
    platform: &Platform,
) -> Result<Option<StoredImage>, CatalogError> {
    if !image::is_index(&stored.media_type) {
        return Ok(Some(stored));
    }
    let entries = entries(store, &stored)?;
    let Some(entry) = layout::select(&entries, platform) else { return Ok(None) };
    let image::Descriptor { media_type, digest, size } = entry.manifest.clone();
    if !image::is_manifest(&media_type) || !store.has(digest, size)? {
        return Ok(None);
    }
    let chosen = StoredImage { digest, size, media_type, added: stored.added };
    store.add_image(&chosen)?;
    Ok(Some(chosen))
}

/// Whether all blobs of an image are in the store.
pub fn is_whole(store: &Store, image: &Image) -> Result<bool, StoreError> {
    for layer in &image.layers {
        if !store.has(layer.digest, layer.size)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Finds an image by its name, its digest, or the first digits of its digest or its config's.
pub fn find(store: &Store, text: &str) -> Result<StoredImage, CatalogError> {
    if let Some(image) = find_named(store, text)? {
        return Ok(image);
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && (1..FEWEST_DIGITS).contains(&digits.len()) {
        return Err(CatalogError::FewDigits(text.to_owned()));
    }
    if !is_hex || digits.is_empty() {
        // Say what is wrong with a name that is none.
        if !text.starts_with("sha256:") {
            text.parse::<Reference>()?;
        }
        return Err(CatalogError::NotFound(text.to_owned()));
    }
    let mut found = Vec::new();
    for image in store.images()? {
        if image.digest.hex().starts_with(digits) || config_starts_with(store, &image, digits) {
            found.push(image);
        }
    }
    match found.len() {
        0 => Err(CatalogError::NotFound(text.to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(CatalogError::Ambiguous(text.to_owned())),
    }
}

fn config_starts_with(store: &Store, image: &StoredImage, digits: &str) -> bool {
    load(store, image.digest).is_ok_and(|it| it.config_digest().hex().starts_with(digits))
}

fn find_named(store: &Store, text: &str) -> Result<Option<StoredImage>, CatalogError> {
    let Ok(reference) = text.parse::<Reference>() else { return Ok(None) };
    let digest = match reference.digest() {
        Some(digest) => Some(digest),
        None => {
            let name = reference.with_default_tag().canonical();
            store.name(&name)?.map(|it| it.digest)
        }
    };
    match digest {
        Some(digest) => Ok(store.image(digest)?),
        None => Ok(None),
    }
}

/// All images, the newest first.
pub fn list(store: &Store) -> Result<Vec<Listed>, CatalogError> {
    let names = store.names()?;
    store
        .images()?
        .into_iter()
        .map(|image| {
            let names = names.iter().filter(|it| it.digest == image.digest);
            let names = names.map(|it| it.name.parse()).collect::<Result<_, _>>()?;
            let content = content(store, &image).map(Some).or_else(none_if_damaged)?;
            Ok(Listed { image, names, content })
        })
        .collect()
}

/// Removes a name, and with the last one the image, and with the image what it alone needed. What a
/// process that runs may need goes when it is gone.
pub fn remove(store: &Store, text: &str) -> Result<Removed, CatalogError> {
    let image = find(store, text)?;
    let all: Vec<String> = store
        .names()?
        .into_iter()
        .filter(|it| it.digest == image.digest)
        .map(|it| it.name)
        .collect();
    let asked = text.parse::<Reference>().ok().filter(|it| it.digest().is_none());
    let asked = asked.map(|it| it.with_default_tag().canonical()).filter(|it| all.contains(it));
    let names = match asked {
        Some(name) => vec![name],
        None if 1 < all.len() => {
            return Err(CatalogError::SeveralNames { digest: image.digest, names: all });
        }
        None => all.clone(),
    };
    for name in &names {
        store.remove_name(name)?;
    }
    if names.len() < all.len() {
        return Ok(Removed { names, image: None, freed: 0 });
    }
    Ok(match store.remove_image_and_blobs(image.digest)? {
        Some(pruned) => Removed { names, image: Some(image.digest), freed: pruned.freed },
        None => Removed { names, image: None, freed: 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        image::{Layer, OCI_LAYER},
    };

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn image(store: &Store, contents: &[&str]) -> Image {
        let layer = |it: &&str| {
            let blob = store.write_blob(it.as_bytes()).unwrap();
            let media_type = OCI_LAYER.to_owned();
            Layer { media_type, digest: blob.digest, size: blob.size, diff_id: blob.digest }
        };
        let layers = contents.iter().map(layer).collect();
        let config = Config::scratch(&Platform::linux("x86_64"));
        let created = "2024-01-01T00:00:00Z";
        Image::assemble(image::Format::Oci, &config, layers, created, &[]).unwrap()
    }

    fn named(store: &Store, name: &str, contents: &[&str]) -> Digest {
        let stored = add(store, &image(store, contents), 1).unwrap();
        tag(store, &name.parse().unwrap(), stored.digest, Origin::Local).unwrap();
        stored.digest
    }

    #[test]
    fn an_image_is_found_by_name_and_by_digest() {
        let (_folder, store) = store();
        let digest = named(&store, "shop:1", &["a"]);
        let id = load(&store, digest).unwrap().config_digest();
        let hex = digest.hex();
        for text in ["shop:1", "docker.io/library/shop:1", &digest.to_string(), &hex, &hex[..8]] {
            assert_eq!(find(&store, text).unwrap().digest, digest, "for `{text}`");
        }
        assert_eq!(find(&store, &id.hex()[..12]).unwrap().digest, digest);
        assert_eq!(find(&store, &format!("shop@{digest}")).unwrap().digest, digest);
        for text in ["shop", "shop:2", "sha256:0123456789", "0000000"] {
            assert!(matches!(find(&store, text), Err(CatalogError::NotFound(_))), "for `{text}`");
        }
        assert!(matches!(find(&store, "Shop"), Err(CatalogError::Reference(_))));
    }

    #[test]
    fn the_last_name_takes_the_image_and_what_it_alone_needed() {
        let (_folder, store) = store();
        let first = named(&store, "a", &["shared", "one"]);
        tag(&store, &"b".parse().unwrap(), first, Origin::Local).unwrap();
        let second = named(&store, "c", &["shared", "two"]);
        assert!(matches!(
            remove(&store, &first.to_string()),
            Err(CatalogError::SeveralNames { .. })
        ));
        assert_eq!(remove(&store, "a").unwrap().image, None);
        assert_eq!(remove(&store, "b").unwrap().image, Some(first));
        assert!(matches!(find(&store, "b"), Err(CatalogError::FewDigits(_))));
        let image = load(&store, second).unwrap();
        assert!(is_whole(&store, &image).unwrap());
        assert_eq!(store.size(Digest::of(b"one")).unwrap(), None);
        assert_eq!(list(&store).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_image_is_listed_and_can_go() {
        let (_folder, store) = store();
        let damaged = named(&store, "a", &["one"]);
        let whole = named(&store, "b", &["two"]);
        let path = store.root().join("blobs/sha256").join(damaged.hex());
        std::fs::write(path, "{}").unwrap();
        let listed: Vec<bool> =
            list(&store).unwrap().iter().map(|it| it.content.is_some()).collect();
        assert_eq!(listed.iter().filter(|it| **it).count(), 1);
        assert_eq!(remove(&store, "a").unwrap().image, Some(damaged));
        assert!(is_whole(&store, &load(&store, whole).unwrap()).unwrap());
        assert_eq!(list(&store).unwrap().len(), 1);
    }

    #[test]
    fn a_name_moves_to_the_newest_image() {
        let (_folder, store) = store();
        let first = named(&store, "a", &["one"]);
        let second = named(&store, "a", &["two"]);
        assert_eq!(find(&store, "a").unwrap().digest, second);
        assert_eq!(find(&store, &first.hex()).unwrap().digest, first, "it is still there");
    }

    #[test]
    fn an_index_keeps_its_images_and_takes_them_with_it() {
        let (_folder, store) = store();
        let [one, two] = ["one", "two"].map(|it| {
            let image = image(&store, &[it, "shared"]);
            store.write_blob(&image.config_bytes).unwrap();
            store.write_blob(&image.manifest).unwrap();
            image
        });
        let entry = |it: &Image, architecture: &str| {
            serde_json::json!({
                "mediaType": it.media_type, "digest": it.digest().to_string(),
                "size": it.manifest.len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let entries = [entry(&one, "amd64"), entry(&two, "arm64")];
        let bytes = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        let blob = store.write_blob(bytes.as_bytes()).unwrap();
        let media_type = image::OCI_INDEX.to_owned();
        let index = StoredImage { digest: blob.digest, size: blob.size, media_type, added: 1 };
        store.add_image(&index).unwrap();
        tag(&store, &"x".parse().unwrap(), index.digest, Origin::Local).unwrap();
        assert!(matches!(load(&store, index.digest), Err(CatalogError::Index(_))));
        let Some(Content::Index(images)) = list(&store).unwrap().remove(0).content else {
            panic!("an index")
        };
        assert!(images.len() == 2 && images.iter().all(|it| it.1.is_some()));

        // What else needs a part of it keeps that part.
        let kept = named(&store, "y", &["shared"]);
        let arm = choose(&store, index.clone(), &Platform::linux("aarch64")).unwrap().unwrap();
        assert_eq!(arm.digest, two.digest());
        assert_eq!(choose(&store, index, &Platform::linux("riscv64")).unwrap(), None);
        remove(&store, "x").unwrap();
        assert_eq!(store.size(Digest::of(b"one")).unwrap(), None);
        let arm = load(&store, arm.digest).unwrap();
        assert!(is_whole(&store, &arm).unwrap(), "it was chosen, and is one of its own now");
        assert!(is_whole(&store, &load(&store, kept).unwrap()).unwrap());
    }
}
