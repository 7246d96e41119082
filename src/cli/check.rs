//! `jobgate check`: every fault of a configuration at once, unreadable secrets included, and what is in force. Asks
//! nobody, unless `--online` tries each source with one harmless read.

use std::sync::Arc;

use futures_util::future::join_all;

use super::terminal::Terminal;
use super::{ConfigFile, Exit};
use crate::config::{Config, Environment};
use crate::outbound::credentials::SecretFiles;
use crate::outbound::system::SystemClock;
use crate::ports::clock::Clock;
use crate::server::build;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print what is in force, defaults and environment included; secrets are never in it
    #[arg(long)]
    print: bool,
    /// Try each source with one harmless read
    #[arg(long)]
    online: bool,
}

pub(super) fn run(
    arguments: &Arguments,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let Some(config) = arguments.file.load_or_refuse(env, terminal)? else {
        return Ok(Exit::BadConfiguration);
    };
    let (credentials, unreadable) = SecretFiles::read(&config.sources, env);
    for secret in &unreadable {
        terminal.complain(secret)?;
    }
    let refused = if arguments.online { try_online(&config, credentials, terminal)? } else { 0 };
    let tier = build::check_tier(&config, env);
    if let Err(error) = &tier {
        terminal.complain(&format!("{error:#}"))?;
    }
    let good = unreadable.is_empty() && refused == 0 && tier.is_ok();
    if arguments.print {
        terminal.say(&format!("{:#}", config.effective()?))?;
    } else if good {
        terminal.say(&summary(&config))?;
    }
    Ok(if good { Exit::Done } else { Exit::BadConfiguration })
}

/// Tries each source, says how it went, and counts those that refused.
fn try_online(
    config: &Config,
    credentials: SecretFiles,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<usize> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let readers = build::readers(config, Arc::new(credentials), &clock, None)?;
    let probes = readers.iter().map(async |reader| (reader.name(), reader.probe().await));
    let probed = super::runtime()?.block_on(join_all(probes));
    let mut refused = 0;
    for (name, outcome) in probed {
        match outcome {
            Ok(()) => terminal.say(&format!("sources.{name}: answers, and takes the credential"))?,
            Err(error) => {
                refused += 1;
                let error = anyhow::Error::new(error);
                terminal.complain(&format!("sources.{name}: {error:#}"))?;
            }
        }
    }
    Ok(refused)
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
