//! `/metrics` on the operators' door: how things stand now, read when it is asked for, in the text that Prometheus reads.
//! Nothing is counted here; a label is a source, a transport or a word of a closed list, never a job or a client.

use std::fmt;

use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::streams::Streams;
use crate::domain::principal::Principal;
use crate::domain::source::{CredentialState, SourceHealth, SourceStatus};
use crate::jobs::Jobs;
use crate::telemetry::trace::provider::dropped;

/// The media type of the text that `encode` writes.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Each health with its word.
const HEALTHS: [(SourceHealth, &str); 6] = [
    (SourceHealth::Healthy, "healthy"),
    (SourceHealth::Untried, "untried"),
    (SourceHealth::Throttled, "throttled"),
    (SourceHealth::Unavailable, "unavailable"),
    (SourceHealth::CredentialRejected, "credential_rejected"),
    (SourceHealth::Unconfigured, "unconfigured"),
];

/// Each state of a credential with its word.
const CREDENTIALS: [(CredentialState, &str); 6] = [
    (CredentialState::InForce, "in_force"),
    (CredentialState::Refused, "refused"),
    (CredentialState::Missing, "missing"),
    (CredentialState::NewOneUntried, "new_one_untried"),
    (CredentialState::NewOneRefused, "new_one_refused"),
    (CredentialState::NewOneUnusable, "new_one_unusable"),
];

/// What is looked at when the metrics are asked for. A cheap clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    jobs: Jobs,
    streams: Streams,
}

impl Metrics {
    /// The metrics of a gateway.
    pub const fn new(jobs: Jobs, streams: Streams) -> Self {
        Self { jobs, streams }
    }

    /// The answer to a scrape.
    pub(super) fn answer(&self) -> Response {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let seen = self.jobs.sources(&Principal::local());
        let sources: Vec<&SourceStatus> = seen.iter().map(|source| &source.status).collect();
        let each = |value: fn(&SourceStatus) -> Option<f64>| {
            sources
                .iter()
                .filter_map(move |source| Some(([("source", source.name.as_str())], value(source)?)))
        };
        gauge(
            out,
            "jobgate_source_calls_in_flight",
            "Calls under way.",
            each(|it| Some(it.budget.in_flight.into())),
        )?;
        let help = "Calls that could start now before the hourly limit is reached.";
        gauge(
            out,
            "jobgate_source_budget_left_this_hour",
            help,
            each(|it| Some(it.budget.left_this_hour.into())),
        )?;
        let help = "No call is made before this time, in seconds since 1970; missing while nothing holds calls back.";
        gauge(
            out,
            "jobgate_source_throttled_until_timestamp_seconds",
            help,
            each(|it| it.throttled_until.map(seconds)),
        )?;
        let help =
            "When the credential in force ends, in seconds since 1970; missing where that is not known.";
        let end = |it: &SourceStatus| it.credential.expires_at.map(seconds);
        gauge(out, "jobgate_source_credential_expiry_timestamp_seconds", help, each(end))?;
        let help = "Since when the credential in force is, by this gateway, in seconds since 1970.";
        let since = |it: &SourceStatus| it.credential.in_force_since.map(seconds);
        gauge(out, "jobgate_source_credential_in_force_since_timestamp_seconds", help, each(since))?;
        let states = sources.iter().flat_map(|source| {
            CREDENTIALS.iter().map(|(state, word)| {
                let is = source.credential.state == *state;
                ([("source", source.name.as_str()), ("state", *word)], f64::from(u8::from(is)))
            })
        });
        gauge(out, "jobgate_source_credential_state", "1 for the state that the credential is in.", states)?;
        let healths = sources.iter().flat_map(|source| {
            HEALTHS.iter().map(|(health, word)| {
                let is = source.health == *health;
                ([("source", source.name.as_str()), ("health", *word)], f64::from(u8::from(is)))
            })
        });
        gauge(out, "jobgate_source_health", "1 for how the source is doing.", healths)?;

        let counts = self.streams.counts();
        let open = [("websocket", counts.websocket), ("sse", counts.sse), ("multipart", counts.multipart)];
        let open = open.map(|(transport, count)| ([("transport", transport)], amount(count as u64)));
        gauge(out, "jobgate_streams_open", "Streams that are open.", open)?;

        let store = self.jobs.store_health();
        let followed = self.jobs.followed() as u64;
        for (name, help, value) in [
            ("jobgate_jobs_followed", "Jobs that are looked at until they end.", followed),
            (
                "jobgate_store_degraded",
                "1 while what is kept lies in memory alone.",
                u64::from(store.degraded),
            ),
            ("jobgate_store_unwritten", "Things that wait to be written.", store.unwritten),
            (
                "jobgate_store_dropped",
                "Things that could not wait for want of room, since the start.",
                store.dropped,
            ),
            (
                "jobgate_store_damaged",
                "Damaged records that were met and removed, since the start.",
                store.damaged,
            ),
            ("jobgate_store_quarantined", "Files set aside as damaged, since the start.", store.quarantined),
            ("jobgate_store_size_bytes", "The size of what lies on disk.", store.bytes),
            ("jobgate_store_jobs", "Jobs that lie on disk.", store.jobs),
        ] {
            out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&amount(value))?;
        }
        let help = "Spans, and exports of metrics, that did not reach the collector, since the start.";
        let mut lost = out.encode_descriptor("jobgate_telemetry_dropped", help, None, MetricType::Counter)?;
        for (signal, count) in dropped() {
            lost.encode_family(&[("signal", signal)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

/// Writes one gauge with its values by their labels.
fn gauge<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    let mut metric: MetricEncoder<'_> = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn amount(count: u64) -> f64 {
    count as f64
}
