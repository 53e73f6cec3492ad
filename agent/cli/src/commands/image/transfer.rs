//! `rbuild image push` and `pull`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use rbuild_imagebuilder::{
    carry::CarryError,
    catalog,
    digest::{Blob, Digest},
    event::Event,
    image::{self, ImageError},
    reference::{Reference, Repository},
    registry::{
        Client, RegistryError,
        ecr::{self, EcrRegistry},
    },
    store::{Store, StoreError, StoredImage},
    transfer::{self, FetchError, ImmutableTag, TransferError},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{catalog_failure, copy, keep_below_limit, store, store_failure};
use crate::{
    args::{
        Global,
        registry::{Pull, Push, Pushing},
    },
    aws::{Aws, AwsError, NewRepository},
    console::{self, images::Images},
    failure::{Failure, Kind, cause_of},
    host, registries,
};

pub(super) fn push(args: &Push, global: &Global) -> Result<(), Failure> {
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = Images::new();
    // Every name is looked up before the first is pushed.
    let mut found = Vec::new();
    for text in &args.images {
        found.push(find_named(&store, text)?);
    }
    let runtime = registries::runtime()?;
    let pusher = Pusher { client: &client, runtime: &runtime, args: &args.pushing };
    for (image, name) in found {
        let (digest, report) = (image.digest, Report::default());
        let emit = |event: Event<'_>| report.follow(&view, &event);
        match image::is_index(&image.media_type) {
            true => pusher.push_index(&store, digest, &name, &emit)?,
            false => pusher.push(&store, digest, &name, &emit)?,
        }
        print(&name, digest, args.json.then_some(&report))?;
    }
    Ok(())
}

fn print(name: &Reference, digest: Digest, report: Option<&Report>) -> Result<(), Failure> {
    match report {
        Some(report) => console::print_line(&report.json(name, digest).to_string()),
        None => console::print_line(&name.pinned(digest).to_string()),
    }
}

/// Pushes as was asked for.
pub(super) struct Pusher<'a> {
    pub(super) client: &'a Client,
    pub(super) runtime: &'a Runtime,
    pub(super) args: &'a Pushing,
}

impl Pusher<'_> {
    /// Pushes an image, to a repository that is created if that was asked for.
    pub(super) fn push(
        &self,
        store: &Store,
        digest: Digest,
        name: &Reference,
        emit: transfer::Emit<'_>,
    ) -> Result<(), Failure> {
        let immutable = match self.args.ignore_immutable {
            true => ImmutableTag::AcceptSame,
            false => ImmutableTag::Refuse,
        };
        let push = || {
            let push = transfer::push_with(self.client, store, digest, name, immutable, emit);
            self.runtime.block_on(push)
        };
        match push() {
            Err(TransferError::Registry(err)) if err.is_unknown_repository() => {
                self.create(name.repository(), err)?;
                push().map_err(transfer_failure)
            }
            pushed => pushed.map_err(transfer_failure),
        }
    }

    /// The same for an index, with all its images.
    fn push_index(
        &self,
        store: &Store,
        digest: Digest,
        name: &Reference,
        emit: transfer::Emit<'_>,
    ) -> Result<(), Failure> {
        let push = || copy::push_index(self.runtime, self.client, store, digest, name, emit);
        let is_same = || {
            let found = self.runtime.block_on(self.client.pushed_digest(name));
            self.args.ignore_immutable && matches!(found, Ok(Some(it)) if it == digest)
        };
        let pushed = match push() {
            Err(CarryError::Registry(err)) if err.is_unknown_repository() => {
                self.create(name.repository(), err)?;
                push()
            }
            pushed => pushed,
        };
        match pushed {
            Err(CarryError::Registry(err)) if err.is_immutable_tag() && is_same() => Ok(()),
            pushed => pushed.map_err(copy::carry_failure),
        }
    }

    /// Makes sure that a push to the repository can begin, before there is anything to push.
    pub(super) fn check(&self, repository: &Repository) -> Result<(), Failure> {
        let check = || self.runtime.block_on(self.client.check_push(repository));
        match check() {
            Err(err) if err.is_unknown_repository() => {
                self.create(repository, err)?;
                check().map_err(registry_failure)
            }
            checked => checked.map_err(registry_failure),
        }
    }

    fn create(&self, repository: &Repository, err: RegistryError) -> Result<(), Failure> {
        let Some(ecr) = EcrRegistry::parse(repository.registry()) else {
            return Err(registry_failure(err));
        };
        if !self.args.create_repository {
            let failure = Failure::of(Kind::Input, err);
            return Err(failure.hint("look at the name, or create it with --create-repository"));
        }
        let like = NewRepository::of(self.args);
        let aws = Aws::new();
        let created = aws.create_repository(&ecr, repository.path(), &like);
        self.runtime.block_on(created).map_err(aws_failure)?;
        console::say(&format!("created repository {repository}"));
        Ok(())
    }
}

fn aws_failure(err: AwsError) -> Failure {
    let (kind, hint) = (err.kind(), err.hint());
    Failure::of(kind, err).hint_if(hint)
}

/// What became of each blob of an image, for programs.
#[derive(Default)]
pub(super) struct Report {
    blobs: Mutex<BTreeMap<Digest, (&'static str, u64)>>,
}

impl Report {
    /// Takes note of an event, and shows it.
    pub(super) fn follow(&self, view: &Images, event: &Event<'_>) {
        let noted = match *event {
            Event::BlobExists { digest } => Some((digest, ("existing", 0))),
            Event::BlobMounted { digest, .. } => Some((digest, ("mounted", 0))),
            Event::BlobDone { digest, size } => Some((digest, ("carried", size))),
            _ => None,
        };
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.extend(noted);
        drop(blobs);
        view.show(event);
    }

    /// Takes note of a blob that was carried while it was made, if the image has it.
    pub(super) fn carried_before(&self, blob: Blob) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = blobs.get_mut(&blob.digest) {
            *noted = ("carried", blob.size);
        }
    }

    pub(super) fn json(&self, name: &Reference, digest: Digest) -> Value {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: u64 = blobs.values().map(|it| it.1).sum();
        let blob = |(digest, (outcome, bytes)): (&Digest, &(&str, u64))| json!({ "digest": digest.to_string(), "outcome": outcome, "bytes": bytes });
        json!({
            "name": name.to_string(),
            "digest": digest.to_string(),
            "bytes": bytes,
            "blobs": blobs.iter().map(blob).collect::<Vec<_>>(),
        })
    }
}

/// The image with this name. Digits of a digest are no name, and would be taken for one of Docker
/// Hub's.
fn find_named(store: &Store, text: &str) -> Result<(StoredImage, Reference), Failure> {
    let image = catalog::find(store, text).map_err(catalog_failure)?;
    if let Ok(name) = text.parse::<Reference>() {
        let name = name.with_default_tag();
        let known = store.name(&name.canonical()).map_err(store_failure)?;
        if name.digest().is_some() || known.is_some() {
            return Ok((image, name));
        }
    }
    Err(Failure::new(Kind::Input, format!("`{text}` is not the name of an image"))
        .hint("name the image first: `rbuild image tag` gives it the name to push it by"))
}

pub(super) fn pull(args: &Pull, global: &Global) -> Result<(), Failure> {
    let store = store(global)?;
    let client = registries::client(global)?;
    let view = Images::new();
    let (platform, now) = (host::platform(), host::now().as_secs());
    let parsed = |it: &String| it.parse().map_err(|err| Failure::of(Kind::Input, err));
    let names: Vec<Reference> = args.images.iter().map(parsed).collect::<Result<_, _>>()?;
    let runtime = registries::runtime()?;
    for name in names {
        let report = Report::default();
        let emit = |event: Event<'_>| report.follow(&view, &event);
        let image = runtime
            .block_on(transfer::pull(&client, &store, &name, &platform, now, &emit))
            .map_err(transfer_failure)?;
        print(&name, image.digest, args.json.then_some(&report))?;
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
        TransferError::Fetch(err) => fetch_failure(err),
        TransferError::Offline(_) => {
            Failure::of(Kind::Input, err).hint("pull it first, or leave out --offline")
        }
        TransferError::Image { ref source, .. } => {
            let hint = matches!(source, ImageError::MediaType(_))
                .then_some("rbuild reads OCI images and docker's (version 2, schema 2)");
            Failure::of(Kind::Input, err).hint_if(hint)
        }
        TransferError::Immutable { .. } => Failure::of(Kind::Input, err).hint(
            "push it by a tag of its own (the commit's, say), or let the repository's tags be \
             changed",
        ),
        err => {
            let is_other =
                matches!(err, TransferError::NotFound(_) | TransferError::Platform { .. });
            let hint = is_other.then_some("look at the name and the tag");
            Failure::of(Kind::Input, err).hint_if(hint)
        }
    }
}

/// A layer of a base that is needed now.
pub(super) fn fetch_failure(err: FetchError) -> Failure {
    match err {
        FetchError::Store(err) => store_failure(err),
        FetchError::Unknown(_) => super::damaged_failure(err),
        FetchError::NotAsked { .. } => {
            Failure::of(Kind::Input, err).hint("pull the base first, or leave out --offline")
        }
        FetchError::Failed { ref source, .. } => {
            let (kind, hint) = advice(source);
            Failure::of(kind, err).hint_if(hint)
        }
    }
}

pub(crate) fn registry_failure(err: RegistryError) -> Failure {
    let (kind, hint) = advice(&err);
    Failure::of(kind, err).hint_if(hint)
}

fn advice(err: &RegistryError) -> (Kind, Option<&'static str>) {
    let (kind, hint) = match err {
        // Only where something was to be written.
        RegistryError::NotFound { answer, .. } if !answer.call.method.is_safe() => (
            Kind::Input,
            "look at the name; on ECR, `rbuild image push --create-repository` creates it",
        ),
        RegistryError::NotFound { .. } => (Kind::Input, "look at the name and the tag"),
        RegistryError::Unauthorized { had_credential: false, .. } => {
            (Kind::Outside, "log in first: `rbuild login`, or `docker login`")
        }
        RegistryError::Unauthorized { .. } | RegistryError::Denied { .. } => {
            (Kind::Outside, "look at the credential for this registry, and at what it may do")
        }
        RegistryError::Credentials { registry, .. } if is_ecr(registry) => {
            (Kind::Outside, "for ECR, AWS credentials are looked for where the AWS CLI looks")
        }
        RegistryError::TooManyRequests { .. } => (
            Kind::Outside,
            "wait a while, log in (limits are higher then), or pull from a mirror with \
             --registry-mirror",
        ),
        RegistryError::Connect { .. } | RegistryError::Timeout { .. } => {
            (Kind::Outside, "is the host right, and reachable from here?")
        }
        RegistryError::Tls { .. } => (
            Kind::Outside,
            "name its CA with --registry-ca; or, if it speaks plain HTTP, the registry with \
             --insecure-registry",
        ),
        RegistryError::Sink { source, .. } | RegistryError::Source { source, .. } => {
            return (Kind::Outside, disk_hint(source));
        }
        // What Go's servers say; a registry here is spoken to without TLS.
        RegistryError::Refused { answer } if answer.message.contains("to an HTTPS server") => {
            (Kind::Input, "it speaks TLS: put its CA into `certs.d/HOST:PORT` (README, Registries)")
        }
        RegistryError::Refused { .. }
        | RegistryError::Unnamed(_)
        | RegistryError::NoUrl(_)
        | RegistryError::SetUp { .. }
        | RegistryError::Misled { .. } => return (Kind::Input, None),
        RegistryError::Blocked(_) => (Kind::Input, "registries.conf has `blocked = true` for it"),
        _ => return (Kind::Outside, None),
    };
    (kind, Some(hint))
}

fn is_ecr(registry: &str) -> bool {
    registry == ecr::PUBLIC || EcrRegistry::parse(registry).is_some()
}

/// A full disk lies two causes deep: the store's error is passed on as one of a stream.
fn disk_hint(err: &std::io::Error) -> Option<&'static str> {
    match cause_of(err) {
        Some(StoreError::Io { source, .. }) => super::io_hint(source),
        _ => super::io_hint(err),
    }
}
