//! The span of a request: a child of the trace context in its headers, until its response starts. A stream that
//! continues has no span.

use axum::extract::Request;
use tracing::Span;

use super::route::{self, Route};
use crate::telemetry::trace;

/// The span of a request; a disabled one while no traces are exported.
pub(super) fn of(route: Option<Route>, request: &Request) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    let name = route.and_then(Route::span);
    trace::request(request.headers(), request.method(), name, route::span_path(route))
}
