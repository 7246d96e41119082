//! `telemetry`: logs, metrics and traces.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::credential::{RawSecretRef, SecretRef};
use super::validation::ValidationErrors;
use super::values::words;

/// Logs, metrics and traces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TelemetryConfig {
    /// Format of the log: `text`, or `json` with one object per line.
    pub log_format: LogFormat,
    /// Log filter: a level, or a list such as `info,jobgate::outbound=debug`.
    pub log_level: String,
    /// Which requests are logged when their answer ends: `off`, `errors` (5xx) or `all`.
    pub access_log: AccessLog,
    /// OTLP endpoint for traces and metrics. None: the `OTEL_*` variables apply; without them nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// Reference to the OTLP headers, as comma-separated `name=value`.
    pub otlp_headers: Option<SecretRef>,
    /// Share of traces that is exported. None: the variables apply; the default is all.
    pub sample_ratio: Option<Ratio>,
}

/// Logs, metrics and traces.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TelemetryConfig")]
pub(super) struct RawTelemetry {
    /// Format of the log: `text`, or `json` with one object per line.
    log_format: LogFormat,
    /// Log filter: `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list such as `info,jobgate::outbound=debug`.
    log_level: String,
    /// Which requests are logged when their answer ends: `off`, `errors` (5xx) or `all`.
    access_log: AccessLog,
    /// OTLP endpoint for traces and metrics, such as `http://localhost:4318`. The protocol is `http/protobuf` unless
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` is `grpc`. Null: the `OTEL_*` variables apply; without them nothing is exported.
    otlp_endpoint: Option<String>,
    /// Reference to the OTLP headers as comma-separated `name=value`, which often contain a key. They are sent in addition to
    /// those of `OTEL_EXPORTER_OTLP_HEADERS`. Null: only those are sent.
    otlp_headers: Option<RawSecretRef>,
    /// Share of traces that is exported, 0 to 1. Null: `OTEL_TRACES_SAMPLER` applies, or all are exported.
    sample_ratio: Option<Ratio>,
}

words! {
    /// Format of the log.
    pub enum LogFormat {
        /// Text for terminals.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    } else "must be text or json"
}

words! {
    /// Which requests are logged.
    pub enum AccessLog {
        /// None.
        Off = "off",
        /// Requests that are answered with 5xx.
        Errors = "errors",
        /// All.
        All = "all",
    } else "must be off, errors or all"
}

/// A share, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    parts_per_million: u32,
}

impl Ratio {
    const WHOLE: u32 = 1_000_000;

    /// A share of 0 to 1, to a millionth.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is checked to be between 0 and 1"
    )]
    pub fn new(share: f64) -> Option<Self> {
        let parts = (share * f64::from(Self::WHOLE)).round() as u32;
        (0.0..=1.0).contains(&share).then_some(Self { parts_per_million: parts })
    }

    /// The share as a number of 0 to 1.
    pub fn get(self) -> f64 {
        f64::from(self.parts_per_million) / f64::from(Self::WHOLE)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("must be a number from 0 to 1");
        let value = Value::deserialize(deserializer)?;
        value.as_f64().and_then(Self::new).ok_or_else(wrong)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.get())
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl RawTelemetry {
    pub(super) fn accept(self, faults: &mut ValidationErrors) -> TelemetryConfig {
        let config = TelemetryConfig {
            log_format: self.log_format,
            log_level: self.log_level,
            access_log: self.access_log,
            otlp_endpoint: self.otlp_endpoint,
            otlp_headers: self
                .otlp_headers
                .and_then(|headers| headers.accept("telemetry.otlp_headers", faults)),
            sample_ratio: self.sample_ratio,
        };
        config.check(faults);
        config
    }
}

/// The error in an OTLP endpoint, if it has one. Does not repeat the endpoint, which may contain a password.
pub(crate) fn endpoint_fault(text: &str) -> Option<&'static str> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) => {
            Some("must start with http:// or https:// and contain a host")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must not contain a user or a password: put them into otlp_headers")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some("must not contain a query or a fragment: end it before the ? or #")
        }
        Ok(_) => None,
        Err(_) => Some("must be a URL such as http://localhost:4318"),
    }
}

impl TelemetryConfig {
    fn check(&self, faults: &mut ValidationErrors) {
        if let Some(fault) = self.otlp_endpoint.as_deref().and_then(endpoint_fault) {
            faults.add("telemetry.otlp_endpoint", fault);
        }
        if let Err(fault) = log_directives(&self.log_level) {
            faults.add("telemetry.log_level", fault);
        }
    }
}

/// Parses a log filter.
///
/// # Errors
/// With the accepted values, if the filter is invalid.
pub fn log_directives(text: &str) -> Result<EnvFilter, &'static str> {
    // A single word that is not a level would be read as the name of a module, and disable everything else.
    let level = |word: &str| {
        matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace") || word.contains(['=', '['])
    };
    // Without patterns for the values of fields: a pattern could keep a thread busy forever.
    let read = || EnvFilter::builder().with_regex(false).parse(text).ok();
    text.split(',').all(|word| level(word.trim())).then(read).flatten().ok_or(
        "must be off, error, warn, info, debug or trace, or a list such as info,jobgate::outbound=debug",
    )
}
