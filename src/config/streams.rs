//! `streams`: how long a stream may live and be silent, and how many there may be.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::server::ServerConfig;
use super::values::{Count, DAY, HOUR, KIB, MIB, MINUTE, SECOND, Size, Span};

/// How long a stream may live and be silent, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamsConfig {
    /// Longest time for a WebSocket client to send its `connection_init`.
    #[serde(with = "Span::<1, MINUTE>")]
    pub init_timeout: Duration,
    /// How long a WebSocket may be silent until it is pinged.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub ping_interval: Duration,
    /// How long an answer to a ping is waited for. Two pings in a row without one, or nothing taken of what is sent for twice
    /// as long, and the peer is given up.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub pong_timeout: Duration,
    /// How often an event stream on which nothing happens says that it is alive.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub heartbeat: Duration,
    /// How old a stream gets, give or take a fifth; then the client opens another.
    #[serde(with = "Span::<SECOND, { 30 * DAY }>")]
    pub max_age: Duration,
    /// Most operations at the same time on one WebSocket.
    #[serde(with = "Count::<1, 10_000>")]
    pub max_operations: usize,
    /// Most streams of one client, of every kind.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_streams_per_client: usize,
    /// Most operations of one client at the same time, over all its streams.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub max_operations_per_client: usize,
    /// Longest message of a WebSocket client, in bytes.
    #[serde(with = "Size::<KIB, { 16 * MIB }>")]
    pub max_message: usize,
    /// Over what time the streams are ended when told to stop, so that clients do not all come back at once.
    #[serde(with = "Span::<0, HOUR>")]
    pub drain_window: Duration,
}

impl StreamsConfig {
    pub(super) fn check(&self, server: &ServerConfig, faults: &mut Faults) {
        if self.drain_window > server.drain_timeout {
            faults.add("streams.drain_window", "must not be longer than server.drain_timeout");
        }
    }
}
