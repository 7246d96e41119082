//! Discovered jobs that a list of the jobs that are not terminal does not contain any more: they are read by id until they
//! are terminal. Also those that ended while no list was made: the stored jobs are compared with the first list.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::rounds::Rounds;
use super::source_sweep::SourceSweep;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::state::JobState;
use crate::ports::store::ListFilter;

/// Jobs read from the store at once.
const AT_ONCE: usize = 500;
/// Stored jobs of a source that are listed at once: a store may visit all of its jobs for each page.
const PAGE: usize = 5_000;
/// The states of a job that is not terminal.
const UNFINISHED: [JobState; 3] = [JobState::Queued, JobState::Running, JobState::Unknown];

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
}

impl EndingJobs {
    /// Adds a job that may have ended.
    pub(super) fn add(&mut self, id: ExternalId) {
        self.last += 1;
        let (number, next) = (self.last, Instant::now());
        self.jobs.entry(id).or_insert(EndingJob { number, next, reads: 0 });
    }

    /// Removes those that a list contains again.
    pub(super) fn retain(&mut self, keeps: impl Fn(&ExternalId) -> bool) {
        self.jobs.retain(|id, _| keeps(id));
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }

    fn remove(&mut self, id: &ExternalId) {
        self.jobs.remove(id);
    }

    /// The jobs to check now, those that ended first before the others.
    fn due(&self, now: Instant) -> Vec<ExternalId> {
        let due = self.jobs.iter().filter(|(_, ending)| ending.next <= now);
        let mut due: Vec<_> = due.map(|(id, ending)| (ending.number, id)).collect();
        due.sort_unstable_by_key(|(number, _)| *number);
        due.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Records that a job is read now, or that its read still waits for the budget. Each further read waits twice as
    /// long, within these bounds: the job may be of a data source that is not listed, and not have ended.
    fn put_off(&mut self, id: &ExternalId, reads: bool, (shortest, longest): (Duration, Duration)) {
        let Some(ending) = self.jobs.get_mut(id) else { return };
        let doubled = 1_u32.checked_shl(ending.reads).unwrap_or(u32::MAX);
        ending.next = Instant::now() + shortest.saturating_mul(doubled).min(longest.max(shortest));
        ending.reads = ending.reads.saturating_add(u32::from(reads));
    }
}

impl Rounds {
    /// Compares the stored jobs with the first list after a time without lists: those that are not terminal and not in the
    /// list may have ended in that time. While the store fails, the next list is the first.
    pub(super) async fn compare_stored(&self, sweep: &mut SourceSweep) {
        if sweep.stored_compared {
            return;
        }
        let Some(stored) = self.stored_unfinished(&sweep.source).await else { return };
        for id in stored {
            if !sweep.unfinished.contains_key(&id) {
                sweep.ending.add(id);
            }
        }
        sweep.stored_compared = true;
    }

    /// The stored jobs of a source that are not terminal and that nobody follows, those observed first before the others.
    /// `None` if the store fails.
    async fn stored_unfinished(&self, source: &SourceName) -> Option<Vec<ExternalId>> {
        let (sources, states) = (vec![source.clone()], UNFINISHED.to_vec());
        let filter = ListFilter { sources, states, observed_since: None };
        let mut stored = Vec::new();
        let mut after: Option<JobKey> = None;
        loop {
            let page = self.cache.list(&filter, after.as_ref(), PAGE).await?;
            after = page.last().map(|last| last.job.key.clone());
            let is_last = page.len() < PAGE;
            let beside = page.into_iter().filter(|held| !self.following.is_open(&held.job.key));
            stored.extend(beside.map(|held| (held.observed_at, held.job.key.external_id.clone())));
            if is_last {
                stored.sort_unstable();
                return Some(stored.into_iter().map(|(_, id)| id).collect());
            }
        }
    }

    /// Schedules reads of the ended jobs, within the budget of background calls. Those that are terminal by now, or that
    /// somebody follows, are forgotten.
    pub(super) async fn read_ending(&self, sweep: &mut SourceSweep) {
        let due = sweep.ending.due(Instant::now());
        let settings = self.following.settings();
        let pauses = (settings.pace.slowest, settings.verify_interval);
        for some in due.chunks(AT_ONCE) {
            let key = |id: &ExternalId| JobKey { source: sweep.source.clone(), external_id: id.clone() };
            let keys: Vec<JobKey> = some.iter().map(key).collect();
            let Some(held) = self.cache.read(&keys).await else { return };
            let mut reads = Vec::new();
            for (key, held) in keys.into_iter().zip(held) {
                let id = &key.external_id;
                if held.is_none_or(|held| held.job.is_terminal()) || self.following.is_open(&key) {
                    sweep.ending.remove(id);
                    continue;
                }
                let waits = self.following.is_read(&key);
                sweep.ending.put_off(id, !waits, pauses);
                if !waits {
                    reads.push(key);
                }
            }
            self.following.read_unfollowed(&reads);
        }
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
        ["b", "c", "a", "b"].into_iter().for_each(|one| ending.add(id(one)));
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
