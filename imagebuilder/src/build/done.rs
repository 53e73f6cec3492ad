//! What steps made before, remembered by their keys.

use serde::{Deserialize, Serialize};

use super::{BuildErrorKind, Cache, Inputs};
use crate::{digest::Digest, image::Layer};

/// What is remembered of a step that makes a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// None if there was nothing to change.
    pub(super) layer: Option<DoneLayer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DoneLayer {
    media_type: String,
    digest: String,
    size: u64,
    diff_id: String,
}

/// What was remembered under `key`, if it can be used.
pub(super) fn recall(inputs: &Inputs<'_>, key: Digest) -> Result<Option<Done>, BuildErrorKind> {
    if inputs.cache == Cache::Ignore {
        return Ok(None);
    }
    let Some(done) = inputs.store.recall::<Done>(key)? else { return Ok(None) };
    let is_there = match done.layer.clone().map(DoneLayer::read) {
        None => true,
        // Here, and whole. That a registry had it once is no proof: what can be made is made.
        Some(Some(layer)) => inputs.store.has(layer.digest, layer.size)?,
        Some(None) => false,
    };
    Ok(is_there.then_some(done))
}

pub(super) fn remember(
    inputs: &Inputs<'_>,
    keys: &[Digest],
    layer: Option<&Layer>,
) -> Result<(), BuildErrorKind> {
    let layer = layer.map(|it| DoneLayer {
        media_type: it.media_type.clone(),
        digest: it.digest.to_string(),
        size: it.size,
        diff_id: it.diff_id.to_string(),
    });
    for key in keys {
        inputs.store.remember(*key, &Done { layer: layer.clone() })?;
    }
    Ok(())
}

impl DoneLayer {
    pub(super) fn read(self) -> Option<Layer> {
        let Self { media_type, digest, size, diff_id } = self;
        Some(Layer {
            media_type,
            digest: digest.parse().ok()?,
            size,
            diff_id: diff_id.parse().ok()?,
        })
    }
}
