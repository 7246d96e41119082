//! The limits of a source.

use std::time::Duration;

/// The limits of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSettings {
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
}
