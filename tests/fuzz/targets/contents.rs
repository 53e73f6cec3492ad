//! Tables of contents.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::contents(bytes));
