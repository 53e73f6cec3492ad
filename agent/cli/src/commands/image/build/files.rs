//! The Dockerfile and the ignore file.

use std::{
    io,
    path::{Path, PathBuf},
};

use rbuild_imagebuilder::{
    context::ContextError,
    dockerfile::{Dockerfile, Place},
    patterns::Ignore,
};

use crate::{
    args::ImageBuild,
    console::excerpt::excerpt,
    failure::{Failure, Kind, cause_of},
    input,
};

/// The most bytes of a Dockerfile or an ignore file.
const LARGEST: u64 = 16 << 20;

/// The Dockerfile as a person knows it: its path, and its text for excerpts.
pub(super) struct Source {
    pub(super) path: PathBuf,
    text: String,
}

impl Source {
    /// The failure with the line that it is about.
    pub(super) fn failure(&self, failure: Failure, place: Option<Place>) -> Failure {
        match place {
            Some(Place { line, column }) => {
                let file = self.path.display().to_string();
                failure.excerpt(excerpt(&file, &self.text, line, column))
            }
            None => failure,
        }
    }
}

/// Reads the Dockerfile. One that nobody named comes with the context, and must lie in it: else a
/// link could have lines of other files shown.
pub(super) fn read_dockerfile(args: &ImageBuild) -> Result<(Source, Dockerfile), Failure> {
    if args.context == Path::new("-") {
        let message = "a build context is not read from standard input";
        return Err(Failure::new(Kind::Input, message)
            .hint("unpack it and name the folder; a Dockerfile alone is read with `-f - FOLDER`"));
    }
    if !args.context.is_dir() {
        // Said before the Dockerfile is missed in it.
        let message = format!("the build context `{}` is not a folder", args.context.display());
        return Err(Failure::new(Kind::Input, message));
    }
    let (path, read) = match &args.file {
        Some(file) if file == Path::new("-") => {
            (PathBuf::from("standard input"), input::read_standard_input(LARGEST))
        }
        Some(file) => (file.clone(), input::read(file, LARGEST)),
        None => {
            let path = args.context.join("Dockerfile");
            let read = input::read_found(&args.context, &path, LARGEST);
            (path, read)
        }
    };
    let bytes = read.map_err(|err| {
        let message = format!("the Dockerfile `{}` could not be read", path.display());
        let hint = if args.file.is_none() { hint(&err) } else { None };
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

fn hint(err: &io::Error) -> Option<&'static str> {
    match cause_of::<ContextError>(err) {
        Some(ContextError::Outside { .. }) => Some("name the file itself with -f, if it is meant"),
        _ if err.kind() == io::ErrorKind::NotFound => Some("name another file with -f"),
        _ => None,
    }
}

/// The ignore file beside the Dockerfile wins over that of the context (`NAME.dockerignore`).
/// Neither is named by anyone.
pub(super) fn read_ignore(args: &ImageBuild, source: &Source) -> Result<Ignore, Failure> {
    let context = &args.context;
    let mut beside = source.path.clone().into_os_string();
    beside.push(".dockerignore");
    // Nothing lies beside standard input.
    let is_file = args.file.as_deref() != Some(Path::new("-"));
    let beside = is_file.then(|| PathBuf::from(beside));
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        let text = match input::read_found(context, &path, LARGEST) {
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
