//! `jobgate check`: every error of a configuration at once, unreadable secrets included, and the effective
//! configuration. Makes no call, unless `--online` tests each source with one read.

use std::sync::Arc;

use futures_util::future::join_all;
use jobgate_client::Terminal;

use super::config_file::ConfigFile;
use super::exit::Exit;
use super::runtime;
use crate::config::{Config, Environment};
use crate::outbound::credentials::SecretFiles;
use crate::outbound::system::SystemClock;
use crate::ports::clock::Clock;
use crate::ports::credentials::Credentials as _;
use crate::server::{build, stores, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the effective configuration as JSON, including defaults and environment variables; secrets are not printed
    #[arg(long)]
    print: bool,
    /// Also send one read-only request to each source, to check that it accepts the credential
    #[arg(long)]
    online: bool,
}

pub(super) fn run(
    arguments: &CheckArguments,
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
    let faults = build::faults_of_files(&config, env);
    for fault in &faults {
        terminal.complain(fault)?;
    }
    let signing = build::watch_tokens(&config, env);
    if let Err(error) = &signing {
        terminal.complain(error)?;
    }
    let ended = ended(&config, &credentials);
    for line in &ended {
        terminal.complain(line)?;
    }
    let refused = if arguments.online { try_online(&config, env, credentials, terminal)? } else { 0 };
    let shared_store = stores::check_tier(&config, env);
    if let Err(error) = &shared_store {
        terminal.complain(&format!("{error:#}"))?;
    }
    let exporters = telemetry::check(&config, env);
    if let Err(error) = &exporters {
        terminal.complain(&format!("{error:#}"))?;
    }
    let files = unreadable.is_empty() && faults.is_empty() && ended.is_empty();
    let good = files && signing.is_ok() && shared_store.is_ok() && exporters.is_ok() && refused == 0;
    if arguments.print {
        terminal.say(&format!("{:#}", config.effective()?))?;
    } else if good {
        terminal.say(&summary(&config))?;
    }
    Ok(if good { Exit::Done } else { Exit::BadConfiguration })
}

/// A line for each expired credential, as far as the credential or the configuration contains its expiry.
fn ended(config: &Config, credentials: &SecretFiles) -> Vec<String> {
    let now = SystemClock.now();
    let line = |name| {
        let end = credentials.status(name).expires_at.filter(|end| *end <= now)?;
        Some(format!("sources.{name}.credential: expired at {end}; set a new one"))
    };
    config.sources.keys().filter_map(line).collect()
}

/// Tests each source, prints the result, and counts those that failed.
fn try_online(
    config: &Config,
    env: &Environment,
    credentials: SecretFiles,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<usize> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let readers = build::readers(config, env, Arc::new(credentials), &clock, None)?;
    let probes = readers.iter().map(async |reader| (reader, reader.probe(None).await));
    let probed = runtime::start()?.block_on(join_all(probes));
    let mut refused = 0;
    for (reader, outcome) in probed {
        let name = reader.name();
        match outcome {
            Ok(()) => terminal.say(&format!("sources.{name}: reachable, credential accepted"))?,
            Err(error) => {
                refused += 1;
                // the reason is in the last error of the source; without one no call was made
                let why =
                    reader.status().last_error.map_or_else(String::new, |last| format!(": {}", last.message));
                terminal.complain(&format!("sources.{name}: {error}{why}"))?;
            }
        }
    }
    Ok(refused)
}

fn summary(config: &Config) -> String {
    let names: Vec<_> = config
        .sources
        .iter()
        .map(|(name, source)| format!("{name} ({})", source.upstream.profile().name))
        .collect();
    let clients = match config.clients.len() {
        0 if config.auth_disabled() => "no clients, loopback only".to_owned(),
        1 => "1 client".to_owned(),
        many => format!("{many} clients"),
    };
    let clients = match config.jwt.len() {
        0 => clients,
        1 => format!("{clients} and 1 issuer"),
        many => format!("{clients} and {many} issuers"),
    };
    format!(
        "the configuration is valid: sources {}; {clients}; listens on {}",
        names.join(", "),
        config.server.listen
    )
}
