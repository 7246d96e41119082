//! What interests, answers and errors do to the followed jobs: no lock of its own, no waiting, no I/O. The registry
//! calls it under its lock, and `schedule` decides when each job is polled next.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::duration_stats::DurationStats;
use super::followed_job::FollowedJob;
use super::published::PublishedState;
use super::schedule::PollSchedule;
use super::settings::FollowSettings;
use super::source_proofs::SourceProofs;
use super::state_counts::StateCounts;
use super::watch_requests::WatchRequest;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::jobs::answer::{KnownJob, LookupError, age};
use crate::ports::clock::ClockReading;
use crate::ports::upstream::FetchError;

/// Beyond this multiple of the longest interval, the age of a job no longer changes its interval.
const AGE_MAX: u32 = 10;

/// All followed jobs, and what was learned from them.
#[derive(Debug, Default)]
pub(super) struct FollowedJobs {
    pub(super) schedule: PollSchedule,
    pub(super) state_counts: Arc<StateCounts>,
    pub(super) duration_stats: DurationStats,
    proofs: SourceProofs,
    numbers: u64,
}

/// What is known of a resumed job.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumedJob<'a> {
    /// The last observation.
    observation: &'a Observation,
    /// How long the job has been in that state.
    lasted: Duration,
    /// How long ago it was observed.
    age: Duration,
}

impl<'a> ResumedJob<'a> {
    /// What a cached observation says at this moment.
    pub(super) fn new(observation: &'a Observation, now: ClockReading) -> Self {
        let job = &observation.job;
        // By the upstream's own times, which are times of day, or since the observation was requested.
        let lasted = match job.updated_at.or(job.created_at) {
            Some(since) => now.date(now.now).duration_since(since),
            None => now.now.duration_since(observation.requested_at),
        };
        let lasted = Duration::try_from(lasted).unwrap_or_default();
        Self { observation, lasted, age: age(observation, now) }
    }
}

/// A registered interest.
#[derive(Debug)]
pub(super) struct Registration {
    /// The key of the job, which all of its interests share.
    pub(super) key: JobKey,
    pub(super) number: u64,
    /// The number of times the job had expired before.
    pub(super) endings: u64,
    pub(super) updates: watch::Receiver<Arc<PublishedState>>,
    /// Whether the job was not in the registry.
    pub(super) is_new: bool,
    /// Whether the schedule changed.
    pub(super) rescheduled: bool,
}

/// The effect of an answer or an error.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The known job, if it became stale or fresh, or is stale for another reason.
    pub(super) turned: Option<KnownJob>,
    /// Whether the poll loop has to check the schedule again.
    pub(super) wakes: bool,
}

impl FollowedJobs {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn get_mut(&mut self, key: &JobKey) -> Option<&mut FollowedJob> {
        self.schedule.jobs.get_mut(key)
    }

    /// Changes a job by one of the methods below, and the indexes with it.
    pub(super) fn change<R>(
        &mut self,
        key: &JobKey,
        settings: &FollowSettings,
        apply: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let result = apply(self);
        self.schedule.update_indexes(key, settings);
        result
    }

    /// Registers an interest of a client: the job is polled as often as `max_staleness` requires, and the client
    /// receives updates if it `watches`.
    pub(super) fn register(
        &mut self,
        key: &JobKey,
        client: Arc<str>,
        max_staleness: Option<Duration>,
        watches: bool,
        settings: &FollowSettings,
    ) -> Registration {
        let (number, now) = (self.number(), Instant::now());
        self.schedule.count_watcher(key, watches);
        let coverage = self.schedule.coverage(&key.source).copied();
        let entry = self.schedule.jobs.entry(key.clone());
        let shared_key = entry.key().clone();
        let (followed, is_new) = match entry {
            Entry::Occupied(known) => (known.into_mut(), false),
            Entry::Vacant(new) => (new.insert(FollowedJob::new(number, key, &self.state_counts)), true),
        };
        followed.requests.insert(number, WatchRequest { client, max_staleness, since: now, watches });
        let was_idle = followed.idle_since.is_some();
        let restarts = followed.restart();
        let comes_back = watches && std::mem::take(&mut followed.resumed);
        let updates = followed.updates.subscribe();
        let endings = updates.borrow().endings();
        let moves = was_idle || restarts || comes_back || max_staleness.is_some();
        let mut rescheduled = false;
        if let Some(planned) = followed.scheduled_at.filter(|_| moves) {
            // This watcher may require a fresher state than the others. A poll is only ever moved to an earlier time
            // here: a new watcher must not delay it or end a pause.
            let interval = followed.interval_under(coverage.as_ref(), settings, now);
            // After a restart a returning watcher finds the job polled as if it had been watched all the time.
            let wished = if comes_back { (followed.seen_at + interval).max(now) } else { now + interval };
            let paused = followed.paused_until.is_some_and(|until| until > now);
            self.schedule.set_schedule(key, Some(if paused { planned } else { planned.min(wished) }));
            rescheduled = true;
        }
        self.schedule.set_idle_since(key, None);
        if restarts {
            // Whatever its caller does next, a job with an interest is polled.
            self.schedule.plan_if_unscheduled(key, settings);
            rescheduled = true;
        }
        Registration { key: shared_key, number, endings, updates, is_new, rescheduled }
    }

    /// Removes an interest. After the last one, polling stops when the unsubscribe grace period is over. Returns
    /// whether it was the last one.
    pub(super) fn unregister(&mut self, key: &JobKey, number: u64) -> bool {
        let Some(followed) = self.get_mut(key) else { return false };
        let watched = followed.requests.remove(number);
        let is_idle = followed.requests.is_empty();
        self.schedule.discount_watcher(key, watched);
        if is_idle {
            self.schedule.set_idle_since(key, Some(Instant::now()));
        }
        is_idle
    }

    /// Follows a job as before a restart: the poll is at any time within the longest interval, by the job's own phase.
    /// Returns whether the schedule changed.
    pub(super) fn resume(
        &mut self,
        key: &JobKey,
        held: Option<ResumedJob<'_>>,
        settings: &FollowSettings,
    ) -> bool {
        let slowest = settings.pace.slowest;
        let Some(followed) = self.schedule.jobs.get_mut(key) else { return false };
        let untouched = followed.updates.borrow().is_empty() && followed.scheduled_at.is_none();
        if let Some(ResumedJob { observation, lasted, age }) = held {
            followed.publish(&mut self.duration_stats, |published| published.learn(observation));
            let ago = |time: Duration| Instant::now().checked_sub(time.min(slowest * AGE_MAX));
            followed.since = ago(lasted).unwrap_or(followed.since);
            followed.seen_at = ago(age).unwrap_or(followed.seen_at);
        }
        let polls = untouched && !followed.in_flight;
        if polls {
            followed.resumed = true;
            let at = Instant::now() + slowest.mul_f64(followed.phase);
            self.schedule.set_schedule(key, Some(at));
        }
        polls
    }

    /// Applies the cached observation when a watcher is added. No poll was made, so a published error stays.
    pub(super) fn offer_cached(&mut self, observation: &Observation, settings: &FollowSettings) -> Change {
        let key = &observation.job.key;
        let Some(followed) = self.schedule.jobs.get_mut(key) else { return Change::default() };
        let before = followed.stale();
        followed.publish(&mut self.duration_stats, |published| published.learn(observation));
        let turned = followed.turned(before);
        self.schedule.plan_if_unscheduled(key, settings);
        Change { turned, wakes: true }
    }

    /// Applies the cached observation while a fetch runs. It is published if the fetch fails.
    pub(super) fn recall(&mut self, older: &Observation) -> Change {
        let Some(followed) = self.schedule.jobs.get_mut(&older.job.key) else { return Change::default() };
        let before = followed.stale();
        followed.publish(&mut self.duration_stats, |published| published.recall(older));
        Change { turned: followed.turned(before), wakes: false }
    }

    /// Applies that a watcher found nothing without a poll.
    pub(super) fn offer_missing(
        &mut self,
        key: &JobKey,
        error: LookupError,
        settings: &FollowSettings,
    ) -> Change {
        let Some(followed) = self.get_mut(key) else { return Change::default() };
        let before = followed.stale();
        followed.updates.send_if_modified(|published| {
            published.is_empty() && Arc::make_mut(published).record_error(error)
        });
        let turned = followed.turned(before);
        self.schedule.plan_if_unscheduled(key, settings);
        Change { turned, wakes: true }
    }

    /// Applies the result of a fetch of any caller: publishes it to the watchers, and schedules the next poll.
    pub(super) fn apply_fetch(
        &mut self,
        key: &JobKey,
        result: Result<&Observation, LookupError>,
        settings: &FollowSettings,
    ) -> Change {
        if let Ok(observation) = result {
            self.proofs.answered(&key.source);
            self.before_observation(observation);
        }
        let Some(followed) = self.schedule.jobs.get_mut(key) else {
            // Wake the loop to apply that the source has recovered, whichever call detected it.
            let wakes = result.is_ok() && self.schedule.is_broken(&key.source);
            return Change { turned: None, wakes };
        };
        let before = followed.stale();
        let ends_poll = std::mem::take(&mut followed.in_flight);
        followed.stand_by = false;
        followed.resumed = false;
        followed.paused_until = None;
        followed.outage =
            matches!(result, Err(LookupError::Fetch(FetchError::Unavailable(_) | FetchError::TimedOut)));
        let pause = match &result {
            Err(LookupError::Fetch(FetchError::Throttled { retry_after })) => *retry_after,
            Ok(_) | Err(_) => Duration::ZERO,
        };
        // Any answer except "not found" resets this; a failed call or a pause does not.
        let found = matches!(
            result,
            Ok(_) | Err(LookupError::Fetch(FetchError::BadAnswer(_) | FetchError::ConflictingVersion))
        );
        // A lower version is an answer.
        let failed = matches!(&result, Err(error) if !matches!(error, LookupError::Fetch(FetchError::ConflictingVersion)));
        match result {
            Ok(observation) => {
                followed.failures = 0;
                followed.read_at = Some(Instant::now());
                followed.publish(&mut self.duration_stats, |published| published.observe(observation));
            }
            Err(error) => {
                if failed && ends_poll {
                    followed.failures = followed.failures.saturating_add(1);
                }
                followed.updates.send_if_modified(|published| Arc::make_mut(published).record_error(error));
                let state = followed.updates.borrow().state();
                followed.state_count.set(state);
            }
        }
        if !pause.is_zero() {
            followed.paused_until = Some(Instant::now() + pause);
        }
        followed.note_vanished(found);
        let turned = followed.turned(before);
        self.expire_if_due(key, settings);
        if failed && !ends_poll && pause.is_zero() {
            // a client whose reads fail must not delay the updates of all watchers
            self.schedule.plan_sooner(key, settings);
        } else {
            self.schedule.plan(key, settings, pause);
        }
        Change { turned, wakes: true }
    }

    /// Applies the observation of another replica: publishes it, and schedules the next poll a little after that of the
    /// other replica. So the replica that polled last polls next, and another takes over when it does not.
    pub(super) fn apply_remote(&mut self, observation: &Observation, settings: &FollowSettings) -> Change {
        let key = &observation.job.key;
        self.before_observation(observation);
        let Some(followed) = self.schedule.jobs.get_mut(key) else { return Change::default() };
        let before = followed.stale();
        followed.in_flight = false;
        followed.stand_by = true;
        // An observation that was known before does not show that the upstream responds.
        let is_new = followed.updates.borrow().seen().is_none_or(|seen| observation.supersedes(seen));
        if is_new {
            self.proofs.answered(&key.source);
            followed.failures = 0;
            followed.read_at = Some(Instant::now());
            followed.publish(&mut self.duration_stats, |published| published.observe(observation));
            followed.note_vanished(true);
        }
        let turned = followed.turned(before);
        self.expire_if_due(key, settings);
        self.schedule.plan(key, settings, Duration::ZERO);
        Change { turned, wakes: true }
    }

    /// Applies a job as a list of its source contained it. Its next read by id stays scheduled, unless it is over.
    pub(super) fn apply_listed(&mut self, observation: &Observation, settings: &FollowSettings) -> Change {
        let key = &observation.job.key;
        self.proofs.answered(&key.source);
        self.schedule.confirm(key);
        let Some(followed) = self.schedule.jobs.get_mut(key) else { return Change::default() };
        let before = followed.stale();
        followed.publish(&mut self.duration_stats, |published| published.observe(observation));
        followed.note_vanished(true);
        let turned = followed.turned(before);
        let over = followed.is_over();
        self.expire_if_due(key, settings);
        if over {
            self.schedule.plan(key, settings, Duration::ZERO);
        }
        Change { turned, wakes: over }
    }

    /// Compares a new observation with the sweeps of its source, before it is published.
    fn before_observation(&mut self, observation: &Observation) {
        let key = &observation.job.key;
        if self.schedule.coverage(&key.source).is_none() {
            return;
        }
        let held = self.schedule.jobs.get(key).and_then(|followed| followed.updates.borrow().seen().cloned());
        self.schedule.note_unlisted(held.as_ref(), observation);
        self.schedule.confirm(key);
    }

    /// Ends a poll without a result. Returns whether the schedule changed.
    pub(super) fn clear_in_flight(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        self.schedule.end_read(key);
        let in_flight = self.get_mut(key).filter(|followed| followed.in_flight);
        let Some(followed) = in_flight else { return false };
        followed.in_flight = false;
        self.schedule.plan(key, settings, Duration::ZERO);
        true
    }

    /// Returns whether a job would expire as vanished if its source proved that it is the configured one, and the
    /// source may be probed now.
    pub(super) fn lacks_proof(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        let due = self.schedule.jobs.get(key).is_some_and(|followed| {
            !followed.is_over()
                && followed.vanished_for().is_some_and(|vanished| vanished >= settings.missing_for)
        });
        due && self.proofs.may_probe(&key.source, settings.pace.slowest)
    }

    /// Applies that a source answered its probe: its jobs that vanished for long enough expire.
    pub(super) fn proved(&mut self, source: &SourceName, settings: &FollowSettings) {
        self.proofs.answered(source);
        let vanished = self.schedule.jobs.iter().filter(|(key, followed)| {
            key.source == *source && followed.vanished_since.is_some() && !followed.is_over()
        });
        for key in vanished.map(|(key, _)| key.clone()).collect::<Vec<JobKey>>() {
            self.expire_if_due(&key, settings);
            self.schedule.plan(&key, settings, Duration::ZERO);
            self.schedule.update_indexes(&key, settings);
        }
    }

    /// Stops following a job that has reached its limit.
    fn expire_if_due(&self, key: &JobKey, settings: &FollowSettings) {
        let Some(followed) = self.schedule.jobs.get(key) else { return };
        let proven =
            followed.vanished_since.is_some_and(|since| self.proofs.answered_since(&key.source, since));
        followed.expire_if_due(settings, proven);
    }
}

#[cfg(test)]
mod tests;
