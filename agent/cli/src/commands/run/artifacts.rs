//! Who keeps the artifacts of a build: a folder of this machine, or S3.

use rbuild_agent::{
    artifacts::{Artifacts, LocalArtifacts, Packaging, Packed},
    buildspec::Proxy,
    plan::Plan,
};

use super::{
    place::Place,
    project::{DEFAULT_KEY, Target},
    settings::Destination,
};
use crate::{
    args,
    aws::Aws,
    failure::{Failure, Kind},
    host,
    s3::{Encryption, Naming, S3Artifacts, S3Options, S3Target, Targets},
};

/// Keeps artifacts, and puts them where they are found when the build is over.
pub(super) struct Keeper<'a> {
    port: Box<dyn Artifacts + 'a>,
    place: Place,
}

impl<'a> Keeper<'a> {
    /// Keeps artifacts where `destination` says.
    pub(super) fn new(
        destination: &Destination,
        plan: &Plan,
        aws: &'a Aws,
        proxy: Proxy,
    ) -> Result<Self, Failure> {
        let targets = match destination {
            // If there is nothing to keep, no folder is made.
            _ if plan.artifacts().is_none() => return Self::local(Place::nowhere(), plan, None),
            Destination::Nowhere => return Self::local(Place::nowhere(), plan, None),
            Destination::Folder { asked, packaging } => {
                let place = Place::new(asked.as_deref(), plan.source())?;
                return Self::local(place, plan, Some(*packaging));
            }
            Destination::Uri { uri, packaging, encryption } => {
                let target = target_at(uri, *packaging)?;
                Targets::One(S3Target { encryption: asked_for(encryption.as_ref()), ..target })
            }
            Destination::Project { primary, secondary } => Targets::Project {
                primary: primary.as_ref().map(|it| target_of(it, plan)),
                secondary: secondary
                    .iter()
                    .map(|(identifier, it)| (identifier.clone(), target_of(it, plan)))
                    .collect(),
            },
        };
        let value =
            |name: &str| plan.environment().value(name).map(|it| it.to_string_lossy().into_owned());
        let proxy = proxy.upload_artifacts.then(|| value("HTTPS_PROXY").or(value("https_proxy")));
        let options = S3Options {
            modified: modified()?,
            build_arn: value("CODEBUILD_BUILD_ARN"),
            proxy: proxy.flatten(),
        };
        let kept = S3Artifacts::new(aws, targets, plan.source().to_owned(), options)?;
        Ok(Self { port: Box::new(kept), place: Place::nowhere() })
    }

    fn local(place: Place, plan: &Plan, packaging: Option<Packaging>) -> Result<Self, Failure> {
        let (source, destination) = (plan.source().to_owned(), place.destination().to_owned());
        let packaging = packaging.unwrap_or(Packaging::Folder);
        let kept = LocalArtifacts::new(source, destination, packaging);
        Ok(Self { port: Box::new(kept.with_modified(modified()?)), place })
    }

    /// The port for the build.
    pub(super) fn port(&mut self) -> &mut (dyn Artifacts + 'a) {
        &mut *self.port
    }

    /// Puts complete artifacts where they are found.
    pub(super) fn settle(mut self, packed: &mut [Packed]) -> Result<(), Failure> {
        self.place.settle(packed)
    }
}

/// The time that reproducible artifacts have.
fn modified() -> Result<Option<u64>, Failure> {
    Ok(host::source_date_epoch()?.and_then(|it| u64::try_from(it).ok()))
}

fn target_at(uri: &str, packaging: Packaging) -> Result<S3Target, Failure> {
    let refused = || Failure::new(Kind::Input, format!("`{uri}` is no place in S3"));
    S3Target::parse(uri, packaging).unwrap_or_else(|| Err(refused()))
}

fn asked_for(encryption: Option<&args::run::Encryption>) -> Encryption {
    match encryption {
        None => Encryption::OfBucket,
        Some(args::run::Encryption::S3) => Encryption::S3,
        Some(args::run::Encryption::Kms(key)) => Encryption::Kms(key.clone()),
    }
}

/// Where a project has its artifacts (CodeBuild API reference, "`ProjectArtifacts`").
fn target_of(target: &Target, plan: &Plan) -> S3Target {
    let id = plan.environment().value("CODEBUILD_BUILD_ID").unwrap_or_default();
    let uuid = id.to_string_lossy().rsplit(':').next().unwrap_or_default().to_owned();
    S3Target {
        bucket: target.bucket.clone(),
        naming: Naming::Project {
            path: target.path.clone().unwrap_or_default(),
            namespace: target.namespace_build_id.then_some(uuid),
            name: target.name.clone(),
            is_name_overridden: target.override_name,
        },
        packaging: target.packaging,
        encryption: match &target.encryption_key {
            None => Encryption::OfBucket,
            // S3 takes no name of this one, and means it if there is none.
            Some(key) if key == DEFAULT_KEY => Encryption::Kms(None),
            Some(key) => Encryption::Kms(Some(key.clone())),
        },
    }
}
