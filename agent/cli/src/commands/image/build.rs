//! `rbuild image build`

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::{
    build::{self, BuildError, BuildErrorKind, Built, Cache},
    catalog,
    context::{Context, ContextError},
    digest::Digest,
    dockerfile::{Dockerfile, Place},
    event::Event,
    layout,
    patterns::Ignore,
    reference::Reference,
    steps::{self, Base, Plan},
    store::{Origin, Store},
    transfer::{self, Network},
};
use serde_json::json;

use super::{
    catalog_failure, layout_failure, name, store, store_failure, transfer::transfer_failure,
};
use crate::{
    args::{Global, ImageBuild},
    console::{self, excerpt::excerpt, images::Images},
    failure::{Failure, Kind},
    host, registries,
};

/// The Dockerfile as a person knows it: its path, and its text for excerpts.
struct Source {
    path: PathBuf,
    text: String,
}

pub(super) fn build(args: &ImageBuild, global: &Global) -> Result<(), Failure> {
    let names = args.tags.iter().map(|it| name(it)).collect::<Result<Vec<_>, _>>()?;
    let build_args = build_args(&args.build_arg)?;
    let epoch = host::source_date_epoch()?;
    let platform = host::platform();
    let (source, dockerfile) = read_dockerfile(args)?;
    let inputs = steps::Inputs {
        build_args: build_args.clone(),
        target: args.target.clone(),
        platform: platform.clone(),
    };
    let plan = steps::plan(&dockerfile, &inputs).map_err(|err| {
        let hint = matches!(err.kind, steps::PlanErrorKind::Unsupported(_))
            .then_some("rbuild refuses what it cannot do yet, rather than leave it out");
        source.failure(Failure::of(Kind::Input, err.kind).hint_if(hint), err.place)
    })?;
    let ignore = read_ignore(args, &source)?;
    let context = Context::open_folder(&args.context, ignore).map_err(context_failure)?;
    let store = store(global)?;
    let view = Images::new();
    let bases = bases(args, global, &plan, &source, &store, &view)?;
    let inputs = build::Inputs {
        plan: &plan,
        context: &context,
        store: &store,
        bases: &bases,
        build_args: &build_args,
        platform: &platform,
        cache: if args.no_cache { Cache::Ignore } else { Cache::Use },
        epoch,
        now: i64::try_from(host::now().as_secs()).unwrap_or(i64::MAX),
    };
    let built = build::build(&inputs, &mut |event| view.show(&event))
        .map_err(|err| build_failure(&source, err))?;
    let digest = built.image.digest();
    for name in &names {
        catalog::tag(&store, name, digest, Origin::Local).map_err(store_failure)?;
        console::say(&format!("named {name}"));
    }
    report(args, &names, &built)
}

fn report(args: &ImageBuild, names: &[Reference], built: &Built) -> Result<(), Failure> {
    let digest = built.image.digest().to_string();
    if let Some(file) = &args.iidfile {
        fs::write(file, &digest).map_err(|err| {
            let message = format!("`{}` could not be written", file.display());
            Failure::new(Kind::Outside, message).because(err)
        })?;
    }
    if !args.json {
        return console::print_line(&digest);
    }
    let layer = |it: &rbuild_imagebuilder::image::Layer| json!({ "digest": it.digest.to_string(), "size": it.size, "mediaType": it.media_type });
    let report = json!({
        "digest": digest,
        "id": built.image.config_digest().to_string(),
        "names": names.iter().map(Reference::to_string).collect::<Vec<_>>(),
        "cached": built.cached,
        "layers": built.image.layers.iter().map(layer).collect::<Vec<_>>(),
    });
    console::print_line(&report.to_string())
}

/// Reads `NAME=VALUE`, or `NAME` with the value that the environment has, if it has one.
fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut args = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), host::variable(text)),
        };
        if name.is_empty() {
            return Err(Failure::new(Kind::Input, format!("`--build-arg {text}` has no name"))
                .hint("write it as --build-arg NAME=VALUE"));
        }
        if let Some(value) = value {
            args.insert(name.to_owned(), value);
        }
    }
    Ok(args)
}

fn read_dockerfile(args: &ImageBuild) -> Result<(Source, Dockerfile), Failure> {
    if !args.context.is_dir() {
        // Said before the Dockerfile is missed in it.
        let message = format!("the build context `{}` is not a folder", args.context.display());
        return Err(Failure::new(Kind::Input, message));
    }
    let path = match &args.file {
        Some(file) => file.clone(),
        None => args.context.join("Dockerfile"),
    };
    let bytes = fs::read(&path).map_err(|err| {
        let message = format!("the Dockerfile `{}` could not be read", path.display());
        let hint = (err.kind() == io::ErrorKind::NotFound && args.file.is_none())
            .then_some("name another file with -f");
        Failure::new(Kind::Input, message).because(err).hint_if(hint)
    })?;
    let source = Source { path, text: String::from_utf8_lossy(&bytes).into_owned() };
    match Dockerfile::parse(&bytes) {
        Ok(dockerfile) => Ok((source, dockerfile)),
        Err(err) => {
            let hint = err.hint();
            let (place, failure) = (err.place, Failure::of(Kind::Input, err));
            Err(source.failure(failure.hint_if(hint), Some(place)))
        }
    }
}

impl Source {
    /// The failure with the line that it is about.
    fn failure(&self, failure: Failure, place: Option<Place>) -> Failure {
        match place {
            Some(Place { line, column }) => {
                let file = self.path.display().to_string();
                failure.excerpt(excerpt(&file, &self.text, line, column))
            }
            None => failure,
        }
    }
}

/// The ignore file beside the Dockerfile wins over that of the context (`NAME.dockerignore`).
fn read_ignore(args: &ImageBuild, source: &Source) -> Result<Ignore, Failure> {
    let mut beside = source.path.clone().into_os_string();
    beside.push(".dockerignore");
    for path in [PathBuf::from(beside), args.context.join(".dockerignore")] {
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => {
                let message = format!("`{}` could not be read", path.display());
                return Err(Failure::new(Kind::Input, message).because(err));
            }
        };
        return Ignore::parse(&text).map_err(|err| {
            let excerpt = excerpt(&path.display().to_string(), &text, err.line, 1);
            Failure::of(Kind::Input, err).excerpt(excerpt)
        });
    }
    Ok(Ignore::default())
}

/// Brings the images that the plan needs into the store.
fn bases(
    args: &ImageBuild,
    global: &Global,
    plan: &Plan,
    source: &Source,
    store: &Store,
    view: &Images,
) -> Result<BTreeMap<Base, Digest>, Failure> {
    let needed = plan.bases();
    if needed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let network = if args.offline { Network::Offline } else { Network::Online };
    let (platform, now) = (host::platform(), host::now().as_secs());
    let client = registries::client(global)?;
    let runtime = registries::runtime()?;
    let emit = |event: Event<'_>| view.show(&event);
    let mut found = BTreeMap::new();
    for (base, place) in needed {
        let image = match &base {
            Base::Image(name) => runtime
                .block_on(transfer::base(&client, store, name, &platform, network, now, &emit))
                .map_err(transfer_failure),
            Base::Layout { folder, name } => {
                let folder = args.context.join(Path::new(folder));
                layout::load_one(store, &folder, name.as_deref(), &platform, now)
                    .map_err(layout_failure)
            }
            Base::Scratch | Base::Stage(_) => continue,
        };
        let image = image.map_err(|failure| source.failure(failure, Some(place)))?;
        found.insert(base, image.digest);
    }
    Ok(found)
}

fn context_failure(err: ContextError) -> Failure {
    match err {
        ContextError::Read { ref source, .. } => {
            let kind = match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Kind::Input,
                _ => Kind::Outside,
            };
            Failure::of(kind, err)
        }
        err => Failure::of(Kind::Input, err),
    }
}

fn build_failure(source: &Source, err: BuildError) -> Failure {
    let BuildError { kind, place } = err;
    let failure = match kind {
        BuildErrorKind::Store(err) => store_failure(err),
        BuildErrorKind::Catalog(err) => catalog_failure(err),
        BuildErrorKind::Layer(err) => layer_failure(err),
        BuildErrorKind::Rootfs(err) => Failure::of(Kind::Outside, err),
        kind => {
            let hint = hint(&kind);
            Failure::of(Kind::Input, kind).hint_if(hint)
        }
    };
    source.failure(failure, place)
}

fn layer_failure(err: build::LayerError) -> Failure {
    match err {
        build::LayerError::Store(err) => store_failure(err),
        build::LayerError::Write(ref source) => {
            let hint = super::io_hint(source);
            Failure::of(Kind::Outside, err).hint_if(hint)
        }
        build::LayerError::Changed { .. } => {
            Failure::of(Kind::Outside, err).hint("build again when nothing writes to the context")
        }
        build::LayerError::Read { .. } => Failure::of(Kind::Outside, err),
    }
}

fn hint(kind: &BuildErrorKind) -> Option<&'static str> {
    match kind {
        BuildErrorKind::Source(build::SourceError::NotFound { .. }) => {
            Some("paths are relative to the build context, the last argument of `image build`")
        }
        BuildErrorKind::Source(build::SourceError::Outside(_) | build::SourceError::Context(_)) => {
            Some("only what is in the build context can be copied")
        }
        BuildErrorKind::Owner(_) => Some("numbers need no file: --chown=1000:1000"),
        BuildErrorKind::Trigger(_) | BuildErrorKind::Remote(_) | BuildErrorKind::Archive(_) => {
            Some("rbuild refuses what it cannot do yet, rather than leave it out")
        }
        _ => None,
    }
}
