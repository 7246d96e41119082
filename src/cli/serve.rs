//! `jobgate serve`: the main job.

use super::terminal::Terminal;
use super::{ConfigFile, Exit};
use crate::config::{Config, Environment, LogFormat, TelemetryConfig};
use crate::server::build::Gateway;
use crate::server::lifecycle::{self, Ended, Reread};
use crate::server::telemetry::Telling;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(
    arguments: &Arguments,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    let Some(config) = arguments.file.load_or_refuse(env, terminal)? else {
        return Ok(Exit::BadConfiguration);
    };
    // dropped last, so that what is said at the end is written
    let _log = start_log(&config.telemetry)?;
    let runtime = super::runtime()?;
    let ended = runtime.block_on(serve(&config, &arguments.file, env));
    // What still waits when the time to finish is over, such as a read of a pipe, must not hold the process.
    runtime.shutdown_background();
    ended
}

async fn serve(config: &Config, file: &ConfigFile, env: &Environment) -> anyhow::Result<Exit> {
    let telling = Telling::start(config, env)?;
    let gateway = Gateway::build(config, env).await?;
    let reread = Reread { file: file.named(env), watch: config.server.watch_config };
    let ended = lifecycle::run(gateway, config.server.drain_timeout, Some(reread)).await?;
    telling.end().await;
    Ok(ended.into())
}

/// Starts the log as configured. It is at work until what is returned is dropped.
pub(super) fn start_log(telemetry: &TelemetryConfig) -> anyhow::Result<log::Running> {
    let format = match telemetry.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    Ok(log::start(format, &telemetry.log_level)?)
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Told => Self::Done,
            Ended::Broken => Self::Broken,
        }
    }
}
