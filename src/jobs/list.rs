//! Lists the jobs this gateway holds, as far as a client may read them. Asks no upstream.

use jiff::Timestamp;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::domain::state::JobState;
use crate::ports::store::ListFilter;

use super::Jobs;
use super::answer::{Seen, StaleReason, age};
use super::track::Labels;

/// A page of held jobs, in the order of their keys.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Seen>,
    /// Whether more follow.
    pub has_next: bool,
}

/// Which of the held jobs to list. An empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Names of sources, as the client wrote them. One that the client may not read matches nothing.
    pub sources: Vec<String>,
    /// States.
    pub states: Vec<JobState>,
    /// Labels of tracked jobs: all of them together.
    pub labels: Labels,
    /// Observed at this time or later.
    pub observed_since: Option<Timestamp>,
}

impl JobFilter {
    /// Whether an observation fits, labels aside.
    pub(super) fn lets_through(&self, observation: &Observation) -> bool {
        let job = &observation.job;
        let source = job.key.source.as_str();
        let of_source = self.sources.is_empty() || self.sources.iter().any(|one| one == source);
        let in_time = self.observed_since.is_none_or(|since| observation.observed_at >= since);
        of_source && in_time && (self.states.is_empty() || self.states.contains(&job.state()))
    }
}

impl Jobs {
    /// Lists at most `first` held jobs behind the job `after`.
    ///
    /// # Errors
    /// When `after` is not a cursor that this gateway gave out, or the store does not answer.
    pub async fn list(
        &self,
        principal: &Principal,
        filter: &JobFilter,
        first: usize,
        after: Option<&str>,
    ) -> Result<JobPage, Problem> {
        let after = after.map(JobKey::from_node_id).transpose().map_err(|error| {
            Problem::new(
                ProblemCode::InvalidRef,
                Retry::Never,
                format!("after {error}; pass an endCursor, unchanged"),
            )
        })?;
        let sources = self.readable(principal, &filter.sources);
        if sources.is_empty() {
            return Ok(JobPage { jobs: Vec::new(), has_next: false });
        }
        let limit = first.saturating_add(1);
        let mut held = if filter.labels.is_empty() {
            let (states, observed_since) = (filter.states.clone(), filter.observed_since);
            let filter = ListFilter { sources, states, observed_since };
            let held = self.inner.store.list(&filter, after.as_ref(), limit).await;
            self.inner.ingest.tolerate(held).ok_or_else(|| {
                Problem::new(
                    ProblemCode::Internal,
                    Retry::Whenever,
                    "the job store does not answer; ask again",
                )
            })?
        } else {
            self.labelled(filter, &sources, after, limit).await
        };
        let has_next = held.len() > first;
        held.truncate(first);
        let now = self.inner.clock.now();
        let fresh_for = self.inner.freshness.fresh_for;
        let jobs = held.into_iter().map(|observation| {
            if age(&observation, now) <= fresh_for {
                Seen::fresh(observation, now)
            } else {
                Seen::stale(observation, now, Some(StaleReason::NotAsked))
            }
        });
        Ok(JobPage { jobs: jobs.collect(), has_next })
    }

    /// The tracked jobs that carry the labels of a filter and are held.
    async fn labelled(
        &self,
        filter: &JobFilter,
        sources: &[SourceName],
        mut after: Option<JobKey>,
        limit: usize,
    ) -> Vec<Observation> {
        let mut found = Vec::new();
        loop {
            let keys = self.inner.tracking.with_labels(&filter.labels, sources, after.as_ref(), limit);
            let held = self.inner.ingest.held_all(&keys).await;
            found.extend(held.into_iter().flatten().filter(|held| filter.lets_through(held)));
            if keys.len() < limit || found.len() >= limit {
                found.truncate(limit);
                return found;
            }
            after = keys.last().cloned();
        }
    }

    /// The sources to list: those named, or all, less those the client may not read.
    fn readable(&self, principal: &Principal, named: &[String]) -> Vec<SourceName> {
        let sources = self.inner.readers.keys().filter(|name| principal.may_read(name));
        sources
            .filter(|name| named.is_empty() || named.iter().any(|one| one == name.as_str()))
            .cloned()
            .collect()
    }
}
