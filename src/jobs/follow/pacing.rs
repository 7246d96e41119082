//! Chooses the jobs to poll when a source allows fewer polls than are due: polls are spaced over the hourly budget, or
//! made one at a time while the circuit breaker is open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::{JobKey, SourceName};

use super::round_robin::{RoundRobin, round_robin};
use super::{FollowRegistry, FollowSettings, FollowedJob, PollSchedule, RegistryState};

/// After an error of the source a watched job is polled again within this time, a limited number of times.
const RETRY_WATCHED: Duration = Duration::from_secs(5);
/// The number of these retries. A job that fails for longer is polled at the normal interval.
const RETRIES_WATCHED: u32 = 5;
/// How long a sorted schedule is accurate enough for a forecast.
const ORDER_LASTS: Duration = Duration::from_millis(250);

/// The demand of the jobs of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct PollLoad {
    /// Jobs that are scheduled for a poll.
    pub(in crate::jobs) jobs: usize,
    /// Whether any of them is watched.
    pub(in crate::jobs) awaited: bool,
    /// The longest time between two polls of one job.
    pub(in crate::jobs) slowest: Duration,
}

/// How many jobs of one source may be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct PollCapacity {
    /// Jobs in all.
    pub(in crate::jobs) jobs: usize,
    /// Jobs that fit in one request.
    pub(in crate::jobs) a_request: usize,
    /// The time between the starts of requests; zero while the budget is sufficient.
    pub(in crate::jobs) spacing: Duration,
    /// No request starts before this time.
    pub(in crate::jobs) opens: Option<Instant>,
    /// The circuit breaker is open, for at least this long.
    pub(in crate::jobs) broken_for: Option<Duration>,
    /// The circuit breaker was open and has closed.
    pub(in crate::jobs) recovered: bool,
}

/// The state of the polls of one source.
#[derive(Debug, Default)]
pub(super) struct SourcePolls {
    /// The number of interests that receive updates.
    watchers: usize,
    order: RoundRobin<Option<Arc<str>>>,
    slots: Option<RequestSlots>,
    broken: bool,
    /// The job that is polled to find out whether the source has recovered.
    probe: Option<JobKey>,
}

/// When the next requests start.
#[derive(Debug)]
struct RequestSlots {
    next: Instant,
    spacing: Duration,
    a_request: usize,
    /// The schedule in its order, as of `made`.
    order: Vec<(Instant, u64)>,
    made: Option<Instant>,
}

impl FollowRegistry {
    /// The time until the next poll of a job; `None` when none is scheduled. While polls are spaced it is a forecast:
    /// the job that has been due longest is polled first.
    pub(in crate::jobs) fn next_poll(&self, key: &JobKey) -> Option<Duration> {
        let state = &mut *self.lock();
        let followed = state.jobs.get(key).filter(|followed| !followed.is_over())?;
        let (planned, now) = (followed.scheduled_at?, Instant::now());
        let slots = state.polls.get_mut(&key.source).and_then(|polls| polls.slots.as_mut());
        let at = match (slots, state.schedule.get(&key.source)) {
            (Some(slots), Some(schedule)) => {
                slots.expected((planned, followed.number), followed.failures > 0, schedule, now)
            }
            (_, _) => planned,
        };
        Some(at.saturating_duration_since(now))
    }
}

impl RegistryState {
    /// The demand of the jobs of one source.
    pub(super) fn demand(&self, source: &SourceName, settings: &FollowSettings) -> PollLoad {
        PollLoad {
            jobs: self.schedule.get(source).map_or(0, PollSchedule::len),
            awaited: self.polls.get(source).is_some_and(|polls| polls.watchers > 0),
            slowest: settings.pace.slowest,
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
    pub(super) fn take_in(
        &mut self,
        source: &SourceName,
        room: &PollCapacity,
        now: Instant,
        settings: &FollowSettings,
    ) {
        let polls = self.polls.entry(source.clone()).or_default();
        polls.broken = room.broken_for.is_some();
        if room.spacing.is_zero() && room.opens.is_none() {
            polls.slots = None;
        } else {
            let next = room.opens.unwrap_or(now);
            let (spacing, a_request) = (room.spacing, room.a_request.max(1));
            polls.slots = Some(RequestSlots { next, spacing, a_request, order: Vec::new(), made: None });
        }
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
        let first = self.schedule.get(source).and_then(|schedule| schedule.first_key_value());
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
        let mut chosen = if spaced {
            let mut order = self.polls.get_mut(source).map(|polls| std::mem::take(&mut polls.order));
            let order = order.get_or_insert_default();
            let chosen = order.choose(due, room.jobs, |key| self.client_of(key));
            self.polls.entry(source.clone()).or_default().order = std::mem::take(order);
            chosen
        } else {
            round_robin(due, room.jobs, |key| self.client_of(key))
        };
        let batch_capacity = chosen.len().next_multiple_of(room.a_request.max(1)).min(room.jobs);
        let free = batch_capacity.saturating_sub(chosen.len());
        if spaced {
            chosen.extend(self.next_scheduled(source, free, now));
        } else {
            chosen.extend(self.batch_fillers(source, free, now, settings));
        }
        chosen.retain(|key| self.start_polls(key, settings));
        chosen
    }

    /// The time to the next poll of a job. A watched job is polled soon after an error of its source. While the circuit
    /// breaker is open, only the probe is sent.
    pub(super) fn interval(
        &self,
        followed: &FollowedJob,
        settings: &FollowSettings,
        now: Instant,
    ) -> Duration {
        let interval = followed.interval(settings, now);
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
        let mut schedule = self.schedule.get(source)?.values();
        let waits = |key: &&JobKey| {
            self.jobs.get(*key).is_some_and(|followed| followed.outage && followed.is_watched())
        };
        schedule.find(waits).cloned()
    }

    /// The jobs that are added to a spaced request at no cost before they are due: the next ones. A job that failed
    /// keeps its scheduled time.
    fn next_scheduled(&self, source: &SourceName, batch_capacity: usize, now: Instant) -> Vec<JobKey> {
        let Some(schedule) = self.schedule.get(source) else { return Vec::new() };
        let later = schedule.range((now, u64::MAX)..).map(|(_, key)| key);
        let well = |key: &&JobKey| {
            self.jobs
                .get(*key)
                .is_some_and(|followed| followed.failures == 0 && followed.paused_until.is_none())
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
}

impl RequestSlots {
    /// When the job at this position of the schedule is polled. A request with free capacity also includes jobs that
    /// are not due, unless they failed.
    fn expected(
        &mut self,
        place: (Instant, u64),
        failed: bool,
        schedule: &PollSchedule,
        now: Instant,
    ) -> Instant {
        if self.made.is_none_or(|made| made + ORDER_LASTS <= now) {
            self.order = schedule.keys().copied().collect();
            self.made = Some(now);
        }
        let before = self.order.partition_point(|other| *other < place) / self.a_request;
        let slot = self.next + self.spacing.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
        let first = self.order.get(before * self.a_request).map_or(place.0, |(at, _)| *at);
        let due = if failed || self.spacing.is_zero() { place.0 } else { first.min(place.0) };
        slot.max(due)
    }
}
