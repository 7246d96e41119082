//! Rejects requests over the limit of concurrent ones at once, since a queue would only add waiting. One log line for
//! many of them.

use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::concurrency_limit::ConcurrencyLimit;
use super::error::HttpRefusal;
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

    /// Admits a request for as long as the permit is held.
    ///
    /// # Errors
    /// When as many requests as allowed are running.
    pub(super) fn admit(&self) -> Result<SemaphorePermit<'_>, HttpRefusal> {
        self.concurrency.semaphore().try_acquire().map_err(|_| {
            if let Some(requests) = self.shed_request() {
                tracing::warn!(requests, "requests rejected; server.max_requests is reached");
            }
            let message = "the gateway is at its limit of concurrent requests; retry later";
            HttpRefusal::overloaded(self.retry_after, message)
        })
    }
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
