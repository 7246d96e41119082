//! Visits the stored jobs that a client may see, in batches, whatever the grant is.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::filter::JobListFilter;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::jobs::cache::JobCache;
use crate::jobs::tracked_jobs::TrackedJobs;
use crate::jobs::visibility::Visibility;
use crate::ports::clock::ClockReading;
use crate::ports::ledger::Labels;
use crate::ports::store::ListFilter;

/// Jobs that are visited before other tasks have a turn.
const IN_ONE_GO: usize = 500;

/// Which stored jobs are visited.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) principal: Principal,
    pub(super) filter: JobListFilter,
    pub(super) sources: Vec<SourceName>,
    pub(super) now: ClockReading,
    /// The key behind which it begins.
    pub(super) after: Option<JobKey>,
    /// The number of jobs read from the store at once.
    pub(super) batch: usize,
    /// Cancelled when the result is not needed any more.
    pub(super) cancelled: CancellationToken,
}

/// The stored jobs.
#[derive(Debug)]
pub(in crate::jobs) struct StoredJobs {
    pub(in crate::jobs) visibility: Arc<Visibility>,
    pub(in crate::jobs) tracked: Arc<TrackedJobs>,
    pub(in crate::jobs) cache: Arc<JobCache>,
}

/// A part of the stored jobs that is listed separately: the parts follow each other in the order of the keys.
struct ListSegment {
    sources: Vec<SourceName>,
    /// Labels that every job of this part carries; empty for all jobs, tracked or not.
    labels: Labels,
}

impl StoredJobs {
    /// Visits the jobs that match and that the client may see, until there are no more, `visit` breaks, or the walk is
    /// cancelled; in each part in the order of the keys. Jobs that it may not see are removed before anything is counted,
    /// so neither a page nor the end of the list reveals them.
    ///
    /// # Errors
    /// When the store does not respond.
    pub(super) async fn visit(
        &self,
        walk: &Walk,
        mut visit: impl FnMut(Observation) -> ControlFlow<()> + Send,
    ) -> Result<(), Problem> {
        for part in parts(walk) {
            let mut after = walk.after.clone();
            loop {
                let (held, last) = self.batch(walk, &part, after.as_ref()).await?;
                for (index, observation) in held.into_iter().enumerate() {
                    if index % IN_ONE_GO == IN_ONE_GO - 1 {
                        tokio::task::yield_now().await;
                    }
                    if self.matches(walk, &observation) && visit(observation).is_break() {
                        return Ok(());
                    }
                }
                let Some(last) = last.filter(|_| !walk.cancelled.is_cancelled()) else { break };
                after = Some(last);
            }
        }
        Ok(())
    }

    /// Whether the client may see a job, and it matches the filter.
    pub(super) fn matches(&self, walk: &Walk, observation: &Observation) -> bool {
        self.visibility.may_see(&walk.principal, &observation.job)
            && walk.filter.matches(observation, &self.tracked, walk.now)
    }

    /// A batch of stored jobs of a part behind `after`, and the key to continue behind, if there may be more.
    async fn batch(
        &self,
        walk: &Walk,
        part: &ListSegment,
        after: Option<&JobKey>,
    ) -> Result<(Vec<Observation>, Option<JobKey>), Problem> {
        let Walk { principal, filter, now, batch, .. } = walk;
        let keys: Vec<JobKey> = if let Some(jobs) = &principal.credential().jobs {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = jobs.range::<JobKey, _>((from, Bound::Unbounded));
            behind.filter(|key| part.sources.contains(&key.source)).cloned().collect()
        } else if part.labels.is_empty() {
            let (sources, states) = (part.sources.clone(), filter.states.clone());
            let observed_since = filter.observed_since.map(|since| now.undate(since));
            let filter = ListFilter { sources, states, observed_since };
            let held = self.cache.list(&filter, after, *batch).await;
            let held = held.ok_or_else(|| {
                let message = "the job store is unavailable; retry later";
                Problem::new(ProblemCode::Internal, Retry::Whenever, message)
            })?;
            let last = held.last().filter(|_| held.len() >= *batch).map(|held| held.job.key.clone());
            return Ok((held, last));
        } else {
            self.tracked.with_labels(&part.labels, &part.sources, after, *batch)
        };
        let last =
            keys.last().filter(|_| principal.credential().jobs.is_none() && keys.len() >= *batch).cloned();
        Ok((self.cache.get_all(&keys).await.into_iter().flatten().collect(), last))
    }
}

/// The parts in which to list what a client may read: one if the order and filter of the store are sufficient,
/// otherwise one per source, by the labels that the client is restricted to.
fn parts(walk: &Walk) -> Vec<ListSegment> {
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
