//! What is rare, and must not lose anything: clocks that go back, processes that died half-way or
//! have no lease, images whose layers lie elsewhere.

use std::time::Duration;

use rustix::fs::FlockOperation;

use super::*;
use crate::{
    layer_sources,
    reference::{Reference, Repository},
};

const NOTHING: Limits = Limits { max_size: Some(0), unused_since: None, least: 0 };

fn reopen(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("store")).unwrap()
}

#[test]
fn where_the_layers_lie_that_a_kept_image_needs_is_not_forgotten() {
    let (folder, store) = store();
    let repository =
        |name: &str| -> Repository { name.parse::<Reference>().unwrap().repository().clone() };
    let [needed, unnamed, nobodys] = ["a", "b", "c"].map(|it| Digest::of(it.as_bytes()));
    for digest in [needed, unnamed, nobodys] {
        layer_sources::remember(&store, digest, &repository("a.com/x")).unwrap();
        age(&store, "cache", layer_sources::key(digest), 1000);
    }
    image_of(&store, needed, Some("kept:1"));
    let image = image_of(&store, unnamed, None);
    age(&store, "images", image, 1000);
    drop(store);
    let store = reopen(&folder);
    store.prune(&NOTHING).unwrap();
    let known = [needed, unnamed, nobodys].map(|it| layer_sources::recall(&store, it).unwrap());
    assert_eq!(known.map(|it| it.len()), [1, 0, 0]);
}

#[test]
fn what_was_used_last_stays_though_named_images_are_over_the_limit() {
    let (folder, store) = store();
    let large = compose(&store, &[&bytes(99, 200_000)]);
    image_of(&store, large, Some("large:1"));
    let mut layers = Vec::new();
    for number in 0..8 {
        let layer = compose(&store, &[&bytes(number, 5000)]);
        let key = Digest::of(&number.to_le_bytes());
        store.remember(key, &layer.to_string()).unwrap();
        age(&store, "cache", key, 1000 + number);
        layers.push(layer);
    }
    store.commit().unwrap();
    drop(store);
    let store = reopen(&folder);
    store.prune(&Limits { max_size: Some(100_000), unused_since: None, least: 25_000 }).unwrap();
    let is_there = |it: &Digest| store.size(*it).unwrap().is_some();
    let kept = layers.iter().rev().take_while(|it| is_there(it)).count();
    assert!((1..5).contains(&kept), "{kept} are kept");
    assert!(!layers[..8 - kept].iter().any(is_there), "older ones are kept");
}

#[test]
fn what_a_process_found_is_left_to_it_by_a_prune_that_died_and_the_next() {
    let (folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 5000)]);
    store.commit().unwrap();
    drop(store);
    let builder = reopen(&folder);
    assert!(builder.size(layer).unwrap().is_some());
    // It put the index aside, and then it died.
    let aside = builder.root().join("retired/0123456789abcdef");
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("waits-for"), &builder.inner.lease.id).unwrap();
    for name in packs(&builder).iter().filter(|it| has_extension(it, "idx")) {
        fs::rename(builder.root().join("packs").join(name), aside.join(name)).unwrap();
    }
    another(&builder).prune(&NOTHING).unwrap();
    assert_eq!(packs(&builder), [] as [&str; 0]);
    assert_eq!(builder.read_blob(layer, 10_000).unwrap().len(), 5000);
    image_of(&builder, layer, Some("found:1"));
    drop(builder);
    let last = reopen(&folder);
    assert_eq!(files(&last, "retired"), 0);
    assert_eq!(last.read_blob(layer, 10_000).unwrap().len(), 5000);
}

#[test]
fn who_cannot_make_a_lease_keeps_what_it_found_too() {
    let (folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 5000)]);
    let image = image_of(&store, Digest::of(b"x"), None);
    age(&store, "images", image, 1000);
    store.commit().unwrap();
    drop(store);
    // As a process on a disk that is full does.
    let held = fs::File::open(folder.path().join("store/leases")).unwrap();
    leases::lock(&held, FlockOperation::LockShared).unwrap();
    let store = reopen(&folder);
    let left = store.root().join("tmp/0123456789abcdef-0");
    fs::write(&left, "it writes this").unwrap();
    let pruned = store.prune(&NOTHING).unwrap();
    assert!(pruned.freed == 0 && 5000 < pruned.later, "{pruned:?}");
    assert!(store.image(image).unwrap().is_some());
    assert_eq!(files(&store, "retired"), 1);
    assert_eq!(store.size(layer).unwrap(), None);
    assert!(left.exists());
    drop(held);
    store.prune(&NOTHING).unwrap();
    assert_eq!((files(&store, "retired"), left.exists()), (0, false));
    assert_eq!(store.image(image).unwrap(), None);
}

#[test]
fn what_is_made_after_the_clock_was_set_back_is_not_pruned_by_another() {
    let (_folder, store) = store();
    let hour = Duration::from_hours(1);
    let lease = store.root().join("leases").join(&store.inner.lease.id);
    records::set_use(&lease, store.start() + hour);
    let image = image_of(&store, Digest::of(b"x"), None);
    another(&store).prune(&NOTHING).unwrap();
    assert!(store.image(image).unwrap().is_some());
}

#[test]
fn a_record_of_a_time_to_come_is_used_now() {
    let (_folder, store) = store();
    let key = Digest::of(b"a");
    store.remember(key, &1u32).unwrap();
    age(&store, "cache", key, 1 << 33);
    assert_eq!(store.recall::<u32>(key).unwrap(), Some(1));
    let path = store.root().join("cache").join(key.hex());
    let noted = records::last_use(&path).unwrap().unwrap();
    assert!(noted < store.start() + Duration::from_hours(1), "{noted:?}");
}

#[test]
fn leases_of_many_dead_are_cleared() {
    let (_folder, store) = store();
    for number in 0..1000 {
        fs::write(store.root().join(format!("leases/{number:016x}")), "").unwrap();
        fs::write(store.root().join(format!("tmp/{number:016x}-0")), "half").unwrap();
    }
    let other = another(&store);
    assert_eq!((files(&store, "leases"), files(&store, "tmp")), (2, 0));
    drop(other);
}

#[test]
fn what_two_processes_add_at_once_is_kept_once() {
    let (folder, store) = store();
    let other = another(&store);
    let content = bytes(1, 50_000);
    let layers = [&store, &other].map(|it| compose(it, &[&content]));
    for store in [&store, &other] {
        image_of(store, layers[0], Some("same:1"));
    }
    assert_eq!(packs(&store).iter().filter(|it| has_extension(it, "pack")).count(), 2);
    drop((store, other));
    let store = reopen(&folder);
    // The first writes the older pack anew, whose copies then are the newer ones.
    for _ in 0..2 {
        store.prune(&NOTHING).unwrap();
    }
    let paths = packs(&store).into_iter().map(|it| store.root().join("packs").join(it));
    let total: u64 = paths.map(|it| fs::metadata(it).unwrap().len()).sum();
    assert!(total < 55_000, "{total} bytes");
    assert_eq!(store.read_blob(Digest::of(&content), 60_000).unwrap(), content);
}

#[test]
fn no_name_of_a_pack_is_used_twice() {
    let (_folder, store) = store();
    let mut seen = Vec::new();
    for number in 0..4 {
        compose(&store, &[&bytes(number, 1000)]);
        store.commit().unwrap();
        let names = packs(&store);
        assert!(!names.is_empty());
        seen.extend(names);
        // Nothing needs it.
        store.prune(&NOTHING).unwrap();
        assert_eq!(packs(&store), [""; 0]);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "{seen:?}");
}

#[test]
fn an_image_that_was_given_a_name_is_not_removed() {
    let (_folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 1000)]);
    let image = image_of(&store, layer, Some("a:1"));
    assert_eq!(store.remove_image_and_blobs(image).unwrap(), None);
    assert!(store.image(image).unwrap().is_some() && store.size(layer).unwrap().is_some());
    store.remove_name("a:1").unwrap();
    assert!(store.remove_image_and_blobs(image).unwrap().is_some());
    assert!(store.image(image).unwrap().is_none());
}

#[test]
fn what_a_process_made_is_not_removed_by_its_own_limit() {
    let (_folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 900_000)]);
    let image = image_of(&store, layer, None);
    let old = compose(&store, &[&bytes(2, 900_000)]);
    store.remember(Digest::of(b"old"), &old.to_string()).unwrap();
    age(&store, "cache", Digest::of(b"old"), 1000);
    assert!(store.keep_below(500_000).unwrap().is_some());
    assert!(store.image(image).unwrap().is_some() && store.size(layer).unwrap().is_some());
    assert!(store.size(old).unwrap().is_none());
    another(&store).prune(&NOTHING).unwrap();
    assert!(store.image(image).unwrap().is_some(), "it is in use");
}
