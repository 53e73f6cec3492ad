//! Places are read as people write them, and mirrors are no targets. Copies themselves are tested
//! with registries, in `tests`.

use std::sync::Arc;

use super::*;
use crate::{
    catalog,
    config::Config,
    digest::Digest,
    image::{Format, Image, Layer, OCI_LAYER},
    registry::{
        Anonymous, Options,
        scripted::{Scripted, say},
    },
};

#[test]
fn places_are_read_as_they_are_shown() {
    for (text, shown) in [
        ("shop", "docker://shop"),
        ("localhost:5000/x", "docker://localhost:5000/x"),
        ("docker://localhost:5000/x:1", "docker://localhost:5000/x:1"),
        ("oci:layout", "oci:layout"),
        ("oci:/a/layout:shop:1", "oci:/a/layout:shop:1"),
        ("docker-archive:x.tar:shop:1", "docker-archive:x.tar:shop:1"),
        ("store:shop:1", "store:shop:1"),
    ] {
        let place: Place = text.parse().unwrap();
        assert_eq!(place.to_string(), shown, "for `{text}`");
    }
    for text in [
        "",
        "oci:",
        "oci::x",
        "oci:x:",
        "docker-archive:",
        "docker-archive:-",
        "oci:-:x",
        "store:",
        "dir:x",
        "oci-archive:x.tar",
        "docker-daemon:x",
        "docker://",
        "https://x/y",
        "containers-storage:x",
    ] {
        assert!(text.parse::<Place>().is_err(), "for `{text}`");
    }
}

/// An image of one layer.
fn image(store: &Store) -> Digest {
    let (digest, size) = (store.write_blob(b"a layer").unwrap().digest, 7);
    let layer = Layer { media_type: OCI_LAYER.into(), digest, size, diff_id: digest };
    let config = Config::scratch(&Platform::linux("x86_64"));
    let created = "2024-01-01T00:00:00Z";
    let image = Image::assemble(Format::Oci, &config, vec![layer], created, &[]).unwrap();
    catalog::add(store, &image, 1).unwrap().digest
}

#[tokio::test]
async fn what_is_written_is_told_of_wherever_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let from = Place::Store(image(&store).to_string());
    let client = Client::new(Options::default(), Arc::new(Anonymous));
    let layout = format!("oci:{}", path("layout"));
    for (to, written, there) in [
        (&layout, 2, 0),
        (&layout, 0, 2),
        (&format!("oci:{}", path("layout.tar")), 2, 0),
        (&format!("oci:{}", path("other.tar")), 2, 0),
        (&format!("docker-archive:{}:x:1", path("archive.tar")), 2, 0),
    ] {
        let told = std::sync::Mutex::new((0, 0));
        let emit = |event: Event<'_>| match event {
            Event::BlobDone { .. } => told.lock().unwrap().0 += 1,
            Event::BlobExists { .. } => told.lock().unwrap().1 += 1,
            _ => {}
        };
        let place = to.parse().unwrap();
        let choice = &Choice::All;
        let order =
            Order { client: &client, store: &store, from: &from, to: &place, choice, now: 0 };
        copy(&order, &emit).await.unwrap();
        assert_eq!(told.into_inner().unwrap(), (written, there), "to {to}");
    }
}

#[tokio::test]
async fn that_a_mirror_has_an_image_says_nothing_of_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let image = image(&store);

    let (origin, mirror) = (Scripted::start(), Scripted::start());
    let there = say(200, "").with("docker-content-digest", &image.to_string());
    mirror.on("HEAD /v2/x/manifests/1", [there]);
    let mut options = Options { first_pause: std::time::Duration::ZERO, ..Options::default() };
    options.mirrors.add(&origin.host(), &mirror.host()).unwrap();
    let client = Client::new(options, Arc::new(Anonymous));
    let from = Place::Store(image.to_string());
    let to = format!("docker://{}/x:1", origin.host()).parse().unwrap();
    let choice = &Choice::All;
    let order = Order { client: &client, store: &store, from: &from, to: &to, choice, now: 0 };
    assert!(copy(&order, &|_| ()).await.is_err(), "the origin takes nothing");
    assert_eq!(mirror.log(), "");
    assert!(origin.log().starts_with("HEAD /v2/x/manifests/1\n"), "{}", origin.log());
}
