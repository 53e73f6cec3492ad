//! `rbuild image copy`, and what carries indexes for `push` and `pull`.

use rbuild_imagebuilder::{
    carry::{self, CarryError, Choice, Order, Place, PlaceError},
    catalog,
    config::Platform,
    digest::Digest,
    event::Event,
    image,
    reference::Reference,
    registry::Client,
    store::Store,
    transfer::Emit,
};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{
    layout_failure, store,
    transfer::{fetch_failure, registry_failure},
};
use crate::{
    args::{Global, formats::Copy},
    console,
    failure::{Failure, Kind},
    host, registries,
};

pub(super) fn copy(args: &Copy, global: &Global) -> Result<(), Failure> {
    let (from, to) = (place(&args.source)?, place(&args.target)?);
    let choice = match (&args.platform, args.all) {
        (Some(text), _) => platform(text)?,
        (None, true) => Choice::All,
        (None, false) => Choice::Host(host::platform()),
    };
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = console::images::Images::new();
    let emit = |event: Event<'_>| view.show(&event);
    let now = host::now().as_secs();
    let order =
        Order { client: &client, store: &store, from: &from, to: &to, choice: &choice, now };
    let copied = registries::runtime()?.block_on(carry::copy(&order, &emit)).map_err(|err| {
        // Names without a prefix are of registries, which a person may not have meant.
        let is_meant = args.source.starts_with("docker://") || !matches!(from, Place::Registry(_));
        let is_here = !is_meant
            && matches!(err, CarryError::Registry(_))
            && catalog::find(&store, &args.source).is_ok();
        let source = &args.source;
        let hint = is_here.then(|| format!("the store has `{source}`: write `store:{source}`"));
        carry_failure(err).hint_if(hint)
    })?;
    let digest = copied.descriptor.digest.to_string();
    if !args.json {
        return console::print_line(&digest);
    }
    let report = json!({
        "digest": digest,
        "mediaType": copied.descriptor.media_type,
        "images": copied.images,
        "source": from.to_string(),
        "target": to.to_string(),
    });
    console::print_line(&report.to_string())
}

/// Pulls indexes with all their images.
pub(super) fn pull(images: &[String], global: &Global) -> Result<(), Failure> {
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = console::images::Images::new();
    let emit = |event: Event<'_>| view.show(&event);
    let parsed = |it: &String| it.parse().map_err(|err| Failure::of(Kind::Input, err));
    let names: Vec<Reference> = images.iter().map(parsed).collect::<Result<_, _>>()?;
    let runtime = registries::runtime()?;
    for name in names {
        let copied = runtime
            .block_on(carry::pull_all(&client, &store, &name, host::now().as_secs(), &emit))
            .map_err(carry_failure)?;
        console::print_line(&name.pinned(copied.descriptor.digest).to_string())?;
    }
    Ok(())
}

/// Pushes an index: its images first.
pub(super) fn push_index(
    runtime: &Runtime,
    client: &Client,
    store: &Store,
    digest: Digest,
    name: &Reference,
    emit: Emit<'_>,
) -> Result<(), CarryError> {
    let (from, to) = (Place::Store(digest.to_string()), Place::Registry(name.clone()));
    let order = Order { client, store, from: &from, to: &to, choice: &Choice::All, now: 0 };
    runtime.block_on(carry::copy(&order, emit)).map(drop)
}

fn place(text: &str) -> Result<Place, Failure> {
    text.parse().map_err(|err: PlaceError| {
        let hint = match err {
            PlaceError::Kind(_) | PlaceError::Empty(_) => Some(
                "write it as docker://NAME, oci:PATH[:NAME], docker-archive:FILE[:NAME] or \
                 store:NAME",
            ),
            PlaceError::Stream(_) => {
                Some("`rbuild image save` and `load` do; a file that is called so is ./-")
            }
            PlaceError::Reference(_) => None,
        };
        Failure::of(Kind::Input, err).hint_if(hint)
    })
}

/// Reads `OS/ARCH[/VARIANT]`.
fn platform(text: &str) -> Result<Choice, Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    let variant = match parts[..] {
        [os, architecture] if !os.is_empty() && !architecture.is_empty() => None,
        [os, architecture, variant]
            if ![os, architecture, variant].iter().any(|it| it.is_empty()) =>
        {
            Some(variant.to_owned())
        }
        _ => {
            return Err(Failure::new(Kind::Input, format!("`{text}` is not a platform"))
                .hint("write it as linux/amd64 or linux/arm/v7"));
        }
    };
    let platform = Platform { os: parts[0].to_owned(), architecture: parts[1].to_owned() };
    Ok(Choice::Only(platform, variant))
}

pub(super) fn carry_failure(err: CarryError) -> Failure {
    match err {
        CarryError::Registry(err) => registry_failure(err),
        CarryError::Layout(err) => layout_failure(err),
        CarryError::Fetch(err) => fetch_failure(err),
        CarryError::Image { ref source, .. } => {
            let hint = matches!(source, image::ImageError::MediaType(_))
                .then_some("rbuild reads OCI images and docker's (version 2, schema 2)");
            Failure::of(Kind::Input, err).hint_if(hint)
        }
        CarryError::Platform { .. } => Failure::of(Kind::Input, err)
            .hint("name another with --platform, or copy all with --all"),
        CarryError::Digest(_) => {
            Failure::of(Kind::Input, err).hint("give a name and a tag: the digest is its own")
        }
        CarryError::Exists(_) => Failure::of(Kind::Input, err)
            .hint("remove it first; or `rbuild image save -o` replaces it"),
    }
}
