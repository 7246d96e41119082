//! The number of followed jobs in each state. It is counted as states change, so that reading it costs the same for any
//! number of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::state::JobState;

/// One for each state, and one for jobs that were not observed yet.
pub(super) const PLACES: usize = JobState::ALL.len() + 1;

/// The counts, by index.
#[derive(Debug, Default)]
pub(super) struct StateCounts([AtomicU64; PLACES]);

/// The contribution of one followed job. Dropping it removes the job from the count.
#[derive(Debug)]
pub(super) struct StateCountGuard {
    all: Arc<StateCounts>,
    state: Option<JobState>,
}

const fn index_of(state: Option<JobState>) -> usize {
    match state {
        None => 0,
        Some(JobState::Queued) => 1,
        Some(JobState::Running) => 2,
        Some(JobState::Succeeded) => 3,
        Some(JobState::Failed) => 4,
        Some(JobState::Canceled) => 5,
        Some(JobState::Expired) => 6,
        Some(JobState::Unknown) => 7,
    }
}

const WORDS: [&str; PLACES] =
    ["unobserved", "queued", "running", "succeeded", "failed", "canceled", "expired", "unknown"];

impl StateCounts {
    /// Every count with the name of its state.
    pub(super) fn read(&self) -> [(&'static str, u64); PLACES] {
        std::array::from_fn(|at| {
            let count = self.0.get(at).map_or(0, |count| count.load(Ordering::Relaxed));
            (WORDS.get(at).copied().unwrap_or_default(), count)
        })
    }

    fn at(&self, state: Option<JobState>) -> &AtomicU64 {
        self.0.get(index_of(state)).unwrap_or_else(|| unreachable!("each state has a count"))
    }
}

impl StateCountGuard {
    /// The contribution of a job that was not observed yet.
    pub(super) fn new(all: &Arc<StateCounts>) -> Self {
        all.at(None).fetch_add(1, Ordering::Relaxed);
        Self { all: Arc::clone(all), state: None }
    }

    /// Moves the job to the count of a state.
    pub(super) fn set(&mut self, state: Option<JobState>) {
        self.all.at(self.state).fetch_sub(1, Ordering::Relaxed);
        self.all.at(state).fetch_add(1, Ordering::Relaxed);
        self.state = state;
    }
}

impl Drop for StateCountGuard {
    fn drop(&mut self) {
        self.all.at(self.state).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_counted_once_in_its_state_until_dropped() {
        let all = Arc::new(StateCounts::default());
        let count = |word: &str| all.read().iter().find(|(at, _)| *at == word).map(|(_, count)| *count);
        let mut jobs: Vec<StateCountGuard> =
            JobState::ALL.iter().map(|_| StateCountGuard::new(&all)).collect();
        assert_eq!(count("unobserved"), Some(7));
        for (job, state) in jobs.iter_mut().zip(JobState::ALL) {
            job.set(Some(state));
            assert_eq!(count(&state.name().to_ascii_lowercase()), Some(1), "{state:?}");
        }
        assert_eq!(count("unobserved"), Some(0));
        drop(jobs);
        assert!(all.read().iter().all(|(_, count)| *count == 0), "{:?}", all.read());
    }
}
