//! Rejects requests over the limit of concurrent ones at once, since a queue would only add waiting. One log line for
//! many of them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::concurrency_limit::ConcurrencyLimit;
use super::error::HttpRefusal;
use super::refusal_form::refuse;
use super::route::Route;
use crate::telemetry::throttle::Throttle;

/// The shortest interval of the log lines about rejected requests.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The limit of concurrent requests, and that of the log lines about rejected ones.
pub(super) struct LoadShed {
    concurrency: ConcurrencyLimit,
    retry_after: Duration,
    warning: Throttle,
}

impl LoadShed {
    /// Rejects with this retry delay.
    pub(super) fn new(concurrency: ConcurrencyLimit, retry_after: Duration) -> Self {
        Self { concurrency, retry_after, warning: Throttle::new(1, WARN_EVERY) }
    }

    /// Counts a rejected request, and returns the number to log, if a line is due.
    fn shed_request(&self) -> Option<u64> {
        self.warning.admit().map(|suppressed| suppressed + 1)
    }
}

/// The layer that rejects.
pub(super) async fn shed(State(load_shed): State<Arc<LoadShed>>, request: Request, next: Next) -> Response {
    if let Ok(_permit) = load_shed.concurrency.semaphore().try_acquire() {
        return next.run(request).await;
    }
    if let Some(requests) = load_shed.shed_request() {
        tracing::warn!(requests, "requests rejected; server.max_requests is reached");
    }
    let message = "the gateway is at its limit of concurrent requests; retry later";
    refuse(Route::of(&request), HttpRefusal::overloaded(load_shed.retry_after, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_rejections_log_one_warning_with_their_count() {
        let load_shed = LoadShed::new(ConcurrencyLimit::new(0), Duration::ZERO);
        assert_eq!([0; 4].map(|_| load_shed.shed_request()), [Some(1), None, None, None]);
        tokio::time::advance(WARN_EVERY).await;
        assert_eq!([0; 2].map(|_| load_shed.shed_request()), [Some(4), None]);
    }
}
