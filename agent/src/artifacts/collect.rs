//! Finds the files that patterns mean.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::OsStr,
    fs::{self, FileType},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use crate::{
    artifacts::{Artifact, ArtifactsError, Packaging, Selection, Skipped, glob::Pattern},
    choice::Collision,
    event::Event,
    temporary,
};

/// Where artifacts are looked for, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Collection<'a> {
    /// The folder with the source.
    pub source: &'a Path,
    /// Where artifacts are written: what is in there is none.
    pub excluded: &'a [&'a Path],
    /// In which form they are kept: links are links in a zip file alone.
    pub packaging: Packaging,
}

impl Collection<'_> {
    /// The files of `selection`, sorted by name; at least one.
    pub fn find(
        &self,
        selection: &Selection,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Artifact>, ArtifactsError> {
        let patterns = parse_all(&selection.files)?;
        let left_out = parse_all(&selection.exclude_paths)?;
        let mut found = Vec::new();
        for (name, root) in roots(self.source, selection.base_directory.as_deref(), emit)? {
            emit(Event::BaseDirectoryFound(&name));
            let tree = Tree::new(root, self.excluded, self.links(selection));
            for (text, pattern) in &patterns {
                let is_left_out =
                    |path: &Path| left_out.iter().any(|(_, it)| it.matches(&tree.name(path), path));
                let files = tree.files(pattern, &is_left_out, emit)?;
                let literal = pattern.rest.is_none();
                emit(Event::PatternMatched { pattern: text, literal, files: files.len() });
                let files = files.into_iter().filter(|it| !is_left_out(it));
                found.extend(files.map(|it| tree.artifact(it)));
            }
        }
        if found.is_empty() {
            return Err(ArtifactsError::NoFiles);
        }
        let files = name_all(found, selection, emit)?;
        emit(Event::FilesFound(files.len()));
        Ok(files)
    }

    /// What becomes of links that lead to where the other artifacts are.
    fn links(&self, selection: &Selection) -> Links {
        match self.packaging {
            Packaging::Zip if selection.enable_symlinks && !selection.discard_paths => Links::Kept,
            Packaging::Zip | Packaging::Folder => Links::Followed,
        }
    }
}

fn parse_all(texts: &[String]) -> Result<Vec<(&str, Pattern)>, ArtifactsError> {
    texts.iter().map(|text| Ok((text.as_str(), Pattern::parse(text)?))).collect()
}

/// What becomes of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Kept,
    Followed,
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
    links: Links,
}

impl Tree {
    fn new(root: PathBuf, excluded: &[&Path], links: Links) -> Self {
        let is_below = |it: &PathBuf| {
            fs::canonicalize(&root).is_ok_and(|root| *it != root && it.starts_with(root))
        };
        let excluded = excluded.iter().filter_map(|it| fs::canonicalize(it).ok());
        let excluded = excluded.filter(is_below).collect();
        Self { root, excluded, links }
    }

    /// The paths of the files that a pattern means. What else it means is told,
    /// unless it is left out anyway.
    fn files(
        &self,
        pattern: &Pattern,
        is_left_out: &dyn Fn(&Path) -> bool,
        emit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<PathBuf>, ArtifactsError> {
        let mut files = Vec::new();
        for (path, kind) in self.matches(pattern)? {
            let reason = match kind {
                Kind::File | Kind::LinkToFolder => {
                    files.push(path);
                    continue;
                }
                Kind::DanglingLink => Skipped::DanglingLink,
                Kind::Special | Kind::Folder => Skipped::NotAFile,
            };
            if !is_left_out(&path) {
                emit(Event::FileSkipped { path: &path, reason });
            }
        }
        Ok(files)
    }

    /// All that matches and is no folder.
    fn matches(&self, pattern: &Pattern) -> Result<Vec<(PathBuf, Kind)>, ArtifactsError> {
        let start = self.root.join(&pattern.start);
        let is_unfinished = pattern.start.iter().any(is_unfinished);
        if is_unfinished || self.is_excluded_by_name(&start) {
            return Ok(Vec::new());
        }
        let Some(rest) = &pattern.rest else {
            let kind = fs::symlink_metadata(&start).ok().map(|it| kind(&start, it.file_type()));
            let kind = kind.filter(|it| self.is_meant(&start, *it));
            return Ok(kind.map(|it| (start, it)).into_iter().collect());
        };
        let mut found = Vec::new();
        let excluded: Vec<_> = self.excluded.iter().filter_map(|it| identity(it)).collect();
        let is_excluded = |path: &Path| {
            !excluded.is_empty() && identity(path).is_some_and(|it| excluded.contains(&it))
        };
        walk(&start, rest.depth, &is_excluded, &mut |path, kind| {
            let relative = path.strip_prefix(&start).unwrap_or(path);
            if rest.matches(relative) && self.is_meant(path, kind) {
                found.push((path.to_owned(), kind));
            }
        })?;
        found.sort();
        Ok(found)
    }

    fn is_excluded_by_name(&self, path: &Path) -> bool {
        let is_inside = |it: PathBuf| self.excluded.iter().any(|outer| it.starts_with(outer));
        !self.excluded.is_empty() && fs::canonicalize(path).is_ok_and(is_inside)
    }

    /// Whether a pattern that matches a path means it: folders have no place among artifacts,
    /// and links to them only as links.
    fn is_meant(&self, path: &Path, kind: Kind) -> bool {
        match kind {
            Kind::File | Kind::DanglingLink | Kind::Special => true,
            Kind::Folder => false,
            Kind::LinkToFolder => self.kept_link(path).is_some(),
        }
    }

    /// What a file is called: its path relative to the root.
    fn name(&self, path: &Path) -> PathBuf {
        let name = path.strip_prefix(&self.root).or_else(|_| path.strip_prefix("/"));
        name.unwrap_or(path).to_owned()
    }

    /// The file at `path` as an artifact.
    fn artifact(&self, path: PathBuf) -> Artifact {
        Artifact { name: self.name(&path), link: self.kept_link(&path), path }
    }

    /// Where the link at `path` leads, if it is one that stays a link: relative, never above the
    /// root on its way, and in the end to something below the root.
    fn kept_link(&self, path: &Path) -> Option<PathBuf> {
        if self.links == Links::Followed {
            return None;
        }
        let target = fs::read_link(path).ok()?;
        let mut depth = path.strip_prefix(&self.root).ok()?.components().count().checked_sub(1)?;
        for component in target.components() {
            match component {
                Component::Normal(_) => depth += 1,
                Component::ParentDir => depth = depth.checked_sub(1)?,
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        let (end, root) = (fs::canonicalize(path).ok()?, fs::canonicalize(&self.root).ok()?);
        end.starts_with(root).then_some(target)
    }
}

/// What is found in a folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A file, or a link to one.
    File,
    /// A folder; not a link to one.
    Folder,
    LinkToFolder,
    DanglingLink,
    /// A pipe, a socket, a device, or a link to one.
    Special,
}

/// What is at `path`, which has that type.
fn kind(path: &Path, file_type: FileType) -> Kind {
    if !file_type.is_symlink() {
        return match file_type {
            it if it.is_file() => Kind::File,
            it if it.is_dir() => Kind::Folder,
            _ => Kind::Special,
        };
    }
    match fs::metadata(path) {
        Ok(it) if it.is_file() => Kind::File,
        Ok(it) if it.is_dir() => Kind::LinkToFolder,
        Ok(_) => Kind::Special,
        Err(_) => Kind::DanglingLink,
    }
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
            if is_unfinished(&entry.file_name()) || is_excluded(&path) {
                continue;
            }
            let kind = kind(&path, entry.file_type().map_err(failed)?);
            visit(&path, kind);
            if kind == Kind::Folder && depth > 1 {
                pending.push((path, depth - 1));
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

/// Gives each file its name. Of those with the same name, one is taken, or none.
fn name_all(
    mut found: Vec<Artifact>,
    selection: &Selection,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Artifact>, ArtifactsError> {
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup();
    let mut named: BTreeMap<PathBuf, Artifact> = BTreeMap::new();
    for mut artifact in found {
        let base = artifact.name.file_name().filter(|_| selection.discard_paths);
        artifact.name = base.map_or_else(|| artifact.name.clone(), PathBuf::from);
        match named.entry(artifact.name.clone()) {
            Entry::Vacant(entry) => drop(entry.insert(artifact)),
            Entry::Occupied(entry) => collide(entry.into_mut(), artifact, selection, emit)?,
        }
    }
    let named: Vec<Artifact> = named.into_values().collect();
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

/// Settles which of two files of the same name is taken: `there`, or `next`, whose path comes
/// later.
fn collide(
    there: &mut Artifact,
    next: Artifact,
    selection: &Selection,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<(), ArtifactsError> {
    let dropped = match selection.collision {
        Collision::Last => std::mem::replace(there, next),
        Collision::First => next,
        Collision::Error => {
            let (name, file) = (there.name.clone(), there.path.clone());
            return Err(ArtifactsError::SameName { name, file, other: next.path });
        }
    };
    emit(Event::NameCollision { name: &there.name, kept: &there.path, dropped: &dropped.path });
    Ok(())
}
