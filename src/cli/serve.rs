//! `jobgate serve`: runs the gateway.

use jobgate_client::Terminal;

use super::config_file::ConfigFile;
use super::exit::Exit;
use super::runtime;
use crate::config::{Config, Environment, LogFormat, TelemetryConfig};
use crate::server::build::Gateway;
use crate::server::lifecycle::{self, ConfigWatch, ServeOutcome};
use crate::server::telemetry::Telemetry;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(
    arguments: &ServeArguments,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let Some(config) = arguments.file.load_or_refuse(env, terminal)? else {
        return Ok(Exit::BadConfiguration);
    };
    let telemetry = Telemetry::new(&config, env)?;
    // dropped last, so that the last log lines are written
    let _log = start_log(&config.telemetry, &telemetry)?;
    let runtime = runtime::start()?;
    let ended = runtime.block_on(serve(&config, &arguments.file, env, telemetry));
    // A task that is blocked when the drain timeout is over, such as a read of a pipe, must not delay the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(
    config: &Config,
    file: &ConfigFile,
    env: &Environment,
    telemetry: Telemetry,
) -> anyhow::Result<Exit> {
    let telemetry_guard = telemetry.start()?;
    let gateway = Gateway::build(config, env).await?;
    let reread = ConfigWatch { file: file.named(env), watch: config.server.watch_config };
    let ended = lifecycle::run(gateway, config.server.drain_timeout, Some(reread)).await?;
    telemetry_guard.end().await;
    Ok(ended.into())
}

/// Starts the log as configured, and the traces. It runs until the returned value is dropped.
pub(super) fn start_log(config: &TelemetryConfig, telemetry: &Telemetry) -> anyhow::Result<log::LogGuard> {
    let format = match config.log_format {
        LogFormat::Text => log::LogFormatKind::Text,
        LogFormat::Json => log::LogFormatKind::Json,
    };
    Ok(log::start(format, &config.log_level, telemetry.layer())?)
}

impl From<ServeOutcome> for Exit {
    fn from(ended: ServeOutcome) -> Self {
        match ended {
            ServeOutcome::StopRequested => Self::Done,
            ServeOutcome::Broken => Self::Broken,
        }
    }
}
