//! Our own reader of images, which shares nothing with the program: it says what is wrong with an
//! image, and what is in it.
//!
//! Read in this order: here (descriptors, manifests, configs, compression), `schema` (OCI's JSON
//! schemas), `stream` (tar), [`Tree`] (what the layers come to), [`forge`] (makes images to try
//! it on, also broken ones).
//!
//! **Architecture invariant:** every rule has an example in the tests that breaks it.

use std::{fmt, fs, io::Read as _, path::Path};

use serde_json::Value;

use crate::{
    http,
    store::{self, hex},
};

pub mod forge;
mod schema;
mod stream;
#[cfg(test)]
mod tests;
mod tree;

pub use self::{
    stream::{Entry, Kind},
    tree::Tree,
};

/// What an image must be like. The first are the rules of the OCI image specification (and, for
/// tar, of POSIX); from [`Rule::Members`] on they are what we promise beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A blob is there.
    Missing,
    /// Its digest is what its descriptor says.
    Digest,
    /// So is its size.
    Size,
    /// Media types are known, go together, and are the same wherever they stand.
    MediaType,
    /// Manifests and configs are JSON.
    Json,
    /// They hold against OCI's schemas.
    Schema,
    /// A config names an operating system and a processor.
    Platform,
    /// There are as many `diff_ids` as layers.
    DiffIds,
    /// A `diff_id` is the digest of the unpacked layer.
    DiffId,
    /// There are as many lines of history with a layer as layers, if there are any.
    History,
    /// A layer can be unpacked.
    Compression,
    /// A tar stream does not end in the middle.
    Truncated,
    /// Its headers are whole.
    Checksum,
    /// It ends with two zero blocks.
    End,
    /// Paths are relative, without `.`, `..` and empty parts; those of folders end in a slash.
    Name,
    /// No path is there twice.
    Duplicate,
    /// A hard link leads to a file before it, by a relative path.
    Hardlink,
    /// A symbolic link leads somewhere.
    Symlink,
    /// Only files have bodies.
    Body,
    /// `.wh.` names are those of empty files.
    Whiteout,
    /// A gzip layer is one member, and nothing follows: some readers stop after the first.
    Members,
    /// Gzip's header has no name and no time.
    GzipHeader,
    /// Nothing follows the end of a tar stream.
    Trailing,
    /// What fills blocks is zero.
    Padding,
    /// Headers are ustar's, with PAX headers for single entries.
    Format,
    /// Entries are sorted by path.
    Order,
    /// The folder of an entry comes before it, in the same layer.
    Parent,
    /// Times are whole seconds; there are none of access or change.
    Times,
    /// Owners are numbers.
    Owners,
    /// PAX records are there where ustar does not do, and only there.
    Pax,
    /// PAX headers have no owner and no time of their own.
    PaxHeader,
}

/// A rule that an image breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub rule: Rule,
    /// What breaks it.
    pub what: String,
}

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: String,
    /// The manifest.
    pub manifest: Value,
    /// The config.
    pub config: Value,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What kind of blob it is.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: String,
    /// What is in it, in order.
    pub entries: Vec<Entry>,
}

/// What was read, and all that is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The images.
    pub images: Vec<Image>,
    /// The faults.
    pub faults: Vec<Fault>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// For each media type of a manifest, those of its config and of its layers.
const FAMILIES: [(&str, &str, [&str; 3]); 2] = [
    (
        MANIFEST,
        "application/vnd.oci.image.config.v1+json",
        [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ],
    ),
    (
        DOCKER_MANIFEST,
        "application/vnd.docker.container.image.v1+json",
        [
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            // Docker has no zstd layers.
            "",
        ],
    ),
];

impl Rule {
    /// Whether this is only a promise of ours: images that others made may break it.
    pub fn is_ours(self) -> bool {
        Self::Members <= self
    }
}

impl Report {
    /// The images, all of which must be as ours should be.
    #[track_caller]
    pub fn sound(self) -> Vec<Image> {
        assert!(self.faults.is_empty(), "{self}");
        self.images
    }

    /// The images, all of which must be as the specifications say.
    #[track_caller]
    pub fn valid(self) -> Vec<Image> {
        assert!(self.faults.iter().all(|it| it.rule.is_ours()), "{self}");
        self.images
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.iter().try_for_each(|it| writeln!(f, "{:?}: {}", it.rule, it.what))
    }
}

/// Reads all images of an OCI layout.
pub fn layout(folder: &Path) -> Report {
    let find = |descriptor: &Descriptor| {
        let (algorithm, hex) = descriptor.digest.split_once(':')?;
        fs::read(folder.join("blobs").join(algorithm).join(hex)).ok()
    };
    let mut reader = Reader { find: &find, is_read: &|_| true, report: Report::default() };
    for (name, schema) in [("oci-layout", "layout.json"), ("index.json", "index.json")] {
        let Ok(bytes) = fs::read(folder.join(name)) else {
            reader.fault(Rule::Missing, format!("`{name}`"));
            continue;
        };
        let Some(value) = reader.json(&bytes, schema, name) else { continue };
        if name == "index.json" {
            reader.index(&value);
        }
    }
    reader.report
}

/// Reads an image of a store, by its digest, if any of its layers was made there. Of the others just
/// the media type is looked at: somebody else made them, and they need not be there yet.
pub fn stored(folder: &Path, digest: &str) -> Report {
    let (blobs, made) = (store::contents(folder), store::made(folder));
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let find = |descriptor: &Descriptor| blobs.get(&hex(&descriptor.digest)).cloned();
    let is_read = |layer: &Descriptor| made.contains(&hex(&layer.digest));
    let mut reader = Reader { find: &find, is_read: &is_read, report: Report::default() };
    let bytes = blobs.get(&hex(digest)).cloned().unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !layers.iter().any(|it| is_read(&Descriptor::parse(it))) {
        return reader.report;
    }
    let size = bytes.len() as u64;
    let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
    reader.document(&Descriptor { media_type, digest: digest.to_owned(), size });
    reader.report
}

/// Reads an image, or all images of an index, of a registry on this machine, which lets everyone.
pub fn registry(port: u16, repository: &str, tag: &str) -> Report {
    let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];
    let get = |path: &str| {
        let path = format!("/v2/{repository}/{path}");
        let answer = http::fetch(port, &path, &[("Accept", &accept.join(", "))]).ok()?;
        Some(answer).filter(|it| it.status == 200)
    };
    let find = |descriptor: &Descriptor| {
        let is_manifest = accept.contains(&&*descriptor.media_type);
        let kind = if is_manifest { "manifests" } else { "blobs" };
        Some(get(&format!("{kind}/{}", descriptor.digest))?.body)
    };
    let mut reader = Reader { find: &find, is_read: &|_| true, report: Report::default() };
    let Some(answer) = get(&format!("manifests/{tag}")) else {
        reader.fault(Rule::Missing, format!("`{repository}:{tag}`"));
        return reader.report;
    };
    reader.document(&Descriptor {
        media_type: answer.header("content-type").unwrap_or_default().to_owned(),
        digest: answer.header("docker-content-digest").unwrap_or_default().to_owned(),
        size: answer.body.len() as u64,
    });
    reader.report
}

/// Where a blob is, and what.
#[derive(Clone, Debug)]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Descriptor {
    fn parse(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let size = value["size"].as_u64().unwrap_or_default();
        Self { media_type: text("mediaType"), digest: text("digest"), size }
    }
}

struct Reader<'a> {
    find: &'a dyn Fn(&Descriptor) -> Option<Vec<u8>>,
    /// Whether a layer is read, or just looked at from outside.
    is_read: &'a dyn Fn(&Descriptor) -> bool,
    report: Report,
}

impl Reader<'_> {
    fn fault(&mut self, rule: Rule, what: impl Into<String>) {
        self.report.faults.push(Fault { rule, what: what.into() });
    }

    /// The bytes of a blob, which must be what its descriptor says.
    fn blob(&mut self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        let Some(bytes) = (self.find)(descriptor) else {
            self.fault(Rule::Missing, format!("{descriptor:?}"));
            return None;
        };
        if format!("sha256:{}", hex(&bytes)) != descriptor.digest {
            self.fault(Rule::Digest, format!("{descriptor:?}"));
        }
        if bytes.len() as u64 != descriptor.size {
            self.fault(Rule::Size, format!("{descriptor:?}, and {} bytes", bytes.len()));
        }
        Some(bytes)
    }

    fn json(&mut self, bytes: &[u8], schema: &str, what: &str) -> Option<Value> {
        let value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(err) => {
                self.fault(Rule::Json, format!("{what}: {err}"));
                return None;
            }
        };
        for fault in schema::check(schema, &value) {
            self.fault(Rule::Schema, format!("{what}: {fault}"));
        }
        Some(value)
    }

    fn index(&mut self, index: &Value) {
        for manifest in index["manifests"].as_array().into_iter().flatten() {
            self.document(&Descriptor::parse(manifest));
        }
    }

    /// A manifest, or an index of more.
    fn document(&mut self, descriptor: &Descriptor) {
        let schema = match &*descriptor.media_type {
            INDEX | DOCKER_LIST => "index.json",
            MANIFEST | DOCKER_MANIFEST => "manifest.json",
            other => return self.fault(Rule::MediaType, format!("`{other}` is no image")),
        };
        let Some(bytes) = self.blob(descriptor) else { return };
        let Some(value) = self.json(&bytes, schema, &descriptor.digest) else { return };
        let own = value["mediaType"].as_str().unwrap_or(&descriptor.media_type);
        if own != descriptor.media_type {
            let said = &descriptor.media_type;
            self.fault(Rule::MediaType, format!("`{own}` is described as `{said}`"));
        }
        match schema {
            "index.json" => self.index(&value),
            _ => self.image(descriptor, value),
        }
    }

    fn image(&mut self, descriptor: &Descriptor, manifest: Value) {
        let family = FAMILIES.iter().find(|(it, ..)| *it == descriptor.media_type);
        let (_, config_type, layer_types) = family.expect("a manifest of a known type");
        let wanted = Descriptor::parse(&manifest["config"]);
        if wanted.media_type != *config_type {
            self.fault(Rule::MediaType, format!("the config is `{}`", wanted.media_type));
        }
        let Some(bytes) = self.blob(&wanted) else { return };
        let Some(config) = self.json(&bytes, "config.json", "config") else { return };
        let empty = Vec::new();
        let descriptors = manifest["layers"].as_array().unwrap_or(&empty);
        let ids = config["rootfs"]["diff_ids"].as_array().unwrap_or(&empty);
        self.check_config(&config, ids.len(), descriptors.len());
        let mut layers = Vec::new();
        for (position, layer) in descriptors.iter().map(Descriptor::parse).enumerate() {
            if layer.media_type.is_empty() || !layer_types.contains(&&*layer.media_type) {
                self.fault(Rule::MediaType, format!("a layer is `{}`", layer.media_type));
            }
            if !(self.is_read)(&layer) {
                continue;
            }
            let Some(bytes) = self.blob(&layer) else { continue };
            let Some(stream) = self.unpacked(&layer, bytes) else { continue };
            let diff_id = format!("sha256:{}", hex(&stream));
            if ids.get(position).is_some_and(|it| *it != diff_id.as_str()) {
                self.fault(Rule::DiffId, format!("layer {} is {diff_id}", layer.digest));
            }
            let entries = stream::read(&stream, &mut self.report.faults);
            layers.push(Layer { media_type: layer.media_type, digest: layer.digest, entries });
        }
        let digest = descriptor.digest.clone();
        self.report.images.push(Image { digest, manifest, config, layers });
    }

    fn check_config(&mut self, config: &Value, ids: usize, layers: usize) {
        for key in ["os", "architecture"] {
            if config[key] == "" {
                self.fault(Rule::Platform, format!("`{key}` is empty"));
            }
        }
        if ids != layers {
            self.fault(Rule::DiffIds, format!("{ids} for {layers} layers"));
        }
        if let Some(history) = config["history"].as_array().filter(|it| !it.is_empty()) {
            let lines = history.iter().filter(|it| it["empty_layer"] != true).count();
            if lines != layers {
                self.fault(Rule::History, format!("{lines} for {layers} layers"));
            }
        }
    }

    /// The tar stream of a layer.
    fn unpacked(&mut self, layer: &Descriptor, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let unpacked = match layer.media_type.rsplit(['.', '+']).next() {
            Some("gzip") => self.gunzipped(&bytes),
            Some("zstd") => zstd::decode_all(&bytes[..]).map_err(|err| err.to_string()),
            _ => Ok(bytes),
        };
        unpacked.map_err(|err| self.fault(Rule::Compression, format!("{layer:?}: {err}"))).ok()
    }

    /// What is in the first member of a gzip file, after which nothing may follow.
    fn gunzipped(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        let mut stream = Vec::new();
        decoder.read_to_end(&mut stream).map_err(|err| err.to_string())?;
        let header = decoder.header().ok_or("no header")?;
        if header.mtime() != 0 || header.filename().is_some() || header.comment().is_some() {
            self.fault(Rule::GzipHeader, format!("{header:?}"));
        }
        let rest = decoder.into_inner();
        if !rest.is_empty() {
            self.fault(Rule::Members, format!("{} bytes follow the first member", rest.len()));
        }
        Ok(stream)
    }
}
