//! Names that nobody else has.

use std::hash::{BuildHasher as _, RandomState};

/// Sixteen hex digits of the system's own randomness: processes that start in the same moment get
/// different ones, which what is seeded from a clock does not promise.
pub(crate) fn name() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    #[test]
    fn names_are_different_wherever_they_are_made() {
        let many = || (0..1000).map(|_| super::name()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| thread::spawn(many)).collect();
        let names: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert!(names.iter().all(|it| it.len() == 16));
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 8000);
    }
}
