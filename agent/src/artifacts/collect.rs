//! Finds the files that patterns mean.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    artifacts::{ArtifactsError, Selection, Source, glob::Pattern},
    event::Event,
    temporary,
};

/// The files of `selection`, sorted by name, without those in `excluded`.
pub(super) fn collect(
    source: &Path,
    excluded: &[&Path],
    selection: &Selection,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Source>, ArtifactsError> {
    let patterns: Vec<(&str, Pattern)> = selection
        .files
        .iter()
        .map(|text| Ok((text.as_str(), Pattern::parse(text)?)))
        .collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for (name, root) in roots(source, selection.base_directory.as_deref(), emit)? {
        emit(Event::BaseDirectoryFound(&name));
        let tree = Tree::new(root, excluded);
        for (text, pattern) in &patterns {
            let files = tree.matches(pattern)?;
            let literal = pattern.rest.is_none();
            emit(Event::PatternMatched { pattern: text, literal, files: files.len() });
            found.extend(files.into_iter().map(|path| tree.source(path)));
        }
    }
    if found.is_empty() {
        return Err(ArtifactsError::NoFiles);
    }
    let files = name_all(found, selection, emit)?;
    emit(Event::FilesFound(files.len()));
    Ok(files)
}

/// The folders to which patterns are relative, and what to call them.
fn roots(
    source: &Path,
    base_directory: Option<&str>,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<(String, PathBuf)>, ArtifactsError> {
    let text = base_directory.filter(|it| !it.is_empty()).unwrap_or(".");
    emit(Event::BaseDirectoryWanted(text));
    let none = || ArtifactsError::NoBaseDirectory { pattern: text.to_owned() };
    let pattern = Pattern::parse(text)?;
    let start = source.join(&pattern.start);
    let Some(rest) = pattern.rest else {
        return if start.is_dir() { Ok(vec![(text.to_owned(), start)]) } else { Err(none()) };
    };
    let mut roots = Vec::new();
    walk(&start, rest.depth, &|_| false, &mut |path, kind| {
        let relative = path.strip_prefix(&start).unwrap_or(path);
        if kind == Kind::Folder && rest.matches(relative) {
            let name = path.strip_prefix(source).unwrap_or(path).display().to_string();
            roots.push((name, path.to_owned()));
        }
    })?;
    roots.sort();
    if roots.is_empty() { Err(none()) } else { Ok(roots) }
}

/// The files below a root, but for those that artifacts were written to.
struct Tree {
    root: PathBuf,
    /// Where artifacts are written to, as far as that is there, and below the root.
    excluded: Vec<PathBuf>,
}

impl Tree {
    fn new(root: PathBuf, excluded: &[&Path]) -> Self {
        let is_below = |it: &PathBuf| {
            fs::canonicalize(&root).is_ok_and(|root| *it != root && it.starts_with(root))
        };
        let excluded = excluded.iter().filter_map(|it| fs::canonicalize(it).ok());
        let excluded = excluded.filter(is_below).collect();
        Self { root, excluded }
    }

    /// The paths of all files that match, in no order.
    fn matches(&self, pattern: &Pattern) -> Result<Vec<PathBuf>, ArtifactsError> {
        let start = self.root.join(&pattern.start);
        let is_unfinished = pattern.start.iter().any(is_unfinished);
        if is_unfinished || self.is_excluded_by_name(&start) {
            return Ok(Vec::new());
        }
        let Some(rest) = &pattern.rest else {
            return Ok(if start.is_file() { vec![start] } else { Vec::new() });
        };
        let mut files = Vec::new();
        let excluded: Vec<_> = self.excluded.iter().filter_map(|it| identity(it)).collect();
        let is_excluded = |path: &Path| {
            !excluded.is_empty() && identity(path).is_some_and(|it| excluded.contains(&it))
        };
        walk(&start, rest.depth, &is_excluded, &mut |path, kind| {
            let relative = path.strip_prefix(&start).unwrap_or(path);
            if kind == Kind::File && rest.matches(relative) {
                files.push(path.to_owned());
            }
        })?;
        Ok(files)
    }

    fn is_excluded_by_name(&self, path: &Path) -> bool {
        let is_inside = |it: PathBuf| self.excluded.iter().any(|outer| it.starts_with(outer));
        !self.excluded.is_empty() && fs::canonicalize(path).is_ok_and(is_inside)
    }

    /// The file at `path`, called by its path relative to the root.
    fn source(&self, path: PathBuf) -> Source {
        let name = path.strip_prefix(&self.root).or_else(|_| path.strip_prefix("/"));
        Source { name: name.unwrap_or(&path).to_owned(), path }
    }
}

/// What is found in a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, or a link to one.
    File,
    /// A folder; not a link to one.
    Folder,
}

/// Shows everything below `start` to `visit`, `depth` levels deep. Links to folders are not
/// followed; what `is_excluded` or is not finished is left out, with all that is in it.
fn walk(
    start: &Path,
    depth: Option<usize>,
    is_excluded: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(&Path, Kind),
) -> Result<(), ArtifactsError> {
    let mut pending = vec![(start.to_owned(), depth.unwrap_or(usize::MAX))];
    while let Some((folder, depth)) = pending.pop() {
        let failed = |source| ArtifactsError::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(err) if is_no_folder(&err) => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            match entry.file_type().map_err(failed)? {
                _ if is_unfinished(&entry.file_name()) || is_excluded(&path) => {}
                it if it.is_dir() => {
                    visit(&path, Kind::Folder);
                    if depth > 1 {
                        pending.push((path, depth - 1));
                    }
                }
                it if it.is_file() || (it.is_symlink() && path.is_file()) => {
                    visit(&path, Kind::File);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether there is no folder of that name, or none any more.
fn is_no_folder(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether that is the name of artifacts that are being written, or were when rbuild was killed.
fn is_unfinished(name: &OsStr) -> bool {
    temporary::hidden_owner(name).is_some()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|it| (it.dev(), it.ino()))
}

/// Gives each file its name. Of those with the same name, the last one is taken.
fn name_all(
    mut found: Vec<Source>,
    selection: &Selection,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Source>, ArtifactsError> {
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup();
    let mut named: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for Source { name, path } in found {
        let base = name.file_name().filter(|_| selection.discard_paths).map(PathBuf::from);
        let name = base.unwrap_or(name);
        if let Some(dropped) = named.insert(name.clone(), path.clone()) {
            emit(Event::NameCollision { name: &name, kept: &path, dropped: &dropped });
        }
    }
    let named: Vec<_> = named.into_iter().map(|(name, path)| Source { name, path }).collect();
    // They are sorted by components: what is in a folder comes right after it.
    match named.windows(2).find(|it| it[1].name.starts_with(&it[0].name)) {
        None => Ok(named),
        Some(it) => Err(ArtifactsError::NameInTheWay {
            name: it[0].name.clone(),
            file: it[0].path.clone(),
            other: it[1].path.clone(),
        }),
    }
}
