//! The `OTEL_*` variables, as defaults of what the configuration does not set. One that is not supported, or whose value
//! is not, is ignored with a warning: another program in the same environment may need it, so it never prevents a start.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::{Environment, endpoint_fault};
use crate::telemetry::trace::provider::{Batches, Sampling};

/// The variables that are read for both signals, here or by the exporters, without `OTEL_`.
const COMMON: [&str; 16] = [
    "BSP_EXPORT_TIMEOUT",
    "BSP_MAX_EXPORT_BATCH_SIZE",
    "BSP_MAX_QUEUE_SIZE",
    "BSP_SCHEDULE_DELAY",
    "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "METRICS_EXPORTER",
    "METRIC_EXPORT_INTERVAL",
    "RESOURCE_ATTRIBUTES",
    "SDK_DISABLED",
    "SERVICE_NAME",
    "SPAN_ATTRIBUTE_COUNT_LIMIT",
    "SPAN_EVENT_COUNT_LIMIT",
    "SPAN_LINK_COUNT_LIMIT",
    "TRACES_EXPORTER",
    "TRACES_SAMPLER",
    "TRACES_SAMPLER_ARG",
];
/// The variables of an exporter, after `OTEL_EXPORTER_OTLP_` and the signal.
const OF_EXPORTER: [&str; 6] = ["COMPRESSION", "ENDPOINT", "HEADERS", "INSECURE", "PROTOCOL", "TIMEOUT"];

/// The names of one signal in the variables, and its path.
pub(super) struct Signal {
    pub(super) word: &'static str,
    pub(super) path: &'static str,
}

pub(super) const TRACES: Signal = Signal { word: "TRACES", path: "/v1/traces" };
pub(super) const METRICS: Signal = Signal { word: "METRICS", path: "/v1/metrics" };

/// The variables, and what was ignored of them so far.
pub(super) struct OtelVariables<'a> {
    env: &'a Environment,
    ignored: RefCell<BTreeMap<String, &'static str>>,
}

impl<'a> OtelVariables<'a> {
    pub(super) fn new(env: &'a Environment) -> Self {
        let variables = Self { env, ignored: RefCell::default() };
        let unknown = env.names("OTEL_").filter(|name| !is_supported(name));
        unknown.for_each(|name| variables.ignore(name, "not supported"));
        for signal in ["", "TRACES_", "METRICS_"] {
            // The exporters read it themselves.
            let name = format!("OTEL_EXPORTER_OTLP_{signal}COMPRESSION");
            variables.choice(&name, "must be gzip or none", |text| {
                ["gzip", "none"].iter().any(|known| text.eq_ignore_ascii_case(known)).then_some(())
            });
        }
        variables
    }

    /// The names of the variables that are ignored, each with the reason. Their values may be secrets.
    pub(super) fn ignored(self) -> BTreeMap<String, &'static str> {
        self.ignored.into_inner()
    }

    fn ignore(&self, name: &str, reason: &'static str) {
        if self.get(name).is_some() {
            self.ignored.borrow_mut().insert(name.to_owned(), reason);
        }
    }

    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// A variable as `parse` reads it; if it cannot, the variable is ignored.
    fn choice<T>(
        &self,
        name: &str,
        reason: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.get(name)?);
        if parsed.is_none() {
            self.ignore(name, reason);
        }
        parsed
    }

    /// Returns whether the variables disable the export of all signals.
    pub(super) fn is_disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// Returns whether the variables disable the export of a signal.
    pub(super) fn is_none(&self, signal: &Signal) -> bool {
        let name = format!("OTEL_{}_EXPORTER", signal.word);
        let none = self.choice(&name, "must be otlp or none", |text| match text {
            "none" => Some(true),
            "otlp" => Some(false),
            _ => None,
        });
        none == Some(true)
    }

    /// The endpoint of a signal, and whether it is its own.
    pub(super) fn endpoint(&self, signal: &Signal) -> Option<(&'a str, bool)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.word);
        let read = |name: &str| {
            let text = self.get(name)?;
            let Some(fault) = endpoint_fault(text) else { return Some(text) };
            self.ignore(name, fault);
            None
        };
        read(&own)
            .map(|endpoint| (endpoint, true))
            .or_else(|| read("OTEL_EXPORTER_OTLP_ENDPOINT").map(|endpoint| (endpoint, false)))
    }

    /// Returns whether a signal is exported by gRPC; otherwise by HTTP.
    pub(super) fn is_grpc(&self, signal: &Signal) -> bool {
        let own = format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal.word);
        let grpc = [own.as_str(), "OTEL_EXPORTER_OTLP_PROTOCOL"].into_iter().find_map(|name| {
            self.choice(name, "must be grpc or http/protobuf", |text| match text {
                "grpc" => Some(true),
                "http/protobuf" => Some(false),
                _ => None,
            })
        });
        grpc == Some(true)
    }

    pub(super) fn sampling(&self) -> Sampling {
        let ratio = || {
            let parse = |text: &str| text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            self.choice("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1", parse).unwrap_or(1.0)
        };
        let reason = "must be always_on, always_off, traceidratio, or one of these after parentbased_";
        let sampling = self.choice("OTEL_TRACES_SAMPLER", reason, |text| {
            let root = text.strip_prefix("parentbased_");
            let ratio = match root.unwrap_or(text) {
                "always_on" => 1.0,
                "always_off" => 0.0,
                "traceidratio" => ratio(),
                _ => return None,
            };
            Some(Sampling { ratio, parent_based: root.is_some() })
        });
        sampling.unwrap_or(Sampling { ratio: 1.0, parent_based: true })
    }

    pub(super) fn batches(&self) -> Batches {
        let usual = Batches::default();
        let count = |name: &str, usual: usize| {
            let read = self.choice(name, "must be a whole number", |text| text.parse().ok());
            read.map_or(usual, |count: usize| count.max(1))
        };
        let time = |name: &str, usual: Duration| {
            let read = self.choice(name, "must be a number of milliseconds", |text| text.parse().ok());
            read.map_or(usual, Duration::from_millis)
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", usual.queue);
        Batches {
            queue,
            at_most: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.at_most).min(queue),
            every: time("OTEL_BSP_SCHEDULE_DELAY", usual.every),
            within: time("OTEL_BSP_EXPORT_TIMEOUT", usual.within),
        }
    }

    /// The attributes of the resource; none of them if one cannot be read.
    pub(super) fn resource_attributes(&self) -> BTreeMap<String, String> {
        let pair = |entry: &str| {
            let (name, value) = entry.split_once('=')?;
            Some((percent_decoded(name)?, percent_decoded(value)?))
        };
        let reason = "must be name=value between commas, percent-encoded UTF-8";
        let read = self.choice("OTEL_RESOURCE_ATTRIBUTES", reason, |text| {
            text.split_terminator(',').map(pair).collect::<Option<BTreeMap<_, _>>>()
        });
        let mut attributes = read.unwrap_or_default();
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            attributes.insert("service.name".to_owned(), name.to_owned());
        }
        attributes
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned)
}

fn is_supported(name: &str) -> bool {
    let name = name.strip_prefix("OTEL_").unwrap_or(name);
    let of_exporter = name.strip_prefix("EXPORTER_OTLP_").map(|rest| {
        let rest = rest.strip_prefix("TRACES_").or_else(|| rest.strip_prefix("METRICS_")).unwrap_or(rest);
        OF_EXPORTER.contains(&rest)
    });
    COMMON.contains(&name) || of_exporter == Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::{METRICS, TRACES};
    use super::*;

    #[test]
    fn unsupported_variables_and_values_are_ignored() {
        let env: Environment = [
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key.pem"),
            ("OTEL_LOG_LEVEL", ""),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "all"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "70"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.version"),
        ]
        .into_iter()
        .collect();
        let variables = OtelVariables::new(&env);
        assert_eq!((variables.is_none(&TRACES), variables.is_none(&METRICS)), (false, true));
        assert_eq!(variables.endpoint(&TRACES), Some(("http://collector:4317", false)));
        assert!(!variables.is_grpc(&TRACES));
        assert_eq!(variables.sampling(), Sampling { ratio: 1.0, parent_based: true });
        let usual = Batches::default();
        assert_eq!(variables.batches(), Batches { every: Duration::from_millis(70), ..usual });
        assert!(variables.resource_attributes().is_empty());
        let ignored = variables.ignored();
        let ignored: Vec<&str> = ignored.keys().map(String::as_str).collect();
        assert_eq!(
            ignored,
            [
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_COMPRESSION",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "OTEL_PROPAGATORS",
                "OTEL_RESOURCE_ATTRIBUTES",
                "OTEL_TRACES_EXPORTER",
                "OTEL_TRACES_SAMPLER_ARG",
            ]
        );
    }

    #[test]
    fn resource_attributes_are_percent_decoded() {
        let env: Environment = [
            ("OTEL_RESOURCE_ATTRIBUTES", "team=caf%C3%A9%2C bar, service.name=other,"),
            ("OTEL_SERVICE_NAME", "gate%20way"),
        ]
        .into_iter()
        .collect();
        let read = OtelVariables::new(&env).resource_attributes();
        let read: Vec<(&str, &str)> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("service.name", "gate%20way"), ("team", "café, bar")]);
    }
}
