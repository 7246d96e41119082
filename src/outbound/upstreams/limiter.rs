//! Limits the calls to one source: budget, concurrency, pauses, circuit breaker and rejected credential.
//!
//! Every call to a source, first try or retry, acquires a [`CallPermit`] by [`UpstreamLimiter::acquire`] and keeps it
//! until its response has been classified. Not here: sending, and the interpretation of a response. All time is the
//! runtime's, so tests can pause it.

mod call;
mod queue;
mod settings;
pub mod shared;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::call::{CallOutcome, LimiterRefusal};
use self::call::{CredentialChoice, Probe};
pub use self::settings::LimiterSettings;
use self::shared::{SharedBudget, SharedDecision};
use self::state::{AcquireStep, LimiterState, origin};
use crate::domain::budget::CallOrigin;
use crate::domain::id::SourceName;
use crate::domain::source::{BudgetUse, SourceHealth};
use crate::ports::upstream::{FetchTrigger, PollDemand, PollPacing};
use crate::telemetry::meters;

/// The retry delay for a caller that waited for a slot without getting one: the actual delay is unknown, so a short
/// one.
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// The state of a source: health, budget, and how long no call will be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSnapshot {
    /// Its health.
    pub health: SourceHealth,
    /// The use of its budget.
    pub budget: BudgetUse,
    /// How long no call will be made.
    pub closed_for: Option<Duration>,
    /// Whether the circuit breaker is open after repeated failures.
    pub breaker_open: bool,
}

/// The limiter of one source. Shared by all its calls.
#[derive(Debug)]
pub struct UpstreamLimiter {
    name: SourceName,
    epoch: Instant,
    state: Mutex<LimiterState>,
    /// The budget that replicas share, if any; consulted after the limiter's own.
    shared: Option<Arc<dyn SharedBudget>>,
}

impl UpstreamLimiter {
    /// A limiter for the source called `name`, with closed breaker. The budget is shared with other replicas if
    /// `shared` is given.
    pub fn new(
        name: SourceName,
        limits: LimiterSettings,
        shared: Option<Arc<dyn SharedBudget>>,
    ) -> Arc<Self> {
        let state = Mutex::new(LimiterState::new(&limits));
        Arc::new(Self { name, epoch: Instant::now(), state, shared })
    }

    /// Waits for a permit for one call, at most `max_wait` and that of the limits.
    ///
    /// Calls with a waiting client precede background calls. The queue is fair between clients, one call each; within a
    /// client it is first come, first served. A call whose predicted wait is too long is rejected at once; one whose
    /// wait becomes too long, because calls of other clients come in between, is rejected at the end of its wait.
    /// Cancel safe: dropping the future leaves the queue.
    ///
    /// # Errors
    /// Returns an error if the call must not be made now.
    pub async fn acquire(
        self: &Arc<Self>,
        trigger: &FetchTrigger,
        max_wait: Duration,
    ) -> Result<CallPermit, LimiterRefusal> {
        self.acquire_with(trigger, max_wait, CredentialChoice::Active).await
    }

    /// The same for a call with another credential than the active one: a rejection of the active one is irrelevant to
    /// it, so it never returns [`LimiterRefusal::Rejected`].
    ///
    /// # Errors
    /// Returns an error if the call must not be made now.
    pub async fn acquire_probe(
        self: &Arc<Self>,
        trigger: &FetchTrigger,
        max_wait: Duration,
    ) -> Result<CallPermit, LimiterRefusal> {
        self.acquire_with(trigger, max_wait, CredentialChoice::Another).await
    }

    async fn acquire_with(
        self: &Arc<Self>,
        trigger: &FetchTrigger,
        max_wait: Duration,
        choice: CredentialChoice,
    ) -> Result<CallPermit, LimiterRefusal> {
        let began = Instant::now();
        let entered = self.wait_with(trigger, max_wait, choice).await;
        meters::budget_waited(&self.name, began.elapsed());
        if let Err(refusal) = &entered {
            meters::call_rejected(&self.name, refusal.into());
        }
        entered
    }

    async fn wait_with(
        self: &Arc<Self>,
        trigger: &FetchTrigger,
        max_wait: Duration,
        choice: CredentialChoice,
    ) -> Result<CallPermit, LimiterRefusal> {
        let give_up = Instant::now() + max_wait.min(self.limits().max_wait);
        let queued_call = QueuedCall::take(self, trigger);
        loop {
            let now = Instant::now();
            let step = self.lock().consider(self.since(now), trigger, queued_call.id, choice);
            let (wait, first) = match step {
                AcquireStep::Go(probe) => {
                    let outcome = CallOutcome::Unknown;
                    let unsent = Some((self.since(now), origin(trigger)));
                    let mut permit = CallPermit {
                        limiter: Arc::clone(self),
                        probe,
                        outcome,
                        began: now,
                        slot: None,
                        unsent,
                    };
                    // It leaves the local queue only now, so that the calls behind it are also behind it in the shared
                    // budget.
                    permit.slot = self.acquire_shared(give_up).await?;
                    permit.unsent = None;
                    permit.began = Instant::now();
                    return Ok(permit);
                }
                AcquireStep::Refuse(refusal) => return Err(refusal),
                AcquireStep::Wait { at_least, first } => (at_least, first),
            };
            if now + wait > give_up || now >= give_up {
                return Err(LimiterRefusal::Throttled(wait.max(SLOT_WAIT)));
            }
            // the first in the queue waits for the budget; all others wait for those ahead of them
            let wake_at = if first && !wait.is_zero() { now + wait } else { give_up };
            tokio::select! {
                biased;
                () = queued_call.notify.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Waits for the permission for one call among all replicas. Returns the slot, if there is one.
    async fn acquire_shared(&self, give_up: Instant) -> Result<Option<String>, LimiterRefusal> {
        let Some(shared) = &self.shared else { return Ok(None) };
        loop {
            let limits = self.limits();
            let wait = match shared.take(&limits).await {
                SharedDecision::Go(slot) => {
                    self.learn_shared(&mut self.lock(), self.since(Instant::now()));
                    return Ok(slot);
                }
                SharedDecision::Wait(wait) => wait,
                SharedDecision::Paused(pause) => {
                    self.pause_here(pause);
                    return Err(LimiterRefusal::Throttled(pause));
                }
            };
            if Instant::now() + wait > give_up {
                return Err(LimiterRefusal::Throttled(wait.max(SLOT_WAIT)));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Counts a first try, which adds a fraction of a retry to the retry budget.
    pub fn earn_retry(&self) {
        self.lock().retries.earn();
    }

    /// Takes one retry out of the retry budget, if there is one.
    pub fn spend_retry(&self) -> bool {
        self.lock().retries.spend()
    }

    /// Makes no call for this long; a longer pause stays.
    pub fn pause(&self, pause: Duration) {
        if let Some(shared) = &self.shared {
            shared.pause(pause);
        }
        self.pause_here(pause);
    }

    fn pause_here(&self, pause: Duration) {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        if state.pause(now + pause) {
            tracing::warn!(source = %self.name, seconds = pause.as_secs(), "source paused for all replicas");
        }
        state.queue.wake_first();
    }

    /// Applies other limits from now on. The used budget stays used.
    pub fn set_limits(&self, limits: LimiterSettings) {
        self.lock().set_limits(limits);
    }

    /// Resets failures and rejections, because another URL is called from now on. The used budget stays used.
    pub fn reset_endpoint_state(&self) {
        self.lock().reset_endpoint_state();
    }

    /// Resets the rejection of the credential, because the credential has changed.
    pub fn reset_auth_failure(&self) {
        self.lock().rejected = None;
    }

    /// The current pace of polls, for the given demand.
    pub fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        state.shares.set_demand(demand.calls_per_hour);
        state.awaited = demand.awaited;
        // A replica whose own calls are not granted learns here what the other replicas have left.
        self.learn_shared(&mut state, now);
        PollPacing {
            spacing: state.shares.spacing(now),
            closed_for: state.shares.wait(now, CallOrigin::Background),
            broken_for: state.breaker.is_open().then(|| state.broken_for(now, &FetchTrigger::Background)),
        }
    }

    /// Reports this replica's use of the budget to the other replicas, and reads theirs.
    fn learn_shared(&self, state: &mut LimiterState, now: Duration) {
        if let Some(shared) = &self.shared {
            shared.report(state.shares.demand(), state.shares.callers(now));
            state.shares.set_shared(now, shared.used());
        }
    }

    /// Takes one background call that is not a poll, if the budget allows one now.
    pub fn take_recheck(&self) -> bool {
        let now = self.since(Instant::now());
        self.lock().shares.take_recheck(now)
    }

    /// The current state of the source.
    pub fn snapshot(&self) -> LimiterSnapshot {
        let now = self.since(Instant::now());
        let state = self.lock();
        LimiterSnapshot {
            health: state.health(now),
            budget: BudgetUse {
                per_second: state.limits.per_second,
                per_hour: state.limits.per_hour,
                concurrency: state.limits.concurrency,
                in_flight: state.in_flight,
                left_this_hour: self.left_this_hour(now, &state),
            },
            closed_for: state.closed_for(now),
            breaker_open: state.breaker.is_open(),
        }
    }

    /// The calls that are left this hour for all replicas, and for this one by its own count.
    fn left_this_hour(&self, now: Duration, state: &LimiterState) -> u32 {
        let own = state.hour.left(now);
        self.shared.as_ref().map_or(own, |shared| shared.left(&state.limits).min(own))
    }

    fn limits(&self) -> LimiterSettings {
        self.lock().limits
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// No code that can panic runs under this lock, and each change under it is complete.
    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission for one call. Dropping it without [`CallPermit::finish`] frees the slot and reports no outcome.
#[derive(Debug)]
#[must_use = "the slot is free again as soon as the permit is dropped"]
pub struct CallPermit {
    limiter: Arc<UpstreamLimiter>,
    probe: Probe,
    outcome: CallOutcome,
    /// When the permit was acquired.
    began: Instant,
    /// Its slot among all replicas.
    slot: Option<String>,
    /// When the call was counted here, while the shared budget has not granted it: if it never does, no call was made.
    unsent: Option<(Duration, CallOrigin)>,
}

impl CallPermit {
    /// Counts the call by its outcome.
    pub fn ended(self, end: meters::CallEnd) -> Self {
        meters::upstream_call(&self.limiter.name, end, self.began.elapsed());
        self
    }

    /// Completes the call and reports its outcome to the limiter.
    pub fn finish(mut self, outcome: CallOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let now = self.limiter.since(Instant::now());
        let name = &self.limiter.name;
        let mut state = self.limiter.lock();
        let was_open = state.breaker.is_open();
        let was_rejected = state.rejected.is_some();
        if let Some((at, origin)) = self.unsent {
            state.untake(at, origin);
        }
        state.leave(now, self.probe, self.outcome);
        if state.breaker.is_open() && !was_open {
            tracing::warn!(source = %name, "circuit breaker opened");
            meters::breaker_opened(name);
        }
        if state.rejected.is_some() && !was_rejected {
            tracing::error!(source = %name, "source rejected the credential");
        }
        if let (Some(shared), Some(slot)) = (&self.limiter.shared, self.slot.take()) {
            shared.give_back(slot);
        }
        if let CallOutcome::Throttled(pause) = self.outcome {
            if let Some(shared) = &self.limiter.shared {
                shared.pause(pause);
            }
            tracing::warn!(source = %name, seconds = pause.as_secs(), "source requested a pause");
        }
    }
}

/// A position in the queue. Dropping it leaves the queue and wakes the next call.
struct QueuedCall<'a> {
    limiter: &'a Arc<UpstreamLimiter>,
    trigger: &'a FetchTrigger,
    id: u64,
    notify: Arc<Notify>,
}

impl<'a> QueuedCall<'a> {
    fn take(limiter: &'a Arc<UpstreamLimiter>, trigger: &'a FetchTrigger) -> Self {
        let notify = Arc::new(Notify::new());
        let id = limiter.lock().queue.join(trigger, Arc::clone(&notify));
        Self { limiter, trigger, id, notify }
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        state.queue.quit(self.trigger, self.id);
        state.queue.wake_first();
    }
}
