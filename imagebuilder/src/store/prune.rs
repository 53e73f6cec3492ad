//! What goes from the store, and how.
//!
//! Names, what they point to, and what a process that runs may need stay. All else goes by its last
//! use: images without a name, records of steps, what is known of contexts; and with them the blobs
//! and objects that nothing else refers to. Packs that are mostly of such objects are written anew.
//!
//! It is decided, and files are taken away, with the gate closed to others, who wait meanwhile: as
//! long as it takes to read the records and the manifests. Packs are copied with the gate open; it is
//! looked again what is needed before the old ones go.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::SystemTime};

use super::{
    ObjectKind, Store, StoreError,
    files::{failed, has_extension, is_full, names_in, remove, sync_folder, taken},
    leases::{Gate, Living},
    loaded::Pack,
    packs,
    reach::Reach,
    records,
    retired::Retirement,
};
use crate::{digest::Digest, layer_sources};

/// Packs of which one part in this many is not needed are written anew.
const WASTE: u64 = 8;
/// Packs up to this size are written anew as soon as anything in them is not needed.
const SMALL: u64 = 4 << 20;
/// More packs of this size are put into one.
const MOST_SMALL: usize = 64;
/// Bytes that are copied before the old packs go.
const GROUP: u64 = 256 << 20;

/// What may stay in the store, besides what names point to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all may take together.
    pub max_size: Option<u64>,
    /// What was not used since then goes.
    pub unused_since: Option<SystemTime>,
    /// Bytes of what was used last that stay though all is larger than `max_size`, which it is
    /// where names point to more than that.
    pub least: u64,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images without a name.
    pub images: Vec<Digest>,
    /// Records of what steps gave.
    pub steps: usize,
    /// What was known of the files of contexts.
    pub contexts: usize,
    /// Blobs that are files.
    pub blobs: usize,
    /// Objects in packs.
    pub objects: usize,
    /// Bytes that they took.
    pub freed: u64,
    /// Bytes that will be free when the processes that use the store now are gone.
    pub later: u64,
    /// Bytes that are needed still.
    pub kept: u64,
}

/// What may go, and what may not.
#[derive(Debug, Default)]
struct Survey {
    pinned: Vec<Digest>,
    pinned_texts: Vec<Digest>,
    /// Objects of packs that others are adding to.
    fresh: Vec<(ObjectKind, Digest)>,
    candidates: Vec<Candidate>,
}

impl Survey {
    /// The same, but these images stay.
    fn keeping(mut self, images: Vec<Digest>) -> Self {
        let is_kept = |it: &Candidate| matches!(it.what, What::Image(it) if images.contains(&it));
        self.candidates.retain(|it| !is_kept(it));
        self.pinned.extend(images);
        self
    }
}

#[derive(Clone, Debug)]
struct Candidate {
    what: What,
    path: PathBuf,
    last: SystemTime,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Image(Digest),
    Step(Digest),
    Context,
}

/// A pack, and how much of it is needed.
struct Share {
    pack: Arc<Pack>,
    size: u64,
    needed: u64,
    dead: usize,
}

/// What becomes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Goes,
    WrittenAnew,
    Stays,
}

/// How much it is worth to write packs anew.
#[derive(Clone, Copy, Debug)]
struct Waste {
    has_many_small: bool,
    is_over: bool,
}

impl Waste {
    fn of(shares: &[Share], limits: &Limits) -> Self {
        let small = shares.iter().filter(|it| it.size <= SMALL).count();
        let total: u64 = shares.iter().map(|it| it.size).sum();
        let is_over = limits.max_size.is_some_and(|it| it < total);
        Self { has_many_small: MOST_SMALL < small, is_over }
    }

    fn fate(self, share: &Share) -> Fate {
        let waste = share.size.saturating_sub(share.needed);
        let is_small = share.size <= SMALL;
        let is_worth_it = share.size < waste * WASTE
            || (0 < share.dead && (is_small || self.is_over))
            || (is_small && self.has_many_small);
        match share.needed {
            0 => Fate::Goes,
            _ if is_worth_it => Fate::WrittenAnew,
            _ => Fate::Stays,
        }
    }
}

impl Store {
    /// What [`Store::prune`] would remove.
    pub fn plan_prune(&self, limits: &Limits) -> Result<Pruned, StoreError> {
        let living = self.living_now()?;
        let _gate = Gate::shared(self.root())?;
        let survey = self.survey(&living)?;
        let (reach, victims) = self.choose(survey, limits)?;
        let mut pruned = Pruned { kept: reach.size, ..Pruned::default() };
        for victim in &victims {
            pruned.count(victim);
        }
        for (path, _) in self.idle_files(&reach, &living)? {
            pruned.blobs += 1;
            pruned.freed += taken(&path);
        }
        let shares = self.shares(&reach, &living)?;
        pruned.objects = shares.iter().map(|it| it.dead).sum();
        pruned.freed += self.waste_of(&shares, limits);
        Ok(pruned)
    }

    /// Who else uses the store: an estimate as soon as the gate is open again.
    pub(super) fn living_now(&self) -> Result<Living, StoreError> {
        self.living(&Gate::exclusive(self.root())?)
    }

    /// Bytes that [`Store::prune`] frees if it is to keep all of `reach`.
    pub(super) fn waste(&self, reach: &Reach<'_>, living: &Living) -> Result<u64, StoreError> {
        let files = self.idle_files(reach, living)?;
        let shares = self.shares(reach, living)?;
        let of_files: u64 = files.iter().map(|it| taken(&it.0)).sum();
        Ok(of_files + self.waste_of(&shares, &Limits::default()))
    }

    fn waste_of(&self, shares: &[Share], limits: &Limits) -> u64 {
        let survey = Waste::of(shares, limits);
        let packs = &self.inner.packs;
        let freed = |it: &Share| match survey.fate(it) {
            Fate::Stays => 0,
            Fate::Goes => {
                let files = ["idx", "pack"].map(|end| taken(&packs.path(&it.pack.name, end)));
                files.iter().sum()
            }
            Fate::WrittenAnew => it.size.saturating_sub(it.needed),
        };
        shares.iter().map(freed).sum()
    }

    /// Removes what is over the limits, the least recently used first, and all that nothing needs.
    pub fn prune(&self, limits: &Limits) -> Result<Pruned, StoreError> {
        self.prune_but(limits, Vec::new())
    }

    /// The same, but for these images and what they need.
    pub(super) fn prune_but(
        &self,
        limits: &Limits,
        images: Vec<Digest>,
    ) -> Result<Pruned, StoreError> {
        self.commit()?;
        let (mut pruned, wasteful) = self.remove_records_and_files(limits, images)?;
        let mut group = Vec::new();
        let mut size = 0;
        for share in wasteful {
            size += share.needed;
            group.push(share);
            if GROUP <= size {
                self.repack_or_less(std::mem::take(&mut group), &mut pruned)?;
                size = 0;
            }
        }
        self.repack_or_less(group, &mut pruned)?;
        Ok(pruned)
    }

    /// Forgets an image, what steps gave of what it alone needs, and with that all that nothing
    /// else needs; none if it has a name, which another process may just have given it.
    pub fn remove_image_and_blobs(&self, digest: Digest) -> Result<Option<Pruned>, StoreError> {
        {
            let gate = Gate::exclusive(self.root())?;
            if self.names()?.iter().any(|it| it.digest == digest) {
                return Ok(None);
            }
            self.commit_inside(&gate)?;
            let mut others = Reach::new(self);
            for image in self.images()?.iter().filter(|it| it.digest != digest) {
                others.add(image.digest)?;
            }
            let mut own = Reach::new(self);
            own.add(digest)?;
            own.digests.retain(|it, _| !others.digests.contains_key(it));
            for name in names_in(&self.root().join("cache"))? {
                let path = self.root().join("cache").join(&name);
                let text = std::fs::read(&path).unwrap_or_default();
                let refers = super::reach::digests(&text);
                if refers.iter().any(|it| own.digests.contains_key(it)) {
                    remove(&path)?;
                }
            }
            self.remove_image(digest)?;
        }
        self.prune(&Limits::default()).map(Some)
    }

    /// The first half of [`Store::prune`], and the packs that the second half has to look at.
    fn remove_records_and_files(
        &self,
        limits: &Limits,
        images: Vec<Digest>,
    ) -> Result<(Pruned, Vec<Share>), StoreError> {
        let gate = Gate::exclusive(self.root())?;
        let mut pruned = Pruned { freed: self.clear(&gate)?, ..Pruned::default() };
        let living = self.living(&gate)?;
        let survey = self.survey(&living)?.keeping(images);
        let (reach, victims) = self.choose(survey, limits)?;
        pruned.kept = reach.size;
        for victim in &victims {
            pruned.count(victim);
            remove(&victim.path)?;
        }
        // An image is gone for good before its blobs are.
        sync_folder(&self.root().join("images"))?;
        let mut retirement = Retirement::new(self.root(), &living);
        for (path, digest) in self.idle_files(&reach, &living)? {
            pruned.blobs += 1;
            super::lock(&self.inner.found).remove(&digest);
            retirement.take(&path)?;
        }
        let shares = self.shares(&reach, &living)?;
        let waste = Waste::of(&shares, limits);
        let mut wasteful = Vec::new();
        for share in shares {
            pruned.objects += share.dead;
            match waste.fate(&share) {
                Fate::Goes => self.retire(&share.pack, &mut retirement)?,
                Fate::WrittenAnew => wasteful.push(share),
                Fate::Stays => {}
            }
        }
        self.remove_orphans(&mut retirement)?;
        sync_folder(&self.root().join("packs"))?;
        sync_folder(&self.root().join("blobs/sha256"))?;
        self.inner.packs.forget_gone(&gate)?;
        pruned.freed += retirement.freed;
        pruned.later += retirement.later;
        Ok((pruned, wasteful))
    }

    /// Writes some packs anew; if the disk is too full for that, as many of them as there is space
    /// for, beginning with those that take least: what goes makes space for the next.
    fn repack_or_less(&self, mut group: Vec<Share>, pruned: &mut Pruned) -> Result<(), StoreError> {
        match self.repack(&group, pruned) {
            Err(err) if is_full(&err) => self.inner.packs.abandon(),
            other => return other,
        }
        group.sort_by_key(|it| it.needed);
        for share in &group {
            match self.repack(std::slice::from_ref(share), pruned) {
                Err(err) if is_full(&err) => self.inner.packs.abandon(),
                other => other?,
            }
        }
        Ok(())
    }

    /// Puts what is needed of some packs into a new one. Nothing else may be added meanwhile by this
    /// process.
    fn repack(&self, group: &[Share], pruned: &mut Pruned) -> Result<(), StoreError> {
        if group.is_empty() {
            return Ok(());
        }
        let before = self.inner.packs.committed();
        let mut copied = HashSet::new();
        let reach = {
            let living = self.living_now()?;
            let _gate = Gate::shared(self.root())?;
            self.reach_now(&living)?
        };
        self.copy(group, &reach, &mut copied)?;
        // Long before others have to wait.
        self.inner.packs.commit(&Gate::shared(self.root())?)?;
        let gate = Gate::exclusive(self.root())?;
        let living = self.living(&gate)?;
        // Others may have come to need more meanwhile.
        let reach = self.reach_now(&living)?;
        self.copy(group, &reach, &mut copied)?;
        self.inner.packs.commit(&gate)?;
        let mut retirement = Retirement::new(self.root(), &living);
        for share in group.iter().filter(|it| self.inner.packs.is_present(&it.pack)) {
            self.retire(&share.pack, &mut retirement)?;
        }
        sync_folder(&self.root().join("packs"))?;
        self.inner.packs.forget_gone(&gate)?;
        let written = self.inner.packs.committed() - before;
        match living.ids.is_empty() {
            true => pruned.freed += retirement.freed.saturating_sub(written),
            false => pruned.later += retirement.later.saturating_sub(written),
        }
        Ok(())
    }

    /// Copies what is needed and is in no other pack: of two that have it one is enough.
    fn copy(
        &self,
        group: &[Share],
        reach: &Reach<'_>,
        copied: &mut HashSet<(ObjectKind, Digest)>,
    ) -> Result<(), StoreError> {
        let packs = &self.inner.packs;
        let mut others = packs.all()?;
        others.retain(|other| {
            group.iter().all(|it| it.pack.name != other.name) && packs.is_present(other)
        });
        let is_elsewhere = |(kind, key): (ObjectKind, Digest)| {
            let has = |it: &Arc<Pack>| it.index.find(kind, key).is_some_and(|at| !it.bad.has(at));
            others.iter().any(has)
        };
        for pack in group.iter().map(|it| &it.pack) {
            for (at, entry) in pack.index.entries().enumerate() {
                let name = (entry.kind, entry.key);
                let is_needed = reach.needs(entry.kind, entry.key) && !pack.bad.has(at);
                if !is_needed || copied.contains(&name) || is_elsewhere(name) {
                    continue;
                }
                if let Some(bytes) = packs.read_at(pack, at)? {
                    packs.add_again(entry.kind, entry.key, &bytes)?;
                    copied.insert(name);
                }
            }
        }
        Ok(())
    }

    /// Takes a pack out of the store; its index first, so that nobody looks for what is gone.
    fn retire(&self, pack: &Pack, retirement: &mut Retirement<'_>) -> Result<(), StoreError> {
        retirement.take(&self.inner.packs.path(&pack.name, "idx"))?;
        retirement.take(&self.inner.packs.path(&pack.name, "pack"))?;
        let folder = self.root().join("packs");
        let is_beside = |it: &&String| it.starts_with(&pack.name) && has_extension(it, "bad");
        names_in(&folder)?.iter().filter(is_beside).try_for_each(|it| remove(&folder.join(it)))
    }

    /// Takes out what killed processes left beside no index. Others may have found something there
    /// while there was one.
    fn remove_orphans(&self, retirement: &mut Retirement<'_>) -> Result<(), StoreError> {
        let folder = self.root().join("packs");
        let names = names_in(&folder)?;
        for name in &names {
            let stem = name.split_once('.').map_or(name.as_str(), |it| it.0);
            if names.binary_search(&format!("{stem}.idx")).is_err() {
                retirement.take(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// All that is needed by what is there.
    fn reach_now(&self, living: &Living) -> Result<Reach<'_>, StoreError> {
        let survey = self.survey(living)?;
        Ok(self.choose(survey, &Limits::default())?.0)
    }

    fn survey(&self, living: &Living) -> Result<Survey, StoreError> {
        let is_fresh = |last: SystemTime| living.oldest.is_some_and(|it| it <= last);
        let mut survey = Survey::default();
        survey.pinned.extend(self.names()?.into_iter().map(|it| it.digest));
        let named: HashSet<Digest> = survey.pinned.iter().copied().collect();
        for (folder, digest) in self.records_of(&["images", "cache", "stat"])? {
            let path = self.root().join(folder).join(digest.hex());
            let Some(last) = records::last_use(&path)? else { continue };
            let what = match folder {
                "images" => What::Image(digest),
                "cache" => What::Step(digest),
                _ => What::Context,
            };
            match what {
                What::Image(digest) if named.contains(&digest) => {}
                What::Image(digest) if is_fresh(last) => survey.pinned.push(digest),
                What::Step(key) if is_fresh(last) => survey.pinned_texts.push(key),
                What::Context if is_fresh(last) => {}
                _ => {
                    let size = taken(&path);
                    survey.candidates.push(Candidate { what, path, last, size });
                }
            }
        }
        let packs = self.inner.packs.all()?;
        for pack in packs.iter().filter(|it| living.ids.contains(packs::writer(&it.name))) {
            survey.fresh.extend(pack.index.entries().map(|it| (it.kind, it.key)));
        }
        Ok(survey)
    }

    /// The digests by which records of some folders are found.
    fn records_of(
        &self,
        folders: &[&'static str],
    ) -> Result<Vec<(&'static str, Digest)>, StoreError> {
        let mut found = Vec::new();
        for folder in folders {
            let names = names_in(&self.root().join(folder))?;
            found.extend(names.iter().filter_map(|it| Some((*folder, Digest::from_hex(it)?))));
        }
        Ok(found)
    }

    /// Keeps what was used last as long as the limits allow.
    fn choose(
        &self,
        survey: Survey,
        limits: &Limits,
    ) -> Result<(Reach<'_>, Vec<Candidate>), StoreError> {
        let Survey { pinned, pinned_texts, fresh, mut candidates } = survey;
        let base = || -> Result<Reach<'_>, StoreError> {
            let mut reach = Reach::new(self);
            pinned.iter().try_for_each(|it| reach.add(*it))?;
            pinned_texts.iter().try_for_each(|it| self.add_step(&mut reach, *it))?;
            fresh.iter().try_for_each(|(kind, key)| reach.add_object(*kind, *key))?;
            Ok(reach)
        };
        let mut reach = base()?;
        let pinned_size = reach.size;
        candidates.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.path.cmp(&b.path)));
        let mut records = 0;
        let mut count = 0;
        for candidate in &candidates {
            if limits.unused_since.is_some_and(|it| candidate.last < it) {
                break;
            }
            self.add_candidate(&mut reach, candidate)?;
            records += candidate.size;
            let is_little = reach.size - pinned_size + records <= limits.least;
            if !is_little && limits.max_size.is_some_and(|it| it < reach.size + records) {
                break;
            }
            count += 1;
        }
        let mut victims = candidates.split_off(count);
        if !victims.is_empty() {
            // What the first of them needs is in it.
            reach = base()?;
            candidates.iter().try_for_each(|it| self.add_candidate(&mut reach, it))?;
        }
        // Where the layers are that are needed and not here: nobody could have them otherwise.
        let elsewhere = reach.digests.iter().filter(|(_, size)| **size == 0);
        let sources: HashSet<Digest> = elsewhere.map(|it| layer_sources::key(*it.0)).collect();
        victims.retain(|it| !matches!(it.what, What::Step(key) if sources.contains(&key)));
        Ok((reach, victims))
    }

    fn add_candidate(&self, reach: &mut Reach<'_>, it: &Candidate) -> Result<(), StoreError> {
        match it.what {
            What::Image(digest) => reach.add(digest),
            What::Step(key) => self.add_step(reach, key),
            What::Context => Ok(()),
        }
    }

    fn add_step(&self, reach: &mut Reach<'_>, key: Digest) -> Result<(), StoreError> {
        let path = self.root().join("cache").join(key.hex());
        match std::fs::read(&path) {
            Ok(bytes) => reach.add_text(records::content(key, &bytes).unwrap_or_default()),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(failed("read", &path)(err)),
        }
    }

    /// Blobs that are files and that nothing needs.
    fn idle_files(
        &self,
        reach: &Reach<'_>,
        living: &Living,
    ) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let mut found = Vec::new();
        // A process of the layout before does not tell what it needs.
        if self.inner.old.is_some() {
            return Ok(found);
        }
        for (folder, digest) in self.records_of(&["blobs/sha256"])? {
            let path = self.root().join(folder).join(digest.hex());
            let last = records::last_use(&path)?;
            // It was made since the oldest of the others began, and perhaps for that.
            let is_fresh = living.oldest.zip(last).is_some_and(|(oldest, last)| oldest <= last);
            if !reach.digests.contains_key(&digest) && !is_fresh {
                found.push((path, digest));
            }
        }
        Ok(found)
    }

    /// How much of each pack is needed; packs that others are adding are left out.
    fn shares(&self, reach: &Reach<'_>, living: &Living) -> Result<Vec<Share>, StoreError> {
        let mut shares = Vec::new();
        let mut seen = HashSet::new();
        // The newest first: of two copies the older is not needed.
        for pack in self.inner.packs.all()?.into_iter().rev() {
            let is_fresh = living.ids.contains(packs::writer(&pack.name));
            let size = pack.index.pack_size();
            let mut share = Share { pack, size, needed: 0, dead: 0 };
            for (at, entry) in share.pack.index.entries().enumerate() {
                let is_needed = reach.needs(entry.kind, entry.key) && !share.pack.bad.has(at);
                if is_needed && seen.insert((entry.kind, entry.key)) {
                    share.needed += u64::from(entry.length);
                } else {
                    share.dead += 1;
                }
            }
            if !is_fresh {
                shares.push(share);
            }
        }
        Ok(shares)
    }
}

impl Pruned {
    fn count(&mut self, candidate: &Candidate) {
        self.freed += candidate.size;
        match candidate.what {
            What::Image(digest) => self.images.push(digest),
            What::Step(_) => self.steps += 1,
            What::Context => self.contexts += 1,
        }
    }
}
