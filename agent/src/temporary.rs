//! Names for what is only there for a while.

use std::{
    collections::hash_map::RandomState,
    ffi::OsStr,
    hash::{BuildHasher, Hasher},
    process,
};

/// What the names begin with.
const PREFIX: &str = "rbuild-";

/// A name that nobody else has chosen, and nobody can foresee.
pub(crate) fn name() -> String {
    // The keys of each hasher are random: the standard library's only source of such numbers.
    let random = RandomState::new().build_hasher().finish();
    format!("{PREFIX}{}-{random:016x}", process::id())
}

/// The same for a file or folder that becomes visible when it is whole.
pub(crate) fn hidden_name() -> String {
    format!(".{}", name())
}

/// Whether `name` is one that [`name`] may have made.
pub(crate) fn is_name(name: &OsStr) -> bool {
    name.to_str().is_some_and(|it| owner(it).is_some())
}

/// The ID of the process that made `name` with [`hidden_name`], if that is where it is from.
pub(crate) fn hidden_owner(name: &OsStr) -> Option<u32> {
    owner(name.to_str()?.strip_prefix('.')?)
}

fn owner(name: &str) -> Option<u32> {
    let (owner, random) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let is_random = random.len() == 16 && random.bytes().all(|it| it.is_ascii_hexdigit());
    owner.parse().ok().filter(|_| is_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_told_from_others() {
        assert!(is_name(OsStr::new(&name())));
        assert_eq!(hidden_owner(OsStr::new(&hidden_name())), Some(process::id()));
        for it in ["", "rbuild-", "rbuild-1-", "rbuild-cache", "rbuild-1-0123456789abcdeg", "a"] {
            assert!(!is_name(OsStr::new(it)), "{it}");
            assert_eq!(hidden_owner(OsStr::new(&format!(".{it}"))), None, "{it}");
        }
        assert_eq!(hidden_owner(OsStr::new("rbuild-1-0123456789abcdef")), None);
    }
}
