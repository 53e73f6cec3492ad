//! Renders deployment files, and carries services on ECS to a new task definition.
//!
//! Read in this order: [`placeholder`] (what the templates leave open), [`image`] (what goes in),
//! [`render`] (templates to the files that `CodePipeline`, `CodeDeploy` and ECS read),
//! [`definition`] (a task definition as JSON), [`plan`] (what will change, decided before anything
//! is changed), [`ecs`] (the calls, in our words), [`apply`] (the one loop that makes them),
//! [`event`] (all that the outside learns of it).
//!
//! **Architecture invariant:** [`apply`] and the adapter [`ecs::aws`] are the only modules that
//! call anything; all others are values and functions of values. Nothing here reads files, the
//! environment, or the clock.
//!
//! **Architecture invariant:** a task definition is JSON from end to end. It is never turned into
//! a type of the SDK, so that fields which are newer than this program reach ECS unharmed.
//!
//! **Architecture invariant:** this crate prints nothing and knows images only as
//! `name@sha256:…`. It does not know how they are built, and there is no dry-run flag in it.

pub mod apply;
pub mod definition;
pub mod ecs;
pub mod event;
pub mod image;
pub mod placeholder;
pub mod plan;
pub mod render;
