//! Goes on after a restart: what was tracked is tracked again, and what was followed and has not ended is followed to its
//! end, though whoever watched it may not come back. The jobs of a source that was not configured at the start go on when it
//! comes. Asks nothing by itself; the poller looks when it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::ports::ledger::Remembered;

use super::Inner;
use super::follow::Interest;

/// In whose name resumed jobs take their turns: one among the clients, however many there are.
const CLIENT: &str = "resumed";
/// Jobs read from the store at once.
const AT_ONCE: usize = 1_000;

/// Takes up what the ledger remembers, and what it remembers of a source when that comes later. Holds on to what nobody else
/// does until it has ended or `stop` is cancelled.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    // First, so that what is resumed goes by it.
    inner.following.learned_before(inner.ingest.tolerate(inner.ledger.learned().await).unwrap_or_default());
    let mut sources = inner.readers.names();
    let mut held: FuturesUnordered<_> = inner.take_up(|_| true).await.into_iter().map(ended).collect();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = held.next() => continue,
            () = inner.readers.changed() => {}
        }
        let before = std::mem::replace(&mut sources, inner.readers.names());
        let come: BTreeSet<SourceName> = sources.difference(&before).cloned().collect();
        if !come.is_empty() {
            held.extend(inner.take_up(|key| come.contains(&key.source)).await.into_iter().map(ended));
        }
    }
}

/// Waits until there is no more to tell of a job, then lets go of it.
async fn ended(mut interest: Interest) {
    while !interest.read().is_over() {
        interest.changed().await;
    }
}

impl Inner {
    /// Tracks what was tracked of some jobs, and returns the interests in what was followed beside that.
    async fn take_up(&self, of: impl Fn(&JobKey) -> bool + Send) -> Vec<Interest> {
        let remembered = self.ingest.tolerate(self.ledger.remembered().await).unwrap_or_default();
        let Remembered { tracked, followed } = remembered;
        let tracked: BTreeMap<JobKey, _> = tracked.into_iter().filter(|(key, _)| of(key)).collect();
        let beside = followed.iter().filter(|key| of(key) && !tracked.contains_key(*key));
        let wanted: Vec<JobKey> = tracked.keys().chain(beside).cloned().collect();
        let mut interests = Vec::new();
        let mut labels = tracked;
        for some in wanted.chunks(AT_ONCE) {
            for (key, held) in some.iter().zip(self.ingest.held_all(some).await) {
                let over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                // A source that was taken out of the configuration may come back: its jobs stay in the ledger.
                let follows = !over && self.readers.contains_key(&key.source);
                let interest = follows.then(|| {
                    let held = held.as_ref().map(|held| (held, self.lasted(held)));
                    self.following.resume(key, CLIENT.into(), held)
                });
                match (labels.remove(key), interest) {
                    (Some(labels), interest) if !self.tracking.holds(key) => {
                        self.tracking.restore(key.clone(), labels, interest);
                    }
                    // A client has tracked it anew while this went on, or its source has come only now: its labels hold.
                    (Some(_), Some(interest)) => self.tracking.renew(key, interest),
                    (None, Some(interest)) => interests.push(interest),
                    (None, None) if over => self.ledger.follow(key, false),
                    (_, _) => {}
                }
            }
        }
        if !interests.is_empty() {
            tracing::info!(jobs = interests.len(), "following on what was followed before the restart");
        }
        interests
    }

    /// How long a job has been in its state, as far as the upstream's own times tell.
    pub(super) fn lasted(&self, held: &Observation) -> Duration {
        let job = &held.job;
        let since = job.updated_at.or(job.created_at).unwrap_or(held.asked_at);
        Duration::try_from(self.clock.now().duration_since(since)).unwrap_or_default()
    }
}
