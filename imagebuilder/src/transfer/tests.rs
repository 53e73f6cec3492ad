//! Whole images, against a registry that says what it is told.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    catalog,
    config::Config,
    digest::{Blob, Digest},
    image::{Format, Image, Layer, OCI_LAYER},
    layer::Uploads as _,
    layer_sources,
    registry::{
        Anonymous, Client, Options,
        scripted::{Said, Scripted, say},
    },
    store::{Origin, Store},
};

const LAYER: &[u8] = b"a layer";

fn client() -> Client {
    let first_pause = std::time::Duration::ZERO;
    Client::new(Options { tries: 3, first_pause, ..Options::default() }, Arc::new(Anonymous))
}

/// An image with one layer, which is in the store or not.
fn image(store: &Store, is_there: bool) -> Digest {
    let blob = Blob { digest: Digest::of(LAYER), size: LAYER.len() as u64 };
    if is_there {
        assert_eq!(store.write_blob(LAYER).unwrap(), blob);
    }
    let Blob { digest, size } = blob;
    let layer = Layer { media_type: OCI_LAYER.into(), digest, size, diff_id: digest };
    let config = Config::scratch(&Platform::linux("x86_64"));
    let image =
        Image::assemble(Format::Oci, &config, vec![layer], "2024-01-01T00:00:00Z", &[]).unwrap();
    catalog::add(store, &image, 1).unwrap().digest
}

struct Sandbox {
    _folder: tempfile::TempDir,
    store: Store,
    server: Scripted,
    image: Digest,
    config: Digest,
}

fn sandbox(is_there: bool) -> Sandbox {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let image = image(&store, is_there);
    let config = catalog::load(&store, image).unwrap().config_digest();
    Sandbox { _folder: folder, store, server: Scripted::start(), image, config }
}

fn begun(location: &str) -> Said {
    say(202, "").with("location", location)
}

fn escaped(digest: Digest) -> String {
    digest.to_string().replace(':', "%3A")
}

impl Sandbox {
    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.server.host()).parse().unwrap()
    }

    /// Pushes as `x:1`; what happened, and what was asked, sorted, with names for digests.
    fn push(&self, immutable: ImmutableTag) -> (Result<(), TransferError>, String) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let name = self.name("x:1");
        let pushed = runtime.block_on(push_with(
            &client(),
            &self.store,
            self.image,
            &name,
            immutable,
            &|_| (),
        ));
        (pushed, self.log())
    }

    fn log(&self) -> String {
        let mut lines: Vec<String> = self.server.log().lines().map(ToOwned::to_owned).collect();
        lines.sort();
        let mut log = lines.join("\n");
        for (digest, name) in
            [(self.image, "IMAGE"), (self.config, "CONFIG"), (Digest::of(LAYER), "LAYER")]
        {
            log = log.replace(&digest.to_string(), name).replace(&escaped(digest), name);
        }
        log
    }

    /// Says that nothing is there yet, and takes the config.
    fn takes_the_config(&self) {
        let server = &self.server;
        for blob in [self.config, Digest::of(LAYER)] {
            server.on(&format!("HEAD /v2/x/blobs/{blob}"), [say(404, "")]);
        }
        server.on("HEAD /v2/x/manifests/1", [say(404, "")]);
        server.on(&format!("HEAD /v2/x/manifests/{}", self.image), [say(404, "")]);
        server.on("POST /v2/x/blobs/uploads/", [begun("/u"), begun("/u")]);
        server.on(&format!("PUT /u?digest={}", escaped(self.config)), [say(201, "")]);
    }

    fn remembers(&self, repository: &Reference) {
        let repository = repository.repository();
        layer_sources::remember(&self.store, Digest::of(LAYER), repository).unwrap();
    }
}

#[test]
fn a_push_with_nothing_new_is_one_request_and_another_tag_of_it_three() {
    let sandbox = sandbox(true);
    let there = say(200, "").with("docker-content-digest", &sandbox.image.to_string());
    sandbox.server.on("HEAD /v2/x/manifests/1", [there.clone()]);
    let (pushed, log) = sandbox.push(ImmutableTag::Refuse);
    pushed.unwrap();
    assert_eq!(log, "HEAD /v2/x/manifests/1");

    let sandbox = self::sandbox(true);
    sandbox.server.on("HEAD /v2/x/manifests/1", [say(404, "")]);
    sandbox.server.on(&format!("HEAD /v2/x/manifests/{}", sandbox.image), [there]);
    sandbox.server.on("PUT /v2/x/manifests/1", [say(201, "")]);
    let (pushed, log) = sandbox.push(ImmutableTag::Refuse);
    pushed.unwrap();
    let want = "HEAD /v2/x/manifests/1\nHEAD /v2/x/manifests/IMAGE\nPUT /v2/x/manifests/1";
    assert_eq!(log, want);
}

#[test]
fn a_layer_that_is_not_in_the_store_is_mounted_or_carried_from_its_source() {
    let layer = Digest::of(LAYER);
    let mount = format!("POST /v2/x/blobs/uploads/?mount={}&from=base", escaped(layer));
    let put = format!("PUT /u?digest={}", escaped(layer));
    let get = format!("GET /v2/base/blobs/{layer}");
    let cut = say(200, &LAYER[..3]).announced(LAYER.len());
    for (mounted, got, want) in [
        (say(201, ""), vec![], true),
        (begun("/u"), vec![say(200, LAYER)], true),
        (say(405, ""), vec![cut.clone(), say(206, &LAYER[3..])], true),
        // One that has to begin anew is another reading.
        (say(405, ""), vec![cut, say(200, LAYER), say(200, LAYER)], true),
        (say(405, ""), vec![say(200, "a lAyer"); 3], false),
        (say(405, ""), vec![say(404, ""); 3], false),
    ] {
        let sandbox = sandbox(false);
        sandbox.takes_the_config();
        sandbox.remembers(&sandbox.name("base"));
        let server = &sandbox.server;
        server.on(&mount, vec![mounted.clone(); 3]);
        server.on("POST /v2/x/blobs/uploads/", vec![begun("/u"); 3]);
        server.on(&get, got.clone()).on(&put, vec![say(201, ""); 3]);
        server.on("PUT /v2/x/manifests/1", [say(201, "")]);
        let (pushed, log) = sandbox.push(ImmutableTag::Refuse);
        assert_eq!(pushed.is_ok(), want, "{pushed:?} {got:?}\n{log}");
        assert_eq!(log.contains("PUT /v2/x/manifests/1"), want, "{got:?}\n{log}");
        if want && !got.is_empty() {
            let asked = server.asked();
            let put = asked.iter().rfind(|it| it.line == put).unwrap();
            assert_eq!(put.body, LAYER);
        }
    }
}

#[test]
fn a_layer_without_a_source_is_missing() {
    let sandbox = sandbox(false);
    sandbox.takes_the_config();
    let (pushed, _) = sandbox.push(ImmutableTag::Refuse);
    let missing = Digest::of(LAYER);
    assert!(
        matches!(pushed, Err(TransferError::Fetch(FetchError::Unknown(it))) if it == missing),
        "{pushed:?}"
    );
}

#[test]
fn what_was_pushed_can_be_mounted_in_the_next_repository() {
    let sandbox = sandbox(true);
    let there = say(200, "").with("docker-content-digest", &sandbox.image.to_string());
    sandbox.server.on("HEAD /v2/x/manifests/1", [there]);
    sandbox.push(ImmutableTag::Refuse).0.unwrap();
    let found = layer_sources::recall(&sandbox.store, Digest::of(LAYER)).unwrap();
    assert_eq!(found, [sandbox.name("x").repository().clone()]);
}

#[test]
fn a_tag_that_cannot_be_changed_is_an_error_unless_it_is_the_same_and_that_is_wanted() {
    let immutable = "The image tag '1' already exists in the 'x' repository and cannot be \
                     overwritten because the tag is immutable.";
    let body = format!(r#"{{"errors":[{{"code":"TAG_INVALID","message":"{immutable}"}}]}}"#);
    for (wish, is_same, want) in [
        (ImmutableTag::Refuse, true, false),
        (ImmutableTag::AcceptSame, true, true),
        (ImmutableTag::AcceptSame, false, false),
    ] {
        let sandbox = sandbox(true);
        sandbox.takes_the_config();
        let put = format!("PUT /u?digest={}", escaped(Digest::of(LAYER)));
        sandbox.server.on(&put, [say(201, "")]);
        sandbox.server.on("PUT /v2/x/manifests/1", [say(400, &body)]);
        let other = if is_same { sandbox.image } else { Digest::of(b"other") };
        let found = say(200, "").with("docker-content-digest", &other.to_string());
        sandbox.server.on("HEAD /v2/x/manifests/1", [found]);
        let (pushed, log) = sandbox.push(wish);
        assert_eq!(pushed.is_ok(), want, "{pushed:?}\n{log}");
        if let Err(error) = pushed {
            assert!(matches!(error, TransferError::Immutable { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_layer_is_uploaded_while_it_is_made_or_given_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let content = vec![7; 1 << 20];
    let blob = Blob { digest: Digest::of(&content), size: content.len() as u64 };
    for (patched, uploaded) in [(say(202, ""), 1), (say(500, ""), 0)] {
        let sandbox = sandbox(true);
        sandbox.server.on("POST /v2/x/blobs/uploads/", [begun("/u")]);
        sandbox.server.on("PATCH /u", [patched]).on("DELETE /u", [say(204, "")]);
        sandbox.server.on(&format!("PUT /u?digest={}", escaped(blob.digest)), [say(201, "")]);
        let name = sandbox.name("x");
        let uploads = LayerUploads::new(&client(), name.repository(), runtime.handle());
        let mut upload = uploads.begin().unwrap();
        content.chunks(1000).for_each(|it| upload.write(it));
        upload.finish(blob);
        let settled = uploads.settle();
        assert_eq!((settled.uploaded.len(), settled.failures.len()), (uploaded, 1 - uploaded));
        let asked = sandbox.server.asked();
        let patch = asked.iter().find(|it| it.line == "PATCH /u").unwrap();
        assert_eq!(patch.body, content);
    }
}

#[test]
fn a_layer_that_is_given_up_by_the_build_is_no_failure() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let sandbox = sandbox(true);
    sandbox.server.on("POST /v2/x/blobs/uploads/", [begun("/u")]);
    sandbox.server.on("PATCH /u", [say(202, "")]).on("DELETE /u", [say(204, "")]);
    let name = sandbox.name("x");
    let uploads = LayerUploads::new(&client(), name.repository(), runtime.handle());
    let mut upload = uploads.begin().unwrap();
    upload.write(b"half of it");
    drop(upload);
    let settled = uploads.settle();
    assert_eq!((settled.uploaded.len(), settled.failures.len()), (0, 0));
    assert!(!sandbox.server.log().contains("PUT"), "{}", sandbox.server.log());
}

#[test]
fn where_an_image_was_pulled_from_is_remembered_for_its_layers() {
    let (from, to) = (sandbox(true), sandbox(false));
    let image = catalog::load(&from.store, from.image).unwrap();
    let server = &to.server;
    let digest = from.image.to_string();
    server.on("HEAD /v2/base/manifests/1", [say(200, "").with("docker-content-digest", &digest)]);
    let manifest = say(200, &image.manifest).with("content-type", &image.media_type);
    server.on(&format!("GET /v2/base/manifests/{digest}"), [manifest]);
    let config = say(200, &image.config_bytes);
    server.on(&format!("GET /v2/base/blobs/{}", image.config_digest()), [config]);
    server.on(&format!("GET /v2/base/blobs/{}", Digest::of(LAYER)), [say(200, LAYER)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, name, platform) = (client(), to.name("base:1"), Platform::linux("x86_64"));
    let told = Mutex::new(0);
    let emit = |_: Event<'_>| *told.lock().unwrap() += 1;
    let pulled = runtime.block_on(pull(&client, &to.store, &name, &platform, 1, &emit)).unwrap();
    assert_eq!(pulled.digest, from.image);
    let found = layer_sources::recall(&to.store, Digest::of(LAYER)).unwrap();
    assert_eq!(found, [name.repository().clone()]);
    let known = to.store.name(&name.canonical()).unwrap().unwrap();
    assert_eq!((known.digest, known.origin), (from.image, Origin::Registry));
}
