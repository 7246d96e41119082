//! The log of changes: the last published state of each job, in the order in which they were published. A change that
//! arrives on two paths is published once, and a feed resumes behind the last change that its reader received.
//!
//! It is bounded by the number of jobs, not of changes: of each job it has the last one. It is in memory, and each
//! process has its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;

use jiff::Timestamp;

use super::answer::KnownJob;
use crate::domain::id::JobKey;

/// The maximum number of jobs in each half; their observations are shared with the store.
const JOBS_MAX: usize = 20_000;

/// The changes of one process. It has two halves: when the newer one is full, the older one is dropped.
#[derive(Debug)]
pub(super) struct ChangeLog {
    run: u64,
    newer: LogHalf,
    older: LogHalf,
    /// The last number.
    last: u64,
    /// The last number that `older` can contain.
    last_older: u64,
    /// The last number that may have been dropped.
    dropped: u64,
}

/// A half of the log: the last change of each job, by its number. Each job is in one half.
#[derive(Debug, Default)]
struct LogHalf {
    changes: BTreeMap<u64, KnownJob>,
    numbers: HashMap<JobKey, u64>,
}

impl LogHalf {
    fn get(&self, key: &JobKey) -> Option<&KnownJob> {
        self.changes.get(self.numbers.get(key)?)
    }

    fn put(&mut self, number: u64, known: KnownJob) {
        self.remove(&known.observation.job.key);
        self.numbers.insert(known.observation.job.key.clone(), number);
        self.changes.insert(number, known);
    }

    fn remove(&mut self, key: &JobKey) {
        if let Some(number) = self.numbers.remove(key) {
            self.changes.remove(&number);
        }
    }

    /// The changes behind a number, in their order.
    fn behind(&self, number: u64) -> impl Iterator<Item = (u64, &KnownJob)> {
        let behind = self.changes.range((Bound::Excluded(number), Bound::Unbounded));
        behind.map(|(number, known)| (*number, known))
    }
}

/// A position in the changes of one process. It reveals when that process published a change, and nothing of any job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor {
    /// The process.
    run: u64,
    /// The number of the last change before this position.
    number: u64,
}

impl ChangeLog {
    /// The empty log of a process. `run`: a random number.
    pub(super) fn new(run: u64, now: Timestamp) -> Self {
        let begin = micros(now);
        let (newer, older) = (LogHalf::default(), LogHalf::default());
        Self { run, newer, older, last: begin, last_older: begin, dropped: begin }
    }

    /// The last published state of a job.
    pub(super) fn last_of(&self, key: &JobKey) -> Option<&KnownJob> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    /// Adds a change, and returns its position.
    pub(super) fn put(&mut self, known: &KnownJob, now: Timestamp) -> FeedCursor {
        if self.newer.numbers.len() >= JOBS_MAX {
            self.older = std::mem::take(&mut self.newer);
            self.dropped = self.last_older;
            self.last_older = self.last;
        }
        // by the time, so that it does not reveal how many changes there are that a client may not see
        self.last = micros(now).max(self.last + 1);
        self.older.remove(&known.observation.job.key);
        self.newer.put(self.last, known.clone());
        self.position(self.last)
    }

    /// The position behind all changes until now.
    pub(super) fn end(&mut self, now: Timestamp) -> FeedCursor {
        self.last = micros(now).max(self.last);
        self.position(self.last)
    }

    /// Says that changes until now may be missing: no reader resumes behind an earlier position.
    pub(super) fn interrupt(&mut self, now: Timestamp) {
        self.last = micros(now).max(self.last + 1);
        self.dropped = self.last;
    }

    /// The last change of each job that changed behind a cursor, oldest first, at most `limit`. `None` if this log does not
    /// have all of them: it dropped some, or the cursor is of another process. The cost is in proportion to the limit.
    pub(super) fn since(&self, cursor: FeedCursor, limit: usize) -> Option<Vec<(FeedCursor, KnownJob)>> {
        let FeedCursor { run, number } = cursor;
        if run != self.run || number < self.dropped || number > self.last {
            return None;
        }
        // Every change of the older half is before those of the newer one.
        let behind = self.older.behind(number).chain(self.newer.behind(number)).take(limit);
        Some(behind.map(|(number, known)| (self.position(number), known.clone())).collect())
    }

    const fn position(&self, number: u64) -> FeedCursor {
        FeedCursor { run: self.run, number }
    }
}

impl FeedCursor {
    /// The length of its text.
    const LENGTH: usize = 32;

    /// The position among those of its process.
    pub(super) const fn number(self) -> u64 {
        self.number
    }

    /// Parses the text of a cursor; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (run, number) = text.split_at_checked(Self::LENGTH / 2)?;
        let parse = |half| u64::from_str_radix(half, 16).ok();
        Some(Self { run: parse(run)?, number: parse(number)? })
    }
}

/// The text that a client receives and sends back.
impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.run, self.number)
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::{Job, Life};
    use crate::domain::observation::Observation;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    fn change(id: usize) -> KnownJob {
        let source = SourceName::parse("s").unwrap();
        let key = JobKey { source, external_id: ExternalId::parse(&format!("j{id}")).unwrap() };
        let job = Job::new(key, Life::Running, Details::Supermetrics(Box::default()));
        KnownJob { observation: Observation::new(Arc::new(job), at(0), at(0)), stale: None }
    }

    fn ids(log: &ChangeLog, cursor: FeedCursor) -> Option<Vec<String>> {
        let changes = log.since(cursor, usize::MAX)?;
        Some(changes.iter().map(|(_, known)| known.observation.job.key.external_id.to_string()).collect())
    }

    #[test]
    fn log_has_the_last_change_of_each_job_in_order() {
        let mut log = ChangeLog::new(7, at(100));
        let begin = log.end(at(100));
        let first = log.put(&change(1), at(110));
        log.put(&change(2), at(110));
        let last = log.put(&change(1), at(105));
        assert_eq!(ids(&log, begin).unwrap(), ["j2", "j1"]);
        assert_eq!(ids(&log, first).unwrap(), ["j2", "j1"]);
        assert_eq!(ids(&log, last).unwrap(), [""; 0]);
        assert!(first.number() < last.number(), "a clock that stands still");
    }

    #[test]
    fn position_does_not_count_the_changes() {
        let positions = [1, 50].map(|changes| {
            let mut log = ChangeLog::new(7, at(0));
            for id in 0..changes {
                log.put(&change(id), at(10));
            }
            log.put(&change(0), at(1_000)).number()
        });
        assert_eq!(positions[0], positions[1]);
    }

    #[test]
    fn cursor_of_another_process_or_of_the_future_is_unknown() {
        let (mut log, mut other) = (ChangeLog::new(7, at(100)), ChangeLog::new(8, at(100)));
        let cursor = log.put(&change(1), at(110));
        assert_eq!(ids(&log, other.put(&change(1), at(110))), None);
        assert_eq!(ids(&log, FeedCursor { number: cursor.number + 1, ..cursor }), None);
        assert_eq!(ids(&log, FeedCursor { number: 99, ..cursor }), None, "before its start");
    }

    #[test]
    fn cursor_from_before_an_interruption_is_unknown() {
        let mut log = ChangeLog::new(7, at(0));
        let before = log.put(&change(1), at(1));
        log.interrupt(at(1));
        assert_eq!(ids(&log, before), None);
        let after = log.end(at(1));
        log.put(&change(2), at(2));
        assert_eq!(ids(&log, after).unwrap().len(), 1);
    }

    #[test]
    fn cursor_behind_which_changes_were_dropped_is_unknown() {
        let mut log = ChangeLog::new(7, at(0));
        let begin = log.end(at(0));
        let cursors: Vec<FeedCursor> = (0..=JOBS_MAX * 2).map(|id| log.put(&change(id), at(0))).collect();
        assert_eq!(ids(&log, begin), None);
        let known = cursors.iter().position(|cursor| log.since(*cursor, 1).is_some()).unwrap();
        assert_eq!(known, JOBS_MAX - 1, "the last dropped one");
        assert_eq!(log.since(cursors[known], usize::MAX).unwrap().len(), JOBS_MAX + 1);
    }

    proptest! {
        #[test]
        fn cursor_round_trips_through_its_text(run in any::<u64>(), number in any::<u64>()) {
            let cursor = FeedCursor { run, number };
            prop_assert_eq!(FeedCursor::parse(&cursor.to_string()), Some(cursor));
        }

        #[test]
        fn any_other_text_is_no_cursor(text in ".{0,40}") {
            prop_assume!(text.len() != FeedCursor::LENGTH);
            prop_assert_eq!(FeedCursor::parse(&text), None);
        }

        /// A reader that resumes anywhere has, together with what it received before, the last change of each job.
        #[test]
        fn resumed_reader_misses_no_change(jobs in proptest::collection::vec(0_usize..6, 1..60), from in any::<prop::sample::Index>(), at_once in 1_usize..9) {
            let mut log = ChangeLog::new(7, at(0));
            let numbered: Vec<(FeedCursor, usize)> =
                jobs.iter().map(|id| (log.put(&change(*id), at(0)), *id)).collect();
            let (cursor, _) = numbered[from.index(numbered.len())];
            let mut expected: Vec<String> = Vec::new();
            for (at, id) in &numbered {
                let is_last = numbered.iter().rev().find(|(_, other)| other == id).unwrap().0 == *at;
                if is_last && at.number() > cursor.number() {
                    expected.push(format!("j{id}"));
                }
            }
            prop_assert_eq!(ids(&log, cursor).unwrap(), expected.clone());
            let (mut some, mut position) = (Vec::new(), cursor);
            loop {
                let part = log.since(position, at_once).unwrap();
                prop_assert!(part.len() <= at_once);
                let Some((last, _)) = part.last() else { break };
                position = *last;
                some.extend(part.iter().map(|(_, known)| known.observation.job.key.external_id.to_string()));
            }
            prop_assert_eq!(some, expected, "in parts");
        }
    }
}
