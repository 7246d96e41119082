//! When to poll a job that is not terminal: fast at first, then after a share of its age, within bounds. Pure.

use std::time::Duration;

use super::durations::Durations;

/// The bounds of the poll interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollIntervals {
    /// The shortest time between two polls of one job.
    pub fastest: Duration,
    /// The longest, unless a watcher requires a fresher state.
    pub slowest: Duration,
}

/// A job is polled again after its age divided by this: a change after one minute is detected at most six seconds late.
const SHARE: u32 = 10;
/// The maximum share by which the phase of a job shortens an interval.
const PHASE: f64 = 0.2;

impl PollIntervals {
    /// The time from one poll of a job to the next.
    ///
    /// `age` is how long the job has been in its state, as far as known. `learned` is how long other jobs of its kind
    /// were in it: it delays polls that would find nothing and moves likely changes to an earlier poll, within the same
    /// bounds. `tightest` is the lowest staleness that any watcher allows; it wins over the age but not over `fastest`.
    /// `failures` is the number of polls that failed in a row, each doubling the time. `phase`, from 0 to 1, is the
    /// job's own, and spreads jobs that began together.
    pub fn interval(
        &self,
        age: Duration,
        learned: Option<&Durations>,
        tightest: Option<Duration>,
        failures: u32,
        phase: f64,
    ) -> Duration {
        let bounded = |wanted: Duration| wanted.clamp(self.fastest, self.slowest.max(self.fastest));
        let usual = bounded(age / SHARE);
        let by_age = learned.and_then(|learned| learned.interval(age, usual)).map_or(usual, bounded);
        let wanted = tightest.map_or(by_age, |tightest| by_age.min(tightest.max(self.fastest)));
        let backed_off = wanted.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        backed_off.min(self.slowest.max(wanted)).mul_f64(1.0 - PHASE * phase.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    const PACE: PollIntervals = PollIntervals { fastest: s(1), slowest: s(30) };

    #[test]
    fn poll_interval_grows_with_age_within_bounds() {
        let cases = [
            (s(0), None, 0, s(1)),
            (s(5), None, 0, s(1)),
            (s(60), None, 0, s(6)),
            (s(3_600), None, 0, s(30)),
            (s(3_600), Some(s(5)), 0, s(5)),
            (s(3_600), Some(s(0)), 0, s(1)),
            (s(20), Some(s(600)), 0, s(2)),
            (s(20), None, 2, s(8)),
            (s(20), None, 200, s(30)),
        ];
        for (age, tightest, failures, expected) in cases {
            assert_eq!(
                PACE.interval(age, None, tightest, failures, 0.0),
                expected,
                "{age:?} {tightest:?} {failures}"
            );
        }
    }

    proptest! {
        #[test]
        fn poll_interval_stays_within_its_bounds(age in 0_u64..10_000_000, lasted in 0_u64..1_000_000, tightest in proptest::option::of(0_u64..10_000), failures in 0_u32..100, phase in 0.0_f64..1.0) {
            let mut learned = Durations::default();
            (0..20).for_each(|_| learned.record(s(lasted)));
            for learned in [None, Some(&learned)] {
                let interval = PACE.interval(s(age), learned, tightest.map(s), failures, phase);
                prop_assert!(interval >= s(1).mul_f64(0.8) && interval <= s(30), "{interval:?}");
            }
        }
    }
}
