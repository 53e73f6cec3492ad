//! `rbuild schema`

use crate::{
    args::check::{Schema, Subject},
    console,
    failure::Failure,
};

pub(crate) fn schema(args: &Schema) -> Result<(), Failure> {
    console::print_data(match args.subject {
        Subject::Buildspec => rbuild_agent::schema::buildspec_schema(),
        Subject::Events => console::json::SCHEMA,
    })
}
