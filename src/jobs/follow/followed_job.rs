//! One followed job: when it expires, restarts, and is polled again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::published::PublishedState;
use super::state_counts::{StateCountGuard, StateCounts};
use super::{FollowSettings, FollowedJob};
use crate::domain::error::ProblemCode;
use crate::domain::id::JobKey;
use crate::domain::state::JobState;
use crate::jobs::answer::{KnownJob, StaleReason};

impl FollowedJob {
    pub(super) fn new(number: u64, key: &JobKey, state_counts: &Arc<StateCounts>) -> Self {
        Self {
            number,
            source: key.source.clone(),
            phase: phase(key),
            updates: watch::Sender::new(PublishedState::default()),
            interests: BTreeMap::new(),
            since: Instant::now(),
            seen_at: Instant::now(),
            learned: None,
            failures: 0,
            vanished_since: None,
            outage: false,
            resumed: false,
            paused_until: None,
            scheduled_at: None,
            in_flight: false,
            stand_by: false,
            idle_since: None,
            state_count: StateCountGuard::new(state_counts),
        }
    }

    /// Stops following a job that has been missing, unknown or in one state for longer than the limit. For a missing
    /// job the limit counts from the newest interest, since the job may have been created just now. A vanished job
    /// expires only when that is `proven`.
    pub(super) fn expire_if_due(&self, settings: &FollowSettings, proven: bool) {
        let newest = self.interests.last_key_value().map(|(_, watch_request)| watch_request.since.elapsed());
        let vanished = self.vanished_for().filter(|vanished| proven && *vanished >= settings.missing_for);
        let mut lasted = self.since.elapsed();
        self.updates.send_if_modified(|published| {
            let (limit, why) = if published.is_missing() {
                lasted = newest.map_or(lasted, |newest| lasted.min(newest));
                (settings.missing_for, ProblemCode::NotFound)
            } else if published.has_vanished() && vanished.is_some() {
                (Duration::ZERO, ProblemCode::NotFound)
            } else if published.state() == Some(JobState::Unknown) {
                (settings.unknown_for, ProblemCode::FollowLimit)
            } else {
                (settings.at_most, ProblemCode::FollowLimit)
            };
            let over = lasted >= limit && !published.is_over();
            if over {
                published.expire(why);
            }
            over
        });
    }

    pub(super) fn is_over(&self) -> bool {
        self.updates.borrow().is_over()
    }

    /// Why the last observation is stale; `None` while it is not.
    pub(super) fn stale(&self) -> Option<StaleReason> {
        self.updates.borrow().stale()
    }

    /// The known job, if it became stale or fresh since `before`, or is stale for another reason.
    pub(super) fn turned(&self, before: Option<StaleReason>) -> Option<KnownJob> {
        let published = self.updates.borrow();
        let stale = published.stale();
        let observation = published.seen().filter(|_| stale != before).cloned();
        drop(published);
        observation.map(|observation| KnownJob { observation, stale })
    }

    /// Restarts a job that has expired, because it has a new interest. Returns whether it had expired.
    pub(super) fn restart(&mut self) -> bool {
        let begins = self.updates.send_if_modified(PublishedState::restart);
        if begins {
            self.since = Instant::now();
            self.vanished_since = None;
            self.failures = 0;
        }
        begins
    }

    /// Whether any interest receives updates.
    pub(super) fn is_watched(&self) -> bool {
        self.interests.values().any(|watch_request| watch_request.watches)
    }

    pub(super) fn interval(&self, settings: &FollowSettings, now: Instant) -> Duration {
        let tightest = self.interests.values().filter_map(|watch_request| watch_request.max_staleness).min();
        let (age, learned) = (now.duration_since(self.since), self.learned.as_deref());
        settings.pace.interval(age, learned, tightest, self.failures, self.phase)
    }
}

/// The phase of a job, from 0 to 1: spreads jobs that began together. It is the same in every process.
fn phase(key: &JobKey) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
