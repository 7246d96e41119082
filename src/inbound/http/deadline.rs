//! The time until the response of a request must start.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::error::{HttpRefusal, RefusalKind};
use super::refusal_form::refuse;
use super::route::Route;

/// The retry delay for a client whose request exceeded its deadline.
const AGAIN: Duration = Duration::from_secs(1);

/// The layer that refuses a request at its deadline.
pub(super) async fn in_time(State(deadline): State<Duration>, request: Request, next: Next) -> Response {
    let route = Route::of(&request);
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refuse(
            route,
            HttpRefusal::new(
                RefusalKind::DeadlineExceeded,
                format!("no response within {deadline:?}; request fewer jobs at a time, or retry later"),
            )
            .retry_after(AGAIN),
        ),
    }
}
