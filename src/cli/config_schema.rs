//! `jobgate config-schema`: the JSON Schema of the configuration file, for editors.

use jobgate_client::Terminal;

use super::exit::Exit;
use crate::config::Config;

pub(super) fn run(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    terminal.say(&format!("{:#}", Config::json_schema()))?;
    Ok(Exit::Done)
}
