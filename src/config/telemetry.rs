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

impl TelemetryConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.otlp_endpoint.is_some() {
            faults.add("telemetry.otlp_endpoint", "must be null: this version does not export traces yet");
        }
        // A bare word that is no level would be read as the name of a module, and silence everything else.
        let level = |word: &str| {
            matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace") || word.contains(['=', '['])
        };
        let words = self.log_level.split(',').map(str::trim);
        if !words.into_iter().all(level) || EnvFilter::try_new(&self.log_level).is_err() {
            faults.add(
                "telemetry.log_level",
                "must be off, error, warn, info, debug or trace, or a list such as info,jobgate::outbound=debug",
            );
        }
    }
}
