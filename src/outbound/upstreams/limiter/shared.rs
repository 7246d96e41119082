//! The part of a budget that replicas share, and this replica's knowledge of it. It is consulted after the limiter's
//! own budget, and replaced by an even share of it while the shared count is unavailable. Not here: the implementation
//! of the shared count.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use super::settings::LimiterSettings;
use crate::domain::budget::SharedUse;
use crate::ports::BoxFuture;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
/// How long a replica stays on its local budget after the shared count is available again, so that all replicas report
/// their calls before any of them spends what seems to be left.
const GRACE: Duration = Duration::from_secs(5);
/// The maximum age of a replica's knowledge of the others' calls. The others may not know a call that was made within
/// this time before the last reply of the shared count.
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
    /// When the shared count replied last.
    replied: Option<Duration>,
    alone: Option<LocalFallback>,
}

/// The period in which this replica uses its local budget.
#[derive(Clone, Copy, Debug)]
struct LocalFallback {
    /// The start of the period.
    first: Loss,
    /// The shared count was lost for the last time in this period. The shares of both losses apply: the others may
    /// still use their share of the first one, and the second one contains what they used since.
    last: Loss,
    /// The end of the period, once the shared count is available again.
    until: Option<Duration>,
}

/// A loss of the shared count.
#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Duration,
    /// The last reply before it.
    replied: Duration,
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
        let fits_since = |at: Duration, loss: Loss| {
            let share = limits.per_hour.saturating_sub(self.before(at, loss, replicas)) / replicas;
            let since = self.own.iter().filter(|call| **call >= loss.at && **call + HOUR > at).count();
            since < share as usize
        };
        let fits = |at: Duration| fits_since(at, alone.first) && fits_since(at, alone.last);
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

    /// The calls of all replicas from before the loss, within the hour before `at`. Calls that the others may not know
    /// count once for each replica: the share of each of the others is too large by a part of them.
    fn before(&self, at: Duration, loss: Loss, replicas: u32) -> u32 {
        // Calls are recorded at the end of their second.
        let last = Duration::from_secs(loss.at.as_secs() + 1);
        let before = self.all.iter().filter(|calls| calls.at <= last && calls.at + HOUR > at);
        let times = |calls: &CallBucket| if calls.at + UNSEEN > loss.replied { replicas } else { 1 };
        before.fold(0_u32, |sum, calls| sum.saturating_add(calls.count.saturating_mul(times(calls))))
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
        self.forget(now);
        self.replied = Some(now);
        let known = self.sequence.unwrap_or(sequence);
        // Replies may arrive out of order.
        self.sequence = Some(known.max(sequence));
        let new = sequence.saturating_sub(known).saturating_sub(reported as u64);
        self.note(now, u32::try_from(new).unwrap_or(u32::MAX));
    }

    /// Starts with a different shared count, and the calls in it that this replica does not know: their age and number.
    pub fn begin(&mut self, now: Duration, sequence: u64, unknown: &[(Duration, u32)]) {
        self.replied = Some(now);
        self.sequence = Some(sequence);
        for (ago, count) in unknown {
            self.note(now.saturating_sub(*ago), *count);
        }
    }

    /// Records that the shared count is unavailable or was lost: from now on this replica uses its local budget.
    pub fn fall_back(&mut self, now: Duration) {
        let loss = self.loss(now);
        self.alone = Some(match self.alone {
            Some(alone) if alone.until.is_none() => alone,
            // Available for too short a time: not all replicas have reported their calls.
            Some(LocalFallback { first, until: Some(until), .. }) if now < until => {
                LocalFallback { first, last: loss, until: None }
            }
            Some(_) | None => LocalFallback { first: loss, last: loss, until: None },
        });
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
        let loss = self.loss(now);
        let alone = self.alone.unwrap_or(LocalFallback { first: loss, last: loss, until: None });
        let until = alone.until.unwrap_or_default().max(now + still);
        self.alone = Some(LocalFallback { until: Some(until), ..alone });
    }

    fn loss(&self, now: Duration) -> Loss {
        Loss { at: now, replied: self.replied.unwrap_or(now) }
    }

    /// The calls that are certainly in the shared count: those that this replica learned of so recently that they
    /// cannot have left the hour.
    pub fn sure(&self, now: Duration) -> u32 {
        let sure = self.all.iter().rev().take_while(|calls| calls.at + HOUR > now + SURE);
        sure.fold(0, |sum, calls| sum.saturating_add(calls.count))
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
        let counted = self.newest_first(now).iter().fold(0_u32, |sum, calls| sum.saturating_add(calls.count));
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
