//! The registry of followed jobs: the interests in each job, its published state, and the time of its next poll.
//!
//! Fan-out is a value, not a queue: each followed job has one watch channel that contains the newest
//! [`PublishedState`]. A slow reader receives fewer values, but always gets the newest one in the end. All decisions
//! are made here under one short lock, without awaiting; `poller` is the loop that executes them.

mod duration_stats;
mod followed_job;
mod interest;
mod notifications;
mod other_replicas;
mod pacing;
mod published;
mod resumed;
mod round_robin;
mod state_counts;
mod vanished;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::durations::Durations;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::pace::PollIntervals;
use crate::ports::ledger::Ledger;
use crate::ports::upstream::FetchError;
use crate::telemetry::meters;

use super::answer::{KnownJob, LookupError};
use duration_stats::DurationStats;
use pacing::SourcePolls;
pub(super) use pacing::{PollCapacity, PollLoad};
pub(super) use published::PublishedState;
pub(super) use resumed::ResumedJob;
use state_counts::{StateCountGuard, StateCounts};
use vanished::SourceProofs;

/// How jobs are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowSettings {
    /// How often to poll.
    pub pace: PollIntervals,
    /// How long to continue polling after the last watcher unsubscribed.
    pub unsubscribe_grace: Duration,
    /// How long to poll a job that the upstream does not know.
    pub missing_for: Duration,
    /// How long to follow a job whose state is not known to the gateway.
    pub unknown_for: Duration,
    /// How long to follow a job that stays in one state.
    pub at_most: Duration,
    /// How long an upstream has to report a lower version of a job before it is accepted.
    pub verify_interval: Duration,
}

/// All followed jobs.
#[derive(Debug)]
pub(super) struct FollowRegistry {
    settings: ArcSwap<FollowSettings>,
    /// Records which jobs are followed and forgotten, for a restart.
    ledger: Arc<dyn Ledger>,
    state: Mutex<RegistryState>,
    wake: Notify,
}

/// A guard that keeps a job followed. When the last one is dropped, polling stops after the unsubscribe grace period.
#[derive(Debug)]
pub(super) struct Interest {
    key: JobKey,
    number: u64,
    /// The number of times the job had expired when this interest was registered.
    endings: u64,
    following: Arc<FollowRegistry>,
    updates: watch::Receiver<PublishedState>,
}

/// The jobs to poll now, and the time of the next batch.
#[derive(Debug, Default)]
pub(super) struct PollBatch {
    pub(super) due: HashMap<SourceName, Vec<JobKey>>,
    pub(super) next: Option<Instant>,
}

#[derive(Debug, Default)]
struct RegistryState {
    jobs: HashMap<JobKey, FollowedJob>,
    /// The scheduled polls of each source, ordered by time and the job's number.
    schedule: HashMap<SourceName, PollSchedule>,
    polls: HashMap<SourceName, SourcePolls>,
    numbers: u64,
    /// The jobs that were forgotten since the last batch; they are reported to the ledger after it.
    forgotten: Vec<JobKey>,
    state_counts: Arc<StateCounts>,
    duration_stats: DurationStats,
    proofs: SourceProofs,
}

type PollSchedule = BTreeMap<(Instant, u64), JobKey>;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent of each other")]
struct FollowedJob {
    number: u64,
    source: SourceName,
    phase: f64,
    updates: watch::Sender<PublishedState>,
    /// By number: the first is the oldest.
    interests: BTreeMap<u64, WatchRequest>,
    /// When the present state began, or, without a state, since when it has been unknown.
    since: Instant,
    /// When the job was last observed in that state.
    seen_at: Instant,
    /// How long similar jobs stayed in that state.
    learned: Option<Arc<Durations>>,
    failures: u32,
    /// Since when the upstream does not find a job that was observed before.
    vanished_since: Option<Instant>,
    /// The last poll failed because of the source.
    outage: bool,
    /// Resumed after a restart, and neither polled nor watched since.
    resumed: bool,
    /// The source requested that no call is made before this time.
    paused_until: Option<Instant>,
    scheduled_at: Option<Instant>,
    in_flight: bool,
    /// Another replica made the last poll and is expected to make the next one.
    stand_by: bool,
    idle_since: Option<Instant>,
    state_count: StateCountGuard,
}

/// One interest: its client, and the required freshness.
#[derive(Debug)]
struct WatchRequest {
    client: Arc<str>,
    max_staleness: Option<Duration>,
    since: Instant,
    /// Whether the client receives updates; otherwise the job is only followed to its terminal state.
    watches: bool,
}

impl FollowRegistry {
    pub(super) fn new(settings: FollowSettings, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            ledger,
            state: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Registers the interest of a watcher. It is registered before the job is read, so that a terminal state in
    /// between is not missed.
    pub(super) fn interest(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        max: Option<Duration>,
    ) -> Interest {
        self.register(key, client, max, true)
    }

    /// Registers an interest that only keeps a job followed to its terminal state and receives no updates.
    pub(super) fn unwatched_interest(self: &Arc<Self>, key: &JobKey, client: Arc<str>) -> Interest {
        self.register(key, client, None, false)
    }

    fn register(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        max: Option<Duration>,
        watches: bool,
    ) -> Interest {
        let mut state = self.lock();
        let number = state.number();
        if !state.jobs.contains_key(key) {
            self.ledger.follow(key, true);
        }
        let now = Instant::now();
        state.count_watcher(key, watches);
        let followed = state.follow(key);
        followed.interests.insert(number, WatchRequest { client, max_staleness: max, since: now, watches });
        let was_idle = followed.idle_since.take().is_some();
        let restarts = followed.restart();
        let comes_back = watches && std::mem::take(&mut followed.resumed);
        let updates = followed.updates.subscribe();
        let endings = updates.borrow().endings();
        if was_idle && followed.is_over() {
            // The scheduled action was to forget the job.
            state.set_schedule(key, None);
        } else if let Some(planned) =
            followed.scheduled_at.filter(|_| was_idle || restarts || comes_back || max.is_some())
        {
            // This watcher may require a fresher state than the others. A poll is only ever moved to an earlier time
            // here: a new watcher must not delay it or end a pause.
            let interval = followed.interval(&self.settings(), now);
            // After a restart a returning watcher finds the job polled as if it had been watched all the time.
            let wished = if comes_back { (followed.seen_at + interval).max(now) } else { now + interval };
            let at = if followed.paused_until.is_some_and(|until| until > now) {
                planned
            } else {
                planned.min(wished)
            };
            state.set_schedule(key, Some(at));
            self.wake.notify_one();
        }
        Interest { key: key.clone(), number, endings, following: Arc::clone(self), updates }
    }

    /// Applies the cached observation when a watcher is added, so that the watcher starts from it. No poll was made, so
    /// a published error stays. This method and the next three return the known job if they made it stale or fresh.
    pub(super) fn offer_cached(&self, observation: &Observation) -> Option<KnownJob> {
        let state = &mut *self.lock();
        let key = &observation.job.key;
        let followed = state.jobs.get_mut(key)?;
        let before = followed.stale();
        followed.publish(&mut state.duration_stats, |published| published.learn(observation));
        let turned = followed.turned(before);
        state.plan_if_idle(key, &self.settings());
        self.wake.notify_one();
        turned
    }

    /// Applies the cached observation while a fetch runs for a watcher that requires a newer one. It is published if
    /// the fetch fails.
    pub(super) fn recall(&self, older: &Observation) -> Option<KnownJob> {
        let state = &mut *self.lock();
        let followed = state.jobs.get_mut(&older.job.key)?;
        let before = followed.stale();
        followed.publish(&mut state.duration_stats, |published| published.recall(older));
        followed.turned(before)
    }

    /// Applies that a watcher found nothing without a poll: "no such job" was cached, or the fetch was not awaited.
    pub(super) fn offer_missing(&self, key: &JobKey, error: LookupError) -> Option<KnownJob> {
        let mut state = self.lock();
        let followed = state.jobs.get_mut(key)?;
        let before = followed.stale();
        followed.updates.send_if_modified(|published| published.is_empty() && published.record_error(error));
        let turned = followed.turned(before);
        state.plan_if_idle(key, &self.settings());
        self.wake.notify_one();
        turned
    }

    /// Applies the result of a fetch of any caller: publishes it to the watchers, and schedules the next poll.
    pub(super) fn apply_fetch(
        &self,
        key: &JobKey,
        result: Result<&Observation, LookupError>,
    ) -> Option<KnownJob> {
        let state = &mut *self.lock();
        if result.is_ok() {
            state.proofs.answered(&key.source);
        }
        let Some(followed) = state.jobs.get_mut(key) else {
            // Wake the loop to apply that the source has recovered, whichever call detected it.
            if result.is_ok() && state.is_broken(&key.source) {
                self.wake.notify_one();
            }
            return None;
        };
        let before = followed.stale();
        followed.in_flight = false;
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
        match result {
            Ok(observation) => {
                followed.failures = 0;
                followed.publish(&mut state.duration_stats, |published| published.observe(observation));
            }
            Err(error) => {
                // A lower version is an answer: the next poll is due as usual.
                if !matches!(error, LookupError::Fetch(FetchError::ConflictingVersion)) {
                    followed.failures = followed.failures.saturating_add(1);
                }
                followed.updates.send_if_modified(|published| published.record_error(error));
                let state = followed.updates.borrow().state();
                followed.state_count.set(state);
            }
        }
        if !pause.is_zero() {
            followed.paused_until = Some(Instant::now() + pause);
        }
        followed.note_vanished(found);
        let turned = followed.turned(before);
        state.expire_if_due(key, &self.settings());
        state.plan(key, &self.settings(), pause);
        self.wake.notify_one();
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
        let sources: Vec<SourceName> = state.schedule.keys().cloned().collect();
        for source in sources {
            let mut opens = None;
            if let Some(room) = room(&source, state.demand(&source, &settings)) {
                state.take_in(&source, &room, now, &settings);
                if room.jobs > 0 {
                    let chosen = state.choose(&source, &room, now, &settings);
                    if !chosen.is_empty() {
                        state.note_request(&source, &room, now);
                        round.due.insert(source.clone(), chosen);
                    }
                }
                opens = state.opens(&source, &room, now);
            } else {
                drop(state.due(&source, now, &settings));
            }
            let later =
                state.schedule.get(&source).and_then(|schedule| schedule.range((now, u64::MAX)..).next());
            let next = later.map(|((at, _), _)| *at);
            round.next = round.next.into_iter().chain(next).chain(opens).min();
        }
        for key in std::mem::take(&mut state.forgotten) {
            self.ledger.follow(&key, false);
            // The next batch needs fewer calls of its source, so other replicas may use them.
            self.wake.notify_one();
        }
        for (class, durations) in state.duration_stats.next_step() {
            self.ledger.learn(&class, &durations);
        }
        round
    }

    /// Wakes the watchers of a job although nothing changed upstream: whether they may see the job has changed.
    pub(super) fn notify(&self, key: &JobKey) {
        if let Some(followed) = self.lock().jobs.get(key) {
            followed.updates.send_modify(|_| ());
        }
    }

    /// How long to poll a job that the upstream does not know.
    pub(super) fn missing_for(&self) -> Duration {
        self.settings().missing_for
    }

    /// The shortest time between two polls of one job.
    pub(super) fn fastest(&self) -> Duration {
        self.settings().pace.fastest
    }

    /// Resolves when there may be something new to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Makes the loop check the schedule again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The last observation of a followed job.
    pub(super) fn seen(&self, key: &JobKey) -> Option<Observation> {
        self.lock().jobs.get(key)?.updates.borrow().seen().cloned()
    }

    /// Ends a poll whose result was published before the poll began: it joined a single flight at the moment of its
    /// completion.
    pub(super) fn clear_in_flight(&self, key: &JobKey) {
        let mut state = self.lock();
        if let Some(followed) = state.jobs.get_mut(key).filter(|followed| followed.in_flight) {
            followed.in_flight = false;
            state.plan(key, &self.settings(), Duration::ZERO);
            self.wake.notify_one();
        }
    }

    /// How many jobs are being followed.
    pub(super) fn count(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn follow(&mut self, key: &JobKey) -> &mut FollowedJob {
        let number = self.number();
        match self.jobs.entry(key.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(FollowedJob::new(number, key, &self.state_counts)),
        }
    }

    /// Schedules a job, or removes it from the schedule.
    fn set_schedule(&mut self, key: &JobKey, at: Option<Instant>) {
        let Some(followed) = self.jobs.get_mut(key) else { return };
        let schedule = self.schedule.entry(key.source.clone()).or_default();
        if let Some(before) = std::mem::replace(&mut followed.scheduled_at, at) {
            schedule.remove(&(before, followed.number));
        }
        if let Some(at) = at {
            schedule.insert((at, followed.number), key.clone());
        }
    }

    /// Schedules the next poll, not before `pause` is over. A job in a terminal state is only scheduled to be
    /// forgotten.
    fn plan(&mut self, key: &JobKey, settings: &FollowSettings, pause: Duration) {
        let Some(followed) = self.jobs.get(key).filter(|followed| !followed.in_flight) else { return };
        let at = if followed.is_over() {
            followed.idle_since.map(|since| since + settings.unsubscribe_grace)
        } else {
            let now = Instant::now();
            // A pause ends for all jobs of a source at once; the phases spread their polls.
            let paused =
                if pause.is_zero() { pause } else { pause + settings.pace.fastest.mul_f64(followed.phase) };
            let stand_by = if followed.stand_by { settings.wait_for_replica() } else { Duration::ZERO };
            let next = now + self.interval(followed, settings, now).max(paused) + stand_by;
            Some(followed.idle_since.map_or(next, |since| next.min(since + settings.unsubscribe_grace)))
        };
        self.set_schedule(key, at);
    }

    fn plan_if_idle(&mut self, key: &JobKey, settings: &FollowSettings) {
        if self.jobs.get(key).is_some_and(|followed| followed.scheduled_at.is_none()) {
            self.plan(key, settings, Duration::ZERO);
        }
    }

    /// The due jobs of one source. Jobs without an interest are forgotten instead.
    fn due(&mut self, source: &SourceName, now: Instant, settings: &FollowSettings) -> Vec<JobKey> {
        let Some(schedule) = self.schedule.get(source) else { return Vec::new() };
        let due: Vec<JobKey> = schedule.range(..=(now, u64::MAX)).map(|(_, key)| key.clone()).collect();
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

    /// The client on whose behalf a job is polled: the one with the oldest interest.
    fn client_of(&self, key: &JobKey) -> Option<Arc<str>> {
        let oldest = self.jobs.get(key)?.interests.first_key_value();
        oldest.map(|(_, watch_request)| Arc::clone(&watch_request.client))
    }

    /// Marks a job as being polled. Returns `false` for a job that needs no poll.
    fn start_polls(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        let Some(followed) = self.jobs.get_mut(key) else { return false };
        if followed.is_over() {
            self.plan(key, settings, Duration::ZERO);
            return false;
        }
        followed.in_flight = true;
        let late = followed.scheduled_at.and_then(|due| Instant::now().checked_duration_since(due));
        if let Some(late) = late {
            meters::poll_lag(&key.source, late);
        }
        self.set_schedule(key, None);
        true
    }
}
