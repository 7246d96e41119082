//! Lists the jobs this gateway holds, as far as a client may read them. Asks no upstream.

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::domain::state::JobState;
use crate::ports::store::ListFilter;

use super::Jobs;
use super::answer::{Seen, StaleReason, age};

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
        let filter = ListFilter { sources, states: filter.states.clone() };
        let held = self.inner.store.list(&filter, after.as_ref(), first.saturating_add(1)).await;
        let mut held = self.inner.ingest.tolerate(held).ok_or_else(|| {
            Problem::new(ProblemCode::Internal, Retry::Whenever, "the job store does not answer; ask again")
        })?;
        let has_next = held.len() > first;
        held.truncate(first);
        let now = self.inner.clock.now();
        let fresh_for = self.inner.freshness.fresh_for;
        let jobs = held.into_iter().map(|observation| {
            if age(&observation, now) <= fresh_for {
                Seen::fresh(observation, now)
            } else {
                Seen::stale(observation, now, StaleReason::NotAsked)
            }
        });
        Ok(JobPage { jobs: jobs.collect(), has_next })
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
