//! Rate limit, backoff, circuit breaker and retry budget. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// A rate limit: at most so many calls in *any* window of a given length, counted exactly.
///
/// Remembers the start of each call in the window: 16 bytes a call, so 80 kB for 5,000 an hour. Times are durations
/// since any fixed moment, the same for every call.
#[derive(Clone, Debug)]
pub struct Rate {
    calls: usize,
    per: Duration,
    started: VecDeque<Duration>,
}

impl Rate {
    /// Allows `calls` in any window of length `per`. Zero is treated as one.
    pub const fn new(calls: u32, per: Duration) -> Self {
        let calls = if calls == 0 { 1 } else { calls as usize };
        Self { calls, per, started: VecDeque::new() }
    }

    /// Changes the number of calls. Calls counted so far stay counted.
    pub fn allow(&mut self, calls: u32) {
        self.calls = calls.max(1) as usize;
    }

    /// How long to wait from `now` before one call fits.
    pub fn wait(&self, now: Duration) -> Duration {
        match self.started.len().checked_sub(self.calls).and_then(|over| self.started.get(over)) {
            Some(blocking) => (*blocking + self.per).saturating_sub(now),
            None => Duration::ZERO,
        }
    }

    /// How long to wait from `now` before a call fits behind `ahead` others that start as early as they can.
    pub fn wait_behind(&self, now: Duration, ahead: usize) -> Duration {
        let Some(blocking) = (self.started.len() + ahead).checked_sub(self.calls) else {
            return Duration::ZERO;
        };
        match self.started.get(blocking) {
            Some(at) => (*at + self.per).saturating_sub(now),
            // It is blocked by one of those ahead, which waits itself.
            None => self.wait_behind(now, blocking - self.started.len()) + self.per,
        }
    }

    /// Counts one call at `now`. The caller has waited for [`Rate::wait`].
    pub fn take(&mut self, now: Duration) {
        while self.started.front().is_some_and(|first| *first + self.per <= now) {
            self.started.pop_front();
        }
        self.started.push_back(now);
    }

    /// Reverts a call that was counted at `at` and was not made.
    pub fn untake(&mut self, at: Duration) {
        if let Some(index) = self.started.iter().rposition(|call| *call == at) {
            self.started.remove(index);
        }
    }

    /// How many calls fit at `now` without waiting.
    pub fn left(&self, now: Duration) -> u32 {
        let used = self.started.iter().rev().take_while(|at| **at + self.per > now).count();
        u32::try_from(self.calls.saturating_sub(used)).unwrap_or(u32::MAX)
    }
}

/// Exponential backoff with full jitter: the n-th wait is anywhere below `min(cap, base · 2ⁿ)`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub base: Duration,
    /// The upper bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures (0 for the first), for a `unit` drawn uniformly from 0 to 1.
    pub fn wait(&self, failures: u32, unit: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(self.cap);
        ceiling.mul_f64(unit.clamp(0.0, 1.0))
    }
}

/// A circuit breaker: open after so many failures in a row, then one probe at a time.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: u32,
    backoff: Backoff,
    failures: u32,
    openings: u32,
    open: Option<BreakerOpening>,
    trying: bool,
}

/// When it opened last, and how long it stays open.
#[derive(Clone, Copy, Debug)]
struct BreakerOpening {
    at: Duration,
    until: Duration,
}

/// The decision of a breaker about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerDecision {
    /// The call may be made.
    Open,
    /// The call may be made, as the probe that decides.
    Try,
    /// The call is rejected until this much time has passed.
    Refused(Duration),
}

impl Breaker {
    /// A breaker that opens after `threshold` failures in a row and stays open for a time determined by `backoff`.
    pub fn new(threshold: u32, backoff: Backoff) -> Self {
        Self { threshold: threshold.max(1), backoff, failures: 0, openings: 0, open: None, trying: false }
    }

    /// Closes it and forgets every failure, because the source has another address now.
    pub fn forget(&mut self) {
        *self = Self::new(self.threshold, self.backoff);
    }

    /// Requests a call at `now`.
    pub fn enter(&mut self, now: Duration) -> BreakerDecision {
        self.enter_within(now, None)
    }

    /// The same for a call that may be the probe when `at_most` has passed since the last failure, even if the breaker
    /// would stay open longer.
    pub fn enter_within(&mut self, now: Duration, at_most: Option<Duration>) -> BreakerDecision {
        match self.refused_within(now, at_most) {
            Some(wait) => BreakerDecision::Refused(wait),
            None if self.open.is_some() => {
                self.trying = true;
                BreakerDecision::Try
            }
            None => BreakerDecision::Open,
        }
    }

    /// How long such calls are rejected from `now` on, without requesting one; `None` if one may be made.
    pub fn refused_within(&self, now: Duration, at_most: Option<Duration>) -> Option<Duration> {
        let BreakerOpening { at, until } = self.open?;
        let until = at_most.map_or(until, |at_most| until.min(at + at_most));
        if now < until { Some(until.saturating_sub(now)) } else { self.trying.then_some(self.backoff.base) }
    }

    /// Records a call that was answered.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.openings = 0;
        self.open = None;
        self.trying = false;
    }

    /// Records a call that failed at `now`; `unit` is drawn uniformly from 0 to 1.
    ///
    /// Stays open for at least half the upper bound, so that a low draw does not overload a failing upstream.
    pub fn failed(&mut self, now: Duration, unit: f64) {
        self.failures = self.failures.saturating_add(1);
        if self.trying || self.failures >= self.threshold {
            let wait = self.backoff.wait(self.openings, 0.5 + unit / 2.0);
            self.open = Some(BreakerOpening { at: now, until: now + wait });
            self.openings = self.openings.saturating_add(1);
            self.trying = false;
        }
    }

    /// Records a call that ended without a result, such as one that was dropped.
    pub fn abandoned(&mut self) {
        self.trying = false;
    }

    /// Returns whether calls are being rejected.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

/// A retry budget: retries may be a share of the calls, above a small minimum, so that they cannot amplify an outage.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    tokens: f64,
    share: f64,
    floor: f64,
}

impl RetryBudget {
    /// Retries for `share` of the calls (0.2 is one in five), with `floor` of them available at the start, which is
    /// also the maximum.
    pub const fn new(share: f64, floor: f64) -> Self {
        Self { tokens: floor, share, floor }
    }

    /// Records a first attempt.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + self.share).min(self.floor.max(1.0));
    }

    /// Takes one retry if there is one.
    pub fn spend(&mut self) -> bool {
        let affordable = self.tokens >= 1.0;
        if affordable {
            self.tokens -= 1.0;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn a_rate_is_never_exceeded(calls in 1_u32..50, gaps in proptest::collection::vec(0_u64..400, 1..300)) {
            let mut rate = Rate::new(calls, SECOND);
            let (mut now, mut started) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                now += rate.wait(now);
                prop_assert!(rate.left(now) >= 1);
                rate.take(now);
                started.push(now);
            }
            for (index, first) in started.iter().enumerate() {
                let within = started[index..].iter().take_while(|at| **at < *first + SECOND).count();
                prop_assert!(within <= calls as usize, "{within} calls of {calls}");
            }
        }

        #[test]
        fn rate_change_keeps_earlier_calls_counted(steps in proptest::collection::vec((1_u32..20, 0_u64..300), 1..200)) {
            let mut rate = Rate::new(1, SECOND);
            let (mut now, mut started): (_, Vec<Duration>) = (Duration::ZERO, Vec::new());
            for (calls, gap) in steps {
                rate.allow(calls);
                now += Duration::from_millis(gap);
                now += rate.wait(now);
                rate.take(now);
                started.push(now);
                let within = started.iter().filter(|at| **at + SECOND > now).count();
                prop_assert!(within <= calls as usize, "{within} calls of {calls}");
            }
        }

        #[test]
        fn predicted_wait_equals_the_actual_wait(calls in 1_u32..6, before in proptest::collection::vec(0_u64..400, 0..20), ahead in 0_usize..20) {
            let mut rate = Rate::new(calls, SECOND);
            let mut now = Duration::ZERO;
            for gap in before {
                now += Duration::from_millis(gap);
                now += rate.wait(now);
                rate.take(now);
            }
            let foretold = rate.wait_behind(now, ahead);
            let mut then = now;
            for _ in 0..ahead {
                then += rate.wait(then);
                rate.take(then);
            }
            prop_assert_eq!(now + foretold, then + rate.wait(then));
        }

        #[test]
        fn backoff_stays_below_its_ceiling(failures in 0_u32..200, unit in 0.0_f64..1.0) {
            let backoff = Backoff { base: SECOND, cap: SECOND * 60 };
            let wait = backoff.wait(failures, unit);
            prop_assert!(wait <= SECOND * 60);
            prop_assert!(wait <= SECOND.saturating_mul(1 << failures.min(20)));
        }
    }

    /// A circuit breaker that has just opened after three failures.
    fn broken() -> Breaker {
        let mut breaker = Breaker::new(3, Backoff { base: SECOND, cap: SECOND * 60 });
        for _ in 0..3 {
            assert_eq!(breaker.enter(Duration::ZERO), BreakerDecision::Open);
            breaker.failed(Duration::ZERO, 1.0);
        }
        breaker
    }

    #[test]
    fn breaker_refuses_after_its_number_of_failures() {
        assert_eq!(broken().enter(Duration::ZERO), BreakerDecision::Refused(SECOND));
    }

    #[test]
    fn breaker_permits_one_probe_at_a_time_after_its_pause() {
        let mut breaker = broken();
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Try);
        assert!(matches!(breaker.enter(SECOND), BreakerDecision::Refused(_)));
    }

    #[test]
    fn failed_probe_doubles_the_pause_of_the_breaker() {
        let mut breaker = broken();
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Try);
        breaker.failed(SECOND, 1.0);
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Refused(SECOND * 2));
        assert_eq!(breaker.enter(SECOND * 3), BreakerDecision::Try);
    }

    #[test]
    fn successful_probe_ends_the_pause_of_the_breaker() {
        let mut breaker = broken();
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Try);
        breaker.succeeded();
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Open);
    }

    #[test]
    fn breaker_probes_sooner_while_a_caller_waits() {
        let mut breaker = Breaker::new(1, Backoff { base: SECOND, cap: SECOND * 60 });
        let (mut now, soon) = (Duration::ZERO, Some(SECOND * 5));
        breaker.failed(now, 1.0);
        for expected in [1, 2, 4, 5, 5, 5] {
            assert_eq!(breaker.refused_within(now, soon), Some(SECOND * expected));
            now += SECOND * expected;
            assert_eq!(breaker.enter_within(now, soon), BreakerDecision::Try);
            assert_eq!(
                breaker.enter_within(now, soon),
                BreakerDecision::Refused(SECOND),
                "one probe at a time"
            );
            breaker.failed(now, 1.0);
        }
        assert_eq!(breaker.refused_within(now, None), Some(SECOND * 60), "no caller waits");
    }

    #[test]
    fn abandoned_probe_allows_another_probe() {
        let mut breaker = Breaker::new(1, Backoff { base: SECOND, cap: SECOND });
        breaker.failed(Duration::ZERO, 1.0);
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Try);
        breaker.abandoned();
        assert_eq!(breaker.enter(SECOND), BreakerDecision::Try);
    }

    #[test]
    fn retry_budget_limits_retries_to_a_share_of_calls() {
        let mut budget = RetryBudget::new(0.2, 3.0);
        let mut spent = 0;
        for _ in 0..1_000 {
            budget.earn();
            spent += u32::from(budget.spend());
        }
        assert!((200..=203).contains(&spent), "{spent}");
    }
}
