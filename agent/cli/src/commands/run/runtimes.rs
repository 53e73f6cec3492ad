//! `runtime-versions`: how this machine chooses a version of a runtime.
//!
//! Images of CodeBuild have a file that says so. Other machines have what they have, and the build
//! goes on with a warning.

use std::path::Path;

use rbuild_agent::{
    buildspec::{Buildspec, Value, Variable},
    plan::RuntimeSelected,
    runtimes::{self, Runtimes, RuntimesError, Selected},
};

use super::{Variables, buildspec::Source};
use crate::{
    failure::{Failure, Kind},
    input,
};

/// Where images of CodeBuild have the file.
const OF_THE_IMAGE: &str = "/codebuild/image/config/runtimes.yml";
/// The most bytes of it; those of CodeBuild have some ten thousands.
const LARGEST: u64 = 2_000_000;

/// The variables that a version may name. Later layers win.
pub(super) struct Known<'a> {
    pub(super) base: &'a Variables,
    pub(super) layers: [&'a Vec<Variable>; 3],
}

impl Known<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let defined = self.layers.iter().rev().find_map(|it| it.iter().rfind(|it| it.name == name));
        match defined {
            Some(Variable { value: Value::Plain(value), .. }) => Some(value.clone()),
            // It is not fetched yet.
            Some(Variable { value: Value::Secret(_), .. }) => None,
            None => {
                let found = self.base.iter().find(|it| it.0 == name)?;
                Some(found.1.to_string_lossy().into_owned())
            }
        }
    }
}

/// The runtimes that the buildspec wants and this machine can choose.
pub(super) fn select(
    asked: Option<&Path>,
    buildspec: &Buildspec,
    known: &Known<'_>,
    source: &Source,
) -> Result<Vec<RuntimeSelected>, Failure> {
    let file = match asked {
        Some(file) => file,
        None if Path::new(OF_THE_IMAGE).exists() => Path::new(OF_THE_IMAGE),
        None => return Ok(Vec::new()),
    };
    if buildspec.runtimes.is_empty() {
        return Ok(Vec::new());
    }
    let shown = file.display().to_string();
    let bytes = input::read(file, LARGEST).map_err(|err| {
        Failure::new(Kind::Input, format!("the runtimes in `{shown}` could not be read"))
            .because(err)
    })?;
    let of_file =
        Source { text: String::from_utf8_lossy(&bytes).into_owned(), path: file.to_owned(), shown };
    let runtimes = Runtimes::parse(&bytes).map_err(|err| failure(&err, &of_file))?;
    let selected = runtimes::select(&buildspec.runtimes, &runtimes, |name| known.value(name));
    let selected = selected.map_err(|err| failure(&err, source))?;
    Ok(selected.into_iter().map(command).collect())
}

fn command(selected: Selected) -> RuntimeSelected {
    let Selected { name, version, variables, commands, .. } = selected;
    RuntimeSelected { name, version, variables, commands }
}

fn failure(err: &RuntimesError, source: &Source) -> Failure {
    let failure = source.failure(Failure::new(Kind::Input, err.to_string()), err.place());
    match err.aws() {
        Some(aws) => failure.note(format!("CodeBuild says: YAML_FILE_ERROR: {aws}")),
        None => failure,
    }
}
