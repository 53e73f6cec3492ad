//! The loop that builds: a plan and a context become an image in the store.
//!
//! Read in this order: [`build`], [`stage`] (what each instruction does), [`sources`] (what `COPY`
//! finds), [`owner`] (who `--chown` means), [`values`] (what instructions mean in a config), [`done`]
//! (what was done before).
//!
//! **Architecture invariant:** a layer is looked up by a key over all that it depends on: the
//! format of layers, what lies below, the instruction once its variables are replaced, and the
//! content of what it copies. What is written has exactly the content that the key was made of,
//! or it is an error. When a key cannot be known, the step runs.
//!
//! **Architecture invariant:** no layer of a base is read before a step has to know what lies in it,
//! and then by its table of contents; only a file that is copied out of it needs its bytes.

mod done;
mod owner;
mod sources;
mod stage;
mod values;

use std::collections::BTreeMap;

use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::stage::Stage;
pub use self::{owner::OwnerError, sources::SourceError};
use crate::{
    catalog::{self, CatalogError},
    config::{ConfigError, Platform},
    context::Context,
    copy::CopyError,
    digest::{Digest, Framed},
    dockerfile::{Place, ports::PortError, words::ExpandError},
    event::Event,
    image::{Format, Image, ImageError},
    layer,
    rootfs::RootfsError,
    steps::{Base, Plan, StagePlan},
    store::{Store, StoreError},
    tree::{PathError, TreePath},
    unpack::Layers,
};
pub use crate::{
    layer::LayerError,
    unpack::{RemoteError, RemoteLayers},
};

/// The most bytes that the values of one stage may have: an image's config is not larger.
const LARGEST_VALUES: usize = 4 << 20;

/// What a build depends on.
pub struct Inputs<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// What `COPY` and `ADD` copy from.
    pub context: &'a Context,
    /// Where everything lies.
    pub store: &'a Store,
    /// Where layers of bases are that are not in the store.
    pub remote: Option<&'a dyn RemoteLayers>,
    /// The manifests of the images that the plan needs, which are in the store.
    pub bases: &'a BTreeMap<Base, Digest>,
    /// The values that were given for arguments.
    pub build_args: &'a BTreeMap<String, String>,
    /// What the image is for.
    pub platform: &'a Platform,
    /// How layers are made.
    pub layers: layer::Options,
    /// Whose media types the image gets.
    pub format: Format,
    /// Takes layers while they are made.
    pub uploads: Option<&'a dyn layer::Uploads>,
    /// Whether steps that were done before are done again.
    pub cache: Cache,
    /// The time of everything, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// The time now, in seconds since 1970.
    pub now: i64,
}

impl<'a> Inputs<'a> {
    /// Where layers are found.
    fn found(&self) -> Layers<'a> {
        Layers { store: self.store, remote: self.remote }
    }
}

/// Whether what was done before is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// It is.
    Use,
    /// Every step is done again.
    Ignore,
}

/// A built image.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// Whether nothing had to be done for it.
    pub cached: bool,
}

/// Why an image could not be built.
#[derive(Debug, Error)]
#[error("{kind}")]
pub struct BuildError {
    /// What went wrong.
    pub kind: BuildErrorKind,
    /// The instruction, or the word of it, that it is about.
    pub place: Option<Place>,
}

/// What went wrong in a build.
#[derive(Debug, Error)]
pub enum BuildErrorKind {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image of the store cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A base's config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The image cannot be put together.
    #[error("the image cannot be put together")]
    Image(#[source] ImageError),
    /// A base is for another platform.
    #[error("the image is for {found}, and {wanted} is built")]
    Platform {
        /// What it is for.
        found: Platform,
        /// What is built.
        wanted: Platform,
    },
    /// A base wants something to be done that is not built yet.
    #[error("the image has the trigger `ONBUILD {0}`, which is not supported yet")]
    Trigger(String),
    /// Variables could not be replaced.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// The layers below could not be read.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The files to copy were not found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The files cannot be copied so.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// `--chown` or `USER` names nobody.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A layer could not be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A destination cannot be a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `--chmod` is no octal number.
    #[error("`{0}` is not an octal mode from 0 to 7777, and other forms are not supported yet")]
    Mode(String),
    /// A source of ADD is fetched from elsewhere.
    #[error("`ADD` of `{0}`, which is not a local file, is not supported yet")]
    Remote(String),
    /// A source of ADD would be unpacked.
    #[error("`ADD` of `{0}`, which looks like an archive, is not supported yet")]
    Archive(TreePath),
    /// A word is empty once its variables are replaced.
    #[error("`{0}` is empty once its variables are replaced")]
    Empty(String),
    /// A port is none.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The values of a stage are too large.
    #[error("the values of this stage have more than {LARGEST_VALUES} bytes")]
    LargeValues,
    /// A signal is none.
    #[error("`{0}` is not the name or the number of a signal")]
    Signal(String),
    /// A time is out of range.
    #[error("{0} is not a time that can be written")]
    Time(i64),
}

/// Builds the target of a plan, and adds the image to the store, without a name.
pub fn build(inputs: &Inputs<'_>, emit: &mut dyn FnMut(Event<'_>)) -> Result<Built, BuildError> {
    for (place, text) in &inputs.plan.warnings {
        emit(Event::Warning { line: place.line, text });
    }
    check_format(inputs)?;
    let total = inputs.plan.stages.iter().map(|it| it.steps.len() + 1).sum();
    let mut progress = Progress { number: 0, total, emit };
    let mut stages: Vec<Stage> = Vec::new();
    for plan in &inputs.plan.stages {
        let stage = build_stage(inputs, plan, &stages, &mut progress)?;
        stages.push(stage);
    }
    let Some(target) = stages.pop() else { unreachable!("a plan has at least one stage") };
    let made = stages.iter().map(|it| it.made).sum::<usize>() + target.made;
    let built = finish(inputs, &target, made).map_err(|kind| BuildError { kind, place: None })?;
    let size = built.image.layers.iter().map(|it| it.size).sum();
    let (digest, layers) = (built.image.digest(), built.image.layers.len());
    emit(Event::ImageBuilt { digest, cached: built.cached, layers, size });
    Ok(built)
}

/// Refuses a base of the target that the format has no media types for, before anything is built
/// on it.
fn check_format(inputs: &Inputs<'_>) -> Result<(), BuildError> {
    let stages = &inputs.plan.stages;
    let mut next = stages.last();
    while let Some(StagePlan { base, place, .. }) = next {
        next = match base {
            Base::Stage(number) => stages.get(*number),
            Base::Scratch => None,
            Base::Image(_) | Base::Layout { .. } => {
                let at = |kind| BuildError { kind, place: Some(*place) };
                return check_base(inputs, base).map_err(at);
            }
        };
    }
    Ok(())
}

fn check_base(inputs: &Inputs<'_>, base: &Base) -> Result<(), BuildErrorKind> {
    let base = stage::load_base(inputs, base)?;
    inputs.format.check(&base.layers).map_err(BuildErrorKind::Image)
}

struct Progress<'a> {
    number: usize,
    total: usize,
    emit: &'a mut dyn FnMut(Event<'_>),
}

impl Progress<'_> {
    fn step(&mut self, stage: &str, text: &str) {
        self.number += 1;
        (self.emit)(Event::StepStarted { number: self.number, total: self.total, stage, text });
    }
}

fn build_stage(
    inputs: &Inputs<'_>,
    plan: &StagePlan,
    stages: &[Stage],
    progress: &mut Progress<'_>,
) -> Result<Stage, BuildError> {
    progress.step(&plan.shown, &plan.source);
    let at = |place| move |kind| BuildError { kind, place: Some(place) };
    let mut stage = Stage::start(inputs, &plan.base, stages).map_err(at(plan.place))?;
    for step in &plan.steps {
        progress.step(&plan.shown, &step.instruction.source);
        stage.warnings.clear();
        stage.run(inputs, step, stages, progress.emit).map_err(at(step.instruction.place))?;
        for text in &stage.warnings {
            (progress.emit)(Event::Warning { line: step.instruction.place.line, text });
        }
    }
    stage.forget_rootfs();
    Ok(stage)
}

/// Puts the image together. The same result keeps the time when it was made first, so that a
/// build that did nothing gives the same digest.
fn finish(inputs: &Inputs<'_>, stage: &Stage, made: usize) -> Result<Built, BuildErrorKind> {
    let assemble = |created: &str| {
        let (config, layers) = (&stage.config, stage.layers.clone());
        Image::assemble(inputs.format, config, layers, created, &stage.history)
            .map_err(BuildErrorKind::Image)
    };
    let timeless = assemble("")?;
    let key = Framed::new("rbuild image 1").with(timeless.digest().as_bytes()).finish();
    let may_reuse = made == 0 && inputs.cache == Cache::Use;
    let before: Option<String> = match inputs.epoch {
        None if may_reuse => inputs.store.recall(key)?,
        _ => None,
    };
    let created = match before {
        Some(created) => created,
        None => created(inputs.epoch.unwrap_or(inputs.now))?,
    };
    let image = assemble(&created)?;
    let cached = may_reuse && inputs.store.image(image.digest())?.is_some();
    if !cached && inputs.epoch.is_none() {
        inputs.store.remember(key, &created)?;
    }
    catalog::add(inputs.store, &image, u64::try_from(inputs.now).unwrap_or_default())?;
    Ok(Built { image, cached })
}

fn created(seconds: i64) -> Result<String, BuildErrorKind> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|it| it.format(&Rfc3339).ok()).ok_or(BuildErrorKind::Time(seconds))
}

#[cfg(test)]
mod tests;
