//! An update of a job, as a client receives it.

use std::sync::Arc;

use crate::domain::error::Problem;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::reference::RequestedRef;

/// An update to a watcher.
#[derive(Clone, Debug)]
pub struct WatchUpdate {
    /// The job, as the watcher named it.
    pub reference: Arc<RequestedRef>,
    /// Whether this is the first update, a change, or the last update.
    pub kind: UpdateKind,
    /// The job, or why it cannot be reported. Watchers that receive the same values at the same time share the snapshot.
    pub answer: Result<Arc<JobSnapshot>, Problem>,
    /// Grows with each change of this job that this process publishes; a gap is a change that a later one replaced.
    /// While no job is visible, it counts the updates of this watcher.
    pub sequence: u64,
    /// No more updates of this job follow.
    pub is_final: bool,
}

/// The position of an update among those of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The first: the state at the start.
    Snapshot,
    /// A change.
    Changed,
    /// The last, after others.
    Ended,
}

impl WatchUpdate {
    /// The only update of a reference that cannot be watched.
    pub(super) fn refused(reference: RequestedRef, problem: Problem) -> Self {
        let reference = Arc::new(reference);
        Self { reference, kind: UpdateKind::Snapshot, answer: Err(problem), sequence: 0, is_final: true }
    }
}
