//! The jobs that a list does not contain any more: when each is read until it is terminal. No waiting, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::id::ExternalId;
use crate::domain::observation::Observation;

/// Jobs that are read until they are terminal.
#[derive(Debug, Default)]
pub(super) struct EndingJobs {
    jobs: HashMap<ExternalId, EndingJob>,
    last: u64,
}

/// A job that is read until it is terminal.
#[derive(Clone, Copy, Debug)]
struct EndingJob {
    /// Its position: the job that ended first is read first.
    number: u64,
    /// When it is checked next.
    next: Instant,
    /// How often it was read.
    reads: u32,
    /// When an earlier run of it was observed to have ended, if a list contained a later run.
    earlier_run: Option<Timestamp>,
    /// A list does not contain it any more.
    is_gone: bool,
}

impl EndingJob {
    /// Whether an observation is what the reads are for: the end of a job that lists do not contain any more, or anything
    /// newer than the end of an earlier run.
    fn is_settled_by(&self, held: &Observation) -> bool {
        let is_new = self.earlier_run.is_none_or(|ended| held.observed_at > ended);
        is_new && (held.job.is_terminal() || !self.is_gone)
    }
}

impl EndingJobs {
    /// Adds a job that may have ended.
    pub(super) fn add(&mut self, id: ExternalId) {
        self.entry(id, None).is_gone = true;
    }

    /// Adds a job that a list contains, although it was observed to have ended at this time: in an earlier run, if the list
    /// is up to date.
    pub(super) fn add_rerun(&mut self, id: ExternalId, ended: Timestamp) {
        self.entry(id, Some(ended)).is_gone = false;
    }

    fn entry(&mut self, id: ExternalId, earlier_run: Option<Timestamp>) -> &mut EndingJob {
        self.last += 1;
        let (number, next) = (self.last, Instant::now());
        let new = EndingJob { number, next, reads: 0, earlier_run, is_gone: true };
        self.jobs.entry(id).or_insert(new)
    }

    /// Removes those that a list contains again.
    pub(super) fn remove_listed(&mut self, is_listed: impl Fn(&ExternalId) -> bool) {
        self.jobs.retain(|id, ending| ending.earlier_run.is_some() || !is_listed(id));
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }

    pub(super) fn is_settled_by(&self, id: &ExternalId, held: &Observation) -> bool {
        self.jobs.get(id).is_none_or(|ending| ending.is_settled_by(held))
    }

    pub(super) fn remove(&mut self, id: &ExternalId) {
        self.jobs.remove(id);
    }

    /// The jobs to check now, those that ended first before the others.
    pub(super) fn due(&self, now: Instant) -> Vec<ExternalId> {
        let due = self.jobs.iter().filter(|(_, ending)| ending.next <= now);
        let mut due: Vec<_> = due.map(|(id, ending)| (ending.number, id)).collect();
        due.sort_unstable_by_key(|(number, _)| *number);
        due.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Records that a job is read now, or that its read still waits for the budget. Each further read waits twice as
    /// long, within these bounds: the job may be of a data source that is not listed, and not have ended.
    pub(super) fn put_off(
        &mut self,
        id: &ExternalId,
        reads: bool,
        (shortest, longest): (Duration, Duration),
    ) {
        let Some(ending) = self.jobs.get_mut(id) else { return };
        let doubled = 1_u32.checked_shl(ending.reads).unwrap_or(u32::MAX);
        ending.next = Instant::now() + shortest.saturating_mul(doubled).min(longest.max(shortest));
        ending.reads = ending.reads.saturating_add(u32::from(reads));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ExternalId {
        ExternalId::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn ended_jobs_are_read_in_their_order_and_less_often_each_time() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        let mut ending = EndingJobs::default();
        for one in ["b", "c", "a", "b"] {
            ending.add(id(one));
        }
        assert_eq!(ending.due(Instant::now()), ["b", "c", "a"].map(id));
        ending.remove(&id("c"));
        let mut waits = Vec::new();
        for _ in 0..9 {
            ending.put_off(&id("b"), true, (second, minute));
            assert_eq!(ending.due(Instant::now()), [id("a")]);
            let since = Instant::now();
            while ending.due(Instant::now()).len() < 2 {
                tokio::time::advance(second).await;
            }
            waits.push(since.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
