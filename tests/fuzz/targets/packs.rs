//! Indexes of packs of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rbuild_fuzz::packs(bytes));
