//! Change notifications from other replicas: which jobs to read again. A lost notification causes a delay and no loss,
//! because the record that it refers to is stored.

use std::fmt::Debug;

use super::BoxFuture;
use super::leases::LocalLeases;
use crate::domain::id::JobKey;

/// A change that another replica made to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeNotification {
    /// The job.
    pub key: JobKey,
    /// The kind of the change.
    pub what: RemoteChange,
}

/// The kind of a change by another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteChange {
    /// It stored an observation with a change.
    Changed,
    /// It stored an observation without a change and with a later time, or that the upstream knows no such job.
    Renewed,
    /// It released its lease and stored nothing.
    Released,
    /// It tracked or untracked the job.
    Tracked,
}

/// An event of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// The jobs of these notifications are to be read again.
    Notifications(Vec<ChangeNotification>),
    /// Notifications may have been lost, or some time has passed: all followed jobs are to be read again.
    Gap,
}

/// Receives the changes that other replicas found.
pub trait NotificationFeed: Debug + Send + Sync {
    /// The next event. Cancel safe.
    fn next(&self) -> BoxFuture<'_, FeedEvent>;
}

impl NotificationFeed for LocalLeases {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(std::future::pending())
    }
}
