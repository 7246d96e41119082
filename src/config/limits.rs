//! `limits`: limits per client. Streams and their operations are limited in `streams`, documents in `graphql`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation::ValidationErrors;
use super::values::Count;

/// Limits per client. A request above a limit is refused with 429.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Maximum number of requests per second of one client after its burst is used. An operation on a WebSocket counts as a
    /// request.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub requests_per_second: u32,
    /// Maximum number of requests of one client at once after a pause; at least `requests_per_second`.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub burst: u32,
    /// Maximum number of concurrent requests of one client. A request that waits for a job counts.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub concurrent_requests: usize,
    /// Maximum number of jobs that one client watches at the same time, over all its streams.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub jobs_watched: usize,
}

impl LimitsConfig {
    pub(super) fn check(&self, faults: &mut ValidationErrors) {
        if self.burst < self.requests_per_second {
            let message = "must not be less than limits.requests_per_second";
            faults.add("limits.burst", message);
        }
    }
}
