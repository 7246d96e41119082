//! `limits`: what one client may take of the gateway, so that none can take it all. Streams and their operations are
//! limited in `streams`, documents in `graphql`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::values::Count;

/// What one client may take of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Most requests of one client in a second, once its burst is used up. An operation on a WebSocket counts as one.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub requests_per_second: u32,
    /// Most requests of one client at once after a pause.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub burst: u32,
    /// Most requests of one client that are answered at the same time. Whoever waits for a job holds one.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub concurrent_requests: usize,
    /// Most jobs that one client watches at the same time, over all its streams.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub jobs_watched: usize,
    /// Most credentials in a minute that are presented from one address (of IPv6: one /64) and refused with 401; what comes
    /// beyond is refused with 429. A good credential passes all the same, since many clients can share an address.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub bad_credentials_per_minute: u32,
}

impl LimitsConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.burst < self.requests_per_second {
            let message = "must not be less than limits.requests_per_second, or that is never reached";
            faults.add("limits.burst", message);
        }
    }
}
