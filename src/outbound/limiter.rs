//! What one source may be asked, and when: budget, concurrency, pauses, the breaker and the refused credential.
//!
//! Every call to a source, first try or retry, passes [`UpstreamLimiter::enter`] and holds a [`CallPermit`] until its answer has been
//! judged. Not here: sending, and what an answer means. All time is the runtime's, so tests stand still.

mod queue;
pub mod shared;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::shared::{SharedBudget, SharedDecision};
use self::state::{AcquireStep, LimiterState, origin};
use crate::domain::budget::CallOrigin;
use crate::domain::id::SourceName;
use crate::domain::source::{BudgetUse, SourceHealth};
use crate::ports::upstream::{FetchTrigger, PollDemand, PollPacing};
use crate::telemetry::meters;

/// What a caller is told who waited for a slot in vain: when is not known, so "in a moment".
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// What a source may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSettings {
    /// Calls in any second.
    pub per_second: u32,
    /// Calls in any hour.
    pub per_hour: u32,
    /// The part of the hour's calls that is kept for callers, in percent.
    pub caller_share: u32,
    /// Calls at the same time.
    pub concurrency: u32,
    /// How long a call may wait for its turn.
    pub max_wait: Duration,
}

/// Why a call must not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterRefusal {
    /// The source asked for a pause, or its budget is used up; not before this much time has passed.
    Throttled(Duration),
    /// It refused our credential a moment ago.
    Rejected,
    /// It failed several times in a row; not before this much time has passed.
    Broken(Duration),
}

impl From<&LimiterRefusal> for meters::CallRejection {
    fn from(refusal: &LimiterRefusal) -> Self {
        match refusal {
            LimiterRefusal::Throttled(_) => Self::Throttled,
            LimiterRefusal::Rejected => Self::Rejected,
            LimiterRefusal::Broken(_) => Self::Broken,
        }
    }
}

/// How a call ended, as far as the gate cares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CallOutcome {
    /// It ended without telling anything, such as one that was dropped.
    #[default]
    Unknown,
    /// The upstream answered, whatever it said.
    Answered,
    /// The upstream did not answer, or with a fault of its own. Carries a number drawn from 0 to 1, for the breaker.
    Failed(f64),
    /// The upstream asked for a pause.
    Throttled(Duration),
    /// The upstream refused our credential.
    Rejected,
}

/// How a source is doing: health, budget, and how long no call will be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSnapshot {
    /// How it is doing.
    pub health: SourceHealth,
    /// What it may be asked.
    pub budget: BudgetUse,
    /// How long no call will be made.
    pub closed_for: Option<Duration>,
    /// Whether it failed several times in a row and is left alone.
    pub breaker_open: bool,
}

/// The gate of one source. Shared by all its calls.
#[derive(Debug)]
pub struct UpstreamLimiter {
    name: SourceName,
    epoch: Instant,
    state: Mutex<LimiterState>,
    /// Asked after the gate's own budget, where replicas share one.
    shared: Option<Arc<dyn SharedBudget>>,
}

impl UpstreamLimiter {
    /// An open gate for the source called `name`, whose budget is shared with other replicas if there is a `shared` one.
    pub fn new(
        name: SourceName,
        limits: LimiterSettings,
        shared: Option<Arc<dyn SharedBudget>>,
    ) -> Arc<Self> {
        let state = Mutex::new(LimiterState::new(&limits));
        Arc::new(Self { name, epoch: Instant::now(), state, shared })
    }

    /// Waits for the turn of one call, at most `patience` and the limits' `max_wait`.
    ///
    /// Someone waiting goes before the background. Those waiting take turns by asker, one call each; within an asker,
    /// first come, first served. A wait that is foreseen to be longer is refused at once; one that becomes longer,
    /// because others have their turns in between, is refused at its end. Cancel-safe: dropping the future gives up
    /// the place in the queue.
    ///
    /// # Errors
    /// When the call must not be made now.
    pub async fn acquire(
        self: &Arc<Self>,
        trigger: &FetchTrigger,
        max_wait: Duration,
    ) -> Result<CallPermit, LimiterRefusal> {
        self.acquire_with(trigger, max_wait, CredentialChoice::Active).await
    }

    /// The same for a call that shows another credential than the one in force: that the latter was refused says
    /// nothing about it, so [`LimiterRefusal::Rejected`] is never the answer.
    ///
    /// # Errors
    /// When the call must not be made now.
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
                    // It leaves the queue only now, so that those behind it come after it here too.
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
            // the first in the queue waits for the budget; everyone else for those before them to move
            let wake_at = if first && !wait.is_zero() { now + wait } else { give_up };
            tokio::select! {
                biased;
                () = queued_call.notify.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Waits for the turn of one call among all replicas. Gives the slot, where there is one.
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

    /// Notes a first try, which earns a share of a retry.
    pub fn earn_retry(&self) {
        self.lock().retries.earn();
    }

    /// Takes one retry out of the retry budget, if there is one.
    pub fn spend_retry(&self) -> bool {
        self.lock().retries.spend()
    }

    /// Makes no call for this long; a longer pause that is under way stays.
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

    /// Holds to other limits from now on. What was used up stays used up.
    pub fn set_limits(&self, limits: LimiterSettings) {
        self.lock().set_limits(limits);
    }

    /// Forgets failures and refusals, because another place is asked from now on. What was used up stays used up.
    pub fn reset_endpoint_state(&self) {
        self.lock().reset_endpoint_state();
    }

    /// Forgets that the credential was refused, because it is another one now.
    pub fn reset_auth_failure(&self) {
        self.lock().rejected = None;
    }

    /// What polls have to keep to now, given what they need.
    pub fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        state.shares.set_demand(demand.calls_per_hour);
        state.awaited = demand.awaited;
        // A replica whose own calls are not granted learns here what the others have left it.
        self.learn_shared(&mut state, now);
        PollPacing {
            spacing: state.shares.spacing(now),
            closed_for: state.shares.wait(now, CallOrigin::Background),
            broken_for: state.breaker.is_open().then(|| state.broken_for(now, &FetchTrigger::Background)),
        }
    }

    /// Has the other replicas learn of this one's use of the budget, and learns of theirs.
    fn learn_shared(&self, state: &mut LimiterState, now: Duration) {
        if let Some(shared) = &self.shared {
            shared.report(state.shares.demand(), state.shares.callers(now));
            state.shares.set_shared(now, shared.used());
        }
    }

    /// Takes the place of one background call that is no poll, if there may be one now.
    pub fn take_recheck(&self) -> bool {
        let now = self.since(Instant::now());
        self.lock().shares.take_recheck(now)
    }

    /// How the source is doing now.
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

    /// What is left of the hour for all replicas, and for this one by its own count.
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

    /// No code that can panic runs under this lock, and each change under it is whole.
    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one call. Dropping it without [`CallPermit::finish`] frees the slot and tells nothing.
#[derive(Debug)]
#[must_use = "the slot is free again as soon as the permit is dropped"]
pub struct CallPermit {
    limiter: Arc<UpstreamLimiter>,
    probe: Probe,
    outcome: CallOutcome,
    /// When its turn came.
    began: Instant,
    /// Its slot among all replicas.
    slot: Option<String>,
    /// When it was counted here, while the shared budget has not granted it: if it never does, no call was made.
    unsent: Option<(Duration, CallOrigin)>,
}

/// Which credential a call shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CredentialChoice {
    Active,
    Another,
}

/// What hangs on a call besides its own answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Probe {
    /// It is the breaker's one try.
    breaker: bool,
    /// It is the one try after the credential was refused.
    credential: bool,
}

impl CallPermit {
    /// Counts the call, by how it ended.
    pub fn ended(self, end: meters::CallEnd) -> Self {
        meters::upstream_call(&self.limiter.name, end, self.began.elapsed());
        self
    }

    /// Ends the call and tells the gate how.
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

/// A place in the queue. Dropping it leaves the queue and lets the next one look.
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
