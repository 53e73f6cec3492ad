//! Names for what is only there for a while.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    process,
};

/// A name that nobody else has chosen, and nobody can foresee.
pub(crate) fn name() -> String {
    // The keys of each hasher are random: the standard library's only source of such numbers.
    let random = RandomState::new().build_hasher().finish();
    format!("rbuild-{}-{random:016x}", process::id())
}
