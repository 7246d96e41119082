//! `jobgate schema`: prints the GraphQL schema, which `schema/schema.graphql` holds.

use super::Exit;
use super::terminal::Terminal;
use crate::inbound::graphql::schema;

pub(super) fn run(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    terminal.say(schema::sdl().trim_end())?;
    Ok(Exit::Done)
}
