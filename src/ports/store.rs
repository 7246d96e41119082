//! Where observations are kept. A store that fails is a miss to its callers, never a failed request.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;

use super::BoxFuture;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the job store failed: {0}")]
pub struct StoreError(pub String);

/// What became of an observation offered to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// It is held now. Carries what it replaced.
    New(Option<Observation>),
    /// What was held is the newer truth, and stays. Carries it.
    Older(Observation),
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
pub trait JobStore: Debug + Send + Sync {
    /// What is held for each key: same order, same length.
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>>;

    /// Keeps an observation if it supersedes the held one; compares and keeps as one step for each key.
    fn keep(&self, new: Observation) -> BoxFuture<'_, Result<Kept, StoreError>>;

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
}
