//! Makes images by hand, in every way that tar and gzip allow: right ones that the program does not
//! make, and wrong ones.

use std::{fs, io::Write as _, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{MANIFEST, stream::Kind};
use crate::store::hex;

const BLOCK: usize = 512;

/// An image that is about to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// For each layer, its entries: headers and bodies, as they stand in a tar stream.
    pub layers: Vec<Vec<Vec<u8>>>,
    /// What stands at the end of each tar stream.
    pub end: Vec<u8>,
    /// How layers are compressed.
    pub compress: fn(&[u8]) -> Vec<u8>,
    /// Changes the config before it is written.
    pub config: fn(&mut Value),
    /// Changes the manifest before it is written.
    pub manifest: fn(&mut Value),
    /// Changes the index before it is written.
    pub index: fn(&mut Value),
}

impl Draft {
    /// An image of these layers, as it should be.
    pub fn new(layers: Vec<Vec<Vec<u8>>>) -> Self {
        Self {
            layers,
            end: vec![0; 2 * BLOCK],
            compress: gzip,
            config: |_| (),
            manifest: |_| (),
            index: |_| (),
        }
    }

    /// Writes it as an OCI layout with one image, `latest`.
    pub fn write(&self, layout: &Path) {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("folder of a layout");
        let add = |media_type: &str, bytes: &[u8]| {
            let hex = hex(bytes);
            fs::write(blobs.join(&hex), bytes).expect("blob");
            json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
        };
        let streams: Vec<_> =
            self.layers.iter().map(|it| [it.concat(), self.end.clone()].concat()).collect();
        let ids: Vec<_> = streams.iter().map(|it| format!("sha256:{}", hex(it))).collect();
        let history: Vec<_> = ids.iter().map(|_| json!({ "created_by": "forge" })).collect();
        let mut config = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": { "Cmd": ["/true"] },
            "rootfs": { "type": "layers", "diff_ids": ids }, "history": history,
        });
        (self.config)(&mut config);
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers = streams.iter().map(|it| add(layer_type, &(self.compress)(it)));
        let layers: Vec<_> = layers.collect();
        let config_type = "application/vnd.oci.image.config.v1+json";
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": add(config_type, config.to_string().as_bytes()), "layers": layers,
        });
        (self.manifest)(&mut manifest);
        let mut descriptor = add(MANIFEST, manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let mut index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        (self.index)(&mut index);
        fs::write(layout.join("index.json"), index.to_string()).expect("index");
        fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}")
            .expect("layout");
    }
}

/// The bytes in one gzip member, without a name or a time.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A file.
pub fn file(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path.as_bytes(), &Kind::File(0, String::new()), content)
}

/// A folder.
pub fn folder(path: &str) -> Vec<u8> {
    entry(format!("{path}/").as_bytes(), &Kind::Folder, b"")
}

/// A symbolic link.
pub fn symlink(path: &str, target: &str) -> Vec<u8> {
    entry(path.as_bytes(), &Kind::Symlink(target.into()), b"")
}

/// A hard link.
pub fn hardlink(path: &str, target: &str) -> Vec<u8> {
    entry(path.as_bytes(), &Kind::Hardlink(target.into()), b"")
}

/// Any entry whose path fits: header and body. It belongs to root, and is from second 1.
pub fn entry(path: &[u8], kind: &Kind, content: &[u8]) -> Vec<u8> {
    let (letter, link, device) = match kind {
        Kind::File(..) => (b'0', &b""[..], None),
        Kind::Hardlink(target) => (b'1', &target[..], None),
        Kind::Symlink(target) => (b'2', &target[..], None),
        Kind::CharDevice(major, minor) => (b'3', &b""[..], Some((major, minor))),
        Kind::BlockDevice(major, minor) => (b'4', &b""[..], Some((major, minor))),
        Kind::Folder => (b'5', &b""[..], None),
        Kind::Fifo => (b'6', &b""[..], None),
    };
    let mode = if *kind == Kind::Folder { "0000755" } else { "0000644" };
    let mut header = vec![0; BLOCK];
    put(&mut header, 0, path);
    put(&mut header, 100, mode.as_bytes());
    put(&mut header, 108, b"0000000");
    put(&mut header, 116, b"0000000");
    put(&mut header, 124, format!("{:011o}", content.len()).as_bytes());
    put(&mut header, 136, b"00000000001");
    header[156] = letter;
    put(&mut header, 157, link);
    put(&mut header, 257, b"ustar\x0000");
    if let Some((major, minor)) = device {
        put(&mut header, 329, format!("{major:07o}").as_bytes());
        put(&mut header, 337, format!("{minor:07o}").as_bytes());
    }
    let mut bytes = summed(header);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// An entry, before it a PAX header with these records.
pub fn with_records(records: &[(&str, &str)], entry: Vec<u8>) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        format!("{length}{rest}")
    };
    let body: String = records.iter().map(record).collect();
    let mut header = file("PaxHeaders.0/x", body.as_bytes());
    header[156] = b'x';
    put(&mut header, 136, b"00000000000");
    [summed(header), entry].concat()
}

/// An entry with these bytes at a place in its header.
pub fn patched(mut entry: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    put(&mut entry, at, bytes);
    summed(entry)
}

fn put(header: &mut [u8], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

/// With the right sum in the first header.
fn summed(mut entry: Vec<u8>) -> Vec<u8> {
    put(&mut entry, 148, b"        ");
    let sum: u64 = entry[..BLOCK].iter().map(|it| u64::from(*it)).sum();
    put(&mut entry, 148, format!("{sum:06o}\0 ").as_bytes());
    entry
}
