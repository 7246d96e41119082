//! Goes on after a restart: what was tracked is tracked again, and what was followed and has not ended is followed to its
//! end, though whoever watched it may not come back. The jobs of a source that was not configured at the start go on when it
//! comes. Asks nothing by itself; the poller looks when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::ports::ledger::LedgerContents;

use super::Core;
use super::answer::age;
use super::follow::{Interest, ResumedJob};

/// In whose name resumed jobs take their turns: one among the clients, however many there are.
const CLIENT: &str = "resumed";
/// Jobs read from the store at once.
const AT_ONCE: usize = 1_000;

/// When what could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Takes up what the ledger remembers, and what it remembers of a source when that comes later. Holds on to what nobody else
/// does until it has ended or `stop` is cancelled.
pub(super) async fn run(inner: Arc<Core>, stop: CancellationToken) {
    // First, so that what is resumed goes by it.
    inner
        .following
        .learned_before(inner.ingest.or_cache_miss(inner.ledger.learned().await).unwrap_or_default());
    let mut known: Option<BTreeSet<SourceName>> = None;
    let mut held = FuturesUnordered::new();
    loop {
        let now = inner.readers.names();
        let nothing_new = known.as_ref().is_some_and(|known| now.is_subset(known));
        let taken = if nothing_new { Some(Vec::new()) } else { inner.resume(known.as_ref()).await };
        let again = taken.is_none().then(|| Instant::now() + AGAIN);
        held.extend(taken.into_iter().flatten().map(ended));
        if again.is_none() {
            known = Some(now);
        } else if let Some(known) = &mut known {
            // those whose jobs could not be read are new until they were
            known.retain(|source| now.contains(source));
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = held.next() => {}
                () = inner.readers.changed() => break,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => break,
            }
        }
    }
}

/// Waits until there is no more to tell of a job, then lets go of it.
async fn ended(mut interest: Interest) {
    while !interest.read().is_over() {
        interest.changed().await;
    }
}

impl Core {
    /// Tracks what was tracked, and returns the interests in what was followed beside that. After the first time only of the
    /// sources that are not `known`, and only what nobody has taken up since. `None` when the ledger cannot be read.
    async fn resume(&self, known: Option<&BTreeSet<SourceName>>) -> Option<Vec<Interest>> {
        let LedgerContents { tracked, followed } =
            self.ingest.or_cache_miss(self.ledger.remembered().await)?;
        let is_new = |key: &JobKey| known.is_none_or(|known| !known.contains(&key.source));
        let tracked: BTreeMap<JobKey, _> = tracked.into_iter().filter(|(key, _)| is_new(key)).collect();
        let beside = followed.iter().filter(|key| {
            is_new(key) && !tracked.contains_key(*key) && (known.is_none() || !self.following.follows(key))
        });
        let wanted: Vec<JobKey> = tracked.keys().chain(beside).cloned().collect();
        let mut interests = Vec::new();
        let mut labels = tracked;
        for some in wanted.chunks(AT_ONCE) {
            for (key, held) in some.iter().zip(self.ingest.cached_all(some).await) {
                let over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                // A source that was taken out of the configuration may come back: its jobs stay in the ledger.
                let follows = !over && self.readers.contains_key(&key.source);
                let interest = follows.then(|| {
                    let held = held.as_ref().map(|held| self.held(held));
                    self.following.resume(key, CLIENT.into(), held)
                });
                match (labels.remove(key), interest) {
                    (Some(labels), interest) if known.is_none() && !self.tracking.holds(key) => {
                        self.tracking.restore(key.clone(), labels, interest);
                    }
                    // A client has tracked it anew while this went on, or its source has come only now: its labels hold. One
                    // that was untracked meanwhile is left alone.
                    (Some(_), Some(interest)) => self.tracking.renew(key, interest),
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

    /// What is known of a job that is followed on.
    pub(super) fn held<'a>(&self, held: &'a Observation) -> ResumedJob<'a> {
        ResumedJob { observation: held, lasted: self.lasted(held), age: age(held, self.clock.reading()) }
    }

    /// How long a job has been in its state, as far as the upstream's own times tell.
    fn lasted(&self, held: &Observation) -> Duration {
        let job = &held.job;
        let lasted = match job.updated_at.or(job.created_at) {
            Some(since) => self.clock.time_of_day().duration_since(since),
            None => self.clock.now().duration_since(held.requested_at),
        };
        Duration::try_from(lasted).unwrap_or_default()
    }
}
