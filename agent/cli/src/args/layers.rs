//! What a person may type about the layers of images.

use rbuild_imagebuilder::layer::Method;

const COMPRESSION: &str = "gzip[:1-12], zstd[:1-19] or none";

#[derive(Debug, clap::Args)]
pub(crate) struct Layers {
    /// How new layers are compressed: gzip[:1-12], zstd[:1-19] or none
    ///
    /// gzip is read everywhere; its levels are libdeflate's, 4 is within 5 % of the size that
    /// `gzip -6` gives, in a fifth of the time. zstd is faster and smaller, but older readers
    /// (docker before 23, umoci) do not take it.
    #[arg(long, value_name = "METHOD[:LEVEL]", default_value_t, value_parser = method)]
    pub(crate) compression: Method,
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|err| format!("{err} (write {COMPRESSION})"))
}
