//! `jobgate schema`: prints the GraphQL schema, the content of `schema/schema.graphql`.

use super::exit::Exit;
use super::terminal::Terminal;
use crate::inbound::graphql::schema;

pub(super) fn run(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    terminal.say(schema::sdl().trim_end())?;
    Ok(Exit::Done)
}
