//! The loop that builds: a plan and a context become an image in the store.
//!
//! Read in this order: [`build`], [`Stage`], [`sources`] (what `COPY` finds), [`owner`] (who
//! `--chown` means).
//!
//! **Architecture invariant:** a layer is looked up by a key over all that it depends on: the
//! format of layers, what lies below, the instruction once its variables are replaced, and the
//! content of what it copies. What is written has exactly the content that the key was made of,
//! or it is an error. When a key cannot be known, the step runs.

mod owner;
mod sources;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::{owner::OwnerError, sources::SourceError};
pub use crate::layer::LayerError;
use crate::{
    catalog::{self, CatalogError},
    config::{self, Config, ConfigError, History, KeepCommand, Platform},
    context::Context,
    copy::{self, Copied, CopyError, Destination, Owner, Rules},
    digest::{Digest, Framed},
    dockerfile::{
        Arg, Place, Word,
        instruction::{self, Check, Command, Healthcheck, Pair, Source},
        ports::{self, PortError},
        words::{self, ExpandError},
    },
    event::Event,
    image::{Image, Layer},
    layer,
    rootfs::{Rootfs, RootfsError},
    steps::{self, Base, Plan, StagePlan, Step},
    store::{Store, StoreError},
    tree::{PathError, TreePath},
};

/// The most bytes that the values of one stage may have: an image's config is not larger.
const LARGEST_VALUES: usize = 4 << 20;

/// What a build depends on.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// What `COPY` and `ADD` copy from.
    pub context: &'a Context,
    /// Where everything lies.
    pub store: &'a Store,
    /// The manifests of the images that the plan needs, which are in the store.
    pub bases: &'a BTreeMap<Base, Digest>,
    /// The values that were given for arguments.
    pub build_args: &'a BTreeMap<String, String>,
    /// What the image is for.
    pub platform: &'a Platform,
    /// Whether steps that were done before are done again.
    pub cache: Cache,
    /// The time of everything, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// The time now, in seconds since 1970.
    pub now: i64,
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

/// What is remembered of a step that makes a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Done {
    /// None if there was nothing to change.
    layer: Option<DoneLayer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DoneLayer {
    media_type: String,
    digest: String,
    size: u64,
    diff_id: String,
}

/// Builds the target of a plan, and adds the image to the store, without a name.
pub fn build(inputs: &Inputs<'_>, emit: &mut dyn FnMut(Event<'_>)) -> Result<Built, BuildError> {
    for (place, text) in &inputs.plan.warnings {
        emit(Event::Warning { line: place.line, text });
    }
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
    Ok(stage)
}

/// The state of a stage: what its next instruction starts from.
#[derive(Clone, Debug)]
struct Stage {
    config: Config,
    layers: Vec<Layer>,
    /// What was added to the base's history.
    history: Vec<History>,
    /// What lies in the layers; read when it is needed first.
    rootfs: Option<Rootfs>,
    /// What variables are replaced with: what ENV or ARG set last.
    variables: BTreeMap<String, String>,
    has_command: bool,
    /// The bytes that variables were replaced with so far.
    expanded: usize,
    /// How many layers were made and not found.
    made: usize,
    warnings: Vec<String>,
}

impl Stage {
    fn start(inputs: &Inputs<'_>, base: &Base, stages: &[Self]) -> Result<Self, BuildErrorKind> {
        let fresh = |config: Config, layers| Self {
            variables: config.env().into_iter().collect(),
            config,
            layers,
            history: Vec::new(),
            rootfs: None,
            has_command: false,
            expanded: 0,
            made: 0,
            warnings: Vec::new(),
        };
        match base {
            Base::Scratch => Ok(fresh(Config::scratch(inputs.platform), Vec::new())),
            // Its variables are inherited (Dockerfile reference, "ARG", "Scope").
            Base::Stage(number) => {
                Ok(Self { has_command: false, made: 0, ..stages[*number].clone() })
            }
            Base::Image(_) | Base::Layout { .. } => {
                let image = load_base(inputs, base)?;
                if image.config.platform() != *inputs.platform {
                    let (found, wanted) = (image.config.platform(), inputs.platform.clone());
                    return Err(BuildErrorKind::Platform { found, wanted });
                }
                match image.config.on_build().into_iter().next() {
                    Some(trigger) => Err(BuildErrorKind::Trigger(trigger)),
                    None => Ok(fresh(image.config.with_default_path(), image.layers)),
                }
            }
        }
    }

    fn run(
        &mut self,
        inputs: &Inputs<'_>,
        step: &Step,
        stages: &[Self],
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        let layers = self.layers.len();
        match &step.instruction.command {
            Command::Copy(copy) => {
                let what = What {
                    sources: &copy.sources,
                    destination: &copy.destination,
                    chown: copy.chown.as_ref(),
                    chmod: copy.chmod.as_ref(),
                    unpacks: false,
                };
                self.copy(inputs, &what, step.from.as_ref(), stages, emit)?;
            }
            Command::Add(add) => {
                let what = What {
                    sources: &add.sources,
                    destination: &add.destination,
                    chown: add.chown.as_ref(),
                    chmod: add.chmod.as_ref(),
                    unpacks: true,
                };
                self.copy(inputs, &what, None, stages, emit)?;
            }
            Command::Workdir(folder) => self.work_folder(inputs, folder, emit)?,
            other => self.configure(inputs, other)?,
        }
        let empty_layer = self.layers.len() == layers;
        let created_by = step.instruction.source.clone();
        self.history.push(History { created_by, empty_layer });
        Ok(())
    }

    /// Instructions that change the config alone.
    fn configure(&mut self, inputs: &Inputs<'_>, command: &Command) -> Result<(), BuildErrorKind> {
        let config = self.config.clone();
        self.config = match command {
            Command::Arg(args) => return self.declare(inputs, args),
            Command::Env(pairs) => {
                let pairs = self.pairs(inputs, pairs)?;
                self.variables.extend(pairs.clone());
                config.with_env(&pairs)
            }
            Command::Label(pairs) => {
                self.pairs(inputs, pairs)?.iter().fold(config, |it, (k, v)| it.with_label(k, v))
            }
            Command::Cmd(command) => {
                self.has_command = true;
                config.with_command(&command_line(command))
            }
            Command::Entrypoint(command) => {
                let keep = if self.has_command { KeepCommand::Yes } else { KeepCommand::No };
                config.with_entrypoint(&command_line(command), keep)
            }
            Command::Expose(words) => self.expose(inputs, words)?,
            Command::Healthcheck(check) => config.with_healthcheck(&healthcheck(check)),
            Command::Maintainer(name) => config.with_author(&name.text),
            Command::Shell(words) => {
                let words: Vec<String> = words.iter().map(|it| it.text.clone()).collect();
                config.with_shell(&words)
            }
            Command::StopSignal(signal) => {
                let signal = self.expand(inputs, signal)?;
                match is_signal(&signal) {
                    true => config.with_stop_signal(&signal),
                    false => return Err(BuildErrorKind::Signal(signal)),
                }
            }
            Command::User(user) => {
                let expanded = self.expand(inputs, user)?;
                match expanded.is_empty() {
                    true => return Err(BuildErrorKind::Empty(user.text.clone())),
                    false => config.with_user(&expanded),
                }
            }
            Command::Volume(words) => {
                let mut config = config;
                for word in words {
                    let path = self.expand(inputs, word)?;
                    if path.is_empty() {
                        return Err(BuildErrorKind::Empty(word.text.clone()));
                    }
                    config = config.with_volume(&path);
                }
                config
            }
            Command::Copy(_)
            | Command::Add(_)
            | Command::Workdir(_)
            | Command::Run(_)
            | Command::Onbuild(_) => unreachable!("handled by `run`, or refused by the plan"),
        };
        Ok(())
    }

    /// `ARG`: a given value wins over that of before the first FROM, and that over the default.
    fn declare(&mut self, inputs: &Inputs<'_>, args: &[Arg]) -> Result<(), BuildErrorKind> {
        for Arg { name, default } in args {
            let given = inputs.build_args.get(&name.text).cloned();
            let value = match (given, default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.expand(inputs, default)?),
                (None, None) => inputs
                    .plan
                    .global_args
                    .get(&name.text)
                    .cloned()
                    .or_else(|| steps::platform_args(inputs.platform).remove(&name.text)),
            };
            // One without a value leaves what was set before.
            if let Some(value) = value {
                self.variables.insert(name.text.clone(), value);
            }
        }
        Ok(())
    }

    fn expose(&mut self, inputs: &Inputs<'_>, words: &[Word]) -> Result<Config, BuildErrorKind> {
        let mut config = self.config.clone();
        for word in words {
            let expanded =
                words::expand_words(&word.text, inputs.plan.escape, &|it| self.lookup(it))?;
            for text in &expanded.words {
                let ports = ports::parse(text)?;
                config = ports.names().fold(config, |it, port| it.with_port(&port));
            }
            self.note_unset(&expanded.unset);
        }
        Ok(config)
    }

    /// Keys and values of one ENV or LABEL, all expanded with what was set before it.
    fn pairs(
        &mut self,
        inputs: &Inputs<'_>,
        pairs: &[Pair],
    ) -> Result<Vec<(String, String)>, BuildErrorKind> {
        pairs
            .iter()
            .map(|it| Ok((self.expand(inputs, &it.key)?, self.expand(inputs, &it.value)?)))
            .collect()
    }

    /// Replaces the variables of a word.
    fn expand(&mut self, inputs: &Inputs<'_>, word: &Word) -> Result<String, BuildErrorKind> {
        let expanded = words::expand(&word.text, inputs.plan.escape, &|it| self.lookup(it))?;
        self.note_unset(&expanded.unset);
        self.expanded += expanded.text.len();
        match self.expanded <= LARGEST_VALUES {
            true => Ok(expanded.text),
            false => Err(BuildErrorKind::LargeValues),
        }
    }

    fn lookup(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    /// A pattern may match nothing (`COPY package.json yarn.lock* ./`), and that may be a mistake.
    fn note_empty(&mut self, sources: &[String], found: &[sources::Found]) {
        for (index, text) in sources.iter().enumerate() {
            if found.iter().all(|it| it.source() != index) {
                self.warnings.push(format!("`{text}` matches nothing"));
            }
        }
    }

    fn note_unset(&mut self, names: &[String]) {
        self.warnings.extend(names.iter().map(|it| format!("the variable `{it}` is not set")));
    }

    /// `WORKDIR`: the folder is made if it is not there, and belongs to `USER`.
    fn work_folder(
        &mut self,
        inputs: &Inputs<'_>,
        folder: &Word,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        let expanded = self.expand(inputs, folder)?;
        if expanded.is_empty() {
            return Err(BuildErrorKind::Empty(folder.text.clone()));
        }
        let path = absolute(&self.config.working_folder(), &expanded)?;
        self.config = self.config.clone().with_working_folder(&format!("/{path}"));
        let user = self.config.user();
        let key = self.key(inputs, "rbuild workdir 1").with(path.as_bytes()).with(&user).finish();
        if let Some(done) = recall(inputs, key)? {
            return self.reuse(inputs, done, emit);
        }
        self.read_rootfs(inputs)?;
        let owner = match user.as_str() {
            "" => None,
            user => Some(owner::resolve(user, self.rootfs(), inputs.store)?),
        };
        let tree = copy::make_folder(&path, self.rootfs(), rules(inputs, owner, None))?;
        self.write(inputs, &Copied { tree, ..Copied::default() }, &[key], emit)
    }

    fn copy(
        &mut self,
        inputs: &Inputs<'_>,
        what: &What<'_>,
        from: Option<&Base>,
        stages: &[Self],
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        let mut sources = Vec::new();
        for source in what.sources {
            let Source::Path(word) = source else { unreachable!("refused by the plan") };
            let text = self.expand(inputs, word)?;
            if text.is_empty() {
                return Err(BuildErrorKind::Empty(word.text.clone()));
            }
            sources.push(text);
        }
        let destination = self.expand(inputs, what.destination)?;
        let destination = destination_of(&self.config.working_folder(), &destination)?;
        let chown = what.chown.map(|it| self.expand(inputs, it)).transpose()?;
        let chmod = what.chmod.map(|it| self.expand(inputs, it)).transpose()?;
        let mode = chmod.as_deref().map(mode).transpose()?;
        let mut key = self
            .key(inputs, "rbuild copy 1")
            .with(destination.path.as_bytes())
            .with([u8::from(destination.is_folder)])
            .with(chown.as_deref().unwrap_or("-"))
            .with(chmod.as_deref().unwrap_or("-"));
        let job = Job { sources, destination, chown, mode };
        match from {
            None => {
                if what.unpacks {
                    refuse_remote(&job.sources)?;
                }
                let found = sources::in_context(inputs.context, &job.sources)?;
                if what.unpacks {
                    refuse_archives(inputs.context, &found)?;
                }
                self.note_empty(&job.sources, &found);
                for it in &found {
                    it.add_to(&mut key);
                }
                let keys = [key.finish()];
                if let Some(done) = recall(inputs, keys[0])? {
                    return self.reuse(inputs, done, emit);
                }
                let copied = self.copied(inputs, &job, &found)?;
                self.write(inputs, &copied, &keys, emit)
            }
            Some(base) => {
                let layers = match base {
                    Base::Stage(number) => stages[*number].layers.clone(),
                    _ => load_base(inputs, base)?.layers,
                };
                self.copy_from(inputs, &job, &layers, key, emit)
            }
        }
    }

    /// `COPY --from`: first by the layers that are copied from, which costs nothing, then by the
    /// content, which needs them to be read.
    fn copy_from(
        &mut self,
        inputs: &Inputs<'_>,
        job: &Job,
        layers: &[Layer],
        key: Framed,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        let by_layers = job
            .sources
            .iter()
            .fold(key.clone().with("layers").with(stack(layers)), Framed::with)
            .finish();
        if let Some(done) = recall(inputs, by_layers)? {
            return self.reuse(inputs, done, emit);
        }
        let rootfs = Rootfs::read(inputs.store, layers)?;
        let found = sources::in_rootfs(&rootfs, &job.sources)?;
        self.note_empty(&job.sources, &found);
        let mut by_content = key;
        for it in &found {
            it.add_to(&mut by_content);
        }
        let keys = [by_layers, by_content.finish()];
        if let Some(done) = recall(inputs, keys[1])? {
            inputs.store.remember(keys[0], &done)?;
            return self.reuse(inputs, done, emit);
        }
        let mut copied = self.copied(inputs, job, &found)?;
        let scratch = inputs.store.scratch()?;
        rootfs.fetch(inputs.store, &mut copied.tree, &copied.origins, scratch.path())?;
        self.write(inputs, &copied, &keys, emit)
    }

    fn copied(
        &mut self,
        inputs: &Inputs<'_>,
        job: &Job,
        found: &[sources::Found],
    ) -> Result<Copied, BuildErrorKind> {
        self.read_rootfs(inputs)?;
        let rootfs = self.rootfs();
        let owner = match &job.chown {
            Some(text) => Some(owner::resolve(text, rootfs, inputs.store)?),
            None => None,
        };
        let sources: Vec<copy::Source<'_>> = found.iter().map(sources::Found::as_source).collect();
        Ok(copy::copy(&sources, &job.destination, rootfs, rules(inputs, owner, job.mode))?)
    }

    /// What the key of every step that makes a layer begins with.
    fn key(&self, inputs: &Inputs<'_>, purpose: &str) -> Framed {
        let epoch = inputs.epoch.map(|it| it.to_string()).unwrap_or_default();
        Framed::new(purpose).with(layer::FORMAT).with(stack(&self.layers)).with(epoch)
    }

    fn read_rootfs(&mut self, inputs: &Inputs<'_>) -> Result<(), BuildErrorKind> {
        if self.rootfs.is_none() {
            self.rootfs = Some(Rootfs::read(inputs.store, &self.layers)?);
        }
        Ok(())
    }

    fn rootfs(&self) -> &Rootfs {
        static EMPTY: std::sync::LazyLock<Rootfs> = std::sync::LazyLock::new(Rootfs::default);
        self.rootfs.as_ref().unwrap_or(&EMPTY)
    }

    /// Uses a layer that was made before.
    fn reuse(
        &mut self,
        inputs: &Inputs<'_>,
        done: Done,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        emit(Event::StepCached);
        if let Some(layer) = done.layer.and_then(DoneLayer::read) {
            // What was read of the layers below says nothing of this one.
            if let Some(rootfs) = &mut self.rootfs {
                rootfs.add(inputs.store, &layer)?;
            }
            self.layers.push(layer);
        }
        Ok(())
    }

    /// Writes a layer, and remembers it under `keys`.
    fn write(
        &mut self,
        inputs: &Inputs<'_>,
        copied: &Copied,
        keys: &[Digest],
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        if copied.tree.is_empty() {
            return remember(inputs, keys, None);
        }
        let (total, mut done) = (copied.tree.size(), 0);
        let written = layer::write(&copied.tree, inputs.store, &mut |count| {
            done += count;
            emit(Event::LayerProgress { done, total });
        })?;
        remember(inputs, keys, Some(&written))?;
        let (entries, size, digest) = (copied.tree.len(), written.size, written.digest);
        emit(Event::LayerWritten { entries, content: total, size, digest });
        if let Some(rootfs) = &mut self.rootfs {
            rootfs.push(&copied.tree, &written);
        }
        self.layers.push(written);
        self.made += 1;
        Ok(())
    }
}

/// What COPY and ADD have in common.
struct What<'a> {
    sources: &'a [Source],
    destination: &'a Word,
    chown: Option<&'a Word>,
    chmod: Option<&'a Word>,
    unpacks: bool,
}

/// The same with its variables replaced.
struct Job {
    sources: Vec<String>,
    destination: Destination,
    chown: Option<String>,
    mode: Option<u32>,
}

/// What makes the files below: the digests of the unpacked layers, in order.
fn stack(layers: &[Layer]) -> Vec<u8> {
    layers.iter().flat_map(|it| *it.diff_id.as_bytes()).collect()
}

fn rules(inputs: &Inputs<'_>, owner: Option<Owner>, mode: Option<u32>) -> Rules {
    Rules { owner, mode, epoch: inputs.epoch, now: inputs.now }
}

fn load_base(inputs: &Inputs<'_>, base: &Base) -> Result<Image, BuildErrorKind> {
    match inputs.bases.get(base) {
        Some(digest) => Ok(catalog::load(inputs.store, *digest)?),
        None => Err(CatalogError::NotFound(format!("{base:?}")).into()),
    }
}

/// The destination of COPY: `.`, nothing, and what ends in a slash is a folder.
fn destination_of(working_folder: &str, text: &str) -> Result<Destination, PathError> {
    let is_folder = text.is_empty() || text == "." || text.ends_with('/');
    Ok(Destination { path: absolute(working_folder, text)?, is_folder })
}

/// A path, seen from the working folder.
fn absolute(working_folder: &str, text: &str) -> Result<TreePath, PathError> {
    match text.starts_with('/') {
        true => TreePath::parse_in_root(text.as_bytes()),
        false => TreePath::parse_in_root(format!("{working_folder}/{text}").as_bytes()),
    }
}

fn mode(text: &str) -> Result<u32, BuildErrorKind> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(mode),
        _ => Err(BuildErrorKind::Mode(text.to_owned())),
    }
}

fn refuse_remote(sources: &[String]) -> Result<(), BuildErrorKind> {
    match sources.iter().find(|it| steps::is_remote(it)) {
        Some(text) => Err(BuildErrorKind::Remote(text.clone())),
        None => Ok(()),
    }
}

/// ADD would unpack these; what is only compressed it would not, but that is known only after.
fn refuse_archives(context: &Context, found: &[sources::Found]) -> Result<(), BuildErrorKind> {
    for path in found.iter().map(sources::Found::path) {
        let head = context.head(path).map_err(SourceError::from)?;
        let magics: [&[u8]; 5] =
            [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x5d\0\0"];
        if is_tar(&head) || magics.iter().any(|it| head.starts_with(it)) {
            return Err(BuildErrorKind::Archive(path.clone()));
        }
    }
    Ok(())
}

/// Whether a block is the header of a tar entry: all kinds of tar have the same checksum.
fn is_tar(block: &[u8]) -> bool {
    let Some((header, stored)) = block.get(..512).zip(block.get(148..156)) else { return false };
    let sum = |at: usize, byte: u8| if (148..156).contains(&at) { 32 } else { u32::from(byte) };
    let sum: u32 = header.iter().enumerate().map(|(at, byte)| sum(at, *byte)).sum();
    let digits = stored.split(|it| matches!(it, 0 | b' ')).find(|it| !it.is_empty());
    let digits = digits.and_then(|it| std::str::from_utf8(it).ok());
    header[0] != 0 && digits.and_then(|it| u32::from_str_radix(it, 8).ok()) == Some(sum)
}

fn command_line(command: &instruction::CommandLine) -> config::CommandLine {
    match command {
        instruction::CommandLine::Shell(word) => config::CommandLine::Shell(word.text.clone()),
        instruction::CommandLine::Exec(words) => {
            config::CommandLine::Exec(words.iter().map(|it| it.text.clone()).collect())
        }
    }
}

fn healthcheck(check: &Healthcheck) -> config::Healthcheck {
    let Healthcheck::Check(check) = check else {
        return config::Healthcheck { test: vec!["NONE".into()], ..config::Healthcheck::default() };
    };
    let Check { command, interval, timeout, start_period, start_interval, retries } = check;
    let test = match command_line(command) {
        config::CommandLine::Exec(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
        config::CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
    };
    let given = |number: u64| Some(number).filter(|it| *it != 0);
    config::Healthcheck {
        test,
        interval: given(*interval),
        timeout: given(*timeout),
        start_period: given(*start_period),
        start_interval: given(*start_interval),
        retries: given(u64::from(*retries)),
    }
}

/// Signals by number, or by name with or without `SIG` (signal(7)), as docker takes them.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
        "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
        "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
        "RTMIN",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |it: &str| it.parse::<u8>().is_ok_and(|it| it <= 30);
    NAMES.contains(&name)
        || name == "RTMAX"
        || name.strip_prefix("RTMIN+").is_some_and(offset)
        || name.strip_prefix("RTMAX-").is_some_and(offset)
}

/// What was remembered under `key`, if it can be used.
fn recall(inputs: &Inputs<'_>, key: Digest) -> Result<Option<Done>, BuildErrorKind> {
    if inputs.cache == Cache::Ignore {
        return Ok(None);
    }
    let Some(done) = inputs.store.recall::<Done>(key)? else { return Ok(None) };
    let is_there = match done.layer.clone().map(DoneLayer::read) {
        None => true,
        Some(Some(layer)) => inputs.store.has(layer.digest, layer.size)?,
        Some(None) => false,
    };
    Ok(is_there.then_some(done))
}

fn remember(
    inputs: &Inputs<'_>,
    keys: &[Digest],
    layer: Option<&Layer>,
) -> Result<(), BuildErrorKind> {
    let layer = layer.map(|it| DoneLayer {
        media_type: it.media_type.clone(),
        digest: it.digest.to_string(),
        size: it.size,
        diff_id: it.diff_id.to_string(),
    });
    for key in keys {
        inputs.store.remember(*key, &Done { layer: layer.clone() })?;
    }
    Ok(())
}

impl DoneLayer {
    fn read(self) -> Option<Layer> {
        let Self { media_type, digest, size, diff_id } = self;
        Some(Layer {
            media_type,
            digest: digest.parse().ok()?,
            size,
            diff_id: diff_id.parse().ok()?,
        })
    }
}

/// Puts the image together. The same result keeps the time when it was made first, so that a
/// build that did nothing gives the same digest.
fn finish(inputs: &Inputs<'_>, stage: &Stage, made: usize) -> Result<Built, BuildErrorKind> {
    let timeless = Image::assemble(&stage.config, stage.layers.clone(), "", &stage.history);
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
    let image = Image::assemble(&stage.config, stage.layers.clone(), &created, &stage.history);
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
