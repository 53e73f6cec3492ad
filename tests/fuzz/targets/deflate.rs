//! Segments of deflate, one after the other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::deflate(bytes));
