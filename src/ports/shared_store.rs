//! The health of the server that replicas share, as observed by one process. Numbers only: the store decides what they
//! mean for answers.

use std::time::Duration;

/// The health of the server that replicas share. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStoreHealth {
    /// A connection for commands is open.
    pub connected: bool,
    /// For how long it has been unavailable; `None` while it is in use.
    pub unavailable_for: Option<Duration>,
    /// The number of replicas at the last heartbeat, this one included.
    pub replicas: u32,
    /// How far its clock is ahead of this process's, in milliseconds, if it was measured.
    pub clock_ahead_ms: i64,
    /// Connections opened for commands: each one after the first is a reconnect.
    pub connections: u64,
    /// Times the sentinels reported a different server.
    pub failovers: u64,
    /// Times its data was found to be lost.
    pub emptied: u64,
    /// Leases acquired after another replica let them expire.
    pub takeovers: u64,
    /// Writes rejected because their lease was no longer valid.
    pub fence_refusals: u64,
    /// Calls to sources that were counted against the local share of the budget, because the shared budget was
    /// unavailable.
    pub local_budget: u64,
    /// Notifications received from other replicas.
    pub notifications: u64,
    /// Times notifications may have been missed.
    pub gaps: u64,
    /// Times all followed jobs were read again.
    pub reconciled: u64,
}
