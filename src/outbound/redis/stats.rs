//! Counters of this process's use of Redis, since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ports::shared_store::SharedStoreHealth;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct RedisStats {
    pub(super) connections: AtomicU64,
    pub(super) emptied: AtomicU64,
    /// Commands that were not done, for any reason.
    pub(super) faults: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) fence_refusals: AtomicU64,
    pub(super) local_budget: AtomicU64,
}

/// Increments a counter.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl RedisStats {
    /// The current counters; fields without a counter here keep their default.
    pub(super) fn health(&self) -> SharedStoreHealth {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SharedStoreHealth {
            connections: number(&self.connections),
            emptied: number(&self.emptied),
            takeovers: number(&self.takeovers),
            fence_refusals: number(&self.fence_refusals),
            local_budget: number(&self.local_budget),
            ..SharedStoreHealth::default()
        }
    }
}
