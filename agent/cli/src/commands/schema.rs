//! `rbuild schema`

use crate::{
    args::check::{Schema, Subject},
    console,
    failure::{Failure, Kind},
};

/// The JSON Schemas.
const SCHEMAS: [(Subject, Option<&str>); 2] = [
    // To be connected: `rbuild_agent::schema::buildspec_schema()`.
    (Subject::Buildspec, None),
    // To be connected: `console::json::SCHEMA`.
    (Subject::Events, None),
];

pub(crate) fn schema(args: &Schema) -> Result<(), Failure> {
    let found = SCHEMAS.iter().find(|(subject, _)| *subject == args.subject);
    match found.and_then(|(_, text)| *text) {
        Some(text) => console::print_data(text),
        None => Err(Failure::new(Kind::Input, "this schema is not there yet")),
    }
}
