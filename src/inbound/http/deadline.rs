//! The time until the response of a request must start.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::response::Response;
use futures_util::poll;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::error::{HttpRefusal, RefusalKind};

/// The retry delay for a client whose request exceeded its deadline.
const AGAIN: Duration = Duration::from_secs(1);

/// The response of a request that began then, or a refusal at its deadline.
///
/// # Errors
/// When there is no response by then.
pub(super) async fn in_time(
    began: Instant,
    deadline: Duration,
    running: impl Future<Output = Response>,
) -> Result<Response, HttpRefusal> {
    timeout_at(|| began + deadline, running).await.map_err(|_| {
        let message =
            format!("no response within {deadline:?}; request fewer jobs at a time, or retry later");
        HttpRefusal::new(RefusalKind::DeadlineExceeded, message).retry_after(AGAIN)
    })
}

/// As [`tokio::time::timeout_at`], without a timer for what is ready at once, which most requests are. `at` is called when
/// the future has to wait.
///
/// # Errors
/// When the future does not complete by then.
pub(in crate::inbound) async fn timeout_at<T>(
    at: impl FnOnce() -> Instant,
    running: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut running = pin!(running);
    match poll!(running.as_mut()) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => tokio::time::timeout_at(at(), running).await,
    }
}
