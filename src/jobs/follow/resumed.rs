//! Resuming after a restart: an interest in a job that no client has requested since, and polls that are spread out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

use super::{FollowRegistry, Interest};

/// Beyond this multiple of the longest interval, the age of a job no longer changes its interval.
const AGE_MAX: u32 = 10;

/// What is known of a resumed job.
#[derive(Clone, Copy, Debug)]
pub(in crate::jobs) struct ResumedJob<'a> {
    /// The last observation.
    pub(in crate::jobs) observation: &'a Observation,
    /// How long the job has been in that state.
    pub(in crate::jobs) lasted: Duration,
    /// How long ago it was observed.
    pub(in crate::jobs) age: Duration,
}

impl FollowRegistry {
    /// Follows a job as before a restart. `held` is the cached observation, not terminal.
    ///
    /// The first poll is at any time within the longest interval, by the job's own phase, so that resumed jobs are not
    /// polled all at once. A returning watcher moves it to the time at which the job would have been polled without the
    /// restart. The interval is that of the job's age, not that of a new job.
    pub(in crate::jobs) fn resume(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        held: Option<ResumedJob<'_>>,
    ) -> Interest {
        let interest = self.unwatched_interest(key, client);
        let state = &mut *self.lock();
        let slowest = self.settings().pace.slowest;
        if let Some(followed) = state.jobs.get_mut(key) {
            let untouched = followed.updates.borrow().is_empty() && followed.scheduled_at.is_none();
            if let Some(ResumedJob { observation, lasted, age }) = held {
                followed.publish(&mut state.duration_stats, |published| published.learn(observation));
                let ago = |time: Duration| Instant::now().checked_sub(time.min(slowest * AGE_MAX));
                followed.since = ago(lasted).unwrap_or(followed.since);
                followed.seen_at = ago(age).unwrap_or(followed.seen_at);
            }
            if untouched && !followed.in_flight {
                followed.resumed = true;
                let at = Instant::now() + slowest.mul_f64(followed.phase);
                state.set_schedule(key, Some(at));
                self.wake();
            }
        }
        interest
    }
}
