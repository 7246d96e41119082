//! The arithmetic of scripts: the birth, run and step at a given time.
//!
//! Pure: every time here is a duration since the simulator's start, and no clock is read.

use std::{ops::Range, time::Duration};

/// How many of a family's latest members a summary contains.
const IN_SUMMARY: u64 = 100;

/// How many of a family's latest members, or of a query's latest runs, the list of an upstream contains.
const IN_LIST: u64 = 10_000;

/// The ids and births of a job that may be born again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family<'a> {
    /// The id; with `every`, its last run of `#` stands for the number of the birth.
    pub(super) pattern: &'a str,
    /// The first birth.
    pub(super) born: Duration,
    /// The time between births; one birth only when absent.
    pub(super) every: Option<Duration>,
}

impl Family<'_> {
    /// When the member with this id is or was born; `None` when the id is not of this family.
    pub(super) fn birth(&self, id: &str) -> Option<Duration> {
        let Some(every) = self.every else { return (self.pattern == id).then_some(self.born) };
        let (head, hashes, tail) = self.split()?;
        let digits = id.strip_prefix(head)?.strip_suffix(tail)?;
        let number: u32 = digits.parse().ok()?;
        // Formatted back, so that `+7` or one zero too many is not a second name of the same job.
        (digits == spell(number.into(), hashes))
            .then(|| self.born.saturating_add(every.saturating_mul(number)))
    }

    /// The ids born until `now`, oldest first, and when; of many only the latest 100.
    pub(super) fn members(&self, now: Duration) -> Vec<(String, Duration)> {
        self.latest_members(now, IN_SUMMARY)
    }

    /// The ids that a list at `now` can contain, oldest first, and when they were born; of many only the latest 10,000.
    pub(super) fn listed_members(&self, now: Duration) -> Vec<(String, Duration)> {
        self.latest_members(now, IN_LIST)
    }

    fn latest_members(&self, now: Duration, most: u64) -> Vec<(String, Duration)> {
        let numbers = latest(self.born, self.every, now, most);
        let Some((every, (head, hashes, tail))) = self.every.zip(self.split()) else {
            return numbers.map(|_| (self.pattern.to_owned(), self.born)).collect();
        };
        numbers
            .map(|number| {
                (format!("{head}{}{tail}", spell(number, hashes)), repeated(self.born, every, number))
            })
            .collect()
    }

    fn split(&self) -> Option<(&str, usize, &str)> {
        let (rest, tail) = self.pattern.rsplit_once('#')?;
        let head = rest.trim_end_matches('#');
        Some((head, rest.len() - head.len() + 1, tail))
    }
}

fn spell(number: u64, digits: usize) -> String {
    format!("{number:0digits$}")
}

/// How often `period` fits into `span` completely.
fn whole(span: Duration, period: Duration) -> u64 {
    let times = span.as_nanos() / period.as_nanos().max(1);
    u64::try_from(times).unwrap_or(u64::MAX)
}

/// When the repetition with this number begins.
fn repeated(first: Duration, every: Duration, number: u64) -> Duration {
    let times = u32::try_from(number).unwrap_or(u32::MAX);
    first.saturating_add(every.saturating_mul(times))
}

/// The numbers of the latest `most` repetitions that began until `now`; 0 alone without `every`.
fn latest(first: Duration, every: Option<Duration>, now: Duration, most: u64) -> Range<u64> {
    let Some(age) = now.checked_sub(first) else { return 0..0 };
    let end = every.map_or(0, |every| whole(age, every)).saturating_add(1);
    end.saturating_sub(most)..end
}

/// When the runs of a job began that a list at `now` can contain, oldest first; of many only the latest 10,000.
pub(super) fn listed_runs(
    born: Duration,
    rerun_every: Option<Duration>,
    runs: Option<u32>,
    now: Duration,
) -> Vec<Duration> {
    let mut numbers = latest(born, rerun_every, now, u64::MAX);
    numbers.end = runs.map_or(numbers.end, |runs| numbers.end.min(u64::from(runs.max(1))));
    numbers.start = numbers.end.saturating_sub(IN_LIST);
    numbers.map(|number| repeated(born, rerun_every.unwrap_or_default(), number)).collect()
}

/// The position in a script at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LifePosition {
    /// The run, the first being 0.
    pub(super) run: u64,
    /// When this run began.
    pub(super) run_began: Duration,
    /// The index of the current step.
    pub(super) step: usize,
    /// When that step began.
    pub(super) entered: Duration,
}

/// Finds the run and step at `now`; `None` before the birth.
///
/// `moments` are the steps' times since the beginning of a run, sorted, the first at zero.
pub(super) fn standing(
    born: Duration,
    rerun_every: Option<Duration>,
    runs: Option<u32>,
    moments: &[Duration],
    now: Duration,
) -> Option<LifePosition> {
    let age = now.checked_sub(born)?;
    let last_run = runs.map_or(u64::MAX, |runs| u64::from(runs.saturating_sub(1)));
    let run = rerun_every.map_or(0, |every| whole(age, every).min(last_run));
    let run_began = repeated(born, rerun_every.unwrap_or_default(), run);
    let within = now.saturating_sub(run_began);
    let step = moments.partition_point(|at| *at <= within).checked_sub(1)?;
    let entered = run_began.saturating_add(*moments.get(step)?);
    Some(LifePosition { run, run_began, step, entered })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn job_is_in_its_most_recently_started_step() {
        let moments = [s(0), s(5), s(20)];
        // (born, rerun_every, runs, now) → (run, step, entered)
        let table = [
            ((10, None, None, 9), None),
            ((10, None, None, 10), Some((0, 0, 10))),
            ((10, None, None, 14), Some((0, 0, 10))),
            ((10, None, None, 15), Some((0, 1, 15))),
            ((10, None, None, 9_000), Some((0, 2, 30))),
            ((0, Some(60), None, 59), Some((0, 2, 20))),
            ((0, Some(60), None, 60), Some((1, 0, 60))),
            ((0, Some(60), None, 65), Some((1, 1, 65))),
            ((0, Some(60), Some(2), 500), Some((1, 2, 80))),
            ((0, Some(60), Some(0), 500), Some((0, 2, 20))),
        ];
        for ((born, every, runs, now), expected) in table {
            let found = standing(s(born), every.map(s), runs, &moments, s(now));
            let found = found.map(|it| (it.run, it.step, it.entered.as_secs()));
            assert_eq!(found, expected, "born {born}, every {every:?}, runs {runs:?}, now {now}");
        }
    }

    const FAMILY: Family<'static> = Family { pattern: "job_###_x", born: s(5), every: Some(s(10)) };

    #[test]
    fn family_contains_only_ids_in_its_exact_format() {
        let table = [
            ("job_000_x", Some(5)),
            ("job_007_x", Some(75)),
            ("job_1000_x", Some(10_005)),
            ("job_07_x", None),
            ("job_0007_x", None),
            ("job_+07_x", None),
            ("job_007", None),
            ("job_###_x", None),
        ];
        for (id, expected) in table {
            assert_eq!(FAMILY.birth(id).map(|born| born.as_secs()), expected, "{id}");
        }
    }

    #[test]
    fn listed_runs_are_those_that_began() {
        // (born, rerun_every, runs, now) → beginnings
        let table: [(_, &[u64]); 6] = [
            ((10, None, None, 9), &[]),
            ((10, None, None, 10), &[10]),
            ((10, Some(60), None, 130), &[10, 70, 130]),
            ((10, Some(60), None, 129), &[10, 70]),
            ((10, Some(60), Some(2), 900), &[10, 70]),
            ((10, Some(60), Some(0), 900), &[10]),
        ];
        for ((born, every, runs, now), expected) in table {
            let found = listed_runs(s(born), every.map(s), runs, s(now));
            let found: Vec<u64> = found.iter().map(Duration::as_secs).collect();
            assert_eq!(found, expected, "born {born}, every {every:?}, runs {runs:?}, now {now}");
        }
    }

    #[test]
    fn list_of_a_family_goes_further_back_than_its_summary() {
        assert_eq!((FAMILY.members(s(5_005)).len(), FAMILY.listed_members(s(5_005)).len()), (100, 501));
        assert_eq!(FAMILY.listed_members(s(1_000_005)).len(), 10_000);
    }

    #[test]
    fn family_lists_its_last_members() {
        assert!(FAMILY.members(s(4)).is_empty());
        let members = FAMILY.members(s(5_005));
        assert_eq!(members.len(), 100);
        assert_eq!(members.last(), Some(&("job_500_x".to_owned(), s(5_005))));
        assert!(members.iter().all(|(id, born)| FAMILY.birth(id) == Some(*born)));
    }
}
