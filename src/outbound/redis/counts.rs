//! What this process has met on its way to Redis, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ports::tier::{CommandOutcome, SPANS_MS, TierHealth};

/// The counts. Whoever meets something adds to them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) emptied: AtomicU64,
    pub(super) takeovers: AtomicU64,
    pub(super) fence_refusals: AtomicU64,
    pub(super) own_share: AtomicU64,
    commands: [AtomicU64; CommandOutcome::ALL.len()],
    durations: [AtomicU64; SPANS_MS.len() + 1],
    took_micros: AtomicU64,
}

/// Adds one.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// Counts a command that was sent, and how long it took.
    pub(super) fn command(&self, outcome: CommandOutcome, took: Duration) {
        self.outcome(outcome);
        let place = SPANS_MS.iter().take_while(|end| took > Duration::from_millis(**end)).count();
        if let Some(span) = self.durations.get(place) {
            add(span);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took_micros.fetch_add(micros, Ordering::Relaxed);
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
            durations: self.durations.each_ref().map(number),
            took: Duration::from_micros(number(&self.took_micros)),
            takeovers: number(&self.takeovers),
            fence_refusals: number(&self.fence_refusals),
            own_share: number(&self.own_share),
            ..TierHealth::default()
        }
    }
}
