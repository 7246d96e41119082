//! Discovered jobs that a list of the jobs that are not terminal does not contain any more: they are read by id until they
//! are terminal. Also those that ended while no list was made: the stored jobs are compared with the first list.

use std::collections::HashSet;

use tokio::time::Instant;

use super::rounds::Rounds;
use super::source_sweep::SourceSweep;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::state::JobState;
use crate::domain::sweep::DiscoveryRules;
use crate::ports::listing::ListSupport;
use crate::ports::store::ListFilter;

/// Jobs read from the store at once.
const AT_ONCE: usize = 500;
/// Stored jobs of a source that are listed at once: a store may visit all of its jobs for each page.
const PAGE: usize = 5_000;
/// The states of a job that is not terminal.
const UNFINISHED: [JobState; 3] = [JobState::Queued, JobState::Running, JobState::Unknown];

impl Rounds {
    /// Compares the stored jobs with the first list after a time without lists: those that are not terminal may have ended
    /// in that time. If the list contains the jobs that are not terminal, those that are not in it are read by id, and
    /// otherwise all of them are verified. While the store fails, the next list is the first.
    pub(super) async fn compare_stored(&self, sweep: &mut SourceSweep, support: ListSupport) {
        if sweep.stored_compared {
            return;
        }
        let Some(stored) = self.stored_unfinished(&sweep.source).await else { return };
        sweep.discovered.extend(stored.iter().cloned());
        match support {
            ListSupport::Unfinished => {
                let gone = stored.into_iter().filter(|id| !sweep.unfinished.contains_key(id));
                gone.for_each(|id| sweep.ending.add(id));
            }
            ListSupport::Changes => {
                let key = |id| JobKey { source: sweep.source.clone(), external_id: id };
                let keys: Vec<JobKey> = stored.into_iter().map(key).collect();
                self.following.verify_unfollowed(&keys, true);
            }
        }
        sweep.stored_compared = true;
    }

    /// Counts how many of the discovered jobs are still stored, if there are as many as configured, at most once in a
    /// verification interval.
    pub(super) async fn count_discovered(&self, sweep: &mut SourceSweep, rules: DiscoveryRules) {
        let (now, every) = (Instant::now(), self.following.settings().verify_interval);
        let is_due = sweep.counted.is_none_or(|counted| counted + every <= now);
        if !is_due || sweep.discovered.len() < rules.max_jobs {
            return;
        }
        let mut stored = HashSet::new();
        let all: Vec<ExternalId> = sweep.discovered.iter().cloned().collect();
        for some in all.chunks(AT_ONCE) {
            let key = |id: &ExternalId| JobKey { source: sweep.source.clone(), external_id: id.clone() };
            let keys: Vec<JobKey> = some.iter().map(key).collect();
            let Some(held) = self.cache.read(&keys).await else { return };
            stored.extend(some.iter().zip(held).filter(|(_, held)| held.is_some()).map(|(id, _)| id.clone()));
        }
        sweep.counted = Some(now);
        sweep.count_discovered(stored, rules);
    }

    /// The stored jobs of a source that are not terminal and not followed, those observed first before the others.
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
                let is_over = held.is_none_or(|held| sweep.ending.is_settled_by(id, &held));
                if is_over || self.following.is_open(&key) {
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
