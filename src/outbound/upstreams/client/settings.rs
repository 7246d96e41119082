//! The configuration of one source, and what all sources share.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::SourceName;
use crate::domain::sweep::DiscoveryRules;
use crate::outbound::http::{BaseUrl, UpstreamHttpClient};
use crate::outbound::redis::SharedStore;
use crate::outbound::upstreams::limiter::LimiterSettings;
use crate::ports::clock::Clock;
use crate::ports::credentials::Credentials;
use crate::ports::entropy::Entropy;

/// The configuration of one source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name.
    pub name: SourceName,
    /// Its base URL.
    pub base_url: BaseUrl,
    /// Calls per second.
    pub per_second: u32,
    /// Calls per hour.
    pub per_hour: u32,
    /// The part of the hourly calls that is reserved for callers, in percent.
    pub caller_share: u32,
    /// Concurrent calls.
    pub concurrency: u32,
    /// How long a call may wait in the queue.
    pub max_wait: Duration,
    /// The timeout of a status call in all: the wait in the queue, every try and the backoff between them.
    pub status_timeout: Duration,
    /// The same for a page of rows.
    pub rows_timeout: Duration,
    /// The largest decoded body of a status call, in bytes.
    pub max_status_body: usize,
    /// The largest decoded body of a page of rows, in bytes.
    pub max_rows_body: usize,
    /// Which jobs are discovered.
    pub discovery: Option<DiscoveryRules>,
    /// The data sources whose jobs are listed, where a list requires them.
    pub data_sources: Vec<String>,
    /// Whether calls carry a `traceparent` header.
    pub propagate_trace: bool,
}

impl SourceSettings {
    /// The limits of its calls.
    pub(super) const fn limits(&self) -> LimiterSettings {
        LimiterSettings {
            per_second: self.per_second,
            per_hour: self.per_hour,
            caller_share: self.caller_share,
            concurrency: self.concurrency,
            max_wait: self.max_wait,
        }
    }
}

/// The dependencies that all sources share.
#[derive(Clone, Debug)]
pub struct SourceDeps {
    /// The client; a source with another proxy or TLS configuration has its own.
    pub http_client: Arc<UpstreamHttpClient>,
    /// The credentials.
    pub credentials: Arc<dyn Credentials>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The shared store, if there are several replicas.
    pub shared_store: Option<SharedStore>,
}
