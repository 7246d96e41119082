//! The cached observations: those in the store.
//!
//! A store that cannot be read is a cache miss, a counter and one rate-limited warning. Only two requests fail because
//! of it: a list, and one for a job that its upstream does not know, since it may have existed. The same holds for the
//! ledger. A write does not fail: what a store cannot write now, it returns and writes later.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::leases::FencingToken;
use crate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use crate::telemetry::meters::{self, CacheTier};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::trace::{self, StoreOperation};

/// How long a read of the store may take before it counts as failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The store, as the use cases read and write it.
#[derive(Debug)]
pub(super) struct JobCache {
    store: Arc<dyn JobStore>,
    store_failing: Throttle,
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
        Self { store, store_failing: Throttle::default() }
    }

    /// The cached observation of each job: same order, same length. A failing store counts as a miss.
    pub(super) async fn get_all(&self, keys: &[JobKey]) -> Vec<Option<Observation>> {
        self.read(keys).await.unwrap_or_else(|| vec![None; keys.len()])
    }

    /// The cached observation of a job, if it is in memory. The caller reports the reads with [`report_held`].
    pub(super) fn held(&self, key: &JobKey) -> Option<Observation> {
        self.store.held(key)
    }

    /// The cached observation of a job.
    ///
    /// # Errors
    /// When the store fails, so that it is unknown whether it has one.
    pub(super) async fn get(&self, key: &JobKey) -> Result<Option<Observation>, Unread> {
        let held = self.read(std::slice::from_ref(key)).await.ok_or(Unread)?;
        Ok(held.into_iter().next().flatten())
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
        self.store.note_missing(key).await;
    }

    /// The same under a lease. Returns `false` if the lease was lost.
    pub(super) async fn note_missing_under(&self, key: &JobKey, fencing_token: FencingToken) -> bool {
        let _span = trace::store(StoreOperation::Missing, 1);
        self.store.note_missing_under(key, fencing_token).await
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

    /// Stores an observation, under a lease if there is one.
    pub(super) async fn keep(&self, new: Observation, fencing_token: Option<FencingToken>) -> Kept {
        let _span = trace::store(StoreOperation::Keep, 1);
        let kept = match fencing_token {
            Some(fencing_token) => self.store.keep_under(new.clone(), fencing_token).await,
            None => Some(self.store.keep(new.clone()).await),
        };
        match kept {
            None => Kept::LeaseLost,
            Some(StoreOutcome::Older(held)) => Kept::Older(held),
            Some(StoreOutcome::New(replaced)) => Kept::New(new.replacing(replaced.as_ref()), replaced),
        }
    }

    /// Treats a failure of the store as a cache miss, with one rate-limited warning.
    pub(super) fn or_miss<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                meters::store_failed();
                if let Some(suppressed) = self.store_failing.admit() {
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

    /// The cached observation of each job: same order, same length; `None` when the store fails.
    pub(super) async fn read(&self, keys: &[JobKey]) -> Option<Vec<Option<Observation>>> {
        let span = trace::store(StoreOperation::Get, keys.len());
        self.or_miss(trace::stored(span, with_read_timeout(self.store.get(keys)).await))
    }
}

/// Reports reads of this many jobs by [`JobCache::held`].
pub(super) fn report_held(jobs: usize) {
    drop(trace::store(StoreOperation::Get, jobs));
    meters::cache_reads(CacheTier::Memory, jobs);
}

/// The store could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread;

/// Limits a read of the store to the time that a caller can wait for it.
async fn with_read_timeout<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let read = tokio::time::timeout(READ_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(StoreError("it did not answer in time".to_owned())))
}
