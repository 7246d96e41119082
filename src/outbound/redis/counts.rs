//! What this process has met on its way to Redis, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ports::tier::{CommandOutcome, TierHealth};
use crate::telemetry::meters;

/// The counts. Whoever meets something adds to them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) emptied: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) fence_refusals: AtomicU64,
    pub(super) own_share: AtomicU64,
    commands: [AtomicU64; CommandOutcome::ALL.len()],
}

/// Adds one.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// Counts a command that was sent, and how long it took.
    pub(super) fn command(&self, outcome: CommandOutcome, took: Duration) {
        self.outcome(outcome);
        meters::redis_command_took(took);
    }

    /// Counts a command that was not sent.
    pub(super) fn left(&self) {
        self.outcome(CommandOutcome::Left);
    }

    fn outcome(&self, outcome: CommandOutcome) {
        let place = CommandOutcome::ALL.iter().position(|one| *one == outcome);
        if let Some(count) = place.and_then(|place| self.commands.get(place)) {
            add(count);
        }
    }

    /// The counts so far; what is not counted here is left at its default.
    pub(super) fn health(&self) -> TierHealth {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TierHealth {
            connections: number(&self.connections),
            emptied: number(&self.emptied),
            commands: self.commands.each_ref().map(number),
            takeovers: number(&self.takeovers),
            fence_refusals: number(&self.fence_refusals),
            own_share: number(&self.own_share),
            ..TierHealth::default()
        }
    }
}
