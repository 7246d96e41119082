//! The shared state of a simulator: the current jobs, the active faults, the clock, the record.
//!
//! One briefly held lock guards what changes. No lock is held across an await.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::{sync::watch, time::Instant};

use super::{Endpoint, FaultKind, Scenario, SimList, SimUpstream, record::RequestLog};

/// One simulator's state. Shared by both listeners and every `Handle`.
pub(super) struct SimWorld {
    epoch: Instant,
    base: Timestamp,
    seed: u64,
    /// How far the clock of each upstream is ahead, and since when; the first entry is that of the start.
    clocks: [Mutex<Vec<(Duration, SignedDuration)>>; 2],
    state: Mutex<SimState>,
    pub(super) ledger: RequestLog,
    /// Counts the releases of delayed requests.
    released: watch::Sender<u64>,
}

/// The mutable state of a running simulator.
pub(super) struct SimState {
    pub(super) scenario: Scenario,
    /// The credentials that each upstream accepts, with the number of each in the order of their acceptance.
    pub(super) accepted: [Vec<(usize, SecretString)>; 2],
    /// How many each has ever accepted.
    pub(super) ever_accepted: [usize; 2],
    pub(super) forgotten: HashSet<(SimUpstream, String)>,
    /// The ids whose state in a list does not change, and since when.
    frozen: HashMap<(SimUpstream, String), Duration>,
    /// The requests for each list so far.
    lists_read: [u64; 2],
    pub(super) random: fastrand::Rng,
    /// The requests of the last second, per upstream.
    recent: [VecDeque<Instant>; 2],
    /// The current hour for Supermetrics, and its requests.
    hour: (u64, u32),
}

/// The result of the rate limits for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) exceeded: bool,
    /// Supermetrics' hourly limit and what is left of it.
    pub(super) hourly: Option<(u32, u32)>,
}

impl SimWorld {
    pub(super) fn new(scenario: Scenario) -> Self {
        #[expect(clippy::disallowed_methods, reason = "independent of the gateway: it has no clock port")]
        let base = scenario.start.unwrap_or_else(Timestamp::now);
        let seed = scenario.seed;
        let first = |secret: &SecretString| vec![(0, secret.clone())];
        let accepted = [first(&scenario.mindbridge.token), first(&scenario.supermetrics.api_key)];
        let clocks = [scenario.mindbridge.clock_skew, scenario.supermetrics.clock_skew]
            .map(|skew| Mutex::new(vec![(Duration::ZERO, skew)]));
        let mut state = SimState {
            scenario,
            accepted,
            ever_accepted: [1, 1],
            forgotten: HashSet::new(),
            frozen: HashMap::new(),
            lists_read: [0, 0],
            random: fastrand::Rng::with_seed(seed),
            recent: [const { VecDeque::new() }; 2],
            hour: (0, 0),
        };
        for upstream in SimUpstream::ALL {
            state.freeze(upstream, Duration::ZERO);
        }
        Self {
            epoch: Instant::now(),
            base,
            seed,
            clocks,
            state: Mutex::new(state),
            ledger: RequestLog::new(),
            released: watch::Sender::new(0),
        }
    }

    pub(super) const fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// The simulated time, since the start.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The time of an upstream's clock, in bodies and headers, for a time of the scripts.
    pub(super) fn wall(&self, upstream: SimUpstream, at: Duration) -> Timestamp {
        let clock = self.clock(upstream);
        let set = clock.iter().rev().find(|(since, _)| *since <= at).or_else(|| clock.first());
        let skew = set.map_or(SignedDuration::ZERO, |(_, skew)| *skew);
        drop(clock);
        // Milliseconds, as both vendors write them.
        let at = SignedDuration::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        let base = Timestamp::from_millisecond(self.base.as_millisecond()).unwrap_or(self.base);
        base.checked_add(at.saturating_add(skew)).unwrap_or(Timestamp::MAX)
    }

    /// The time of an upstream's clock now, as an HTTP-date.
    pub(super) fn http_date(&self, upstream: SimUpstream, later: Duration) -> String {
        let at = self.wall(upstream, self.now().saturating_add(later));
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Sets the clock of an upstream from now on. The dates of what happened before stay.
    pub(super) fn set_clock(&self, upstream: SimUpstream, skew: SignedDuration) {
        let now = self.now();
        self.clock(upstream).push((now, skew));
    }

    fn clock(&self, upstream: SimUpstream) -> MutexGuard<'_, Vec<(Duration, SignedDuration)>> {
        self.clocks[upstream.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position of a job in a list: not the order of any date, the same for the same seed.
    pub(super) fn list_position(&self, id: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, id).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SimState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the fault for a request, if any.
    pub(super) fn fault(
        &self,
        upstream: SimUpstream,
        endpoint: Endpoint,
        ids: &[String],
    ) -> Option<FaultKind> {
        let mut state = self.lock();
        let fault = state.scenario.faults.iter_mut().find_map(|fault| {
            let met = fault.meets(upstream, endpoint, ids);
            met.then(|| fault.kind.clone())
        });
        state.scenario.faults.retain(|fault| fault.times != Some(0));
        fault
    }

    /// Counts a request against the limits. A rejected one counts as well, as at the vendors.
    pub(super) fn allowance(&self, upstream: SimUpstream) -> Allowance {
        let now = Instant::now();
        let hour_now = self.now().as_secs() / 3600;
        let mut guard = self.lock();
        let state = &mut *guard;
        let (per_second, hourly) = match upstream {
            SimUpstream::MindBridge => (state.scenario.mindbridge.limit_per_second, None),
            SimUpstream::Supermetrics => {
                (state.scenario.supermetrics.limit_per_second, state.scenario.supermetrics.hourly_limit)
            }
        };
        let mut allowance = Allowance::default();
        if let Some(limit) = per_second {
            let recent = &mut state.recent[upstream.index()];
            while recent.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
                recent.pop_front();
            }
            recent.push_back(now);
            allowance.exceeded = recent.len() > limit as usize;
        }
        if let Some(limit) = hourly {
            if state.hour.0 != hour_now {
                state.hour = (hour_now, 0);
            }
            state.hour.1 = state.hour.1.saturating_add(1);
            allowance.exceeded |= state.hour.1 > limit;
            allowance.hourly = Some((limit, limit.saturating_sub(state.hour.1)));
        }
        allowance
    }

    /// A request id, new each time, from the seed.
    pub(super) fn request_id(&self) -> String {
        let mut state = self.lock();
        std::iter::repeat_with(|| state.random.alphanumeric()).take(20).collect()
    }

    /// Subscribes to the next [`SimWorld::release`]; to be called before the request is recorded, so that a test that
    /// reads it in the record and then releases is not missed.
    pub(super) fn releases(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }

    /// Releases every delayed request.
    pub(super) fn release(&self) {
        self.released.send_modify(|count| *count += 1);
    }
}

impl SimState {
    pub(super) fn is_forgotten(&self, upstream: SimUpstream, id: &str) -> bool {
        !self.forgotten.is_empty() && self.forgotten.contains(&(upstream, id.to_owned()))
    }

    pub(super) fn list(&self, upstream: SimUpstream) -> &SimList {
        match upstream {
            SimUpstream::MindBridge => &self.scenario.mindbridge.list,
            SimUpstream::Supermetrics => &self.scenario.supermetrics.list,
        }
    }

    /// Sets the anomalies of a list from now on.
    pub(super) fn set_list(&mut self, upstream: SimUpstream, list: SimList, now: Duration) {
        match upstream {
            SimUpstream::MindBridge => self.scenario.mindbridge.list = list,
            SimUpstream::Supermetrics => self.scenario.supermetrics.list = list,
        }
        self.freeze(upstream, now);
    }

    /// The time at which a list shows a job that was born then; `None` when the list does not contain it.
    pub(super) fn listed_at(
        &self,
        upstream: SimUpstream,
        id: &str,
        born: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let list = self.list(upstream);
        if list.omit.iter().any(|omitted| omitted == id) {
            return None;
        }
        let visible = now.checked_sub(list.delay)?;
        if self.frozen.is_empty() {
            return Some(visible);
        }
        let frozen = self.frozen.get(&(upstream, id.to_owned()));
        Some(frozen.map_or(visible, |since| visible.min(born.max(*since))))
    }

    /// By how many positions the items of a list have moved for this request.
    pub(super) fn next_shift(&mut self, upstream: SimUpstream) -> u64 {
        let read = self.lists_read[upstream.index()];
        self.lists_read[upstream.index()] += 1;
        read.saturating_mul(self.list(upstream).shift.into())
    }

    /// Notes since when the jobs of the setting are frozen.
    fn freeze(&mut self, upstream: SimUpstream, now: Duration) {
        let ids = self.list(upstream).freeze.clone();
        self.frozen.retain(|(of, id), _| *of != upstream || ids.contains(id));
        for id in ids {
            self.frozen.entry((upstream, id)).or_insert(now);
        }
    }
}

/// Moves all items by so many positions, the last ones to the front.
pub(super) fn rotate<T>(items: &mut [T], positions: u64) {
    if let Ok(length) = u64::try_from(items.len())
        && length > 0
    {
        items.rotate_right(usize::try_from(positions % length).unwrap_or_default());
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SimWorld")
            .field("base", &self.base)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
