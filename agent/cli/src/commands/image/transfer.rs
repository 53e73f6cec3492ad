//! `rbuild image push` and `pull`.

use rbuild_imagebuilder::{
    catalog,
    digest::Digest,
    event::Event,
    image::ImageError,
    reference::Reference,
    registry::RegistryError,
    store::{Store, StoreError},
    transfer::{self, TransferError},
};

use super::{catalog_failure, keep_below_limit, store, store_failure};
use crate::{
    args::Global,
    console,
    failure::{Failure, Kind, cause_of},
    host, registries,
};

pub(super) fn push(images: &[String], global: &Global) -> Result<(), Failure> {
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = console::images::Images::new();
    let emit = |event: Event<'_>| view.show(&event);
    // Every name is looked up before the first is pushed.
    let mut found = Vec::new();
    for text in images {
        found.push(find_named(&store, text)?);
    }
    let runtime = registries::runtime()?;
    for (digest, name) in found {
        runtime
            .block_on(transfer::push(&client, &store, digest, &name, &emit))
            .map_err(transfer_failure)?;
        console::print_line(&name.pinned(digest).to_string())?;
    }
    Ok(())
}

/// The image with this name. Digits of a digest are no name, and would be taken for one of Docker
/// Hub's.
fn find_named(store: &Store, text: &str) -> Result<(Digest, Reference), Failure> {
    let image = catalog::find(store, text).map_err(catalog_failure)?;
    if let Ok(name) = text.parse::<Reference>() {
        let name = name.with_default_tag();
        let known = store.name(&name.canonical()).map_err(store_failure)?;
        if name.digest().is_some() || known.is_some() {
            return Ok((image.digest, name));
        }
    }
    Err(Failure::new(Kind::Input, format!("`{text}` is not the name of an image"))
        .hint("name the image first: `rbuild image tag` gives it the name to push it by"))
}

pub(super) fn pull(images: &[String], global: &Global) -> Result<(), Failure> {
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = console::images::Images::new();
    let emit = |event: Event<'_>| view.show(&event);
    let (platform, now) = (host::platform(), host::now().as_secs());
    let parsed = |it: &String| it.parse().map_err(|err| Failure::of(Kind::Input, err));
    let names: Vec<Reference> = images.iter().map(parsed).collect::<Result<_, _>>()?;
    let runtime = registries::runtime()?;
    for name in names {
        let image = runtime
            .block_on(transfer::pull(&client, &store, &name, &platform, now, &emit))
            .map_err(transfer_failure)?;
        console::print_line(&name.pinned(image.digest).to_string())?;
    }
    keep_below_limit(&store, global);
    Ok(())
}

/// What went wrong on the way to or from a registry: what is not there is asked for wrongly; all
/// else may be better later.
pub(super) fn transfer_failure(err: TransferError) -> Failure {
    match err {
        TransferError::Store(err) => store_failure(err),
        TransferError::Catalog(err) => catalog_failure(err),
        TransferError::Registry(err) => registry_failure(err),
        TransferError::Offline(_) => {
            Failure::of(Kind::Input, err).hint("pull it first, or leave out --offline")
        }
        TransferError::Image { ref source, .. } => {
            let hint = matches!(source, ImageError::MediaType(_))
                .then_some("rbuild reads OCI images and docker's (version 2, schema 2)");
            Failure::of(Kind::Input, err).hint_if(hint)
        }
        err => {
            let is_other =
                matches!(err, TransferError::NotFound(_) | TransferError::Platform { .. });
            let hint = is_other.then_some("look at the name and the tag");
            Failure::of(Kind::Input, err).hint_if(hint)
        }
    }
}

fn registry_failure(err: RegistryError) -> Failure {
    let (kind, hint) = match &err {
        RegistryError::NotFound { .. } => {
            (Kind::Input, "look at the name; on ECR the repository has to be created first")
        }
        RegistryError::Unauthorized { had_credential: false, .. } => (
            Kind::Outside,
            "log in first: `docker login` writes ~/.docker/config.json, which rbuild reads",
        ),
        RegistryError::Unauthorized { .. } | RegistryError::Denied { .. } => {
            (Kind::Outside, "look at the credential for this registry, and at what it may do")
        }
        RegistryError::Credentials { .. } => {
            (Kind::Outside, "for ECR, AWS credentials are looked for where the AWS CLI looks")
        }
        RegistryError::TooManyRequests { .. } => (Kind::Outside, "wait a while, or log in"),
        RegistryError::Connect { .. } | RegistryError::Timeout { .. } => {
            (Kind::Outside, "is the host right, and reachable from here?")
        }
        RegistryError::Tls { .. } => (
            Kind::Outside,
            "a registry that speaks plain HTTP has to be named with --insecure-registry",
        ),
        RegistryError::Sink { source, .. } | RegistryError::Source { source, .. } => {
            let hint = disk_hint(source);
            return Failure::of(Kind::Outside, err).hint_if(hint);
        }
        RegistryError::Refused { .. } | RegistryError::Unnamed(_) | RegistryError::NoUrl(_) => {
            return Failure::of(Kind::Input, err);
        }
        _ => return Failure::of(Kind::Outside, err),
    };
    Failure::of(kind, err).hint(hint)
}

/// A full disk lies two causes deep: the store's error is passed on as one of a stream.
fn disk_hint(err: &std::io::Error) -> Option<&'static str> {
    match cause_of(err) {
        Some(StoreError::Io { source, .. }) => super::io_hint(source),
        _ => super::io_hint(err),
    }
}
