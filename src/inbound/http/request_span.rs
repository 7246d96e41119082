//! The span of a request: a child of the trace context in its headers, until its response starts. A stream that
//! continues has no span.

use axum::extract::Request;

use super::route::{self, Route};
use crate::telemetry::trace::{self, RequestTrace};

/// The trace of a request.
pub(super) fn of(route: Option<Route>, request: &Request) -> RequestTrace {
    let name = route.and_then(Route::span);
    trace::request(request.headers(), request.method(), name, route::span_path(route))
}
