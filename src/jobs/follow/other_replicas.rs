//! Following beside other replicas: the replica that made the last poll makes the next one, and the others stand by.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::jobs::answer::KnownJob;

use super::{FollowRegistry, FollowSettings, RegistryState};

impl FollowRegistry {
    /// Applies the observation of another replica: publishes it, and schedules the next poll a little after that of the
    /// other replica. So the replica that polled last polls next, and another takes over when it does not. Returns the
    /// known job if it became fresh again.
    pub(in crate::jobs) fn apply_remote(&self, observation: &Observation) -> Option<KnownJob> {
        let state = &mut *self.lock();
        let key = &observation.job.key;
        let followed = state.jobs.get_mut(key)?;
        let before = followed.stale();
        followed.in_flight = false;
        followed.stand_by = true;
        // An observation that was known before does not show that the upstream responds.
        let is_new = followed.updates.borrow().seen().is_none_or(|seen| observation.supersedes(seen));
        if is_new {
            state.proofs.answered(&key.source);
            followed.failures = 0;
            followed.publish(&mut state.duration_stats, |published| published.observe(observation));
            followed.note_vanished(true);
        }
        let turned = followed.turned(before);
        state.expire_if_due(key, &self.settings());
        state.plan(key, &self.settings(), Duration::ZERO);
        self.wake.notify_one();
        turned
    }

    /// The maximum age of another replica's observation that makes a poll of our own unnecessary.
    pub(in crate::jobs) fn recent(&self) -> Duration {
        self.settings().wait_for_replica()
    }

    /// Whether a job is followed.
    pub(in crate::jobs) fn follows(&self, key: &JobKey) -> bool {
        self.lock().jobs.contains_key(key)
    }

    /// Whether a job is followed and not terminal.
    pub(in crate::jobs) fn is_open(&self, key: &JobKey) -> bool {
        self.lock().jobs.get(key).is_some_and(|followed| !followed.is_over())
    }

    /// The followed jobs that are not terminal.
    pub(in crate::jobs) fn open(&self) -> Vec<JobKey> {
        let state = self.lock();
        state.jobs.iter().filter(|(_, followed)| !followed.is_over()).map(|(key, _)| key.clone()).collect()
    }
}

impl RegistryState {
    /// The jobs that are added to a request that is sent anyway, at no cost: those due soon, and those that another
    /// replica would poll soon. So replicas that follow the same jobs soon build the same batches as one replica would.
    pub(super) fn batch_fillers(
        &self,
        source: &SourceName,
        limit: usize,
        now: Instant,
        settings: &FollowSettings,
    ) -> Vec<JobKey> {
        let Some(schedule) = self.schedule.get(source) else { return Vec::new() };
        let soon = now + settings.pace.fastest / 2;
        let among = (now, u64::MAX)..=(soon + settings.wait_for_replica(), u64::MAX);
        let waits_for_replica = |key: &JobKey| self.jobs.get(key).is_some_and(|followed| followed.stand_by);
        let soon = schedule.range(among).filter(|((at, _), key)| *at <= soon || waits_for_replica(key));
        soon.take(limit).map(|(_, key)| key.clone()).collect()
    }
}

impl FollowSettings {
    /// The delay of a poll that another replica is expected to make. If that replica fails, updates are later by at
    /// most this time.
    pub(super) fn wait_for_replica(&self) -> Duration {
        self.pace.fastest / 2
    }
}
