//! One followed job: when it expires, restarts, and is polled again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::duration_stats::DurationStats;
use super::poll_queue::PollMarks;
use super::published::{ObservedChange, PublishedState};
use super::settings::FollowSettings;
use super::source_demand::JobDemand;
use super::state_counts::{StateCountGuard, StateCounts};
use super::watch_requests::WatchRequests;
use crate::domain::durations::Durations;
use crate::domain::error::ProblemCode;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::state::JobState;
use crate::jobs::answer::{KnownJob, StaleReason};

/// A followed job: its interests, its published state, and what decides about its next poll.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent of each other")]
pub(super) struct FollowedJob {
    pub(super) number: u64,
    pub(super) source: SourceName,
    pub(super) phase: f64,
    pub(super) updates: watch::Sender<Arc<PublishedState>>,
    pub(super) requests: WatchRequests,
    /// When the present state began, or, without a state, since when it has been unknown.
    pub(super) since: Instant,
    /// When the job was last observed in that state.
    pub(super) seen_at: Instant,
    /// When its last read by id was applied, whichever replica made it.
    pub(super) read_at: Option<Instant>,
    /// The last list of its source contained it, where lists contain the jobs that are not terminal.
    pub(super) listed: bool,
    /// It is read before other jobs that are due, because the last list did not contain it any more.
    pub(super) urgent: bool,
    /// How long similar jobs stayed in that state.
    pub(super) learned: Option<Arc<Durations>>,
    /// How many polls failed in a row; 1 as well after reads of clients that failed.
    pub(super) failures: u32,
    /// Since when the upstream does not find a job that was observed before.
    pub(super) vanished_since: Option<Instant>,
    /// The last poll failed because of the source.
    pub(super) outage: bool,
    /// Resumed after a restart, and neither polled nor watched since.
    pub(super) resumed: bool,
    /// The source requested that no call is made before this time.
    pub(super) paused_until: Option<Instant>,
    pub(super) scheduled_at: Option<Instant>,
    pub(super) in_flight: bool,
    /// Another replica made the last poll and is expected to make the next one.
    pub(super) stand_by: bool,
    pub(super) idle_since: Option<Instant>,
    /// What it contributes to the demand of its source.
    pub(super) demand: JobDemand,
    pub(super) state_count: StateCountGuard,
}

impl FollowedJob {
    pub(super) fn new(number: u64, key: &JobKey, state_counts: &Arc<StateCounts>) -> Self {
        Self {
            number,
            source: key.source.clone(),
            phase: phase(key),
            updates: watch::Sender::new(Arc::default()),
            requests: WatchRequests::default(),
            since: Instant::now(),
            seen_at: Instant::now(),
            read_at: None,
            listed: false,
            urgent: false,
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
            demand: JobDemand::default(),
            state_count: StateCountGuard::new(state_counts),
        }
    }

    /// Changes the published state. Watchers are woken only for a change that is visible to them. For a change of
    /// state, the time in the former state is recorded: the change happened between this poll and the last.
    pub(super) fn publish(
        &mut self,
        duration_stats: &mut DurationStats,
        take_in: impl FnOnce(&mut PublishedState) -> ObservedChange,
    ) {
        let before = self.updates.borrow().seen().map(|seen| Arc::clone(&seen.job));
        let mut change = ObservedChange::Nothing;
        self.updates.send_if_modified(|published| {
            change = take_in(Arc::make_mut(published));
            change != ObservedChange::Nothing
        });
        let now = Instant::now();
        if change == ObservedChange::State {
            let published = self.updates.borrow();
            let seen = published.seen().map(|seen| &*seen.job);
            if let (Some(before), Some(seen)) = (before, seen) {
                let gap = now.duration_since(self.seen_at);
                duration_stats.record(
                    &before,
                    seen.state(),
                    now.duration_since(self.since).saturating_sub(gap / 2),
                );
            }
            self.learned = seen.and_then(|seen| duration_stats.of(seen));
            self.since = now;
            let state = published.state();
            drop(published);
            self.state_count.set(state);
        }
        self.seen_at = now;
    }

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

    /// Stops following a job that has been missing, unknown or in one state for longer than the limit. For a missing
    /// job the limit counts from the newest interest, since the job may have been created just now. A vanished job
    /// expires only when that is `proven`.
    pub(super) fn expire_if_due(&self, settings: &FollowSettings, proven: bool) {
        let newest = self.requests.newest().map(|since| since.elapsed());
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
                Arc::make_mut(published).expire(why);
            }
            over
        });
    }

    pub(super) fn is_over(&self) -> bool {
        self.updates.borrow().is_over()
    }

    /// The last observation with its freshness, and how long ago it was confirmed. `None` if the job was neither read nor
    /// listed since it is followed, or expired.
    pub(super) fn known(&self) -> Option<(KnownJob, Duration)> {
        let published = self.updates.borrow();
        let is_current = (self.read_at.is_some() || self.listed) && !published.has_expired();
        let observation = published.seen().filter(|_| is_current)?.clone();
        Some((KnownJob { observation, stale: published.stale() }, self.seen_at.elapsed()))
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
        let begins = self.updates.send_if_modified(|published| Arc::make_mut(published).restart());
        if begins {
            self.since = Instant::now();
            self.vanished_since = None;
            self.failures = 0;
        }
        begins
    }

    /// What decides about when it is chosen among the due jobs of its source.
    pub(super) fn marks(&self) -> PollMarks {
        PollMarks {
            client: self.requests.client().cloned(),
            is_urgent: self.urgent,
            is_probe: self.outage && self.requests.is_watched(),
        }
    }

    /// What it requires of the sweeps of its source now. Its intervals become longer with its age, so this changes without
    /// an event.
    pub(super) fn sweep_demand(&self, settings: &FollowSettings, now: Instant) -> JobDemand {
        if self.idle_since.is_some() || self.is_over() {
            return JobDemand::default();
        }
        JobDemand::open(&self.requests, !self.stand_by, self.interval(settings, now))
    }

    /// The time to its next poll if no list contained its changes.
    pub(super) fn interval(&self, settings: &FollowSettings, now: Instant) -> Duration {
        let (age, learned) = (now.duration_since(self.since), self.learned.as_deref());
        settings.pace.interval(age, learned, self.requests.tightest(), self.failures, self.phase)
    }

    /// Whether half of the time from its last read by id to the next, at `planned`, has passed. A job that failed keeps its
    /// scheduled time.
    pub(super) fn has_waited_half(&self, planned: Instant, now: Instant) -> bool {
        let waited = self.read_at.map(|read| now.saturating_duration_since(read));
        let is_well = self.failures == 0 && self.paused_until.is_none();
        is_well && waited.is_some_and(|waited| planned.saturating_duration_since(now) <= waited)
    }
}

/// The phase of a job, from 0 to 1: spreads jobs that began together. It is the same in every process.
pub(super) fn phase(key: &JobKey) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
