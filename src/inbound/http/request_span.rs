//! The span of a request: a child of the trace context in its headers, until its response starts. A stream that
//! continues has no span.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::route::Route;
use crate::telemetry::trace;

/// The layer that creates it.
pub(super) async fn request(request: Request, next: Next) -> Response {
    if !trace::is_on() {
        return next.run(request).await;
    }
    let span = trace::request(request.headers(), request.method(), Route::of(&request).map(Route::pattern));
    let response = Box::pin(next.run(request)).instrument(span.clone()).await;
    trace::answered(&span, response.status());
    response
}
