//! Observations from other processes. Their clocks may have been wrong, and then their times cannot be compared with
//! ours.
//!
//! A time that is too late to be true is clamped when the observation is read. So no observation inside a process is
//! from the future, and [`Observation::supersedes`] needs no clock.

use std::time::Duration;

use jiff::Timestamp;

use super::Observation;
use crate::domain::state::JobState;

/// The tolerated difference between the clocks of two machines. A time that is at most this much in the future counts
/// as now.
const CLOCK_SKEW: Duration = Duration::from_secs(1);
/// The age that is assumed for an observation from the future: older than any caller allows.
const UNKNOWN_AGE: Duration = Duration::from_hours(12);

impl Observation {
    /// Returns whether the clock of the writer was ahead: the observation cannot have been made later than `latest`.
    pub fn is_from_future(&self, latest: Timestamp) -> bool {
        latest.checked_add(CLOCK_SKEW).is_ok_and(|limit| self.observed_at > limit)
    }

    /// The same observation with plausible times, for one that was made at `latest` or before.
    ///
    /// If it is from the future, a terminal state counts from `latest`: an earlier fetch does not replace it, any later
    /// one does. When the run of an EXPIRED job was last reported is unknown, so every other statement about the job
    /// replaces it, also an earlier one. A state that is not terminal is stale, and every fetch replaces it.
    #[must_use]
    pub fn clamped(self, latest: Timestamp) -> Self {
        let unknown = latest.checked_sub(UNKNOWN_AGE).unwrap_or(latest);
        let (requested_limit, limit) = match (self.is_from_future(latest), self.job.state()) {
            (true, JobState::Queued | JobState::Running | JobState::Unknown) => (unknown, unknown),
            (true, JobState::Expired) => (unknown, latest),
            (true, JobState::Succeeded | JobState::Failed | JobState::Canceled) | (false, _) => {
                (latest, latest)
            }
        };
        let sightings = self.sightings.map(|at| at.min(limit));
        let history = self.history.no_later_than(limit);
        Self {
            job: self.job,
            requested_at: self.requested_at.min(requested_limit),
            observed_at: self.observed_at.min(limit),
            rollbacks: self.rollbacks,
            sightings,
            history,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Failure, Job, Life};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn seen(life: Life, second: i64) -> Observation {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, life, Details::Supermetrics(Box::default()));
        Observation::new(Arc::new(job), at(second), at(second))
    }

    #[test]
    fn plausible_time_is_not_clamped() {
        for second in [-10, 0] {
            let one = seen(Life::Running, second);
            assert_eq!(one.clone().clamped(at(0)), one);
        }
    }

    #[test]
    fn small_clock_skew_is_clamped_to_now() {
        let read = seen(Life::Running, 1).clamped(at(0));
        assert_eq!((read.requested_at, read.observed_at), (at(0), at(0)));
    }

    #[test]
    fn first_seen_times_are_clamped_to_the_observation() {
        for life in [Life::Running, Life::Succeeded] {
            let mut held = seen(life, 3_600);
            held.sightings.first_seen_at = Some(at(-90_000));
            let read = held.clone().clamped(at(0));
            let mut expected = held.sightings.map(|_| read.observed_at);
            expected.first_seen_at = Some(at(-90_000));
            assert_eq!(read.sightings, expected);
        }
        let mut held = seen(Life::Running, -10);
        held.sightings.state_since = Some(at(3_600));
        assert_eq!(held.clamped(at(0)).sightings.state_since, Some(at(0)), "its own time is plausible");
    }

    #[test]
    fn any_fetch_supersedes_an_unfinished_state_from_the_future() {
        let held = seen(Life::Running, 3_600).clamped(at(0));
        assert!(at(0).duration_since(held.observed_at).as_hours() >= 12, "it is stale");
        for life in [Life::Running, Life::Queued, Life::Succeeded] {
            assert!(seen(life, -60).supersedes(&held));
            assert!(!held.supersedes(&seen(Life::Running, -60)));
        }
    }

    #[test]
    fn expired_from_the_future_loses_to_every_terminal_state() {
        for requested in [-90, 3_600] {
            let held = seen(Life::Running, requested).expired(at(3_700)).clamped(at(0));
            for life in [Life::Succeeded, Life::Failed(Failure::default()), Life::Canceled] {
                assert!(seen(life.clone(), -60).supersedes(&held), "{life:?}, requested at {requested}");
                assert!(!held.supersedes(&seen(life, -60)));
            }
            assert!(seen(Life::Running, 1).supersedes(&held), "it was missing only for a while");
            assert_eq!(held.observed_at, at(0));
        }
    }

    #[test]
    fn future_terminal_state_is_dated_at_its_read() {
        let held = seen(Life::Succeeded, 3_600).clamped(at(0));
        assert!(!seen(Life::Running, -1).supersedes(&held), "fetched before it was read");
        assert!(seen(Life::Running, 1).supersedes(&held), "another run");
    }
}
