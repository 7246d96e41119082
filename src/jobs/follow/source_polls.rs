//! The polls of one source: its demand, its capacity, and the start times of its next requests while polls are spaced.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::coverage::{SweepCoverage, UnlistedChange};
use super::poll_queue::{PollClient, PollQueue, QueuePosition};
use super::round_robin::RoundRobin;
use super::source_demand::SourceDemand;
use crate::domain::id::{JobHasher, JobKey};

/// How long a copy of the positions of a queue is accurate enough for a forecast.
const ORDER_LASTS: Duration = Duration::from_millis(250);
/// A copy of at most this many positions is made again after each round.
const ORDER_SMALL: usize = 1_000;

/// The demand of the jobs of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct PollLoad {
    /// Jobs that are scheduled for a poll.
    pub(in crate::jobs) jobs: usize,
    /// Jobs that are not followed and scheduled for a read.
    pub(in crate::jobs) reads: usize,
    /// Whether any of them is watched.
    pub(in crate::jobs) awaited: bool,
    /// The longest time between two polls of one job.
    pub(in crate::jobs) slowest: Duration,
    /// The time between two sweeps, while they are in force.
    pub(in crate::jobs) sweep_interval: Option<Duration>,
}

/// How many jobs of one source may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct PollCapacity {
    /// Jobs in all.
    pub(in crate::jobs) jobs: usize,
    /// Jobs that are read at once although polls are spaced: those that a list does not contain any more.
    pub(in crate::jobs) urgent: usize,
    /// Jobs that fit in one request.
    pub(in crate::jobs) a_request: usize,
    /// The time between the starts of requests; zero while the budget is sufficient.
    pub(in crate::jobs) spacing: Duration,
    /// No request starts before this time.
    pub(in crate::jobs) opens: Option<Instant>,
    /// The circuit breaker is open, for at least this long.
    pub(in crate::jobs) broken_for: Option<Duration>,
    /// The circuit breaker was open and has closed.
    pub(in crate::jobs) recovered: bool,
}

/// The state of the polls of one source.
#[derive(Debug, Default)]
pub(super) struct SourcePolls {
    /// The number of interests that receive updates.
    pub(super) watchers: usize,
    pub(super) round_robin: RoundRobin<PollClient>,
    pub(super) slots: Option<RequestSlots>,
    pub(super) broken: bool,
    /// The job that is polled to find out whether the source has recovered.
    pub(super) probe: Option<JobKey>,
    /// The sweeps that are in force.
    pub(super) coverage: Option<SweepCoverage>,
    /// What the followed jobs require of sweeps.
    pub(super) demand: SourceDemand,
    /// The position in the queue up to which the demand of its jobs was counted again.
    pub(super) recounted_to: Option<QueuePosition>,
    /// The changes of covered jobs that no list contained yet.
    pub(super) unlisted: Vec<UnlistedChange>,
    /// The jobs that are not followed and scheduled for a read, with their positions in the queue.
    pub(super) reads: HashMap<JobKey, QueuePosition, JobHasher>,
    /// Those of them that are read again at the verification interval.
    pub(super) verified: HashSet<JobKey, JobHasher>,
    /// The verification interval of the last sweeps that were in force.
    pub(super) verify_interval: Option<Duration>,
    /// The jobs that are being read although they are not followed.
    pub(super) reading: HashSet<JobKey, JobHasher>,
}

/// When the next requests start.
#[derive(Debug)]
pub(super) struct RequestSlots {
    pub(super) next: Instant,
    pub(super) spacing: Duration,
    pub(super) a_request: usize,
    /// The positions of the schedule in their order, as of `made`.
    pub(super) order: Vec<QueuePosition>,
    pub(super) made: Option<Instant>,
}

impl SourcePolls {
    /// Applies the capacity of the source: its next requests are spaced, or start as soon as jobs are due.
    pub(super) fn apply_capacity(&mut self, capacity: &PollCapacity, now: Instant) {
        self.broken = capacity.broken_for.is_some();
        if capacity.spacing.is_zero() && capacity.opens.is_none() {
            self.slots = None;
        } else {
            let next = capacity.opens.unwrap_or(now);
            let (spacing, a_request) = (capacity.spacing, capacity.a_request.max(1));
            let (order, made) = match self.slots.take() {
                Some(slots) if slots.order.len() > ORDER_SMALL => (slots.order, slots.made),
                Some(_) | None => (Vec::new(), None),
            };
            self.slots = Some(RequestSlots { next, spacing, a_request, order, made });
        }
    }
}

impl RequestSlots {
    /// When the job at this position of the queue is polled. A request with free capacity also includes jobs that
    /// are not due, unless they failed.
    pub(super) fn expected(
        &mut self,
        position: QueuePosition,
        failed: bool,
        queue: &PollQueue,
        now: Instant,
    ) -> Instant {
        if self.made.is_none_or(|made| made + ORDER_LASTS <= now) {
            self.order.clear();
            self.order.extend(queue.positions());
            self.made = Some(now);
        }
        let before = self.order.partition_point(|other| *other < position) / self.a_request;
        let slot = self.next + self.spacing.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
        let first = self.order.get(before * self.a_request).map_or(position.0, |(at, _)| *at);
        let due = if failed || self.spacing.is_zero() { position.0 } else { first.min(position.0) };
        slot.max(due)
    }
}
