//! Following beside other replicas: whoever looked last looks next, and the others stand by.

use std::time::Duration;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

use super::{FollowSettings, Following};

impl Following {
    /// Takes in what another replica saw: tells the watchers, and plans the next look a little after the other's, so that
    /// whoever looked last looks next, and another steps in when it does not.
    pub(in crate::jobs) fn heard(&self, observation: &Observation) {
        let mut state = self.lock();
        let key = &observation.job.key;
        let Some(followed) = state.jobs.get_mut(key) else { return };
        followed.looking = false;
        followed.stand_by = true;
        followed.failures = 0;
        followed.tell(|told| told.observe(observation));
        followed.give_up_if_due(&self.settings);
        state.plan(key, &self.settings, Duration::ZERO);
        self.wake.notify_one();
    }

    /// How recent a look of another replica has to be to spare one of our own.
    pub(in crate::jobs) fn recent(&self) -> Duration {
        self.settings.stand_by()
    }

    /// Whether a job is followed.
    pub(in crate::jobs) fn follows(&self, key: &JobKey) -> bool {
        self.lock().jobs.contains_key(key)
    }

    /// The jobs that are followed and have not ended.
    pub(in crate::jobs) fn open(&self) -> Vec<JobKey> {
        let state = self.lock();
        state.jobs.iter().filter(|(_, followed)| !followed.is_over()).map(|(key, _)| key.clone()).collect()
    }
}

impl FollowSettings {
    /// How long after its time a look is made that another replica is expected to make: what stands by is told within
    /// this time more, should the other be gone.
    pub(super) fn stand_by(&self) -> Duration {
        self.pace.fastest / 2
    }
}
