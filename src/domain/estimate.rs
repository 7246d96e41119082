//! When a job is expected to finish: from how long other jobs of its kind took, given how long it has taken already. Pure.

use std::time::Duration;

use super::durations::{Durations, ENOUGH};

/// The shares of jobs that have finished by the three times.
const EARLIEST: f64 = 0.1;
const EXPECTED: f64 = 0.5;
const LATEST: f64 = 0.9;
/// The number of equally likely times by which a distribution is represented where two of them are added.
const POINTS: u32 = 16;

/// The time that a job has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLeft {
    /// The median.
    pub expected: Duration,
    /// One job in ten finishes before.
    pub earliest: Duration,
    /// One job in ten finishes later.
    pub latest: Duration,
    /// The number of completed jobs that took at least as long as this one has taken.
    pub samples: u32,
}

impl TimeLeft {
    /// The time left of a job that has been running for `age`. `None` unless at least eight jobs took as long.
    pub fn of_running(running: &Durations, age: Duration) -> Option<Self> {
        let samples = enough(running, age)?;
        Some(Self {
            expected: running.until(age, EXPECTED)?,
            earliest: running.until(age, EARLIEST)?,
            latest: running.until(age, LATEST)?,
            samples,
        })
    }

    /// The time left of a job that has been queued for `age` and then runs. How long it waits and how long it runs are
    /// treated as independent. `None` unless at least eight jobs waited as long, and eight have run.
    pub fn of_queued(queued: &Durations, running: &Durations, age: Duration) -> Option<Self> {
        let samples = enough(queued, age)?.min(enough(running, Duration::ZERO)?);
        let (waits, runs) = (points(queued, age)?, points(running, Duration::ZERO)?);
        let mut sums: Vec<Duration> =
            waits.iter().flat_map(|wait| runs.iter().map(move |run| wait.saturating_add(*run))).collect();
        sums.sort_unstable();
        let at = |tenths: usize| sums.get(sums.len() * tenths / 10).copied();
        Some(Self { expected: at(5)?, earliest: at(1)?, latest: at(9)?, samples })
    }
}

/// The number of jobs that lasted as long, if they are enough.
fn enough(durations: &Durations, age: Duration) -> Option<u32> {
    Some(durations.lasted(age)).filter(|samples| *samples >= ENOUGH)
}

/// Equally likely times until the jobs that lasted as long have left their state.
fn points(durations: &Durations, age: Duration) -> Option<Vec<Duration>> {
    let share = |point: u32| (f64::from(point) + 0.5) / f64::from(POINTS);
    (0..POINTS).map(|point| durations.until(age, share(point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn learned(lasted: impl IntoIterator<Item = f64>) -> Durations {
        let mut durations = Durations::default();
        lasted.into_iter().for_each(|lasted| durations.record(s(lasted)));
        durations
    }

    /// Whether a time is this one, to the precision of the statistics.
    fn is_about(found: Duration, seconds: f64) -> bool {
        (seconds * 0.85..=seconds * 1.15).contains(&found.as_secs_f64())
    }

    #[test]
    fn time_left_is_the_rest_of_the_quantiles() {
        let known = learned((1..=100).map(f64::from));
        let left = TimeLeft::of_running(&known, Duration::ZERO).unwrap();
        assert_eq!(left.samples, 100);
        assert!(
            is_about(left.earliest, 10.0) && is_about(left.expected, 50.0) && is_about(left.latest, 90.0)
        );
    }

    #[test]
    fn time_left_is_conditional_on_the_time_taken() {
        let known = learned((0..100).map(|number| if number % 2 == 0 { 5.0 } else { 400.0 }));
        let new = TimeLeft::of_running(&known, Duration::ZERO).unwrap();
        assert!(is_about(new.earliest, 5.0) && is_about(new.latest, 400.0), "{new:?}");
        let older = TimeLeft::of_running(&known, s(100.0)).unwrap();
        assert!(is_about(older.earliest, 300.0) && is_about(older.expected, 300.0), "{older:?}");
        assert_eq!((new.samples, older.samples), (100, 50));
    }

    #[test]
    fn fewer_than_eight_jobs_give_no_estimate() {
        assert_eq!(TimeLeft::of_running(&learned([100.0; 7]), Duration::ZERO), None);
        assert!(TimeLeft::of_running(&learned([100.0; 8]), Duration::ZERO).is_some());
        let long = learned([[5.0; 50].as_slice(), &[400.0; 7]].concat());
        assert_eq!(TimeLeft::of_running(&long, s(100.0)), None, "seven took as long");
    }

    #[test]
    fn job_that_exceeds_all_samples_has_no_estimate() {
        let known = learned([100.0; 40]);
        assert!(TimeLeft::of_running(&known, s(95.0)).is_some());
        assert_eq!(TimeLeft::of_running(&known, s(130.0)), None);
    }

    #[test]
    fn queued_job_waits_and_then_runs() {
        let (queued, running) = (learned([60.0; 20]), learned([100.0; 30]));
        let left = TimeLeft::of_queued(&queued, &running, s(20.0)).unwrap();
        assert!(is_about(left.expected, 140.0), "{left:?}");
        assert_eq!(left.samples, 20);
        assert_eq!(TimeLeft::of_queued(&queued, &learned([100.0; 7]), s(20.0)), None);
    }

    proptest! {
        #[test]
        fn estimates_are_in_order(
            lasted in proptest::collection::vec(0.1_f64..1e5, 8..300), waited in proptest::collection::vec(0.1_f64..1e5, 8..300),
            age in 0.0_f64..1e5
        ) {
            let (running, queued) = (learned(lasted), learned(waited));
            let left = [TimeLeft::of_running(&running, s(age)), TimeLeft::of_queued(&queued, &running, s(age))];
            for left in left.into_iter().flatten() {
                prop_assert!(left.earliest <= left.expected && left.expected <= left.latest, "{left:?}");
                prop_assert!(left.samples >= ENOUGH);
            }
        }
    }
}
