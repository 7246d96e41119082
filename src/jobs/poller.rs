//! The poll loop: takes the due jobs from `follow`, and fetches them in as few requests as the upstream allows. It
//! always leaves a part of the concurrency to waiting callers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::id::{JobKey, SourceName};
use crate::ports::spawner::TaskKind;
use crate::ports::upstream::{FetchTrigger, JobReader, PollDemand, PollPacing};

use super::Core;
use super::answer::LookupError;
use super::follow::{FollowRegistry, PollCapacity, PollLoad};
use super::lookup::NewFetches;

const HOUR: Duration = Duration::from_hours(1);

/// The polls, by source.
#[derive(Debug, Default)]
pub(super) struct PollSlots(Mutex<BTreeMap<SourceName, SourcePollSlots>>);

/// The polls of one source.
#[derive(Debug, Default)]
struct SourcePollSlots {
    /// Polls in flight.
    taken: Arc<AtomicUsize>,
    /// When the last one started.
    last: Option<Instant>,
    /// Whether its circuit breaker was open at the last check.
    broken: bool,
}

/// A permit for one poll of a source. Dropping it releases the permit and wakes the loop.
#[derive(Debug)]
pub(super) struct PollPermit {
    taken: Arc<AtomicUsize>,
    following: Arc<FollowRegistry>,
}

/// Jobs being polled. Dropping it schedules the next poll of those without a published result, also when the poll
/// failed or never started.
#[derive(Debug)]
struct InFlightPoll {
    following: Arc<FollowRegistry>,
    keys: Vec<JobKey>,
}

impl PollSlots {
    /// Removes the count of a source that was removed. Permits that are in use are still released.
    pub(super) fn forget(&self, source: &SourceName) {
        self.lock().remove(source);
    }

    /// How many jobs of a source may be polled now: half of its concurrency is reserved for waiting callers, and while
    /// the hourly budget is short, requests start one at a time.
    fn capacity(&self, reader: &dyn JobReader, demand: PollLoad) -> PollCapacity {
        let a_request = reader.upstream().ids_a_request();
        let polls = HOUR.as_millis() / demand.slowest.as_millis().max(1);
        let (now, mut sources) = (Instant::now(), self.lock());
        let of = sources.entry(reader.name().clone()).or_default();
        let taken = of.taken.load(Ordering::Relaxed);
        let calls = polls.max(1) * (demand.jobs.div_ceil(a_request) + taken) as u128;
        let calls_per_hour = u32::try_from(calls).unwrap_or(u32::MAX);
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
        PollCapacity { jobs: requests * a_request, a_request, spacing, opens, broken_for, recovered }
    }

    fn take(&self, source: &SourceName, following: &Arc<FollowRegistry>) -> PollPermit {
        let mut sources = self.lock();
        let of = sources.entry(source.clone()).or_default();
        of.last = Some(Instant::now());
        let taken = Arc::clone(&of.taken);
        taken.fetch_add(1, Ordering::Relaxed);
        PollPermit { taken, following: Arc::clone(following) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, SourcePollSlots>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.following.wake();
    }
}

impl Drop for InFlightPoll {
    fn drop(&mut self) {
        for key in &self.keys {
            self.following.clear_in_flight(key);
        }
    }
}

/// Polls what is due, until `stop` is cancelled.
pub(super) async fn run(inner: Arc<Core>, stop: CancellationToken) {
    loop {
        let round = inner.following.round(|source, demand| inner.room(source, demand));
        for (source, due) in round.due {
            inner.poll(&source, &due);
        }
        let next = async {
            match round.next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.following.woken() => {}
            () = next => {}
        }
    }
}

impl Core {
    fn room(&self, source: &SourceName, demand: PollLoad) -> Option<PollCapacity> {
        self.readers.get(source).map(|reader| self.polls.capacity(reader.as_ref(), demand))
    }

    /// Starts polls of one source, one task per request.
    fn poll(self: &Arc<Self>, source: &SourceName, due: &[JobKey]) {
        let Some(reader) = self.readers.get(source) else {
            // The source was removed after the batch was built: if it is added again, the jobs are polled again.
            for key in due {
                self.following.clear_in_flight(key);
            }
            return;
        };
        for batch in due.chunks(reader.upstream().ids_a_request()) {
            let permit = self.polls.take(source, &self.following);
            let in_flight = InFlightPoll { following: Arc::clone(&self.following), keys: batch.to_vec() };
            let task = poll(Arc::clone(self), Arc::clone(&reader), in_flight, permit);
            self.spawner.spawn(TaskKind::Poll, Box::pin(task));
        }
    }
}

/// Polls some jobs through the same single flights as callers use. `ingest` publishes completed fetches; lost ones are
/// published here.
async fn poll(inner: Arc<Core>, reader: Arc<dyn JobReader>, in_flight: InFlightPoll, permit: PollPermit) {
    let mut new_fetches = NewFetches::new();
    let keys = &in_flight.keys;
    let receivers: Vec<_> =
        keys.iter().map(|key| inner.join_fetches(key, &reader, &mut new_fetches)).collect();
    // The permit is for the upstream request: a fetch that waits for another replica needs none.
    let permit = Arc::new(permit);
    inner.spawn_fetches(new_fetches, &FetchTrigger::Background, Some(&permit));
    drop(permit);
    let results =
        join_all(receivers.into_iter().map(super::single_flight::FetchReceiver::await_result)).await;
    for (key, result) in keys.iter().zip(results) {
        if result.is_none() {
            inner.feeds.turned(inner.following.apply_fetch(key, Err(LookupError::Lost)));
        }
    }
}
