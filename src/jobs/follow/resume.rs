//! Resumes after a restart: tracked jobs are tracked again, and followed jobs that are not terminal are followed to a
//! terminal state, even if their watchers do not return. The jobs of a source that was not configured at the start
//! resume when it is added. Makes no call by itself; the poller polls the jobs when they are due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::registry::{FollowRegistry, Interest};
use crate::domain::id::{JobKey, SourceName};
use crate::jobs::cache::JobCache;
use crate::jobs::sources::Readers;
use crate::jobs::tracked_jobs::TrackedJobs;
use crate::ports::clock::Clock;
use crate::ports::ledger::{Ledger, LedgerContents};

/// The client name of resumed jobs in the round robin: they count as one client, however many there are.
const CLIENT: &str = "resumed";
/// Jobs read from the store at once.
const AT_ONCE: usize = 1_000;

/// The delay before a failed read is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Resumes after a restart.
#[derive(Debug)]
pub(in crate::jobs) struct Resume {
    following: Arc<FollowRegistry>,
    cache: Arc<JobCache>,
    ledger: Arc<dyn Ledger>,
    readers: Arc<Readers>,
    tracked: Arc<TrackedJobs>,
    clock: Arc<dyn Clock>,
}

impl Resume {
    pub(in crate::jobs) const fn new(
        following: Arc<FollowRegistry>,
        cache: Arc<JobCache>,
        ledger: Arc<dyn Ledger>,
        readers: Arc<Readers>,
        tracked: Arc<TrackedJobs>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { following, cache, ledger, readers, tracked, clock }
    }

    /// Restores what the ledger contains, and the jobs of a source that is added later. Keeps jobs without another
    /// interest followed until they are terminal or `stop` is cancelled.
    pub(in crate::jobs) async fn run(&self, stop: CancellationToken) {
        // Restored first, because the intervals of resumed jobs depend on it.
        let learned = self.cache.or_miss(self.ledger.learned().await);
        self.following.learned_before(learned.unwrap_or_default());
        let mut known: Option<BTreeSet<SourceName>> = None;
        let mut held = FuturesUnordered::new();
        loop {
            let now = self.readers.names();
            let nothing_new = known.as_ref().is_some_and(|known| now.is_subset(known));
            let taken = if nothing_new { Some(Vec::new()) } else { self.resume(known.as_ref()).await };
            let again = taken.is_none().then(|| Instant::now() + AGAIN);
            held.extend(taken.into_iter().flatten().map(ended));
            if again.is_none() {
                known = Some(now);
            } else if let Some(known) = &mut known {
                // Sources whose jobs could not be read stay new until they were read.
                known.retain(|source| now.contains(source));
            }
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(()) = held.next() => {}
                    () = self.readers.changed() => break,
                    () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => break,
                }
            }
        }
    }

    /// Tracks what was tracked, and returns the interests in the other followed jobs. After the first call, only for
    /// sources that are not `known`, and only for jobs that are not followed yet. `None` if the ledger cannot be read.
    async fn resume(&self, known: Option<&BTreeSet<SourceName>>) -> Option<Vec<Interest>> {
        let LedgerContents { tracked, followed } = self.cache.or_miss(self.ledger.remembered().await)?;
        let is_new = |key: &JobKey| known.is_none_or(|known| !known.contains(&key.source));
        let tracked: BTreeMap<JobKey, _> = tracked.into_iter().filter(|(key, _)| is_new(key)).collect();
        let beside = followed.iter().filter(|key| {
            is_new(key) && !tracked.contains_key(*key) && (known.is_none() || !self.following.follows(key))
        });
        let wanted: Vec<JobKey> = tracked.keys().chain(beside).cloned().collect();
        let mut interests = Vec::new();
        let mut labels = tracked;
        for some in wanted.chunks(AT_ONCE) {
            for (key, held) in some.iter().zip(self.cache.get_all(some).await) {
                let over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                // A source that was removed from the configuration may be added again: its jobs stay in the ledger.
                let follows = !over && self.readers.contains_key(&key.source);
                let interest = follows
                    .then(|| self.following.resume(key, CLIENT.into(), held.as_ref(), self.clock.reading()));
                match (labels.remove(key), interest) {
                    (Some(labels), interest) if known.is_none() && !self.tracked.holds(key) => {
                        self.tracked.restore(key.clone(), labels, interest);
                    }
                    // A client tracked the job again meanwhile, or its source was added only now: the newer labels are
                    // kept. A job that was untracked meanwhile stays untracked.
                    (Some(_), Some(interest)) => self.tracked.renew(key, interest),
                    (None, Some(interest)) => interests.push(interest),
                    (None, None) if over => self.ledger.follow(key, false),
                    (_, _) => {}
                }
            }
        }
        if !interests.is_empty() {
            tracing::info!(jobs = interests.len(), "resumed polling of followed jobs");
        }
        Some(interests)
    }
}

/// Waits until no more updates of a job follow, then drops the interest.
async fn ended(mut interest: Interest) {
    while !interest.read().is_over() {
        interest.changed().await;
    }
}
