//! `/log-level` on the admin listener: the log directives, read with GET and changed with PUT, permanently or for a
//! limited time.
//!
//! A page in a browser must not change them, whatever its address resolves to: requests of browsers are rejected.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use crate::domain::duration;
use crate::telemetry::log;

/// The longest list of directives, in bytes.
const BODY_MAX: usize = 4 * 1024;
/// The timeout of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest limited time.
const WHILE_MAX: Duration = Duration::from_hours(24);

/// The route.
pub(super) fn router() -> Router {
    Router::new().route("/log-level", get(async || shown()).put(change))
}

fn shown() -> Response {
    answer(StatusCode::OK, &view())
}

/// The current directives, as they are shown.
pub(super) fn view() -> Value {
    let level = log::level();
    let for_now = level.for_now.as_ref();
    json!({
        "active": level.active(),
        "configured": level.lasting,
        "restoredInSeconds": for_now.map(|(_, left)| left.as_secs()),
    })
}

async fn change(headers: HeaderMap, RawQuery(query): RawQuery, body: Body) -> Response {
    match set(&headers, query.as_deref(), body).await {
        Ok(()) => shown(),
        Err((status, error)) => answer(status, &json!({ "error": error })),
    }
}

async fn set(headers: &HeaderMap, query: Option<&str>, body: Body) -> Result<(), (StatusCode, String)> {
    let bad = |text: &str| (StatusCode::BAD_REQUEST, text.to_owned());
    // every browser adds one of these headers to a PUT; no other client does
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        let message = "browser pages cannot change the log level; send the request with a tool such as curl";
        return Err((StatusCode::FORBIDDEN, message.to_owned()));
    }
    let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    if media.split(';').next().is_none_or(|media| !media.trim().eq_ignore_ascii_case("text/plain")) {
        let message = "content-type must be text/plain, and the body a level or a list of directives";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let time = time(query).map_err(bad)?;
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await;
    let bytes = read.map_err(|_| bad("the body was not received in time"))?;
    let bytes = bytes.map_err(|_| bad("the body cannot be read, or exceeds 4KiB"))?.to_bytes();
    let directives = std::str::from_utf8(&bytes).map_err(|_| bad("the body must be UTF-8"))?.trim();
    match time {
        Some(time) => log::set_level_for(directives, time),
        None => log::set_level(directives),
    }
    .map_err(|error| bad(&error.to_string()))
}

/// The time of `?for=10m`, if it is present.
fn time(query: Option<&str>) -> Result<Option<Duration>, &'static str> {
    let fault = "for must be a duration from 1s to 24h, such as ?for=10m";
    match query {
        None | Some("") => Ok(None),
        Some(query) => {
            let text =
                query.strip_prefix("for=").ok_or("the only query parameter is for, such as ?for=10m")?;
            let time = duration::parse(text).ok().ok_or(fault)?;
            if time < Duration::from_secs(1) || time > WHILE_MAX {
                return Err(fault);
            }
            Ok(Some(time))
        }
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
