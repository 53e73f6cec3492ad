//! What takes how much of the store, and the limit of its size.
//!
//! Looking through a store takes time, so a build does not. `usage` begins with what was counted
//! last (`=BYTES`), and every process that adds something appends how much (`+BYTES`). Only if the
//! sum is over the limit, and has grown by a fiftieth of it since, the store is counted, and if it
//! is over the limit indeed, pruned to four fifths of it. Where the images that have names take more
//! than that alone, what was used last stays nevertheless, up to a fifth of the limit or 1 GiB: a
//! build is not to throw away what the next one needs. The file is a hint: it is never synced, and
//! what gets lost of it comes back with the next count.

use std::{collections::HashMap, fs::File, io::Write as _, path::Path};

use super::{
    Limits, Pruned, Store, StoreError,
    files::{failed, names_in, taken},
    leases::Gate,
    reach::{Reach, digests},
    records,
};
use crate::digest::Digest;

/// Bytes of what was used last that stay, whatever the images with names take.
const LEAST: u64 = 1 << 30;
/// A `usage` of this size is written anew.
const LONGEST: u64 = 1 << 16;
const FOLDERS: [&str; 7] = ["packs", "blobs/sha256", "images", "names", "cache", "stat", "tmp"];

/// What takes how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The images, the newest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all that images need, each counted once.
    pub in_images: u64,
    /// Records of what steps gave.
    pub steps: usize,
    /// Bytes of what steps gave and no image needs, with the records.
    pub in_steps: u64,
    /// Contexts whose files are known.
    pub contexts: usize,
    /// Bytes of what is known of them.
    pub in_contexts: u64,
    /// Bytes of what nothing needs and [`Store::prune`] removes.
    pub unreferenced: u64,
    /// Bytes of indexes, of blocks that are not full, and of what nothing needs in packs that are
    /// not worth it to be written anew; what only a process that runs needs is among them.
    pub overhead: u64,
    /// Bytes that will be free when the processes are gone that use the store now.
    pub retired: u64,
    /// Bytes of what is being written.
    pub temporary: u64,
    /// Bytes of all.
    pub total: u64,
}

/// How much an image takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub digest: Digest,
    /// Its names.
    pub names: Vec<String>,
    /// Bytes of all that it needs.
    pub size: u64,
    /// Bytes that no other image needs.
    pub alone: u64,
}

impl Store {
    /// What takes how much.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let living = self.living_now()?;
        let _gate = Gate::shared(self.root())?;
        let names = self.names()?;
        let mut all = Reach::new(self);
        let mut reached = Vec::new();
        let mut count: HashMap<(bool, Digest), usize> = HashMap::new();
        for image in self.images()? {
            let mut reach = Reach::new(self);
            reach.add(image.digest)?;
            all.add(image.digest)?;
            for (node, _) in nodes(&reach) {
                *count.entry(node).or_default() += 1;
            }
            reached.push((image.digest, reach));
        }
        let image = |(digest, reach): (Digest, Reach<'_>)| {
            let own = names.iter().filter(|it| it.digest == digest);
            let alone = nodes(&reach).filter(|(node, _)| count.get(node) == Some(&1));
            ImageUsage {
                digest,
                names: own.map(|it| it.name.clone()).collect(),
                size: reach.size,
                alone: alone.map(|it| it.1).sum(),
            }
        };
        let mut usage = Usage { in_images: all.size, ..Usage::default() };
        usage.images = reached.into_iter().map(image).collect();
        self.add_steps(&mut usage, &mut all)?;
        usage.unreferenced = self.waste(&all, &living)?;
        self.add_folders(&mut usage, all.size)?;
        Ok(usage)
    }

    fn add_steps(&self, usage: &mut Usage, all: &mut Reach<'_>) -> Result<(), StoreError> {
        let folder = self.root().join("cache");
        for name in names_in(&folder)? {
            let path = folder.join(&name);
            let Some(key) = Digest::from_hex(&name) else { continue };
            let bytes = std::fs::read(&path).unwrap_or_default();
            for digest in digests(records::content(key, &bytes).unwrap_or_default()) {
                all.add(digest)?;
            }
            usage.steps += 1;
            usage.in_steps += taken(&path);
        }
        usage.in_steps += all.size - usage.in_images;
        Ok(())
    }

    fn add_folders(&self, usage: &mut Usage, needed: u64) -> Result<(), StoreError> {
        let root = self.root();
        let stat = root.join("stat");
        for name in names_in(&stat)? {
            usage.contexts += 1;
            usage.in_contexts += taken(&stat.join(name));
        }
        let held = taken_by(&root.join("packs"))? + taken_by(&root.join("blobs/sha256"))?;
        usage.overhead = held.saturating_sub(needed).saturating_sub(usage.unreferenced);
        let retired = root.join("retired");
        for name in names_in(&retired)? {
            usage.retired += taken_by(&retired.join(name))?;
        }
        usage.temporary = taken_by(&root.join("tmp"))?;
        usage.total = usage.retired + self.counted()?;
        Ok(())
    }

    /// Bytes of the whole store, but for what was taken out of it.
    fn counted(&self) -> Result<u64, StoreError> {
        FOLDERS.into_iter().map(|it| taken_by(&self.root().join(it))).sum()
    }

    /// Notes what this process has added, and prunes the store if it is over `limit` bytes. Does
    /// nothing if nothing was added.
    pub fn keep_below(&self, limit: u64) -> Result<Option<Pruned>, StoreError> {
        let added = self.inner.added.swap(0, std::sync::atomic::Ordering::Relaxed)
            + self.inner.packs.take_committed();
        if added == 0 {
            return Ok(None);
        }
        let path = self.root().join("usage");
        let mut file = File::options();
        let file = file.append(true).create(true).open(&path);
        let written = file.and_then(|mut it| it.write_all(format!("+{added}\n").as_bytes()));
        written.map_err(failed("write", &path))?;
        let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
        let noted = Noted::parse(&text);
        if limit == 0 || !noted.is_over(limit) {
            if LONGEST < text.len() as u64 {
                self.note(&path, noted.counted.unwrap_or_default() + noted.added)?;
            }
            return Ok(None);
        }
        let counted = self.counted()?;
        if counted <= limit {
            self.note(&path, counted)?;
            return Ok(None);
        }
        let limits = Limits {
            max_size: Some(limit / 5 * 4),
            unused_since: None,
            least: LEAST.min(limit / 5),
        };
        // What this process made is what it was for.
        let own = super::lock(&self.inner.images).iter().copied().collect();
        let pruned = self.prune_but(&limits, own)?;
        self.note(&path, self.counted()?)?;
        Ok(Some(pruned))
    }

    fn note(&self, path: &Path, counted: u64) -> Result<(), StoreError> {
        let (mut file, temporary) = self.temporaries().file()?;
        let written = file.write_all(format!("={counted}\n").as_bytes());
        written.map_err(failed("write", &temporary.path))?;
        temporary.rename(path)
    }
}

/// What `usage` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    counted: Option<u64>,
    added: u64,
}

impl Noted {
    fn parse(text: &str) -> Self {
        let number = |sign: char| {
            move |line: &str| line.strip_prefix(sign).and_then(|it| it.parse::<u64>().ok())
        };
        let counted = text.lines().next().and_then(number('='));
        let added = text.lines().filter_map(number('+'));
        Self { counted, added: added.fold(0, u64::saturating_add) }
    }

    /// Whether it is worth it to look through the store.
    fn is_over(self, limit: u64) -> bool {
        match self.counted {
            None => true,
            Some(counted) => limit < counted.saturating_add(self.added) && limit / 50 <= self.added,
        }
    }
}

/// All that was reached, and its size.
fn nodes<'a>(reach: &'a Reach<'_>) -> impl Iterator<Item = ((bool, Digest), u64)> + 'a {
    let digests = reach.digests.iter().map(|(key, size)| ((false, *key), *size));
    digests.chain(reach.segments.iter().map(|(key, size)| ((true, *key), *size)))
}

fn taken_by(folder: &Path) -> Result<u64, StoreError> {
    Ok(names_in(folder)?.iter().map(|it| taken(&folder.join(it))).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_counted_only_when_it_may_be_over_the_limit() {
        let cases = [
            ("", true),
            ("+1\n", true),
            ("=900\n+50\n", false),
            ("=900\n+50\n+60\n", true),
            ("=1200\n+19\n", false),
            ("=1200\n+10\n+10\n", true),
            ("nonsense", true),
        ];
        for (text, is_over) in cases {
            assert_eq!(Noted::parse(text).is_over(1000), is_over, "for `{text}`");
        }
    }
}
