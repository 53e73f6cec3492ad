//! One stage: what each instruction does to the config and the layers.

use std::collections::BTreeMap;

use super::{
    BuildErrorKind, Cache, Inputs, LARGEST_VALUES,
    done::{Done, DoneLayer, recall, remember},
    owner, sources,
    sources::SourceError,
    values::{command_line, healthcheck, is_signal},
};
use crate::{
    catalog::{self, CatalogError},
    config::{Config, History, KeepCommand},
    contents::Contents,
    context::Context,
    copy::{self, Destination, Owner, Rules},
    digest::{Digest, Framed},
    dockerfile::{
        Arg, Word,
        instruction::{Command, Pair, Source},
        ports, words,
    },
    event::Event,
    image::{Image, Layer},
    layer,
    rootfs::{self, Rootfs, RootfsError},
    steps::{self, Base, Step},
    store::ObjectKind,
    tree::{PathError, Tree, TreePath},
};

/// The most entries of what lies in the layers that are kept from one step to the next: more of them
/// are read again, which takes less memory, and few milliseconds.
const MOST_KEPT: usize = 20_000;

/// The state of a stage: what its next instruction starts from.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    pub(super) layers: Vec<Layer>,
    /// What was added to the base's history.
    pub(super) history: Vec<History>,
    /// What lies in the layers; read when it is needed first.
    rootfs: Option<Rootfs>,
    /// What variables are replaced with: what ENV or ARG set last.
    variables: BTreeMap<String, String>,
    has_command: bool,
    /// The bytes that variables were replaced with so far.
    expanded: usize,
    /// How many layers were made and not found.
    pub(super) made: usize,
    pub(super) warnings: Vec<String>,
    /// What names the layer that the current step makes: see [`layer::Job::like`].
    like: Digest,
}

impl Stage {
    pub(super) fn start(
        inputs: &Inputs<'_>,
        base: &Base,
        stages: &[Self],
    ) -> Result<Self, BuildErrorKind> {
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
            like: Digest::of(b""),
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

    pub(super) fn run(
        &mut self,
        inputs: &Inputs<'_>,
        step: &Step,
        stages: &[Self],
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        let layers = self.layers.len();
        self.like = Framed::new("rbuild like 1")
            .with(inputs.context.folder().as_os_str().as_encoded_bytes())
            .with(layers.to_le_bytes())
            .with(&step.instruction.source)
            .finish();
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
            self.reuse(done, emit);
            return Ok(());
        }
        let owner = self.owner(inputs, Some(&user).filter(|it| !it.is_empty()))?;
        let rules = self.rules(inputs, owner, None)?;
        let near = self.near(inputs, &path)?;
        let tree = copy::make_folder(&path, near.as_ref().unwrap_or(self.rootfs()), rules)?;
        self.write(inputs, tree, &[key], emit)
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
            .key(inputs, "rbuild copy 2")
            .with(destination.path.as_bytes())
            .with([destination.is_folder, chown.is_some(), chmod.is_some()].map(u8::from))
            .with(chown.as_deref().unwrap_or_default())
            .with(chmod.as_deref().unwrap_or_default());
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
                    self.reuse(done, emit);
                    return Ok(());
                }
                inputs.context.rest();
                let copied = self.copied(inputs, &job, found)?;
                self.write(inputs, copied, &keys, emit)
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
            self.reuse(done, emit);
            return Ok(());
        }
        inputs.context.rest();
        let rootfs = Rootfs::read_from(inputs.found(), layers)?;
        let found = sources::in_rootfs(&rootfs, &job.sources)?;
        self.note_empty(&job.sources, &found);
        let mut by_content = key;
        for it in &found {
            it.add_to(&mut by_content);
        }
        let keys = [by_layers, by_content.finish()];
        if let Some(done) = recall(inputs, keys[1])? {
            inputs.store.remember(keys[0], &done)?;
            self.reuse(done, emit);
            return Ok(());
        }
        let layers = rootfs.into_layers();
        let mut copied = self.copied(inputs, job, found)?;
        let scratch = inputs.store.scratch()?;
        rootfs::fetch(inputs.found(), &layers, &mut copied, scratch.path())?;
        self.write(inputs, copied, &keys, emit)
    }

    fn copied(
        &mut self,
        inputs: &Inputs<'_>,
        job: &Job,
        found: Vec<sources::Found>,
    ) -> Result<Tree, BuildErrorKind> {
        let owner = self.owner(inputs, job.chown.as_ref())?;
        let rules = self.rules(inputs, owner, job.mode)?;
        let near = self.near(inputs, &job.destination.path)?;
        let rootfs = near.as_ref().unwrap_or(self.rootfs());
        let sources = found.into_iter().map(sources::Found::into_source).collect();
        Ok(copy::copy(sources, &job.destination, rootfs, rules)?)
    }

    /// What the key of every step that makes a layer begins with.
    fn key(&self, inputs: &Inputs<'_>, purpose: &str) -> Framed {
        let epoch = inputs.epoch.map(|it| it.to_string()).unwrap_or_default();
        Framed::new(purpose).with(inputs.layers.format()).with(stack(&self.layers)).with(epoch)
    }

    /// Folders that are made get the time when this step made some first: a time of each build
    /// would change the beginning of the layer, and with it all that is hashed.
    fn rules(
        &self,
        inputs: &Inputs<'_>,
        owner: Option<Owner>,
        mode: Option<u32>,
    ) -> Result<Rules, BuildErrorKind> {
        let key = Framed::new("rbuild made folders 1").with(self.like.as_bytes()).finish();
        let now = match (inputs.epoch, inputs.store.recall::<i64>(key)?) {
            (Some(epoch), _) => epoch,
            // One of the future is that of a clock that was wrong.
            (None, Some(first)) if first <= inputs.now => first,
            (None, _) => {
                inputs.store.remember(key, &inputs.now)?;
                inputs.now
            }
        };
        Ok(Rules { owner, mode, epoch: inputs.epoch, now })
    }

    /// Whom a text names.
    fn owner(
        &mut self,
        inputs: &Inputs<'_>,
        text: Option<&String>,
    ) -> Result<Option<Owner>, BuildErrorKind> {
        let Some(text) = text else { return Ok(None) };
        self.read_rootfs(inputs)?;
        let owner = owner::resolve(text, self.rootfs(), inputs.found())?;
        if self.rootfs().tree().len() > MOST_KEPT {
            self.forget_rootfs();
        }
        Ok(Some(owner))
    }

    /// What lies at `path` in the layers; none if [`Stage::rootfs`] has all of them.
    fn near(
        &mut self,
        inputs: &Inputs<'_>,
        path: &TreePath,
    ) -> Result<Option<Rootfs>, BuildErrorKind> {
        let mut count = 0;
        if self.rootfs.is_none() {
            for layer in &self.layers {
                count += inputs.found().contents(layer)?.items().count();
            }
        }
        if count <= MOST_KEPT {
            self.read_rootfs(inputs)?;
            return Ok(None);
        }
        Ok(Some(Rootfs::read_near(inputs.found(), &self.layers, path)?))
    }

    fn read_rootfs(&mut self, inputs: &Inputs<'_>) -> Result<(), BuildErrorKind> {
        if self.rootfs.is_none() {
            self.rootfs = Some(Rootfs::read_from(inputs.found(), &self.layers)?);
        }
        Ok(())
    }

    /// What was read is read again, from tables, if a later step needs it.
    pub(super) fn forget_rootfs(&mut self) {
        self.rootfs = None;
    }

    fn rootfs(&self) -> &Rootfs {
        static EMPTY: std::sync::LazyLock<Rootfs> = std::sync::LazyLock::new(Rootfs::default);
        self.rootfs.as_ref().unwrap_or(&EMPTY)
    }

    /// Uses a layer that was made before.
    fn reuse(&mut self, done: Done, emit: &mut dyn FnMut(Event<'_>)) {
        emit(Event::StepCached);
        if let Some(layer) = done.layer.and_then(DoneLayer::read) {
            // What was read of the layers below says nothing of this one.
            self.forget_rootfs();
            self.layers.push(layer);
        }
    }

    /// Writes a layer, and remembers it under `keys`.
    fn write(
        &mut self,
        inputs: &Inputs<'_>,
        copied: Tree,
        keys: &[Digest],
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), BuildErrorKind> {
        if copied.is_empty() {
            return remember(inputs, keys, None);
        }
        // Two large trees at a time are enough.
        if self.rootfs.as_ref().is_some_and(|it| MOST_KEPT < it.tree().len() + copied.len()) {
            self.forget_rootfs();
        }
        let (total, mut done) = (copied.size(), 0);
        let mut progress = |count| {
            done += count;
            emit(Event::LayerProgress { done, total });
        };
        let mut job = layer::Job {
            store: inputs.store,
            options: inputs.layers,
            like: self.like,
            reuse: match inputs.cache {
                Cache::Use => layer::Reuse::Stored,
                Cache::Ignore => layer::Reuse::Nothing,
            },
            stats: layer::Stats::default(),
            uploads: inputs.uploads,
            progress: &mut progress,
        };
        let written = layer::write(&copied, &mut job)?;
        let bytes = job.stats;
        let contents = Contents::of_tree(&copied);
        let contents = contents.map_err(|err| RootfsError::contents(&written, err))?;
        let (entries, size, digest) = (copied.len(), written.size, written.digest);
        drop(copied);
        inputs.store.add_object(ObjectKind::Contents, written.diff_id, contents.as_bytes())?;
        remember(inputs, keys, Some(&written))?;
        emit(Event::LayerWritten { entries, content: total, size, digest, bytes });
        if let Some(rootfs) = &mut self.rootfs {
            rootfs.lay(&contents, &written)?;
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

pub(super) fn load_base(inputs: &Inputs<'_>, base: &Base) -> Result<Image, BuildErrorKind> {
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
