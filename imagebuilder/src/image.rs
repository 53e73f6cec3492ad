//! An image as a value: a config, layers, and the manifest that names them.
//!
//! **Architecture invariant:** no I/O. The bytes of a manifest or config that others made are
//! kept as they came, since their digest is their name.

use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use crate::{
    config::{Config, ConfigError, History},
    digest::Digest,
};

/// The media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a gzipped OCI layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of an uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of an OCI layer in zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The media type of docker's image manifest (version 2, schema 2).
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of a layer in docker's manifest.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// The media type of the config in docker's manifest.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The most layers that an image may have here; container runtimes stop at 127.
pub(crate) const MOST_LAYERS: usize = 1000;
/// The most images that an index may name: those of a layout are in one.
const MOST_ENTRIES: usize = 10_000;
/// The most values that the JSON of a manifest or config may have: as values they take many times
/// the bytes that they have as text.
const MOST_VALUES: usize = 200_000;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The digest of the unpacked tar stream.
    pub diff_id: Digest,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
    /// Not at all.
    None,
}

/// Whose media types an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Those of the OCI image spec.
    #[default]
    Oci,
    /// Those of docker's manifests (version 2, schema 2).
    Docker,
}

/// A complete image: what its blobs are called, and the two that are JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The media type of the manifest.
    pub media_type: String,
    /// The bytes of the manifest.
    pub manifest: Vec<u8>,
    /// The bytes of the config.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: Config,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// What a manifest says, before its config is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The config's blob.
    pub config: Descriptor,
    /// The layers' blobs, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// A blob, and what it is (OCI image spec, `descriptor.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// One image of an index, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it is for: operating system, processor, and its variant.
    pub platform: Option<(String, String, Option<String>)>,
    /// The name that it has in an OCI layout (`org.opencontainers.image.ref.name`).
    pub name: Option<String>,
    /// The full name that it has there (`io.containerd.image.name`).
    pub image_name: Option<String>,
}

/// Why some bytes are no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The manifest or index is no JSON, or lacks a field.
    #[error("the manifest is not one of an image")]
    Json(#[source] serde_json::Error),
    /// It is of a kind that is not an image.
    #[error("`{0}` is not the media type of an image")]
    MediaType(String),
    /// A digest in it is none.
    #[error("the manifest has an invalid digest")]
    Digest(#[source] crate::digest::DigestError),
    /// The config is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Manifest and config disagree.
    #[error("the manifest has {layers} layers and its config {diff_ids}")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the config.
        diff_ids: usize,
    },
    /// A layer is compressed in a way for which the format has no media type.
    #[error(
        "layer {0} is compressed with zstd, for which docker's manifests have no media type that \
         docker reads"
    )]
    NoMediaType(Digest),
    /// An index leads to more than is read.
    #[error("the index names too many images, or indexes within indexes")]
    LargeIndex,
    /// The JSON has more values than any manifest or config should have.
    #[error("the JSON has more than {MOST_VALUES} values")]
    Bomb,
    /// There are too many layers.
    #[error("the manifest has {0} layers, which is more than rbuild reads")]
    TooMany(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<WirePlatform>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
struct WireManifest {
    config: WireDescriptor,
    layers: Vec<WireDescriptor>,
}

#[derive(Deserialize)]
struct WireIndex {
    manifests: Vec<WireDescriptor>,
}

impl Compression {
    /// How a layer of that media type is compressed; none if it is no layer.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => Some(Self::Gzip),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            OCI_LAYER | DOCKER_LAYER => Some(Self::None),
            _ => None,
        }
    }

    /// The media type of an OCI layer that is compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
            Self::None => OCI_LAYER,
        }
    }
}

impl Format {
    /// The media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// Whether it has media types for these layers.
    pub(crate) fn check(self, layers: &[Layer]) -> Result<(), ImageError> {
        layers.iter().try_for_each(|it| in_format(self, it.clone()).map(drop))
    }

    /// The media type of a layer that is compressed so, if there is one that all read.
    fn layer(self, compression: Compression) -> Option<&'static str> {
        match (self, compression) {
            (Self::Oci, compression) => Some(compression.media_type()),
            (Self::Docker, Compression::Gzip) => Some(DOCKER_LAYER_GZIP),
            (Self::Docker, Compression::None) => Some(DOCKER_LAYER),
            (Self::Docker, Compression::Zstd) => None,
        }
    }
}

/// Refuses JSON that would take far more memory than its text: the values are counted before it
/// is read.
pub(crate) fn check_json(bytes: &[u8]) -> Result<(), ImageError> {
    let (mut values, mut in_text, mut is_escaped) = (0_usize, false, false);
    for byte in bytes {
        match (byte, in_text) {
            (_, true) if is_escaped => is_escaped = false,
            (b'\\', true) => is_escaped = true,
            (b'"', _) => in_text = !in_text,
            (b',' | b'[' | b'{', false) => values += 1,
            _ => {}
        }
    }
    if MOST_VALUES < values { Err(ImageError::Bomb) } else { Ok(()) }
}

impl Manifest {
    /// Reads a manifest of an image, OCI's or docker's.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        check_json(bytes)?;
        let wire: WireManifest = serde_json::from_slice(bytes).map_err(ImageError::Json)?;
        if MOST_LAYERS < wire.layers.len() {
            return Err(ImageError::TooMany(wire.layers.len()));
        }
        let layers = wire.layers.iter().map(descriptor).collect::<Result<_, _>>()?;
        Ok(Self { config: descriptor(&wire.config)?, layers })
    }

    /// All blobs that it names: the layers, then the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().chain([&self.config])
    }
}

/// Whether `media_type` is that of an index of several images.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether `media_type` is that of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Reads an index (OCI image spec, `image-index.md`) or docker's list.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, ImageError> {
    check_json(bytes)?;
    let wire: WireIndex = serde_json::from_slice(bytes).map_err(ImageError::Json)?;
    if MOST_ENTRIES < wire.manifests.len() {
        return Err(ImageError::LargeIndex);
    }
    wire.manifests
        .into_iter()
        .map(|it| {
            let manifest = descriptor(&it)?;
            let annotation = |key| it.annotations.as_ref()?.get(key)?.as_str().map(str::to_owned);
            let name = annotation("org.opencontainers.image.ref.name");
            let image_name = annotation("io.containerd.image.name");
            let platform = it.platform.map(|it| (it.os, it.architecture, it.variant));
            Ok(IndexEntry { manifest, platform, name, image_name })
        })
        .collect()
}

fn descriptor(wire: &WireDescriptor) -> Result<Descriptor, ImageError> {
    let digest = wire.digest.parse().map_err(ImageError::Digest)?;
    Ok(Descriptor { media_type: wire.media_type.clone(), digest, size: wire.size })
}

impl Image {
    /// Puts an image together from a config, layers, and what was added to the base's history.
    pub fn assemble(
        format: Format,
        config: &Config,
        layers: Vec<Layer>,
        created: &str,
        added: &[History],
    ) -> Result<Self, ImageError> {
        let diff_ids: Vec<Digest> = layers.iter().map(|it| it.diff_id).collect();
        let config_bytes = config.finish(created, &diff_ids, added);
        Self::with_manifest(format, config.clone(), config_bytes, layers)
    }

    /// Makes the manifest of an image whose config is there already; its bytes stay as they are.
    pub fn of_config(
        format: Format,
        config_bytes: Vec<u8>,
        layers: Vec<Layer>,
    ) -> Result<Self, ImageError> {
        check_json(&config_bytes)?;
        let config = Config::parse(&config_bytes)?;
        Self::with_manifest(format, config, config_bytes, layers)
    }

    fn with_manifest(
        format: Format,
        config: Config,
        config_bytes: Vec<u8>,
        layers: Vec<Layer>,
    ) -> Result<Self, ImageError> {
        let in_format = |it| in_format(format, it);
        let layers: Vec<Layer> = layers.into_iter().map(in_format).collect::<Result<_, _>>()?;
        let describe = |it: &Layer| {
            let digest = it.digest.to_string();
            json!({ "mediaType": it.media_type, "digest": digest, "size": it.size })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format.manifest(),
            "config": {
                "mediaType": format.config(),
                "digest": Digest::of(&config_bytes).to_string(),
                "size": config_bytes.len(),
            },
            "layers": layers.iter().map(describe).collect::<Vec<_>>(),
        });
        Ok(Self {
            media_type: format.manifest().to_owned(),
            manifest: manifest.to_string().into_bytes(),
            config_bytes,
            config,
            layers,
        })
    }

    /// Reads an image from its manifest and config.
    pub fn parse(
        media_type: &str,
        manifest: Vec<u8>,
        config_bytes: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let parsed = Manifest::parse(&manifest)?;
        check_json(&config_bytes)?;
        let config = Config::parse(&config_bytes)?;
        let diff_ids = config.diff_ids();
        if diff_ids.len() != parsed.layers.len() {
            let layers = parsed.layers.len();
            return Err(ImageError::Layers { layers, diff_ids: diff_ids.len() });
        }
        let layers = parsed.layers.into_iter().zip(diff_ids).map(|(it, diff_id)| Layer {
            media_type: it.media_type,
            digest: it.digest,
            size: it.size,
            diff_id,
        });
        let layers = layers.collect();
        Ok(Self { media_type: media_type.to_owned(), manifest, config_bytes, config, layers })
    }

    /// The digest by which a registry knows the image.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The manifest, as others name it.
    pub fn descriptor(&self) -> Descriptor {
        let (digest, size) = (self.digest(), self.manifest.len() as u64);
        Descriptor { media_type: self.media_type.clone(), digest, size }
    }

    /// The digest of the config: what docker calls the image's id.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config_bytes)
    }
}

/// The same blob by the name that a format has for its kind: the bytes are alike in both.
fn in_format(format: Format, layer: Layer) -> Result<Layer, ImageError> {
    let Some(compression) = Compression::of(&layer.media_type) else { return Ok(layer) };
    let media_type = format.layer(compression).ok_or(ImageError::NoMediaType(layer.digest))?;
    Ok(Layer { media_type: media_type.to_owned(), ..layer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Platform;

    fn assembled(format: Format, layer: Layer) -> Result<Image, ImageError> {
        let config = Config::scratch(&Platform::linux("aarch64"));
        let history = History { created_by: "COPY a b".into(), empty_layer: false };
        Image::assemble(format, &config, vec![layer], "2024-01-01T00:00:00Z", &[history])
    }

    #[test]
    fn docker_gets_its_own_media_types_for_the_same_blobs() {
        let layer = |media_type: &str| Layer {
            media_type: media_type.to_owned(),
            digest: Digest::of(b"blob"),
            size: 4,
            diff_id: Digest::of(b"tar"),
        };
        for (given, want) in [(OCI_LAYER_GZIP, DOCKER_LAYER_GZIP), (OCI_LAYER, DOCKER_LAYER)] {
            let docker = assembled(Format::Docker, layer(given)).unwrap();
            assert_eq!(
                (&*docker.media_type, &*docker.layers[0].media_type),
                (DOCKER_MANIFEST, want)
            );
            let text = String::from_utf8(docker.manifest.clone()).unwrap();
            assert!(text.contains(DOCKER_CONFIG) && text.contains(DOCKER_MANIFEST), "{text}");
            assert!(!text.contains("oci"), "{text}");
            let oci = assembled(Format::Oci, docker.layers[0].clone()).unwrap();
            assert_eq!(oci.layers[0].media_type, given);
            assert_eq!(oci.config_digest(), docker.config_digest());
        }
        let error = assembled(Format::Docker, layer(OCI_LAYER_ZSTD)).unwrap_err();
        assert!(matches!(error, ImageError::NoMediaType(_)), "{error}");
    }

    #[test]
    fn json_that_would_grow_in_memory_is_refused() {
        let bomb = format!("{{\"manifests\":[{}1]}}", "1,".repeat(MOST_VALUES));
        assert!(matches!(parse_index(bomb.as_bytes()), Err(ImageError::Bomb)));
        assert!(matches!(Manifest::parse(bomb.as_bytes()), Err(ImageError::Bomb)));
        let config =
            format!("{{\"rootfs\":{{\"diff_ids\":[]}},\"x\":[{}1]}}", "1,".repeat(MOST_VALUES));
        let image = Image::of_config(Format::Oci, config.into_bytes(), Vec::new());
        assert!(matches!(image, Err(ImageError::Bomb)));
        let text = format!(r#"["{}\"{}"]"#, ",".repeat(MOST_VALUES), "[".repeat(MOST_VALUES));
        assert!(check_json(text.as_bytes()).is_ok(), "text is no values");
        let deep = "[".repeat(100_000);
        assert!(matches!(Manifest::parse(deep.as_bytes()), Err(ImageError::Json(_))));
    }

    #[test]
    fn what_was_put_together_is_read_again() {
        let layer = Layer {
            media_type: DOCKER_LAYER_GZIP.to_owned(),
            digest: Digest::of(b"blob"),
            size: 4,
            diff_id: Digest::of(b"tar"),
        };
        let image = assembled(Format::Oci, layer).unwrap();
        let again =
            Image::parse(&image.media_type, image.manifest.clone(), image.config_bytes.clone())
                .unwrap();
        assert_eq!(again.digest(), image.digest());
        assert_eq!(again.layers, image.layers);
        assert_eq!(again.layers[0].media_type, OCI_LAYER_GZIP);
        assert_eq!(again.config.platform().to_string(), "linux/arm64");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let config = br#"{"rootfs":{"diff_ids":[]}}"#.to_vec();
        for manifest in [
            "",
            "{}",
            r#"{"config":{"digest":"x","size":1},"layers":[]}"#,
            r#"{"config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":-1},"layers":[]}"#,
            r#"{"config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":1},"layers":[{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":1}]}"#,
        ] {
            let got = Image::parse(OCI_MANIFEST, manifest.into(), config.clone());
            assert!(got.is_err(), "for `{manifest}`");
        }
    }
}
