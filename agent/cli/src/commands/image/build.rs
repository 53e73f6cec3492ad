//! `rbuild image build`

use std::{collections::BTreeMap, fs, path::Path};

use rbuild_imagebuilder::{
    build::{self, Built, Cache},
    catalog,
    context::Context,
    digest::Digest,
    event::Event,
    image, layer, layout,
    reference::Reference,
    registry::Client,
    steps::{self, Base, Plan},
    store::{Origin, Store},
    transfer::{self, Network},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::{
    base_layers::BaseLayers,
    failures::{build_failure, context_failure},
    files::{Source, read_dockerfile, read_ignore},
    push::{Push, Pushed},
};
use super::{
    io_kind, keep_below_limit, layout_failure, name, store, store_failure,
    transfer::transfer_failure,
};
use crate::{
    args::{Global, ImageBuild, formats::MediaTypes},
    console::{self, images::Images},
    failure::{Failure, Kind},
    host, registries,
};

mod base_layers;
mod failures;
mod files;
mod push;

pub(super) fn build(args: &ImageBuild, global: &Global) -> Result<(), Failure> {
    check(args)?;
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
    let store = store(global)?;
    let context = Context::open_known(&args.context, ignore, &store).map_err(context_failure)?;
    let view = Images::of_file(&source.path);
    let network = Registries::new(args, global, &plan)?;
    let push = Push::begin(args, network.as_ref(), &names)?;
    let bases = bases(args, network.as_ref(), &plan, &source, &store, &view)?;
    let base_layers = network.as_ref().map(|it| BaseLayers::new(it, asked(args), &store, &view));
    let inputs = build::Inputs {
        plan: &plan,
        context: &context,
        store: &store,
        remote: base_layers.as_ref().map(|it| it as &dyn build::RemoteLayers),
        bases: &bases,
        build_args: &build_args,
        platform: &platform,
        layers: layer::Options { compression: args.layers.compression },
        format: match args.format {
            MediaTypes::Oci => image::Format::Oci,
            MediaTypes::Docker => image::Format::Docker,
        },
        uploads: push.as_ref().map(Push::uploads),
        cache: if args.no_cache { Cache::Ignore } else { Cache::Use },
        epoch,
        now: i64::try_from(host::now().as_secs()).unwrap_or(i64::MAX),
    };
    let mut written = Vec::new();
    let mut emit = |event: Event<'_>| {
        if let Event::LayerWritten { digest, bytes, .. } = event {
            written.push((digest, bytes));
        }
        view.show(&event);
    };
    let built = build::build(&inputs, &mut emit)
        .map_err(|err| source.failure(build_failure(err.kind), err.place))?;
    let digest = built.image.digest();
    for name in &names {
        catalog::tag(&store, name, digest, Origin::Local).map_err(store_failure)?;
        console::say(&format!("named {name}"));
    }
    let pushed = match push {
        Some(push) => push.finish(&store, digest, &names, &view)?,
        None => Vec::new(),
    };
    report(args, &names, &built, (&written, &pushed))?;
    keep_below_limit(&store, global);
    Ok(())
}

/// Refuses what would be found out when all layers are made.
fn check(args: &ImageBuild) -> Result<(), Failure> {
    check_format(args)?;
    if let Some(text) = &args.platform {
        check_platform(text)?;
    }
    args.iidfile.as_deref().map_or(Ok(()), check_file)
}

/// A file can be written where there is a folder for it, and none in its place.
fn check_file(path: &Path) -> Result<(), Failure> {
    let unwritten = || Failure::new(Kind::Input, format!("`{}` cannot be written", path.display()));
    if path.is_dir() {
        return Err(unwritten().hint("it is a folder: name a file in it"));
    }
    match path.parent().filter(|it| !it.as_os_str().is_empty()) {
        Some(folder) if !folder.is_dir() => {
            Err(unwritten().hint(format!("there is no folder `{}`", folder.display())))
        }
        _ => Ok(()),
    }
}

fn check_platform(text: &str) -> Result<(), Failure> {
    let own = host::platform();
    if text == own.to_string() {
        return Ok(());
    }
    let message =
        format!("images are built for this machine's platform, {own}, and not for {text}");
    Err(Failure::new(Kind::Input, message).hint(
        "build on a machine of that platform; `rbuild image copy --all` carries images for several",
    ))
}

fn check_format(args: &ImageBuild) -> Result<(), Failure> {
    match (args.format, args.layers.compression) {
        (MediaTypes::Docker, layer::Method::Zstd(_)) => {
            let message = "docker's manifests have no media type for layers in zstd";
            Err(Failure::new(Kind::Input, message)
                .hint("leave out --format docker, or choose another --compression"))
        }
        _ => Ok(()),
    }
}

fn report(
    args: &ImageBuild,
    names: &[Reference],
    built: &Built,
    (written, pushed): (&[(Digest, layer::Stats)], &[Pushed]),
) -> Result<(), Failure> {
    let digest = built.image.digest().to_string();
    if let Some(file) = &args.iidfile {
        fs::write(file, &digest).map_err(|err| {
            let message = format!("`{}` could not be written", file.display());
            Failure::new(io_kind(&err), message).because(err)
        })?;
    }
    if !args.json && args.push {
        return pushed.iter().try_for_each(|it| console::print_line(&it.name));
    }
    if !args.json {
        return console::print_line(&digest);
    }
    let layer = |it: &image::Layer| {
        let cost = written.iter().filter(|(digest, _)| *digest == it.digest);
        json!({
            "digest": it.digest.to_string(),
            "size": it.size,
            "mediaType": it.media_type,
            "bytes": cost_of(cost.map(|it| it.1)),
        })
    };
    let mut report = json!({
        "digest": digest,
        "id": built.image.config_digest().to_string(),
        "names": names.iter().map(Reference::to_string).collect::<Vec<_>>(),
        "cached": built.cached,
        "bytes": cost_of(written.iter().map(|it| it.1)),
        "layers": built.image.layers.iter().map(layer).collect::<Vec<_>>(),
    });
    if args.push {
        report["pushed"] = pushed.iter().map(|it| it.report.clone()).collect();
    }
    console::print_line(&report.to_string())
}

/// What layers cost together, in bytes.
fn cost_of(layers: impl Iterator<Item = layer::Stats> + Clone) -> Value {
    let sum = |part: fn(layer::Stats) -> u64| layers.clone().map(part).sum::<u64>();
    json!({
        "read": sum(|it| it.read),
        "hashed": sum(|it| it.hashed),
        "compressed": sum(|it| it.compressed),
        "reused": sum(|it| it.reused),
    })
}

/// Reads `NAME=VALUE`, or `NAME` with the value that the environment has, if it has one.
fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut args = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), host::variable_or_empty(text)),
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

/// What asks registries: for bases, and to push. With one client a token serves both.
struct Registries {
    client: Client,
    runtime: Runtime,
}

impl Registries {
    fn new(args: &ImageBuild, global: &Global, plan: &Plan) -> Result<Option<Self>, Failure> {
        if plan.bases().is_empty() && !args.push {
            return Ok(None);
        }
        let (client, runtime) = (registries::client(global)?, registries::runtime()?);
        Ok(Some(Self { client, runtime }))
    }
}

/// Whether bases may be asked for.
fn asked(args: &ImageBuild) -> Network {
    if args.offline { Network::Offline } else { Network::Online }
}

/// Brings the images that the plan needs into the store; of those of registries, what tells of
/// their layers.
fn bases(
    args: &ImageBuild,
    registries: Option<&Registries>,
    plan: &Plan,
    source: &Source,
    store: &Store,
    view: &Images,
) -> Result<BTreeMap<Base, Digest>, Failure> {
    let Some(Registries { client, runtime }) = registries else { return Ok(BTreeMap::new()) };
    let network = asked(args);
    let (platform, now) = (host::platform(), host::now().as_secs());
    let emit = |event: Event<'_>| view.show(&event);
    let mut found = BTreeMap::new();
    for (base, place) in plan.bases() {
        let image = match &base {
            Base::Image(name) => runtime
                .block_on(transfer::base(client, store, name, &platform, network, now, &emit))
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
