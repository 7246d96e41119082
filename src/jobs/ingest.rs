//! The only write path of observations: compare, store, publish.
//!
//! It also decides that a job has expired, because only a gateway that remembers the job can distinguish "expired" from
//! "never existed" (`docs/upstreams.md`).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::leases::{FencingToken, LeaseManager};
use crate::ports::store::{JobStore, StoreError, StoreOutcome};
use crate::ports::upstream::{Detail, Fetch, FetchError};
use crate::telemetry::meters;
use crate::telemetry::trace::{self, StoreOperation};
use crate::telemetry::warning_throttle::LimitedWarning;

use super::answer::LookupError;
use super::feed::FeedReaders;
use super::follow::FollowRegistry;
use super::rollback::LowerVersions;

/// The result of a fetch after ingest: the newest observation, or the error.
pub(super) type FetchResult = Result<Observation, FetchError>;

/// How long a read of the store may take before it counts as failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of jobs that are buffered here because the store did not accept them, about 1 kB each.
const UNPERSISTED_MAX: usize = 10_000;
/// The delay before the store is tried again.
const OFFER_AGAIN: Duration = Duration::from_secs(2);

/// Ingests observations.
#[derive(Debug)]
pub(super) struct Ingest {
    store: Arc<dyn JobStore>,
    leases: Arc<dyn LeaseManager>,
    following: Arc<FollowRegistry>,
    feeds: Arc<FeedReaders>,
    store_failing: LimitedWarning,
    /// Observations that were published although the store did not accept them. Until it does they are part of the
    /// cache, so that nothing published is taken back.
    unpersisted: Mutex<HashMap<JobKey, Observation>>,
    lower: LowerVersions,
    /// Wakes the task that writes them to the store.
    owes: Notify,
}

/// Limits a read of the store to the time that a caller can wait for it.
pub(super) async fn with_read_timeout<T>(
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(StoreError("it did not answer in time".to_owned())))
}

impl Ingest {
    pub(super) fn new(
        store: Arc<dyn JobStore>,
        leases: Arc<dyn LeaseManager>,
        following: Arc<FollowRegistry>,
        feeds: Arc<FeedReaders>,
    ) -> Self {
        let (store_failing, unpersisted, owes) = (LimitedWarning::default(), Mutex::default(), Notify::new());
        Self {
            store,
            leases,
            following,
            feeds,
            store_failing,
            unpersisted,
            lower: LowerVersions::default(),
            owes,
        }
    }

    /// Applies the result of fetching one job under one lease, and releases the lease. The observation is stored before
    /// it is published.
    ///
    /// `None` if the lease was lost before: the result is not published, because a later lease holder has a newer one.
    pub(super) async fn take(
        &self,
        key: &JobKey,
        fetch: Fetch,
        fencing_token: FencingToken,
    ) -> Option<FetchResult> {
        let span = trace::ingest();
        let result = span.context().hold(self.compare_and_keep(key, fetch, fencing_token, &span)).await;
        let Some(result) = result else {
            span.kept("lease_lost");
            return None;
        };
        let outcome = result.as_ref().map_err(|error| LookupError::Fetch(error.clone()));
        self.feeds.turned(self.following.apply_fetch(key, outcome));
        if let Ok(observation) = &result {
            self.feeds.renewed(observation);
        }
        Some(result)
    }

    /// Applies an observation that another replica stored. `changed` if that replica reported it as a change.
    pub(super) fn apply_remote(&self, observation: &Observation, changed: bool) {
        let turned = self.following.apply_remote(observation);
        if observation.job.is_terminal() {
            self.feeds.tracking().ended(&observation.job.key);
        }
        if changed {
            self.feeds.publish_once(observation);
        }
        self.feeds.turned(turned);
    }

    /// Applies that another replica found no such job.
    pub(super) fn apply_remote_missing(&self, key: &JobKey) {
        self.feeds.turned(self.following.apply_fetch(key, Err(LookupError::Fetch(FetchError::NotFound))));
    }

    async fn compare_and_keep(
        &self,
        key: &JobKey,
        fetch: Fetch,
        fencing_token: FencingToken,
        span: &trace::SpanGuard,
    ) -> Option<FetchResult> {
        let Fetch { requested_at, observed_at, outcome } = fetch;
        match outcome {
            Ok(job) => {
                self.keep_answer(Observation::new(job, requested_at, observed_at), fencing_token, span).await
            }
            Err(FetchError::NotFound) => match self.ever_seen(key).await {
                Err(error) => {
                    span.kept("failed");
                    self.leases.release(key, fencing_token).await;
                    Some(Err(error))
                }
                Ok(seen) => self.take_absence(key, seen, observed_at, fencing_token, span).await,
            },
            Err(error) => {
                span.kept("failed");
                self.leases.release(key, fencing_token).await;
                Some(Err(error))
            }
        }
    }

    /// The newest observation of a job that its upstream does not know now. For a watched job the follow registry has
    /// it, even if the store evicted or never accepted it: EXPIRED must refer to the run that was published. If the
    /// store cannot be read, it is unknown whether the job ever existed.
    async fn ever_seen(&self, key: &JobKey) -> Result<Option<Observation>, FetchError> {
        let read = self.read(std::slice::from_ref(key)).await;
        let unread = read.is_none();
        let held =
            read.and_then(|mut held| held.pop().flatten()).or_else(|| self.unpersisted().get(key).cloned());
        match (held, self.following.seen(key)) {
            (None, None) if unread => {
                let text = "the upstream does not know the job, and the store cannot be read";
                Err(FetchError::Unavailable(Detail::new(text)))
            }
            (Some(held), Some(published)) if published.supersedes(&held) => Ok(Some(published)),
            (held, published) => Ok(held.or(published)),
        }
    }

    async fn take_absence(
        &self,
        key: &JobKey,
        seen: Option<Observation>,
        observed_at: Timestamp,
        fencing_token: FencingToken,
        span: &trace::SpanGuard,
    ) -> Option<FetchResult> {
        match seen {
            Some(held) if held.job.is_terminal() => {
                span.kept("older");
                self.leases.release(key, fencing_token).await;
                Some(Ok(held))
            }
            Some(held) if held.job.upstream().documents_expiry() => {
                self.keep(held.expired(observed_at), Some(fencing_token), span).await.map(Ok)
            }
            // Not found gives no information about the state: the cached observation stays, and a caller that requires
            // a newer one gets the stale reason.
            Some(held) => {
                self.leases.release(key, fencing_token).await;
                // Another replica may have observed the terminal state without this one having been notified yet.
                let shared = self
                    .or_cache_miss(with_read_timeout(self.store.refresh(std::slice::from_ref(key))).await);
                let shared = shared.and_then(|mut shared| shared.pop().flatten());
                if let Some(newer) = shared.filter(|shared| shared.supersedes(&held)) {
                    span.kept("older");
                    return Some(Ok(newer));
                }
                span.kept("not_found");
                self.or_cache_miss(self.store.note_missing(key).await);
                Some(Err(FetchError::NotFound))
            }
            None => {
                span.kept("missing");
                let stored = trace::store(StoreOperation::Missing, 1);
                let recorded = self
                    .or_cache_miss(stored.of_store(self.store.note_missing_under(key, fencing_token).await));
                recorded.unwrap_or(true).then_some(Err(FetchError::NotFound))
            }
        }
    }

    /// The cached observation of each job: same order, same length. A failing store counts as a miss.
    pub(super) async fn cached_all(&self, keys: &[JobKey]) -> Vec<Option<Observation>> {
        if let Some(held) = self.read(keys).await {
            return held;
        }
        let unpersisted = self.unpersisted();
        keys.iter().map(|key| unpersisted.get(key).cloned()).collect()
    }

    /// The same; `None` when the store fails.
    async fn read(&self, keys: &[JobKey]) -> Option<Vec<Option<Observation>>> {
        let stored = trace::store(StoreOperation::Get, keys.len());
        let mut held = self.or_cache_miss(stored.of_store(with_read_timeout(self.store.get(keys)).await))?;
        let unpersisted = self.unpersisted();
        if !unpersisted.is_empty() {
            for (key, held) in keys.iter().zip(&mut held) {
                let newer = unpersisted
                    .get(key)
                    .filter(|unpersisted| held.as_ref().is_none_or(|held| unpersisted.supersedes(held)));
                if let Some(newer) = newer {
                    *held = Some(newer.clone());
                }
            }
        }
        Some(held)
    }

    fn unpersisted(&self) -> MutexGuard<'_, HashMap<JobKey, Observation>> {
        self.unpersisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Buffers an observation that the store did not accept, unless the buffer is full.
    fn buffer_unpersisted(&self, new: &Observation) {
        let mut unpersisted = self.unpersisted();
        if unpersisted.len() >= UNPERSISTED_MAX && !unpersisted.contains_key(&new.job.key) {
            // A terminal state is never observed again; the state of a running job is.
            if !new.job.is_terminal() {
                return;
            }
            let going_on =
                unpersisted.values().find(|held| !held.job.is_terminal()).map(|held| held.job.key.clone());
            let Some(key) = going_on else { return };
            unpersisted.remove(&key);
        }
        unpersisted.insert(new.job.key.clone(), new.clone());
        drop(unpersisted);
        self.owes.notify_one();
    }

    /// Retries the writes that the store did not accept until they succeed, without a limit.
    pub(super) async fn write_unpersisted(&self) {
        loop {
            while self.unpersisted().is_empty() {
                self.owes.notified().await;
            }
            tokio::time::sleep(OFFER_AGAIN).await;
            let keys: Vec<JobKey> = self.unpersisted().keys().cloned().collect();
            for key in keys {
                // This loop survives a panic of the store, which counts as a failed write.
                let taken = AssertUnwindSafe(self.offer(&key)).catch_unwind().await;
                if !taken.unwrap_or(false) {
                    // The store still fails: do not try the other jobs.
                    break;
                }
            }
        }
    }

    /// Retries the write of one job. Returns `false` if the store accepts nothing.
    async fn offer(&self, key: &JobKey) -> bool {
        let Some(offered) = self.unpersisted().get(key).cloned() else { return true };
        let Some(kept) = self.or_cache_miss(with_read_timeout(self.store.keep(offered.clone())).await) else {
            return false;
        };
        {
            let mut unpersisted = self.unpersisted();
            if unpersisted.get(key) == Some(&offered) {
                unpersisted.remove(key);
            }
        }
        if let StoreOutcome::Older(held) = kept
            && held != offered
        {
            // The store has received a newer observation meanwhile: publish it.
            self.apply_remote(&held, true);
        }
        true
    }

    /// Treats a failure of the store as a cache miss, with one rate-limited warning.
    pub(super) fn or_cache_miss<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                meters::store_failed();
                if let Some(suppressed) = self.store_failing.due() {
                    tracing::warn!(%error, suppressed, "job store failed; treated as a cache miss");
                }
                None
            }
        }
    }

    /// Stores an answer of the upstream, unless it contradicts what the upstream reported before.
    async fn keep_answer(
        &self,
        answer: Observation,
        fencing_token: FencingToken,
        span: &trace::SpanGuard,
    ) -> Option<FetchResult> {
        let key = answer.job.key.clone();
        // An answer that was requested before the known observation may be from before its rollback, and is ordered
        // before it.
        let known = self.following.seen(&key).filter(|known| answer.requested_at >= known.observed_at);
        let mut answer = answer.after_rollbacks(known.map_or(0, |known| known.rollbacks));
        let mut held = self.keep(answer.clone(), Some(fencing_token), span).await?;
        if held.rollbacks > answer.rollbacks {
            if answer.requested_at < held.observed_at {
                return Some(Ok(held));
            }
            // The cached observation and this later request are both from after the accepted rollbacks. The first
            // attempt has released the lease. It is not needed here: the store compares again.
            answer = answer.after_rollbacks(held.rollbacks);
            held = self.keep(answer.clone(), None, span).await?;
        }
        if !answer.contradicts(&held) {
            self.lower.settled(&key);
            return Some(Ok(held));
        }
        if answer.requested_at < held.observed_at {
            // Requested before the higher version was observed: by its own times an older answer, and no contradiction.
            return Some(Ok(held));
        }
        if !self.lower.reported(&held, self.following.settings().verify_interval) {
            span.kept("conflicting_version");
            return Some(Err(FetchError::ConflictingVersion));
        }
        let (from, to) = (held.job.counter(), answer.job.counter());
        tracing::warn!(job = %key, from, to, "source repeatedly reported a lower job version; accepted as a rollback");
        self.lower.settled(&key);
        let accepted = answer.after_rollbacks(held.rollbacks.saturating_add(1));
        self.keep(accepted, None, span).await.map(Ok)
    }

    /// Returns whether the last report of the upstream contradicts the cached observation of a job.
    pub(super) fn is_contradicted(&self, held: &Observation) -> bool {
        self.lower.contradict(held)
    }

    /// Stores an observation, with or without a lease, and publishes it. Returns the observation that is then cached;
    /// `None` if the lease was lost.
    async fn keep(
        &self,
        new: Observation,
        fencing_token: Option<FencingToken>,
        span: &trace::SpanGuard,
    ) -> Option<Observation> {
        let unpersisted = self.unpersisted().get(&new.job.key).cloned();
        // If an unpersisted observation is newer, it is written instead.
        let (new, unpersisted) = match unpersisted {
            Some(unpersisted) if !new.supersedes(&unpersisted) => (unpersisted.clone(), Some(unpersisted)),
            unpersisted => (new, unpersisted),
        };
        let stored = trace::store(StoreOperation::Keep, 1);
        let kept = match fencing_token {
            Some(fencing_token) => self.store.keep_under(new.clone(), fencing_token).await,
            None => self.store.keep(new.clone()).await.map(Some),
        };
        let kept = self.or_cache_miss(stored.of_store(kept));
        let replaced = match kept {
            Some(None) => return None,
            Some(Some(StoreOutcome::Older(held))) => {
                span.kept("older");
                self.unpersisted().remove(&new.job.key);
                return Some(held);
            }
            Some(Some(StoreOutcome::New(replaced))) => {
                self.unpersisted().remove(&new.job.key);
                unpersisted.or(replaced)
            }
            None => {
                self.buffer_unpersisted(&new.clone().replacing(unpersisted.as_ref()));
                unpersisted
            }
        };
        let new = new.replacing(replaced.as_ref());
        span.kept("new");
        if new.job.is_terminal() {
            self.feeds.tracking().ended(&new.job.key);
        }
        if replaced.is_none_or(|before| !before.job.same_report(&new.job)) {
            self.feeds.publish(&new);
        }
        Some(new)
    }
}
