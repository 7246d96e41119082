//! `jobgate schema`: prints the GraphQL schema, the content of `schema/schema.graphql`.

use jobgate_client::Terminal;

use super::exit::Exit;
use crate::inbound::graphql::schema;

pub(super) fn run(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    terminal.say(schema::sdl().trim_end())?;
    Ok(Exit::Done)
}
