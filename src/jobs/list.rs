//! Lists the jobs that the gateway has stored, as far as a client may read them. It makes no upstream call.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::answer::{JobSnapshot, StaleReason, age};
use super::cache::JobCache;
use super::cacheability::Freshness;
use super::follow::FollowRegistry;
pub use super::list_filter::{JobListFilter, JobOrigin, SearchText};
use super::list_order::{FirstJobs, ListPosition};
pub use super::list_order::{JobListField, JobListOrder};
use super::sources::Readers;
use super::tracked_jobs::TrackedJobs;
use super::visibility::Visibility;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::clock::{Clock, ClockReading};
use crate::ports::ledger::Labels;
use crate::ports::store::ListFilter;

/// Jobs read from the store at once for a list that may not be complete with the first ones. The batches are large, so
/// that there are few of them.
const BATCH: usize = 5_000;
/// The maximum number of jobs that are counted for [`JobPage::total`].
pub const TOTAL_MAX: usize = 10_000;
/// Lists that read the whole store at the same time. Others wait: they take memory for a batch, and the time of the store.
const WHOLE_AT_ONCE: usize = 2;

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
    visibility: Arc<Visibility>,
    readers: Arc<Readers>,
    tracked: Arc<TrackedJobs>,
    cache: Arc<JobCache>,
    following: Arc<FollowRegistry>,
    freshness: Arc<Freshness>,
    clock: Arc<dyn Clock>,
    whole: Semaphore,
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
        let whole = Semaphore::const_new(WHOLE_AT_ONCE);
        Self { visibility, readers, tracked, cache, following, freshness, clock, whole }
    }

    /// Lists a page of stored jobs. In the order of the stores and without a count it reads the jobs of the page; otherwise
    /// all jobs that match.
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
        let reads_page = order.is_stored() && !counts;
        let narrowed = sources.iter().any(|source| principal.scope(source).is_some());
        let limit = first.saturating_add(1);
        let walk = Walk {
            principal,
            filter,
            sources,
            now: self.clock.reading(),
            after: after.as_ref().filter(|_| reads_page).map(|after| after.key.clone()),
            batch: if reads_page && !narrowed { limit } else { BATCH },
        };
        let _permit = if reads_page { None } else { self.whole.acquire().await.ok() };
        let (mut listed, mut total) = (FirstJobs::new(*order, after, walk.now, limit), 0);
        let visit = |observation| {
            total += 1;
            listed.offer(observation);
            let is_read = order.is_stored() && listed.is_full();
            let is_counted = !counts || total >= TOTAL_MAX;
            if is_read && is_counted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.visit(&walk, visit).await?;
        let mut jobs = listed.into_jobs();
        let has_next = jobs.len() > *first;
        jobs.truncate(*first);
        let now = self.clock.reading();
        let jobs = jobs.into_iter().map(|(position, observation)| {
            let labels = self.tracked.labels(&position.key);
            ListedJob {
                origin: JobOrigin::of(&observation, labels.is_some()),
                labels: labels.unwrap_or_default(),
                cursor: position.cursor(*order),
                snapshot: self.snapshot(observation, now),
            }
        });
        Ok(JobPage { jobs: jobs.collect(), has_next, total: total.min(TOTAL_MAX) })
    }

    /// A job with its freshness: as its watchers know it if it is followed, otherwise by the age of what is stored.
    fn snapshot(&self, stored: Observation, now: ClockReading) -> JobSnapshot {
        let key = stored.job.key.clone();
        let snapshot = match self.following.known(&key) {
            Some(known) if !stored.supersedes(&known.observation) => {
                JobSnapshot::stale(known.observation, now, known.stale)
            }
            Some(_) | None if age(&stored, now) <= self.freshness.rules().fresh_for => {
                JobSnapshot::fresh(stored, now)
            }
            Some(_) | None => JobSnapshot::stale(stored, now, Some(StaleReason::NotRefreshed)),
        };
        JobSnapshot { next_poll: self.following.next_poll(&key, self.clock.time_of_day()), ..snapshot }
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

/// Which stored jobs are visited.
struct Walk<'a> {
    principal: &'a Principal,
    filter: &'a JobListFilter,
    sources: Vec<SourceName>,
    now: ClockReading,
    /// The key behind which it begins.
    after: Option<JobKey>,
    /// The number of jobs read from the store at once.
    batch: usize,
}

/// A part of the stored jobs that is listed separately: the parts follow each other in the order of the keys.
struct ListSegment {
    sources: Vec<SourceName>,
    /// Labels that every job of this part carries; empty for all jobs, tracked or not.
    labels: Labels,
}

impl JobList {
    /// Visits the stored jobs that match and that the client may see, until there are no more or `visit` breaks; in each
    /// part in the order of the keys. Jobs that it may not see are removed before anything is counted, so neither a page
    /// nor the end of the list reveals them.
    async fn visit(
        &self,
        walk: &Walk<'_>,
        mut visit: impl FnMut(Observation) -> ControlFlow<()> + Send,
    ) -> Result<(), Problem> {
        let Walk { principal, filter, now, .. } = walk;
        for part in parts(walk) {
            let mut after = walk.after.clone();
            loop {
                let (held, last) = self.batch(walk, &part, after.as_ref()).await?;
                let seen = held.into_iter().filter(|held| {
                    filter.matches(held, &self.tracked, *now) && self.visibility.may_see(principal, &held.job)
                });
                for observation in seen {
                    if visit(observation).is_break() {
                        return Ok(());
                    }
                }
                let Some(last) = last else { break };
                after = Some(last);
            }
        }
        Ok(())
    }

    /// A batch of stored jobs of a part behind `after`, and the key to continue behind, if there may be more.
    async fn batch(
        &self,
        walk: &Walk<'_>,
        part: &ListSegment,
        after: Option<&JobKey>,
    ) -> Result<(Vec<Observation>, Option<JobKey>), Problem> {
        let Walk { principal, filter, now, batch: limit, .. } = *walk;
        let keys: Vec<JobKey> = if let Some(jobs) = &principal.credential().jobs {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = jobs.range::<JobKey, _>((from, Bound::Unbounded));
            behind.filter(|key| part.sources.contains(&key.source)).cloned().collect()
        } else if part.labels.is_empty() {
            let (sources, states) = (part.sources.clone(), filter.states.clone());
            let observed_since = filter.observed_since.map(|since| now.undate(since));
            let filter = ListFilter { sources, states, observed_since };
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
fn parts(walk: &Walk<'_>) -> Vec<ListSegment> {
    let Walk { principal, filter, sources, .. } = walk;
    let held_to_labels = |source| principal.scope(source).is_some_and(|scope| !scope.labels.is_empty());
    if principal.only_watches() || !filter.labels.is_empty() || !sources.iter().any(held_to_labels) {
        return vec![ListSegment { sources: sources.clone(), labels: filter.labels.clone() }];
    }
    let part = |source: &SourceName| {
        let labels = principal.scope(source).map(|scope| scope.labels.clone()).unwrap_or_default();
        ListSegment { sources: vec![source.clone()], labels }
    };
    sources.iter().map(part).collect()
}
