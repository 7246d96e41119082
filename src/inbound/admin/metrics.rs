//! `/metrics` on the admin listener: counters and current gauges, in the text format of Prometheus. Nothing is counted
//! here: see `telemetry::meters`.

mod shared_store;

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::principal::Principal;
use crate::domain::source::{CredentialState, SourceHealth, SourceStatus};
use crate::inbound::streams::StreamRegistry;
use crate::jobs::Jobs;
use crate::telemetry::log;
use crate::telemetry::meters::{
    self, ExpositionFormat, GaugeSnapshot, Handler, Instrument as I, LabelValue, ObservableSource,
};
use crate::telemetry::trace::provider::dropped;

/// Each health with its label.
pub(in crate::inbound) const HEALTHS: [(SourceHealth, &str); 7] = [
    (SourceHealth::Healthy, "healthy"),
    (SourceHealth::Untried, "unknown"),
    (SourceHealth::Throttled, "throttled"),
    (SourceHealth::Degraded, "degraded"),
    (SourceHealth::Unavailable, "unavailable"),
    (SourceHealth::CredentialRejected, "credential_rejected"),
    (SourceHealth::Unconfigured, "unconfigured"),
];

/// Each state of a credential with its label.
pub(in crate::inbound) const CREDENTIALS: [(CredentialState, &str); 6] = [
    (CredentialState::Active, "active"),
    (CredentialState::Refused, "rejected"),
    (CredentialState::Missing, "missing"),
    (CredentialState::PendingVerification, "pending_verification"),
    (CredentialState::PendingRejected, "pending_rejected"),
    (CredentialState::PendingInvalid, "pending_invalid"),
];

/// The label of a member of a closed list.
pub(in crate::inbound) fn word<T: PartialEq>(words: &[(T, &'static str)], member: &T) -> &'static str {
    words.iter().find(|(other, _)| other == member).map_or("unknown", |(_, word)| word)
}

/// The data that a scrape reads. A cheap clone.
#[derive(Clone, Debug)]
pub struct MetricsEndpoint {
    jobs: Jobs,
    streams: StreamRegistry,
}

impl MetricsEndpoint {
    /// The metrics of a gateway.
    pub const fn new(jobs: Jobs, streams: StreamRegistry) -> Self {
        Self { jobs, streams }
    }

    /// Registers the gauges for the export to a collector, if there is one.
    pub fn export_otlp(&self) {
        let read: Arc<dyn ObservableSource> = Arc::new(self.clone());
        meters::attach_readings(&read);
    }

    /// The response to a scrape, in the requested format.
    pub(in crate::inbound) fn answer(&self, headers: &HeaderMap) -> Response {
        let format = format(headers);
        match meters::write(format, self) {
            Ok(text) => {
                let headers =
                    [(header::CONTENT_TYPE, format.media_type()), (header::VARY, header::ACCEPT.as_str())];
                (headers, text).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "metrics exposition failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// `OpenMetrics` if `Accept` names it, unless with a weight of zero.
fn format(headers: &HeaderMap) -> ExpositionFormat {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|list| list.split(','));
    let names = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let named =
            parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight.is_none_or(|weight| weight > 0.0)
    };
    if ranges.any(names) { ExpositionFormat::OpenMetrics } else { ExpositionFormat::Classic }
}

/// Counts each request with its response, by the handler of its path.
pub(in crate::inbound) async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let handler = match request.uri().path() {
        "/graphql" | "/graphql/" => Some(Handler::Graphql),
        path if path.starts_with("/v1/") => Some(Handler::Rest),
        _ => None,
    };
    let response = next.run(request).await;
    let status = response.status();
    let missed = if status == StatusCode::NOT_FOUND { Handler::Nothing } else { Handler::Page };
    meters::request(handler.unwrap_or(missed), method.as_str(), status.as_u16(), began.elapsed());
    response
}

impl ObservableSource for MetricsEndpoint {
    fn read(&self, out: &mut GaugeSnapshot) {
        for source in self.jobs.sources(&Principal::local()) {
            read_source(&source.status, out);
        }
        let counts = self.streams.counts();
        for (transport, count) in
            [("websocket", counts.websocket), ("sse", counts.sse), ("multipart", counts.multipart)]
        {
            out.put_for(I::StreamsOpen, transport, amount(count as u64));
        }
        for (state, count) in self.jobs.followed_by_state() {
            out.put_for(I::JobsFollowed, state, amount(count));
        }
        let store = self.jobs.store_health();
        for (instrument, value) in [
            (I::CacheJobs, store.memory),
            (I::StoreDegraded, u64::from(store.degraded)),
            (I::StoreUnwritten, store.unwritten),
            (I::StoreDropped, store.dropped),
            (I::StoreDamaged, store.damaged),
            (I::StoreQuarantined, store.quarantined),
            (I::StoreSize, store.bytes),
            (I::StoreJobs, store.jobs),
        ] {
            out.put(instrument, amount(value));
        }
        if let Some(tier) = store.shared_store {
            shared_store::read(&tier, out);
        }
        out.put(I::LogLinesDropped, amount(log::counters().dropped));
        for (signal, count) in dropped() {
            out.put_for(I::TelemetryDropped, signal, amount(count));
        }
    }
}

fn read_source(source: &SourceStatus, out: &mut GaugeSnapshot) {
    let name = &source.name;
    for (instrument, value) in [
        (I::SourceBreakerOpen, Some(f64::from(u8::from(source.breaker_open)))),
        (I::SourceCallsInFlight, Some(source.budget.in_flight.into())),
        (I::SourceConcurrency, Some(source.budget.concurrency.into())),
        (I::SourceBudgetPerHour, Some(source.budget.per_hour.into())),
        (I::SourceBudgetLeft, Some(source.budget.left_this_hour.into())),
        (I::SourceThrottledUntil, source.throttled_until.map(seconds)),
        (I::CredentialExpiry, source.credential.expires_at.map(seconds)),
        (I::CredentialActiveSince, source.credential.active_since.map(seconds)),
    ] {
        if let Some(value) = value {
            out.put_for(instrument, name, value);
        }
    }
    for (state, word) in CREDENTIALS {
        let is = f64::from(u8::from(source.credential.state == state));
        out.put_of(I::CredentialState, [name.into(), word.into(), LabelValue::None], is);
    }
    for (health, word) in HEALTHS {
        let is = f64::from(u8::from(source.health == health));
        out.put_of(I::SourceHealth, [name.into(), word.into(), LabelValue::None], is);
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn amount(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn openmetrics_is_served_only_when_accepted() {
        for (accept, expected) in [
            (None, ExpositionFormat::Classic),
            (Some("*/*"), ExpositionFormat::Classic),
            (Some("text/plain;version=0.0.4"), ExpositionFormat::Classic),
            (Some("application/openmetrics-text; version=1.0.0"), ExpositionFormat::OpenMetrics),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                ),
                ExpositionFormat::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0, text/plain"), ExpositionFormat::Classic),
        ] {
            let headers = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(format(&headers.into_iter().collect()), expected, "{accept:?}");
        }
    }
}
