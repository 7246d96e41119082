//! Where stretches of rows are kept for a while, so that a reader who pages through them costs few requests.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

use super::BoxFuture;
use super::upstream::{RowPage, RowRange};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// Which stretch of which run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The job.
    pub job: JobKey,
    /// When the run's end was observed: a second run has other rows.
    pub run: Timestamp,
    /// The stretch.
    pub range: RowRange,
}

/// Keeps stretches of rows. Forgets at will.
pub trait RowCache: Debug + Send + Sync {
    /// The stretch, if it is still held.
    fn get<'a>(&'a self, key: &'a RowKey) -> BoxFuture<'a, Option<Arc<RowPage>>>;

    /// Holds a stretch for a while.
    fn put(&self, key: RowKey, page: Arc<RowPage>) -> BoxFuture<'_, ()>;

    /// Says whether first rows are kept as long as their jobs are.
    fn keeps(&self) -> bool {
        false
    }

    /// Keeps a stretch of the rows of a job as long as the job, if it is among the first and there is room. Written by and
    /// by: never waits and never blocks.
    fn keep(&self, of: &Observation, range: RowRange, page: &RowPage) {
        let _: (&Observation, RowRange, &RowPage) = (of, range, page);
    }

    /// The stretch, if it was kept, and the job has not run again since.
    fn kept<'a>(&'a self, of: &'a Observation, range: RowRange) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        let _: (&Observation, RowRange) = (of, range);
        Box::pin(async { None })
    }
}
