//! Dockerfiles as checked values: text in, stages and instructions with their places out.
//!
//! The language is that of `docker/dockerfile` 1.x, all of it: what the builder cannot do yet is
//! parsed all the same, so that the planner can refuse it by name and line.
//!
//! Read in this order: [`Dockerfile`] here, [`instruction`] (what a line becomes), `parse` (how),
//! `lines` (continuations, comments, places), `flags`, `heredoc`, [`words`] (variables and quotes,
//! for the planner too), [`ports`] (what EXPOSE's words mean once expanded).
//!
//! **Architecture invariant:** parsing takes bytes and does no I/O. Nothing is expanded here; but
//! quotes and `${…}` are well-formed in every word of a [`Dockerfile`] that exists.
//!
//! **Architecture invariant:** every place that a message could point to is kept, as it is in the
//! file, whatever was joined or unquoted since. No input makes the parser slow or deep.

mod directives;
mod error;
mod flags;
mod healthcheck;
mod heredoc;
pub mod instruction;
mod json;
mod lines;
mod parse;
pub mod ports;
mod suggest;
#[cfg(test)]
mod tests;
mod warning;
pub mod words;

pub use self::{
    directives::Directives,
    error::{DockerfileError, ErrorKind},
    instruction::{Arg, Instruction},
    warning::{Warning, WarningKind},
};

/// Where something is in a file: both numbers count from 1, and columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The first character.
    const START: Self = Self { line: 1, column: 1 };
}

/// A piece of text, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Where it begins.
    pub place: Place,
}

/// A switch that was set, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Whether it is on.
    pub is_on: bool,
    /// Where its flag begins.
    pub place: Place,
}

/// A checked Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// What the directives at its top say.
    pub directives: Directives,
    /// The arguments before the first FROM, which only FROM sees.
    pub global_args: Vec<Arg>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// What is allowed and yet likely wrong.
    pub warnings: Vec<Warning>,
}

/// FROM, and what follows it up to the next FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image, the stage, or `scratch` that it starts from; not expanded.
    pub image: Word,
    /// `--platform`; not expanded.
    pub platform: Option<Word>,
    /// Its name, in lower case.
    pub name: Option<Word>,
    /// Where FROM is.
    pub place: Place,
    /// The FROM line, with continuations joined.
    pub source: String,
    /// What it does, in order.
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// Checks the text of a Dockerfile.
    pub fn parse(bytes: &[u8]) -> Result<Self, DockerfileError> {
        parse::dockerfile(lines::text(bytes)?)
    }
}
