//! Copies images between registries, OCI layouts, docker archives and the store.
//!
//! Read in this order: [`Place`] (what may be at either end), [`copy`] (what is carried, and in
//! which order), [`source`] and [`target`] (the two ends).
//!
//! **Architecture invariant:** bytes are kept wherever the format allows: between registries,
//! layouts and the store, manifests and indexes keep their digests. Nothing is converted but into
//! and out of a docker archive, which has no manifests.
//!
//! **Architecture invariant:** what is named is there before what names it: blobs, then manifests,
//! then indexes, then names.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use futures_util::{TryStreamExt as _, stream};
use thiserror::Error;

use self::{source::Source, target::Target};
use crate::{
    archive::{self, PartFile},
    catalog::CatalogError,
    config::Platform,
    digest::Blob,
    event::{Direction, Event},
    image::{self, Descriptor, ImageError},
    layout::{self, Blobs, Entry, LayoutError, Naming, Parcel, Writing},
    needs::{All, Walk},
    reference::{Reference, ReferenceError},
    registry::{Client, RegistryError},
    store::{Origin, Store, StoreError},
    transfer::{Emit, FetchError, fetch},
};

mod source;
mod target;
#[cfg(test)]
mod tests;

/// Blobs that are carried at the same time.
const AT_ONCE: usize = 4;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An image of a registry.
    Registry(Reference),
    /// An OCI layout: a folder, or a tar if the name ends in `.tar`.
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// An archive as `docker save` makes them.
    Archive {
        /// The file.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// An image of the store.
    Store(String),
}

/// Why some text is not an end of a copy.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// It begins as if it were one of another kind.
    #[error("`{0}` is not a place that images are copied from or to")]
    Kind(String),
    /// There is nothing after the prefix.
    #[error("`{0}` names no file")]
    Empty(String),
    /// It is a stream, and not a file.
    #[error("`{0}`: a copy reads no standard input and writes no standard output")]
    Stream(String),
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// Which images of an index are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of them, and the index itself.
    All,
    /// The one for this platform. What is no index is copied whatever it is for.
    Host(Platform),
    /// The one for this platform and none other, with this variant if one is named.
    Only(Platform, Option<String>),
}

/// What is to be copied, and with what.
pub struct Order<'a> {
    /// Speaks to registries.
    pub client: &'a Client,
    /// Where scratch files lie, and the images of [`Place::Store`].
    pub store: &'a Store,
    /// From where.
    pub from: &'a Place,
    /// To where.
    pub to: &'a Place,
    /// What of it.
    pub choice: &'a Choice,
    /// The time now, in seconds since 1970.
    pub now: u64,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The manifest or index, as it is at the target; in a docker archive, as it was before.
    pub descriptor: Descriptor,
    /// How many images it is: more than one for an index.
    pub images: usize,
}

/// Why an image could not be copied.
#[derive(Debug, Error)]
pub enum CarryError {
    /// A registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layout, an archive, or the store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer that the store knows of only.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What the source has is no image.
    #[error("`{place}` cannot be used")]
    Image {
        /// The source.
        place: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// It is there for other platforms only.
    #[error("`{place}` is not there for {wanted}; it is for {}", found.join(", "))]
    Platform {
        /// The source.
        place: String,
        /// What it should be for.
        wanted: String,
        /// What it is for.
        found: Vec<String>,
    },
    /// An image gets a name, and its digest is its own.
    #[error("`{0}` names a digest, and an image is copied to a name")]
    Digest(String),
    /// A file is in the place of the one that is to be written.
    #[error("`{}` is there already, and a copy replaces no file", _0.display())]
    Exists(PathBuf),
}

impl From<StoreError> for CarryError {
    fn from(err: StoreError) -> Self {
        Self::Layout(err.into())
    }
}

impl From<CatalogError> for CarryError {
    fn from(err: CatalogError) -> Self {
        Self::Layout(err.into())
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    /// Reads `docker://NAME`, `oci:PATH[:NAME]`, `docker-archive:FILE[:NAME]`, `store:NAME`, or
    /// the plain name of an image in a registry.
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse()?));
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return Ok(Self::Registry(text.parse()?));
        };
        match kind {
            "oci" => {
                let (path, name) = path_and_name(text, rest)?;
                Ok(Self::Layout { path, name })
            }
            "docker-archive" => {
                let (path, name) = path_and_name(text, rest)?;
                Ok(Self::Archive { path, name })
            }
            "store" if rest.is_empty() => Err(PlaceError::Empty(text.to_owned())),
            "store" => Ok(Self::Store(rest.to_owned())),
            // What other tools copy from and to: none of them is the name of an image here.
            "dir" | "oci-archive" | "docker-daemon" | "containers-storage" | "ostree"
            | "tarball" | "sif" | "atomic" => Err(PlaceError::Kind(text.to_owned())),
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

fn path_and_name(text: &str, rest: &str) -> Result<(PathBuf, Option<String>), PlaceError> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) => (path, Some(name)),
        None => (rest, None),
    };
    match (path, name) {
        ("", _) | (_, Some("")) => Err(PlaceError::Empty(text.to_owned())),
        ("-", _) => Err(PlaceError::Stream(text.to_owned())),
        (path, name) => Ok((path.into(), name.map(str::to_owned))),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Self::Registry(name) => return write!(f, "docker://{name}"),
            Self::Store(name) => return write!(f, "store:{name}"),
            Self::Layout { path, name } => ("oci", path, name),
            Self::Archive { path, name } => ("docker-archive", path, name),
        };
        write!(f, "{kind}:{}", path.display())?;
        name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

/// Copies an image, or an index with all its images.
pub async fn copy(order: &Order<'_>, emit: Emit<'_>) -> Result<Copied, CarryError> {
    let target_name = name_of_target(order.to)?;
    check_place(order.to)?;
    let opened = source::open(order).await?;
    let top = choose(order, &opened.source, opened.top).await?;
    let is_index = image::is_index(&top.media_type);
    if is_index && matches!(order.to, Place::Archive { .. }) {
        return Err(LayoutError::Index { name: order.from.to_string() }.into());
    }
    let name = order.from.to_string();
    let all = walk(order, &opened.source, &top).await?;
    if let (Place::Store(name), false) = (order.from, matches!(order.to, Place::Registry(_))) {
        bring(order, name, &all, emit).await?;
    }
    let blobs = all.blobs.len();
    emit(Event::TransferStarted { direction: Direction::Copy, name: &name, blobs });
    let naming = target_name.or(opened.name.map(Naming::Full)).unwrap_or(Naming::Nameless);
    put(order, opened.source, &all, &top, naming, emit).await?;
    let digest = top.digest;
    emit(Event::TransferDone { direction: Direction::Copy, name: &name, digest });
    Ok(Copied { descriptor: top, images: images(&all) })
}

/// Brings what the store knows of only, which is to lie in a file or folder. Between registries it
/// is carried as it comes.
async fn bring(order: &Order<'_>, name: &str, all: &All, emit: Emit<'_>) -> Result<(), CarryError> {
    let blobs = all.blobs.iter().map(|it| Blob { digest: it.digest, size: it.size });
    let lacking = fetch::lacking(order.store, blobs)?;
    Ok(fetch::fetch(order.client, order.store, name, &lacking, emit).await?)
}

/// Pulls an index with the images for all platforms; what is no index is one image.
pub async fn pull_all(
    client: &Client,
    store: &Store,
    reference: &Reference,
    now: u64,
    emit: Emit<'_>,
) -> Result<Copied, CarryError> {
    let (from, to) = (Place::Registry(reference.clone()), Place::Store(reference.to_string()));
    let order = Order { client, store, from: &from, to: &to, choice: &Choice::All, now };
    let opened = source::open(&order).await?;
    let all = walk(&order, &opened.source, &opened.top).await?;
    let (name, digest) = (reference.to_string(), opened.top.digest);
    let blobs = all.blobs.len();
    emit(Event::TransferStarted { direction: Direction::Pull, name: &name, blobs });
    let naming = opened.name.map_or(Naming::Nameless, Naming::Full);
    let (store, origin) = (store.clone(), Origin::Registry);
    let target = Target::Store { store, now, naming, origin };
    carry(&opened.source, &target, &all, emit).await?;
    emit(Event::TransferDone { direction: Direction::Pull, name: &name, digest });
    Ok(Copied { descriptor: opened.top, images: images(&all) })
}

/// How many images there are, indexes left out.
fn images(all: &All) -> usize {
    all.documents.iter().filter(|it| !image::is_index(&it.descriptor.media_type)).count()
}

/// What the image is called at the target, if that is said; refused before anything is carried.
fn name_of_target(to: &Place) -> Result<Option<Naming>, CarryError> {
    let of_archive = |it: &String| -> Result<Naming, CarryError> {
        let invalid = |source| CarryError::from(CatalogError::Reference(source));
        Ok(Naming::Full(name(&it.parse::<Reference>().map_err(invalid)?)?))
    };
    match to {
        Place::Registry(_) => Ok(None),
        Place::Store(text) => of_archive(text).map(Some),
        Place::Archive { name, .. } => name.as_ref().map(of_archive).transpose(),
        Place::Layout { name, .. } => Ok(name.clone().map(Naming::Text)),
    }
}

/// Refuses to replace a file: it may be an archive with other images, or anything else. One that is
/// empty was made to be written to (`mktemp`). What is no file fails when it is written.
fn check_place(to: &Place) -> Result<(), CarryError> {
    let path = match to {
        Place::Archive { path, .. } => path,
        Place::Layout { path, .. } if is_tar(path) => path,
        _ => return Ok(()),
    };
    match path.symlink_metadata() {
        Ok(it) if it.is_dir() || (it.is_file() && it.len() == 0) => Ok(()),
        Ok(_) => Err(CarryError::Exists(path.clone())),
        Err(_) => Ok(()),
    }
}

/// A name that an image may get.
fn name(reference: &Reference) -> Result<Reference, CarryError> {
    match reference.digest() {
        None => Ok(reference.clone().with_default_tag()),
        Some(_) => Err(CarryError::Digest(reference.to_string())),
    }
}

/// The manifest that is to be copied: of an index the one that is wanted, or the index itself.
async fn choose(
    order: &Order<'_>,
    source: &Source,
    top: Descriptor,
) -> Result<Descriptor, CarryError> {
    let place = || order.from.to_string();
    let broken = |source| CarryError::Image { place: place(), source };
    let (platform, variant, wanted) = match order.choice {
        Choice::All => return Ok(top),
        Choice::Host(platform) => (platform, None, platform.to_string()),
        Choice::Only(platform, variant) => {
            let variant = variant.as_deref();
            let rest = variant.map(|it| format!("/{it}")).unwrap_or_default();
            (platform, variant, format!("{platform}{rest}"))
        }
    };
    if !image::is_index(&top.media_type) {
        let Choice::Only(..) = order.choice else { return Ok(top) };
        let found = source.platform(&top).await?;
        let fits = found.0 == *platform && (variant.is_none() || variant == found.1.as_deref());
        let found = vec![found.0.to_string()];
        return match fits {
            true => Ok(top),
            false => Err(CarryError::Platform { place: place(), wanted, found }),
        };
    }
    let entries = image::parse_index(&source.json(&top).await?).map_err(broken)?;
    let found = match variant {
        None => layout::select(&entries, platform),
        Some(variant) => entries.iter().find(|it| {
            it.platform.as_ref().is_some_and(|(os, architecture, found)| {
                (os, architecture) == (&platform.os, &platform.architecture)
                    && found.as_deref() == Some(variant)
            })
        }),
    };
    let Some(found) = found else {
        let found = entries.iter().filter_map(|it| it.platform.as_ref());
        let found = found.map(|(os, architecture, variant)| {
            let rest = variant.as_ref().map(|it| format!("/{it}")).unwrap_or_default();
            format!("{os}/{architecture}{rest}")
        });
        let found = found.collect();
        return Err(CarryError::Platform { place: place(), wanted, found });
    };
    match image::is_index(&found.manifest.media_type) {
        true => Err(broken(ImageError::MediaType(found.manifest.media_type.clone()))),
        false => Ok(found.manifest.clone()),
    }
}

async fn walk(order: &Order<'_>, source: &Source, top: &Descriptor) -> Result<All, CarryError> {
    let broken = |source| CarryError::Image { place: order.from.to_string(), source };
    let mut walk = Walk::new(top.clone());
    while let Some(next) = walk.next() {
        walk.give(source.json(&next).await?).map_err(broken)?;
    }
    Ok(walk.finish())
}

async fn put(
    order: &Order<'_>,
    source: Source,
    all: &All,
    top: &Descriptor,
    naming: Naming,
    emit: Emit<'_>,
) -> Result<(), CarryError> {
    match order.to {
        Place::Registry(to) => {
            let to = to.clone().with_default_tag();
            // A digest that is asked for must be that of what is copied: the push compares them.
            if order.client.pushed_digest(&to).await.ok().flatten() == Some(top.digest) {
                return Ok(());
            }
            let target = Target::Registry { client: order.client.clone(), name: to };
            carry(&source, &target, all, emit).await
        }
        Place::Store(_) => {
            let (store, now) = (order.store.clone(), order.now);
            let target = Target::Store { store, now, naming, origin: Origin::Local };
            carry(&source, &target, all, emit).await
        }
        Place::Layout { path, .. } if !is_tar(path) => {
            let writing = Writing::begin(path)?;
            let mut target = Target::Folder(writing);
            carry(&source, &target, all, emit).await?;
            let entry = entry(&source, top, naming).await?;
            let Target::Folder(writing) = &mut target else { return Ok(()) };
            writing.put(&entry);
            target.finish()
        }
        Place::Layout { path, .. } | Place::Archive { path, .. } => {
            let is_here = matches!(source, Source::Local(_));
            let (blobs, _scratch) = local(order, source, all, emit).await?;
            let entry = entry(&Source::Local(blobs.clone()), top, naming).await?;
            let parcels = [Parcel { entry, all: all.clone() }];
            let written = || layout::failed("written", path);
            let mut file = PartFile::create(path).map_err(written())?;
            match order.to {
                Place::Archive { .. } => archive::write::write(&blobs, &parcels, &mut file, path)?,
                _ => layout::write_tar(&blobs, &parcels, &mut file, path)?,
            }
            file.finish().map_err(written())?;
            // What came from elsewhere was told of when it came.
            for Descriptor { digest, size, .. } in all.blobs.iter().filter(|_| is_here) {
                emit(Event::BlobDone { digest: *digest, size: *size });
            }
            Ok(())
        }
    }
}

/// Whether a layout is a file.
fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "tar")
}

async fn entry(source: &Source, top: &Descriptor, naming: Naming) -> Result<Entry, CarryError> {
    let platform = match image::is_index(&top.media_type) {
        true => None,
        false => Some(source.platform(top).await?.0),
    };
    Ok(Entry { descriptor: top.clone(), platform, naming })
}

/// Blobs of this machine: a tar is written in one go, which nothing may interrupt. Those of a
/// registry are fetched first, into a layout that goes when the scratch folder does.
async fn local(
    order: &Order<'_>,
    source: Source,
    all: &All,
    emit: Emit<'_>,
) -> Result<(Blobs, Option<crate::store::Scratch>), CarryError> {
    if let Source::Local(blobs) = source {
        return Ok((blobs, None));
    }
    let scratch = order.store.scratch()?;
    let folder = scratch.path().to_owned();
    let target = Target::Folder(Writing::begin(&folder)?);
    carry(&source, &target, all, emit).await?;
    target.finish()?;
    Ok((Blobs::Folder(folder, order.from.to_string().into()), Some(scratch)))
}

/// Carries all blobs, then all manifests.
async fn carry(
    source: &Source,
    target: &Target,
    all: &All,
    emit: Emit<'_>,
) -> Result<(), CarryError> {
    stream::iter(all.blobs.iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |it| carry_blob(source, target, it, emit))
        .await?;
    let last = all.documents.len().saturating_sub(1);
    for (number, document) in all.documents.iter().enumerate() {
        let place = if number == last { target::Rank::Top } else { target::Rank::Child };
        target.document(document, place).await?;
    }
    Ok(())
}

async fn carry_blob(
    source: &Source,
    target: &Target,
    descriptor: &Descriptor,
    emit: Emit<'_>,
) -> Result<(), CarryError> {
    let Descriptor { digest, size, .. } = *descriptor;
    let blob = Blob { digest, size };
    if target.has(blob).await? {
        emit(Event::BlobExists { digest });
        return Ok(());
    }
    let progress = |done| emit(Event::BlobProgress { digest, done, total: size });
    target.blob(source, blob, &progress).await?;
    emit(Event::BlobDone { digest, size });
    Ok(())
}

/// An error of a stream, in our own words.
fn told(err: io::Error, otherwise: impl FnOnce(io::Error) -> CarryError) -> CarryError {
    match err.downcast::<RegistryError>() {
        Ok(err) => err.into(),
        Err(err) => otherwise(err),
    }
}
