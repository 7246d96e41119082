//! The sweeps of a source that are in force: a job that they cover is read by its id at the verification interval, because
//! its changes are in the lists of its source.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::followed_job::FollowedJob;
use super::settings::FollowSettings;
use crate::domain::observation::Observation;
use crate::domain::sweep::{earlier, verify_after};

/// The sweeps of a source that are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct SweepCoverage {
    /// Jobs that were read by their id since this moment are covered.
    pub(in crate::jobs) since: Instant,
    /// The time between two sweeps.
    pub(in crate::jobs) interval: Duration,
    /// The time between two reads of a covered job by its id.
    pub(in crate::jobs) verify_interval: Duration,
    /// When the list of the last completed sweep was requested, for waiting and as process time.
    pub(in crate::jobs) swept: (Instant, Timestamp),
    /// Where lists contain the jobs that are not terminal: the jobs in the last list are covered, and a watched one is read
    /// by its id at this interval for what the list does not contain.
    pub(in crate::jobs) detail_interval: Option<Duration>,
}

/// A change of a covered job that was found without a list.
#[derive(Clone, Debug)]
pub(in crate::jobs) struct UnlistedChange {
    /// The observation with the change.
    pub(in crate::jobs) observation: Observation,
    /// When it was found.
    pub(in crate::jobs) found: Instant,
}

impl SweepCoverage {
    /// Whether a job is covered. One that cannot be read, or is not found, is polled.
    pub(super) fn covers(&self, followed: &FollowedJob) -> bool {
        let is_listed = match self.detail_interval {
            Some(_) => followed.listed,
            None => followed.read_at.is_some_and(|read| read >= self.since),
        };
        is_listed && followed.failures == 0 && followed.stale().is_none() && !followed.is_over()
    }

    /// Whether lists show each later change of a job that is not followed, last observed at this process time.
    pub(super) fn covers_since(&self, observed_at: Timestamp) -> bool {
        let (swept, swept_at) = self.swept;
        let since = earlier(swept_at, swept.saturating_duration_since(self.since));
        self.detail_interval.is_none() && observed_at >= since
    }

    /// The time to the next read of a covered job by its id: soon if a watcher requires more than sweeps provide.
    pub(super) fn read_interval(
        &self,
        followed: &FollowedJob,
        settings: &FollowSettings,
        now: Instant,
    ) -> Duration {
        let detail = self.detail_interval.filter(|_| followed.requests.is_watched());
        let verify = detail.map_or(self.verify_interval, |detail| detail.min(self.verify_interval));
        let verify = verify_after(verify, followed.phase);
        match followed.requests.tightest() {
            Some(tightest) if tightest.max(settings.pace.fastest) < self.interval => {
                verify.min(followed.interval(settings, now))
            }
            Some(_) | None => verify,
        }
    }
}

impl FollowedJob {
    /// The time from a poll of the job to the next, with the sweeps of its source.
    pub(super) fn interval_under(
        &self,
        coverage: Option<&SweepCoverage>,
        settings: &FollowSettings,
        now: Instant,
    ) -> Duration {
        match coverage.filter(|coverage| coverage.covers(self)) {
            Some(coverage) => coverage.read_interval(self, settings, now),
            None => self.interval(settings, now),
        }
    }
}
