//! The shared state of a simulator: the current jobs, the active faults, the clock, the record.
//!
//! One briefly held lock guards what changes. No lock is held across an await.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::{sync::watch, time::Instant};

use super::{Endpoint, FaultKind, Scenario, SimUpstream, record::RequestLog};

/// One simulator's state. Shared by both listeners and every `Handle`.
pub(super) struct SimWorld {
    epoch: Instant,
    base: Timestamp,
    seed: u64,
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
        let state = SimState {
            scenario,
            accepted,
            ever_accepted: [1, 1],
            forgotten: HashSet::new(),
            random: fastrand::Rng::with_seed(seed),
            recent: [const { VecDeque::new() }; 2],
            hour: (0, 0),
        };
        Self {
            epoch: Instant::now(),
            base,
            seed,
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

    /// The wall-clock time in the bodies for a time of the scripts.
    pub(super) fn wall(&self, at: Duration) -> Timestamp {
        // Milliseconds, as both vendors write them.
        let at = SignedDuration::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        let base = Timestamp::from_millisecond(self.base.as_millisecond()).unwrap_or(self.base);
        base.checked_add(at).unwrap_or(Timestamp::MAX)
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

impl fmt::Debug for SimWorld {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SimWorld")
            .field("base", &self.base)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
