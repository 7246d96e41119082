//! `jobgate check`: every fault of a configuration at once, and what is in force. Starts nothing.

use super::terminal::Terminal;
use super::{ConfigFile, Exit};
use crate::config::{Config, Environment};
use crate::outbound::credentials::SecretFiles;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print what is in force, defaults and environment included; secrets are never in it
    #[arg(long)]
    print: bool,
}

pub(super) fn run(
    arguments: &Arguments,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let config = match arguments.file.load(env) {
        Ok(config) => config,
        Err(faults) => {
            terminal.refuse(&faults)?;
            return Ok(Exit::BadConfiguration);
        }
    };
    // Secrets may be absent where the file is checked and present where it is served, so they do not make it a bad file.
    let (_, unreadable) = SecretFiles::read(&config.sources, env);
    for secret in &unreadable {
        terminal.complain(&format!("warning: {secret}"))?;
    }
    if arguments.print {
        terminal.say(&format!("{:#}", config.effective()?))?;
    } else {
        terminal.say(&summary(&config))?;
    }
    Ok(Exit::Done)
}

fn summary(config: &Config) -> String {
    let names: Vec<_> =
        config.sources.iter().map(|(name, source)| format!("{name} ({})", source.upstream.name())).collect();
    let clients = match config.clients.len() {
        0 => "no clients, loopback only".to_owned(),
        1 => "1 client".to_owned(),
        many => format!("{many} clients"),
    };
    format!(
        "the configuration is valid: sources {}; {clients}; listens on {}",
        names.join(", "),
        config.server.listen
    )
}
