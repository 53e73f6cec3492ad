//! What must hold for any bytes: the bodies of the fuzz targets in `tests/fuzz`, which tests run
//! with what the fuzzer has found.

use rbuild_agent::buildspec::Buildspec;

/// A buildspec file is a value, or there is at least one problem; places are in the file.
pub fn buildspec(bytes: &[u8]) {
    match Buildspec::parse(bytes) {
        Ok(_) => {}
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            // For YAML, a carriage return by itself ends a line, too.
            let lines = bytes.iter().filter(|it| matches!(it, b'\n' | b'\r')).count() + 1;
            for problem in problems {
                assert!(problem.place.is_none_or(|it| it.line <= lines + 1), "{problem:?}");
            }
        }
    }
}
