//! Blobs as others write them: what is read, and what is refused.

use std::{collections::BTreeMap, io::Write as _};

use super::*;
use crate::{
    digest::Digest,
    image::{OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD},
    rootfs::Rootfs,
    store::Part,
    tree,
};

fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, data).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Reads a layer of these bytes, which unpack to `tar`, from a new store, and says what came.
fn read(media_type: &str, blob: &[u8], tar: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let crate::digest::Blob { digest, size } = store.write_blob(blob).unwrap();
    let media_type = media_type.to_owned();
    let layer = Layer { media_type, digest, size, diff_id: Digest::of(tar) };
    let result = Rootfs::read(&store, std::slice::from_ref(&layer));
    assert!(store.has(digest, size).unwrap(), "what others made so is no damage of the store");
    match result {
        Ok(rootfs) => {
            assert!(store.has_object(ObjectKind::Contents, layer.diff_id));
            rootfs.tree().entries().map(|(path, _)| path.to_string()).collect()
        }
        Err(err) => {
            assert!(!store.has_object(ObjectKind::Contents, layer.diff_id));
            let cause = err.source().map(|it| format!(": {it}")).unwrap_or_default();
            format!("{err}{cause}")
        }
    }
}

#[test]
fn layers_are_read_however_they_are_compressed() {
    let one = tar("x", b"1");
    let (first, rest) = one.split_at(700);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd(&one)].concat();
    let garbage = [&one[..], b"garbage"].concat();
    for (media_type, blob, tar) in [
        (OCI_LAYER, one.clone(), &one),
        (OCI_LAYER, garbage.clone(), &garbage),
        (OCI_LAYER_GZIP, gzip(&one), &one),
        (OCI_LAYER_GZIP, gzip(&garbage), &garbage),
        (OCI_LAYER_GZIP, [gzip(first), gzip(rest)].concat(), &one),
        (OCI_LAYER_ZSTD, zstd(&one), &one),
        (OCI_LAYER_ZSTD, [zstd(first), zstd(rest)].concat(), &one),
        (OCI_LAYER_ZSTD, skipped, &one),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip(&one), &one),
        ("application/vnd.docker.image.rootfs.diff.tar", one.clone(), &one),
    ] {
        assert_eq!(read(media_type, &blob, tar), "x", "{media_type} {}", blob.len());
    }
}

#[test]
fn what_is_no_layer_is_refused() {
    let one = tar("x", &vec![7; 5000]);
    let packed = gzip(&one);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let secret = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    for (name, media_type, blob, want) in [
        ("gzip cut", OCI_LAYER_GZIP, packed[..packed.len() / 2].to_vec(), "as a tar archive"),
        (
            "gzip without its sum",
            OCI_LAYER_GZIP,
            packed[..packed.len() - 3].to_vec(),
            "tar archive",
        ),
        ("gzip and more", OCI_LAYER_GZIP, [&packed[..], b"more"].concat(), "as a tar archive"),
        ("zstd cut", OCI_LAYER_ZSTD, zstd(&one)[..20].to_vec(), "as a tar archive"),
        ("zstd and more", OCI_LAYER_ZSTD, [&zstd(&one)[..], b"more"].concat(), "tar archive"),
        ("tar for gzip", OCI_LAYER_GZIP, one.clone(), "is not compressed, and its media type"),
        ("gzip for tar", OCI_LAYER, packed.clone(), "is compressed with gzip, and its media type"),
        ("zstd for gzip", OCI_LAYER_GZIP, zstd(&one), "is compressed with zstd"),
        ("foreign", foreign, packed.clone(), "must not be distributed"),
        ("nondistributable", secret, packed.clone(), "must not be distributed"),
        ("no layer", "text/plain", packed.clone(), "the media type `text/plain`"),
        ("empty", OCI_LAYER_GZIP, Vec::new(), "is not compressed"),
        ("other content", OCI_LAYER, tar("y", b""), "unpacks to"),
    ] {
        let got = read(media_type, &blob, &one);
        assert!(got.contains(want), "{name}: {got}");
    }
}

#[test]
fn windows_of_zstd_are_bounded() {
    let one = tar("x", &vec![7; 5000]);
    for (log, want) in [(25, "x"), (27, "Frame requires too much memory")] {
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        out.window_log(log).unwrap();
        out.write_all(&one).unwrap();
        let got = read(OCI_LAYER_ZSTD, &out.finish().unwrap(), &one);
        assert!(got.contains(want), "{log}: {got}");
    }
}

/// What is said of its size does not matter: it is what came that bounds what is unpacked.
#[test]
fn what_unpacks_to_too_much_is_refused() {
    let most = |packed: u64| SMALLEST_LIMIT + 100 * packed;
    assert_eq!(super::most(10), most(10));
    assert_eq!(super::most(u64::MAX), u64::MAX);
    let packed = Rc::new(Cell::new(10));
    for (known, more) in [(0, 5), (most(10) + 2, 7)] {
        let mut bounded = bounded(io::repeat(0), packed.clone(), known);
        io::copy(&mut bounded.by_ref().take(most(10) - 5), &mut io::sink()).unwrap();
        assert!(bounded.read_exact(&mut vec![0; more]).is_ok());
        assert_eq!(bounded.read_exact(&mut [0; 1]).unwrap_err().to_string(), members::TOO_LARGE);
    }
}

/// A layer that was made here has a table before it is read, and may be full of zeros.
#[test]
fn what_the_table_of_a_layer_says_is_not_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (digest, size) = (Digest::of(b""), 5 << 30);
    let content = tree::Content {
        digest,
        size,
        origin: tree::ContentOrigin::Layer(tree::InLayer::default()),
    };
    let entry = tree::Entry { kind: tree::Kind::File(content), meta: tree::Meta::default() };
    let path = tree::TreePath::parse(b"zeros").unwrap();
    let table = Contents::of_tree(&[(path, entry.into())].into_iter().collect()).unwrap();
    let layer = Layer { media_type: OCI_LAYER.into(), digest, size: 0, diff_id: digest };
    let layers = Layers { store: &store, remote: None };
    assert_eq!(layers.known_size(&layer).unwrap(), 0);
    store.add_object(ObjectKind::Contents, digest, table.as_bytes()).unwrap();
    assert!(size < layers.known_size(&layer).unwrap());
}

/// One that was made here knows what it is made of, if its table was lost.
#[test]
fn what_the_segments_of_a_layer_say_is_not_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (digest, lost) = (Digest::of(b"layer"), Digest::of(b"lost"));
    let segment = |name: &str, length: u32| {
        let key = Digest::of(name.as_bytes());
        let object = [&length.to_le_bytes()[..], b"crc.", b"deflated"].concat();
        store.add_object(ObjectKind::Segment, key, &object).unwrap();
        Part::Segment { key, skip: 8, size: 8 }
    };
    let zeros = segment("zeros", 3 << 30);
    let parts = vec![Part::Bytes(vec![0; 10]), zeros.clone(), zeros, segment("end", 1024)];
    let layer = Layer { media_type: OCI_LAYER.into(), digest, size: 34, diff_id: digest };
    let layers = Layers { store: &store, remote: None };
    assert_eq!(layers.known_size(&layer).unwrap(), 0);
    store.add_composed(digest, &Composed { parts: parts.clone() }).unwrap();
    assert_eq!(layers.known_size(&layer).unwrap(), (6 << 30) + 1024);
    let parts = [parts, vec![Part::Segment { key: lost, skip: 8, size: 8 }]].concat();
    store.add_composed(lost, &Composed { parts }).unwrap();
    assert_eq!(layers.known_size(&Layer { digest: lost, ..layer }).unwrap(), 0);
}

/// Layers that lie elsewhere.
struct Elsewhere(BTreeMap<Digest, Vec<u8>>);

impl RemoteLayers for Elsewhere {
    fn has(&self, layer: &Layer) -> bool {
        self.0.contains_key(&layer.digest)
    }

    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>, RemoteError> {
        match self.0[&layer.digest].as_slice() {
            b"" => Err("nobody is there".into()),
            bytes => Ok(Box::new(bytes)),
        }
    }
}

#[test]
fn what_comes_from_elsewhere_is_verified() {
    let one = gzip(&tar("x", b"1"));
    let (diff_id, digest) = (Digest::of(&tar("x", b"1")), Digest::of(&one));
    let mut changed = one.clone();
    // In gzip's header: the operating system, which nobody looks at.
    changed[9] ^= 1;
    for (sent, size, want) in [
        (one.clone(), one.len(), "x"),
        (changed, one.len(), "in place of"),
        ([&one[..], b"more"].concat(), one.len(), "longer than it should be"),
        (one[..one.len() - 1].to_vec(), one.len(), "ends 1 bytes early"),
        (one.clone(), one.len() + 1, "ends 1 bytes early"),
        (Vec::new(), one.len(), "nobody is there"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let elsewhere = Elsewhere([(digest, sent)].into());
        let from = Layers { store: &store, remote: Some(&elsewhere) };
        let media_type = OCI_LAYER_GZIP.to_owned();
        let layer = Layer { media_type, digest, size: size as u64, diff_id };
        let got = match Rootfs::read_from(from, std::slice::from_ref(&layer)) {
            Ok(rootfs) => rootfs.tree().entries().map(|(path, _)| path.to_string()).collect(),
            Err(err) => format!("{err}: {}", err.source().unwrap()),
        };
        assert!(got.contains(want), "{got} in place of {want}");
        assert!(!store.has(digest, one.len() as u64).unwrap(), "it is not kept");
        assert_eq!(store.has_object(ObjectKind::Contents, diff_id), want == "x");
    }
}

#[test]
fn a_layer_of_another_size_than_its_image_says_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let one = tar("x", b"1");
    let blob = store.write_blob(&one).unwrap();
    let media_type = OCI_LAYER.to_owned();
    let layer = Layer { media_type, digest: blob.digest, size: u64::MAX, diff_id: blob.digest };
    let err = Rootfs::read(&store, &[layer]).unwrap_err();
    assert!(err.to_string().contains("its image says"), "{err}");
}
