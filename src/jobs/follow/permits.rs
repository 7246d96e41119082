//! The permits of background polls: how many may run at once, and what a source allows now. A part of the concurrency
//! is always left to waiting callers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::registry::FollowRegistry;
use super::source_polls::{PollCapacity, PollLoad};
use crate::domain::id::SourceName;
use crate::ports::upstream::{JobReader, PollDemand, PollPacing};

const HOUR: Duration = Duration::from_hours(1);

/// The permits, by source.
#[derive(Debug, Default)]
pub(in crate::jobs) struct PollPermits(Mutex<BTreeMap<SourceName, SourcePollPermits>>);

/// The permits of one source.
#[derive(Debug, Default)]
struct SourcePollPermits {
    /// Polls in flight.
    taken: Arc<AtomicUsize>,
    /// When the last one started.
    last: Option<Instant>,
    /// Whether its circuit breaker was open at the last check.
    broken: bool,
}

/// A permit for one poll of a source. Dropping it releases the permit and wakes the loop.
#[derive(Debug)]
pub(in crate::jobs) struct PollPermit {
    taken: Arc<AtomicUsize>,
    following: Arc<FollowRegistry>,
}

impl PollPermits {
    /// Removes the count of a source that was removed. Permits that are in use are still released.
    pub(in crate::jobs) fn forget(&self, source: &SourceName) {
        self.lock().remove(source);
    }

    /// How many jobs of a source may be polled now: half of its concurrency is reserved for waiting callers, and while
    /// the hourly budget is short, requests start one at a time.
    pub(super) fn capacity(&self, reader: &dyn JobReader, demand: PollLoad) -> PollCapacity {
        let a_request = reader.upstream().profile().ids_a_request;
        let polls = HOUR.as_millis() / demand.slowest.as_millis().max(1);
        let (now, mut sources) = (Instant::now(), self.lock());
        let of = sources.entry(reader.name().clone()).or_default();
        let taken = of.taken.load(Ordering::Relaxed);
        let calls = polls.max(1) * (demand.jobs.div_ceil(a_request) + taken) as u128;
        let sweeps = demand.sweep_interval.map_or(0, |every| HOUR.as_millis() / every.as_millis().max(1));
        let reads = demand.reads.div_ceil(a_request) as u128;
        let calls_per_hour = u32::try_from(calls + sweeps + reads).unwrap_or(u32::MAX);
        let demand = PollDemand { calls_per_hour, awaited: demand.awaited };
        let PollPacing { spacing, closed_for, broken_for } = reader.pace_polls(demand);
        let places = (reader.status().budget.concurrency as usize / 2).max(1);

        let recovered = std::mem::replace(&mut of.broken, broken_for.is_some()) && broken_for.is_none();
        let opens = of.last.map_or(now, |last| last + spacing).max(now + closed_for);
        let opens = Some(opens).filter(|opens| *opens > now);
        let free = places.saturating_sub(taken);
        let requests = match opens {
            Some(_) => 0,
            None if spacing.is_zero() => free,
            None => free.min(1),
        };
        let urgent = if closed_for.is_zero() && broken_for.is_none() { free * a_request } else { 0 };
        PollCapacity { jobs: requests * a_request, urgent, a_request, spacing, opens, broken_for, recovered }
    }

    pub(super) fn take(&self, source: &SourceName, following: &Arc<FollowRegistry>) -> PollPermit {
        let mut sources = self.lock();
        let of = sources.entry(source.clone()).or_default();
        of.last = Some(Instant::now());
        let taken = Arc::clone(&of.taken);
        taken.fetch_add(1, Ordering::Relaxed);
        PollPermit { taken, following: Arc::clone(following) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, SourcePollPermits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.following.wake();
    }
}
