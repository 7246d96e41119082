//! The settings of streams; a reload replaces them.

use std::time::Duration;

use crate::inbound::http::origins::Origins;

/// The settings of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// How long a WebSocket client may take until its `connection_init`.
    pub init_timeout: Duration,
    /// How long a WebSocket may be silent until it is pinged.
    pub ping_interval: Duration,
    /// How long the response to each of two consecutive pings is awaited, and half of how long a peer may accept no
    /// data.
    pub pong_timeout: Duration,
    /// The interval of the keep-alive of an event stream.
    pub heartbeat: Duration,
    /// The maximum age of a stream, give or take a fifth.
    pub max_age: Duration,
    /// Concurrent operations on one WebSocket.
    pub max_operations: usize,
    /// Concurrent streams of one client, of every kind.
    pub max_streams_per_client: usize,
    /// Concurrent operations of one client, over all its streams.
    pub max_operations_per_client: usize,
    /// The longest message of a WebSocket client, in bytes.
    pub max_message: usize,
    /// The origins of pages that may open a stream.
    pub origins: Origins,
    /// The time over which all streams are ended when the process drains.
    pub drain_window: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            init_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(35),
            heartbeat: Duration::from_secs(15),
            max_age: Duration::from_hours(1),
            max_operations: 200,
            max_streams_per_client: 1000,
            max_operations_per_client: 5000,
            max_message: 64 * 1024,
            origins: Origins::default(),
            drain_window: Duration::from_secs(10),
        }
    }
}
