//! Builds container images without a daemon and without privilege, and carries them to and from
//! registries.
//!
//! Read in this order: [`digest`] and [`mod@reference`] (names), [`store`] (where everything lies),
//! [`dockerfile`] (text to a checked value), [`steps`] (which stages and bases a build needs, and
//! what is refused), [`context`] and [`rootfs`] (the two places that `COPY` copies from; the
//! latter reads layers by [`unpack`], [`members`] and [`contents`], and [`layer_sources`] tells
//! where those are that are not here), [`tree`] (what a layer holds), [`copy`] (what `COPY` means), [`layer`] (a tree becomes a blob),
//! [`config`] and [`image`] (what a registry calls an image), [`build`] (the loop that does it
//! all), [`catalog`] (the images of a store), [`registry`], [`transfer`] (push and
//! pull), [`needs`] (all that an image is), [`layout`] and [`archive`] (save and load), [`carry`]
//! (copies between all of these), [`event`].
//!
//! **Architecture invariant:** nothing here knows buildspecs, ECS, AWS or terminals; nothing
//! prints, and nothing reads the environment or the clock: they are passed in.
//!
//! **Architecture invariant:** nothing is visible in the store under its digest before it is
//! whole, and every read that leaves the store is verified.

pub mod archive;
mod bounded;
pub mod build;
pub mod carry;
pub mod catalog;
pub mod config;
pub mod contents;
pub mod context;
pub mod copy;
pub mod digest;
pub mod dockerfile;
pub mod event;
pub mod image;
pub mod layer;
pub mod layer_sources;
pub mod layout;
pub mod members;
pub mod needs;
pub mod patterns;
pub mod reference;
pub mod registry;
pub mod rootfs;
pub mod steps;
pub mod store;
pub mod transfer;
pub mod tree;
mod unique;
mod unpack;
