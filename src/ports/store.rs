//! The job store. Callers treat a failed read as a cache miss, never as a failed request. A write does not fail.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;

use super::BoxFuture;
use super::leases::FencingToken;
use super::shared_store::SharedStoreHealth;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
#[error("the job store failed: {0}")]
pub struct StoreError(pub String);

/// The result of writing an observation to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOutcome {
    /// It was stored. Contains the observation it replaced.
    New(Option<Observation>),
    /// The stored observation is newer, and stays. Contains it.
    Older(Observation),
}

/// The health of a store. The default is that of a store without a backend that could fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Observations are in memory only for now: a crash would lose them.
    pub degraded: bool,
    /// Records that wait to be written.
    pub unwritten: u64,
    /// Records that were dropped since the start because the write queue was full, and are missing after a restart.
    pub dropped: u64,
    /// Damaged records that were found and removed since the start.
    pub damaged: u64,
    /// Whole files that were quarantined as damaged since the start.
    pub quarantined: u64,
    /// The size on disk, in bytes.
    pub bytes: u64,
    /// The number of jobs on disk.
    pub jobs: u64,
    /// The approximate number of jobs in memory.
    pub memory: u64,
    /// The health of the server that replicas share, if there is one.
    pub shared_store: Option<SharedStoreHealth>,
}

/// Selects which stored jobs to list. Empty lists mean "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only jobs of these sources. Never empty for a client: the grant is applied here.
    pub sources: Vec<SourceName>,
    /// Only jobs in these states.
    pub states: Vec<JobState>,
    /// Only jobs observed at this time or later.
    pub observed_since: Option<Timestamp>,
}

/// Stores observations by job key.
///
/// `keep` is the only write path, for any backend: memory, a file, or a server that several replicas share. A write does
/// not fail: what a backend cannot write now, the store returns as any other, and writes again until it is written.
pub trait JobStore: Debug + Send + Sync {
    /// The stored observation of each key: same order, same length.
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>>;

    /// The stored observation of a job, where [`JobStore::get`] would return it from memory without waiting for a backend.
    /// Else `None`, also for a job that is stored. Does not block.
    fn held(&self, key: &JobKey) -> Option<Observation> {
        let _: &JobKey = key;
        None
    }

    /// Stores an observation if it supersedes the stored one; compares and stores in one atomic step for each key.
    ///
    /// When this resolves, a terminal state is as durable as this store can make it, and no client sees it before; any
    /// other state may be written in the background. Cancel safe: an observation is stored or it is not.
    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome>;

    /// Records that the upstream knew no such job just now. The record expires after a short time.
    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()>;

    /// Returns how long ago the upstream knew no such job, while that is recorded.
    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>>;

    /// Stored jobs in the order of their keys, starting behind `after`, at most `limit`.
    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>>;

    /// Stores an observation under a fencing token, as [`JobStore::keep`] does, and releases the lease. `None` if that
    /// lease was lost: it is neither stored nor to be published, because a later lease holder has a newer result.
    fn keep_under(
        &self,
        new: Observation,
        fencing_token: FencingToken,
    ) -> BoxFuture<'_, Option<StoreOutcome>> {
        let _: FencingToken = fencing_token;
        Box::pin(async move { Some(self.keep(new).await) })
    }

    /// Records under a fencing token that the upstream knew no such job, and releases the lease. Returns `false` if
    /// that lease was lost.
    fn note_missing_under<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, bool> {
        let _: FencingToken = fencing_token;
        Box::pin(async move {
            self.note_missing(key).await;
            true
        })
    }

    /// The observation of each key in the shared store, even if this process has one cached: same order, same length.
    fn refresh<'a>(
        &'a self,
        keys: &'a [JobKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        self.get(keys)
    }

    /// The present health of the store. Does not block.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    /// Writes what is pending, and releases the backend. Called once, last.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
