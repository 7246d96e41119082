//! What the gate knows at one moment, and its decisions. No waiting here: each function runs under the gate's lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Limits, Outcome, Refusal, Trial};
use crate::domain::schedule::{Backoff, Breaker, Passage, Rate, RetryBudget};
use crate::domain::source::SourceHealth;
use crate::ports::upstream::Urgency;

/// Failures in a row until the breaker opens, and how long it stays so.
const BREAKER_THRESHOLD: u32 = 5;
const BREAKER_BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_mins(1) };
/// Retries: one in five calls, and a few to begin with.
const RETRY_SHARE: f64 = 0.2;
const RETRY_FLOOR: f64 = 10.0;
/// How long a refused credential is not tried again.
const REJECTED_FOR: Duration = Duration::from_secs(30);

/// What a call is told that wants to go.
#[derive(Debug)]
pub(super) enum Step {
    /// Go; the slot and the budget are taken.
    Go(Trial),
    /// Not now.
    Refuse(Refusal),
    /// In a while: not before this much time has passed, and not before those ahead.
    Wait { at_least: Duration, first: bool },
}

/// The credential was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejected {
    until: Duration,
    trying: bool,
}

/// The last that was heard of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Answer,
    Failure,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    notify: Arc<Notify>,
}

/// All that changes. Times are durations since the gate was made.
#[derive(Debug)]
pub(super) struct State {
    concurrency: u32,
    second: Rate,
    pub(super) hour: Rate,
    pub(super) in_flight: u32,
    next_id: u64,
    waiting: VecDeque<Waiter>,
    background: VecDeque<Waiter>,
    paused_until: Option<Duration>,
    pub(super) rejected: Option<Rejected>,
    pub(super) breaker: Breaker,
    pub(super) retries: RetryBudget,
    last: Last,
}

impl State {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            concurrency: limits.concurrency.max(1),
            second: Rate::new(limits.per_second, Duration::from_secs(1)),
            hour: Rate::new(limits.per_hour, Duration::from_hours(1)),
            in_flight: 0,
            next_id: 0,
            waiting: VecDeque::new(),
            background: VecDeque::new(),
            paused_until: None,
            rejected: None,
            breaker: Breaker::new(BREAKER_THRESHOLD, BREAKER_BACKOFF),
            retries: RetryBudget::new(RETRY_SHARE, RETRY_FLOOR),
            last: Last::Nothing,
        }
    }

    /// Takes a place at the end of a queue.
    pub(super) fn join(&mut self, urgency: Urgency, notify: Arc<Notify>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queue(urgency).push_back(Waiter { id, notify });
        id
    }

    /// Leaves the queue, whichever it is, and lets the first one look.
    pub(super) fn quit(&mut self, id: u64) {
        self.waiting.retain(|waiter| waiter.id != id);
        self.background.retain(|waiter| waiter.id != id);
        self.wake_first();
    }

    /// Decides about the call with this place in the queue, and takes slot and budget if it may go.
    pub(super) fn consider(&mut self, now: Duration, id: u64, urgency: Urgency) -> Step {
        if let Some(refusal) = self.refusal(now) {
            return Step::Refuse(refusal);
        }
        let ahead = self.ahead(id, urgency);
        let at_least = self.second.wait_behind(now, ahead).max(self.hour.wait_behind(now, ahead));
        if ahead > 0 || !at_least.is_zero() || self.in_flight >= self.concurrency {
            return Step::Wait { at_least, first: ahead == 0 };
        }
        let breaker = match self.breaker.enter(now) {
            Passage::Open => false,
            Passage::Try => true,
            Passage::Refused(wait) => return Step::Refuse(Refusal::Broken(wait)),
        };
        let credential = self.rejected.is_some();
        if let Some(rejected) = &mut self.rejected {
            rejected.trying = true;
        }
        self.second.take(now);
        self.hour.take(now);
        self.in_flight += 1;
        Step::Go(Trial { breaker, credential })
    }

    /// Gives a slot back and learns from the call's end.
    pub(super) fn leave(&mut self, now: Duration, trial: Trial, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let (true, Some(rejected)) = (trial.credential, &mut self.rejected) {
            rejected.trying = false;
        }
        match outcome {
            Outcome::Unknown if trial.breaker => self.breaker.abandoned(),
            Outcome::Unknown => {}
            Outcome::Answered => {
                self.last = Last::Answer;
                self.breaker.succeeded();
                // a call that left before the refusal says nothing about it
                if trial.credential {
                    self.rejected = None;
                }
            }
            Outcome::Failed(unit) => {
                self.last = Last::Failure;
                // calls that were under way when it opened must not lengthen the opening
                if trial.breaker || !self.breaker.is_open() {
                    self.breaker.failed(now, unit);
                }
            }
            Outcome::Throttled(pause) => {
                self.last = Last::Answer;
                self.breaker.succeeded();
                self.pause(now + pause);
            }
            Outcome::Rejected => {
                self.last = Last::Answer;
                self.breaker.succeeded();
                self.rejected = Some(Rejected { until: now + REJECTED_FOR, trying: false });
            }
        }
        self.wake_first();
    }

    /// Pauses until a time; says whether that is later than a pause under way.
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
                Last::Nothing => SourceHealth::Untried,
                Last::Answer => SourceHealth::Healthy,
                Last::Failure => SourceHealth::Unavailable,
            }
        }
    }

    /// How long no call will be made, for whatever reason.
    pub(super) fn closed_for(&self, now: Duration) -> Option<Duration> {
        let rejected = self.rejected.map(|rejected| rejected.until.saturating_sub(now));
        let reasons = [self.pause_left(now), Some(self.hour.wait(now)), rejected, self.breaker.refused(now)];
        reasons.into_iter().flatten().max().filter(|wait| !wait.is_zero())
    }

    fn refusal(&self, now: Duration) -> Option<Refusal> {
        if let Some(left) = self.pause_left(now) {
            return Some(Refusal::Throttled(left));
        }
        if self.rejected.is_some_and(|rejected| rejected.trying || now < rejected.until) {
            return Some(Refusal::Rejected);
        }
        self.breaker.refused(now).map(Refusal::Broken)
    }

    fn pause_left(&self, now: Duration) -> Option<Duration> {
        self.paused_until?.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// How many go before this place.
    fn ahead(&self, id: u64, urgency: Urgency) -> usize {
        let before = |queue: &VecDeque<Waiter>| queue.iter().take_while(|waiter| waiter.id != id).count();
        match urgency {
            Urgency::Waiting => before(&self.waiting),
            Urgency::Background => self.waiting.len() + before(&self.background),
        }
    }

    fn queue(&mut self, urgency: Urgency) -> &mut VecDeque<Waiter> {
        match urgency {
            Urgency::Waiting => &mut self.waiting,
            Urgency::Background => &mut self.background,
        }
    }

    /// Lets the first one look. Whoever then goes or is refused leaves the queue, which wakes the next: so a pause
    /// empties the whole queue.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.waiting.front().or_else(|| self.background.front()) {
            first.notify.notify_one();
        }
    }
}
