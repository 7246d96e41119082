//! `streams`: lifetime, keep-alive and limits of streams.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::ServerConfig;
use super::validation::ValidationErrors;
use super::values::{Count, DAY, HOUR, SECOND, Span};

/// Lifetime, keep-alive and limits of streams.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamsConfig {
    /// Time without traffic after which jobgate pings a WebSocket. The pong must arrive within 10s more than this time. A
    /// WebSocket is closed after two pings in a row without a pong. An event stream or multipart response gets a keep-alive
    /// message after three fifths of this time without updates.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub ping_interval: Duration,
    /// Maximum age of a stream, ±20 %. The client then opens another stream.
    #[serde(with = "Span::<SECOND, { 30 * DAY }>")]
    pub max_age: Duration,
    /// Maximum number of streams of one client: WebSocket connections, event streams and multipart responses.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_streams_per_client: usize,
    /// Maximum number of concurrent operations of one client, over all its streams.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub max_operations_per_client: usize,
    /// Time over which a shutdown spreads the end of the streams, so that clients do not all reconnect at once. It must not be
    /// longer than `server.drain_timeout`.
    #[serde(with = "Span::<0, HOUR>")]
    pub drain_window: Duration,
}

impl StreamsConfig {
    pub(super) fn check(&self, server: &ServerConfig, faults: &mut ValidationErrors) {
        if self.drain_window > server.drain_timeout {
            faults.add("streams.drain_window", "must not be longer than server.drain_timeout");
        }
    }
}
