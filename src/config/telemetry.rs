//! `telemetry`: what jobgate says about itself, and in which form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::fault::Faults;
use super::values::words;

/// What jobgate says about itself, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The form of the log: `text` for people, `json` (one object a line) for collectors.
    pub log_format: LogFormat,
    /// What is logged: a level, or a list such as `info,jobgate::outbound=debug`.
    pub log_level: String,
    /// Which requests have a line of their own when their answer ends: `off`, `errors` (those that failed on our side), or
    /// `all`.
    pub access_log: AccessLog,
    /// Where traces would go. This version exports none, so it must be null.
    pub otlp_endpoint: Option<String>,
}

words! {
    /// The form of the log.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    } else "must be text or json"
}

words! {
    /// Which requests have a line of their own.
    pub enum AccessLog {
        /// None.
        Off = "off",
        /// Those that failed on our side: 5xx.
        Errors = "errors",
        /// All.
        All = "all",
    } else "must be off, errors or all"
}

impl TelemetryConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.otlp_endpoint.is_some() {
            faults.add("telemetry.otlp_endpoint", "must be null: this version does not export traces yet");
        }
        if let Err(fault) = log_directives(&self.log_level) {
            faults.add("telemetry.log_level", fault);
        }
    }
}

/// Reads what is to be logged.
///
/// # Errors
/// When it cannot be read, with what would do.
pub fn log_directives(text: &str) -> Result<EnvFilter, &'static str> {
    // A bare word that is no level would be read as the name of a module, and silence everything else.
    let level = |word: &str| {
        matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace") || word.contains(['=', '['])
    };
    text.split(',').all(|word| level(word.trim())).then(|| EnvFilter::try_new(text).ok()).flatten().ok_or(
        "must be off, error, warn, info, debug or trace, or a list such as info,jobgate::outbound=debug",
    )
}
