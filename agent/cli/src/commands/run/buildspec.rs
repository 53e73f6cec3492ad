//! The buildspec of a build: where it is, and what is wrong with it.

use std::{
    fs, io,
    path::{
        Component::{CurDir, Normal},
        Path, PathBuf,
    },
};

use rbuild_agent::{
    buildspec::{Buildspec, Problem},
    source::Place,
};

use super::settings::BuildspecAt;
use crate::{
    console::{self, excerpt::excerpt},
    failure::{Failure, Kind, Spot},
    host, input,
};

/// The buildspec as a person knows it: its name, and its text for excerpts.
pub(super) struct Source {
    pub(super) shown: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Source {
    /// The file, and the place in it.
    pub(super) fn at(&self, place: Option<Place>) -> Spot {
        let (line, column) = place.map_or((0, 0), |it| (it.line, it.column));
        Spot { line, column, ..self.spot() }
    }

    /// A failure of what is at that place.
    pub(super) fn failure(&self, failure: Failure, place: Option<Place>) -> Failure {
        let failure = failure.at(self.at(place));
        match place {
            Some(place) => {
                failure.excerpt(excerpt(&self.shown, &self.text, place.line, place.column))
            }
            None => failure.excerpt(format!(" --> {}", self.shown)),
        }
    }

    /// The file.
    pub(super) fn spot(&self) -> Spot {
        Spot { file: self.shown.clone(), path: self.path.clone(), line: 0, column: 0 }
    }
}

/// The most bytes of a buildspec; those of real teams have some thousands.
pub(in crate::commands) const LARGEST_BUILDSPEC: u64 = 2_000_000;
/// The most problems of one file that are shown.
const MOST_PROBLEMS: usize = 20;

/// Reads the buildspec of the source in `folder`.
pub(super) fn read(at: &BuildspecAt, folder: &Path) -> Result<(Source, Buildspec), Failure> {
    let (source, bytes) = match at {
        BuildspecAt::Path(path) => read_file(path, folder)?,
        BuildspecAt::Either(path) => match in_current_folder(path, folder)? {
            Some(path) => read_file(&path, folder)?,
            None => read_file(path, folder)?,
        },
        BuildspecAt::Inline { shown, text } => {
            let source = Source { shown: shown.clone(), path: shown.into(), text: text.clone() };
            (source, text.clone().into_bytes())
        }
    };
    match Buildspec::parse(&bytes) {
        Ok(buildspec) => {
            warn_of(&source, &buildspec.tolerated);
            Ok((source, buildspec))
        }
        Err(problems) => Err(invalid(&source, problems)),
    }
}

/// The local agent takes a buildspec to be in the current folder.
fn in_current_folder(path: &Path, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let current = host::current_folder()?;
    let is_same = fs::canonicalize(&current).is_ok_and(|it| it == folder);
    let there = current.join(path);
    Ok((!is_same && path.is_relative() && there.is_file()).then_some(there))
}

fn read_file(asked: &Path, folder: &Path) -> Result<(Source, Vec<u8>), Failure> {
    let path = folder.join(asked);
    let shown = asked.display().to_string();
    if path.is_dir() {
        let message = format!("the buildspec `{shown}` is a folder");
        return Err(Failure::new(Kind::Input, message).hint("name the file in it"));
    }
    if leads_outside(asked, folder) {
        let message = format!("the buildspec `{shown}` is a link that leads out of the source");
        return Err(Failure::new(Kind::Input, message)
            .hint("name the file itself by its absolute path, if it is meant"));
    }
    let bytes = input::read(&path, LARGEST_BUILDSPEC).map_err(|err| {
        let message = format!("the buildspec `{shown}` could not be read");
        let hint = (err.kind() == io::ErrorKind::NotFound)
            .then(|| format!("it is looked for in the source folder, {}", folder.display()));
        Failure::new(Kind::Input, message).because(err).hint_if(hint)
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((Source { shown, path, text }, bytes))
}

/// Whether a path below the source folder leads out of it. The link came with the source, and
/// could have lines of the user's own files shown; `..` and absolute paths are the user's wish.
fn leads_outside(buildspec: &Path, folder: &Path) -> bool {
    let is_below = buildspec.components().all(|it| matches!(it, Normal(_) | CurDir));
    is_below && fs::canonicalize(folder.join(buildspec)).is_ok_and(|it| !it.starts_with(folder))
}

/// Tells of what stops no build.
fn warn_of(source: &Source, tolerated: &[Problem]) {
    for Problem { place, message, hint, .. } in tolerated.iter().take(MOST_PROBLEMS) {
        let hint = hint.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        console::warn_at(&source.at(*place), &format!("{message}{hint}"));
    }
    if MOST_PROBLEMS < tolerated.len() {
        let more = tolerated.len() - MOST_PROBLEMS;
        console::warn(&format!("{more} more problems are not mentioned"));
    }
}

/// Shows all problems of a file; the last becomes the failure of the command.
fn invalid(source: &Source, problems: Vec<Problem>) -> Failure {
    let mut last = Failure::new(Kind::Input, format!("`{}` is not valid", source.shown));
    let (all, count) = (problems.len(), problems.len().min(MOST_PROBLEMS));
    for (index, problem) in problems.into_iter().take(count).enumerate() {
        let Problem { place, message, hint, aws, .. } = problem;
        let mut failure = source.failure(Failure::new(Kind::Input, message).hint_if(hint), place);
        if let Some(aws) = aws {
            failure = failure.note(format!("CodeBuild says: YAML_FILE_ERROR: {aws}"));
        }
        if index + 1 < count {
            console::print_error(&failure);
        }
        last = failure;
    }
    if count < all {
        console::say(&format!("({} more problems are not shown)", all - count));
    }
    last
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use expect_test::expect;

    use super::*;

    #[test]
    fn links_that_came_with_the_source_do_not_lead_out_of_it() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let folder = top.join("src");
        fs::create_dir_all(folder.join("ci")).unwrap();
        fs::write(top.join("secret"), "").unwrap();
        fs::write(folder.join("ci/spec.yml"), "").unwrap();
        for (target, link) in [
            ("../secret", "outside.yml"),
            ("ci/spec.yml", "inside.yml"),
            ("../src/ci/spec.yml", "around.yml"),
            ("..", "up"),
        ] {
            symlink(target, folder.join(link)).unwrap();
        }
        let absolute = folder.join("outside.yml").display().to_string();
        for (buildspec, want) in [
            ("outside.yml", true),
            ("./outside.yml", true),
            ("up/secret", true),
            ("inside.yml", false),
            ("around.yml", false),
            ("ci/spec.yml", false),
            ("missing.yml", false),
            ("../secret", false),
            ("ci/../outside.yml", false),
            (&absolute, false),
        ] {
            assert_eq!(leads_outside(Path::new(buildspec), &folder), want, "for `{buildspec}`");
        }
    }

    #[test]
    fn a_file_is_named_wherever_it_is_wrong() {
        let source = Source { shown: "ci/a.yml".into(), path: "a.yml".into(), text: String::new() };
        let problems = Buildspec::parse(b"").unwrap_err();
        expect![[r#"
            error: the file is empty
             --> ci/a.yml
            CodeBuild says: YAML_FILE_ERROR: wrong number of container tags, expected 1
            hint: write `version: 0.2`, and `phases` with `commands` in them"#]]
        .assert_eq(&invalid(&source, problems).to_string());
    }
}
