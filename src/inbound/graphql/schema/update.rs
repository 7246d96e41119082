//! The updates that a subscription delivers.

use std::sync::Arc;

use async_graphql::Enum;

use crate::jobs::watch::{FeedContent, FeedStart, FeedUpdate, UpdateKind, WatchUpdate};

use crate::inbound::graphql::plan::output::{output_enum, output_object};

use super::job::JobResult;

/// The kinds of job updates.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
pub enum JobUpdateKind {
    /// The first update of a job in a subscription: its current state. Not in `jobFeed`.
    Snapshot,
    /// The job changed, or it became stale or fresh again.
    Changed,
    /// The final update of a job, after at least one other update. In `jobFeed`: the job reached a terminal state, also as
    /// the first update of the job.
    Ended,
    /// The first update of a `jobFeed` with `after`: the changes after the cursor follow. No job.
    Resumed,
    /// The first update of a `jobFeed` with `after`: changes after the cursor may be missing, and the changes from now on
    /// follow. Read `jobList`. No job.
    Reset,
}

output_enum!(JobUpdateKind);

output_object! {
    /// An update to a job.
    #[derive(Clone, Debug)]
    pub struct JobUpdate = "JobUpdate" {
        /// The kind of the update.
        Free kind: JobUpdateKind,
        /// The job, or the reason why there is none. Null if `kind` is `RESUMED` or `RESET`.
        Free result: Option<JobResult>,
        /// In `jobUpdates`: the number of the update within its job, as counted by this gateway process. Increases with each
        /// update; a gap means that updates were skipped, because a newer one replaced them. 0 for a reference that cannot be
        /// watched. In `jobFeed`: the number of the update within the subscription, from 1; 0 for the first update after a
        /// cursor. Starts again with each process and is not comparable after a reconnect; use `cursor` to resume.
        Free sequence: i32,
        /// Whether this is the last update of the job in this subscription. In `jobFeed`: whether the job is terminal; a new
        /// run of the same ID sends further updates.
        Free is_final: bool,
        /// In `jobFeed`: the position of the update, for the argument `after`. An opaque string of 32 characters, valid at the
        /// gateway process that issued it. Null in `jobUpdates`.
        Free cursor: Option<String>,
    }
}

impl From<WatchUpdate> for JobUpdate {
    fn from(update: WatchUpdate) -> Self {
        Self {
            kind: update.kind.into(),
            result: Some(JobResult::new(&update.reference, update.answer.map(Arc::unwrap_or_clone))),
            sequence: i32::try_from(update.sequence).unwrap_or(i32::MAX),
            is_final: update.is_final,
            cursor: None,
        }
    }
}

impl From<FeedUpdate> for JobUpdate {
    fn from(FeedUpdate { content, cursor }: FeedUpdate) -> Self {
        let cursor = Some(cursor.to_string());
        match content {
            FeedContent::Change(update) => Self { cursor, ..update.into() },
            FeedContent::Start(start) => {
                let (result, sequence, is_final) = (None, 0, false);
                Self { kind: start.into(), result, sequence, is_final, cursor }
            }
        }
    }
}

impl From<UpdateKind> for JobUpdateKind {
    fn from(kind: UpdateKind) -> Self {
        match kind {
            UpdateKind::Snapshot => Self::Snapshot,
            UpdateKind::Changed => Self::Changed,
            UpdateKind::Ended => Self::Ended,
        }
    }
}

impl From<FeedStart> for JobUpdateKind {
    fn from(start: FeedStart) -> Self {
        match start {
            FeedStart::Resumed => Self::Resumed,
            FeedStart::Reset => Self::Reset,
        }
    }
}
