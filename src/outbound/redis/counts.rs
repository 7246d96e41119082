//! What this process has met on its way to Redis, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ports::tier::TierHealth;

/// The counts. Whoever meets something adds to them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) emptied: AtomicU64,
    /// Commands that were not done, for whatever reason.
    pub(super) faults: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) fence_refusals: AtomicU64,
    pub(super) own_share: AtomicU64,
}

/// Adds one.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// The counts so far; what is not counted here is left at its default.
    pub(super) fn health(&self) -> TierHealth {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TierHealth {
            connections: number(&self.connections),
            emptied: number(&self.emptied),
            takeovers: number(&self.takeovers),
            fence_refusals: number(&self.fence_refusals),
            own_share: number(&self.own_share),
            ..TierHealth::default()
        }
    }
}
