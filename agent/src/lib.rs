//! Runs CodeBuild buildspecs.
//!
//! Read in this order:
//! - [`buildspec`]: the bytes of a file to a checked value, or everything that is wrong with it;
//!   on the way, `yaml` (a tree with places) and [`source`] (what a place is).
//! - [`schema`]: the same language, as editors want to know it.
//! - [`runtimes`]: which runtimes an image has, and how a build chooses among them.
//! - [`check`]: what can be known of such a file without running it.
//! - [`phase`]: the parts of a build, and which one comes after which.
//! - [`choice`]: what AWS leaves open, and what is chosen.
//! - [`secret`]: values that nobody must see, the port for them, and the masking of output.
//! - [`environment`]: which variables commands start with.
//! - [`plan`]: a buildspec and what is true of this build become a value with every decision.
//! - [`shell`]: the port for running commands, and the shell of this machine with the supervisor
//!   that lets nothing survive a build.
//! - [`artifacts`]: the port for what a build leaves behind, and the folder or zip file for it.
//! - [`run`]: the one loop that does what a plan says.
//! - [`event`]: all that the outside learns of it.
//! - [`resume`]: what is kept of a build that did not succeed, so that another can go on.
//!
//! **Architecture invariant:** [`run`], [`shell`], and [`artifacts`] are the only modules that do
//! anything; all others are values and functions of values.
//!
//! **Architecture invariant:** this crate prints nothing, reads no clock and no environment, and
//! does not know about images, ECS, or AWS, nor what is drawn on a terminal. It tells what happens with [`event::Event`] and
//! what went wrong with errors. (What commands write goes to an event, and the supervisor, a
//! process of its own, reads its own arguments.)
//!
//! **Architecture invariant:** what a buildspec asks for and this crate does not do is refused
//! before anything runs, or told as [`event::Event::IgnoredKeys`]: never left out in silence.

pub mod artifacts;
pub mod buildspec;
pub mod check;
pub mod choice;
pub mod environment;
pub mod event;
pub mod phase;
pub mod plan;
pub mod resume;
pub mod run;
pub mod runtimes;
pub mod schema;
pub mod secret;
pub mod shell;
pub mod source;
mod temporary;
mod yaml;
