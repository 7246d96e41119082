//! What a client may see of the published state of a job.

use std::sync::Arc;

use crate::domain::error::Problem;
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;
use crate::jobs::answer::{JobSnapshot, LookupResult};
use crate::jobs::follow::{FollowRegistry, PublishedState};
use crate::jobs::visibility::Visibility;
use crate::ports::clock::{Clock, ClockReading};

/// The part of a published state that a client may see.
pub(super) enum VisibleState {
    /// Nothing is known yet.
    Nothing,
    /// No job is visible.
    Unseen(Problem),
    /// The job.
    Seen,
}

/// Shows published states to clients.
#[derive(Debug)]
pub(in crate::jobs) struct View {
    visibility: Arc<Visibility>,
    following: Arc<FollowRegistry>,
    clock: Arc<dyn Clock>,
}

impl View {
    pub(in crate::jobs) const fn new(
        visibility: Arc<Visibility>,
        following: Arc<FollowRegistry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { visibility, following, clock }
    }

    /// The part of a published state that a client may see.
    pub(super) fn of(&self, principal: &Principal, published: &PublishedState, key: &JobKey) -> VisibleState {
        if published.seen().is_some_and(|seen| self.visibility.may_see(principal, &seen.job)) {
            return VisibleState::Seen;
        }
        published.unseen(key).map_or(VisibleState::Nothing, VisibleState::Unseen)
    }

    /// The answer for a client that may see the job.
    pub(super) fn answer(&self, published: &PublishedState, key: &JobKey) -> LookupResult {
        self.answer_at(self.clock.reading(), published, key)
    }

    /// The same for a watcher, with the reading of the clock. Watchers of one job share the snapshot while its values are
    /// the same.
    pub(super) fn shared_answer(
        &self,
        published: &PublishedState,
        key: &JobKey,
    ) -> (Result<Arc<JobSnapshot>, Problem>, ClockReading) {
        if let Some((seen, reading)) = published.shared_snapshot(self.clock.now()) {
            return (Ok(seen), reading);
        }
        let reading = self.clock.reading();
        let answer = self.answer_at(reading, published, key).map(|seen| {
            let seen = Arc::new(seen);
            published.share(&seen);
            seen
        });
        (answer, reading)
    }

    fn answer_at(&self, reading: ClockReading, published: &PublishedState, key: &JobKey) -> LookupResult {
        published.answer(key, reading).map(|seen| {
            let next_poll = self.following.next_poll(key, self.clock.time_of_day());
            JobSnapshot { next_poll, ..seen }
        })
    }
}
