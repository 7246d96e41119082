//! Following beside other replicas: whoever looked last looks next, and the others stand by.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::jobs::answer::KnownJob;

use super::{FollowRegistry, FollowSettings, RegistryState};

impl FollowRegistry {
    /// Takes in what another replica saw: tells the watchers, and plans the next look a little after the other's, so that
    /// whoever looked last looks next, and another steps in when it does not.
    /// Gives what is known when it is fresh again.
    pub(in crate::jobs) fn apply_remote(&self, observation: &Observation) -> Option<KnownJob> {
        let state = &mut *self.lock();
        let key = &observation.job.key;
        let followed = state.jobs.get_mut(key)?;
        let before = followed.stale();
        followed.in_flight = false;
        followed.stand_by = true;
        // what was known before is no sign that the upstream answers
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

    /// How recent a look of another replica has to be to spare one of our own.
    pub(in crate::jobs) fn recent(&self) -> Duration {
        self.settings().wait_for_replica()
    }

    /// Whether a job is followed.
    pub(in crate::jobs) fn follows(&self, key: &JobKey) -> bool {
        self.lock().jobs.contains_key(key)
    }

    /// Whether a job is followed and has not ended.
    pub(in crate::jobs) fn is_open(&self, key: &JobKey) -> bool {
        self.lock().jobs.get(key).is_some_and(|followed| !followed.is_over())
    }

    /// The jobs that are followed and have not ended.
    pub(in crate::jobs) fn open(&self) -> Vec<JobKey> {
        let state = self.lock();
        state.jobs.iter().filter(|(_, followed)| !followed.is_over()).map(|(key, _)| key.clone()).collect()
    }
}

impl RegistryState {
    /// Those whom a request that goes anyway takes along, at no cost: what would be due in a moment, and what another
    /// replica would look at in a moment. So replicas that follow the same jobs soon pack them as one would.
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
    /// How long after its time a look is made that another replica is expected to make: what stands by is told within
    /// this time more, should the other be gone.
    pub(super) fn wait_for_replica(&self) -> Duration {
        self.pace.fastest / 2
    }
}
