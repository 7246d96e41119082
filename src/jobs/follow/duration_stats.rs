//! Statistics of how long jobs take, by kind of job, collected from followed jobs. The number of kinds is bounded;
//! changes are written to the ledger from time to time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::published::{ObservedChange, PublishedState};
use super::{FollowRegistry, FollowedJob};
use crate::domain::durations::{Durations, JobClass};
use crate::domain::job::Job;
use crate::domain::state::JobState;

/// The maximum number of kinds with statistics, about 500 bytes each.
const CLASSES_MAX: usize = 1_000;
/// Kinds with longer names are not recorded.
const KIND_MAX: usize = 200;

/// The statistics of each kind of job.
#[derive(Debug, Default)]
pub(super) struct DurationStats {
    known: HashMap<JobClass, Arc<Durations>>,
    /// The kinds that changed since the ledger was last updated.
    updates: BTreeSet<JobClass>,
}

impl DurationStats {
    /// The statistics of jobs like this one, in its present state.
    pub(super) fn of(&self, job: &Job) -> Option<Arc<Durations>> {
        self.known.get(&JobClass::of(job)?).cloned()
    }

    /// Records how long a job stayed in the state that it had in `before`. An expired or unknown job is not recorded.
    pub(super) fn record(&mut self, before: &Job, now: JobState, lasted: Duration) {
        if matches!(now, JobState::Expired | JobState::Unknown) {
            return;
        }
        let Some(class) = JobClass::of(before) else { return };
        let known = self.known.contains_key(&class) || self.known.len() < CLASSES_MAX;
        if known && class.kind.as_ref().is_none_or(|kind| kind.len() <= KIND_MAX) {
            Arc::make_mut(self.known.entry(class.clone()).or_default()).record(lasted);
            self.updates.insert(class);
        }
    }

    /// The changes to write to the ledger.
    pub(super) fn next_step(&mut self) -> Vec<(JobClass, Arc<Durations>)> {
        let updates = std::mem::take(&mut self.updates).into_iter();
        updates.filter_map(|class| Some((class.clone(), Arc::clone(self.known.get(&class)?)))).collect()
    }
}

impl FollowRegistry {
    /// Restores the statistics from before a restart, except where newer ones exist.
    pub(in crate::jobs) fn learned_before(&self, learned: Vec<(JobClass, Durations)>) {
        let mut state = self.lock();
        for (class, durations) in learned.into_iter().take(CLASSES_MAX) {
            state.duration_stats.known.entry(class).or_insert_with(|| Arc::new(durations));
        }
    }
}

impl FollowedJob {
    /// Changes the published state. Watchers are woken only for a change that is visible to them. For a change of
    /// state, the time in the former state is recorded: the change happened between this poll and the last.
    pub(super) fn publish(
        &mut self,
        duration_stats: &mut DurationStats,
        take_in: impl FnOnce(&mut PublishedState) -> ObservedChange,
    ) {
        let before = self.updates.borrow().seen().map(|seen| Arc::clone(&seen.job));
        let mut change = ObservedChange::Nothing;
        self.updates.send_if_modified(|published| {
            change = take_in(published);
            change != ObservedChange::Nothing
        });
        let now = Instant::now();
        if change == ObservedChange::State {
            let published = self.updates.borrow();
            let seen = published.seen().map(|seen| &*seen.job);
            if let (Some(before), Some(seen)) = (before, seen) {
                let gap = now.duration_since(self.seen_at);
                duration_stats.record(
                    &before,
                    seen.state(),
                    now.duration_since(self.since).saturating_sub(gap / 2),
                );
            }
            self.learned = seen.and_then(|seen| duration_stats.of(seen));
            self.since = now;
            let state = published.state();
            drop(published);
            self.state_count.set(state);
        }
        self.seen_at = now;
    }
}
