//! `/status` on the admin listener: the current state, for a person in a browser or with `curl`. One document in two
//! forms. It contains no secret, no job and no client.

mod page;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::log_level;
use super::readiness::Readiness;
use super::source_labels::{CREDENTIALS, HEALTHS, word};
use crate::domain::principal::Principal;
use crate::inbound::http::concurrency_limit::ConcurrencyLimit;
use crate::inbound::streams::StreamRegistry;
use crate::jobs::Jobs;
use crate::telemetry::log;

/// The outcome of the last reload of the configuration. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct LastReload(Arc<Mutex<Option<(&'static str, Instant)>>>);

impl LastReload {
    /// Records an outcome, with the current time.
    pub fn record(&self, outcome: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((outcome, Instant::now()));
    }

    fn view(&self) -> Value {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(
            Value::Null,
            |(outcome, at)| json!({ "outcome": outcome, "secondsAgo": at.elapsed().as_secs() }),
        )
    }
}

/// The data that the status reads. A cheap clone.
#[derive(Clone)]
pub struct StatusEndpoint {
    /// The use cases.
    pub jobs: Jobs,
    /// The streams.
    pub streams: StreamRegistry,
    /// Whether traffic is accepted.
    pub readiness: Readiness,
    /// Concurrent requests.
    pub requests: ConcurrencyLimit,
    /// Connections of the public listener.
    pub connections: ConcurrencyLimit,
    /// The outcome of the last reload of the configuration.
    pub last_reload: LastReload,
    /// When the process started, by its clock and by its timers.
    pub started: (Timestamp, Instant),
}

impl StatusEndpoint {
    /// The time by the clock at the start and the timers since.
    fn now(&self) -> Timestamp {
        let (started, since) = self.started;
        started.checked_add(since.elapsed()).unwrap_or(started)
    }

    fn document(&self) -> Value {
        let sources = self.jobs.sources(&Principal::local());
        let sources: Vec<Value> = sources
            .iter()
            .map(|seen| {
                let (source, sweep) = (&seen.status, seen.sweep.as_ref());
                json!({
                    "name": source.name.as_str(),
                    "upstream": source.upstream.profile().name,
                    "health": word(&HEALTHS, &source.health),
                    "credential": word(&CREDENTIALS, &source.credential.state),
                    "credentialExpiresAt": source.credential.expires_at.map(|time| time.to_string()),
                    "callsInFlight": source.budget.in_flight,
                    "callsLeftThisHour": source.budget.left_this_hour,
                    "callsPerHour": source.budget.per_hour,
                    "throttledUntil": source.throttled_until.map(|time| time.to_string()),
                    "lastError": source.last_error.as_ref().map(|error| json!({
                        "at": error.at.to_string(), "kind": error.kind.word(), "message": error.message,
                    })),
                    "discovery": {
                        "enabled": seen.discovers,
                        "lastSweepAt": sweep.and_then(|sweep| sweep.swept_at).map(|time| time.to_string()),
                        "trusted": sweep.map(|sweep| sweep.trusted),
                        "jobsDiscovered": sweep.map(|sweep| sweep.discovered),
                    },
                })
            })
            .collect();
        let (counts, store, counters) = (self.streams.counts(), self.jobs.store_health(), log::counters());
        let places =
            |places: &ConcurrencyLimit| json!({ "underWay": places.taken(), "atMost": places.size() });
        json!({
            "jobgate": {
                "version": env!("CARGO_PKG_VERSION"),
                "startedAt": self.started.0.to_string(),
                "uptimeSeconds": self.started.1.elapsed().as_secs(),
                "traffic": self.readiness.traffic().word(),
            },
            "sources": sources,
            "load": { "requests": places(&self.requests), "connections": places(&self.connections) },
            "streams": { "websocket": counts.websocket, "sse": counts.sse, "multipart": counts.multipart },
            "jobs": { "followed": self.jobs.followed() },
            "store": {
                "degraded": store.degraded,
                "unwritten": store.unwritten,
                "dropped": store.dropped,
                "damaged": store.damaged,
                "quarantined": store.quarantined,
                "bytes": store.bytes,
                "jobs": store.jobs,
            },
            "lastReload": self.last_reload.view(),
            "log": {
                "level": log_level::view(),
                "errorsLastHour": counters.recent.errors,
                "warningsLastHour": counters.recent.warnings,
                "linesSuppressed": counters.suppressed,
                "linesDropped": counters.dropped,
            },
        })
    }
}

impl fmt::Debug for StatusEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusEndpoint").field("started", &self.started.0).finish_non_exhaustive()
    }
}

/// The route.
pub(super) fn router(status: StatusEndpoint) -> Router {
    Router::new().route("/status", get(show)).with_state(status)
}

async fn show(State(status): State<StatusEndpoint>, headers: HeaderMap) -> Response {
    let document = status.document();
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accepted.any(|media| media.contains("text/html")) {
        page::response(&document, status.now())
    } else {
        let media = [(header::CONTENT_TYPE, "application/json")];
        (media, format!("{document:#}\n")).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
