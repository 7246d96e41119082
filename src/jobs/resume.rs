//! Goes on after a restart: what was tracked is tracked again, and what was followed and has not ended is followed to its
//! end, though whoever watched it may not come back. Asks nothing by itself; the poller looks when it is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::ledger::Remembered;

use super::Inner;
use super::follow::Interest;

/// In whose name resumed jobs take their turns: one among the clients, however many there are.
const CLIENT: &str = "resumed";
/// Jobs read from the store at once.
const AT_ONCE: usize = 1_000;

/// Takes up what the ledger remembers, and holds on to what nobody else does until it has ended or `stop` is cancelled.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    // First, so that what is resumed goes by it.
    inner.following.learned_before(inner.ingest.tolerate(inner.ledger.learned().await).unwrap_or_default());
    let remembered = inner.ingest.tolerate(inner.ledger.remembered().await).unwrap_or_default();
    let held = inner.resume(remembered).await;
    if held.is_empty() {
        return;
    }
    tracing::info!(jobs = held.len(), "following on what was followed before the restart");
    let ends = join_all(held.into_iter().map(ended));
    tokio::select! {
        () = stop.cancelled() => {}
        _ = ends => {}
    }
}

/// Waits until there is no more to tell of a job, then lets go of it.
async fn ended(mut interest: Interest) {
    while !interest.read().is_over() {
        interest.changed().await;
    }
}

impl Inner {
    /// Tracks what was tracked, and returns the interests in what was followed beside that.
    async fn resume(&self, remembered: Remembered) -> Vec<Interest> {
        let Remembered { tracked, followed } = remembered;
        let tracked: BTreeMap<JobKey, _> = tracked.into_iter().collect();
        let mut interests = Vec::new();
        let wanted: Vec<JobKey> =
            tracked.keys().chain(followed.iter().filter(|key| !tracked.contains_key(key))).cloned().collect();
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
                    // A client may have tracked it anew while this went on: then that holds.
                    (Some(labels), interest) if !self.tracking.holds(key) => {
                        self.tracking.restore(key.clone(), labels, interest);
                    }
                    (None, Some(interest)) => interests.push(interest),
                    (None, None) if over => self.ledger.follow(key, false),
                    (_, _) => {}
                }
            }
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
