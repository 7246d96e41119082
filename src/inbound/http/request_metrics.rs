//! The metrics of requests: each is counted with its response, by the handler of its route.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::route::Route;
use crate::telemetry::meters::{self, Handler};

/// The layer that counts.
pub(super) async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let handler = Route::of(&request).map_or(Handler::Nothing, Route::handler);
    let response = next.run(request).await;
    meters::request(handler, method.as_str(), response.status().as_u16(), began.elapsed());
    response
}
