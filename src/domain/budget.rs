//! How the hourly budget of calls is shared: a part is reserved for callers, and background calls are spread over the
//! rest of the hour. Pure: time is an argument.
//!
//! The hour is a sliding window: a call counts from its start until an hour later. So the calls left in the hour are a
//! curve: those that fit now, and those that fit again as earlier ones leave the window. [`HourShares::spacing`] is the
//! shortest even spacing that this curve allows to its end, so no call with that spacing ever waits for the window.
//!
//! Where processes share the budget, the curve contains the calls of all of them, and each process uses the part of the
//! spacing's rate that corresponds to its part of the demand of all polls.

use std::collections::VecDeque;
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);
/// Calls are counted in slices of this length, in seconds. A call counts for up to a slice more than an hour, never
/// less.
const SLICE: u64 = 10;
/// While the even spacing is at most this fraction longer than that of an unused budget, background calls are not
/// spaced.
const FREE: f64 = 1.0 / 6.0;
/// From this fraction on, background calls have the full even spacing; in between, a growing part of it.
const FULL: f64 = 1.0 / 3.0;
/// While background calls are spaced, one in this many may be a call other than a poll.
const RECHECK_EVERY: u32 = 10;

/// What a call is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOrigin {
    /// A caller waits for it.
    Caller,
    /// A poll, or a re-check.
    Background,
}

/// The calls of the last hour by origin, and what is left for each origin.
#[derive(Clone, Debug)]
pub struct HourShares {
    per_hour: u32,
    kept: u32,
    /// The minimum number of calls per hour that polls need.
    demand: u32,
    shared: Shared,
    slices: VecDeque<HourSlice>,
    rechecked: Option<Duration>,
}

/// The known use of a budget by all processes that share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedUse {
    /// The calls of all processes in the last hour, as age and count, the oldest first.
    pub calls: Vec<(Duration, u32)>,
    /// The minimum number of calls per hour that the polls of the other processes need.
    pub others_demand: u32,
    /// Calls of the last hour that the other processes made for callers.
    pub others_callers: u32,
}

/// The same, by the time at which the calls leave the window.
#[derive(Clone, Debug, Default)]
struct Shared {
    calls: Vec<(Duration, u32)>,
    demand: u32,
    callers: u32,
}

#[derive(Clone, Copy, Debug)]
struct HourSlice {
    number: u64,
    used: CountedCalls,
}

/// Calls within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CountedCalls {
    callers: u32,
    background: u32,
}

impl HourShares {
    /// Shares `per_hour` calls, of which `caller_share` percent are reserved for callers.
    pub fn new(per_hour: u32, caller_share: u32) -> Self {
        let (kept, shared, slices) = (0, Shared::default(), VecDeque::new());
        let mut shares = Self { per_hour, kept, demand: 0, shared, slices, rechecked: None };
        shares.allow(per_hour, caller_share);
        shares
    }

    /// Changes the number of calls. Calls counted so far stay counted.
    pub fn allow(&mut self, per_hour: u32, caller_share: u32) {
        self.per_hour = per_hour.max(1);
        let kept = u64::from(self.per_hour) * u64::from(caller_share.min(100)) / 100;
        self.kept = u32::try_from(kept).unwrap_or(u32::MAX).min(self.per_hour - 1);
    }

    /// Sets the minimum number of calls per hour that polls need: callers leave that many free, up to half of what is
    /// not reserved for them.
    pub const fn set_demand(&mut self, calls_per_hour: u32) {
        self.demand = calls_per_hour;
    }

    /// The minimum number of calls per hour that the polls of this process need.
    pub const fn demand(&self) -> u32 {
        self.demand
    }

    /// How many calls this process made for callers within the hour before `now`.
    pub fn callers(&self, now: Duration) -> u32 {
        self.own(now).callers
    }

    /// Sets the use by all processes that share the budget, as known at `now`.
    pub fn set_shared(&mut self, now: Duration, used: SharedUse) {
        let SharedUse { calls, others_demand: demand, others_callers: callers } = used;
        let leaves = |(ago, count): (Duration, u32)| ((now + HOUR).saturating_sub(ago), count);
        self.shared = Shared { calls: calls.into_iter().map(leaves).collect(), demand, callers };
    }

    /// Counts one call at `now`.
    pub fn take(&mut self, now: Duration, origin: CallOrigin) {
        while self.slices.front().is_some_and(|slice| slice.counts_until() <= now) {
            self.slices.pop_front();
        }
        let number = now.as_secs() / SLICE;
        if self.slices.back().is_none_or(|last| last.number < number) {
            self.slices.push_back(HourSlice { number, used: CountedCalls::default() });
        }
        if let Some(slice) = self.slices.back_mut() {
            match origin {
                CallOrigin::Caller => slice.used.callers += 1,
                CallOrigin::Background => slice.used.background += 1,
            }
        }
    }

    /// Reverts a call that was counted at `at` and was not made.
    pub fn untake(&mut self, at: Duration, origin: CallOrigin) {
        let number = at.as_secs() / SLICE;
        if let Some(slice) = self.slices.iter_mut().rfind(|slice| slice.number == number) {
            let count = match origin {
                CallOrigin::Caller => &mut slice.used.callers,
                CallOrigin::Background => &mut slice.used.background,
            };
            *count = count.saturating_sub(1);
        }
    }

    /// How long to wait from `now` until one call of this origin fits without using the share of the other.
    pub fn wait(&self, now: Duration, origin: CallOrigin) -> Duration {
        let fits = |used: CountedCalls| match origin {
            CallOrigin::Caller => self.caller_fits(used),
            CallOrigin::Background => self.for_background(used) > 0,
        };
        if fits(self.used(now)) {
            return Duration::ZERO;
        }
        let fitting = self.later(now).find(|(_, used)| fits(*used));
        fitting.map_or(HOUR, |(at, _)| at.saturating_sub(now))
    }

    /// The minimum time between the starts of background calls of this process from `now` on; zero while the budget is
    /// sufficient.
    ///
    /// For all processes together it is at most 4/3 of an hour divided by the background's share, while callers keep to
    /// theirs: nothing is spaced before the even spacing is 7/6 of that, and calls with an even spacing do not increase
    /// it. While callers use more than their share, a growing part of the even spacing applies from the first call. Each
    /// process makes the part of these calls that corresponds to its part of the demand of all polls.
    pub fn spacing(&self, now: Duration) -> Duration {
        let even = self.even_spacing(now);
        let untouched = HOUR / self.background_share();
        let strain = even.as_secs_f64() / untouched.as_secs_f64() - 1.0;
        // Calls of callers beyond their share can use up what comes back to the window: polls that were made in a row until
        // then would be counted against their guaranteed half, and a gap would follow.
        let beyond = f64::from(self.used(now).callers.saturating_sub(self.kept));
        let beyond = beyond / (f64::from(self.background_share()) / 2.0);
        let together = even.mul_f64(beyond.max((strain - FREE) / (FULL - FREE)).clamp(0.0, 1.0));
        let own = f64::from(self.demand.max(1));
        together.mul_f64((own + f64::from(self.shared.demand)) / own).min(HOUR)
    }

    /// Takes one background call that is not a poll, if it is allowed now: any while the budget is sufficient,
    /// otherwise a few.
    pub fn take_recheck(&mut self, now: Duration) -> bool {
        let spacing = self.spacing(now);
        let due = self.rechecked.is_none_or(|at| at + spacing * RECHECK_EVERY <= now);
        let fits = self.wait(now, CallOrigin::Background).is_zero();
        if due && fits {
            self.rechecked = Some(now);
        }
        due && fits
    }

    /// The shortest even spacing with which every call fits in the window.
    fn even_spacing(&self, now: Duration) -> Duration {
        let mut left = self.for_background(self.used(now));
        let mut spacing = Duration::ZERO;
        let mut reached = now;
        let returns = self.later(now).map(|(at, used)| (at, self.for_background(used)));
        for (until, then) in returns {
            if left > 0 {
                spacing = spacing.max(until.saturating_sub(now) / left);
            }
            (left, reached) = (then, until);
        }
        // All calls counted now have left the window by the end of the next hour.
        let end = reached.saturating_sub(now).max(HOUR);
        spacing.max(end / left.max(1))
    }

    /// The total number of background calls per hour.
    fn background_share(&self) -> u32 {
        (self.per_hour - self.kept).max(1)
    }

    /// The number of background calls that fit beside the counted calls: those reserved for callers stay free.
    fn for_background(&self, used: CountedCalls) -> u32 {
        let own = self.background_share().saturating_sub(used.background);
        let kept = self.kept.saturating_sub(used.callers);
        own.min(self.free(used).saturating_sub(kept))
    }

    /// Whether a caller's call fits: always within the callers' share, and beyond it while polls keep what they need.
    fn caller_fits(&self, used: CountedCalls) -> bool {
        let demand = self.demand.saturating_add(self.shared.demand);
        let needed = demand.min(self.background_share() / 2).saturating_sub(used.background);
        used.callers < self.kept || needed == 0 || self.free(used) > needed
    }

    fn free(&self, used: CountedCalls) -> u32 {
        self.per_hour.saturating_sub(used.all())
    }

    /// The calls of all processes that count at `now`.
    fn used(&self, now: Duration) -> CountedCalls {
        let (own, all) = (self.own(now), self.all(now));
        self.with_others(own, all, all.saturating_sub(own.all()))
    }

    /// The calls of this process plus those of the others. Of the others' calls that count now, fewer count later, with
    /// the same part of them made for callers.
    fn with_others(&self, own: CountedCalls, all: u32, others_now: u32) -> CountedCalls {
        let others = all.saturating_sub(own.all());
        let callers = u64::from(self.shared.callers.min(others_now)) * u64::from(others);
        let callers = u32::try_from(callers / u64::from(others_now.max(1))).unwrap_or(others).min(others);
        CountedCalls {
            callers: own.callers.saturating_add(callers),
            background: own.background.saturating_add(others - callers),
        }
    }

    /// The number of calls of all processes that count at `now`, as far as known.
    fn all(&self, now: Duration) -> u32 {
        let counting = self.shared.calls.iter().filter(|(until, _)| *until > now);
        counting.fold(0, |all, (_, count)| all.saturating_add(*count))
    }

    /// The calls of this process that count at `now`.
    fn own(&self, now: Duration) -> CountedCalls {
        self.counting(now).fold(CountedCalls::default(), |all, slice| CountedCalls {
            callers: all.callers.saturating_add(slice.used.callers),
            background: all.background.saturating_add(slice.used.background),
        })
    }

    /// The times after `now` at which calls leave the window, and the calls that still count from then on.
    fn later(&self, now: Duration) -> impl Iterator<Item = (Duration, CountedCalls)> {
        let (mut own, mut all) = (self.own(now), self.all(now));
        let others_now = all.saturating_sub(own.all());
        let mut slices = self.counting(now).peekable();
        let mut shared = self.shared.calls.iter().filter(move |(until, _)| *until > now).peekable();
        std::iter::from_fn(move || {
            let next =
                [slices.peek().map(|slice| slice.counts_until()), shared.peek().map(|(until, _)| *until)];
            let at = next.into_iter().flatten().min()?;
            while let Some(slice) = slices.next_if(|slice| slice.counts_until() <= at) {
                own.callers = own.callers.saturating_sub(slice.used.callers);
                own.background = own.background.saturating_sub(slice.used.background);
            }
            while let Some((_, count)) = shared.next_if(|(until, _)| *until <= at) {
                all = all.saturating_sub(*count);
            }
            Some((at, self.with_others(own, all, others_now)))
        })
    }

    fn counting(&self, now: Duration) -> impl Iterator<Item = &HourSlice> {
        self.slices.iter().filter(move |slice| slice.counts_until() > now)
    }
}

impl CountedCalls {
    const fn all(self) -> u32 {
        self.callers.saturating_add(self.background)
    }
}

impl HourSlice {
    const fn counts_until(&self) -> Duration {
        Duration::from_secs((self.number + 1) * SLICE).saturating_add(HOUR)
    }
}

#[cfg(test)]
mod tests;
