//! How the server that replicas share is doing, by what one process has met. Numbers only: what they mean for answers is
//! the store's business.

use std::time::Duration;

/// How the server that replicas share is doing. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStoreHealth {
    /// A connection for commands stands.
    pub connected: bool,
    /// For how long it has been left alone, because it did not answer; none while it is asked.
    pub away_for: Option<Duration>,
    /// How many replicas there are, by what was last known, this one included.
    pub replicas: u32,
    /// How far its clock is ahead of this process's, in milliseconds, as far as that was measured.
    pub clock_ahead_ms: i64,
    /// Connections made for commands: each but the first came after a loss.
    pub connections: u64,
    /// Times when sentinels named another server than before.
    pub failovers: u64,
    /// Times when it was found emptied.
    pub emptied: u64,
    /// Turns that were taken over from another replica which did not end them.
    pub takeovers: u64,
    /// Writes that were refused because their turn was over.
    pub fence_refusals: u64,
    /// Calls to sources that were counted against this replica's even share, because the common budget was out of reach.
    pub own_share: u64,
    /// Hints heard from other replicas.
    pub hints: u64,
    /// Times when hints may have been missed.
    pub gaps: u64,
    /// Times when everything followed was read again.
    pub reconciled: u64,
}
