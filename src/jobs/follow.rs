//! What is being followed: who is interested in which job, what was last told of it, and when to look again.
//!
//! Fan-out is a value, not a queue: each followed job has one watch channel that holds the newest [`PublishedState`]; a slow
//! reader sees fewer values, never an old one for ever. All decisions are made here under one short lock, without
//! awaiting; the loop that acts on them is `poller`.

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
    /// How often to look.
    pub pace: PollIntervals,
    /// How long to go on looking after the last watcher left.
    pub unsubscribe_grace: Duration,
    /// How long to look for a job that the upstream does not know.
    pub missing_for: Duration,
    /// How long to follow a job whose state is not known here.
    pub unknown_for: Duration,
    /// How long to follow a job that stays in one state.
    pub at_most: Duration,
    /// How long an upstream has to repeat a lower version of a job before it is believed.
    pub verify_interval: Duration,
}

/// All followed jobs.
#[derive(Debug)]
pub(super) struct FollowRegistry {
    settings: ArcSwap<FollowSettings>,
    /// Hears who begins to be followed and who is forgotten, for a restart.
    ledger: Arc<dyn Ledger>,
    state: Mutex<RegistryState>,
    wake: Notify,
}

/// A guard held while someone watches a job. Dropping the last one stops the looking, after a short linger.
#[derive(Debug)]
pub(super) struct Interest {
    key: JobKey,
    number: u64,
    /// How often the job had been given up when it was registered.
    endings: u64,
    following: Arc<FollowRegistry>,
    updates: watch::Receiver<PublishedState>,
}

/// Jobs to look at now, and when there is more to do.
#[derive(Debug, Default)]
pub(super) struct PollBatch {
    pub(super) due: HashMap<SourceName, Vec<JobKey>>,
    pub(super) next: Option<Instant>,
}

#[derive(Debug, Default)]
struct RegistryState {
    jobs: HashMap<JobKey, FollowedJob>,
    /// What to do when: for each source, by time and the job's number.
    schedule: HashMap<SourceName, PollSchedule>,
    polls: HashMap<SourceName, SourcePolls>,
    numbers: u64,
    /// Those who were forgotten since the last round: the ledger is told after it.
    forgotten: Vec<JobKey>,
    state_counts: Arc<StateCounts>,
    duration_stats: DurationStats,
    proofs: SourceProofs,
}

type PollSchedule = BTreeMap<(Instant, u64), JobKey>;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may hold")]
struct FollowedJob {
    number: u64,
    source: SourceName,
    phase: f64,
    updates: watch::Sender<PublishedState>,
    /// By number: the first is the oldest.
    interests: BTreeMap<u64, WatchRequest>,
    /// When the present state, or the lack of one, began.
    since: Instant,
    /// When it was last seen in that state.
    seen_at: Instant,
    /// How long others like it stayed in that state.
    learned: Option<Arc<Durations>>,
    failures: u32,
    /// Since when the upstream does not find it, though it was seen.
    vanished_since: Option<Instant>,
    /// The last look failed by trouble of the source.
    outage: bool,
    /// Followed on after a restart, and neither looked at nor watched since.
    resumed: bool,
    /// The source asked not to be asked before this.
    paused_until: Option<Instant>,
    scheduled_at: Option<Instant>,
    in_flight: bool,
    /// Another replica made the last look: it is expected to make the next one too.
    stand_by: bool,
    idle_since: Option<Instant>,
    state_count: StateCountGuard,
}

/// Who is interested, and how fresh it has to be.
#[derive(Debug)]
struct WatchRequest {
    client: Arc<str>,
    max_staleness: Option<Duration>,
    since: Instant,
    /// Someone waits for what is told; otherwise the job is only followed to its end.
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

    /// Registers the interest of someone who watches a job. Done before anything of it is read, so that an end in between is
    /// not missed.
    pub(super) fn interest(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        max: Option<Duration>,
    ) -> Interest {
        self.register(key, client, max, true)
    }

    /// Registers the interest of someone who wants a job followed to its end, and waits for nothing.
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
            // What stood on the agenda was to forget it.
            state.set_schedule(key, None);
        } else if let Some(planned) =
            followed.scheduled_at.filter(|_| was_idle || restarts || comes_back || max.is_some())
        {
            // This watcher may want it fresher than those before. A look is only ever brought forward here: newcomers
            // must not put it off, nor end a pause.
            let interval = followed.interval(&self.settings(), now);
            // One who comes back after a restart finds it polled as if it had been watched all along.
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

    /// Takes in what was held when a watcher came, so that the watcher starts from it. No look was made, so trouble
    /// that was told stays. This and the next three give what is known of the job when it turns stale or fresh by it.
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

    /// Takes in what is held while a look is under way for a watcher who wants it newer: told if the look brings nothing.
    pub(super) fn recall(&self, older: &Observation) -> Option<KnownJob> {
        let state = &mut *self.lock();
        let followed = state.jobs.get_mut(&older.job.key)?;
        let before = followed.stale();
        followed.publish(&mut state.duration_stats, |published| published.recall(older));
        followed.turned(before)
    }

    /// Takes in that a watcher found nothing, without a look: believed from before, or not awaited.
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

    /// Takes in what came of a look, whoever asked for it: tells the watchers, and plans the next look.
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
            // The loop takes in that the source is well again, whoever found it so.
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
        // Any answer but "not found" ends that; no answer, or a pause, does not.
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
                // a lower version is an answer: the next look is due as usual
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

    /// Takes what is due now, as many jobs of each source as `room` says, and forgets whom nobody watches any more.
    ///
    /// A source without room costs nothing here: what is due of it waits for a wake, or until the room opens.
    /// Of a source that is gone nothing is looked at; who watched it is forgotten all the same.
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
            // The next round needs fewer calls of its source, which other replicas may have.
            self.wake.notify_one();
        }
        for (class, durations) in state.duration_stats.next_step() {
            self.ledger.learn(&class, &durations);
        }
        round
    }

    /// Has the watchers of a job look at it again, though nothing was learned of it: whether they may see it has changed.
    pub(super) fn notify(&self, key: &JobKey) {
        if let Some(followed) = self.lock().jobs.get(key) {
            followed.updates.send_modify(|_| ());
        }
    }

    /// How long to look for a job that the upstream does not know.
    pub(super) fn missing_for(&self) -> Duration {
        self.settings().missing_for
    }

    /// The shortest time between two looks at one job.
    pub(super) fn fastest(&self) -> Duration {
        self.settings().pace.fastest
    }

    /// Resolves when there may be something new to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Has the loop look at the agenda again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// What was last seen of a followed job.
    pub(super) fn seen(&self, key: &JobKey) -> Option<Observation> {
        self.lock().jobs.get(key)?.updates.borrow().seen().cloned()
    }

    /// Ends a look whose landing had been told before it began: one that boarded a flight in the moment of its landing.
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

    /// Puts a job on the agenda, or takes it off.
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

    /// Plans the next look, not before `pause` is over. A job that is over is only planned to be forgotten.
    fn plan(&mut self, key: &JobKey, settings: &FollowSettings, pause: Duration) {
        let Some(followed) = self.jobs.get(key).filter(|followed| !followed.in_flight) else { return };
        let at = if followed.is_over() {
            followed.idle_since.map(|since| since + settings.unsubscribe_grace)
        } else {
            let now = Instant::now();
            // A pause ends for all jobs of a source at once: their phases keep them from coming back as one.
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

    /// What is due of one source, less those whom nobody watches any more: they are forgotten.
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

    /// Whose turn a job takes: that of the client whose interest is the oldest.
    fn client_of(&self, key: &JobKey) -> Option<Arc<str>> {
        let oldest = self.jobs.get(key)?.interests.first_key_value();
        oldest.map(|(_, watch_request)| Arc::clone(&watch_request.client))
    }

    /// Marks a job as being looked at; false for one that needs no look.
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
