//! `rbuild image …`: the images of the store.

use std::{error::Error, io, path::Path};

use rbuild_imagebuilder::{
    catalog::{self, CatalogError},
    digest::VerifyError,
    layout::{self, LayoutError},
    reference::Reference,
    store::{Origin, Store, StoreError, StoredImage},
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
mod transfer;

pub(crate) fn image(args: &Image, global: &Global) -> Result<(), Failure> {
    host::stop_on_signals("run it again: what was finished is kept, and nothing is half-written")?;
    match args {
        Image::Build(args) => build::build(args, global),
        Image::Ls { json } => list(&store(global)?, *json),
        Image::Inspect { image } => inspect(&store(global)?, image),
        Image::Rm { images } => remove(&store(global)?, images),
        Image::Tag { source, target } => tag(&store(global)?, source, target),
        Image::Save { output, images, .. } => save(&store(global)?, output, images),
        Image::Load { input } => {
            let store = store(global)?;
            load(&store, input.as_deref())?;
            keep_below_limit(&store, global);
            Ok(())
        }
        Image::Push { images } => transfer::push(images, global),
        Image::Pull { images } => transfer::pull(images, global),
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
        let images: Vec<Value> = images.iter().map(listed).collect();
        return console::print_line(&json!(images).to_string());
    }
    let mut rows = vec![["NAME", "DIGEST", "PLATFORM", "SIZE"].map(str::to_owned)];
    for it in &images {
        let digest = it.image.digest.hex()[..12].to_owned();
        let (platform, size) = match &it.content {
            Some(content) => (content.config.platform().to_string(), size::bytes(size_of(content))),
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

fn listed(it: &catalog::Listed) -> Value {
    let names: Vec<String> = it.names.iter().map(Reference::to_string).collect();
    json!({
        "digest": it.image.digest.to_string(),
        "id": it.content.as_ref().map(|it| it.config_digest().to_string()),
        "names": names,
        "platform": it.content.as_ref().map(|it| it.config.platform().to_string()),
        "created": it.content.as_ref().and_then(|it| it.config.created()),
        "size": it.content.as_ref().map(size_of),
        "damaged": it.content.is_none(),
        "mediaType": it.image.media_type,
    })
}

/// The bytes of an image's layers.
fn size_of(image: &rbuild_imagebuilder::image::Image) -> u64 {
    image.layers.iter().map(|it| it.size).sum()
}

fn inspect(store: &Store, text: &str) -> Result<(), Failure> {
    let stored = catalog::find(store, text).map_err(catalog_failure)?;
    let image = catalog::load(store, stored.digest).map_err(catalog_failure)?;
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let text = serde_json::to_string_pretty(&json!({
        "digest": stored.digest.to_string(),
        "id": image.config_digest().to_string(),
        "manifest": parsed(&image.manifest),
        "config": parsed(&image.config_bytes),
    }));
    console::print_line(&text.unwrap_or_default())
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

fn save(store: &Store, output: &Path, images: &[String]) -> Result<(), Failure> {
    let found = |text: &String| -> Result<(StoredImage, String), Failure> {
        let image = catalog::find(store, text).map_err(catalog_failure)?;
        let name = text.parse::<Reference>().ok().filter(|it| it.digest().is_none());
        let name = name.map(|it| it.with_default_tag().canonical());
        Ok((image, name.unwrap_or_else(|| text.clone())))
    };
    let images = images.iter().map(found).collect::<Result<Vec<_>, _>>()?;
    if output.extension().is_none_or(|it| it != "tar") {
        return layout::save(store, &images, output).map_err(layout_failure);
    }
    let unwritten = |err| {
        let message = format!("`{}` could not be written", output.display());
        Failure::new(Kind::Outside, message).because(err)
    };
    // A half-written archive would look whole to some readers.
    let temporary = output.with_extension("tar.part");
    let mut file = std::fs::File::create(&temporary).map_err(unwritten)?;
    layout::save_tar(store, &images, &mut file, output).map_err(layout_failure)?;
    file.sync_all().and_then(|()| std::fs::rename(&temporary, output)).map_err(unwritten)
}

fn load(store: &Store, input: Option<&Path>) -> Result<(), Failure> {
    let (platform, now) = (host::platform(), host::now().as_secs());
    let loaded = match input.filter(|it| *it != Path::new("-")) {
        Some(path) => layout::load(store, path, &platform, now),
        None => {
            let path = Path::new("standard input");
            layout::load_tar(store, io::stdin().lock(), path, &platform, now)
        }
    };
    for image in loaded.map_err(layout_failure)? {
        let names: Vec<String> = image.names.iter().map(Reference::to_string).collect();
        let names = if names.is_empty() { "an image".to_owned() } else { names.join(", ") };
        console::say(&format!("loaded {names}"));
        console::print_line(&image.digest.to_string())?;
    }
    Ok(())
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
            let hint = io_hint(source);
            Failure::of(Kind::Outside, err).hint_if(hint)
        }
        err => damaged_failure(err),
    }
}

/// Something in the store is not what it was.
pub(super) fn damaged_failure(err: impl Error + 'static) -> Failure {
    Failure::of(Kind::Outside, err).hint(MAKE_AGAIN)
}

const MAKE_AGAIN: &str = "build or pull the image again, or remove it with `rbuild image rm`";

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
        CatalogError::Ambiguous(_) => Failure::of(Kind::Input, err).hint("give more digits"),
        CatalogError::Damaged { .. } => Failure::of(Kind::Outside, err),
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
            let hint = io_hint(&err);
            let message = format!("`{}` could not be written", path.display());
            Failure::new(Kind::Outside, message).because(err).hint_if(hint)
        }
    }
}

pub(super) fn layout_failure(err: LayoutError) -> Failure {
    match err {
        LayoutError::Store(err) => store_failure(err),
        LayoutError::Catalog(err) => catalog_failure(err),
        LayoutError::Io { action: "written", path, source } => unwritten_failure(&path, source),
        LayoutError::DockerArchive { .. } => Failure::of(Kind::Input, err)
            .hint("`skopeo copy docker-archive:FILE oci:FOLDER` makes an OCI layout of it"),
        _ => Failure::of(Kind::Input, err),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rbuild_imagebuilder::digest::Digest;

    use super::*;

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
