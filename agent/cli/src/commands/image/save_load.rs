//! `rbuild image save` and `load`.

use std::{
    fs::{File, Metadata},
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use rbuild_imagebuilder::{
    archive::{self, PartFile},
    catalog,
    event::Event,
    layout::{self, LayoutError},
    reference::Reference,
    store::{Store, StoredImage},
    transfer,
};

use super::{catalog_failure, layout_failure, short_name, transfer::fetch_failure};
use crate::{
    args::{
        Global,
        formats::{Format, Load, Save},
    },
    console,
    failure::{Failure, Kind},
    host, registries,
};

type Images = [(StoredImage, String)];

pub(super) fn save(args: &Save, global: &Global) -> Result<(), Failure> {
    let store = &super::store(global)?;
    let found = |text: &String| -> Result<(StoredImage, String), Failure> {
        let image = catalog::find(store, text).map_err(catalog_failure)?;
        let name = text.parse::<Reference>().ok().filter(|it| it.digest().is_none());
        let name = name.map(|it| it.with_default_tag().canonical());
        Ok((image, name.unwrap_or_else(|| text.clone())))
    };
    let images = args.images.iter().map(found).collect::<Result<Vec<_>, _>>()?;
    fetch_layers(store, global, &images)?;
    match args.output.as_deref().filter(|it| *it != Path::new("-")) {
        None => save_to_output(args.format, store, &images),
        Some(path) if args.format == Format::Oci && !is_tar(path) => {
            layout::save(store, &images, path).map_err(layout_failure)
        }
        Some(path) => save_to_file(args.format, store, &images, path),
    }
}

/// Brings the layers that the store knows of only; mostly there are none, and nothing is asked.
fn fetch_layers(store: &Store, global: &Global, images: &Images) -> Result<(), Failure> {
    let view = console::images::Images::new();
    for (image, name) in images {
        let lacking = transfer::missing(store, image).map_err(layout_failure)?;
        if lacking.is_empty() {
            continue;
        }
        let client = registries::client(global)?;
        let emit = |event: Event<'_>| view.show(&event);
        let name = short_name(name);
        let fetch = transfer::fetch(&client, store, &name, &lacking, &emit);
        registries::runtime()?.block_on(fetch).map_err(fetch_failure)?;
    }
    Ok(())
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "tar")
}

fn save_to_output(format: Format, store: &Store, images: &Images) -> Result<(), Failure> {
    let out = io::stdout();
    if out.is_terminal() {
        return Err(Failure::new(Kind::Input, "an archive is nothing to read on a terminal")
            .hint("name a file with -o, or send it into another program"));
    }
    let mut out = BufWriter::with_capacity(1 << 18, out.lock());
    let path = Path::new("standard output");
    write(format, store, images, &mut out, path)?;
    out.flush().map_err(|source| unwritten(path, source))
}

/// A half-written archive would look whole to some readers: it is there when it is whole.
fn save_to_file(
    format: Format,
    store: &Store,
    images: &Images,
    path: &Path,
) -> Result<(), Failure> {
    let unwritten = |source| unwritten(path, source);
    let metadata = path.metadata();
    if metadata.as_ref().is_ok_and(Metadata::is_dir) {
        let message = format!("`{}` is a folder, and an archive is a file", path.display());
        return Err(Failure::new(Kind::Input, message).hint("name a file in it"));
    }
    if metadata.as_ref().is_ok_and(|it| !it.is_file()) {
        // A pipe or a device stays what it is.
        let file = File::options().write(true).open(path).map_err(unwritten)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        write(format, store, images, &mut out, path)?;
        return out.flush().map_err(unwritten);
    }
    // A link stays, too.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let file = PartFile::create(&place).map_err(unwritten)?;
    let mut out = BufWriter::with_capacity(1 << 18, file);
    write(format, store, images, &mut out, path)?;
    let file = out.into_inner().map_err(|err| unwritten(err.into_error()))?;
    file.finish().map_err(unwritten)
}

fn write(
    format: Format,
    store: &Store,
    images: &Images,
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), Failure> {
    let written = match format {
        Format::Oci => layout::save_tar(store, images, out, path),
        Format::DockerArchive => archive::save(store, images, out, path),
    };
    written.map_err(|err| match err {
        LayoutError::Io { action: "written", path, source } => unwritten(&path, source),
        err => layout_failure(err),
    })
}

fn unwritten(path: &Path, source: io::Error) -> Failure {
    if source.kind() == io::ErrorKind::BrokenPipe {
        // Who read it has seen enough.
        return Failure::told(Kind::Outside);
    }
    layout_failure(LayoutError::Io { action: "written", path: path.to_owned(), source })
}

pub(super) fn load(args: &Load, store: &Store) -> Result<(), Failure> {
    let (platform, now) = (host::platform(), host::now().as_secs());
    let loaded = match args.input.as_deref().filter(|it| *it != Path::new("-")) {
        Some(path) => layout::load(store, path, &platform, now),
        None if io::stdin().is_terminal() => {
            return Err(Failure::new(Kind::Input, "nobody types an archive on a terminal")
                .hint("name a file with -i, or send it from another program"));
        }
        None => {
            let path = Path::new("standard input");
            layout::load_tar(store, io::stdin().lock(), path, &platform, now)
        }
    };
    for image in loaded.map_err(layout_failure)? {
        let names: Vec<String> = image.names.iter().map(Reference::to_string).collect();
        let names = if names.is_empty() { "an image".to_owned() } else { names.join(", ") };
        console::say(&format!("loaded {names}"));
        console::print_line(&image.digest.to_string())?;
    }
    Ok(())
}
