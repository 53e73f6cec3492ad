//! Layouts are written and read again, and what is no layout is refused.

use super::{write::annotation, *};
use crate::{
    config::Config,
    digest::Verifying,
    image::{Format, Image, Layer, OCI_LAYER},
};

fn store(folder: &Path, name: &str) -> Store {
    Store::open(&folder.join(name)).unwrap()
}

fn image(store: &Store) -> StoredImage {
    image_of(store, b"a layer", &[])
}

/// An image with one layer and these names.
fn image_of(store: &Store, layer: &[u8], names: &[&str]) -> StoredImage {
    let blob = store.write_blob(layer).unwrap();
    let media_type = OCI_LAYER.to_owned();
    let layer = Layer { media_type, digest: blob.digest, size: blob.size, diff_id: blob.digest };
    let config = Config::scratch(&Platform::linux("x86_64"));
    let created = "2024-01-01T00:00:00Z";
    let image = Image::assemble(Format::Oci, &config, vec![layer], created, &[]).unwrap();
    let stored = catalog::add(store, &image, 1).unwrap();
    for name in names {
        catalog::tag(store, &name.parse().unwrap(), stored.digest, Origin::Local).unwrap();
    }
    stored
}

/// What the index of a layout says of names, sorted: `ref.name`, then the full name.
fn saved_names(layout: &Path) -> Vec<(String, String)> {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let text = |it, key| annotation(it, key).unwrap_or_default().to_owned();
    let entries = index["manifests"].as_array().unwrap().iter();
    let mut names: Vec<_> = entries.map(|it| (text(it, REF_NAME), text(it, IMAGE_NAME))).collect();
    names.sort();
    names
}

fn leftovers(layout: &Path) -> usize {
    let files = fs::read_dir(layout).unwrap().map(|it| it.unwrap().file_name());
    files.filter(|it| it.to_string_lossy().starts_with(TEMPORARY)).count()
}

#[test]
fn what_was_saved_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
    let stored = image_of(&from, b"a layer", &["shop:1"]);
    let images = [(stored.clone(), "docker.io/library/shop:1".to_owned())];
    let layout = folder.path().join("layout");
    save(&from, &images, &layout).unwrap();
    save(&from, &images, &layout).unwrap();
    assert_eq!(leftovers(&layout), 0);
    let loaded = load(&to, &layout, &Platform::linux("x86_64"), 2).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].digest, stored.digest);
    assert_eq!(catalog::find(&to, "shop:1").unwrap().digest, stored.digest);

    let mut tar = Vec::new();
    save_tar(&from, &images, &mut tar, Path::new("x.tar")).unwrap();
    let third = store(folder.path(), "third");
    let platform = Platform::linux("x86_64");
    let loaded = load_tar(&third, tar.as_slice(), Path::new("x.tar"), &platform, 2).unwrap();
    assert_eq!(loaded[0].digest, stored.digest);
    assert_eq!(loaded[0].names, ["shop:1".parse().unwrap()]);
}

#[test]
fn a_layout_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
    let layout = folder.path().join("layout");
    let stored = image_of(&from, b"a layer", &["x:1"]);
    save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
    fs::write(blob_path(&layout, Digest::of(b"a layer")), "another").unwrap();
    let platform = Platform::linux("x86_64");
    let error = load_one(&to, &layout, Some("1"), &platform, 2).unwrap_err();
    assert!(matches!(error, LayoutError::Io { action: "read", .. }), "{error}");
    assert_eq!(to.images().unwrap(), []);
    assert_eq!(to.size(Digest::of(b"a layer")).unwrap(), None);
}

#[test]
fn a_blob_that_was_damaged_in_the_layout_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    let images = [(image_of(&from, b"a layer", &["x:1"]), "docker.io/library/x:1".to_owned())];
    save(&from, &images, &layout).unwrap();
    let all = || fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|it| it.unwrap().path());
    for path in all() {
        let damaged = fs::read(&path).unwrap().iter().map(|it| it ^ 1).collect::<Vec<_>>();
        fs::write(&path, damaged).unwrap();
    }
    save(&from, &images, &layout).unwrap();
    assert_eq!(all().count(), 3);
    for path in all() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name);
    }
    assert_eq!(leftovers(&layout), 0);
}

#[test]
fn images_of_the_same_tag_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (store(folder.path(), "from"), store(folder.path(), "to"));
    let layout = folder.path().join("layout");
    let (one, two) = (image_of(&from, b"1", &["one"]), image_of(&from, b"2", &["two"]));
    let full = |name: &str| format!("docker.io/library/{name}:latest");
    let (first, second) = ((one.clone(), full("one")), (two.clone(), full("two")));
    let want =
        [("docker.io/library/two:latest".into(), full("two")), ("latest".into(), full("one"))];
    for images in [&[first.clone(), second.clone()][..], &[second], &[first]] {
        save(&from, images, &layout).unwrap();
        assert_eq!(saved_names(&layout), want);
    }
    let platform = Platform::linux("x86_64");
    for (name, want) in [
        ("latest", &one),
        ("one", &one),
        ("one:latest", &one),
        ("two", &two),
        ("two:latest", &two),
        ("docker.io/library/two:latest", &two),
    ] {
        let found = load_one(&to, &layout, Some(name), &platform, 2).unwrap();
        assert_eq!(found.digest, want.digest, "for `{name}`");
    }
    load(&to, &layout, &platform, 2).unwrap();
    for (name, image) in [("one", one), ("two", two)] {
        assert_eq!(catalog::find(&to, name).unwrap().digest, image.digest);
    }
}

#[test]
fn an_image_that_was_asked_for_by_digits_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    let stored = image_of(&from, b"a layer", &["x:1"]);
    let hex = stored.digest.hex();
    for asked in [
        stored.digest.to_string(),
        format!("x@{}", stored.digest),
        format!("docker.io/library/sha256:{hex}"),
        format!("docker.io/library/{}:latest", &hex[..12]),
    ] {
        save(&from, &[(stored.clone(), asked.clone())], &layout).unwrap();
        assert_eq!(saved_names(&layout), [(String::new(), String::new())], "for `{asked}`");
    }
    save(&from, &[(stored.clone(), "docker.io/library/x:1".into())], &layout).unwrap();
    assert_eq!(saved_names(&layout), [("1".into(), "docker.io/library/x:1".into())]);
    save(&from, &[(stored.clone(), stored.digest.to_string())], &layout).unwrap();
    assert_eq!(saved_names(&layout), [("1".into(), "docker.io/library/x:1".into())]);
}

#[test]
fn one_image_is_chosen_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    let stored = image_of(&from, b"a layer", &["x:1", "y:2"]);
    let names = ["docker.io/library/x:1", "docker.io/library/y:2"];
    save(&from, &names.map(|it| (stored.clone(), it.to_owned())), &layout).unwrap();
    let platform = Platform::linux("x86_64");
    for name in ["x:1", "1", "2", "docker.io/library/y:2"] {
        let found = load_one(&from, &layout, Some(name), &platform, 2).unwrap();
        assert_eq!(found.digest, stored.digest, "for `{name}`");
    }
    let several = load_one(&from, &layout, None, &platform, 2).unwrap_err();
    assert!(matches!(several, LayoutError::Several { count: 2, .. }), "{several}");
    let missing = load_one(&from, &layout, Some("3"), &platform, 2).unwrap_err();
    assert!(matches!(missing, LayoutError::NotFound { .. }), "{missing}");
}

#[test]
fn the_name_that_is_whole_is_the_one_that_counts() {
    for (image_name, ref_name, want) in [
        (Some("docker.io/library/a:1"), Some("1"), Some("a:1")),
        (Some("no name"), Some("b:2"), Some("b:2")),
        (None, Some("localhost/c"), Some("localhost/c:latest")),
        (None, Some("latest"), None),
        (None, None, None),
    ] {
        let got = full_name(image_name, ref_name).map(|it| it.to_string());
        assert_eq!(got.as_deref(), want, "for {image_name:?}, {ref_name:?}");
    }
}

#[test]
fn layouts_of_others_keep_their_images() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let index = r#"{"manifests":[
        {"annotations":{"org.opencontainers.image.ref.name":"1"}},
        {"annotations":{"org.opencontainers.image.ref.name":"x:1"}}]}"#;
    fs::write(layout.join("index.json"), index).unwrap();
    let stored = image_of(&from, b"a layer", &["x:1"]);
    save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
    let full = || "docker.io/library/x:1".to_owned();
    assert_eq!(saved_names(&layout), [("1".into(), String::new()), (full(), full())]);
}

#[test]
fn images_that_are_saved_at_the_same_time_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    let names: Vec<String> = (0..8).map(|it| format!("docker.io/library/x:{it}")).collect();
    let images: Vec<_> =
        names.iter().map(|it| (image_of(&from, it.as_bytes(), &[it]), it.clone())).collect();
    std::thread::scope(|scope| {
        let save = |it| save(&from, std::slice::from_ref(it), &layout).unwrap();
        for image in &images {
            scope.spawn(move || save(image));
        }
    });
    assert_eq!(saved_names(&layout).len(), 8);
    assert_eq!(leftovers(&layout), 0);
}

#[test]
fn a_save_that_was_killed_is_made_good_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let from = store(folder.path(), "from");
    let layout = folder.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), LAYOUT).unwrap();
    fs::write(layout.join(format!("{TEMPORARY}0123")), "half").unwrap();
    let stored = image_of(&from, b"a layer", &["x:1"]);
    save(&from, &[(stored, "docker.io/library/x:1".into())], &layout).unwrap();
    assert_eq!((saved_names(&layout).len(), leftovers(&layout)), (1, 0));
}

#[test]
fn a_copy_tells_which_side_failed() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let said = |err: CopyError| err.at(Path::new("from"), Path::new("to")).to_string();
    let error = copy(&mut &b"content"[..], &mut Full).unwrap_err();
    assert_eq!(said(error), "`to` could not be written");
    let mut wrong = Verifying::new(&b"content"[..], Digest::of(b"other"), 7);
    let error = copy(&mut wrong, &mut Vec::new()).unwrap_err();
    assert_eq!(said(error), "`from` could not be read");
}

#[test]
fn what_is_no_layout_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "store");
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("diary"), "x").unwrap();
    let platform = Platform::linux("x86_64");
    let error = load(&store, &other, &platform, 2).unwrap_err();
    assert!(matches!(error, LayoutError::NoLayout { .. }), "{error}");
    for path in [&other, &other.join("diary")] {
        let error = save(&store, &[(image(&store), "1".into())], path).unwrap_err();
        assert!(matches!(error, LayoutError::Occupied { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    let error = load_tar(&store, &b"no tar"[..], Path::new("x"), &platform, 2).unwrap_err();
    assert!(matches!(error, LayoutError::NoArchive { .. } | LayoutError::Io { .. }), "{error}");
}
