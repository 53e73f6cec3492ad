//! Manifests of images, and their configs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::manifest(bytes));
