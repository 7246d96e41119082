//! `jobgate serve`: the main job.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Environment, LogFormat, TelemetryConfig};
use crate::server::build::Gateway;
use crate::server::lifecycle;
use crate::telemetry::log;

/// Serves by a configuration until the process is told to stop.
///
/// # Errors
/// When the gateway cannot start.
pub fn run(config: &Config, env: &Environment) -> anyhow::Result<ExitCode> {
    start_log(&config.telemetry)?;
    super::runtime()?.block_on(async {
        let gateway = Gateway::build(config, env).await?;
        lifecycle::run(gateway, config.server.drain_timeout).await
    })
}

/// Starts the log as configured.
pub(super) fn start_log(telemetry: &TelemetryConfig) -> anyhow::Result<()> {
    let format = match telemetry.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::start(format, telemetry.log_level.parse()?);
    Ok(())
}
