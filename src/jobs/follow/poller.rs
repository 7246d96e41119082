//! The poll loop: takes the due jobs from the registry, and fetches them in as few requests as the upstream allows.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::permits::{PollPermit, PollPermits};
use super::registry::FollowRegistry;
use super::source_polls::{PollCapacity, PollLoad};
use crate::domain::id::{JobKey, SourceName};
use crate::jobs::fetch::{FetchReceiver, Fetcher, Ingest, NewFetches};
use crate::jobs::sources::Readers;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::upstream::{FetchTrigger, JobReader};

/// Polls followed jobs.
#[derive(Debug)]
pub(in crate::jobs) struct Poller {
    readers: Arc<Readers>,
    permits: Arc<PollPermits>,
    following: Arc<FollowRegistry>,
    fetcher: Arc<Fetcher>,
    ingest: Arc<Ingest>,
    spawner: Arc<dyn Spawner>,
}

/// Jobs being polled. Dropping it schedules the next poll of those without a published result, also when the poll
/// failed or never started.
#[derive(Debug)]
struct InFlightPoll {
    following: Arc<FollowRegistry>,
    keys: Vec<JobKey>,
}

impl Poller {
    pub(in crate::jobs) const fn new(
        readers: Arc<Readers>,
        permits: Arc<PollPermits>,
        following: Arc<FollowRegistry>,
        fetcher: Arc<Fetcher>,
        ingest: Arc<Ingest>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        Self { readers, permits, following, fetcher, ingest, spawner }
    }

    /// Polls what is due, until `stop` is cancelled.
    pub(in crate::jobs) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let round = self.following.round(|source, demand| self.room(source, demand));
            for (source, due) in round.due {
                self.poll(&source, &due);
            }
            let next = async {
                match round.next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.following.woken() => {}
                () = next => {}
            }
        }
    }

    fn room(&self, source: &SourceName, demand: PollLoad) -> Option<PollCapacity> {
        self.readers.get(source).map(|reader| self.permits.capacity(reader.as_ref(), demand))
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
        for batch in due.chunks(reader.upstream().profile().ids_a_request) {
            let permit = self.permits.take(source, &self.following);
            let in_flight = InFlightPoll { following: Arc::clone(&self.following), keys: batch.to_vec() };
            let task = Arc::clone(self).poll_batch(Arc::clone(&reader), in_flight, permit);
            self.spawner.spawn(TaskKind::Poll, Box::pin(task));
        }
    }

    /// Polls some jobs through the same single flights as callers use. `ingest` publishes completed fetches; lost ones
    /// are published here.
    async fn poll_batch(
        self: Arc<Self>,
        reader: Arc<dyn JobReader>,
        in_flight: InFlightPoll,
        permit: PollPermit,
    ) {
        let mut new_fetches = NewFetches::new();
        let keys = &in_flight.keys;
        let receivers: Vec<_> =
            keys.iter().map(|key| self.fetcher.join(key, &reader, &mut new_fetches)).collect();
        // The permit is for the upstream request: a fetch that waits for another replica needs none.
        let permit = Arc::new(permit);
        self.fetcher.spawn(new_fetches, &FetchTrigger::Background, Some(&permit));
        drop(permit);
        let results = join_all(receivers.into_iter().map(FetchReceiver::await_result)).await;
        for (key, result) in keys.iter().zip(results) {
            if result.is_none() {
                self.ingest.apply_lost(key);
            }
        }
    }
}

impl Drop for InFlightPoll {
    fn drop(&mut self) {
        for key in &self.keys {
            self.following.clear_in_flight(key);
        }
    }
}
