//! What other replicas have learned, as hints: which jobs to read again. A hint that is lost delays, and hides nothing,
//! because what it points at is kept.

use std::fmt::Debug;

use super::BoxFuture;
use super::leases::LocalLeases;
use crate::domain::id::JobKey;

/// Something that another replica did to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeNotification {
    /// The job.
    pub key: JobKey,
    /// What was done.
    pub what: RemoteChange,
}

/// What another replica did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteChange {
    /// It kept something that says something new.
    Changed,
    /// It kept what says the same as before, with a later time; or that the upstream knows no such job.
    Renewed,
    /// It gave back its turn, and kept nothing.
    Released,
    /// It tracked the job, or no longer does.
    Tracked,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// Some jobs are to be read again.
    Hints(Vec<ChangeNotification>),
    /// Hints may have been lost, or some time has passed: everything that is followed is to be read again.
    Gap,
}

/// Hears what other replicas have learned.
pub trait NotificationFeed: Debug + Send + Sync {
    /// The next news. Cancel safe.
    fn next(&self) -> BoxFuture<'_, FeedEvent>;
}

impl NotificationFeed for LocalLeases {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(std::future::pending())
    }
}
