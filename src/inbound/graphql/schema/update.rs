//! The updates that a subscription delivers.

use std::sync::Arc;

use async_graphql::Enum;

use crate::jobs::watch::{self, WatchUpdate};

use crate::inbound::graphql::plan::output::{output_enum, output_object};

use super::job::JobResult;

/// The kinds of job updates.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "watch::UpdateKind")]
pub enum JobUpdateKind {
    /// The first update of a job in a subscription: its current state. Not in `jobFeed`.
    Snapshot,
    /// The job changed, or it became stale or fresh again.
    Changed,
    /// The final update of a job, after at least one other update. In `jobFeed`: the job reached a terminal state, also as
    /// the first update of the job.
    Ended,
}

output_enum!(JobUpdateKind);

output_object! {
    /// An update to a job.
    #[derive(Clone, Debug)]
    pub struct JobUpdate = "JobUpdate" {
        /// The kind of the update.
        Free kind: JobUpdateKind,
        /// The job, or the reason why there is none.
        Free result: JobResult,
        /// In `jobUpdates`: the number of the update within its job. Increases with each update; a gap means that updates were
        /// skipped, because a newer one replaced them. 0 for a reference that cannot be watched. In `jobFeed`: the number of
        /// the update within the subscription, from 1. Not comparable after a reconnect.
        Free sequence: i32,
        /// Whether this is the last update of the job in this subscription. In `jobFeed`: whether the job is terminal; a new
        /// run of the same ID sends further updates.
        Free is_final: bool,
    }
}

impl From<WatchUpdate> for JobUpdate {
    fn from(update: WatchUpdate) -> Self {
        Self {
            kind: update.kind.into(),
            result: JobResult::new(&update.reference, update.answer.map(Arc::unwrap_or_clone)),
            sequence: i32::try_from(update.sequence).unwrap_or(i32::MAX),
            is_final: update.is_final,
        }
    }
}
