//! The registry of followed jobs: the interests in each job, its published state, and the time of its next poll.
//!
//! Fan-out is a value, not a queue: each followed job has one watch channel that contains the newest
//! [`PublishedState`]. A slow reader receives fewer values, but always gets the newest one in the end. All decisions
//! are made by `state` and `schedule` under one short lock, without awaiting; `poller` is the loop that executes them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::coverage::{SweepCoverage, UnlistedChange};
use super::published::PublishedState;
use super::settings::FollowSettings;
use super::source_polls::{PollCapacity, PollLoad};
use super::state::{Change, FollowedJobs, Registration, ResumedJob};
use super::state_counts::PLACES;
use crate::domain::durations::{Durations, JobClass};
use crate::domain::estimate::TimeLeft;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::job::Job;
use crate::domain::observation::Observation;
use crate::domain::sweep::SweepDemand;
use crate::jobs::answer::{KnownJob, LookupError, StaleReason};
use crate::ports::clock::ClockReading;
use crate::ports::ledger::Ledger;

/// All followed jobs.
#[derive(Debug)]
pub(in crate::jobs) struct FollowRegistry {
    settings: ArcSwap<FollowSettings>,
    /// Records which jobs are followed and forgotten, for a restart.
    ledger: Arc<dyn Ledger>,
    state: Mutex<FollowedJobs>,
    wake: Notify,
    /// Notified when sweeps may have something new to do.
    sweep_wake: Notify,
    /// The number of followed jobs from which on each new one notifies the sweeps.
    sweep_from: AtomicUsize,
}

/// A guard that keeps a job followed. When the last one is dropped, polling stops after the unsubscribe grace period.
#[derive(Debug)]
pub(in crate::jobs) struct Interest {
    /// It shares its strings with the registry, so that a delivery to many watchers reads them from memory once.
    key: JobKey,
    number: u64,
    /// The number of times the job had expired when this interest was registered.
    endings: u64,
    following: Arc<FollowRegistry>,
    updates: watch::Receiver<Arc<PublishedState>>,
}

/// A followed job as its watchers know it.
#[derive(Clone, Debug)]
pub(in crate::jobs) struct FollowedSnapshot {
    pub(in crate::jobs) observation: Observation,
    /// Why it is stale, as reported to its watchers.
    pub(in crate::jobs) stale: Option<StaleReason>,
    /// How long ago this process confirmed it.
    pub(in crate::jobs) confirmed: Duration,
    /// How long ago that is at most while polls are on time.
    pub(in crate::jobs) at_most: Duration,
}

/// The jobs to poll now, and the time of the next batch.
#[derive(Debug, Default)]
pub(super) struct PollBatch {
    pub(super) due: HashMap<SourceName, Vec<JobKey>>,
    pub(super) next: Option<Instant>,
}

impl FollowRegistry {
    pub(in crate::jobs) fn new(settings: FollowSettings, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            ledger,
            state: Mutex::default(),
            wake: Notify::new(),
            sweep_wake: Notify::new(),
            sweep_from: AtomicUsize::new(usize::MAX),
        })
    }

    /// The current settings.
    pub(in crate::jobs) fn settings(&self) -> FollowSettings {
        **self.settings.load()
    }

    /// Replaces the settings. Scheduled polls keep their times; later ones use the new intervals.
    pub(in crate::jobs) fn set_settings(&self, settings: FollowSettings) {
        self.settings.store(Arc::new(settings));
        self.wake();
        self.sweep_wake.notify_one();
    }

    /// Registers the interest of a watcher. It is registered before the job is read, so that a terminal state in
    /// between is not missed.
    pub(in crate::jobs) fn interest(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        max_staleness: Option<Duration>,
    ) -> Interest {
        self.register(key, client, max_staleness, true)
    }

    /// Registers an interest that only keeps a job followed to its terminal state and receives no updates.
    pub(in crate::jobs) fn unwatched_interest(self: &Arc<Self>, key: &JobKey, client: Arc<str>) -> Interest {
        self.register(key, client, None, false)
    }

    /// Follows a job as before a restart. `held` is the cached observation, not terminal.
    ///
    /// The first poll is at any time within the longest interval, by the job's own phase, so that resumed jobs are not
    /// polled all at once. A returning watcher moves it to the time at which the job would have been polled without the
    /// restart. The interval is that of the job's age, not that of a new job.
    pub(in crate::jobs) fn resume(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        held: Option<&Observation>,
        now: ClockReading,
    ) -> Interest {
        let interest = self.unwatched_interest(key, client);
        let held = held.map(|held| ResumedJob::new(held, now));
        let settings = self.settings();
        if self.lock().change(key, &settings, |state| state.resume(key, held, &settings)) {
            self.wake();
        }
        interest
    }

    fn register(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        max_staleness: Option<Duration>,
        watches: bool,
    ) -> Interest {
        let settings = self.settings();
        let mut state = self.lock();
        let registered = state
            .change(key, &settings, |state| state.register(key, client, max_staleness, watches, &settings));
        let Registration { key, number, endings, updates, is_new, rescheduled } = registered;
        if is_new {
            // Under the lock, so that the ledger sees follows and forgets in their order.
            self.ledger.follow(&key, true);
        }
        let many = is_new && state.schedule.jobs.len() >= self.sweep_from.load(Ordering::Relaxed);
        let eager = max_staleness.is_some() && state.schedule.coverage(&key.source).is_some();
        drop(state);
        if many || eager {
            self.sweep_wake.notify_one();
        }
        if rescheduled {
            self.wake();
        }
        Interest { key, number, endings, following: Arc::clone(self), updates }
    }

    /// Applies the cached observation when a watcher is added, so that the watcher starts from it. No poll was made, so
    /// a published error stays. This method and the next four return the known job if they made it stale or fresh.
    pub(in crate::jobs) fn offer_cached(&self, observation: &Observation) -> Option<KnownJob> {
        self.change(&observation.job.key, |state, settings| state.offer_cached(observation, settings))
    }

    /// Applies the cached observation while a fetch runs for a watcher that requires a newer one. It is published if
    /// the fetch fails.
    pub(in crate::jobs) fn recall(&self, older: &Observation) -> Option<KnownJob> {
        self.change(&older.job.key, |state, _| state.recall(older))
    }

    /// Applies that a watcher found nothing without a poll: "no such job" was cached, or the fetch was not awaited.
    pub(in crate::jobs) fn offer_missing(&self, key: &JobKey, error: LookupError) -> Option<KnownJob> {
        self.change(key, |state, settings| state.offer_missing(key, error, settings))
    }

    /// Applies the result of a fetch of any caller: publishes it to the watchers, and schedules the next poll.
    pub(in crate::jobs) fn apply_fetch(
        &self,
        key: &JobKey,
        result: Result<&Observation, LookupError>,
    ) -> Option<KnownJob> {
        self.change(key, |state, settings| state.apply_fetch(key, result, settings))
    }

    /// Applies the observation of another replica, which is expected to make the next poll as well.
    pub(in crate::jobs) fn apply_remote(&self, observation: &Observation) -> Option<KnownJob> {
        self.change(&observation.job.key, |state, settings| state.apply_remote(observation, settings))
    }

    /// Applies a job as a list of its source contained it.
    pub(in crate::jobs) fn apply_listed(&self, observation: &Observation) -> Option<KnownJob> {
        self.change(&observation.job.key, |state, settings| state.apply_listed(observation, settings))
    }

    /// Starts, renews or ends the sweeps of a source.
    pub(super) fn set_coverage(
        &self,
        source: &SourceName,
        coverage: Option<SweepCoverage>,
        listed: Option<&HashSet<u64>>,
    ) {
        self.lock().schedule.set_coverage(source, coverage, listed, &self.settings());
        self.wake();
    }

    /// What the followed jobs of a source require of its sweeps.
    pub(super) fn sweep_demand(&self, source: &SourceName, ids_a_request: usize) -> SweepDemand {
        self.lock().schedule.sweep_demand(source, &self.settings(), ids_a_request)
    }

    /// The changes of covered jobs of a source that were found without a list since the last call.
    pub(super) fn take_unlisted(&self, source: &SourceName) -> Vec<UnlistedChange> {
        self.lock().schedule.take_unlisted(source)
    }

    /// Schedules reads of jobs that are not followed, in this order, as soon as the budget allows background calls.
    pub(super) fn read_unfollowed(&self, keys: &[JobKey]) {
        if keys.is_empty() {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        for key in keys {
            state.schedule.schedule_read(key, now);
        }
        drop(state);
        self.wake();
    }

    /// Reads discovered jobs by their ids at the verification interval from now on. `was_stored`: they were discovered
    /// before.
    pub(super) fn verify_unfollowed(&self, keys: &[JobKey], was_stored: bool) {
        if keys.is_empty() {
            return;
        }
        let settings = self.settings();
        let mut state = self.lock();
        for key in keys {
            state.schedule.verify(key, was_stored, &settings);
        }
        drop(state);
        self.wake();
    }

    /// Ends the verification of a discovered job.
    pub(super) fn end_verification(&self, key: &JobKey) {
        self.lock().schedule.end_verification(key);
    }

    /// Applies that a read by id stored another observation of a job. The changes of followed jobs are applied elsewhere.
    pub(in crate::jobs) fn note_unfollowed(&self, before: Option<&Observation>, observation: &Observation) {
        self.lock().schedule.note_unfollowed(before, observation);
    }

    /// Whether a job is scheduled for a read, or being read, although it is not followed.
    pub(super) fn is_read(&self, key: &JobKey) -> bool {
        self.lock().schedule.is_read(key)
    }

    /// Removes the reads of the jobs of a source that are not followed.
    pub(super) fn forget_reads(&self, source: &SourceName) {
        self.lock().schedule.forget_reads(source);
    }

    /// Notifies the sweeps of each new job from this number of followed jobs on.
    pub(super) fn notify_sweeps_from(&self, jobs: usize) {
        self.sweep_from.store(jobs, Ordering::Relaxed);
    }

    /// Resolves when sweeps may have something new to do.
    pub(super) async fn sweeps_woken(&self) {
        self.sweep_wake.notified().await;
    }

    /// Makes the sweeps check again what they have to do.
    pub(in crate::jobs) fn wake_sweeps(&self) {
        self.sweep_wake.notify_one();
    }

    fn change(
        &self,
        key: &JobKey,
        apply: impl FnOnce(&mut FollowedJobs, &FollowSettings) -> Change,
    ) -> Option<KnownJob> {
        let (settings, mut state) = (self.settings(), self.lock());
        let Change { turned, wakes } = state.change(key, &settings, |state| apply(state, &settings));
        drop(state);
        if wakes {
            self.wake();
        }
        turned
    }

    /// Takes what is due now, as many jobs of each source as `room` allows, and forgets the jobs that have no interest
    /// left.
    ///
    /// A source without capacity costs nothing here: its due jobs wait for a wake-up or until capacity is available.
    /// Jobs of a removed source are not polled, but they are forgotten when they have no interest left.
    pub(super) fn round(&self, room: impl Fn(&SourceName, PollLoad) -> Option<PollCapacity>) -> PollBatch {
        let (now, settings) = (Instant::now(), self.settings());
        let mut round = PollBatch::default();
        let mut state = self.lock();
        let schedule = &mut state.schedule;
        schedule.forget_idle(now, &settings);
        round.next = schedule.next_forgotten(&settings);
        for source in schedule.sources() {
            let mut opens = None;
            if let Some(room) = room(&source, schedule.demand(&source, &settings)) {
                schedule.apply_capacity(&source, &room, now, &settings);
                if room.jobs > 0 || room.urgent > 0 {
                    let chosen = schedule.choose(&source, &room, now, &settings);
                    if !chosen.is_empty() {
                        schedule.note_request(&source, &room, now);
                        round.due.insert(source.clone(), chosen);
                    }
                }
                opens = schedule.opens(&source, &room, now);
            }
            let next = schedule.next_due(&source, now);
            round.next = round.next.into_iter().chain(next).chain(opens).min();
        }
        for key in schedule.take_forgotten() {
            self.ledger.follow(&key, false);
            // The next batch needs fewer calls of its source, so other replicas may use them.
            self.wake();
        }
        for (class, durations) in state.duration_stats.take_changes() {
            self.ledger.learn(&class, &durations);
        }
        round
    }

    /// Wakes the watchers of a job although nothing changed upstream: whether they may see the job has changed.
    pub(in crate::jobs) fn notify(&self, key: &JobKey) {
        if let Some(followed) = self.lock().schedule.jobs.get(key) {
            followed.updates.send_modify(|_| ());
        }
    }

    /// Makes the watchers of all jobs of a source check again what they may see: the source was removed.
    pub(in crate::jobs) fn notify_source(&self, source: &SourceName) {
        for (_, followed) in self.lock().schedule.jobs.iter().filter(|(key, _)| key.source == *source) {
            followed.updates.send_modify(|_| ());
        }
    }

    /// Resolves when there may be something new to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Makes the loop check the schedule again.
    pub(in crate::jobs) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends a poll whose result was published before the poll began: it joined a single flight at the moment of its
    /// completion.
    pub(super) fn clear_in_flight(&self, key: &JobKey) {
        let settings = self.settings();
        if self.lock().change(key, &settings, |state| state.clear_in_flight(key, &settings)) {
            self.wake();
        }
    }

    /// Returns whether a job would expire as vanished if its source proved that it is the configured one. In this case
    /// the source is to be probed, once for all of its jobs.
    pub(in crate::jobs) fn lacks_proof(&self, key: &JobKey) -> bool {
        self.lock().lacks_proof(key, &self.settings())
    }

    /// Applies that a source answered its probe: its jobs that vanished for long enough expire.
    pub(in crate::jobs) fn proved(&self, source: &SourceName) {
        self.lock().proved(source, &self.settings());
        self.wake();
    }

    /// Restores the duration statistics from before a restart, except where newer ones exist.
    pub(in crate::jobs) fn learned_before(&self, learned: Vec<(JobClass, Durations)>) {
        self.lock().duration_stats.restore(learned);
    }

    /// The last observation of a followed job.
    pub(in crate::jobs) fn seen(&self, key: &JobKey) -> Option<Observation> {
        self.lock().schedule.jobs.get(key)?.updates.borrow().seen().cloned()
    }

    /// A followed job as its watchers know it. `None` if it was neither read nor listed since it is followed, so that only
    /// the store has its state, or is followed no more.
    pub(in crate::jobs) fn known(&self, key: &JobKey) -> Option<FollowedSnapshot> {
        let at_most = self.settings().pace.slowest.saturating_mul(2);
        let (KnownJob { observation, stale }, confirmed) = self.lock().schedule.jobs.get(key)?.known()?;
        Some(FollowedSnapshot { observation, stale, confirmed, at_most })
    }

    /// The time of day of the next poll of a job, when it is `time_of_day` now; `None` when none is scheduled. While
    /// polls are spaced it is a forecast.
    pub(in crate::jobs) fn next_poll(&self, key: &JobKey, time_of_day: Timestamp) -> Option<Timestamp> {
        let now = Instant::now();
        let at = self.lock().schedule.next_poll(key, now, &self.settings())?;
        time_of_day.checked_add(at.saturating_duration_since(now)).ok()
    }

    /// The time that a job has left which was first observed in its state at `since`, when it is `now`; both are
    /// process time. `None` if too little is known of jobs of its kind.
    pub(in crate::jobs) fn time_left(&self, job: &Job, since: Timestamp, now: Timestamp) -> Option<TimeLeft> {
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        self.lock().duration_stats.time_left(job, age)
    }

    /// Whether a job is followed.
    pub(in crate::jobs) fn follows(&self, key: &JobKey) -> bool {
        self.lock().schedule.jobs.contains_key(key)
    }

    /// Whether a job is followed and not terminal.
    pub(in crate::jobs) fn is_open(&self, key: &JobKey) -> bool {
        self.lock().schedule.jobs.get(key).is_some_and(|followed| !followed.is_over())
    }

    /// The followed jobs that are not terminal.
    pub(in crate::jobs) fn open(&self) -> Vec<JobKey> {
        let state = self.lock();
        let open = state.schedule.jobs.iter().filter(|(_, followed)| !followed.is_over());
        open.map(|(key, _)| key.clone()).collect()
    }

    /// How many jobs are being followed.
    pub(in crate::jobs) fn count(&self) -> usize {
        self.lock().schedule.jobs.len()
    }

    /// The number of followed jobs by name of the last observed state.
    pub(in crate::jobs) fn by_state(&self) -> [(&'static str, u64); PLACES] {
        self.lock().state_counts.read()
    }

    fn lock(&self) -> MutexGuard<'_, FollowedJobs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interest {
    /// The job of this interest.
    pub(in crate::jobs) const fn key(&self) -> &JobKey {
        &self.key
    }

    /// The published state, marked as read.
    pub(in crate::jobs) fn read(&mut self) -> Arc<PublishedState> {
        // not the guard: a publisher waits for it, and its holder may wait for the publisher
        let published = Arc::clone(&self.updates.borrow_and_update());
        PublishedState::for_one_who_came_after(published, self.endings)
    }

    /// Whether there is a state that was not read yet.
    pub(in crate::jobs) fn is_unread(&self) -> bool {
        self.updates.has_changed().unwrap_or(true)
    }

    /// Waits for a state that was not read yet. Cancel safe.
    pub(in crate::jobs) async fn changed(&mut self) {
        if self.updates.changed().await.is_err() {
            // The sender exists as long as any interest: this cannot happen, and must not spin if it does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let settings = self.following.settings();
        let (key, number) = (&self.key, self.number);
        if self.following.lock().change(key, &settings, |state| state.unregister(key, number)) {
            self.following.wake();
        }
    }
}
