//! Jobs in memory, limited by bytes: terminal ones for long, others to remember their observations. Lost with the
//! process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use futures_util::FutureExt as _;
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use tokio::time::Instant;

use super::recent_reads::RecentReads;
use crate::domain::history::Transition;
use crate::domain::id::{JobHasher, JobKey};
use crate::domain::job::Job;
use crate::domain::observation::Observation;
use crate::ports::BoxFuture;
use crate::ports::ledger::{Labels, Ledger, LedgerContents};
use crate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use crate::telemetry::meters::{self, CacheTier};

/// The most "no such job" entries, about 150 bytes each.
const MISSING_MAX: u64 = 50_000;

/// How many jobs a list visits before it yields to other tasks.
const IN_ONE_GO: usize = 256;

/// The limits of size and age.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The most memory jobs may take, by estimate.
    pub max_bytes: u64,
    /// How long a terminal job is kept since it was last observed.
    pub finished: Duration,
    /// How long any other job is kept since it was last observed.
    pub unfinished: Duration,
    /// How long "no such job" is remembered.
    pub missing: Duration,
}

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    pub(super) jobs: Cache<JobKey, Observation, JobHasher>,
    pub(super) missing: Cache<JobKey, Instant>,
    /// In front of `jobs`.
    recent: Arc<RecentReads>,
}

/// The ledger of a memory store: lost at a restart.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLedger;

impl MemoryStore {
    /// An empty store.
    pub fn new(retention: Retention) -> Self {
        let weigh = |key: &JobKey, held: &Observation| weight(key, held);
        let recent = Arc::new(RecentReads::default());
        let removed = Arc::clone(&recent);
        let jobs = Cache::builder()
            .max_capacity(retention.max_bytes)
            .weigher(weigh)
            .expire_after(retention)
            .eviction_listener(move |key: Arc<JobKey>, _, _| removed.remove(&key))
            .build_with_hasher(JobHasher::default());
        let missing = Cache::builder().max_capacity(MISSING_MAX).time_to_live(retention.missing).build();
        Self { jobs, missing, recent }
    }

    /// The observation of each key, not counted as a read of the whole store.
    pub(in crate::outbound) async fn find(&self, keys: &[JobKey]) -> Vec<Option<Observation>> {
        let mut held = Vec::with_capacity(keys.len());
        for key in keys {
            held.push(self.jobs.get(key).await);
        }
        held
    }

    /// The observation of a job, if the cache returns it at once.
    pub(in crate::outbound) fn find_now(&self, key: &JobKey) -> Option<Observation> {
        match self.recent.find(key) {
            Ok(held) => Some(held),
            Err(before) => {
                let held = self.jobs.get(key).now_or_never().flatten()?;
                self.recent.keep(before, &held);
                Some(held)
            }
        }
    }

    /// The approximate number of jobs: a recent write may not be counted yet.
    pub(in crate::outbound) fn count(&self) -> u64 {
        self.jobs.entry_count()
    }

    /// Every terminal job. The cost is in proportion to the store.
    pub(in crate::outbound) fn ended(&self) -> Vec<Observation> {
        let held = self.jobs.iter().map(|(_, held)| held);
        held.filter(|held| held.job.is_terminal()).collect()
    }
}

impl JobStore for MemoryStore {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            let held = self.find(keys).await;
            let found = held.iter().flatten().count();
            meters::cache_reads(CacheTier::Memory, found);
            meters::cache_reads(CacheTier::None, held.len() - found);
            Ok(held)
        })
    }

    fn held(&self, key: &JobKey) -> Option<Observation> {
        self.find_now(key)
    }

    fn health(&self) -> StoreHealth {
        StoreHealth { memory: self.count(), ..StoreHealth::default() }
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        Box::pin(async move {
            let key = new.job.key.clone();
            let mut replaced = None;
            let compare = |held: Option<moka::Entry<JobKey, Observation>>| {
                let held = held.map(moka::Entry::into_value);
                let op = match &held {
                    Some(held) if !new.supersedes(held) => Op::Nop,
                    held => Op::Put(new.clone().replacing(held.as_ref())),
                };
                replaced = held;
                std::future::ready(op)
            };
            let kept = match self.jobs.entry(key.clone()).and_compute_with(compare).await {
                CompResult::Unchanged(held) => StoreOutcome::Older(held.into_value()),
                CompResult::Inserted(_)
                | CompResult::ReplacedWith(_)
                | CompResult::Removed(_)
                | CompResult::StillNone(_) => StoreOutcome::New(replaced),
            };
            self.missing.invalidate(&key).await;
            kept
        })
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        Box::pin(self.missing.insert(key.clone(), Instant::now()))
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        Box::pin(async move { Ok(self.missing.get(key).await.map(|recorded_at| recorded_at.elapsed())) })
    }

    /// Visits all jobs: the cost is in proportion to the store, for a query that people send and programs do not.
    /// Yields to other tasks on the way.
    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        Box::pin(async move {
            let mut page: BTreeMap<Arc<JobKey>, Observation> = BTreeMap::new();
            for (seen, (key, held)) in self.jobs.iter().enumerate() {
                if seen % IN_ONE_GO == IN_ONE_GO - 1 {
                    tokio::task::yield_now().await;
                }
                let beyond = page.len() >= limit && page.last_key_value().is_none_or(|(last, _)| *last < key);
                let behind = after.is_some_and(|after| *key <= *after);
                if beyond || behind || !fits(filter, &held) {
                    continue;
                }
                page.insert(key, held);
                if page.len() > limit {
                    page.pop_last();
                }
            }
            Ok(page.into_values().collect())
        })
    }
}

impl Ledger for NoLedger {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        Box::pin(async { Ok(LedgerContents::default()) })
    }

    fn track(&self, _: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn follow(&self, _: &JobKey, _: bool) {}
}

impl Expiry<JobKey, Observation> for Retention {
    fn expire_after_create(&self, _: &JobKey, held: &Observation, _: StdInstant) -> Option<Duration> {
        Some(if held.job.is_terminal() { self.finished } else { self.unfinished })
    }

    fn expire_after_update(
        &self,
        key: &JobKey,
        held: &Observation,
        at: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, held, at)
    }
}

/// Returns whether an observation matches the filter.
pub(in crate::outbound) fn fits(filter: &ListFilter, held: &Observation) -> bool {
    let of_source = filter.sources.is_empty() || filter.sources.contains(&held.job.key.source);
    let in_state = filter.states.is_empty() || filter.states.contains(&held.job.state());
    of_source && in_state && filter.observed_since.is_none_or(|since| held.observed_at >= since)
}

/// The size of a job in bytes: the structs and the texts that an upstream can make long.
fn weight(key: &JobKey, held: &Observation) -> u32 {
    let job = &*held.job;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let details = job.details.common().weight();
    let failure = job.failure().map_or(0, |failure| text(&failure.code) + text(&failure.message));
    let keys = 4 * (key.source.as_str().len() + key.external_id.as_str().len());
    // most have a native state, of some ten bytes
    let history = held.history.transitions().len() * (size_of::<Transition>() + 32);
    u32::try_from(256 + size_of::<Job>() + keys + details + failure + text(&job.native_state) + history)
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::Life;
    use crate::domain::sightings::Sightings;
    use crate::domain::state::JobState;
    use jiff::Timestamp;

    fn store(max_bytes: u64) -> MemoryStore {
        let day = Duration::from_hours(24);
        MemoryStore::new(Retention {
            max_bytes,
            finished: day,
            unfinished: day,
            missing: Duration::from_hours(1),
        })
    }

    fn seen(source: &str, id: &str, life: Life, second: i64) -> Observation {
        let key = JobKey {
            source: SourceName::parse(source).unwrap(),
            external_id: ExternalId::parse(id).unwrap(),
        };
        let details = Details::MindBridge(Box::default());
        let job = Job::new(key, life, details);
        let at = Timestamp::from_second(second).unwrap();
        Observation::new(Arc::new(job), at, at)
    }

    #[tokio::test]
    async fn older_observation_does_not_replace_a_newer_one() {
        let store = store(1 << 20);
        let (old, new) = (seen("a", "1", Life::Running, 1), seen("a", "1", Life::Succeeded, 2));
        assert_eq!(store.keep(new.clone()).await, StoreOutcome::New(None));
        assert_eq!(store.keep(old).await, StoreOutcome::Older(new.clone()));
        assert_eq!(store.get(std::slice::from_ref(&new.job.key)).await.unwrap(), [Some(new)]);
    }

    #[tokio::test]
    async fn second_run_replaces_a_terminal_state() {
        let store = store(1 << 20);
        let end = seen("a", "1", Life::Succeeded, 2);
        store.keep(end.clone()).await;
        let again = seen("a", "1", Life::Running, 3);
        assert_eq!(store.keep(again.clone()).await, StoreOutcome::New(Some(end)));
        assert_eq!(store.get(std::slice::from_ref(&again.job.key)).await.unwrap(), [Some(again)]);
    }

    #[tokio::test]
    async fn first_seen_times_are_kept_within_a_run() {
        let store = store(1 << 20);
        let steps = [
            (Life::Queued, 1, [Some(1), Some(1), None]),
            (Life::Running, 2, [Some(1), Some(2), None]),
            (Life::Running, 3, [Some(1), Some(2), None]),
            (Life::Succeeded, 4, [Some(1), Some(4), Some(4)]),
            (Life::Succeeded, 5, [Some(1), Some(4), Some(4)]),
            (Life::Running, 6, [Some(6), Some(6), None]),
        ];
        for (life, second, expected) in steps {
            let new = seen("a", "1", life, second);
            store.keep(new.clone()).await;
            let held = store.get(std::slice::from_ref(&new.job.key)).await.unwrap()[0].clone().unwrap();
            let Sightings { first_seen_at, state_since, terminal_seen_at, .. } = held.sightings;
            let times = [first_seen_at, state_since, terminal_seen_at].map(|at| at.map(Timestamp::as_second));
            assert_eq!(times, expected, "at {second}");
        }
    }

    #[tokio::test]
    async fn transitions_of_all_runs_are_kept() {
        let store = store(1 << 20);
        let steps =
            [Life::Queued, Life::Running, Life::Running, Life::Succeeded, Life::Succeeded, Life::Running];
        let mut expected = Vec::new();
        for (life, second) in steps.into_iter().zip(1..) {
            let new = seen("a", "1", life, second);
            if expected.last().is_none_or(|(state, _)| *state != new.job.state()) {
                expected.push((new.job.state(), second));
            }
            store.keep(new.clone()).await;
            let held = store.get(std::slice::from_ref(&new.job.key)).await.unwrap()[0].clone().unwrap();
            let known = held.history.transitions().iter().map(|one| (one.state, one.observed_at.as_second()));
            assert_eq!(known.collect::<Vec<_>>(), expected, "at {second}");
        }
        assert_eq!(expected.len(), 4);
    }

    #[tokio::test]
    async fn job_that_was_removed_is_not_found_by_a_read_without_waiting() {
        let store = store(1 << 20);
        let job = seen("a", "1", Life::Succeeded, 1);
        store.keep(job.clone()).await;
        assert_eq!(store.find_now(&job.job.key), Some(job.clone()));
        store.jobs.invalidate(&job.job.key).await;
        store.jobs.run_pending_tasks().await;
        assert_eq!(store.find_now(&job.job.key), None);
    }

    #[tokio::test]
    async fn read_without_waiting_sees_each_write_that_has_ended() {
        const LAST: i64 = 20_000;
        let store = Arc::new(store(1 << 20));
        let written = Arc::new(AtomicI64::new(0));
        let reader = {
            let (store, written) = (Arc::clone(&store), Arc::clone(&written));
            let key = seen("a", "1", Life::Running, 0).job.key.clone();
            std::thread::spawn(move || {
                loop {
                    let at_least = written.load(Ordering::Acquire);
                    let found = store.find_now(&key).map_or(0, |found| found.observed_at.as_second());
                    assert!(found >= at_least, "{found} after {at_least} was written");
                    if at_least == LAST {
                        return;
                    }
                }
            })
        };
        for second in 1..=LAST {
            store.keep(seen("a", "1", Life::Running, second)).await;
            written.store(second, Ordering::Release);
        }
        reader.join().unwrap();
    }

    #[tokio::test]
    async fn memory_is_bounded_by_bytes() {
        let store = store(100_000);
        for number in 0..2_000 {
            store.keep(seen("a", &format!("job{number}"), Life::Succeeded, 1)).await;
        }
        store.jobs.run_pending_tasks().await;
        assert!(store.jobs.weighted_size() <= 100_000);
        assert!(store.jobs.entry_count() > 50, "{}", store.jobs.entry_count());
    }

    /// Five completed jobs of `a` and five running ones of `b`, kept in no order.
    async fn unordered() -> MemoryStore {
        let store = store(1 << 20);
        for number in [5, 3, 1, 4, 2] {
            store.keep(seen("a", &format!("j{number}"), Life::Succeeded, 1)).await;
            store.keep(seen("b", &format!("j{number}"), Life::Running, 1)).await;
        }
        store
    }

    fn names(page: &[Observation]) -> Vec<String> {
        page.iter().map(|held| held.job.key.to_string()).collect()
    }

    #[tokio::test]
    async fn list_is_sorted_by_key_and_resumes_after_a_key() {
        let (store, all) = (unordered().await, ListFilter::default());
        let first = store.list(&all, None, 3).await.unwrap();
        assert_eq!(names(&first), ["a/j1", "a/j2", "a/j3"]);
        let next = store.list(&all, Some(&first[2].job.key), 3).await.unwrap();
        assert_eq!(names(&next), ["a/j4", "a/j5", "b/j1"]);
    }

    #[tokio::test]
    async fn list_is_filtered_by_state_and_source() {
        let store = unordered().await;
        let running = ListFilter { states: vec![JobState::Running], ..ListFilter::default() };
        assert_eq!(names(&store.list(&running, None, 2).await.unwrap()), ["b/j1", "b/j2"]);
        let of_a = ListFilter { sources: vec![SourceName::parse("a").unwrap()], ..ListFilter::default() };
        let first = store.list(&of_a, None, 3).await.unwrap();
        let rest = store.list(&of_a, Some(&first[2].job.key), 9).await.unwrap();
        assert_eq!(names(&rest), ["a/j4", "a/j5"]);
    }

    #[tokio::test]
    async fn stored_observation_clears_the_missing_mark() {
        let store = store(1 << 20);
        let found = seen("a", "1", Life::Running, 1);
        store.note_missing(&found.job.key).await;
        assert!(store.missing_for(&found.job.key).await.unwrap().is_some());
        let key = found.job.key.clone();
        store.keep(found).await;
        assert_eq!(store.missing_for(&key).await.unwrap(), None);
    }
}
