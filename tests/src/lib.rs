//! What tests of the whole program need: scratch folders, processes that end with the test, and the
//! real components that the program talks to or that read what it made.
//!
//! Read in this order: [`sandbox`] (runs the program as a user would), [`process`] (a child and how
//! to wait for it), [`servers`] (registries and AWS's APIs, on this machine alone),
//! [`fake_registry`] (a registry with the quirks of ECR, and with faults), [`peers`] (programs that
//! others wrote and that read our images), [`oracle`] (our own reader of images, which says what is
//! wrong with them), [`namespace`] (a private network or file system for one test), [`store`] (what
//! must be true of a store, looked at from outside).
//!
//! **Architecture invariant:** nothing here calls the libraries under test: what they promise is
//! checked with means of our own.
//!
//! **Architecture invariant:** nothing is skipped in silence. A component that is missing ends the
//! test with a sentence that names its package.

#![expect(
    clippy::missing_panics_doc,
    reason = "in a test everything that goes wrong is a panic, which is how it is reported"
)]

pub mod fake_registry;
pub mod fuzz;
pub mod http;
pub mod namespace;
pub mod oracle;
pub mod peers;
pub mod process;
pub mod sandbox;
pub mod scratch;
pub mod servers;
pub mod store;

pub use crate::{
    fake_registry::FakeRegistry,
    process::Process,
    sandbox::{Finished, Run, Running, Sandbox},
    scratch::Scratch,
};
