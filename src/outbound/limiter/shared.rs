//! The part of a budget that replicas share, and this replica's knowledge of it. It is consulted after the limiter's
//! own budget, and replaced by an even share of it while the shared count is unavailable. Not here: the implementation
//! of the shared count.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use super::LimiterSettings;
use crate::domain::budget::SharedUse;
use crate::ports::BoxFuture;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
/// How long a replica stays on its local budget after the shared count is available again, so that all replicas report
/// their calls before any of them spends what seems to be left.
const GRACE: Duration = Duration::from_secs(5);
/// The maximum age of this replica's knowledge of the others' calls. A call within this time before the shared count
/// was lost may have happened on another replica too, without being known here.
const UNSEEN: Duration = Duration::from_secs(2);

/// Calls within this many seconds are reported as one entry.
const SLICE: u64 = 10;
/// The longest delay between a call and its count here.
const SURE: Duration = Duration::from_mins(5);

/// The decision of the shared budget about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedDecision {
    /// Make the call. The slot, if there is one, must be given back.
    Go(Option<String>),
    /// Retry after this time.
    Wait(Duration),
    /// The source requested a pause from one of the replicas; it lasts this long.
    Paused(Duration),
}

/// A budget that replicas share.
pub trait SharedBudget: Debug + Send + Sync {
    /// Takes one call out of the budget, if it fits now. Never waits for it to fit.
    fn take<'a>(&'a self, limits: &'a LimiterSettings) -> BoxFuture<'a, SharedDecision>;

    /// The calls that all replicas together have left this hour, as far as this one knows.
    fn left(&self, limits: &LimiterSettings) -> u32;

    /// Reports to the other replicas how many calls an hour the polls of this replica need, and how many calls it made
    /// for callers within the last hour. Does not wait.
    fn report(&self, demand: u32, callers: u32);

    /// The use by all replicas, and the demand of the others, as far as this replica knows.
    fn used(&self) -> SharedUse;

    /// Releases the slot of a completed call. Does not wait.
    fn give_back(&self, slot: String);

    /// Pauses all replicas. Does not wait.
    fn pause(&self, pause: Duration);
}

/// Calls that were made at about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallBucket {
    /// When they were counted, which is not before they were made.
    pub at: Duration,
    /// The number of calls.
    pub count: u32,
}

/// This replica's knowledge of the calls of the last hour: its own exactly, those of all replicas by the second in
/// which it learned of them. Times are durations since any fixed moment. At most 3,600 entries of 16 bytes beside its
/// own calls.
#[derive(Debug, Default)]
pub struct SharedWindow {
    /// The calls of this replica.
    own: VecDeque<Duration>,
    /// The calls of all replicas in the shared count, as far as this replica knows.
    all: VecDeque<CallBucket>,
    /// The sequence number of the shared count: all calls that it ever counted, as last reported.
    sequence: Option<u64>,
    /// Calls of this replica that are not in the shared count yet.
    unreported: VecDeque<Duration>,
    alone: Option<LocalFallback>,
}

/// The period in which this replica uses its local budget.
#[derive(Clone, Copy, Debug)]
struct LocalFallback {
    since: Duration,
    /// The end of the period, once the shared count is available again.
    until: Option<Duration>,
}

impl SharedWindow {
    /// How long one more call must wait under this replica's local budget, with this many replicas; zero while the
    /// shared count alone decides.
    pub fn wait(&mut self, now: Duration, limits: &LimiterSettings, replicas: u32) -> Duration {
        self.forget(now);
        let Some(alone) = self.alone else { return Duration::ZERO };
        let replicas = replicas.max(1);
        let second = self.wait_evenly(now, limits.per_second, SECOND, replicas);
        if limits.per_hour < replicas {
            return second.max(self.wait_evenly(now, limits.per_hour, HOUR, replicas));
        }
        let fits = |at: Duration| {
            let before = self.before(at, alone.since);
            let share = limits.per_hour.saturating_sub(before) / replicas;
            let since = self.own.iter().filter(|call| **call >= alone.since && **call + HOUR > at).count();
            since < share as usize
        };
        if fits(now) {
            return second;
        }
        // Only a call that leaves the hour frees capacity: the first one after which the new call fits.
        let mut leave: Vec<Duration> = self
            .all
            .iter()
            .map(|calls| calls.at)
            .chain(self.own.iter().copied())
            .map(|at| at + HOUR)
            .collect();
        leave.sort_unstable();
        let first = leave.partition_point(|at| !fits(*at));
        let hour = leave.get(first).map_or(HOUR, |at| at.saturating_sub(now));
        second.max(hour)
    }

    /// The calls of all replicas from before the fallback, within the hour before `at`; calls shortly before the
    /// fallback count twice, because another replica may have made as many.
    fn before(&self, at: Duration, alone: Duration) -> u32 {
        // Calls are recorded at the end of their second.
        let last = Duration::from_secs(alone.as_secs() + 1);
        let before = self.all.iter().filter(|calls| calls.at <= last && calls.at + HOUR > at);
        let late = |calls: &CallBucket| if calls.at + UNSEEN > alone { 2_u32 } else { 1 };
        before.fold(0_u32, |sum, calls| sum.saturating_add(calls.count.saturating_mul(late(calls))))
    }

    /// Records a call of this replica that is requested from the shared count.
    pub fn take(&mut self, now: Duration) {
        self.own.push_back(now);
    }

    /// Removes a call that the shared count did not allow.
    pub fn give_back(&mut self, at: Duration) {
        if let Some(index) = self.own.iter().rposition(|call| *call == at) {
            self.own.remove(index);
        }
    }

    /// Records a call of this replica that the shared count does not contain.
    pub fn take_local(&mut self, now: Duration) {
        self.own.push_back(now);
        self.unreported.push_back(now);
    }

    /// Applies a new sequence number of the shared count; `reported` of its calls were reported by this replica.
    pub fn confirm(&mut self, now: Duration, sequence: u64, reported: usize) {
        let known = self.sequence.unwrap_or(sequence);
        // Replies may arrive out of order.
        self.sequence = Some(known.max(sequence));
        let new = sequence.saturating_sub(known).saturating_sub(reported as u64);
        self.note(now, u32::try_from(new).unwrap_or(u32::MAX));
    }

    /// Starts with a different shared count, and the calls in it that this replica does not know: their age and number.
    pub fn begin(&mut self, now: Duration, sequence: u64, unknown: &[(Duration, u32)]) {
        self.sequence = Some(sequence);
        for (ago, count) in unknown {
            self.note(now.saturating_sub(*ago), *count);
        }
    }

    /// Records that the shared count is unavailable or was lost: from now on this replica uses its local budget.
    pub fn fall_back(&mut self, now: Duration) {
        // If the shared count was available again, the earlier calls are in it and known.
        let since = self.alone.filter(|alone| alone.until.is_none()).map_or(now, |alone| alone.since);
        self.alone = Some(LocalFallback { since, until: None });
    }

    /// Records that the shared count is available. The local budget still applies for a while.
    pub fn is_back(&mut self, now: Duration) {
        match &mut self.alone {
            Some(LocalFallback { until: until @ None, .. }) => *until = Some(now + GRACE),
            Some(LocalFallback { until: Some(until), .. }) if now >= *until => self.alone = None,
            Some(_) | None => {}
        }
    }

    /// Records that the shared count started recently, perhaps because it was lost: for this long other replicas may
    /// still have to report.
    pub fn is_young(&mut self, now: Duration, still: Duration) {
        let since = self.alone.map_or(now, |alone| alone.since);
        let until = self.alone.and_then(|alone| alone.until).unwrap_or_default().max(now + still);
        self.alone = Some(LocalFallback { since, until: Some(until) });
    }

    /// The calls that are certainly in the shared count: those that this replica learned of so recently that they
    /// cannot have left the hour.
    pub fn sure(&self, now: Duration) -> u32 {
        let sure = self.all.iter().rev().take_while(|calls| calls.at + HOUR > now + SURE);
        sure.map(|calls| calls.count).sum()
    }

    /// The sequence number of the shared count, as far as this replica knows.
    pub const fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The calls that are still to be reported.
    pub fn unreported(&self) -> Vec<Duration> {
        self.unreported.iter().copied().collect()
    }

    /// Records that these calls were reported.
    pub fn reported(&mut self, calls: &[Duration]) {
        for call in calls {
            if self.unreported.front() == Some(call) {
                self.unreported.pop_front();
            }
            self.note(*call, 1);
        }
    }

    /// The calls of all replicas in the shared count within the last hour, the newest first.
    pub fn newest_first(&self, now: Duration) -> Vec<CallBucket> {
        self.all.iter().rev().take_while(|calls| calls.at + HOUR > now).copied().collect()
    }

    /// The calls of the last hour by slices of it, the oldest first: their age and number. Each of the other `replicas`
    /// is assumed to have as many unreported calls as this one.
    pub fn by_age(&self, now: Duration, replicas: u32) -> Vec<(Duration, u32)> {
        let known = self.all.iter().map(|calls| (calls.at, calls.count));
        let alone = self.unreported.iter().map(|call| (*call, replicas.max(1)));
        let mut slices = BTreeMap::<u64, u32>::new();
        for (at, count) in known.chain(alone).filter(|(at, _)| *at + HOUR > now) {
            let slice = slices.entry(at.as_secs().div_ceil(SLICE)).or_default();
            *slice = slice.saturating_add(count);
        }
        let age = |slice: u64| now.saturating_sub(Duration::from_secs(slice * SLICE));
        slices.into_iter().map(|(slice, count)| (age(slice), count)).collect()
    }

    /// How many calls of a budget are left this hour.
    pub fn left(&self, now: Duration, per_hour: u32) -> u32 {
        let counted: u32 = self.newest_first(now).iter().map(|calls| calls.count).sum();
        let unreported = self.unreported.iter().filter(|call| **call + HOUR > now).count();
        per_hour.saturating_sub(counted).saturating_sub(u32::try_from(unreported).unwrap_or(u32::MAX))
    }

    fn note(&mut self, at: Duration, count: u32) {
        if count == 0 {
            return;
        }
        // Never earlier than they were made: the end of the second.
        let at = Duration::from_secs(at.as_secs() + 1);
        match self.all.iter_mut().rev().find(|calls| calls.at <= at) {
            Some(calls) if calls.at == at => calls.count = calls.count.saturating_add(count),
            Some(_) | None => {
                let index = self.all.partition_point(|calls| calls.at <= at);
                self.all.insert(index, CallBucket { at, count });
            }
        }
    }

    fn forget(&mut self, now: Duration) {
        while self.own.front().is_some_and(|call| *call + HOUR <= now) {
            self.own.pop_front();
        }
        while self.unreported.front().is_some_and(|call| *call + HOUR <= now) {
            self.unreported.pop_front();
        }
        while self.all.front().is_some_and(|calls| calls.at + HOUR <= now) {
            self.all.pop_front();
        }
    }

    /// An even share of a rate. A budget too small to be divided becomes one call in a longer time.
    fn wait_evenly(&self, now: Duration, calls: u32, per: Duration, replicas: u32) -> Duration {
        let calls = calls.max(1);
        let (share, per) = match calls / replicas {
            // Rounded up, so that many of them together do not add up to one call more.
            0 => (1, per * replicas / calls + Duration::from_nanos(1)),
            share => (share, per),
        };
        let blocking = self.own.len().checked_sub(share as usize).and_then(|over| self.own.get(over));
        blocking.map_or(Duration::ZERO, |at| (*at + per).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(per_second: u32, per_hour: u32) -> LimiterSettings {
        LimiterSettings { per_second, per_hour, caller_share: 20, concurrency: 1, max_wait: SECOND }
    }

    /// A window that starts in the fallback.
    fn alone() -> SharedWindow {
        let mut window = SharedWindow::default();
        window.fall_back(Duration::ZERO);
        window
    }

    proptest! {
        #[test]
        fn the_shares_of_all_replicas_together_stay_within_the_budget(
            per_second in 1_u32..20, replicas in 1_u32..6, gaps in proptest::collection::vec(0_u64..300, 1..200)
        ) {
            let limits = limits(per_second, 1_000_000);
            let (mut window, mut now, mut started) = (alone(), Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                now += window.wait(now, &limits, replicas);
                window.take_local(now);
                started.push(now);
            }
            // Every replica does the same as this one: in a long enough period, all together keep the rate.
            let stretch = SECOND * replicas;
            for (index, first) in started.iter().enumerate() {
                let within = started[index..].iter().take_while(|at| **at < *first + stretch).count();
                let all = u32::try_from(within).unwrap() * replicas;
                prop_assert!(all <= per_second * replicas, "{all} calls in {stretch:?} at {per_second}");
            }
        }

        #[test]
        fn no_hour_exceeds_its_budget_when_the_shared_count_is_lost(
            per_hour in 3_u32..40, replicas in 1_usize..4,
            steps in proptest::collection::vec((0_u64..600, 0_usize..4, 0_u32..12), 1..200)
        ) {
            let (limits, number) = (limits(1_000, per_hour), u32::try_from(replicas).unwrap());
            let mut windows: Vec<SharedWindow> = (0..replicas).map(|_| SharedWindow::default()).collect();
            let (mut now, mut sequence, mut calls) = (SECOND * 10, 0_u64, Vec::<Duration>::new());
            for window in &mut windows {
                window.begin(now, 0, &[]);
            }
            let mut away = false;
            for (gap, who, what) in steps {
                now += Duration::from_secs(gap);
                // Every replica learns of the others' calls, and reports its own, once a second.
                if !away {
                    for window in &mut windows {
                        let unreported = window.unreported();
                        window.reported(&unreported);
                        sequence += unreported.len() as u64;
                        window.confirm(now, sequence, unreported.len());
                    }
                    for window in &mut windows {
                        window.confirm(now, sequence, 0);
                        window.is_back(now);
                    }
                }
                match what {
                    0 => {
                        away = true;
                        for window in &mut windows {
                            window.fall_back(now);
                        }
                    }
                    1 => away = false,
                    _ => {}
                }
                let window = &mut windows[who % replicas];
                if !window.wait(now, &limits, number).is_zero() {
                    continue;
                }
                let counted = calls.iter().filter(|at| **at + HOUR > now).count();
                if away {
                    window.take_local(now);
                } else if counted < per_hour as usize {
                    sequence += 1;
                    window.take(now);
                } else {
                    continue;
                }
                calls.push(now);
                let within = calls.iter().filter(|at| **at + HOUR > now).count();
                prop_assert!(within <= per_hour as usize, "{within} of {per_hour}");
            }
        }
    }

    #[test]
    fn remaining_hourly_budget_is_divided_among_replicas() {
        let (limits, mut window) = (limits(100, 300), SharedWindow::default());
        window.begin(Duration::ZERO, 0, &[]);
        window.confirm(Duration::ZERO, 291, 0);
        let now = SECOND * 100;
        window.fall_back(now);
        for _ in 0..3 {
            assert_eq!(window.wait(now, &limits, 3), Duration::ZERO);
            window.take_local(now);
        }
        assert_eq!(window.wait(now, &limits, 3), Duration::from_secs(3_501), "a third of nine");
        assert_eq!(window.left(now, 300), 6, "of all calls, as far as it knows");
        assert_eq!(
            window.wait(HOUR + SECOND, &limits, 3),
            Duration::ZERO,
            "after the hour it is a third of all"
        );
    }

    #[test]
    fn local_share_applies_until_other_replicas_have_reported() {
        let (limits, mut window) = (limits(100, 30), SharedWindow::default());
        window.fall_back(Duration::ZERO);
        for _ in 0..10 {
            window.take_local(Duration::ZERO);
        }
        window.is_back(SECOND);
        assert!(!window.wait(SECOND, &limits, 3).is_zero());
        window.is_back(SECOND + GRACE);
        assert_eq!(window.wait(SECOND + GRACE, &limits, 3), Duration::ZERO, "the shared count decides");
    }

    #[test]
    fn reported_calls_are_counted_once() {
        let mut window = SharedWindow::default();
        window.begin(Duration::ZERO, 7, &[(Duration::ZERO, 4)]);
        window.take_local(SECOND);
        assert_eq!(window.left(SECOND, 10), 5);
        let reported = window.unreported();
        window.reported(&reported);
        window.confirm(SECOND * 2, 9, 1);
        assert_eq!((window.left(SECOND * 2, 10), window.unreported().len()), (4, 0), "and one of another");
        assert_eq!(window.newest_first(HOUR + SECOND * 2).len(), 1, "the last second");
    }

    #[test]
    fn calls_from_before_the_start_leave_the_hour_in_time() {
        let (mut window, now) = (SharedWindow::default(), HOUR);
        window.begin(now, 60, &[(SECOND * 3_000, 40), (SECOND * 100, 20)]);
        assert_eq!(window.by_age(now, 3), [(SECOND * 2_990, 40), (SECOND * 90, 20)]);
        assert_eq!((window.left(now, 100), window.left(now + SECOND * 602, 100)), (40, 80));
    }

    #[test]
    fn what_replicas_call_alone_is_taken_to_be_alike() {
        let (mut window, now) = (SharedWindow::default(), HOUR);
        window.begin(now, 5, &[(SECOND * 100, 5)]);
        window.fall_back(now);
        window.take_local(now);
        assert_eq!(window.by_age(now, 3), [(SECOND * 90, 5), (Duration::ZERO, 3)]);
    }
}
