//! Lists the jobs that the gateway has stored, as far as a client may read them. It makes no upstream call.

pub(super) mod filter;
mod order;
mod permits;
mod walk;

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::filter::{JobListFilter, JobOrigin, SearchText};
use self::order::{FirstJobs, ListPosition};
pub use self::order::{JobListField, JobListOrder};
use self::permits::ListPermits;
pub(super) use self::walk::StoredJobs;
use self::walk::Walk;
use super::answer::{JobSnapshot, StaleReason, age};
use super::cacheability::Freshness;
use super::follow::{FollowRegistry, SweepStatuses};
use super::sources::Readers;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::SourceName;
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::clock::{Clock, ClockReading};
use crate::ports::ledger::Labels;
use crate::ports::spawner::Spawner;

/// Jobs read from the store at once for a list that may not be complete with the first ones. The batches are large, so
/// that there are few of them.
const BATCH: usize = 5_000;
/// The maximum number of jobs that are counted for [`JobPage::total`].
pub const TOTAL_MAX: usize = 10_000;

/// Which page of which list.
#[derive(Clone, Debug)]
pub struct JobListRequest {
    /// Which jobs.
    pub filter: JobListFilter,
    /// The order.
    pub order: JobListOrder,
    /// The maximum number of jobs, 1 or more.
    pub first: usize,
    /// The cursor behind which the page begins.
    pub after: Option<String>,
    /// Whether to count all jobs that match.
    pub counts: bool,
}

impl JobListRequest {
    /// The first page in the order of the stores, without a count.
    pub fn new(filter: JobListFilter, first: usize) -> Self {
        Self { filter, order: JobListOrder::default(), first, after: None, counts: false }
    }
}

/// A page of stored jobs.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<ListedJob>,
    /// Whether another page exists.
    pub has_next: bool,
    /// The number of jobs on all pages, counted to [`TOTAL_MAX`]; zero if it was not requested.
    pub total: usize,
}

/// A job in a list.
#[derive(Clone, Debug)]
pub struct ListedJob {
    /// The job.
    pub snapshot: JobSnapshot,
    /// How the gateway knows it.
    pub origin: JobOrigin,
    /// The labels that clients set on it.
    pub labels: Labels,
    /// The cursor behind which the list continues after it.
    pub cursor: String,
}

/// Lists stored jobs.
#[derive(Debug)]
pub(super) struct JobList {
    stored: Arc<StoredJobs>,
    readers: Arc<Readers>,
    following: Arc<FollowRegistry>,
    sweeps: Arc<SweepStatuses>,
    freshness: Arc<Freshness>,
    permits: ListPermits,
    clock: Arc<dyn Clock>,
}

impl JobList {
    pub(super) fn new(
        stored: StoredJobs,
        readers: Arc<Readers>,
        following: Arc<FollowRegistry>,
        sweeps: Arc<SweepStatuses>,
        freshness: Arc<Freshness>,
        clock: Arc<dyn Clock>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        let permits = ListPermits::new(spawner);
        Self { stored: Arc::new(stored), readers, following, sweeps, freshness, permits, clock }
    }

    /// Lists a page of stored jobs. In the order of the stores, by a filter of the stores and without a count it reads the
    /// jobs of the page; otherwise it waits for a permit, and reads all jobs that match. The page can be shorter than
    /// requested if jobs change meanwhile.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the store does not respond.
    pub(super) async fn page(
        &self,
        principal: &Principal,
        request: &JobListRequest,
    ) -> Result<JobPage, Problem> {
        let JobListRequest { filter, order, first, after, counts } = request;
        let after = after.as_deref().map(|after| ListPosition::parse(after, *order)).transpose()?;
        let sources = self.readable(principal, &filter.sources);
        if sources.is_empty() {
            return Ok(JobPage { jobs: Vec::new(), has_next: false, total: 0 });
        }
        let is_stored = order.is_stored() && !counts;
        let reads_page = is_stored && filter.is_stored();
        let narrowed = sources.iter().any(|source| principal.scope(source).is_some());
        let limit = first.saturating_add(1);
        let walk = Arc::new(Walk {
            principal: principal.clone(),
            filter: filter.clone(),
            sources,
            now: self.clock.reading(),
            after: after.as_ref().filter(|_| is_stored).map(|after| after.key.clone()),
            batch: if reads_page && !narrowed { limit } else { BATCH },
            cancelled: CancellationToken::new(),
        });
        let collector = PageCollector { jobs: FirstJobs::new(*order, after, walk.now, limit), total: None };
        let collector = if *counts { PageCollector { total: Some(0), ..collector } } else { collector };
        let collect = collector.collect(Arc::clone(&self.stored), Arc::clone(&walk));
        let collected = if reads_page || principal.only_watches() {
            collect.await
        } else {
            let collected =
                self.permits.run(Arc::clone(principal.shared_name()), collect, walk.cancelled.clone()).await;
            collected.unwrap_or_else(|| Err(failed()))
        };
        let PageCollector { jobs, total } = collected?;
        let mut jobs = jobs.into_jobs();
        let has_next = jobs.len() > *first;
        jobs.truncate(*first);
        let now = self.clock.reading();
        let jobs = jobs.into_iter().filter_map(|(position, observation)| {
            let cursor = position.cursor(*order);
            let snapshot = self.snapshot(observation, now);
            let labels = self.stored.tracked.labels(&position.key);
            // what is known by now may be newer than what was collected
            let is_listed = self.stored.matches(&walk, &snapshot.observation);
            is_listed.then(|| ListedJob {
                origin: JobOrigin::of(&snapshot.observation, labels.is_some()),
                labels: labels.unwrap_or_default(),
                cursor,
                snapshot,
            })
        });
        Ok(JobPage { jobs: jobs.collect(), has_next, total: total.unwrap_or_default() })
    }

    /// A job with its freshness: as its watchers know it if it is followed; fresh if sweeps follow it to its end; otherwise
    /// by the age of what is stored.
    fn snapshot(&self, stored: Observation, now: ClockReading) -> JobSnapshot {
        let key = stored.job.key.clone();
        let is_swept = stored.sightings.discovered && self.sweeps.get(&key.source).in_force;
        let fresh_for = self.freshness.rules().fresh_for;
        let (observation, stale) = match self.following.known(&key) {
            // another replica has read it
            Some(known) if stored.supersedes(&known.observation) => {
                let is_fresh = age(&stored, now) <= known.at_most.max(fresh_for);
                (stored, (!is_fresh).then_some(StaleReason::NotRefreshed))
            }
            Some(known) => {
                let is_fresh = known.confirmed <= known.at_most;
                (known.observation, known.stale.or_else(|| (!is_fresh).then_some(StaleReason::NotRefreshed)))
            }
            None => {
                let is_fresh = is_swept || age(&stored, now) <= fresh_for;
                (stored, (!is_fresh).then_some(StaleReason::NotRefreshed))
            }
        };
        let next_poll = self.following.next_poll(&key, self.clock.time_of_day());
        JobSnapshot { next_poll, ..JobSnapshot::stale(observation, now, stale) }
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

/// What is collected for a page.
#[derive(Debug)]
struct PageCollector {
    /// The first jobs behind the cursor, one more than the page has.
    jobs: FirstJobs,
    /// The number of all jobs, if it was requested.
    total: Option<usize>,
}

impl PageCollector {
    async fn collect(mut self, stored: Arc<StoredJobs>, walk: Arc<Walk>) -> Result<Self, Problem> {
        let visit = |observation| {
            self.jobs.offer(observation);
            let is_counted = self.total.as_mut().is_none_or(|total| {
                *total = (*total + 1).min(TOTAL_MAX);
                *total == TOTAL_MAX
            });
            if is_counted && self.jobs.is_complete() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        stored.visit(&walk, visit).await?;
        Ok(self)
    }
}

fn failed() -> Problem {
    Problem::new(ProblemCode::Internal, Retry::Whenever, "the list could not be read; retry later")
}
