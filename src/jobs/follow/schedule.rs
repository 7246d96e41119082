//! The poll schedule: the followed jobs, when each is polled next, and which are polled now. No lock of
//! its own, no waiting, no I/O: the registry calls it under its lock.
//!
//! When a source allows fewer polls than are due, they are spaced over its hourly budget, or made one at a time while
//! its circuit breaker is open.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::followed_job::FollowedJob;
use super::poll_queue::PollQueue;
use super::settings::FollowSettings;
use super::source_polls::{PollCapacity, PollLoad, SourcePolls};
use crate::domain::id::{JobHasher, JobKey, SourceName};
use crate::telemetry::meters;

/// After an error of the source a watched job is polled again within this time, a limited number of times.
const RETRY_WATCHED: Duration = Duration::from_secs(5);
/// The number of these retries. A job that fails for longer is polled at the normal interval.
const RETRIES_WATCHED: u32 = 5;
/// The maximum number of jobs that are examined to fill up a request.
const FILLERS_EXAMINED: usize = 1_000;

/// The followed jobs and the times of their polls.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    pub(super) jobs: HashMap<JobKey, FollowedJob, JobHasher>,
    pub(super) queues: HashMap<SourceName, PollQueue>,
    pub(super) polls: HashMap<SourceName, SourcePolls>,
    /// The jobs without an interest, by the time since which they have none, and by number.
    idle: BTreeMap<(Instant, u64), JobKey>,
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
        let ((at, _), _) = self.queues.get(source)?.later(now).next()?;
        Some(at)
    }

    /// The jobs that were forgotten since the last call.
    pub(super) fn take_forgotten(&mut self) -> Vec<JobKey> {
        std::mem::take(&mut self.forgotten)
    }

    /// The time of the next poll of a job; `None` when none is scheduled, or the job is forgotten before it. While polls
    /// are spaced it is a forecast: the job that has been due longest is polled first.
    pub(super) fn next_poll(
        &mut self,
        key: &JobKey,
        now: Instant,
        settings: &FollowSettings,
    ) -> Option<Instant> {
        let followed = self.jobs.get(key).filter(|followed| !followed.is_over())?;
        let forgotten_at = followed.idle_since.map(|since| since + settings.unsubscribe_grace);
        let is_before = |at: &Instant| forgotten_at.is_none_or(|end| *at < end);
        let planned = followed.scheduled_at?;
        if let Some(coverage) = self.coverage(&key.source).filter(|coverage| coverage.covers(followed)) {
            return Some(planned.min((coverage.swept.0 + coverage.interval).max(now))).filter(is_before);
        }
        let slots = self.polls.get_mut(&key.source).and_then(|polls| polls.slots.as_mut());
        let at = match (slots, self.queues.get(&key.source)) {
            (Some(slots), Some(queue)) => {
                slots.expected((planned, followed.number), followed.failures > 0, queue, now)
            }
            (_, _) => planned,
        };
        Some(at).filter(is_before)
    }

    /// Schedules a job, or removes it from the schedule.
    pub(super) fn set_schedule(&mut self, key: &JobKey, at: Option<Instant>) {
        let Some(followed) = self.jobs.get_mut(key) else { return };
        if followed.scheduled_at != at {
            followed.updates.borrow().forget_snapshot();
        }
        let queue = self.queues.entry(key.source.clone()).or_default();
        if let Some(before) = std::mem::replace(&mut followed.scheduled_at, at) {
            queue.remove((before, followed.number));
        }
        if let Some(at) = at {
            queue.insert((at, followed.number), key.clone(), followed.marks());
        }
    }

    /// Schedules the next poll, not before `pause` is over. A job that is over needs none.
    pub(super) fn plan(&mut self, key: &JobKey, settings: &FollowSettings, pause: Duration) {
        let Some(followed) = self.jobs.get(key).filter(|followed| !followed.in_flight) else { return };
        let at = self.planned_at(followed, settings, pause);
        self.set_schedule(key, at);
    }

    /// The same without a pause, but not later than it is scheduled already.
    pub(super) fn plan_sooner(&mut self, key: &JobKey, settings: &FollowSettings) {
        let Some(followed) = self.jobs.get(key).filter(|followed| !followed.in_flight) else { return };
        let at = self.planned_at(followed, settings, Duration::ZERO);
        let at = at.map(|at| followed.scheduled_at.map_or(at, |scheduled| scheduled.min(at)));
        self.set_schedule(key, at);
    }

    fn planned_at(
        &self,
        followed: &FollowedJob,
        settings: &FollowSettings,
        pause: Duration,
    ) -> Option<Instant> {
        (!followed.is_over()).then(|| {
            let now = Instant::now();
            // A pause ends for all jobs of a source at once; the phases spread their polls.
            let paused =
                if pause.is_zero() { pause } else { pause + settings.pace.fastest.mul_f64(followed.phase) };
            let stand_by = if followed.stand_by { settings.wait_for_replica() } else { Duration::ZERO };
            // A list that arrived during the last read did not contain the job any more.
            let again = followed.urgent && followed.failures == 0 && pause.is_zero();
            let interval =
                if again { Duration::ZERO } else { self.interval(followed, settings, now).max(paused) };
            now + interval + stand_by
        })
    }

    /// Applies what changed in a job to the queue and the demand of its source. Required after each change of its
    /// interests, its published state, or what decides about its interval. A job that is over needs no poll.
    pub(super) fn update_indexes(&mut self, key: &JobKey, settings: &FollowSettings) {
        if self.jobs.get(key).is_some_and(|followed| followed.is_over() && followed.scheduled_at.is_some()) {
            self.set_schedule(key, None);
        }
        let Some(followed) = self.jobs.get_mut(key) else { return };
        let demand = followed.sweep_demand(settings, Instant::now());
        let before = std::mem::replace(&mut followed.demand, demand);
        if demand != before {
            self.polls.entry(key.source.clone()).or_default().demand.replace(before, demand);
        }
        if let Some((at, queue)) = followed.scheduled_at.zip(self.queues.get_mut(&key.source)) {
            queue.mark((at, followed.number), followed.marks());
        }
    }

    /// Schedules the next poll of a job that has none.
    pub(super) fn plan_if_unscheduled(&mut self, key: &JobKey, settings: &FollowSettings) {
        if self.jobs.get(key).is_some_and(|followed| followed.scheduled_at.is_none()) {
            self.plan(key, settings, Duration::ZERO);
        }
    }

    /// Records that a job has an interest, or has none any more.
    pub(super) fn set_idle_since(&mut self, key: &JobKey, since: Option<Instant>) {
        let Some(followed) = self.jobs.get_mut(key) else { return };
        if let Some(before) = std::mem::replace(&mut followed.idle_since, since) {
            self.idle.remove(&(before, followed.number));
        }
        if let Some(since) = since {
            self.idle.insert((since, followed.number), key.clone());
        }
    }

    /// Forgets the jobs that have had no interest for the unsubscribe grace period. One that is being polled is forgotten
    /// after that.
    pub(super) fn forget_idle(&mut self, now: Instant, settings: &FollowSettings) {
        let is_over = |since: Instant| since + settings.unsubscribe_grace <= now;
        let idle = self.idle.iter().take_while(|((since, _), _)| is_over(*since));
        let gone: Vec<JobKey> =
            idle.map(|(_, key)| key).filter(|key| !self.is_in_flight(key)).cloned().collect();
        for key in gone {
            self.set_schedule(&key, None);
            self.set_idle_since(&key, None);
            self.jobs.remove(&key);
            self.forgotten.push(key);
        }
    }

    /// When the next job is forgotten. The end of a poll wakes the loop, so jobs that are being polled do not count.
    pub(super) fn next_forgotten(&self, settings: &FollowSettings) -> Option<Instant> {
        let mut idle = self.idle.iter().filter(|(_, key)| !self.is_in_flight(key));
        idle.next().map(|((since, _), _)| *since + settings.unsubscribe_grace)
    }

    /// Asserts that the idle index contains exactly the jobs without an interest.
    #[cfg(test)]
    pub(super) fn check_idle(&self) {
        let idle = self.jobs.iter().filter_map(|(key, followed)| {
            assert_eq!(followed.idle_since.is_some(), followed.requests.is_empty());
            Some(((followed.idle_since?, followed.number), key.clone()))
        });
        assert_eq!(self.idle, idle.collect());
    }

    fn is_in_flight(&self, key: &JobKey) -> bool {
        self.jobs.get(key).is_some_and(|followed| followed.in_flight)
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
        let is_due = self.queues.get(source).is_some_and(|queue| queue.has_due(now));
        let opens = room.opens.filter(|_| is_due);
        let tries = room.broken_for.filter(|wait| !wait.is_zero() && self.probe_of(source).is_some());
        let tries = tries.map(|wait| (now + wait).max(room.opens.unwrap_or(now)));
        opens.into_iter().chain(tries).min()
    }

    /// Chooses the jobs of one source to poll, and marks them as being polled. Clients are served in round robin. Those that
    /// a list does not contain any more are first.
    pub(super) fn choose(
        &mut self,
        source: &SourceName,
        room: &PollCapacity,
        now: Instant,
        settings: &FollowSettings,
    ) -> Vec<JobKey> {
        let is_spaced = !room.spacing.is_zero();
        let Some(queue) = self.queues.get(source) else { return Vec::new() };
        let polls = self.polls.entry(source.clone()).or_default();
        let mut positions = queue.urgent(now, room.urgent);
        let free = room.jobs.saturating_sub(positions.len());
        let due = queue.choose(now, free, &positions, is_spaced.then_some(&mut polls.round_robin));
        positions.extend(due);
        let mut chosen: Vec<JobKey> =
            positions.iter().filter_map(|position| queue.key(*position)).cloned().collect();
        if !queue.has_due(now) && room.broken_for.is_some_and(|wait| wait.is_zero()) {
            chosen.extend(self.probe_of(source));
            self.polls.entry(source.clone()).or_default().probe = chosen.first().cloned();
        }
        let batch_capacity = chosen.len().next_multiple_of(room.a_request.max(1)).min(room.jobs);
        let free = batch_capacity.saturating_sub(chosen.len());
        if is_spaced || self.coverage(source).is_some() {
            chosen.extend(self.next_scheduled(source, free, now));
        } else {
            chosen.extend(self.batch_fillers(source, free, now, settings));
        }
        // a job can be scheduled for a poll and for a read
        let mut started = HashSet::new();
        chosen.retain(|key| started.insert(key.clone()) && self.start_polls(key, settings));
        chosen
    }

    /// The time to the next poll of a job. A watched job is polled soon after an error of its source. While the circuit
    /// breaker is open, only the probe is sent.
    fn interval(&self, followed: &FollowedJob, settings: &FollowSettings, now: Instant) -> Duration {
        let interval = followed.interval_under(self.coverage(&followed.source), settings, now);
        let soon = followed.outage
            && followed.failures <= RETRIES_WATCHED
            && followed.requests.is_watched()
            && !self.is_broken(&followed.source);
        if soon { interval.min(RETRY_WATCHED.max(settings.pace.fastest)) } else { interval }
    }

    /// The job to poll before it is due, to find out whether the source has recovered: a watched one. `None` while the
    /// previous probe is in flight.
    fn probe_of(&self, source: &SourceName) -> Option<JobKey> {
        let polls = self.polls.get(source)?;
        let probed = polls.probe.as_ref().and_then(|key| self.jobs.get(key));
        if probed.is_some_and(|followed| followed.in_flight) {
            return None;
        }
        let queue = self.queues.get(source)?;
        queue.first_probe().and_then(|position| queue.key(position)).cloned()
    }

    /// The jobs that are added to a spaced request at no cost before they are due: the next ones. A job that failed
    /// keeps its scheduled time.
    fn next_scheduled(&self, source: &SourceName, batch_capacity: usize, now: Instant) -> Vec<JobKey> {
        let Some(queue) = self.queues.get(source) else { return Vec::new() };
        let later = queue.later(now).map(|(_, key)| key).take(FILLERS_EXAMINED);
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
            self.update_indexes(&key, settings);
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
        let near = queue.later(now).take_while(|((at, _), _)| *at <= last).take(FILLERS_EXAMINED);
        let joining = near.filter(|((at, _), key)| joins(*at, key));
        joining.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// Marks a job as being polled. Returns `false` for a job that needs no poll.
    fn start_polls(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        let is_read = self.start_read(key, settings);
        let can_start = |followed: &&mut FollowedJob| !followed.in_flight && !followed.is_over();
        let Some(followed) = self.jobs.get_mut(key).filter(can_start) else { return is_read };
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
