//! What `COPY` means: sources, a destination, and what is there already become a layer's tree.
//!
//! The rules are those of BuildKit (`docker/dockerfile` 1, `COPY`): the contents of a folder are
//! copied, not the folder; a destination that ends in a slash, or is a folder already, is copied
//! into; links on the way to the destination are followed; folders that are made on the way have
//! mode 0755 and the owner of `--chown`.
//!
//! **Architecture invariant:** no I/O: trees in, a tree out.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    rootfs::{Rootfs, RootfsError},
    tree::{Content, ContentOrigin, Entry, Kind, Meta, Tree, TreePath, Whence},
};

/// One thing to copy: a file, or the contents of a folder.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it lies in: that and what lies in it alone.
    pub tree: Tree,
    /// What it is.
    pub path: TreePath,
    /// The name that a file gets in a folder: a link's own, not that of what it points to.
    pub name: Vec<u8>,
}

/// Where to copy to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The path below the root.
    pub path: TreePath,
    /// Whether it was written with a slash at its end, and so is a folder.
    pub is_folder: bool,
}

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u64,
    /// The group.
    pub gid: u64,
}

/// What is the same for all that one instruction copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The owner, where it is not that of the source.
    pub owner: Option<Owner>,
    /// The mode of files and folders, where it is not that of the source.
    pub mode: Option<u32>,
    /// The time of everything, where it is not that of the source (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// The time of folders that are made.
    pub now: i64,
}

/// Why something cannot be copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// A folder should go where something else is.
    #[error("the folder `{from}` cannot be copied to `/{to}`, which is not a folder")]
    NotFolder {
        /// The source.
        from: TreePath,
        /// What is there.
        to: TreePath,
    },
    /// A file should go where a folder is.
    #[error("`{from}` cannot be copied to `/{to}`, which is a folder")]
    IsFolder {
        /// The source.
        from: TreePath,
        /// What is there.
        to: TreePath,
    },
    /// A folder on the way to the destination is something else.
    #[error("`/{0}` is on the way to the destination, and not a folder")]
    Way(TreePath),
    /// A name means in a layer that another file is removed.
    #[error("`/{0}` cannot be in an image: names that begin with `.wh.` remove files there")]
    Whiteout(TreePath),
    /// Several sources, and a destination that is no folder.
    #[error("{0} sources are copied, so the destination must be a folder and end in `/`")]
    Several(usize),
    /// What is below could not be understood.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

/// Copies `sources` to `destination` on top of what is `below`. Sources are used up: large trees are
/// in memory only once.
pub fn copy(
    sources: Vec<Source>,
    destination: &Destination,
    below: &Rootfs,
    rules: Rules,
) -> Result<Tree, CopyError> {
    let mut work = Work { below, rules, copied: Tree::default(), links: Vec::new(), whence: None };
    if sources.is_empty() {
        return Ok(work.copied);
    }
    let target = below.resolve(&destination.path, true)?;
    let inside = destination.is_folder || work.is_folder(&target);
    if 1 < sources.len() && !inside {
        return Err(CopyError::Several(sources.len()));
    }
    if destination.is_folder {
        work.make_way(&target)?;
    }
    for source in sources {
        match source.tree.share(&source.path) {
            // Layers need not have an entry for the root.
            _ if source.path.is_root() => work.copy_folder(source, &target)?,
            Some(entry) if entry.is_folder() => work.copy_folder(source, &target)?,
            Some(entry) if inside => {
                work.copy_file(&source.path, entry, &target.join(&source.name))?;
            }
            Some(entry) => work.copy_file(&source.path, entry, &target)?,
            None => {}
        }
    }
    Ok(work.linked())
}

/// A tree with one folder and those on the way to it, as `WORKDIR` makes it; empty if the folder
/// is there already.
pub fn make_folder(path: &TreePath, below: &Rootfs, rules: Rules) -> Result<Tree, CopyError> {
    let mut work = Work { below, rules, copied: Tree::default(), links: Vec::new(), whence: None };
    let target = below.resolve(path, true)?;
    if target.is_root() || work.is_folder(&target) {
        return Ok(Tree::default());
    }
    work.make_way(&target)?;
    Ok(work.copied)
}

struct Work<'a> {
    below: &'a Rootfs,
    rules: Rules,
    copied: Tree,
    links: Vec<Link>,
    /// Where the files of the source at hand lie, once one is copied.
    whence: Option<Arc<Whence>>,
}

/// A file that was another name of `first`; it may become one again when all is copied.
struct Link {
    path: TreePath,
    first: TreePath,
}

/// Where a folder is copied from, and to.
#[derive(Clone, Copy)]
struct Place<'a> {
    base: &'a TreePath,
    target: &'a TreePath,
}

impl Place<'_> {
    /// Where `path` is copied to.
    fn of(self, path: &TreePath) -> Option<TreePath> {
        path.relative_to(self.base).map(|it| it.below(self.target))
    }
}

impl Work<'_> {
    fn find(&self, path: &TreePath) -> Option<&Entry> {
        self.copied.get(path).or_else(|| self.below.tree().get(path))
    }

    fn is_folder(&self, path: &TreePath) -> bool {
        path.is_root() || self.find(path).is_some_and(Entry::is_folder)
    }

    fn copy_folder(&mut self, source: Source, target: &TreePath) -> Result<(), CopyError> {
        if let Some(parent) = target.parent() {
            self.make_way(&parent)?;
        }
        match self.find(target) {
            Some(found) if !found.is_folder() => {
                let (from, to) = (source.path.clone(), target.clone());
                return Err(CopyError::NotFolder { from, to });
            }
            // The folder itself is made as any other: only what is in it is copied.
            _ => self.make_way(target)?,
        }
        self.whence = None;
        for (path, entry) in source.tree.into_entries() {
            let relative = path.relative_to(&source.path).filter(|it| !it.is_root());
            if let Some(relative) = relative {
                let place = Place { base: &source.path, target };
                self.copy_below(path, entry, &relative.below(target), place)?;
            }
        }
        Ok(())
    }

    fn copy_below(
        &mut self,
        from: TreePath,
        entry: Arc<Entry>,
        to: &TreePath,
        place: Place<'_>,
    ) -> Result<(), CopyError> {
        refuse_whiteout(to)?;
        match self.find(to).map(Entry::is_folder) {
            Some(true) if !entry.is_folder() => {
                return Err(CopyError::IsFolder { from, to: to.clone() });
            }
            Some(false) if entry.is_folder() => {
                return Err(CopyError::NotFolder { from, to: to.clone() });
            }
            _ => {}
        }
        let first = match &entry.kind {
            Kind::Hardlink(first) => place.of(first),
            _ => None,
        };
        // Another name of a file is copied as a file of its own until all is there. The first name
        // comes before it, and so was copied.
        match first.map(|to| (self.copied.share(&to), to)) {
            Some((Some(entry), first)) => {
                self.put(to, entry, place);
                self.links.push(Link { path: to.clone(), first });
            }
            _ => self.put(to, entry, place),
        }
        Ok(())
    }

    /// Makes hard links where both names are still those of the same file: a later source may
    /// have replaced one of them.
    fn linked(mut self) -> Tree {
        let links = std::mem::take(&mut self.links);
        for Link { path, first } in &links {
            // Both have the same entry until one of them is replaced. The first name has to come
            // first in the layer too.
            if let [Some(entry), Some(other)] = [path, first].map(|it| self.copied.share(it))
                && Arc::ptr_eq(&entry, &other)
                && first < path
                && matches!(entry.kind, Kind::File(_))
                && let Some(entry) = self.copied.get_mut(path)
            {
                entry.kind = Kind::Hardlink(first.clone());
            }
        }
        self.copied
    }

    fn copy_file(
        &mut self,
        from: &TreePath,
        entry: Arc<Entry>,
        to: &TreePath,
    ) -> Result<(), CopyError> {
        refuse_whiteout(to)?;
        if self.is_folder(to) {
            return Err(CopyError::IsFolder { from: from.clone(), to: to.clone() });
        }
        if let Some(parent) = to.parent() {
            self.make_way(&parent)?;
        }
        self.whence = None;
        self.put(to, entry, Place { base: from, target: to });
        Ok(())
    }

    /// Makes `path` and the folders on the way to it, or repeats them as they are below: a layer
    /// that has no entry for a folder would let some unpackers make it with another mode.
    fn make_way(&mut self, path: &TreePath) -> Result<(), CopyError> {
        let mut way = TreePath::ROOT;
        for part in path.parts() {
            way = way.join(part);
            if self.copied.get(&way).is_some_and(Entry::is_folder) {
                continue;
            }
            let mut entry = match self.find(&way) {
                Some(found) if found.is_folder() => found.clone(),
                Some(_) => return Err(CopyError::Way(way)),
                None => {
                    let owner = self.rules.owner.unwrap_or(Owner { uid: 0, gid: 0 });
                    Entry::made_folder(owner.uid, owner.gid, self.rules.now)
                }
            };
            entry.meta.mtime = self.rules.epoch.unwrap_or(entry.meta.mtime);
            self.copied.insert(way.clone(), entry);
        }
        Ok(())
    }

    fn put(&mut self, path: &TreePath, mut entry: Arc<Entry>, place: Place<'_>) {
        let Rules { owner, mode, epoch, .. } = self.rules;
        let Meta { mode: its_mode, uid, gid, mtime, .. } = entry.meta;
        let owner = owner.unwrap_or(Owner { uid, gid });
        let mode = mode.filter(|_| !matches!(entry.kind, Kind::Symlink(_))).unwrap_or(its_mode);
        let time = epoch.unwrap_or(mtime);
        if (owner, mode, time) != (Owner { uid, gid }, its_mode, mtime) {
            let meta = &mut Arc::make_mut(&mut entry).meta;
            (meta.uid, meta.gid, meta.mode, meta.mtime) = (owner.uid, owner.gid, mode, time);
        }
        self.relocate(&mut entry, place);
        self.copied.insert(path.clone(), entry);
    }

    /// Says where the content of a file of the context is found from its new path.
    fn relocate(&mut self, entry: &mut Arc<Entry>, place: Place<'_>) {
        let Kind::File(Content { origin: ContentOrigin::Context(old), .. }) = &entry.kind else {
            return;
        };
        let new = self.whence.get_or_insert_with(|| {
            let (base, target) = (place.base.clone(), place.target.clone());
            Arc::new(Whence { context: old.context.clone(), base, target })
        });
        // Another name of a file that was copied already says so.
        if !Arc::ptr_eq(old, new)
            && let Kind::File(content) = &mut Arc::make_mut(entry).kind
        {
            content.origin = ContentOrigin::Context(Arc::clone(new));
        }
    }
}

fn refuse_whiteout(path: &TreePath) -> Result<(), CopyError> {
    match path.name().is_some_and(|it| it.starts_with(b".wh.")) {
        true => Err(CopyError::Whiteout(path.clone())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        digest::Digest,
        image::{Layer, OCI_LAYER},
        tree::InLayer,
    };

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    /// `d PATH MODE`, `f PATH MODE`, `l PATH TARGET`, `h PATH FIRST`; parents must be there.
    fn tree(lines: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for line in lines {
            let [kind, name, what] = line.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            let mode = u32::from_str_radix(what, 8).unwrap_or(0o777);
            let content = Content {
                digest: Digest::of(name.as_bytes()),
                size: 1,
                origin: ContentOrigin::Layer(InLayer::default()),
            };
            let kind = match kind {
                "d" => Kind::Folder,
                "f" => Kind::File(content),
                "l" => Kind::Symlink(what.into()),
                _ => Kind::Hardlink(path(what)),
            };
            let meta = Meta { mode, uid: 7, gid: 7, mtime: 5, ..Meta::default() };
            tree.insert(path(name), Entry { kind, meta });
        }
        tree
    }

    fn rootfs(lines: &[&str]) -> Rootfs {
        let layer = Layer {
            media_type: OCI_LAYER.into(),
            digest: Digest::of(b""),
            size: 0,
            diff_id: Digest::of(b""),
        };
        let mut rootfs = Rootfs::default();
        rootfs.push(&tree(lines), &layer).unwrap();
        rootfs
    }

    const RULES: Rules = Rules { owner: None, mode: None, epoch: None, now: 9 };

    fn show(result: Result<Tree, CopyError>) -> String {
        let copied = match result {
            Ok(copied) => copied,
            Err(err) => return format!("{err}\n"),
        };
        let mut text = String::new();
        for (path, Entry { kind, meta }) in copied.entries() {
            let what = match kind {
                Kind::Folder => "/".to_owned(),
                Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
                Kind::Hardlink(first) => format!(" = {first}"),
                _ => String::new(),
            };
            writeln!(text, "{path}{what} {:o} {} {}", meta.mode, meta.uid, meta.mtime).unwrap();
        }
        text
    }

    #[track_caller]
    fn check(sources: &[&str], destination: &str, below: &[&str], want: Expect) {
        let from =
            tree(&["d  755", "f a 644", "d d 700", "f d/b 600", "d d/e 711", "h d/z d/b", "l l a"]);
        let source = |it: &&str| {
            let path = path(it);
            Source { tree: from.clone(), name: path.name().unwrap_or_default().to_vec(), path }
        };
        let sources: Vec<Source> = sources.iter().map(source).collect();
        let destination =
            Destination { path: path(destination), is_folder: destination.ends_with('/') };
        want.assert_eq(&show(copy(sources, &destination, &rootfs(below), RULES)));
    }

    #[test]
    fn a_file_gets_the_name_of_the_destination_or_lies_in_it() {
        check(
            &["a"],
            "x",
            &[],
            expect![[r#"
            x 644 7 5
        "#]],
        );
        check(
            &["a"],
            "x/",
            &[],
            expect![[r#"
            x/ 755 0 9
            x/a 644 7 5
        "#]],
        );
        check(
            &["a"],
            "x",
            &["d x 1777"],
            expect![[r#"
            x/ 1777 7 5
            x/a 644 7 5
        "#]],
        );
        check(
            &["a"],
            "x/y/z",
            &["d x 750"],
            expect![[r#"
            x/ 750 7 5
            x/y/ 755 0 9
            x/y/z 644 7 5
        "#]],
        );
    }

    #[test]
    fn the_contents_of_a_folder_are_copied() {
        check(
            &["d"],
            "x",
            &[],
            expect![[r#"
                x/ 755 0 9
                x/b 600 7 5
                x/e/ 711 7 5
                x/z = x/b 600 7 5
            "#]],
        );
        check(
            &["d"],
            "x/",
            &[],
            expect![[r#"
                x/ 755 0 9
                x/b 600 7 5
                x/e/ 711 7 5
                x/z = x/b 600 7 5
            "#]],
        );
        check(
            &["d"],
            "x",
            &["d x 755", "d x/e 755", "f x/b 755"],
            expect![[r#"
                x/ 755 7 5
                x/b 600 7 5
                x/e/ 711 7 5
                x/z = x/b 600 7 5
            "#]],
        );
    }

    #[test]
    fn a_hard_link_is_a_file_of_its_own_where_its_first_name_was_replaced() {
        let from = tree(&["d 1 755", "f 1/a 644", "h 1/b 1/a", "d 2 755", "f 2/a 600"]);
        let source = |it: &str| Source { tree: from.clone(), path: path(it), name: Vec::new() };
        let destination = Destination { path: path("x"), is_folder: true };
        let below = rootfs(&[]);
        let copied = copy(vec![source("1"), source("2")], &destination, &below, RULES).unwrap();
        let Kind::File(content) = &copied.get(&path("x/b")).unwrap().kind else { panic!() };
        assert_eq!(content.digest, Digest::of(b"1/a"));
        expect![[r#"
            x/ 755 0 9
            x/a 600 7 5
            x/b 644 7 5
        "#]]
        .assert_eq(&show(Ok(copied)));
    }

    #[test]
    fn links_on_the_way_to_the_destination_are_followed() {
        let below = ["d usr 755", "d usr/bin 755", "l bin usr/bin", "l loop loop"];
        check(
            &["a"],
            "bin/x",
            &below,
            expect![[r#"
            usr/ 755 7 5
            usr/bin/ 755 7 5
            usr/bin/x 644 7 5
        "#]],
        );
        check(
            &["a"],
            "bin",
            &below,
            expect![[r#"
            usr/ 755 7 5
            usr/bin/ 755 7 5
            usr/bin/a 644 7 5
        "#]],
        );
        check(
            &["a"],
            "loop/x",
            &below,
            expect![[r#"
            `loop/x` has too many levels of symbolic links
        "#]],
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        check(
            &["a", "l"],
            "x",
            &[],
            expect![[r#"
            2 sources are copied, so the destination must be a folder and end in `/`
        "#]],
        );
        check(
            &["a"],
            "x/y",
            &["f x 644"],
            expect![[r#"
            `/x` is on the way to the destination, and not a folder
        "#]],
        );
        check(
            &["d"],
            "x",
            &["f x 644"],
            expect![[r#"
            the folder `d` cannot be copied to `/x`, which is not a folder
        "#]],
        );
        check(
            &["d"],
            "x",
            &["d x 755", "l x/e usr"],
            expect![[r#"
            the folder `d/e` cannot be copied to `/x/e`, which is not a folder
        "#]],
        );
        check(
            &["d"],
            "x",
            &["d x 755", "d x/b 755"],
            expect![[r#"
            `d/b` cannot be copied to `/x/b`, which is a folder
        "#]],
        );
    }

    #[test]
    fn owner_mode_and_time_can_be_given() {
        let rules = Rules {
            owner: Some(Owner { uid: 1, gid: 2 }),
            mode: Some(0o555),
            epoch: Some(0),
            now: 0,
        };
        let from = tree(&["f a 644", "l l a"]);
        let source = |it: &str| Source { tree: from.clone(), path: path(it), name: it.into() };
        let destination = Destination { path: path("x/y"), is_folder: true };
        let copied = copy(vec![source("a"), source("l")], &destination, &rootfs(&[]), rules);
        expect![[r#"
            x/ 755 1 0
            x/y/ 755 1 0
            x/y/a 555 1 0
            x/y/l -> a 777 1 0
        "#]]
        .assert_eq(&show(copied));
    }

    #[test]
    fn a_folder_is_made_only_where_there_is_none() {
        let below = rootfs(&["d app 700"]);
        assert!(make_folder(&path("app"), &below, RULES).unwrap().is_empty());
        assert!(make_folder(&path(""), &below, RULES).unwrap().is_empty());
        let tree = make_folder(&path("app/x"), &below, RULES).unwrap();
        expect![[r#"
            app/ 700 7 5
            app/x/ 755 0 9
        "#]]
        .assert_eq(&show(Ok(tree)));
    }
}
