//! The store as one or several processes use it.

use super::{files::has_extension, *};
use crate::digest::Blob;

mod rare;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

fn files(store: &Store, folder: &str) -> usize {
    fs::read_dir(store.root().join(folder)).unwrap().count()
}

#[test]
fn a_blob_is_seen_when_it_is_whole_and_not_before() {
    let (_folder, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 1));
    let blob = writer.finish().unwrap();
    assert_eq!(blob, Blob { digest: Digest::of(b"hello"), size: 5 });
    assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (1, 0));
    assert_eq!(store.read_blob(blob.digest, 5).unwrap(), b"hello");
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (_folder, store) = store();
    store.writer().unwrap().write_all(b"half").unwrap();
    assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 0));
}

#[test]
fn other_content_than_expected_is_not_stored() {
    let (_folder, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"hallo").unwrap();
    let expected = Blob { digest: Digest::of(b"hello"), size: 5 };
    assert!(matches!(writer.finish_as(expected), Err(StoreError::Damaged { .. })));
    assert_eq!((files(&store, "blobs/sha256"), files(&store, "tmp")), (0, 0));
}

#[test]
fn a_damaged_blob_does_not_leave_the_store() {
    let (_folder, store) = store();
    let blob = store.write_blob(b"hello").unwrap();
    fs::write(store.blob(blob.digest), b"hallo").unwrap();
    let error = store.read_blob(blob.digest, 10).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_damaged_blob_is_written_again() {
    let (_folder, store) = store();
    let blob = store.write_blob(b"hello").unwrap();
    fs::write(store.blob(blob.digest), b"hallo").unwrap();
    store.write_blob(b"hello").unwrap();
    assert_eq!(store.read_blob(blob.digest, 5).unwrap(), b"hello");
}

/// Another process that uses the same store.
fn another(store: &Store) -> Store {
    Store::open(store.root()).unwrap()
}

fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

/// Adds a blob of these segments.
fn compose(store: &Store, segments: &[&[u8]]) -> Digest {
    let mut parts = Vec::new();
    for bytes in segments {
        let (key, size) = (Digest::of(bytes), u32::try_from(bytes.len()).unwrap());
        if !store.has_object(ObjectKind::Segment, key) {
            store.add_object(ObjectKind::Segment, key, bytes).unwrap();
        }
        parts.push(Part::Segment { key, skip: 0, size });
    }
    let digest = Digest::of(&segments.concat());
    store.add_composed(digest, &Composed { parts }).unwrap();
    digest
}

/// Adds an image that is just a manifest with this layer.
fn image_of(store: &Store, layer: Digest, name: Option<&str>) -> Digest {
    let blob = store.write_blob(format!(r#"{{"layers":["{layer}"]}}"#).as_bytes()).unwrap();
    let Blob { digest, size } = blob;
    let image = StoredImage { digest, size, media_type: "m".into(), added: 1 };
    store.add_image(&image).unwrap();
    if let Some(name) = name {
        let name = Name { name: name.into(), digest, origin: Origin::Local };
        store.add_name(&name).unwrap();
    }
    digest
}

/// As if a record had been used last so long ago.
fn age(store: &Store, folder: &str, digest: Digest, seconds: u64) {
    let path = store.root().join(folder).join(digest.hex());
    records::set_use(&path, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
}

fn packs(store: &Store) -> Vec<String> {
    names_in(&store.root().join("packs")).unwrap()
}

/// Changes the last byte of the newest pack.
fn damage_pack(store: &Store) {
    let name = packs(store).into_iter().rfind(|it| has_extension(it, "pack")).unwrap();
    let path = store.root().join("packs").join(name);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_name_points_to_the_last_image_it_was_given() {
    let (_folder, store) = store();
    for content in ["a", "b"] {
        let digest = image_of(&store, Digest::of(content.as_bytes()), Some("x:1"));
        let name = Name { name: "x:1".into(), digest, origin: Origin::Local };
        assert_eq!(store.name("x:1").unwrap(), Some(name));
    }
    assert_eq!(store.names().unwrap().len(), 1);
    store.remove_name("x:1").unwrap();
    assert_eq!(store.names().unwrap(), []);
    let nothing = Name { name: "x:1".into(), digest: Digest::of(b""), origin: Origin::Local };
    assert!(matches!(store.add_name(&nothing), Err(StoreError::Missing(_))));
}

#[test]
fn what_a_killed_process_left_is_cleared_and_what_another_writes_is_not() {
    let (_folder, store) = store();
    let left = store.root().join("tmp/0123456789abcdef-0");
    fs::write(&left, "half").unwrap();
    fs::write(store.root().join("leases/0123456789abcdef"), "").unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"hello").unwrap();
    let second = another(&store);
    assert!(!left.exists());
    assert_eq!((files(&store, "tmp"), files(&store, "leases")), (1, 2));
    drop(second);
    writer.finish().unwrap();
    assert_eq!((files(&store, "tmp"), files(&store, "leases")), (0, 1));
}

#[test]
fn an_object_is_seen_by_its_process_at_once_and_by_others_after_the_commit() {
    let (_folder, store) = store();
    let other = another(&store);
    let key = Digest::of(b"key");
    for content in [&b"one"[..], b"two", b""] {
        store.add_object(ObjectKind::Contents, key, content).unwrap();
        assert_eq!(store.object(ObjectKind::Contents, key).unwrap().as_deref(), Some(content));
        store.commit().unwrap();
        // The newest counts.
        let third = another(&store);
        assert_eq!(third.object(ObjectKind::Contents, key).unwrap().as_deref(), Some(content));
        assert!(!third.has_object(ObjectKind::Segment, key));
    }
    let late = Digest::of(b"late");
    store.add_object(ObjectKind::Segment, late, b"late").unwrap();
    assert!(!other.has_object(ObjectKind::Segment, late));
    store.commit().unwrap();
    assert!(other.has_object(ObjectKind::Segment, late));
    assert_eq!(files(&store, "tmp"), 0);
}

#[test]
fn a_commit_of_nothing_and_of_what_is_there_already_makes_no_pack() {
    let (_folder, store) = store();
    for _ in 0..3 {
        store.commit().unwrap();
        store.add_object(ObjectKind::Segment, Digest::of(b"a"), b"a").unwrap();
        store.commit().unwrap();
        store.write_blob(b"blob").unwrap();
    }
    store.commit().unwrap();
    assert_eq!(packs(&store).len(), 4, "{:?}", packs(&store));
}

/// What one of several threads does.
fn add_and_read(store: &Store, thread: u64) {
    for number in 0..100 {
        let bytes = bytes(thread * 1000 + number, 3000);
        let key = Digest::of(&bytes);
        store.add_object(ObjectKind::Segment, key, &bytes).unwrap();
        if number % 25 == thread {
            store.commit().unwrap();
        }
        assert_eq!(store.object(ObjectKind::Segment, key).unwrap(), Some(bytes));
    }
}

#[test]
fn threads_add_read_and_commit_at_once() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = store.clone();
            scope.spawn(move || add_and_read(&store, thread));
        }
    });
    store.commit().unwrap();
    let other = another(&store);
    for (thread, number) in (0..4).flat_map(|it| (0..100).map(move |number| (it, number))) {
        let key = Digest::of(&bytes(thread * 1000 + number, 3000));
        assert!(other.has_object(ObjectKind::Segment, key));
    }
}

#[test]
fn a_damaged_object_is_an_error_once_and_can_be_made_again() {
    let (_folder, store) = store();
    let key = Digest::of(b"key");
    store.add_object(ObjectKind::Segment, key, b"segment").unwrap();
    store.commit().unwrap();
    damage_pack(&store);
    let other = another(&store);
    let error = store.object(ObjectKind::Segment, key).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { expected, .. } if expected == key), "{error}");
    assert_eq!(store.object(ObjectKind::Segment, key).unwrap(), None);
    assert_eq!(other.object(ObjectKind::Segment, key).unwrap(), None, "it is told to others");
    store.add_object(ObjectKind::Segment, key, b"segment").unwrap();
    store.commit().unwrap();
    for store in [store.clone(), another(&store)] {
        assert_eq!(
            store.object(ObjectKind::Segment, key).unwrap().as_deref(),
            Some(&b"segment"[..])
        );
    }
}

#[test]
fn a_composed_blob_with_a_damaged_segment_is_an_error_and_then_none() {
    let (_folder, store) = store();
    let digest = compose(&store, &[&bytes(1, 100), &bytes(2, 100)]);
    store.commit().unwrap();
    assert_eq!(store.read_blob(digest, 1000).unwrap().len(), 200);
    // The last object of the pack is the recipe or a segment; one of each is enough.
    damage_pack(&store);
    let other = another(&store);
    assert!(other.read_blob(digest, 1000).is_err());
    assert_eq!(another(&store).size(digest).unwrap(), None);
    other.remove_if_damaged(digest).unwrap();
    compose(&other, &[&bytes(1, 100), &bytes(2, 100)]);
    assert_eq!(other.read_blob(digest, 1000).unwrap().len(), 200);
}

#[test]
fn a_pack_without_its_file_and_an_index_that_is_none_are_as_if_not_there() {
    let (_folder, store) = store();
    let key = Digest::of(b"a");
    store.add_object(ObjectKind::Segment, key, b"a").unwrap();
    store.commit().unwrap();
    for name in packs(&store).iter().filter(|it| has_extension(it, "pack")) {
        fs::remove_file(store.root().join("packs").join(name)).unwrap();
    }
    fs::write(store.root().join("packs/0000000009-x.idx"), "rbindex2").unwrap();
    let other = another(&store);
    assert!(!other.has_object(ObjectKind::Segment, key));
    assert_eq!(other.object(ObjectKind::Segment, key).unwrap(), None);
    other.add_object(ObjectKind::Segment, key, b"a").unwrap();
    other.commit().unwrap();
    assert!(another(&store).object(ObjectKind::Segment, key).unwrap().is_some());
}

#[test]
fn a_torn_or_foreign_record_of_a_step_is_none() {
    let (_folder, store) = store();
    let [key, other] = [Digest::of(b"a"), Digest::of(b"b")];
    store.remember(key, &1234u32).unwrap();
    assert_eq!(store.recall::<u32>(key).unwrap(), Some(1234));
    assert_eq!(store.recall::<String>(key).unwrap(), None);
    let path = |key: Digest| store.root().join("cache").join(key.hex());
    let whole = fs::read(path(key)).unwrap();
    fs::write(path(other), &whole).unwrap();
    assert_eq!(store.recall::<u32>(other).unwrap(), None, "it is of another key");
    for cut in 0..whole.len() {
        fs::write(path(key), &whole[..cut]).unwrap();
        assert_eq!(store.recall::<u32>(key).unwrap(), None, "cut at {cut}");
    }
}

#[test]
fn a_hit_notes_the_use_of_a_record() {
    let (_folder, store) = store();
    let key = Digest::of(b"a");
    store.remember(key, &1u32).unwrap();
    let path = store.root().join("cache").join(key.hex());
    age(&store, "cache", key, 1000);
    store.recall::<u32>(key).unwrap();
    let noted = records::last_use(&path).unwrap().unwrap();
    assert!(store.start() <= noted, "{noted:?}");
}

#[test]
fn what_no_name_points_to_goes_by_its_last_use() {
    let (folder, store) = store();
    let mut layers = Vec::new();
    for number in 0..5 {
        let layer = compose(&store, &[&bytes(100, 5000), &bytes(number, 20_000)]);
        let key = Digest::of(&number.to_le_bytes());
        store.remember(key, &layer.to_string()).unwrap();
        age(&store, "cache", key, 1000 + number);
        layers.push(layer);
    }
    image_of(&store, layers[0], Some("kept:1"));
    let unnamed = image_of(&store, layers[1], None);
    age(&store, "images", unnamed, 500);
    compose(&store, &[&bytes(7, 9000)]);
    let is_there = |store: &Store| -> Vec<bool> {
        layers.iter().map(|it| store.size(*it).unwrap().is_some()).collect()
    };

    let nothing = store.plan_prune(&Limits::default()).unwrap();
    assert_eq!((nothing.steps, nothing.images.len()), (0, 0));
    let since = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1002));
    let limits = Limits { max_size: None, unused_since: since, least: 0 };
    let planned = store.plan_prune(&limits).unwrap();
    let pruned = store.prune(&limits).unwrap();
    assert_eq!((pruned.steps, pruned.images.clone()), (2, vec![unnamed]));
    assert_eq!((planned.steps, planned.images), (pruned.steps, pruned.images.clone()));
    assert!(28_000 < pruned.freed, "{pruned:?}");
    // What a process has added stays as long as it lives.
    drop(store);
    let store = Store::open(&folder.path().join("store")).unwrap();
    assert_eq!(is_there(&store), [true, false, true, true, true]);

    let limits = Limits { max_size: Some(58_000), unused_since: None, least: 0 };
    assert_eq!(store.prune(&limits).unwrap().steps, 2);
    assert_eq!(is_there(&another(&store)), [true, false, false, false, true]);
    store.prune(&Limits { max_size: Some(0), unused_since: None, least: 0 }).unwrap();
    assert_eq!(is_there(&another(&store)), [true, false, false, false, false]);
    assert_eq!(store.read_blob(layers[0], 100_000).unwrap().len(), 25_000);
    let usage = store.usage().unwrap();
    assert_eq!((usage.steps, usage.images.len()), (0, 1));
    assert_eq!(usage.unreferenced, 0, "{usage:?}");
    assert!(usage.overhead < 10_000, "{usage:?}");
}

#[test]
fn what_nothing_refers_to_is_what_a_prune_frees() {
    let (folder, store) = store();
    let path = folder.path().join("store");
    let layer = compose(&store, &[&bytes(1, 50_000)]);
    image_of(&store, layer, Some("kept:1"));
    compose(&store, &[&bytes(2, 70_000)]);
    store.commit().unwrap();
    drop(store);
    // Twice: what is left after a prune is no longer called so.
    for least in [70_000, 0] {
        let usage = Store::open(&path).unwrap().usage().unwrap();
        let planned = Store::open(&path).unwrap().plan_prune(&Limits::default()).unwrap();
        let pruned = Store::open(&path).unwrap().prune(&Limits::default()).unwrap();
        assert_eq!(usage.unreferenced, planned.freed, "{usage:?}");
        assert!(usage.unreferenced.abs_diff(pruned.freed) < 10_000, "{usage:?} {pruned:?}");
        assert!(least <= usage.unreferenced && usage.unreferenced <= least + 10_000, "{usage:?}");
    }
}

#[test]
fn what_a_process_found_is_not_lost_to_it_when_another_prunes() {
    let (folder, store) = store();
    let segments = [bytes(1, 5000), bytes(2, 5000)];
    let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    let old = compose(&store, &segments);
    let mut writer = store.writer().unwrap();
    writer.write_all(&bytes(3, 2 << 20)).unwrap();
    let pulled = writer.finish().unwrap();
    store.commit().unwrap();
    drop(store);
    let root = folder.path().join("store");
    age(&Store::open(&root).unwrap(), "blobs/sha256", pulled.digest, 7);

    let builder = Store::open(&root).unwrap();
    assert!(builder.has(pulled.digest, pulled.size).unwrap());
    let new = compose(&builder, &[segments[1], segments[0]]);
    let other = another(&builder);
    let pruned = other.prune(&Limits::default()).unwrap();
    assert!(2 << 20 < pruned.later && pruned.freed < 1000, "{pruned:?}");
    for gone in [old, new, pulled.digest] {
        assert_eq!(another(&other).size(gone).unwrap(), None);
    }
    // It still reads them, and what it adds is whole for all.
    assert_eq!(builder.read_blob(new, 100_000).unwrap().len(), 10_000);
    assert_eq!(builder.read_blob(pulled.digest, 3 << 20).unwrap().len(), 2 << 20);
    image_of(&builder, new, Some("new:1"));
    let late = Store::open(&root).unwrap();
    assert_eq!(late.read_blob(new, 100_000).unwrap().len(), 10_000);
    assert_eq!(late.read_blob(pulled.digest, 3 << 20).unwrap().len(), 2 << 20);
    drop((builder, other, late));
    let last = Store::open(&root).unwrap();
    assert_eq!(files(&last, "retired"), 0);
    last.prune(&Limits::default()).unwrap();
    assert_eq!(last.read_blob(new, 100_000).unwrap().len(), 10_000);
    assert_eq!(last.size(pulled.digest).unwrap(), None);
}

#[test]
fn what_a_process_is_adding_is_not_pruned_by_another() {
    let (_folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 5000)]);
    store.commit().unwrap();
    let blob = store.write_blob(&bytes(2, 2 << 20)).unwrap();
    let pruned =
        another(&store).prune(&Limits { max_size: Some(0), unused_since: None, least: 0 }).unwrap();
    assert_eq!((pruned.blobs, pruned.later), (0, 0), "{pruned:?}");
    assert!(another(&store).size(layer).unwrap().is_some());
    assert!(another(&store).size(blob.digest).unwrap().is_some());
}

#[test]
fn many_small_packs_become_one() {
    let (folder, store) = store();
    let mut segments = Vec::new();
    for number in 0..70 {
        segments.push(bytes(number, 500));
        compose(&store, &[&segments[segments.len() - 1]]);
        store.commit().unwrap();
    }
    let all: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    let layer = compose(&store, &all);
    image_of(&store, layer, Some("all:1"));
    drop(store);
    let store = Store::open(&folder.path().join("store")).unwrap();
    store.prune(&Limits::default()).unwrap();
    assert_eq!(packs(&store).len(), 2, "{:?}", packs(&store));
    assert_eq!(store.read_blob(layer, 100_000).unwrap().len(), 35_000);
    assert_eq!(files(&store, "tmp"), 0);
}

/// Two processes may have added the same at the same time.
#[test]
fn what_is_in_two_packs_is_in_one_after_a_prune() {
    let (folder, store) = store();
    let segments: Vec<Vec<u8>> = (0..4).map(|it| bytes(it, 5000)).collect();
    let [twice, gone, old, new] = [0, 1, 2, 3].map(|it| segments[it].as_slice());
    for (name, beside) in [("old:1", old), ("new:1", new)] {
        let layer = compose(&store, &[twice, beside]);
        image_of(&store, layer, Some(name));
        if name == "old:1" {
            compose(&store, &[gone]);
        } else {
            let (kind, key) = (ObjectKind::Segment, Digest::of(twice));
            store.inner.packs.add_again(kind, key, twice).unwrap();
        }
        store.commit().unwrap();
    }
    drop(store);
    let open = || Store::open(&folder.path().join("store")).unwrap();
    open().prune(&Limits::default()).unwrap();
    let kept = || open().inner.packs.all().unwrap();
    let copies = || {
        let has = |it: &&Arc<loaded::Pack>| {
            it.index.find(ObjectKind::Segment, Digest::of(twice)).is_some()
        };
        kept().iter().filter(has).count()
    };
    assert_eq!(copies(), 1);
    let again = open().plan_prune(&Limits::default()).unwrap();
    assert_eq!((again.objects, again.blobs), (0, 0), "{again:?}");
    for beside in [old, new] {
        let layer = Digest::of(&[twice, beside].concat());
        assert_eq!(open().read_blob(layer, 100_000).unwrap().len(), 10_000);
    }
}

#[test]
fn the_store_is_kept_below_its_limit() {
    let (_folder, store) = store();
    assert_eq!(store.keep_below(1).unwrap(), None, "nothing was added");
    for number in 0..10 {
        let layer = compose(&store, &[&bytes(number, 100_000)]);
        store.remember(Digest::of(&[number.to_le_bytes()].concat()), &layer.to_string()).unwrap();
        store.commit().unwrap();
        store.keep_below(500_000).unwrap();
    }
    let total = store.usage().unwrap().total;
    assert!((200_000..600_000).contains(&total), "{total}");
    assert!(store.keep_below(500_000).unwrap().is_none());
}

#[test]
fn verify_finds_what_is_damaged_and_repair_removes_it() {
    let (_folder, store) = store();
    let layer = compose(&store, &[&bytes(1, 5000)]);
    let image = image_of(&store, layer, Some("a:1"));
    let large = store.write_blob(&bytes(2, 2 << 20)).unwrap();
    store.remember(image, &1u32).unwrap();
    let mut read = 0;
    let found = store.verify(Repair::Leave, &mut |count| read += count).unwrap();
    assert_eq!(found.damaged, []);
    assert_eq!((found.objects, found.blobs, found.records), (3, 3, 3));
    assert!(found.bytes == read && (2 << 20) + 10_000 < read);

    fs::write(store.blob(large.digest), b"short").unwrap();
    fs::write(store.root().join("cache").join(image.hex()), b"{").unwrap();
    fs::write(store.root().join("names").join(Digest::of(b"b:1").hex()), b"{").unwrap();
    fs::write(store.root().join("packs/0000000009-x.idx"), b"rbindex2").unwrap();
    damage_pack(&store);
    let found = another(&store).verify(Repair::Leave, &mut |_| ()).unwrap();
    assert!((5..=7).contains(&found.damaged.len()), "{:#?}", found.damaged);
    let again = another(&store).verify(Repair::Remove, &mut |_| ()).unwrap();
    assert!((5..=7).contains(&again.damaged.len()), "{:#?}", again.damaged);
    let last = another(&store).verify(Repair::Leave, &mut |_| ()).unwrap();
    assert_eq!(last.damaged, []);
}
