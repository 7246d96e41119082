//! Where stretches of rows are kept for a while, so that a reader who pages through them costs few requests.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

use super::BoxFuture;
use super::upstream::{RowPage, RowRange};
use crate::domain::id::JobKey;

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
}
