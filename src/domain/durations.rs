//! Statistics of how long jobs stay in a state, and the interval to the next poll that follows from them. Pure: storage
//! and the choice of classes are elsewhere.

use std::time::Duration;

use super::id::SourceName;
use super::job::Job;
use super::state::JobState;

/// Steps in each doubling of time: neighbouring steps differ by 9 %.
const STEPS: usize = 8;
/// The end of the first step. Shorter times are not distinguished.
const FIRST: f64 = 0.25;
/// The number of steps from a quarter of a second to three days.
const BUCKETS: usize = 20 * STEPS;
/// The minimum number of jobs for the statistics to be used.
pub const ENOUGH: u32 = 8;
/// The maximum number of jobs: when it is reached, all counts are halved, so that the statistics follow changes.
const PLENTY: u32 = 256;
/// If fewer than this share of the jobs lasted as long, the statistics do not apply.
const LIKE_NONE: f64 = 0.05;
/// No poll is made for a smaller probability than this.
const WORTHWHILE: f64 = 0.03;
/// With a greater probability than this a poll is not delayed.
const TIMELY: f64 = 0.1;

/// The class of jobs that a statistic is about: jobs of one kind in one state take similar times.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobClass {
    /// The source of the jobs.
    pub source: SourceName,
    /// The upstream's own kind of job, where it has kinds.
    pub kind: Option<String>,
    /// Whether it is about running jobs or about queued ones.
    pub running: bool,
}

impl JobClass {
    /// The class of a job; `None` for one in neither of these states.
    pub fn of(job: &Job) -> Option<Self> {
        let running = match job.state() {
            JobState::Queued => false,
            JobState::Running => true,
            JobState::Succeeded
            | JobState::Failed
            | JobState::Canceled
            | JobState::Expired
            | JobState::Unknown => return None,
        };
        let kind = job.kind().map(ToOwned::to_owned);
        Some(Self { source: job.key.source.clone(), kind, running })
    }
}

/// How long jobs of a class stayed in a state: the number of jobs for each length of time, on a logarithmic scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    counts: Box<[u16; BUCKETS]>,
    total: u32,
}

impl Default for Durations {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Durations {
    /// Records that a job stayed for this long.
    pub fn record(&mut self, lasted: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(lasted)) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= PLENTY {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// How long after `age` in a state the next poll is due, if `usual` is the interval without statistics; `None` if
    /// the statistics do not apply.
    ///
    /// The poll is not before a change has a fair probability, and earlier than usual where one is likely.
    pub fn interval(&self, age: Duration, usual: Duration) -> Option<Duration> {
        let timely = self.until(age, TIMELY)?;
        Some(self.until(age, WORTHWHILE)?.max(usual.min(timely)))
    }

    /// How many of the jobs lasted as long as this, to the precision of a step.
    pub fn lasted(&self, age: Duration) -> u32 {
        self.counts.iter().skip(bucket(age)).map(|count| u32::from(*count)).sum()
    }

    /// How long after `age` this share of the jobs that lasted as long have left the state. `None` if the statistics do
    /// not apply: there are too few jobs, or nearly none of them lasted as long.
    pub fn until(&self, age: Duration, share: f64) -> Option<Duration> {
        if self.total < ENOUGH {
            return None;
        }
        let age = age.as_secs_f64();
        let first = bucket(Duration::try_from_secs_f64(age).ok()?);
        let (from, to) = (start(first), start(first + 1));
        let rest = ((to - age) / (to - from)).clamp(0.0, 1.0);
        let weight = |index: usize| {
            let count = self.counts.get(index).map_or(0.0, |count| f64::from(*count));
            if index == first { count * rest } else { count }
        };
        let left: f64 = (first..BUCKETS).map(weight).sum();
        if left < f64::from(self.total) * LIKE_NONE {
            return None;
        }
        let mut wanted = left * share;
        for index in first..BUCKETS {
            let here = weight(index);
            let begins = start(index).max(age);
            if here >= wanted && here > 0.0 {
                let at = begins + (start(index + 1) - begins) * wanted / here;
                return Duration::try_from_secs_f64(at - age).ok();
            }
            wanted -= here;
        }
        None
    }

    /// The counts that are not zero, each with its index: the form in which they are stored.
    pub fn parts(&self) -> Vec<(u16, u16)> {
        let places = 0_u16..;
        let counts = places.zip(self.counts.iter().copied());
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Restores what [`Durations::parts`] returned; `None` if the parts are not valid.
    pub fn of_parts(parts: &[(u16, u16)]) -> Option<Self> {
        let mut durations = Self::default();
        for (index, count) in parts {
            *durations.counts.get_mut(usize::from(*index))? = *count;
        }
        durations.total = durations.counts.iter().map(|count| u32::from(*count)).sum();
        (durations.total < PLENTY).then_some(durations)
    }
}

/// The index of a length of time.
fn bucket(lasted: Duration) -> usize {
    let lasted = lasted.as_secs_f64();
    let (mut low, mut high) = (0, BUCKETS);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if start(middle) <= lasted {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The lower bound of an index, in seconds.
fn start(index: usize) -> f64 {
    if index == 0 { 0.0 } else { FIRST * (f64::from(u32::try_from(index).unwrap_or(0)) / 8.0).exp2() }
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

    #[test]
    fn interval_requires_eight_recorded_durations() {
        assert_eq!(learned([100.0; 7]).interval(s(0.0), s(1.0)), None);
        assert!(learned([100.0; 8]).interval(s(0.0), s(1.0)).is_some());
    }

    #[test]
    fn job_older_than_all_recorded_durations_has_no_interval() {
        let known = learned([100.0; 40]);
        assert!(known.interval(s(0.0), s(1.0)).is_some());
        assert_eq!(known.interval(s(120.0), s(12.0)), None);
    }

    #[test]
    fn first_interval_targets_the_expected_completion() {
        let first = learned([100.0; 40]).interval(s(0.0), s(1.0)).unwrap();
        assert!((90.0..=105.0).contains(&first.as_secs_f64()), "{first:?}");
    }

    #[test]
    fn interval_is_short_near_the_expected_completion() {
        let known = learned([100.0; 40]);
        let near = known.interval(s(98.0), s(9.8)).unwrap();
        assert!(near < s(2.0), "a poll would have been 10 s late: {near:?}");
    }

    #[test]
    fn estimate_adapts_to_changed_durations() {
        let mut known = learned([100.0; 1_000]);
        for _ in 0..1_000 {
            known.record(s(10.0));
        }
        let first = known.interval(s(0.0), s(1.0)).unwrap();
        assert!(first < s(11.0), "{first:?}");
    }

    proptest! {
        #[test]
        fn number_of_recorded_durations_is_bounded(lasted in proptest::collection::vec(0.0_f64..1e7, 0..600)) {
            prop_assert!(learned(lasted).total < PLENTY);
        }

        #[test]
        fn duration_statistics_round_trip_through_their_parts(lasted in proptest::collection::vec(0.0_f64..1e7, 0..600)) {
            let known = learned(lasted);
            prop_assert_eq!(Durations::of_parts(&known.parts()), Some(known));
        }

        #[test]
        fn larger_quantile_never_takes_less_time(lasted in proptest::collection::vec(0.1_f64..1e5, 8..200), age in 0.0_f64..1e5) {
            let known = learned(lasted);
            if let (Some(less), Some(more)) = (known.until(s(age), 0.03), known.until(s(age), 0.5)) {
                prop_assert!(less <= more, "{less:?} {more:?}");
            }
        }
    }
}
