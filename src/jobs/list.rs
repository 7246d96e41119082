//! Lists the jobs that the gateway has stored, as far as a client may read them. It makes no upstream call.

use std::ops::Bound;
use std::sync::Arc;

use super::answer::{JobSnapshot, StaleReason, age};
use super::cache::JobCache;
use super::cacheability::Freshness;
use super::follow::FollowRegistry;
pub use super::list_filter::JobListFilter;
use super::sources::Readers;
use super::tracked_jobs::TrackedJobs;
use super::visibility::Visibility;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::clock::Clock;
use crate::ports::ledger::Labels;
use crate::ports::store::ListFilter;

/// Jobs read from the store at once for a client that may see only some of them. The batches are large, so that there
/// are few of them.
const BATCH: usize = 5_000;

/// A page of stored jobs, in the order of their keys.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobSnapshot>,
    /// Whether another page exists.
    pub has_next: bool,
}

/// Lists stored jobs.
#[derive(Debug)]
pub(super) struct JobList {
    visibility: Arc<Visibility>,
    readers: Arc<Readers>,
    tracked: Arc<TrackedJobs>,
    cache: Arc<JobCache>,
    following: Arc<FollowRegistry>,
    freshness: Arc<Freshness>,
    clock: Arc<dyn Clock>,
}

impl JobList {
    pub(super) const fn new(
        visibility: Arc<Visibility>,
        readers: Arc<Readers>,
        tracked: Arc<TrackedJobs>,
        cache: Arc<JobCache>,
        following: Arc<FollowRegistry>,
        freshness: Arc<Freshness>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { visibility, readers, tracked, cache, following, freshness, clock }
    }

    /// Lists at most `first` stored jobs behind the job `after`.
    ///
    /// # Errors
    /// When `after` is not a cursor of this gateway, or the store does not respond.
    pub(super) async fn page(
        &self,
        principal: &Principal,
        filter: &JobListFilter,
        first: usize,
        after: Option<&str>,
    ) -> Result<JobPage, Problem> {
        let after = after.map(JobKey::from_node_id).transpose().map_err(|error| {
            Problem::new(
                ProblemCode::InvalidRef,
                Retry::Never,
                format!("after {error}; pass the endCursor of a page"),
            )
        })?;
        let sources = self.readable(principal, &filter.sources);
        if sources.is_empty() {
            return Ok(JobPage { jobs: Vec::new(), has_next: false });
        }
        let limit = first.saturating_add(1);
        let filter = &filter.clone().undated(self.clock.reading());
        let mut held = self.list_visible(principal, filter, &sources, after.as_ref(), limit).await?;
        let has_next = held.len() > first;
        held.truncate(first);
        let now = self.clock.reading();
        let (time_of_day, fresh_for) = (self.clock.time_of_day(), self.freshness.rules().fresh_for);
        let jobs = held.into_iter().map(|observation| {
            let next_poll = self.following.next_poll(&observation.job.key, time_of_day);
            let seen = if age(&observation, now) <= fresh_for {
                JobSnapshot::fresh(observation, now)
            } else {
                JobSnapshot::stale(observation, now, Some(StaleReason::NotRefreshed))
            };
            JobSnapshot { next_poll, ..seen }
        });
        Ok(JobPage { jobs: jobs.collect(), has_next })
    }

    /// The sources to list: the named ones, or all, without those that the client may not read.
    fn readable(&self, principal: &Principal, named: &[String]) -> Vec<SourceName> {
        let readers = self.readers.all();
        let sources = readers.keys().filter(|name| principal.may_read(name));
        sources
            .filter(|name| named.is_empty() || named.iter().any(|one| one == name.as_str()))
            .cloned()
            .collect()
    }
}

/// A part of the stored jobs that is listed separately: the parts follow each other in the order of the keys.
struct ListSegment {
    sources: Vec<SourceName>,
    /// Labels that every job of this part carries; empty for all jobs, tracked or not.
    labels: Labels,
}

impl JobList {
    /// The first `limit` stored jobs behind `after` that match and that the client may see. Jobs that it may not see
    /// are removed before anything is counted, so neither a page nor the end of the list reveals them.
    async fn list_visible(
        &self,
        principal: &Principal,
        filter: &JobListFilter,
        sources: &[SourceName],
        after: Option<&JobKey>,
        limit: usize,
    ) -> Result<Vec<Observation>, Problem> {
        let mut found = Vec::new();
        let narrowed = sources.iter().any(|source| principal.scope(source).is_some());
        let batch = if narrowed { limit.max(BATCH) } else { limit };
        for part in parts(principal, filter, sources) {
            let mut after = after.cloned();
            loop {
                let (held, last) = self.batch(principal, filter, &part, after.as_ref(), batch).await?;
                let seen = held.into_iter().filter(|held| {
                    filter.lets_through(held)
                        && self.tracked.carries(&held.job.key, &filter.labels)
                        && self.visibility.may_see(principal, &held.job)
                });
                found.extend(seen);
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
                let Some(last) = last else { break };
                after = Some(last);
            }
        }
        Ok(found)
    }

    /// At most `limit` stored jobs of a part behind `after`, and the key to continue behind, if there may be more.
    async fn batch(
        &self,
        principal: &Principal,
        filter: &JobListFilter,
        part: &ListSegment,
        after: Option<&JobKey>,
        limit: usize,
    ) -> Result<(Vec<Observation>, Option<JobKey>), Problem> {
        let keys: Vec<JobKey> = if let Some(jobs) = &principal.credential().jobs {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = jobs.range::<JobKey, _>((from, Bound::Unbounded));
            behind.filter(|key| part.sources.contains(&key.source)).cloned().collect()
        } else if part.labels.is_empty() {
            let (sources, states) = (part.sources.clone(), filter.states.clone());
            let filter = ListFilter { sources, states, observed_since: filter.observed_since };
            let held = self.cache.list(&filter, after, limit).await;
            let held = held.ok_or_else(|| {
                let message = "the job store is unavailable; retry later";
                Problem::new(ProblemCode::Internal, Retry::Whenever, message)
            })?;
            let last = held.last().filter(|_| held.len() >= limit).map(|held| held.job.key.clone());
            return Ok((held, last));
        } else {
            self.tracked.with_labels(&part.labels, &part.sources, after, limit)
        };
        let last =
            keys.last().filter(|_| principal.credential().jobs.is_none() && keys.len() >= limit).cloned();
        Ok((self.cache.get_all(&keys).await.into_iter().flatten().collect(), last))
    }
}

/// The parts in which to list what a client may read: one if the order and filter of the store are sufficient,
/// otherwise one per source, by the labels that the client is restricted to.
fn parts(principal: &Principal, filter: &JobListFilter, sources: &[SourceName]) -> Vec<ListSegment> {
    let held_to_labels = |source| principal.scope(source).is_some_and(|scope| !scope.labels.is_empty());
    if principal.only_watches() || !filter.labels.is_empty() || !sources.iter().any(held_to_labels) {
        return vec![ListSegment { sources: sources.to_vec(), labels: filter.labels.clone() }];
    }
    let part = |source: &SourceName| {
        let labels = principal.scope(source).map(|scope| scope.labels.clone()).unwrap_or_default();
        ListSegment { sources: vec![source.clone()], labels }
    };
    sources.iter().map(part).collect()
}
