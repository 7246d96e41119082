//! The poll schedule: the followed jobs, when each is polled next, and which are polled now. No lock of
//! its own, no waiting, no I/O: the registry calls it under its lock.
//!
//! When a source allows fewer polls than are due, they are spaced over its hourly budget, or made one at a time while
//! its circuit breaker is open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::followed_job::FollowedJob;
use super::round_robin::round_robin;
use super::settings::FollowSettings;
use super::source_polls::{PollCapacity, PollLoad, PollQueue, SourcePolls};
use crate::domain::id::{JobHasher, JobKey, SourceName};
use crate::telemetry::meters;

/// After an error of the source a watched job is polled again within this time, a limited number of times.
const RETRY_WATCHED: Duration = Duration::from_secs(5);
/// The number of these retries. A job that fails for longer is polled at the normal interval.
const RETRIES_WATCHED: u32 = 5;

/// The followed jobs and the times of their polls.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    pub(super) jobs: HashMap<JobKey, FollowedJob, JobHasher>,
    pub(super) queues: HashMap<SourceName, PollQueue>,
    pub(super) polls: HashMap<SourceName, SourcePolls>,
    /// The jobs that were forgotten since the last batch; they are reported to the ledger after it.
    forgotten: Vec<JobKey>,
    /// The number of the last read of a job that is not followed.
    pub(super) last_read: u64,
}

impl PollSchedule {
    /// The sources with scheduled jobs.
    pub(super) fn sources(&self) -> Vec<SourceName> {
        self.queues.keys().cloned().collect()
    }

    /// When the next job of a source becomes due after `now`.
    pub(super) fn next_due(&self, source: &SourceName, now: Instant) -> Option<Instant> {
        let later = self.queues.get(source)?.range((now, u64::MAX)..).next();
        later.map(|((at, _), _)| *at)
    }

    /// The jobs that were forgotten since the last call.
    pub(super) fn take_forgotten(&mut self) -> Vec<JobKey> {
        std::mem::take(&mut self.forgotten)
    }

    /// The time of the next poll of a job; `None` when none is scheduled. While polls are spaced it is a forecast: the
    /// job that has been due longest is polled first.
    pub(super) fn next_poll(&mut self, key: &JobKey, now: Instant) -> Option<Instant> {
        let followed = self.jobs.get(key).filter(|followed| !followed.is_over())?;
        let planned = followed.scheduled_at?;
        if let Some(coverage) = self.coverage(&key.source).filter(|coverage| coverage.covers(followed)) {
            return Some(planned.min((coverage.swept.0 + coverage.interval).max(now)));
        }
        let slots = self.polls.get_mut(&key.source).and_then(|polls| polls.slots.as_mut());
        let at = match (slots, self.queues.get(&key.source)) {
            (Some(slots), Some(queue)) => {
                slots.expected((planned, followed.number), followed.failures > 0, queue, now)
            }
            (_, _) => planned,
        };
        Some(at)
    }

    /// Schedules a job, or removes it from the schedule.
    pub(super) fn set_schedule(&mut self, key: &JobKey, at: Option<Instant>) {
        let Some(followed) = self.jobs.get_mut(key) else { return };
        if followed.scheduled_at != at {
            followed.updates.borrow().forget_snapshot();
        }
        let queue = self.queues.entry(key.source.clone()).or_default();
        if let Some(before) = std::mem::replace(&mut followed.scheduled_at, at) {
            queue.remove(&(before, followed.number));
        }
        if let Some(at) = at {
            queue.insert((at, followed.number), key.clone());
        }
    }

    /// Schedules the next poll, not before `pause` is over. A job in a terminal state is only scheduled to be
    /// forgotten.
    pub(super) fn plan(&mut self, key: &JobKey, settings: &FollowSettings, pause: Duration) {
        let Some(followed) = self.jobs.get(key).filter(|followed| !followed.in_flight) else { return };
        let at = if followed.is_over() {
            followed.idle_since.map(|since| since + settings.unsubscribe_grace)
        } else {
            let now = Instant::now();
            // A pause ends for all jobs of a source at once; the phases spread their polls.
            let paused =
                if pause.is_zero() { pause } else { pause + settings.pace.fastest.mul_f64(followed.phase) };
            let stand_by = if followed.stand_by { settings.wait_for_replica() } else { Duration::ZERO };
            // A list that arrived during the last read did not contain the job any more.
            let again = followed.urgent && followed.failures == 0 && pause.is_zero();
            let interval =
                if again { Duration::ZERO } else { self.interval(followed, settings, now).max(paused) };
            let next = now + interval + stand_by;
            Some(followed.idle_since.map_or(next, |since| next.min(since + settings.unsubscribe_grace)))
        };
        self.set_schedule(key, at);
    }

    pub(super) fn plan_if_idle(&mut self, key: &JobKey, settings: &FollowSettings) {
        if self.jobs.get(key).is_some_and(|followed| followed.scheduled_at.is_none()) {
            self.plan(key, settings, Duration::ZERO);
        }
    }

    /// The due jobs of one source. Jobs without an interest are forgotten instead.
    pub(super) fn due(
        &mut self,
        source: &SourceName,
        now: Instant,
        settings: &FollowSettings,
    ) -> Vec<JobKey> {
        let Some(queue) = self.queues.get(source) else { return Vec::new() };
        let due: Vec<JobKey> = queue.range(..=(now, u64::MAX)).map(|(_, key)| key.clone()).collect();
        let (gone, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|key| self.is_forgettable(key, now, settings));
        for key in gone {
            self.forget(&key);
        }
        due
    }

    fn is_forgettable(&self, key: &JobKey, now: Instant, settings: &FollowSettings) -> bool {
        let idle_since = self.jobs.get(key).and_then(|followed| followed.idle_since);
        idle_since.is_some_and(|since| now >= since + settings.unsubscribe_grace)
    }

    fn forget(&mut self, key: &JobKey) {
        self.set_schedule(key, None);
        self.jobs.remove(key);
        self.forgotten.push(key.clone());
    }

    /// The demand of the jobs of one source.
    pub(super) fn demand(&self, source: &SourceName, settings: &FollowSettings) -> PollLoad {
        let coverage = self.coverage(source);
        let reads = self.count_reads(source);
        PollLoad {
            jobs: self.queues.get(source).map_or(0, PollQueue::len).saturating_sub(reads),
            reads,
            awaited: self.polls.get(source).is_some_and(|polls| polls.watchers > 0),
            slowest: coverage.map_or(settings.pace.slowest, |coverage| coverage.verify_interval),
            sweep_interval: coverage.map(|coverage| coverage.interval),
        }
    }

    pub(super) fn count_watcher(&mut self, key: &JobKey, watches: bool) {
        self.polls.entry(key.source.clone()).or_default().watchers += usize::from(watches);
    }

    pub(super) fn discount_watcher(&mut self, key: &JobKey, watches: bool) {
        if let Some(polls) = self.polls.get_mut(&key.source) {
            polls.watchers = polls.watchers.saturating_sub(usize::from(watches));
        }
    }

    pub(super) fn is_broken(&self, source: &SourceName) -> bool {
        self.polls.get(source).is_some_and(|polls| polls.broken)
    }

    /// Applies the capacity of a source. When its circuit breaker has closed, the jobs that waited for that become due.
    pub(super) fn apply_capacity(
        &mut self,
        source: &SourceName,
        room: &PollCapacity,
        now: Instant,
        settings: &FollowSettings,
    ) {
        self.polls.entry(source.clone()).or_default().apply_capacity(room, now);
        if room.recovered {
            self.recover(source, now, settings);
        }
    }

    /// Records that a request starts.
    pub(super) fn note_request(&mut self, source: &SourceName, room: &PollCapacity, now: Instant) {
        if let Some(slots) = self.polls.get_mut(source).and_then(|polls| polls.slots.as_mut()) {
            slots.next = now + room.spacing;
        }
    }

    /// When a source has more to do, besides what becomes due: jobs that are already due wait for capacity, and a
    /// source with an open circuit breaker waits for its next probe.
    pub(super) fn opens(&self, source: &SourceName, room: &PollCapacity, now: Instant) -> Option<Instant> {
        let first = self.queues.get(source).and_then(|queue| queue.first_key_value());
        let is_due = first.is_some_and(|((at, _), _)| *at <= now);
        let opens = room.opens.filter(|_| is_due);
        let tries = room.broken_for.filter(|wait| !wait.is_zero() && self.probe_of(source).is_some());
        let tries = tries.map(|wait| (now + wait).max(room.opens.unwrap_or(now)));
        opens.into_iter().chain(tries).min()
    }

    /// Chooses the jobs of one source to poll, and marks them as being polled. Clients are served in round robin.
    pub(super) fn choose(
        &mut self,
        source: &SourceName,
        room: &PollCapacity,
        now: Instant,
        settings: &FollowSettings,
    ) -> Vec<JobKey> {
        let spaced = !room.spacing.is_zero();
        let mut due = self.due(source, now, settings);
        if due.is_empty() && room.broken_for.is_some_and(|wait| wait.is_zero()) {
            due.extend(self.probe_of(source));
            self.polls.entry(source.clone()).or_default().probe = due.first().cloned();
        }
        let urgent = self.take_urgent(&mut due, room.urgent);
        let free = room.jobs.saturating_sub(urgent.len());
        let mut chosen = if free == 0 {
            Vec::new()
        } else if spaced {
            let mut order = self.polls.get_mut(source).map(|polls| std::mem::take(&mut polls.order));
            let order = order.get_or_insert_default();
            let chosen = order.choose(due, free, |key| self.client_of(key));
            self.polls.entry(source.clone()).or_default().order = std::mem::take(order);
            chosen
        } else {
            round_robin(due, free, |key| self.client_of(key))
        };
        chosen.extend(urgent);
        let batch_capacity = chosen.len().next_multiple_of(room.a_request.max(1)).min(room.jobs);
        let free = batch_capacity.saturating_sub(chosen.len());
        if spaced || self.coverage(source).is_some() {
            chosen.extend(self.next_scheduled(source, free, now));
        } else {
            chosen.extend(self.batch_fillers(source, free, now, settings));
        }
        chosen.retain(|key| self.start_polls(key, settings));
        chosen
    }

    /// The time to the next poll of a job. A watched job is polled soon after an error of its source. While the circuit
    /// breaker is open, only the probe is sent.
    fn interval(&self, followed: &FollowedJob, settings: &FollowSettings, now: Instant) -> Duration {
        let interval = followed.interval_under(self.coverage(&followed.source), settings, now);
        let soon = followed.outage
            && followed.failures <= RETRIES_WATCHED
            && followed.is_watched()
            && !self.is_broken(&followed.source);
        if soon { interval.min(RETRY_WATCHED.max(settings.pace.fastest)) } else { interval }
    }

    /// The job to poll before it is due, to find out whether the source has recovered: a watched one. `None` while the
    /// previous probe is in flight.
    fn probe_of(&self, source: &SourceName) -> Option<JobKey> {
        let polls = self.polls.get(source).filter(|polls| polls.watchers > 0)?;
        let probed = polls.probe.as_ref().and_then(|key| self.jobs.get(key));
        if probed.is_some_and(|followed| followed.in_flight) {
            return None;
        }
        let mut queue = self.queues.get(source)?.values();
        let waits = |key: &&JobKey| {
            self.jobs.get(*key).is_some_and(|followed| followed.outage && followed.is_watched())
        };
        queue.find(waits).cloned()
    }

    /// The jobs that are added to a spaced request at no cost before they are due: the next ones. A job that failed
    /// keeps its scheduled time.
    fn next_scheduled(&self, source: &SourceName, batch_capacity: usize, now: Instant) -> Vec<JobKey> {
        let Some(queue) = self.queues.get(source) else { return Vec::new() };
        let later = queue.range((now, u64::MAX)..).map(|(_, key)| key);
        let well = |key: &&JobKey| {
            self.jobs
                .get(*key)
                .is_none_or(|followed| followed.failures == 0 && followed.paused_until.is_none())
        };
        later.filter(well).take(batch_capacity).cloned().collect()
    }

    /// Makes everything due that waited because of the source's errors, spread over the shortest interval.
    fn recover(&mut self, source: &SourceName, now: Instant, settings: &FollowSettings) {
        let mut due = Vec::new();
        for (key, followed) in &mut self.jobs {
            if key.source == *source && std::mem::take(&mut followed.outage) {
                followed.failures = 0;
                let at = now + settings.pace.fastest.mul_f64(followed.phase);
                due.extend(followed.scheduled_at.map(|planned| (key.clone(), planned.min(at))));
            }
        }
        for (key, at) in due {
            self.set_schedule(&key, Some(at));
        }
    }

    /// The jobs that are added to a request that is sent anyway, at no cost: those due soon, those that another replica
    /// would poll soon, and those that have waited for half of their interval. So replicas that follow the same jobs soon
    /// build the same batches as one replica would, and jobs that began at different times soon share their requests.
    fn batch_fillers(
        &self,
        source: &SourceName,
        limit: usize,
        now: Instant,
        settings: &FollowSettings,
    ) -> Vec<JobKey> {
        let Some(queue) = self.queues.get(source) else { return Vec::new() };
        let soon = now + settings.pace.fastest / 2;
        let soon_elsewhere = soon + settings.wait_for_replica();
        let last = soon_elsewhere.max(now + settings.pace.slowest / 2);
        let joins = |at: Instant, key: &JobKey| {
            let job = self.jobs.get(key);
            let is_near = at <= soon || at <= soon_elsewhere && job.is_some_and(|followed| followed.stand_by);
            is_near || job.is_some_and(|followed| followed.has_waited_half(at, now))
        };
        let joining =
            queue.range((now, u64::MAX)..=(last, u64::MAX)).filter(|((at, _), key)| joins(*at, key));
        joining.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// The client on whose behalf a job is polled: the one with the oldest interest.
    fn client_of(&self, key: &JobKey) -> Option<Arc<str>> {
        let oldest = self.jobs.get(key)?.interests.first_key_value();
        oldest.map(|(_, watch_request)| Arc::clone(&watch_request.client))
    }

    /// Marks a job as being polled. Returns `false` for a job that needs no poll.
    fn start_polls(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        let is_read = self.start_read(key, settings);
        let Some(followed) = self.jobs.get_mut(key) else { return is_read };
        if followed.is_over() {
            self.plan(key, settings, Duration::ZERO);
            return is_read;
        }
        followed.in_flight = true;
        followed.urgent = false;
        let late = followed.scheduled_at.and_then(|due| Instant::now().checked_duration_since(due));
        if let Some(late) = late {
            meters::poll_lag(&key.source, late);
        }
        self.set_schedule(key, None);
        true
    }
}
