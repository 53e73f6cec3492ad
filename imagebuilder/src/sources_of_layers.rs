//! Where layers lie that are not in the store: the repositories that an image with them came from.
//!
//! What is remembered is a place to ask, and nothing more: what comes from there is verified.

use crate::{
    digest::{Digest, Framed},
    reference::{Reference, Repository},
    store::{Store, StoreError},
};

/// The most repositories that are remembered of one layer: the last ones.
const MOST: usize = 4;

/// Remembers that `repository` has `layer`.
pub fn remember(store: &Store, layer: Digest, repository: &Repository) -> Result<(), StoreError> {
    let name = repository.canonical();
    let known: Vec<String> = store.recall(key(layer))?.unwrap_or_default();
    if known.first() == Some(&name) {
        return Ok(());
    }
    let others = known.into_iter().filter(|it| *it != name).take(MOST - 1);
    let names: Vec<String> = [name.clone()].into_iter().chain(others).collect();
    store.remember(key(layer), &names)
}

/// The repositories that have `layer`, the last one first; none if none is known.
pub fn recall(store: &Store, layer: Digest) -> Result<Vec<Repository>, StoreError> {
    let names: Vec<String> = store.recall(key(layer))?.unwrap_or_default();
    let parsed = names.iter().filter_map(|it| it.parse::<Reference>().ok());
    Ok(parsed.map(|it| it.repository().clone()).collect())
}

fn key(layer: Digest) -> Digest {
    Framed::new("rbuild sources of layer 1").with(layer.as_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_repositories_of_a_layer_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let layer = Digest::of(b"layer");
        assert_eq!(recall(&store, layer).unwrap(), []);
        for name in ["a", "127.0.0.1:5000/b/c", "d", "a", "e", "f"] {
            let reference: Reference = name.parse().unwrap();
            remember(&store, layer, reference.repository()).unwrap();
        }
        let found: Vec<String> =
            recall(&store, layer).unwrap().iter().map(Repository::canonical).collect();
        let hub = |name: &str| format!("docker.io/library/{name}");
        assert_eq!(found, [hub("f"), hub("e"), hub("a"), hub("d")]);
    }
}
