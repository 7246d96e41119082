//! `jobgate man`: the manual pages of the command and of its subcommands, from the texts of `--help`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap_mangen::Man;
use jobgate_client::Terminal;

use super::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// Directory to write the pages of all commands to; without it, the page `jobgate(1)` is printed
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints or writes the pages of `command`, the whole command line.
pub(super) fn run(
    arguments: &ManArguments,
    command: clap::Command,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let Some(directory) = &arguments.directory else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        terminal.say(String::from_utf8(page)?.trim_end())?;
        return Ok(Exit::Done);
    };
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written.with_context(|| format!("{}: the pages cannot be written", directory.display()))?;
    Ok(Exit::Done)
}
