//! Listens to the other replicas: applies the changes that they report, and what they track and untrack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::cache::JobCache;
use super::feed_readers::FeedReaders;
use super::fetch::RemoteChanges;
use super::follow::FollowRegistry;
use super::sources::Readers;
use super::tracked_jobs::TrackedJobs;
use crate::domain::id::JobKey;
use crate::ports::clock::Clock;
use crate::ports::feed::{FeedEvent, NotificationFeed, RemoteChange};
use crate::ports::ledger::{Labels, Ledger, LedgerContents};

/// Jobs read at once.
const AT_ONCE: usize = 500;
/// The client name of jobs that another replica was requested to track.
const CLIENT: &str = "tracked by another replica";
/// The tracked jobs are compared once in this many gaps, and at every notification about them.
const GAPS_A_LEDGER: u32 = 6;

/// Listens to the other replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    feed: Arc<dyn NotificationFeed>,
    remote: Arc<RemoteChanges>,
    cache: Arc<JobCache>,
    ledger: Arc<dyn Ledger>,
    readers: Arc<Readers>,
    following: Arc<FollowRegistry>,
    tracked: Arc<TrackedJobs>,
    feeds: Arc<FeedReaders>,
    clock: Arc<dyn Clock>,
}

impl Replicas {
    #[expect(clippy::too_many_arguments, reason = "the services that it joins")]
    pub(super) const fn new(
        feed: Arc<dyn NotificationFeed>,
        remote: Arc<RemoteChanges>,
        cache: Arc<JobCache>,
        ledger: Arc<dyn Ledger>,
        readers: Arc<Readers>,
        following: Arc<FollowRegistry>,
        tracked: Arc<TrackedJobs>,
        feeds: Arc<FeedReaders>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { feed, remote, cache, ledger, readers, following, tracked, feeds, clock }
    }

    /// Applies notifications until `stop` is cancelled.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut tracked = BTreeSet::new();
        let mut gaps = 0_u32;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = self.feed.next() => event,
            };
            let compares = match event {
                FeedEvent::Notifications(notifications) => {
                    let compares = notifications.iter().any(|one| one.what == RemoteChange::Tracked);
                    self.remote.apply_notifications(notifications).await;
                    compares
                }
                FeedEvent::Gap => {
                    // only the followed jobs are read again
                    self.feeds.interrupt();
                    self.remote.catch_up().await;
                    gaps = gaps.wrapping_add(1);
                    gaps % GAPS_A_LEDGER == 1
                }
            };
            if compares {
                self.track_as_others(&mut tracked).await;
            }
        }
    }

    /// Applies what other replicas track and untrack. `known` is the set of jobs that all replicas tracked at the last
    /// comparison.
    async fn track_as_others(&self, known: &mut BTreeSet<JobKey>) {
        let Some(LedgerContents { tracked, .. }) = self.cache.or_miss(self.ledger.remembered().await) else {
            return;
        };
        let tracked: BTreeMap<JobKey, Labels> = tracked.into_iter().collect();
        for key in known.iter().filter(|key| !tracked.contains_key(*key)) {
            self.tracked.remove(key);
        }
        *known = tracked.keys().cloned().collect();
        let mut wanted = Vec::new();
        for (key, labels) in tracked {
            if self.tracked.holds(&key) {
                self.tracked.relabel(&key, &labels);
            } else {
                wanted.push((key, labels));
            }
        }
        for some in wanted.chunks(AT_ONCE) {
            let keys: Vec<JobKey> = some.iter().map(|(key, _)| key.clone()).collect();
            for ((key, labels), held) in some.iter().zip(self.cache.get_all(&keys).await) {
                let over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                let follows = !over && self.readers.contains_key(&key.source);
                let interest = follows
                    .then(|| self.following.resume(key, CLIENT.into(), held.as_ref(), self.clock.reading()));
                self.tracked.restore(key.clone(), labels.clone(), interest);
            }
        }
    }
}
