//! Splits a batch that cannot be read, so that a defect of one job never changes the result of another: halves, then a
//! query for one id, then a read of that job alone. A job that needs its own read is remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::parts::OpenParts;
use super::query::{BatchFailure, BatchQueries, SplitCause};
use super::single::SingleReads;
use crate::domain::id::ExternalId;
use crate::ports::upstream::{Fetch, FetchError, FetchTrigger};

/// Queries for the parts of one batch, the batch itself included. Four such jobs among a hundred are found with 47.
const QUERIES: usize = 48;
/// This many jobs that cannot be read alone either, while nothing of the batch can, are a failure of the source.
const HOPELESS: usize = 3;
/// How many jobs are remembered, and for how long.
const MOST: usize = 1_000;
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// The jobs that are excluded from batches.
#[derive(Debug, Default)]
struct ReadAlone(Mutex<HashMap<ExternalId, Instant>>);

impl ReadAlone {
    /// Returns whether this job is read alone.
    fn holds(&self, id: &ExternalId) -> bool {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).is_some_and(|since| since.elapsed() < REMEMBERED_FOR)
    }

    fn add(&self, id: &ExternalId) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= MOST && !jobs.contains_key(id) {
            jobs.retain(|_, since| since.elapsed() < REMEMBERED_FOR);
            let oldest = jobs.iter().min_by_key(|(_, since)| **since).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| jobs.len() >= MOST) {
                jobs.remove(&oldest);
            }
        }
        jobs.insert(id.clone(), Instant::now());
    }
}

/// The results of the queries of one batch so far.
#[derive(Default)]
struct SplitProgress<'a> {
    fetches: HashMap<ExternalId, Fetch>,
    queries: usize,
    /// Whether something of the batch was read.
    readable: bool,
    /// The parts without a page.
    failed: Vec<BatchFailure<'a>>,
}

/// Reads batches of a tenant, in parts where one of its jobs is defective.
#[derive(Debug)]
pub(super) struct BatchReads {
    single: Arc<SingleReads>,
    queries: BatchQueries,
    alone: ReadAlone,
    parts: OpenParts,
}

impl BatchReads {
    pub(super) fn new(single: Arc<SingleReads>) -> Self {
        Self {
            queries: BatchQueries::new(Arc::clone(&single)),
            single,
            alone: ReadAlone::default(),
            parts: OpenParts::default(),
        }
    }

    /// Fetches the jobs that need not be read alone. The others, and those without a result, are missing in the map.
    pub(super) async fn fetch(
        &self,
        ids: &[&ExternalId],
        trigger: &FetchTrigger,
        deadline: Instant,
    ) -> HashMap<ExternalId, Fetch> {
        let together: Vec<&ExternalId> = ids.iter().copied().filter(|id| !self.alone.holds(id)).collect();
        match together.as_slice() {
            [] | [_] => HashMap::new(),
            _ if self.queries.is_off() => HashMap::new(),
            together => self.query_in_parts(together, trigger, deadline).await,
        }
    }

    /// Fetches several different ids by queries; splits what cannot be read. Completes the ids that
    /// [`BatchQueries::query`] completes, and each id whose batch has no page.
    async fn query_in_parts(
        &self,
        ids: &[&ExternalId],
        trigger: &FetchTrigger,
        deadline: Instant,
    ) -> HashMap<ExternalId, Fetch> {
        let mut progress = SplitProgress::default();
        // the ids that are left when there were too many queries
        let mut left: Vec<BatchFailure<'_>> = Vec::new();
        let mut alone: Vec<&ExternalId> = Vec::new();
        // whether the source answers though a batch got a server error
        let mut answers = None;
        self.query_parts(self.parts.divide(ids), &mut progress, trigger, deadline, false).await;
        while let Some(failed) = progress.failed.pop() {
            let (readable, queries) = (progress.readable, progress.queries + progress.failed.len());
            let is_sick = failed.cause == SplitCause::Sick;
            if is_sick && answers.is_none() {
                answers = Some(readable || self.single.answers(trigger, deadline).await);
            }
            match failed.ids.as_slice() {
                _ if matches!(failed.cause, SplitCause::Source | SplitCause::Foreign) => {
                    settle(&mut progress, &failed);
                }
                // an outage: splitting does not help
                _ if is_sick && answers != Some(true) => settle(&mut progress, &failed),
                ids if failed.cause == SplitCause::TimedOut => {
                    self.narrow(ids, readable);
                    settle(&mut progress, &failed);
                }
                _ if !readable && alone.len() >= HOPELESS => left.push(failed),
                // a batch of one id is not itself the reason
                [one] => {
                    let fetch = self.single.get(one, trigger, deadline).await;
                    progress.readable |= matches!(fetch.outcome, Ok(_) | Err(FetchError::NotFound));
                    alone.push(one);
                    progress.fetches.insert((*one).clone(), fetch);
                }
                _ if queries + 2 > QUERIES => left.push(failed),
                ids => {
                    let (first, second) = ids.split_at(ids.len().div_ceil(2));
                    self.parts.note(first);
                    self.parts.note(second);
                    let halves = vec![second.to_vec(), first.to_vec()];
                    self.query_parts(halves, &mut progress, trigger, deadline, is_sick).await;
                }
            }
        }
        let SplitProgress { fetches, readable, .. } = &mut progress;
        if *readable {
            self.parts.forget(&alone);
            for id in alone {
                self.alone.add(id);
            }
        } else if !left.is_empty() {
            // the source is the reason
            self.parts.forget(ids);
        }
        for failed in left {
            if *readable {
                // one by one, as without a query endpoint; the limiter bounds the rate
                let reads = failed
                    .ids
                    .iter()
                    .map(async |id| ((*id).clone(), self.single.get(id, trigger, deadline).await));
                fetches.extend(join_all(reads).await);
            } else {
                fetches.extend(failed.ids.iter().map(|id| ((*id).clone(), failed.fetch.clone())));
            }
        }
        progress.fetches
    }

    /// Queries parts concurrently. The last one that fails is split next.
    async fn query_parts<'a>(
        &self,
        parts: Vec<Vec<&'a ExternalId>>,
        progress: &mut SplitProgress<'a>,
        trigger: &FetchTrigger,
        deadline: Instant,
        isolates: bool,
    ) {
        let results =
            join_all(parts.iter().map(|part| self.queries.query(part, trigger, deadline, isolates))).await;
        for (part, (settled, failed)) in parts.iter().zip(results) {
            progress.queries += 1;
            progress.readable |= failed.is_none() || !settled.is_empty();
            progress.fetches.extend(settled);
            match failed {
                Some(failed) => progress.failed.push(failed),
                None => self.parts.forget(part),
            }
        }
    }

    /// Remembers to query the halves of a part that timed out. Not again if nothing beside it was readable: that may be
    /// an outage, and more parts would be more calls to a source that does not answer.
    fn narrow(&self, ids: &[&ExternalId], readable: bool) {
        match ids {
            [one] if readable => {
                self.parts.forget(ids);
                self.alone.add(one);
            }
            [] | [_] => {}
            _ if !readable && self.parts.hold(ids) => {}
            ids => {
                let (first, second) = ids.split_at(ids.len().div_ceil(2));
                self.parts.note(first);
                self.parts.note(second);
            }
        }
    }
}

/// Assigns the result of a batch to each of its ids.
fn settle(progress: &mut SplitProgress<'_>, failed: &BatchFailure<'_>) {
    progress.fetches.extend(failed.ids.iter().map(|id| ((*id).clone(), failed.fetch.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::testing::id;

    #[tokio::test(start_paused = true)]
    async fn jobs_read_alone_are_bounded_to_the_newest() {
        let alone = ReadAlone::default();
        for number in 0..=MOST {
            alone.add(&id(&format!("job{number}")));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(alone.0.lock().unwrap().len(), MOST);
        assert!(!alone.holds(&id("job0")) && alone.holds(&id("job1")), "the oldest is removed");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_read_alone_expire() {
        let alone = ReadAlone::default();
        alone.add(&id("job"));
        assert!(alone.holds(&id("job")));
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(!alone.holds(&id("job")));
    }
}
