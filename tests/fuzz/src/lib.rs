//! The bodies of the fuzz targets, which the tests of the whole program run, too.

#[path = "../../src/fuzz.rs"]
mod bodies;

pub use bodies::*;
