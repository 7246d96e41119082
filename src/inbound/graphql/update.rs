//! What a subscription tells.

use async_graphql::{Enum, SimpleObject};

use crate::jobs::watch::{self, Update};

use super::job::JobResult;

/// Where an update stands among those of its job.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "watch::UpdateKind")]
pub enum JobUpdateKind {
    /// The first: how things stood.
    Snapshot,
    /// A change.
    Changed,
    /// The last, after others.
    Ended,
}

/// News of a job.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobUpdate {
    /// Where it stands among those of its job.
    kind: JobUpdateKind,
    /// The job, or why it cannot be told of.
    result: JobResult,
    /// Grows with each change told of this job; a gap is a change that a later one overtook.
    sequence: i32,
    /// Nothing more will be told of this job.
    is_final: bool,
}

impl From<Update> for JobUpdate {
    fn from(update: Update) -> Self {
        Self {
            kind: update.kind.into(),
            result: JobResult::new(update.reference, update.answer),
            sequence: i32::try_from(update.sequence).unwrap_or(i32::MAX),
            is_final: update.is_final,
        }
    }
}
