//! The filter of a list or a feed of jobs.

use jiff::Timestamp;

use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::ports::clock::ClockReading;
use crate::ports::ledger::Labels;

/// Selects which of the stored jobs to list. An empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobListFilter {
    /// Names of sources, as the client wrote them. A source that the client may not read matches nothing.
    pub sources: Vec<String>,
    /// States.
    pub states: Vec<JobState>,
    /// Labels of tracked jobs; a job must have all of them.
    pub labels: Labels,
    /// Observed at this time or later.
    pub observed_since: Option<Timestamp>,
}

impl JobListFilter {
    /// The same filter in process time.
    pub(super) fn undated(self, now: ClockReading) -> Self {
        Self { observed_since: self.observed_since.map(|since| now.undate(since)), ..self }
    }

    /// Whether an observation matches, except for the labels.
    pub(super) fn lets_through(&self, observation: &Observation) -> bool {
        let job = &observation.job;
        let source = job.key.source.as_str();
        let of_source = self.sources.is_empty() || self.sources.iter().any(|one| one == source);
        let in_time = self.observed_since.is_none_or(|since| observation.observed_at >= since);
        of_source && in_time && (self.states.is_empty() || self.states.contains(&job.state()))
    }
}
