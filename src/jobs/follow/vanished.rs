//! Jobs that were observed and that their upstream no longer finds, though it documents no expiry. They are followed
//! for a while longer, and expire only while the upstream answers other requests: a wrong base URL finds nothing at
//! all.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::{JobKey, SourceName};

use super::{FollowRegistry, FollowSettings, FollowedJob, RegistryState};

/// When each source last proved that it is the configured one.
#[derive(Debug, Default)]
pub(super) struct SourceProofs(HashMap<SourceName, SourceProof>);

#[derive(Debug, Default)]
struct SourceProof {
    /// It answered for a job of its own, or the probe.
    answered: Option<Instant>,
    /// The probe was sent.
    probed: Option<Instant>,
}

impl SourceProofs {
    /// Records that a source proved its identity.
    pub(super) fn answered(&mut self, source: &SourceName) {
        // The entry is looked up first: the name is copied once for each source, and not with each answer.
        if let Some(proof) = self.0.get_mut(source) {
            proof.answered = Some(Instant::now());
        } else {
            self.0.insert(source.clone(), SourceProof { answered: Some(Instant::now()), probed: None });
        }
    }

    /// Returns whether a source proved its identity at this time or later.
    pub(super) fn answered_since(&self, source: &SourceName, since: Instant) -> bool {
        self.0.get(source).and_then(|proof| proof.answered).is_some_and(|answered| answered >= since)
    }

    /// Returns whether a source may be probed now: at most once in this interval.
    fn may_probe(&mut self, source: &SourceName, every: Duration) -> bool {
        let proof = self.0.entry(source.clone()).or_default();
        let may = proof.probed.is_none_or(|probed| probed.elapsed() >= every);
        if may {
            proof.probed = Some(Instant::now());
        }
        may
    }
}

impl FollowedJob {
    /// Records the result of a fetch: since when the job is not found. A failed fetch changes nothing.
    pub(super) fn note_vanished(&mut self, found: bool) {
        if self.updates.borrow().has_vanished() {
            self.vanished_since.get_or_insert_with(Instant::now);
        } else if found {
            self.vanished_since = None;
        }
    }

    /// For how long a job that was observed before has not been found. New interests do not reset it, so they do not
    /// delay the expiry.
    pub(super) fn vanished_for(&self) -> Option<Duration> {
        self.vanished_since.map(|since| since.elapsed())
    }
}

impl RegistryState {
    /// Stops following a job that has reached its limit.
    pub(super) fn expire_if_due(&self, key: &JobKey, settings: &FollowSettings) {
        let Some(followed) = self.jobs.get(key) else { return };
        let proven =
            followed.vanished_since.is_some_and(|since| self.proofs.answered_since(&key.source, since));
        followed.expire_if_due(settings, proven);
    }
}

impl FollowRegistry {
    /// Returns whether a job would expire as vanished if its source proved that it is the configured one. In this case
    /// the source is to be probed, once for all of its jobs.
    pub(in crate::jobs) fn lacks_proof(&self, key: &JobKey) -> bool {
        let (state, settings) = (&mut *self.lock(), self.settings());
        let due = state.jobs.get(key).is_some_and(|followed| {
            !followed.is_over()
                && followed.vanished_for().is_some_and(|vanished| vanished >= settings.missing_for)
        });
        due && state.proofs.may_probe(&key.source, settings.pace.slowest)
    }

    /// Applies that a source answered its probe: its jobs that vanished for long enough expire.
    pub(in crate::jobs) fn proved(&self, source: &SourceName) {
        let (state, settings) = (&mut *self.lock(), self.settings());
        state.proofs.answered(source);
        let vanished = state.jobs.iter().filter(|(key, followed)| {
            key.source == *source && followed.vanished_since.is_some() && !followed.is_over()
        });
        for key in vanished.map(|(key, _)| key.clone()).collect::<Vec<JobKey>>() {
            state.expire_if_due(&key, &settings);
            state.plan(&key, &settings, Duration::ZERO);
        }
        self.wake();
    }
}
