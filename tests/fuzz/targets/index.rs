//! Indexes of images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::index(bytes));
