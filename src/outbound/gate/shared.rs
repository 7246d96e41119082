//! The part of a budget that replicas share: asked after the gate's own, and replaced by a share of it while nobody can
//! be asked. Not here: who keeps the shared count.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

use super::Limits;
use crate::ports::BoxFuture;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// What the shared budget says to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Go. The slot is to be given back; `left` calls fit into this hour.
    Go {
        /// The slot.
        slot: String,
        /// What is left of the hour.
        left: u32,
    },
    /// Not before this much time has passed.
    Wait(Duration),
    /// The source asked one of the replicas for a pause, which lasts this long.
    Paused(Duration),
    /// Nobody can be asked. So many replicas there were.
    Away(u32),
}

/// A budget that replicas share.
pub trait SharedBudget: Debug + Send + Sync {
    /// Takes one call out of the budget, if it fits now. Never waits for it to fit.
    fn take<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Taken>;

    /// Gives back the slot of a call that is over. Does not wait.
    fn give_back(&self, slot: String);

    /// Has every replica pause. Does not wait.
    fn pause(&self, pause: Duration);
}

/// This process's share, while nobody can be asked: an even part of the budget, and of what was left of the hour. Counts all
/// calls of this process, so that the share is not there twice. Times are durations since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The calls of the last hour: 16 bytes each.
    started: VecDeque<Duration>,
    /// What was left of the hour when somebody last said so, when that was, and the calls since.
    told: Option<(u32, Duration, u32)>,
}

impl Share {
    /// How long until a call fits, for one of so many replicas.
    pub(super) fn wait(&self, now: Duration, limits: &Limits, replicas: u32) -> Duration {
        let replicas = replicas.max(1);
        let second = self.wait_for(now, limits.per_second, SECOND, replicas);
        let hour = self.wait_for(now, limits.per_hour, HOUR, replicas);
        let left = self.told.map_or(Duration::ZERO, |(left, at, since)| {
            if since < left / replicas { Duration::ZERO } else { (at + HOUR).saturating_sub(now) }
        });
        second.max(hour).max(left)
    }

    /// Counts a call.
    pub(super) fn take(&mut self, now: Duration) {
        while self.started.front().is_some_and(|first| *first + HOUR <= now) {
            self.started.pop_front();
        }
        self.started.push_back(now);
        if let Some((_, _, since)) = &mut self.told {
            *since = since.saturating_add(1);
        }
    }

    /// Takes in what is left of the hour for all together.
    pub(super) fn told(&mut self, now: Duration, left: u32) {
        self.told = Some((left, now, 0));
    }

    /// A budget too small to be divided becomes one call in a longer time.
    fn wait_for(&self, now: Duration, calls: u32, per: Duration, replicas: u32) -> Duration {
        let calls = calls.max(1);
        let (share, per) = match calls / replicas {
            // Rounded up: many of them together must not make one more.
            0 => (1, per * replicas / calls + Duration::from_nanos(1)),
            share => (share, per),
        };
        let blocking = self.started.len().checked_sub(share as usize).and_then(|over| self.started.get(over));
        blocking.map_or(Duration::ZERO, |at| (*at + per).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_shares_of_all_replicas_together_stay_within_the_budget(
            per_second in 1_u32..20, replicas in 1_u32..6, gaps in proptest::collection::vec(0_u64..300, 1..200)
        ) {
            let limits = Limits { per_second, per_hour: 1_000_000, concurrency: 1, max_wait: SECOND };
            let (mut share, mut now, mut started) = (Share::default(), Duration::ZERO, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                now += share.wait(now, &limits, replicas);
                share.take(now);
                started.push(now);
            }
            // Every replica does what this one did: in a long enough window, all together keep the rate.
            let window = SECOND * replicas;
            for (index, first) in started.iter().enumerate() {
                let within = started[index..].iter().take_while(|at| **at < *first + window).count();
                let all = u32::try_from(within).unwrap() * replicas;
                prop_assert!(all <= per_second * replicas, "{all} calls in {window:?} at {per_second}");
            }
        }
    }

    #[test]
    fn what_was_left_of_the_hour_is_divided_too() {
        let limits = Limits { per_second: 100, per_hour: 300, concurrency: 1, max_wait: SECOND };
        let mut share = Share::default();
        share.told(Duration::ZERO, 9);
        let now = SECOND;
        for _ in 0..3 {
            assert_eq!(share.wait(now, &limits, 3), Duration::ZERO);
            share.take(now);
        }
        assert_eq!(share.wait(now, &limits, 3), Duration::from_secs(3_599), "a third of nine");
        assert_eq!(share.wait(HOUR, &limits, 3), Duration::ZERO, "after the hour it is a third of all");
    }
}
