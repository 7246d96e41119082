//! Statistics of how long jobs take, by kind of job, collected from followed jobs. The number of kinds is bounded;
//! changes are written to the ledger from time to time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::durations::{Durations, JobClass};
use crate::domain::estimate::TimeLeft;
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

    /// The time that a job has left which has been in its present state for `age`. `None` if too little is known, and
    /// for one that is neither queued nor running.
    pub(super) fn time_left(&self, job: &Job, age: Duration) -> Option<TimeLeft> {
        let class = JobClass::of(job)?;
        let known = self.known.get(&class)?;
        if class.running {
            return TimeLeft::of_running(known, age);
        }
        TimeLeft::of_queued(known, self.known.get(&JobClass { running: true, ..class })?, age)
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

    /// Restores the statistics from before a restart, except where newer ones exist.
    pub(super) fn restore(&mut self, learned: Vec<(JobClass, Durations)>) {
        for (class, durations) in learned.into_iter().take(CLASSES_MAX) {
            self.known.entry(class).or_insert_with(|| Arc::new(durations));
        }
    }

    /// The changes to write to the ledger.
    pub(super) fn take_changes(&mut self) -> Vec<(JobClass, Arc<Durations>)> {
        let updates = std::mem::take(&mut self.updates).into_iter();
        updates.filter_map(|class| Some((class.clone(), Arc::clone(self.known.get(&class)?)))).collect()
    }
}
