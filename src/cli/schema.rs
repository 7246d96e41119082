//! `jobgate schema`: prints the GraphQL schema, which `schema/schema.graphql` holds.

use std::io::Write as _;
use std::process::ExitCode;

use crate::inbound::graphql::schema;

/// Prints the schema.
///
/// # Errors
/// When standard output is gone.
pub fn run() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(schema::sdl().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
