//! `/status` on the admin listener: the current state, for a person in a browser or with `curl`. One document in two
//! forms. It contains no secret, no job and no client.

use std::fmt;
use std::fmt::Write as _;
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

/// The page contains its own style, and may load nothing.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:60rem;color:#1b1b1b;background:#fff}\
h2{font-size:1.1rem;margin:1.5rem 0 .3rem}table{border-collapse:collapse}th,td{text-align:left;padding:.15rem .9rem .15rem 0;\
vertical-align:top}th{font-weight:600}";

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
    fn document(&self) -> Value {
        let sources = self.jobs.sources(&Principal::local());
        let sources: Vec<Value> = sources
            .iter()
            .map(|seen| {
                let source = &seen.status;
                json!({
                    "name": source.name.as_str(),
                    "upstream": source.upstream.profile().name,
                    "health": word(&HEALTHS, &source.health),
                    "credential": word(&CREDENTIALS, &source.credential.state),
                    "credentialExpiresAt": source.credential.expires_at.map(|time| time.to_string()),
                    "callsInFlight": source.budget.in_flight,
                    "callsLeftThisHour": source.budget.left_this_hour,
                    "throttledUntil": source.throttled_until.map(|time| time.to_string()),
                    "lastError": source.last_error.as_ref().map(|error| json!({
                        "at": error.at.to_string(), "kind": error.kind.word(), "message": error.message,
                    })),
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
        let mut response = page(&document).into_response();
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    } else {
        let media = [(header::CONTENT_TYPE, "application/json")];
        (media, format!("{document:#}\n")).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The document as a page: a table for each of its parts.
fn page(document: &Value) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>jobgate: status</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main><h1>jobgate</h1>"
    );
    for (name, part) in document.as_object().into_iter().flatten() {
        html.push_str("<h2>");
        text(&mut html, name);
        html.push_str("</h2><table>");
        match part {
            Value::Array(rows) => {
                if let Some(Value::Object(first)) = rows.first() {
                    row(&mut html, "th", first.keys().map(String::as_str));
                }
                for fields in rows.iter().filter_map(Value::as_object) {
                    let cells: Vec<String> = fields.values().map(cell).collect();
                    row(&mut html, "td", cells.iter().map(String::as_str));
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    row(&mut html, "td", [name.as_str(), cell(value).as_str()].into_iter());
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                row(&mut html, "td", [cell(part).as_str()].into_iter());
            }
        }
        html.push_str("</table>");
    }
    html.push_str("</main></body></html>\n");
    html
}

fn row<'a>(html: &mut String, tag: &str, cells: impl Iterator<Item = &'a str>) {
    html.push_str("<tr>");
    for cell in cells {
        write!(html, "<{tag}>").ok();
        text(html, cell);
        write!(html, "</{tag}>").ok();
    }
    html.push_str("</tr>");
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", cell(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

fn text(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
}
