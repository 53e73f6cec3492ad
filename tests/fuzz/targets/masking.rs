//! Secrets, and output in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::masking(bytes));
