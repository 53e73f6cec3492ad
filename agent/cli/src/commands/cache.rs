//! `rbuild cache …`: what the store takes, what goes from it, and whether it is whole.

use std::time::SystemTime;

use rbuild_imagebuilder::store::{ImageUsage, Limits, Pruned, Repair, Store, Usage, Verified};
use serde_json::{Value, json};

use super::image::{short_name, store, store_failure};
use crate::{
    args::{
        Global,
        cache::{Cache, Prune},
    },
    console::{self, bar::Bar, size},
    failure::{Failure, Kind},
    host,
};

/// The size that a store may have if nothing else is said, in bytes.
const DEFAULT_LIMIT: u64 = 20 << 30;

pub(crate) fn cache(args: &Cache, global: &Global) -> Result<(), Failure> {
    host::stop_on_signals("run it again: nothing is half-removed")?;
    let store = store(global)?;
    match args {
        Cache::Du { json } => usage(&store, *json),
        Cache::Prune(args) => prune(&store, args),
        Cache::Verify { repair, json } => {
            let repair = if *repair { Repair::Remove } else { Repair::Leave };
            verify(&store, repair, *json)
        }
    }
}

/// Keeps the store below its limit, after something was added to it. What goes wrong with that is
/// no failure of the command.
pub(super) fn keep_below_limit(store: &Store, global: &Global) {
    let limit = global.max_store_size.unwrap_or_else(|| default_limit(store));
    match store.keep_below(limit) {
        Ok(Some(pruned)) if 0 < pruned.freed => {
            let (limit, freed) = (size::bytes(limit), size::bytes(pruned.freed));
            console::say(&format!("the store was over its limit of {limit}: {freed} freed"));
        }
        Ok(_) => {}
        Err(err) => console::say(&format!("the store could not be pruned: {err}")),
    }
}

/// Twenty gibibytes, or a tenth of the disk if that is less.
fn default_limit(store: &Store) -> u64 {
    let disk = rustix::fs::statvfs(store.root());
    let tenth = disk.map_or(u64::MAX, |it| it.f_blocks.saturating_mul(it.f_frsize) / 10);
    DEFAULT_LIMIT.min(tenth)
}

fn usage(store: &Store, json: bool) -> Result<(), Failure> {
    let usage = store.usage().map_err(store_failure)?;
    if json {
        return console::print_line(&usage_json(&usage).to_string());
    }
    let mut rows = vec![["IMAGE", "SIZE", "ALONE"].map(str::to_owned)];
    for image in &usage.images {
        let mut names = names(image).into_iter();
        let first = names.next().unwrap_or_default();
        rows.push([first, size::bytes(image.size), size::bytes(image.alone)]);
        // What it takes is told once.
        rows.extend(names.map(|it| [it, String::new(), String::new()]));
    }
    let images = console::table(&rows);
    let row = |what: &str, count: String, bytes: u64| [what.into(), count, size::bytes(bytes)];
    let rows = [
        ["WHAT", "COUNT", "SIZE"].map(str::to_owned),
        row("images", usage.images.len().to_string(), usage.in_images),
        row("steps", usage.steps.to_string(), usage.in_steps),
        row("contexts", usage.contexts.to_string(), usage.in_contexts),
        row("unreferenced", "-".into(), usage.unreferenced),
        row("overhead of packs", "-".into(), usage.overhead),
        row("removed, still in use", "-".into(), usage.retired),
        row("being written", "-".into(), usage.temporary),
        row("total on disk", "-".into(), usage.total),
    ];
    let images = if usage.images.is_empty() { String::new() } else { images + "\n" };
    console::print_data(images + &console::table(&rows))
}

fn names(image: &ImageUsage) -> Vec<String> {
    match image.names.is_empty() {
        true => vec![format!("<none> {}", &image.digest.hex()[..12])],
        false => image.names.iter().map(|it| short_name(it)).collect(),
    }
}

fn usage_json(usage: &Usage) -> Value {
    let image = |it: &ImageUsage| {
        let names: Vec<String> = it.names.iter().map(|it| short_name(it)).collect();
        json!({
            "digest": it.digest.to_string(),
            "names": names,
            "size": it.size,
            "alone": it.alone,
        })
    };
    json!({
        "images": usage.images.iter().map(image).collect::<Vec<_>>(),
        "inImages": usage.in_images,
        "steps": usage.steps,
        "inSteps": usage.in_steps,
        "contexts": usage.contexts,
        "inContexts": usage.in_contexts,
        "unreferenced": usage.unreferenced,
        "overhead": usage.overhead,
        "retired": usage.retired,
        "temporary": usage.temporary,
        "total": usage.total,
    })
}

fn prune(store: &Store, args: &Prune) -> Result<(), Failure> {
    let max_size = if args.all { Some(0) } else { args.max_size };
    let since = args.older_than.map(|it| host::now().saturating_sub(it));
    let unused_since = since.map(|it| SystemTime::UNIX_EPOCH + it);
    let limits = Limits { max_size, unused_since, least: 0 };
    let pruned = match args.dry_run {
        true => store.plan_prune(&limits),
        false => store.prune(&limits),
    };
    let pruned = pruned.map_err(store_failure)?;
    if args.json {
        return console::print_line(&pruned_json(&pruned).to_string());
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let counts = [
        (pruned.images.len(), "images without a name"),
        (pruned.steps, "results of steps"),
        (pruned.contexts, "caches of contexts"),
        (pruned.blobs, "blobs"),
        (pruned.objects, "objects"),
    ];
    for (count, what) in counts.iter().filter(|it| 0 < it.0) {
        console::say(&format!("{verb}: {count} {what}"));
    }
    let (freed, later) = (size::bytes(pruned.freed), size::bytes(pruned.later));
    let will = if args.dry_run { "would be freed" } else { "freed" };
    console::say(&format!("{freed} {will}"));
    if 0 < pruned.later {
        console::say(&format!("{later} more when the other rbuilds that run now are done"));
    }
    // What is over the size that was asked for is not left without a word.
    if args.max_size.is_some_and(|it| it < pruned.kept) {
        let kept = size::bytes(pruned.kept);
        console::say(&format!(
            "{kept} stay: names point to them; `rbuild image rm NAME` lets them go"
        ));
    }
    Ok(())
}

fn pruned_json(pruned: &Pruned) -> Value {
    json!({
        "images": pruned.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "steps": pruned.steps,
        "contexts": pruned.contexts,
        "blobs": pruned.blobs,
        "objects": pruned.objects,
        "freed": pruned.freed,
        "later": pruned.later,
        "kept": pruned.kept,
    })
}

fn verify(store: &Store, repair: Repair, json: bool) -> Result<(), Failure> {
    let total = store.bytes_to_verify().map_err(store_failure)?;
    let (mut bar, mut done) = (Bar::begin("reading", 0, total), 0);
    let mut progress = |count: u64| {
        done += count;
        bar.set(done);
    };
    let verified = store.verify(repair, &mut progress).map_err(store_failure)?;
    drop(bar);
    if json {
        console::print_line(&verified_json(&verified).to_string())?;
    }
    for damage in &verified.damaged {
        console::say(&format!("damaged: {}: {}", damage.what, damage.reason));
    }
    let Verified { objects, blobs, records, bytes, damaged } = &verified;
    let read = size::bytes(*bytes);
    console::say(&format!("{objects} objects, {blobs} blobs, {records} records; {read} read"));
    let message = match (damaged.len(), repair) {
        (0, _) => return Ok(()),
        (count, Repair::Remove) => format!("{count} damaged parts of the store were removed"),
        (count, Repair::Leave) => format!("{count} parts of the store are damaged"),
    };
    let hint = match repair {
        Repair::Remove => "build or pull the images again: what is whole is kept",
        Repair::Leave => "`rbuild cache verify --repair` removes them, so that they are made again",
    };
    Err(Failure::new(Kind::Outside, message).hint(hint))
}

fn verified_json(verified: &Verified) -> Value {
    let damage =
        |it: &rbuild_imagebuilder::store::Damage| json!({ "what": it.what, "reason": it.reason });
    json!({
        "objects": verified.objects,
        "blobs": verified.blobs,
        "records": verified.records,
        "bytes": verified.bytes,
        "damaged": verified.damaged.iter().map(damage).collect::<Vec<_>>(),
    })
}
