//! The cached observations: those in the store, and those that it has not accepted yet.
//!
//! A store that fails is a cache miss, a counter and one rate-limited warning. Only two requests fail because of it: a
//! list, and one for a job that its upstream does not know, since it may have existed. The same holds for the ledger.
//! An observation that it does not accept is buffered here and written again until it is accepted; until then it is
//! part of the cache, so that nothing published is taken back.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::leases::FencingToken;
use crate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use crate::telemetry::meters;
use crate::telemetry::trace::{self, StoreOperation};
use crate::telemetry::warning_throttle::LimitedWarning;

/// How long a read of the store may take before it counts as failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of jobs that are buffered here because the store did not accept them, about 1 kB each.
const UNPERSISTED_MAX: usize = 10_000;
/// The delay before the store is tried again.
const OFFER_AGAIN: Duration = Duration::from_secs(2);

/// The store, and the observations that it has not accepted.
#[derive(Debug)]
pub(super) struct JobCache {
    store: Arc<dyn JobStore>,
    store_failing: LimitedWarning,
    unpersisted: Mutex<HashMap<JobKey, Observation>>,
    /// Wakes the task that writes them to the store.
    owes: Notify,
}

/// The result of storing an observation.
#[derive(Debug)]
pub(super) enum Kept {
    /// The lease was lost: nothing was stored.
    LeaseLost,
    /// The cached observation is newer.
    Older(Observation),
    /// The observation that is cached now, and the one that it replaced.
    New(Observation, Option<Observation>),
}

impl JobCache {
    pub(super) fn new(store: Arc<dyn JobStore>) -> Self {
        Self {
            store,
            store_failing: LimitedWarning::default(),
            unpersisted: Mutex::default(),
            owes: Notify::new(),
        }
    }

    /// The cached observation of each job: same order, same length. A failing store counts as a miss.
    pub(super) async fn get_all(&self, keys: &[JobKey]) -> Vec<Option<Observation>> {
        if let Some(held) = self.read(keys).await {
            return held;
        }
        let unpersisted = self.unpersisted();
        keys.iter().map(|key| unpersisted.get(key).cloned()).collect()
    }

    /// The cached observation of a job.
    ///
    /// # Errors
    /// When the store fails, so that it is unknown whether it has one.
    pub(super) async fn get(&self, key: &JobKey) -> Result<Option<Observation>, Unread> {
        let read = self.read(std::slice::from_ref(key)).await;
        let unread = read.is_none();
        let held = read.and_then(|mut held| held.pop().flatten());
        match held.or_else(|| self.unpersisted().get(key).cloned()) {
            None if unread => Err(Unread),
            held => Ok(held),
        }
    }

    /// The observation of each job in the store that all replicas share: same order, same length; `None` when it fails.
    pub(super) async fn refresh(&self, keys: &[JobKey]) -> Option<Vec<Option<Observation>>> {
        self.or_miss(with_read_timeout(self.store.refresh(keys)).await)
    }

    /// How long ago "no such job" was reported; `None` if it was not.
    pub(super) async fn missing_for(&self, key: &JobKey) -> Option<Duration> {
        self.or_miss(with_read_timeout(self.store.missing_for(key)).await).flatten()
    }

    /// Records that the upstream does not know a job.
    pub(super) async fn note_missing(&self, key: &JobKey) {
        self.or_miss(self.store.note_missing(key).await);
    }

    /// The same under a lease. Returns `false` if the lease was lost.
    pub(super) async fn note_missing_under(&self, key: &JobKey, fencing_token: FencingToken) -> bool {
        let span = trace::store(StoreOperation::Missing, 1);
        let stored = trace::stored(span, self.store.note_missing_under(key, fencing_token).await);
        self.or_miss(stored).unwrap_or(true)
    }

    /// The stored observations that match, in the order of their keys; `None` when the store fails.
    pub(super) async fn list(
        &self,
        filter: &ListFilter,
        after: Option<&JobKey>,
        limit: usize,
    ) -> Option<Vec<Observation>> {
        self.or_miss(self.store.list(filter, after, limit).await)
    }

    /// Stores an observation, under a lease if there is one. What the store does not accept is buffered.
    pub(super) async fn keep(&self, new: Observation, fencing_token: Option<FencingToken>) -> Kept {
        let unpersisted = self.unpersisted().get(&new.job.key).cloned();
        // If an unpersisted observation is newer, it is written instead.
        let (new, unpersisted) = match unpersisted {
            Some(unpersisted) if !new.supersedes(&unpersisted) => (unpersisted.clone(), Some(unpersisted)),
            unpersisted => (new, unpersisted),
        };
        let span = trace::store(StoreOperation::Keep, 1);
        let kept = match fencing_token {
            Some(fencing_token) => self.store.keep_under(new.clone(), fencing_token).await,
            None => self.store.keep(new.clone()).await.map(Some),
        };
        let replaced = match self.or_miss(trace::stored(span, kept)) {
            Some(None) => return Kept::LeaseLost,
            Some(Some(StoreOutcome::Older(held))) => {
                self.unpersisted().remove(&new.job.key);
                return Kept::Older(held);
            }
            Some(Some(StoreOutcome::New(replaced))) => {
                self.unpersisted().remove(&new.job.key);
                unpersisted.or(replaced)
            }
            None => {
                self.buffer(&new.clone().replacing(unpersisted.as_ref()));
                unpersisted
            }
        };
        Kept::New(new.replacing(replaced.as_ref()), replaced)
    }

    /// Writes what the store did not accept until it does, without a limit. `newer` receives each observation that the
    /// store has received meanwhile from another replica. Runs until it is dropped.
    pub(super) async fn write_unpersisted(&self, newer: impl Fn(&Observation) + Sync) {
        loop {
            while self.unpersisted().is_empty() {
                self.owes.notified().await;
            }
            tokio::time::sleep(OFFER_AGAIN).await;
            let keys: Vec<JobKey> = self.unpersisted().keys().cloned().collect();
            for key in keys {
                // This loop survives a panic of the store, which counts as a failed write.
                let taken = AssertUnwindSafe(self.offer(&key, &newer)).catch_unwind().await;
                if !taken.unwrap_or(false) {
                    // The store still fails: do not try the other jobs.
                    break;
                }
            }
        }
    }

    /// Treats a failure of the store as a cache miss, with one rate-limited warning.
    pub(super) fn or_miss<T>(&self, result: Result<T, StoreError>) -> Option<T> {
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

    /// The health of the store.
    pub(super) fn health(&self) -> StoreHealth {
        self.store.health()
    }

    /// Makes the store write what is pending and release its backend.
    pub(super) async fn close(&self) {
        self.store.close().await;
    }

    /// The cached observation of each job; `None` when the store fails.
    async fn read(&self, keys: &[JobKey]) -> Option<Vec<Option<Observation>>> {
        let span = trace::store(StoreOperation::Get, keys.len());
        let mut held = self.or_miss(trace::stored(span, with_read_timeout(self.store.get(keys)).await))?;
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

    /// Buffers an observation that the store did not accept, unless the buffer is full.
    fn buffer(&self, new: &Observation) {
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

    /// Retries the write of one job. Returns `false` if the store accepts nothing.
    async fn offer(&self, key: &JobKey, newer: &(impl Fn(&Observation) + Sync)) -> bool {
        let Some(offered) = self.unpersisted().get(key).cloned() else { return true };
        let Some(kept) = self.or_miss(with_read_timeout(self.store.keep(offered.clone())).await) else {
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
            newer(&held);
        }
        true
    }

    fn unpersisted(&self) -> MutexGuard<'_, HashMap<JobKey, Observation>> {
        self.unpersisted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread;

/// Limits a read of the store to the time that a caller can wait for it.
async fn with_read_timeout<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(StoreError("it did not answer in time".to_owned())))
}
