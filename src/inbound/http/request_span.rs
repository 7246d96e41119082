//! The span of a request: a child of the trace context in its headers, until its response starts. A stream that
//! continues has no span.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::route::{self, Route};
use crate::telemetry::trace;

/// The layer that creates it.
pub(super) async fn request(request: Request, next: Next) -> Response {
    if !trace::is_on() {
        return next.run(request).await;
    }
    let route = Route::of(&request);
    let name = route.and_then(Route::span);
    let span = trace::request(request.headers(), request.method(), name, route::span_path(route));
    let response = Box::pin(next.run(request)).instrument(span.clone()).await;
    trace::answered(&span, response.status());
    response
}
