//! The time until the response of a request must start.

use std::time::Duration;

use axum::response::Response;

use super::error::{HttpRefusal, RefusalKind};

/// The retry delay for a client whose request exceeded its deadline.
const AGAIN: Duration = Duration::from_secs(1);

/// The response of a future, or a refusal at the deadline.
///
/// # Errors
/// When there is no response by then.
pub(super) async fn in_time(
    deadline: Duration,
    running: impl Future<Output = Response>,
) -> Result<Response, HttpRefusal> {
    tokio::time::timeout(deadline, running).await.map_err(|_| {
        let message =
            format!("no response within {deadline:?}; request fewer jobs at a time, or retry later");
        HttpRefusal::new(RefusalKind::DeadlineExceeded, message).retry_after(AGAIN)
    })
}
