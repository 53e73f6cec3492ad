//! `rbuild image …`: the images of the store.

use std::{collections::BTreeMap, error::Error, io, path::Path};

use rbuild_imagebuilder::{
    catalog::{self, CatalogError, Content},
    digest::{Blob, Digest, VerifyError},
    layer_sources,
    layout::LayoutError,
    reference::Reference,
    store::{Origin, Store, StoreError},
    transfer::missing,
};
use serde_json::{Value, json};

use super::cache::keep_below_limit;
use crate::{
    args::{Global, Image},
    console::{self, size},
    failure::{Failure, Kind, cause_of},
    host,
};

mod build;
mod copy;
mod save_load;
mod transfer;

pub(super) use transfer::registry_failure;

pub(crate) fn image(args: &Image, global: &Global) -> Result<(), Failure> {
    host::stop_on_signals("run it again: what was finished is kept, and nothing is half-written")?;
    match args {
        Image::Build(args) => build::build(args, global),
        Image::Ls { json } => list(&store(global)?, *json),
        Image::Inspect { image } => inspect(&store(global)?, image),
        Image::Rm { images } => remove(&store(global)?, images),
        Image::Tag { source, target } => tag(&store(global)?, source, target),
        Image::Save(args) => save_load::save(args, global),
        Image::Load(args) => {
            let store = store(global)?;
            save_load::load(args, &store)?;
            keep_below_limit(&store, global);
            Ok(())
        }
        Image::Copy(args) => copy::copy(args, global),
        Image::Push(args) => transfer::push(args, global),
        Image::Pull(args) if args.all_platforms => copy::pull(&args.images, global),
        Image::Pull(args) => transfer::pull(args, global),
    }
}

/// Opens the store that is asked for.
pub(super) fn store(global: &Global) -> Result<Store, Failure> {
    let folder = host::store_folder(global.store.as_deref())?;
    Store::open(&folder).map_err(store_failure)
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let images = catalog::list(store).map_err(catalog_failure)?;
    if json {
        let images: Vec<Value> = images.iter().map(|it| listed(store, it)).collect();
        return console::print_line(&json!(images).to_string());
    }
    let mut rows = vec![["NAME", "DIGEST", "PLATFORM", "SIZE"].map(str::to_owned)];
    for it in &images {
        let digest = it.image.digest.hex()[..12].to_owned();
        let (platform, size) = match &it.content {
            Some(content) => (platforms(content).join(","), shown_size(store, it, content)),
            None => ("damaged".to_owned(), "-".to_owned()),
        };
        let mut names: Vec<String> = it.names.iter().map(Reference::to_string).collect();
        if names.is_empty() {
            names.push("<none>".to_owned());
        }
        let row = |name| [name, digest.clone(), platform.clone(), size.clone()];
        rows.extend(names.into_iter().map(row));
    }
    console::print_data(console::table(&rows))
}

/// The size of an image, and how much of that is elsewhere until it is needed.
fn shown_size(store: &Store, it: &catalog::Listed, content: &Content) -> String {
    let size = size::bytes(size_of(content));
    let sum = |blobs: &[Blob]| blobs.iter().map(|it| it.size).sum();
    let (elsewhere, lost) = lacking(store, it);
    match (sum(&elsewhere), sum(&lost)) {
        (0, 0) => size,
        (elsewhere, 0) => format!("{size} ({} not fetched)", size::bytes(elsewhere)),
        (_, lost) => format!("{size} (damaged: {} missing)", size::bytes(lost)),
    }
}

/// The blobs that are not here: those that some repository has, and those that none is known to.
fn lacking(store: &Store, it: &catalog::Listed) -> (Vec<Blob>, Vec<Blob>) {
    let lacking = missing(store, &it.image).unwrap_or_default();
    let is_known =
        |it: &Blob| layer_sources::recall(store, it.digest).is_ok_and(|it| !it.is_empty());
    lacking.into_iter().partition(is_known)
}

fn listed(store: &Store, it: &catalog::Listed) -> Value {
    let is_complete = missing(store, &it.image).is_ok_and(|it| it.is_empty());
    let is_lost = it.content.is_none() || !lacking(store, it).1.is_empty();
    let names: Vec<String> = it.names.iter().map(Reference::to_string).collect();
    let (image, index) = match &it.content {
        Some(Content::Image(image)) => (Some(image), None),
        Some(content @ Content::Index(_)) => (None, Some(platforms(content))),
        None => (None, None),
    };
    let mut value = json!({
        "digest": it.image.digest.to_string(),
        "id": image.map(|it| it.config_digest().to_string()),
        "names": names,
        "platform": image.map(|it| it.config.platform().to_string()),
        "created": image.and_then(|it| it.config.created()),
        "size": it.content.as_ref().map(size_of),
        "damaged": is_lost,
        "complete": it.content.is_some() && is_complete,
        "mediaType": it.image.media_type,
    });
    if let Some(platforms) = index {
        value["platforms"] = json!(platforms);
    }
    value
}

/// What an image is for, or the images of an index; what is no image (`unknown`) is left out.
fn platforms(content: &Content) -> Vec<String> {
    match content {
        Content::Image(image) => vec![image.config.platform().to_string()],
        Content::Index(entries) => entries
            .iter()
            .filter_map(|(it, _)| it.platform.as_ref())
            .filter(|it| it.0 != "unknown")
            .map(|(os, architecture, variant)| {
                let rest = variant.as_ref().map(|it| format!("/{it}")).unwrap_or_default();
                format!("{os}/{architecture}{rest}")
            })
            .collect(),
    }
}

/// The bytes of the layers, each once.
fn size_of(content: &Content) -> u64 {
    let images: Vec<_> = match content {
        Content::Image(image) => vec![image],
        Content::Index(entries) => entries.iter().filter_map(|it| it.1.as_ref()).collect(),
    };
    let layers = images.iter().flat_map(|it| &it.layers).map(|it| (it.digest, it.size));
    layers.collect::<BTreeMap<_, _>>().values().sum()
}

fn inspect(store: &Store, text: &str) -> Result<(), Failure> {
    let stored = catalog::find(store, text).map_err(catalog_failure)?;
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let shown = |digest: Digest, image: &rbuild_imagebuilder::image::Image| {
        json!({
            "digest": digest.to_string(),
            "id": image.config_digest().to_string(),
            "manifest": parsed(&image.manifest),
            "config": parsed(&image.config_bytes),
        })
    };
    let value = match catalog::content(store, &stored).map_err(catalog_failure)? {
        Content::Image(image) => shown(stored.digest, &image),
        Content::Index(entries) => {
            let bytes = store.read_blob(stored.digest, catalog::LARGEST_JSON);
            let images = entries.iter().filter_map(|(it, image)| {
                image.as_ref().map(|image| shown(it.manifest.digest, image))
            });
            json!({
                "digest": stored.digest.to_string(),
                "index": parsed(&bytes.map_err(store_failure)?),
                "images": images.collect::<Vec<_>>(),
            })
        }
    };
    console::print_line(&serde_json::to_string_pretty(&value).unwrap_or_default())
}

fn remove(store: &Store, images: &[String]) -> Result<(), Failure> {
    for text in images {
        let removed = catalog::remove(store, text).map_err(catalog_failure)?;
        for name in &removed.names {
            console::say(&format!("removed name {}", short_name(name)));
        }
        if let Some(digest) = removed.image {
            let freed = size::bytes(removed.freed);
            console::say(&format!("removed image {digest} ({freed} freed)"));
        }
    }
    Ok(())
}

pub(super) fn short_name(full: &str) -> String {
    full.parse::<Reference>().map_or_else(|_| full.to_owned(), |it| it.to_string())
}

fn tag(store: &Store, source: &str, target: &str) -> Result<(), Failure> {
    let target = name(target)?;
    let image = catalog::find(store, source).map_err(catalog_failure)?;
    catalog::tag(store, &target, image.digest, Origin::Local).map_err(store_failure)
}

/// Reads the name that an image gets: one without a digest, since that is the image's own.
fn name(text: &str) -> Result<Reference, Failure> {
    let name: Reference = text.parse().map_err(|err| Failure::of(Kind::Input, err))?;
    match name.digest() {
        None => Ok(name.with_default_tag()),
        Some(_) => Err(Failure::new(Kind::Input, format!("`{text}` has a digest"))
            .hint("an image is given a name and a tag; its digest is its own")),
    }
}

/// What the store's failures mean: the machine's fault, but for another layout or folder.
pub(super) fn store_failure(err: StoreError) -> Failure {
    match err {
        StoreError::Foreign { .. } => {
            Failure::of(Kind::Input, err).hint("name another folder with --store, or an empty one")
        }
        StoreError::Version { .. } => Failure::of(Kind::Input, err).hint(
            "name another folder with --store, or remove this one: it holds caches and images",
        ),
        StoreError::Io { ref source, .. } => {
            let (kind, hint) = (io_kind(source), io_hint(source));
            Failure::of(kind, err).hint_if(hint)
        }
        err => damaged_failure(err),
    }
}

/// Something in the store is not what it was.
pub(super) fn damaged_failure(err: impl Error + 'static) -> Failure {
    Failure::of(Kind::Outside, err).hint(MAKE_AGAIN)
}

const MAKE_AGAIN: &str = "build or pull the image again, or remove it with `rbuild image rm`";

/// Whose fault it is that something cannot be written: a path that is too long was given so.
pub(super) fn io_kind(err: &io::Error) -> Kind {
    match err.kind() {
        io::ErrorKind::InvalidFilename
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory => Kind::Input,
        _ => Kind::Outside,
    }
}

/// What to do about common faults of a disk.
pub(super) fn io_hint(err: &io::Error) -> Option<&'static str> {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, or name a store on another disk with --store")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some("name a folder that can be written with --store")
        }
        _ => None,
    }
}

pub(super) fn catalog_failure(err: CatalogError) -> Failure {
    match err {
        CatalogError::Store(err) => store_failure(err),
        CatalogError::NotFound(_) => Failure::of(Kind::Input, err)
            .hint("`rbuild image ls` lists what is there; build or pull it first"),
        CatalogError::SeveralNames { .. } => {
            Failure::of(Kind::Input, err).hint("remove it by its names")
        }
        CatalogError::FewDigits(_) => Failure::of(Kind::Input, err)
            .hint("`rbuild image ls` lists what is there, with digits enough"),
        CatalogError::Ambiguous(_) => Failure::of(Kind::Input, err).hint("give more digits"),
        CatalogError::Damaged { .. } => Failure::of(Kind::Outside, err),
        CatalogError::Index(_) => Failure::of(Kind::Input, err).hint(
            "`rbuild image copy --platform OS/ARCH store:NAME store:OTHER` makes one image of it",
        ),
        CatalogError::Reference(_) => Failure::of(Kind::Input, err),
    }
}

/// What was read from the store to be written may be at fault.
fn unwritten_failure(path: &Path, err: io::Error) -> Failure {
    if cause_of::<VerifyError>(&err).is_some() {
        let failure = Failure::new(Kind::Outside, "an image in the store is damaged");
        return failure.because(err).hint(MAKE_AGAIN);
    }
    match err.downcast::<StoreError>() {
        Ok(err) => store_failure(err),
        Err(err) => {
            let kind = io_kind(&err);
            // It is not the store that has no space.
            let hint = match err.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space there, or write it to another disk")
                }
                _ => None,
            };
            let message = format!("`{}` could not be written", path.display());
            Failure::new(kind, message).because(err).hint_if(hint)
        }
    }
}

pub(super) fn layout_failure(err: LayoutError) -> Failure {
    match err {
        LayoutError::Store(err) => store_failure(err),
        LayoutError::Catalog(err) => catalog_failure(err),
        LayoutError::Io { action: "written", path, source } => unwritten_failure(&path, source),
        LayoutError::Index { .. } => Failure::of(Kind::Input, err)
            .hint("choose one image with `rbuild image copy --platform OS/ARCH`"),
        LayoutError::Several { .. } => {
            Failure::of(Kind::Input, err).hint("write its name after the path: PATH:NAME")
        }
        _ => Failure::of(Kind::Input, err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_damaged_blob_is_not_a_file_that_could_not_be_written() {
        let digest = Digest::of(b"");
        let damaged = io::Error::new(io::ErrorKind::InvalidData, VerifyError::TooLong(digest));
        let missing = io::Error::other(StoreError::Missing(digest));
        let told = [io::Error::other(damaged), missing, io::Error::other("no")].map(|source| {
            let err = LayoutError::Io { action: "written", path: "saved.tar".into(), source };
            let failure = layout_failure(err);
            assert_eq!(failure.kind, Kind::Outside);
            failure.to_string()
        });
        expect![[r#"
            error: an image in the store is damaged
            caused by: content of sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is longer than it should be
            hint: build or pull the image again, or remove it with `rbuild image rm`
            error: blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is not in the store
            hint: build or pull the image again, or remove it with `rbuild image rm`
            error: `saved.tar` could not be written
            caused by: no"#]]
        .assert_eq(&told.join("\n"));
    }
}
