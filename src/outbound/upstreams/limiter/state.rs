//! The state of the limiter and its decisions. Nothing waits here: each function runs under the limiter's lock.

use std::time::Duration;

use super::call::{CallOutcome, CredentialChoice, LimiterRefusal, Probe};
use super::queue::CallQueue;
use super::settings::LimiterSettings;
use crate::domain::budget::{CallOrigin, HourShares};
use crate::domain::schedule::{Backoff, Breaker, BreakerDecision, Rate, RetryBudget};
use crate::domain::source::SourceHealth;
use crate::ports::upstream::FetchTrigger;

/// Consecutive failures until the breaker opens.
const BREAKER_THRESHOLD: u32 = 5;
const BREAKER_BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_mins(1) };
/// How long it stays open at most while a client waits for a response or watches a job.
const BREAKER_AWAITED: Duration = Duration::from_secs(5);
/// The retry budget: one in five calls, and a few at the start.
const RETRY_SHARE: f64 = 0.2;
const RETRY_FLOOR: f64 = 10.0;
/// How long a rejected credential is not tried again.
const REJECTED_FOR: Duration = Duration::from_secs(30);

/// The decision about a call in the queue.
#[derive(Debug)]
pub(super) enum AcquireStep {
    /// Make the call; the slot and the budget are taken.
    Go(Probe),
    /// Reject the call.
    Refuse(LimiterRefusal),
    /// Wait: at least for this long, and until the calls ahead have left.
    Wait { at_least: Duration, first: bool },
}

/// The credential was rejected.
#[derive(Clone, Copy, Debug)]
pub(super) struct RejectedCredential {
    until: Duration,
    trying: bool,
}

/// The last response of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastResponse {
    Nothing,
    Answer,
    Failure,
}

/// All mutable state. Times are durations since the limiter was created.
#[derive(Debug)]
pub(super) struct LimiterState {
    pub(super) limits: LimiterSettings,
    second: Rate,
    pub(super) hour: Rate,
    pub(super) shares: HourShares,
    pub(super) in_flight: u32,
    pub(super) queue: CallQueue,
    paused_until: Option<Duration>,
    pub(super) rejected: Option<RejectedCredential>,
    pub(super) breaker: Breaker,
    /// A client watches jobs of the source: its polls retry as soon as a caller would.
    pub(super) awaited: bool,
    pub(super) retries: RetryBudget,
    last: LastResponse,
}

impl LimiterState {
    pub(super) fn new(limits: &LimiterSettings) -> Self {
        Self {
            limits: *limits,
            second: Rate::new(limits.per_second, Duration::from_secs(1)),
            hour: Rate::new(limits.per_hour, Duration::from_hours(1)),
            shares: HourShares::new(limits.per_hour, limits.caller_share),
            in_flight: 0,
            queue: CallQueue::default(),
            paused_until: None,
            rejected: None,
            breaker: Breaker::new(BREAKER_THRESHOLD, BREAKER_BACKOFF),
            awaited: false,
            retries: RetryBudget::new(RETRY_SHARE, RETRY_FLOOR),
            last: LastResponse::Nothing,
        }
    }

    /// Applies other limits from now on. The used budget stays used, and waiting calls are considered again.
    pub(super) fn set_limits(&mut self, limits: LimiterSettings) {
        self.limits = limits;
        self.second.allow(limits.per_second);
        self.hour.allow(limits.per_hour);
        self.shares.allow(limits.per_hour, limits.caller_share);
        self.queue.wake_first();
    }

    /// Resets what is known about the previous URL. The used budget and a pause stay: both belong to the source's
    /// account.
    pub(super) fn reset_endpoint_state(&mut self) {
        self.rejected = None;
        self.breaker.forget();
        self.last = LastResponse::Nothing;
        self.queue.wake_first();
    }

    /// Decides about the call with this position in the queue. If it may be made, it takes slot and budget and leaves
    /// the queue; the next call is considered when the position is dropped.
    pub(super) fn consider(
        &mut self,
        now: Duration,
        trigger: &FetchTrigger,
        id: u64,
        choice: CredentialChoice,
    ) -> AcquireStep {
        match self.refusal(now, trigger) {
            Some(LimiterRefusal::Rejected) if choice == CredentialChoice::Another => {}
            Some(refusal) => return AcquireStep::Refuse(refusal),
            None => {}
        }
        let ahead = self.queue.ahead(trigger, id);
        let rates = self.second.wait_behind(now, ahead).max(self.hour.wait_behind(now, ahead));
        let at_least = rates.max(self.shares.wait(now, origin(trigger)));
        if ahead > 0 || !at_least.is_zero() || self.in_flight >= self.limits.concurrency.max(1) {
            return AcquireStep::Wait { at_least, first: ahead == 0 };
        }
        let breaker = match self.breaker.enter_within(now, self.open_at_most(trigger)) {
            BreakerDecision::Open => false,
            BreakerDecision::Try => true,
            BreakerDecision::Refused(wait) => return AcquireStep::Refuse(LimiterRefusal::Broken(wait)),
        };
        let credential = choice == CredentialChoice::Active && self.rejected.is_some();
        if let (true, Some(rejected)) = (credential, &mut self.rejected) {
            rejected.trying = true;
        }
        self.second.take(now);
        self.hour.take(now);
        self.shares.take(now, origin(trigger));
        self.in_flight += 1;
        self.queue.go(trigger, id);
        AcquireStep::Go(Probe { breaker, credential })
    }

    /// Returns to the budget what a call took at `at`, because it was not made.
    pub(super) fn untake(&mut self, at: Duration, origin: CallOrigin) {
        self.second.untake(at);
        self.hour.untake(at);
        self.shares.untake(at, origin);
    }

    /// Releases a slot and updates the state by the call's outcome.
    pub(super) fn leave(&mut self, now: Duration, probe: Probe, outcome: CallOutcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let (true, Some(rejected)) = (probe.credential, &mut self.rejected) {
            rejected.trying = false;
        }
        match outcome {
            CallOutcome::Unknown if probe.breaker => self.breaker.abandoned(),
            CallOutcome::Unknown => {}
            CallOutcome::Answered => {
                self.last = LastResponse::Answer;
                self.breaker.succeeded();
                // a call that was sent before the rejection is not related to it
                if probe.credential {
                    self.rejected = None;
                }
            }
            CallOutcome::Failed(unit) => {
                self.last = LastResponse::Failure;
                // calls that were running when it opened must not extend the time
                if probe.breaker || !self.breaker.is_open() {
                    self.breaker.failed(now, unit);
                }
            }
            CallOutcome::Throttled(pause) => {
                self.last = LastResponse::Answer;
                self.breaker.succeeded();
                self.pause(now + pause);
            }
            CallOutcome::Rejected => {
                self.last = LastResponse::Answer;
                self.breaker.succeeded();
                self.rejected = Some(RejectedCredential { until: now + REJECTED_FOR, trying: false });
            }
        }
        self.queue.wake_first();
    }

    /// Pauses until a time; returns whether that is later than the current pause.
    pub(super) fn pause(&mut self, until: Duration) -> bool {
        let longer = self.paused_until.is_none_or(|held| held < until);
        if longer {
            self.paused_until = Some(until);
        }
        longer
    }

    pub(super) fn health(&self, now: Duration) -> SourceHealth {
        if self.rejected.is_some() {
            SourceHealth::CredentialRejected
        } else if self.pause_left(now).is_some() || !self.hour.wait(now).is_zero() {
            SourceHealth::Throttled
        } else {
            match self.last {
                LastResponse::Nothing => SourceHealth::Untried,
                LastResponse::Answer => SourceHealth::Healthy,
                LastResponse::Failure => SourceHealth::Unavailable,
            }
        }
    }

    /// How long no call will be made, for any reason.
    pub(super) fn closed_for(&self, now: Duration) -> Option<Duration> {
        let rejected = self.rejected.map(|rejected| rejected.until.saturating_sub(now));
        let at_most = self.awaited.then_some(BREAKER_AWAITED);
        let reasons = [
            self.pause_left(now),
            Some(self.hour.wait(now)),
            rejected,
            self.breaker.refused_within(now, at_most),
        ];
        reasons.into_iter().flatten().max().filter(|wait| !wait.is_zero())
    }

    /// How long the open breaker rejects calls of this trigger from `now` on.
    pub(super) fn broken_for(&self, now: Duration, trigger: &FetchTrigger) -> Duration {
        self.breaker.refused_within(now, self.open_at_most(trigger)).unwrap_or_default()
    }

    /// How long the breaker stays open at most after a failure, for this trigger.
    fn open_at_most(&self, trigger: &FetchTrigger) -> Option<Duration> {
        match trigger {
            FetchTrigger::Background if !self.awaited => None,
            FetchTrigger::Background | FetchTrigger::Operator | FetchTrigger::Client(_) => {
                Some(BREAKER_AWAITED)
            }
        }
    }

    fn refusal(&self, now: Duration, trigger: &FetchTrigger) -> Option<LimiterRefusal> {
        if let Some(left) = self.pause_left(now) {
            return Some(LimiterRefusal::Throttled(left));
        }
        if self.rejected.is_some_and(|rejected| rejected.trying || now < rejected.until) {
            return Some(LimiterRefusal::Rejected);
        }
        self.breaker.refused_within(now, self.open_at_most(trigger)).map(LimiterRefusal::Broken)
    }

    fn pause_left(&self, now: Duration) -> Option<Duration> {
        self.paused_until?.checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// The share that a call is taken from.
pub(super) const fn origin(trigger: &FetchTrigger) -> CallOrigin {
    match trigger {
        FetchTrigger::Background => CallOrigin::Background,
        FetchTrigger::Operator | FetchTrigger::Client(_) => CallOrigin::Caller,
    }
}
