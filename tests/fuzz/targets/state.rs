//! States of builds, and variables that shells saved.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::state(bytes));
