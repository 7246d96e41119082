//! `jobgate key`: creates client keys. A key is printed once; the configuration contains only its hash.

use jobgate_client::Terminal;
use secrecy::ExposeSecret as _;

use super::exit::Exit;
use crate::config::ClientConfig;
use crate::outbound::identity::keys;

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Create a client key and print it once, with the line for the configuration
    New {
        /// Name of the client: 1 to 63 letters, digits, `.`, `_` or `-`
        #[arg(value_parser = name)]
        name: String,
    },
}

pub(super) fn run(command: &KeyCommand, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    let KeyCommand::New { name } = command;
    let key = keys::generate()?;
    let hash = ClientConfig::hex(&keys::hash(key.expose_secret()));
    let name = quoted(name);
    terminal.say(key.expose_secret())?;
    terminal.say(
        "\nThis is the client key. It is not shown again; jobgate stores only its hash. Add this line under \
         `clients:`, with the names of the sources that the client can read:\n",
    )?;
    terminal.say(&format!("- {{ name: {name}, key_sha256: \"{hash}\", sources: [] }}"))?;
    Ok(Exit::Done)
}

fn name(text: &str) -> Result<String, &'static str> {
    if ClientConfig::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name must be 1 to 63 letters, digits, -, _ or .")
    }
}

/// The name in a form that YAML reads as text: `7` and `null` are not text unless quoted.
fn quoted(name: &str) -> String {
    let word = name.starts_with(|first: char| first.is_ascii_alphabetic());
    let special = ["true", "false", "null"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if word && !special { name.to_owned() } else { format!("\"{name}\"") }
}
