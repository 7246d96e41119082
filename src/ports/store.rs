//! Where observations are kept. A store that fails is a miss to its callers, never a failed request.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;

use super::BoxFuture;
use super::leases::FencingToken;
use super::shared_store::SharedStoreHealth;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the job store failed: {0}")]
pub struct StoreError(pub String);

/// What became of an observation offered to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOutcome {
    /// It is held now. Carries what it replaced.
    New(Option<Observation>),
    /// What was held is the newer truth, and stays. Carries it.
    Older(Observation),
}

/// How a store is doing. The default is that of one with nothing behind it that could fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// What is kept lies in memory alone for now: a crash would lose it.
    pub degraded: bool,
    /// Things that wait to be written.
    pub unwritten: u64,
    /// Things that could not wait for want of room since the start, and would be missed after a restart.
    pub dropped: u64,
    /// Damaged records that were met and removed since the start.
    pub damaged: u64,
    /// Whole files that were set aside as damaged since the start.
    pub quarantined: u64,
    /// The size of what lies on disk, in bytes.
    pub bytes: u64,
    /// How many jobs lie on disk.
    pub jobs: u64,
    /// How many jobs are held in memory, about.
    pub near: u64,
    /// How the server is that replicas share, where there is one.
    pub shared_store: Option<SharedStoreHealth>,
}

/// Which held jobs to list. Empty lists mean "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only jobs of these sources. Never empty when it comes from a client: the grant is put in here.
    pub sources: Vec<SourceName>,
    /// Only jobs in these states.
    pub states: Vec<JobState>,
    /// Only jobs observed at this time or later.
    pub observed_since: Option<Timestamp>,
}

/// Keeps observations by job key.
///
/// `keep` is the only way in, whatever lies behind: memory, a file, or a server that several replicas share.
pub trait JobStore: Debug + Send + Sync {
    /// What is held for each key: same order, same length.
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>>;

    /// Keeps an observation if it supersedes the held one; compares and keeps as one step for each key.
    ///
    /// An end is as safe as this store can make it when this resolves, and nobody is shown it before; anything else may be
    /// written by and by. Cancel safe: an observation is kept or it is not.
    fn keep(&self, new: Observation) -> BoxFuture<'_, Result<StoreOutcome, StoreError>>;

    /// Notes that the upstream knew no such job just now. Forgets it by itself after a short time.
    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Says how long ago the upstream knew no such job, while that is remembered.
    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>>;

    /// Held jobs in the order of their keys, starting behind `after`, at most `limit`.
    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>>;

    /// Keeps an observation that was made under a fence, as [`JobStore::keep`] does, and ends the turn. `None` when that turn
    /// was over: it is neither kept nor to be told, because whoever had the turn since knows better.
    fn keep_under(
        &self,
        new: Observation,
        fencing_token: FencingToken,
    ) -> BoxFuture<'_, Result<Option<StoreOutcome>, StoreError>> {
        let _: FencingToken = fencing_token;
        Box::pin(async move { self.keep(new).await.map(Some) })
    }

    /// Notes under a fence that the upstream knew no such job, and ends the turn. False when that turn was over.
    fn note_missing_under<'a>(
        &'a self,
        key: &'a JobKey,
        fencing_token: FencingToken,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let _: FencingToken = fencing_token;
        Box::pin(async move { self.note_missing(key).await.map(|()| true) })
    }

    /// What is held for each key by all who share this store, however new what this process holds seems to be: same
    /// order, same length.
    fn refresh<'a>(
        &'a self,
        keys: &'a [JobKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        self.get(keys)
    }

    /// How the store is doing now. Blocks nothing.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    /// Writes what still waits to be written, and lets go of what lies behind. Called once, last.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
