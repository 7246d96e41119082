//! The snapshot of a followed job that its watchers share: those that receive the same observation within one
//! millisecond, which is the precision of the age in an answer.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::domain::observation::Observation;
use crate::jobs::answer::{JobSnapshot, StaleReason, age};
use crate::ports::clock::ClockReading;

/// The snapshot that was made last of a job, for whichever watcher. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct LastSnapshot(Arc<Mutex<Option<Arc<JobSnapshot>>>>);

impl LastSnapshot {
    /// The last snapshot, if one that is made at `now` has the same values.
    pub(super) fn at(
        &self,
        now: Timestamp,
        observation: &Observation,
        stale: Option<StaleReason>,
    ) -> Option<(Arc<JobSnapshot>, ClockReading)> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = last.as_ref()?;
        let reading = ClockReading { now, correction: seen.correction };
        let is_same = seen.stale == stale
            && is_same(&seen.observation, observation)
            && seen.age.as_millis() == age(observation, reading).as_millis();
        is_same.then(|| (Arc::clone(seen), reading))
    }

    /// Keeps a snapshot for the watchers that follow.
    pub(super) fn keep(&self, seen: &Arc<JobSnapshot>) {
        self.set(Some(Arc::clone(seen)));
    }

    /// Forgets the snapshot: the time of the next poll has changed.
    pub(super) fn clear(&self) {
        self.set(None);
    }

    fn set(&self, seen: Option<Arc<JobSnapshot>>) {
        let before = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, seen)
        };
        drop(before);
    }
}

/// Whether two observations are of one answer and have the same first times and transitions. Compares no text.
fn is_same(one: &Observation, other: &Observation) -> bool {
    Arc::ptr_eq(&one.job, &other.job)
        && one.observed_at == other.observed_at
        && one.requested_at == other.requested_at
        && one.rollbacks == other.rollbacks
        && one.sightings == other.sightings
        && one.history.is_shared_with(&other.history)
}
