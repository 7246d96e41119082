//! The row cache: ranges of rows are cached for a while, so that paging through them costs few requests.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

use super::BoxFuture;
use super::upstream::{RowPage, RowRange};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// Identifies a range of the rows of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The job.
    pub job: JobKey,
    /// When the run was observed to be terminal: a second run has other rows.
    pub run: Timestamp,
    /// The range.
    pub range: RowRange,
}

/// Caches ranges of rows. Entries can be evicted at any time.
pub trait RowCache: Debug + Send + Sync {
    /// The range, if it is still cached.
    fn get<'a>(&'a self, key: &'a RowKey) -> BoxFuture<'a, Option<Arc<RowPage>>>;

    /// Caches a range for a while.
    fn put(&self, key: RowKey, page: Arc<RowPage>) -> BoxFuture<'_, ()>;

    /// Returns whether the first rows are stored as long as their jobs are.
    fn keeps(&self) -> bool {
        false
    }

    /// Stores a range of the rows of a job as long as the job, if it is among the first and there is capacity. Written
    /// in the background: never waits and never blocks.
    fn keep(&self, of: &Observation, range: RowRange, page: &RowPage) {
        let _: (&Observation, RowRange, &RowPage) = (of, range, page);
    }

    /// The range, if it was stored and the job has not run again since.
    fn kept<'a>(&'a self, of: &'a Observation, range: RowRange) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        let _: (&Observation, RowRange) = (of, range);
        Box::pin(async { None })
    }
}
