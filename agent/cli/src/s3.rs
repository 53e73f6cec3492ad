//! Artifacts in S3: as single objects, or as one zip file.
//!
//! Read in this order: here (where what goes), `send` (how it gets there), `store` (the client),
//! `error` (why it did not).
//!
//! Where what goes is documented for projects in the `CodeBuild` API reference,
//! "`ProjectArtifacts`": `PATH/BUILD-ID/NAME` for a zip file, `PATH/BUILD-ID/NAME/…` for files,
//! where each of the three may be missing. The build's ID is there with namespace type `BUILD_ID`,
//! and then `s3-prefix` of the buildspec takes the place of `PATH`. Where no project says anything
//! (`-a s3://BUCKET/PREFIX`), keys are named as files are in a folder.
//!
//! **Architecture invariant:** a zip file for S3 has no name on this machine: whatever happens to
//! this process, it leaves none.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::pin,
    process,
    sync::Arc,
};

use object_store::path::Path as Key;
use rbuild_agent::{
    artifacts::{
        Artifact, Artifacts, ArtifactsError, Collection, Content, Location, Packaging, Packed,
        Selection, write_zip,
    },
    event::Event,
};
use tokio::runtime::Runtime;

use crate::{
    aws::Aws,
    failure::{Failure, Kind},
    host,
};

mod error;
mod send;
mod store;

pub(crate) use error::failure;
use error::{S3Error, Why};
use send::{Body, Upload};

/// Where artifacts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Target {
    pub(crate) bucket: String,
    pub(crate) naming: Naming,
    pub(crate) packaging: Packaging,
    pub(crate) encryption: Encryption,
}

/// What artifacts are called in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As in a folder, below this prefix.
    AsInFolder { prefix: String },
    /// As a project of `CodeBuild` says.
    Project {
        path: String,
        /// The UUID of the build, with namespace type `BUILD_ID`.
        namespace: Option<String>,
        name: String,
        /// Whether the buildspec's name counts, and not this one (`overrideArtifactName`).
        is_name_overridden: bool,
    },
}

/// How S3 is asked to encrypt objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// As the bucket says.
    #[default]
    OfBucket,
    /// With keys of S3 (`AES256`).
    S3,
    /// With a key of KMS, or, if none is named, that of S3 in the account.
    Kms(Option<String>),
}

/// What a URI of S3 begins with.
const SCHEME: &str = "s3://";

impl S3Target {
    /// The target that `s3://BUCKET/PREFIX` names; none if that is not what `text` begins with.
    pub(crate) fn parse(text: &str, packaging: Packaging) -> Option<Result<Self, Failure>> {
        let (bucket, prefix) = match text.strip_prefix(SCHEME)?.split_once('/') {
            Some((bucket, prefix)) => (bucket, prefix),
            None => (&text[SCHEME.len()..], ""),
        };
        let is_part = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_part) {
            let message = format!("`{text}` names no bucket");
            return Some(Err(Failure::new(Kind::Input, message).hint("write s3://BUCKET/PREFIX")));
        }
        let naming = Naming::AsInFolder { prefix: prefix.to_owned() };
        let encryption = Encryption::default();
        Some(Ok(Self { bucket: bucket.to_owned(), naming, packaging, encryption }))
    }

    /// The key of the zip file, or what the keys of all files begin with; without slashes around.
    fn key(&self, selection: &Selection) -> Result<String, ArtifactsError> {
        let name = selection.name_or_identifier();
        let (prefix, namespace, name) = match &self.naming {
            Naming::AsInFolder { prefix } => (prefix.as_str(), None, self.file_name(name)),
            Naming::Project { path, namespace, name: own, is_name_overridden } => {
                let of_buildspec = selection.s3_prefix.as_ref().filter(|_| namespace.is_some());
                let prefix = of_buildspec.unwrap_or(path);
                let name = selection
                    .name
                    .as_ref()
                    .filter(|it| *is_name_overridden && !it.trim().is_empty());
                (prefix.as_str(), namespace.as_deref(), name.unwrap_or(own).clone())
            }
        };
        let all = [prefix, namespace.unwrap_or_default(), &name].join("/");
        let parts: Vec<&str> = all.split('/').map(str::trim).filter(|it| !it.is_empty()).collect();
        let is_refused = |it: &&str| matches!(*it, "." | "..") || it.contains(char::is_control);
        match parts.iter().any(is_refused) || (parts.is_empty() && self.is_zip()) {
            true => Err(ArtifactsError::Name { name }),
            false => Ok(parts.join("/")),
        }
    }

    /// What a folder or a zip file is called that no project names.
    fn file_name(&self, name: Option<&str>) -> String {
        let is_named_zip = |it: &str| Path::new(it).extension().is_some_and(|it| it == "zip");
        match name {
            Some(name) if self.is_zip() && !is_named_zip(name) => format!("{name}.zip"),
            Some(name) => name.to_owned(),
            None if self.is_zip() => "artifacts.zip".to_owned(),
            None => String::new(),
        }
    }

    fn is_zip(&self) -> bool {
        self.packaging == Packaging::Zip
    }

    /// The URI of a key.
    fn uri(&self, key: &str) -> String {
        match key {
            "" => format!("{SCHEME}{}", self.bucket),
            key => format!("{SCHEME}{}/{key}", self.bucket),
        }
    }
}

/// Where the artifacts of a build go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// All to the same place, told apart by their names.
    One(S3Target),
    /// Those of a project: the primary one, if there is one, and the others by their identifiers.
    Project { primary: Option<S3Target>, secondary: Vec<(String, S3Target)> },
}

/// What there is to know besides the targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct S3Options {
    /// The time that every file in a zip file gets, in seconds since 1970; its own if none.
    pub(crate) modified: Option<u64>,
    /// What is written to each object as `codebuild-buildarn`.
    pub(crate) build_arn: Option<String>,
    /// The URL of the proxy; that of the environment if there is none.
    pub(crate) proxy: Option<String>,
}

/// Keeps artifacts in S3.
pub(crate) struct S3Artifacts<'a> {
    aws: &'a Aws,
    targets: Targets,
    /// The folder with the source.
    source: PathBuf,
    options: S3Options,
    runtime: Runtime,
    /// The URIs that were sent, so that none is sent twice.
    sent: BTreeSet<String>,
}

impl<'a> S3Artifacts<'a> {
    /// Keeps artifacts of the folder `source`; connects to nothing yet.
    pub(crate) fn new(
        aws: &'a Aws,
        targets: Targets,
        source: PathBuf,
        options: S3Options,
    ) -> Result<Self, Failure> {
        let runtime = runtime()?;
        Ok(Self { aws, targets, source, options, runtime, sent: BTreeSet::new() })
    }

    /// Where artifacts of that identifier go.
    fn target(&self, identifier: Option<&str>) -> Result<S3Target, Why> {
        let (primary, secondary) = match &self.targets {
            Targets::One(target) => return Ok(target.clone()),
            Targets::Project { primary, secondary } => (primary, secondary),
        };
        let found = match identifier {
            None => primary.as_ref(),
            Some(name) => secondary.iter().find(|(it, _)| it == name).map(|(_, target)| target),
        };
        found.cloned().ok_or_else(|| Why::NotInProject(identifier.map(str::to_owned)))
    }

    /// Notes what is about to be sent; an error if a part of it was sent before.
    fn claim(&mut self, target: &S3Target, uploads: &[Upload]) -> Result<(), ArtifactsError> {
        for upload in uploads {
            let uri = target.uri(upload.key.as_ref());
            if !self.sent.insert(uri.clone()) {
                return Err(ArtifactsError::Taken { path: uri.into() });
            }
        }
        Ok(())
    }

    /// The zip file with these artifacts, and how many bytes they have.
    fn zip(
        &self,
        artifacts: &[Artifact],
        stopped: &mut dyn FnMut() -> Option<i32>,
    ) -> Result<(Content, u64), ArtifactsError> {
        let folder = host::variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let failed = |source| ArtifactsError::Write { path: folder.clone(), source };
        let file = nameless_file(&folder).map_err(failed)?;
        let bytes = write_zip(artifacts, self.options.modified, &file, &folder, stopped)?;
        Ok((Content::of(file, &folder)?, bytes))
    }
}

/// What waits for the network. Files are read by few threads, since each keeps memory for itself
/// that it used once.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|err| Failure::new(Kind::Outside, "threads could not be started").because(err))
}

/// A file in `folder` that goes when it is closed.
fn nameless_file(folder: &Path) -> io::Result<File> {
    // The keys of each hasher are random: nobody can foresee the name, which is there for a moment.
    let random = RandomState::new().build_hasher().finish();
    let path = folder.join(format!(".rbuild-{}-{random:016x}", process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// One upload for each artifact, below `prefix`.
fn single_uploads(
    artifacts: &[Artifact],
    prefix: &str,
    failed: impl Fn(Why) -> ArtifactsError,
) -> Result<Vec<Upload>, ArtifactsError> {
    let upload = |it: &Artifact| {
        let no_key = || ArtifactsError::NotUtf8 { path: it.path.clone() };
        let name = it.name.to_str().ok_or_else(no_key)?;
        let key = object_key(&format!("{prefix}/{name}")).map_err(&failed)?;
        // If it has gone, that is told when it is read.
        let size = fs::metadata(&it.path).map_or(0, |it| it.len());
        Ok(Upload { key, size, body: Body::Path(it.path.clone()) })
    };
    artifacts.iter().map(upload).collect()
}

/// The key of an object, as the client takes it.
fn object_key(text: &str) -> Result<Key, Why> {
    Key::parse(text).map_err(|_| Why::NoKey { text: text.to_owned() })
}

impl Artifacts for S3Artifacts<'_> {
    fn package(
        &mut self,
        selection: &Selection,
        stopped: &mut dyn FnMut() -> Option<i32>,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Packed, ArtifactsError> {
        let identifier = selection.identifier.clone();
        let kept = self.source.clone();
        let target = self.target(identifier.as_deref()).map_err(|why| {
            S3Error { why, kept: kept.clone(), is_left_over: false }.sending("S3")
        })?;
        let key = target.key(selection)?;
        let uri = target.uri(&key);
        let failed = |why| S3Error { why, kept: kept.clone(), is_left_over: false }.sending(&uri);
        let packaging = target.packaging;
        let collection = Collection { source: &self.source, excluded: &[], packaging };
        let artifacts = collection.find(selection, emit)?;
        // Before a zip file is written for nothing.
        let connecting = store::connect(self.aws, &target, &self.options);
        let connected = self.runtime.block_on(send::wait(pin!(connecting), stopped));
        let connected = connected.map_err(|signal| ArtifactsError::Stopped { signal })?;
        let store = Arc::new(connected.map_err(failed)?);
        let (uploads, zipped) = match packaging {
            Packaging::Folder => (single_uploads(&artifacts, &key, failed)?, None),
            Packaging::Zip => {
                let (content, bytes) = self.zip(&artifacts, stopped)?;
                let (key, size) = (object_key(&key).map_err(failed)?, content.size());
                (vec![Upload { key, size, body: Body::Open(content) }], Some(bytes))
            }
        };
        self.claim(&target, &uploads)?;
        let job = send::Job { store, uploads, kept: self.source.clone(), uri: uri.clone() };
        let sent = job.run(&self.runtime, stopped, emit)?;
        let (files, bytes) = (artifacts.len(), zipped.unwrap_or(sent));
        let packed = Packed { identifier, location: Location::Remote(uri), files, bytes };
        emit(Event::ArtifactsWritten(&packed));
        Ok(packed)
    }
}

#[cfg(test)]
mod tests;
