//! `jobgate completions`: prints the completion script of a shell.

use clap_complete::Shell;
use jobgate_client::Terminal;

use super::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArguments {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line.
pub(super) fn run(
    arguments: &CompletionsArguments,
    mut command: clap::Command,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    terminal.say(String::from_utf8(script)?.trim_end())?;
    Ok(Exit::Done)
}
