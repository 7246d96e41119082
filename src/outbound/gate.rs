//! What one source may be asked, and when: budget, concurrency, pauses, the breaker and the refused credential.
//!
//! Every call to a source, first try or retry, passes [`Gate::enter`] and holds a [`Permit`] until its answer has been
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

use self::shared::{SharedBudget, Taken};
use self::state::{State, Step, origin};
use crate::domain::budget::CallOrigin;
use crate::domain::id::SourceName;
use crate::domain::source::{BudgetUse, SourceHealth};
use crate::ports::upstream::{Asker, PollDemand, PollPacing};
use crate::telemetry::meters;

/// What a caller is told who waited for a slot in vain: when is not known, so "in a moment".
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// What a source may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
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
pub enum Refusal {
    /// The source asked for a pause, or its budget is used up; not before this much time has passed.
    Throttled(Duration),
    /// It refused our credential a moment ago.
    Rejected,
    /// It failed several times in a row; not before this much time has passed.
    Broken(Duration),
}

impl From<&Refusal> for meters::Held {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Throttled(_) => Self::Throttled,
            Refusal::Rejected => Self::Rejected,
            Refusal::Broken(_) => Self::Broken,
        }
    }
}

/// How a call ended, as far as the gate cares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Outcome {
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
pub struct Snapshot {
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
pub struct Gate {
    name: SourceName,
    epoch: Instant,
    state: Mutex<State>,
    /// Asked after the gate's own budget, where replicas share one.
    shared: Option<Arc<dyn SharedBudget>>,
}

impl Gate {
    /// An open gate for the source called `name`, whose budget is shared with other replicas if there is a `shared` one.
    pub fn new(name: SourceName, limits: Limits, shared: Option<Arc<dyn SharedBudget>>) -> Arc<Self> {
        let state = Mutex::new(State::new(&limits));
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
    pub async fn enter(self: &Arc<Self>, asker: &Asker, patience: Duration) -> Result<Permit, Refusal> {
        self.enter_with(asker, patience, Showing::InForce).await
    }

    /// The same for a call that shows another credential than the one in force: that the latter was refused says
    /// nothing about it, so [`Refusal::Rejected`] is never the answer.
    ///
    /// # Errors
    /// When the call must not be made now.
    pub async fn enter_with_another(
        self: &Arc<Self>,
        asker: &Asker,
        patience: Duration,
    ) -> Result<Permit, Refusal> {
        self.enter_with(asker, patience, Showing::Another).await
    }

    async fn enter_with(
        self: &Arc<Self>,
        asker: &Asker,
        patience: Duration,
        showing: Showing,
    ) -> Result<Permit, Refusal> {
        let began = Instant::now();
        let entered = self.wait_with(asker, patience, showing).await;
        meters::budget_waited(&self.name, began.elapsed());
        if let Err(refusal) = &entered {
            meters::call_held_back(&self.name, refusal.into());
        }
        entered
    }

    async fn wait_with(
        self: &Arc<Self>,
        asker: &Asker,
        patience: Duration,
        showing: Showing,
    ) -> Result<Permit, Refusal> {
        let give_up = Instant::now() + patience.min(self.limits().max_wait);
        let place = Place::take(self, asker);
        loop {
            let now = Instant::now();
            let step = self.lock().consider(self.since(now), asker, place.id, showing);
            let (wait, first) = match step {
                Step::Go(trial) => {
                    let outcome = Outcome::Unknown;
                    let unsent = Some((self.since(now), origin(asker)));
                    let mut permit =
                        Permit { gate: Arc::clone(self), trial, outcome, began: now, slot: None, unsent };
                    // It leaves the queue only now, so that those behind it come after it here too.
                    permit.slot = self.enter_shared(give_up).await?;
                    permit.unsent = None;
                    permit.began = Instant::now();
                    return Ok(permit);
                }
                Step::Refuse(refusal) => return Err(refusal),
                Step::Wait { at_least, first } => (at_least, first),
            };
            if now + wait > give_up || now >= give_up {
                return Err(Refusal::Throttled(wait.max(SLOT_WAIT)));
            }
            // the first in the queue waits for the budget; everyone else for those before them to move
            let wake_at = if first && !wait.is_zero() { now + wait } else { give_up };
            tokio::select! {
                biased;
                () = place.notify.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Waits for the turn of one call among all replicas. Gives the slot, where there is one.
    async fn enter_shared(&self, give_up: Instant) -> Result<Option<String>, Refusal> {
        let Some(shared) = &self.shared else { return Ok(None) };
        loop {
            let limits = self.limits();
            let wait = match shared.take(&limits).await {
                Taken::Go(slot) => {
                    self.learn_shared(&mut self.lock(), self.since(Instant::now()));
                    return Ok(slot);
                }
                Taken::Wait(wait) => wait,
                Taken::Paused(pause) => {
                    self.pause_here(pause);
                    return Err(Refusal::Throttled(pause));
                }
            };
            if Instant::now() + wait > give_up {
                return Err(Refusal::Throttled(wait.max(SLOT_WAIT)));
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
    pub fn set_limits(&self, limits: Limits) {
        self.lock().set_limits(limits);
    }

    /// Forgets failures and refusals, because another place is asked from now on. What was used up stays used up.
    pub fn forget_the_place(&self) {
        self.lock().forget_the_place();
    }

    /// Forgets that the credential was refused, because it is another one now.
    pub fn forgive(&self) {
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
            broken_for: state.breaker.is_open().then(|| state.broken_for(now, &Asker::Background)),
        }
    }

    /// Has the other replicas learn of this one's use of the budget, and learns of theirs.
    fn learn_shared(&self, state: &mut State, now: Duration) {
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
    pub fn snapshot(&self) -> Snapshot {
        let now = self.since(Instant::now());
        let state = self.lock();
        Snapshot {
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
    fn left_this_hour(&self, now: Duration, state: &State) -> u32 {
        let own = state.hour.left(now);
        self.shared.as_ref().map_or(own, |shared| shared.left(&state.limits).min(own))
    }

    fn limits(&self) -> Limits {
        self.lock().limits
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    /// No code that can panic runs under this lock, and each change under it is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one call. Dropping it without [`Permit::finish`] frees the slot and tells nothing.
#[derive(Debug)]
#[must_use = "the slot is free again as soon as the permit is dropped"]
pub struct Permit {
    gate: Arc<Gate>,
    trial: Trial,
    outcome: Outcome,
    /// When its turn came.
    began: Instant,
    /// Its slot among all replicas.
    slot: Option<String>,
    /// When it was counted here, while the shared budget has not granted it: if it never does, no call was made.
    unsent: Option<(Duration, CallOrigin)>,
}

/// Which credential a call shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    InForce,
    Another,
}

/// What hangs on a call besides its own answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trial {
    /// It is the breaker's one try.
    breaker: bool,
    /// It is the one try after the credential was refused.
    credential: bool,
}

impl Permit {
    /// Counts the call, by how it ended.
    pub fn ended(self, end: meters::CallEnd) -> Self {
        meters::upstream_call(&self.gate.name, end, self.began.elapsed());
        self
    }

    /// Ends the call and tells the gate how.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.gate.since(Instant::now());
        let name = &self.gate.name;
        let mut state = self.gate.lock();
        let was_open = state.breaker.is_open();
        let was_rejected = state.rejected.is_some();
        if let Some((at, origin)) = self.unsent {
            state.untake(at, origin);
        }
        state.leave(now, self.trial, self.outcome);
        if state.breaker.is_open() && !was_open {
            tracing::warn!(source = %name, "circuit breaker opened");
            meters::breaker_opened(name);
        }
        if state.rejected.is_some() && !was_rejected {
            tracing::error!(source = %name, "source rejected the credential");
        }
        if let (Some(shared), Some(slot)) = (&self.gate.shared, self.slot.take()) {
            shared.give_back(slot);
        }
        if let Outcome::Throttled(pause) = self.outcome {
            if let Some(shared) = &self.gate.shared {
                shared.pause(pause);
            }
            tracing::warn!(source = %name, seconds = pause.as_secs(), "source requested a pause");
        }
    }
}

/// A place in the queue. Dropping it leaves the queue and lets the next one look.
struct Place<'a> {
    gate: &'a Arc<Gate>,
    asker: &'a Asker,
    id: u64,
    notify: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn take(gate: &'a Arc<Gate>, asker: &'a Asker) -> Self {
        let notify = Arc::new(Notify::new());
        let id = gate.lock().queue.join(asker, Arc::clone(&notify));
        Self { gate, asker, id, notify }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.queue.quit(self.asker, self.id);
        state.queue.wake_first();
    }
}
