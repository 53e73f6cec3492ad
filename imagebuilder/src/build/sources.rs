//! What `COPY` finds: paths and patterns become files of the context or of an image.

use thiserror::Error;

use crate::{
    context::{Context, ContextError},
    copy,
    digest::Framed,
    patterns::{Glob, GlobError, has_wildcard},
    rootfs::{Rootfs, RootfsError},
    tree::{PathError, Tree, TreePath},
};

/// One file or folder to copy, with what lies in it.
#[derive(Debug)]
pub(super) struct Found {
    /// Which of the sources it belongs to.
    source: usize,
    tree: Tree,
    path: TreePath,
    name: Vec<u8>,
}

/// Why a source was not found.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It is not there.
    #[error("`{path}` is not in {place}")]
    NotFound {
        /// The path or pattern.
        path: String,
        /// What it was looked for in.
        place: &'static str,
    },
    /// It is there, and `.dockerignore` keeps it out.
    #[error("`{0}` is kept out of the build context by `.dockerignore`")]
    Ignored(String),
    /// It cannot be a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is no pattern.
    #[error("`{pattern}` is not a pattern")]
    Glob {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: GlobError,
    },
    /// The context could not be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The image could not be read.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

const CONTEXT: &str = "the build context";
const IMAGE: &str = "the image or stage that is copied from";

impl Found {
    pub(super) fn into_source(self) -> copy::Source {
        let Self { source: _, tree, path, name } = self;
        copy::Source { tree, path, name }
    }

    pub(super) fn source(&self) -> usize {
        self.source
    }

    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    /// Adds what is copied to the key of a step: the name that a file gets, and the content.
    pub(super) fn add_to(&self, key: &mut Framed) {
        let is_folder = self.tree.get(&self.path).is_none_or(crate::tree::Entry::is_folder);
        key.add(if is_folder { &b""[..] } else { &self.name });
        key.add(self.tree.fingerprint(&self.path).as_bytes());
    }
}

/// The sources in the context, in order; those of a pattern, which may be none, are sorted.
pub(super) fn in_context(context: &Context, texts: &[String]) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::new();
    for (source, text) in texts.iter().enumerate() {
        for path in paths(context, text)? {
            let resolved = context.resolve(&path)?;
            let name = path.name().unwrap_or_default().to_vec();
            let tree = context.read(&resolved)?;
            found.push(Found { source, tree, path: resolved, name });
        }
    }
    Ok(found)
}

fn paths(context: &Context, text: &str) -> Result<Vec<TreePath>, SourceError> {
    let is_there = |path: &TreePath| -> Result<bool, SourceError> {
        let resolved = context.resolve(path)?;
        // A link is kept out by its own name, and by that of what it points to.
        let is_kept_out = *path != resolved && context.is_ignored(path);
        Ok(!is_kept_out && context.stat(&resolved)?.is_some())
    };
    let not_found = || SourceError::NotFound { path: text.to_owned(), place: CONTEXT };
    if !has_wildcard(text) {
        let path = TreePath::parse_in_root(text.as_bytes())?;
        return match is_there(&path)? {
            true => Ok(vec![path]),
            false if context.is_ignored(&path) || context.is_ignored(&context.resolve(&path)?) => {
                Err(SourceError::Ignored(text.to_owned()))
            }
            false => Err(not_found()),
        };
    }
    let mut names = |folder: &TreePath| -> Result<Vec<Vec<u8>>, SourceError> {
        let resolved = context.resolve(folder)?;
        match context.stat(&resolved)?.is_some_and(rustix::fs::FileType::is_dir) {
            true => Ok(context.names(&resolved)?),
            false => Ok(Vec::new()),
        }
    };
    let mut found = Vec::new();
    for path in matching(text, &mut names)? {
        if is_there(&path)? {
            found.push(path);
        } else if context.stat(&path)?.is_some() {
            // A link to what is not there.
            return Err(not_found());
        }
    }
    Ok(found)
}

/// The sources in an image or stage, in order; those of a pattern, which may be none, are sorted.
pub(super) fn in_rootfs(rootfs: &Rootfs, texts: &[String]) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::new();
    for (source, text) in texts.iter().enumerate() {
        let not_found = || SourceError::NotFound { path: text.to_owned(), place: IMAGE };
        let paths = match has_wildcard(text) {
            false => vec![TreePath::parse_in_root(text.as_bytes())?],
            true => matching(text, &mut |folder| {
                let resolved = rootfs.resolve(folder, true)?;
                let children = rootfs.tree().children(&resolved);
                Ok(children.iter().filter_map(|it| it.name().map(<[u8]>::to_vec)).collect())
            })?,
        };
        for path in paths {
            let resolved = rootfs.resolve(&path, true)?;
            if !resolved.is_root() && rootfs.tree().get(&resolved).is_none() {
                return Err(not_found());
            }
            let name = path.name().unwrap_or_default().to_vec();
            let tree = rootfs.with_links(&resolved);
            found.push(Found { source, tree, path: resolved, name });
        }
    }
    Ok(found)
}

/// Lists the names in a folder.
type List<'a> = &'a mut dyn FnMut(&TreePath) -> Result<Vec<Vec<u8>>, SourceError>;

/// The paths that match a pattern (Go's `filepath.Match`, as the Dockerfile reference says);
/// `names` lists a folder.
fn matching(pattern: &str, names: List<'_>) -> Result<Vec<TreePath>, SourceError> {
    let mut found = vec![TreePath::ROOT];
    for part in pattern.split('/').filter(|it| !it.is_empty() && *it != ".") {
        let glob = Glob::parse(part)
            .map_err(|source| SourceError::Glob { pattern: pattern.to_owned(), source })?;
        let mut next = Vec::new();
        for folder in &found {
            let all = names(folder)?;
            next.extend(all.iter().filter(|it| glob.matches(it)).map(|it| folder.join(it)));
        }
        found = next;
    }
    found.sort();
    Ok(found)
}
