//! The two pattern languages of a build: `.dockerignore` files, and the sources of COPY and ADD.
//!
//! Both are made of `*`, `?`, `[…]` and `\` as Go's `filepath.Match` reads them ([`Glob`]); an
//! ignore file adds `**`, `!`, and a meaning for folders ([`Ignore`]).
//!
//! **Architecture invariant:** paths are bytes, relative, slash-separated and clean; nothing here
//! looks at a file system. A byte that is no UTF-8 counts as one character, U+FFFD, as in Go.

mod glob;
mod ignore;

pub use self::{
    glob::{Glob, GlobError, has_wildcard},
    ignore::{Ignore, PatternError, PatternErrorKind, Verdict},
};
