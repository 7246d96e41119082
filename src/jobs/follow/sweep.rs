//! Sweeps: lists what changed at a source, in place of a poll of each of its followed jobs. One replica sweeps a source;
//! the others learn from the shared record that sweeps are in force. A list confirms states only and never proves
//! absence: covered jobs are still read by id (`docs/adr/0014-sweeps.md`).

mod ending;
mod ending_jobs;
mod list_changes;
mod rounds;
mod source_sweep;
mod statuses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::rounds::{Rounds, polled};
use self::source_sweep::SourceSweep;
pub use self::statuses::SweepStatus;
pub(in crate::jobs) use self::statuses::SweepStatuses;
use super::registry::FollowRegistry;
use crate::domain::id::SourceName;
use crate::jobs::cache::JobCache;
use crate::jobs::fetch::Ingest;
use crate::jobs::sources::Readers;
use crate::ports::clock::Clock;
use crate::ports::leases::LeaseManager;
use crate::ports::ledger::Ledger;

/// Sweeps the sources that can list changes, each while that is cheaper than polls.
#[derive(Debug)]
pub(in crate::jobs) struct Sweeper {
    readers: Arc<Readers>,
    following: Arc<FollowRegistry>,
    rounds: Rounds,
}

impl Sweeper {
    #[expect(clippy::too_many_arguments, reason = "the services that it joins")]
    pub(in crate::jobs) fn new(
        readers: Arc<Readers>,
        following: Arc<FollowRegistry>,
        ingest: Arc<Ingest>,
        cache: Arc<JobCache>,
        leases: Arc<dyn LeaseManager>,
        ledger: Arc<dyn Ledger>,
        statuses: Arc<SweepStatuses>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let rounds =
            Rounds { following: Arc::clone(&following), ingest, cache, leases, ledger, statuses, clock };
        Self { readers, following, rounds }
    }

    /// Sweeps until `stop` is cancelled.
    pub(in crate::jobs) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut idle: BTreeMap<SourceName, SourceSweep> = BTreeMap::new();
        let mut busy: BTreeSet<SourceName> = BTreeSet::new();
        let mut running = FuturesUnordered::new();
        loop {
            self.adopt(&mut idle, &busy).await;
            let now = Instant::now();
            let due = |sweep: &SourceSweep| sweep.next.is_some_and(|next| next <= now);
            let due: Vec<SourceName> =
                idle.iter().filter(|(_, sweep)| due(sweep)).map(|(source, _)| source.clone()).collect();
            for source in due {
                let (Some(sweep), Some(reader)) = (idle.remove(&source), self.readers.get(&source)) else {
                    continue;
                };
                busy.insert(source);
                running.push(self.rounds.run(sweep, reader, stop.clone()));
            }
            let next = idle.values().filter_map(|sweep| sweep.next).min();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(sweep) = running.next() => {
                    busy.remove(&sweep.source);
                    idle.insert(sweep.source.clone(), sweep);
                }
                () = self.following.sweeps_woken() => {
                    let fastest = self.following.settings().pace.fastest;
                    for sweep in idle.values_mut() {
                        sweep.wake(fastest);
                    }
                }
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }
        // Another replica continues at once, also in place of a list that was being requested.
        while let Some(sweep) = running.next().await {
            idle.insert(sweep.source.clone(), sweep);
        }
        for sweep in idle.values_mut() {
            self.rounds.release(sweep).await;
        }
    }

    /// Adds the sources that can list changes, and removes those that are not configured any more.
    async fn adopt(&self, idle: &mut BTreeMap<SourceName, SourceSweep>, busy: &BTreeSet<SourceName>) {
        let readers = self.readers.all();
        let mut from = usize::MAX;
        for (source, reader) in readers.iter() {
            let Some(support) = reader.list_support() else { continue };
            from = from.min(polled(support, reader.upstream().profile().ids_a_request) + 1);
            if !busy.contains(source) && !idle.contains_key(source) {
                idle.extend(
                    SourceSweep::new(source.clone(), reader.upstream()).map(|new| (source.clone(), new)),
                );
            }
        }
        self.following.notify_sweeps_from(from);
        let gone: Vec<SourceName> =
            idle.keys().filter(|source| !readers.contains_key(*source)).cloned().collect();
        for source in gone {
            if let Some(mut sweep) = idle.remove(&source) {
                self.rounds.remove(&mut sweep).await;
            }
        }
    }
}
