//! `telemetry`: what jobgate says about itself, and in which form.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::credential::{RawSecretRef, SecretRef};
use super::fault::Faults;
use super::values::words;

/// What jobgate says about itself, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TelemetryConfig {
    /// The form of the log: `text` for people, `json` (one object a line) for collectors.
    pub log_format: LogFormat,
    /// What is logged: a level, or a list such as `info,jobgate::outbound=debug`.
    pub log_level: String,
    /// Which requests have a line of their own when their answer ends: `off`, `errors` (those that failed on our side), or
    /// `all`.
    pub access_log: AccessLog,
    /// Where traces and metrics go by OTLP; none for what the `OTEL_*` variables say, or nowhere.
    pub otlp_endpoint: Option<String>,
    /// How they go there; none for what the variables say, or HTTP.
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Where the headers are to be found that go along, as `name=value` between commas.
    pub otlp_headers: Option<SecretRef>,
    /// The share of traces that is exported; none for what the variables say, or all.
    pub sample_ratio: Option<Ratio>,
    /// Where the secret is to be found that the traces of jobs are named with.
    pub trace_key: Option<SecretRef>,
}

/// What jobgate says about itself, and in which form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TelemetryConfig")]
pub(super) struct RawTelemetry {
    /// The form of the log: `text` for people, `json` (one object a line) for collectors.
    log_format: LogFormat,
    /// What is logged: a level, or a list such as `info,jobgate::outbound=debug`.
    log_level: String,
    /// Which requests have a line of their own when their answer ends: `off`, `errors` (those that failed on our side), or
    /// `all`.
    access_log: AccessLog,
    /// Where traces and metrics go by OTLP, such as `http://localhost:4318`. Without it the `OTEL_*` variables say, and
    /// without those they go nowhere.
    otlp_endpoint: Option<String>,
    /// How they go there: `http/protobuf` or `grpc`. Without it `OTEL_EXPORTER_OTLP_PROTOCOL` says, or `http/protobuf`.
    otlp_protocol: Option<OtlpProtocol>,
    /// Where the headers are that go along, as `name=value` between commas: they often hold a key.
    otlp_headers: Option<RawSecretRef>,
    /// The share of traces that is exported, 0 to 1. Without it `OTEL_TRACES_SAMPLER` says, or all are.
    sample_ratio: Option<Ratio>,
    /// Where the secret is that the traces of jobs are named with; the same for all replicas. Without it they are named by
    /// what replicas have in common anyway, and who knows that and a job's id can tell its trace.
    trace_key: Option<RawSecretRef>,
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

words! {
    /// How traces and metrics go to their collector.
    pub enum OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, as protobuf.
        Http = "http/protobuf",
    } else "must be grpc or http/protobuf"
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
        reason = "it is checked to lie between 0 and 1"
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
    pub(super) fn accept(self, faults: &mut Faults) -> TelemetryConfig {
        let mut secret =
            |secret: Option<RawSecretRef>, path| secret.and_then(|secret| secret.accept(path, faults));
        let config = TelemetryConfig {
            log_format: self.log_format,
            log_level: self.log_level,
            access_log: self.access_log,
            otlp_endpoint: self.otlp_endpoint,
            otlp_protocol: self.otlp_protocol,
            otlp_headers: secret(self.otlp_headers, "telemetry.otlp_headers"),
            sample_ratio: self.sample_ratio,
            trace_key: secret(self.trace_key, "telemetry.trace_key"),
        };
        config.check(faults);
        config
    }
}

/// What is wrong with the address of a collector, if anything is. Never repeats it: there may be a password in it.
pub(crate) fn endpoint_fault(text: &str) -> Option<&'static str> {
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) => {
            Some("must start with http:// or https:// and name a host")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must hold no user and no password: put them into otlp_headers")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some("must hold neither a query nor a fragment: end it before the ? or #")
        }
        Ok(_) => None,
        Err(_) => Some("must be a URL such as http://localhost:4318"),
    }
}

impl TelemetryConfig {
    fn check(&self, faults: &mut Faults) {
        if let Some(fault) = self.otlp_endpoint.as_deref().and_then(endpoint_fault) {
            faults.add("telemetry.otlp_endpoint", fault);
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
    // Without patterns for the values of fields: whoever may write one could keep a thread busy for ever.
    let read = || EnvFilter::builder().with_regex(false).parse(text).ok();
    text.split(',').all(|word| level(word.trim())).then(read).flatten().ok_or(
        "must be off, error, warn, info, debug or trace, or a list such as info,jobgate::outbound=debug",
    )
}
