//! Remembers in which repositories a layer was seen, so that it can be mounted from there, or
//! fetched when its bytes are needed after all.
//!
//! **Architecture invariant:** this is a hint and no truth: the registry is asked, and says no if
//! it is wrong. Only repositories that had an *image* with the layer are remembered, since
//! registries mount only what some manifest refers to.

use crate::{
    digest::{Digest, Framed},
    reference::{Reference, Repository},
    store::{Store, StoreError},
};

/// Repositories that are remembered for a layer: the last ones.
const MOST: usize = 8;

/// Remembers that `repository` has an image with the blob `digest`.
pub fn remember(store: &Store, digest: Digest, repository: &Repository) -> Result<(), StoreError> {
    let name = repository.canonical();
    let mut known = names(store, digest)?;
    if known.first() == Some(&name) {
        return Ok(());
    }
    known.retain(|it| *it != name);
    known.insert(0, name);
    known.truncate(MOST);
    store.remember(key(digest), &known)
}

/// The repositories that had an image with the blob `digest`, the last one first.
pub fn recall(store: &Store, digest: Digest) -> Result<Vec<Repository>, StoreError> {
    let parsed = names(store, digest)?.into_iter().filter_map(|it| it.parse::<Reference>().ok());
    Ok(parsed.map(|it| it.repository().clone()).collect())
}

fn names(store: &Store, digest: Digest) -> Result<Vec<String>, StoreError> {
    Ok(store.recall(key(digest))?.unwrap_or_default())
}

/// Under which key it is remembered where a layer was seen.
pub(crate) fn key(digest: Digest) -> Digest {
    Framed::new("rbuild sources of a layer 1").with(digest.as_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        name.parse::<Reference>().unwrap().repository().clone()
    }

    #[test]
    fn the_last_repositories_of_a_layer_are_known_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        for name in ["shop", "a.com/x", "shop", "a.com:5000/team/y"] {
            remember(&store, digest, &repository(name)).unwrap();
        }
        let found: Vec<String> =
            recall(&store, digest).unwrap().iter().map(Repository::canonical).collect();
        assert_eq!(found, ["a.com:5000/team/y", "docker.io/library/shop", "a.com/x"]);
        assert_eq!(recall(&store, other).unwrap(), []);
        for number in 0..20 {
            remember(&store, digest, &repository(&format!("a.com/{number}"))).unwrap();
        }
        assert_eq!(recall(&store, digest).unwrap().len(), MOST);
    }
}
