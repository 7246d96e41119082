//! The durable store on a disk: what survives, what is rejected, and what happens when the disk fails.

use std::fs;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;
use crate::domain::details::Details;
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::job::{Failure, Job, Life};
use crate::domain::state::JobState;
use crate::outbound::stores::record;
use crate::outbound::stores::testing::observation;

mod damage;
mod disk;
mod restart;
mod rows;

/// A clock that a test sets.
#[derive(Debug)]
struct Dial(AtomicU64);

impl Clock for Dial {
    fn now(&self) -> Timestamp {
        let second = self.0.load(Ordering::Relaxed).cast_signed();
        Timestamp::from_second(second).unwrap()
    }
}

const NOW: u64 = 1_700_000_100;
const DAY: Duration = Duration::from_hours(24);

/// The capacity of a simulated disk; `u64::MAX` is no limit.
#[derive(Debug)]
pub(super) struct Quota(AtomicU64);

/// A file on a disk that may be full.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) backend: FileBackend,
    pub(super) quota: Option<Arc<Quota>>,
}

impl Limited {
    fn admit(&self, end: u64) -> std::io::Result<()> {
        let full = self.quota.as_ref().is_some_and(|quota| end > quota.0.load(Ordering::Relaxed));
        if full { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Limited {
    fn len(&self) -> std::io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        // No test here simulates a power failure, and a thousand real syncs are slow.
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.admit(offset + data.len() as u64)?;
        self.backend.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.backend.unlock_range(start, end)
    }
}

/// A temporary folder with a store in it; dropping it removes the folder.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
    quota: Arc<Quota>,
    clock: Arc<Dial>,
    retention: Retention,
    max_bytes: u64,
    rows: RowLimits,
}

impl Disk {
    fn new() -> Self {
        let name = format!("jobgate-store-{}-{:x}", std::process::id(), fastrand::u64(..));
        let missing = Duration::from_hours(1);
        Self {
            folder: std::env::temp_dir().join(name),
            quota: Arc::new(Quota(AtomicU64::new(u64::MAX))),
            clock: Arc::new(Dial(AtomicU64::new(NOW))),
            retention: Retention { max_bytes: 1 << 20, finished: 30 * DAY, unfinished: DAY, missing },
            max_bytes: u64::MAX,
            rows: RowLimits { per_job: 1_000, max_bytes: 10_000 },
        }
    }

    fn place(&self) -> StorePath {
        let mut place = StorePath::new(self.folder.clone());
        place.quota = Some(Arc::clone(&self.quota));
        place
    }

    fn open(&self) -> Result<EmbeddedStore, OpenError> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        EmbeddedStore::open_at(self.place(), self.max_bytes, self.rows, self.retention, clock)
    }

    fn file(&self) -> PathBuf {
        self.place().path()
    }

    /// The names of all files, without the varying part of the names of those that were set aside.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn key(source: &str, id: &str) -> JobKey {
    JobKey { source: SourceName::parse(source).unwrap(), external_id: ExternalId::parse(id).unwrap() }
}

/// A job of source `s`, requested and observed this many seconds before [`NOW`].
fn seen(id: &str, life: Life, ago: i64) -> Observation {
    let job = Job::new(key("s", id), life, Details::MindBridge(Box::default()));
    let at = Timestamp::from_second(NOW.cast_signed() - ago).unwrap();
    Observation::new(Arc::new(job), at, at)
}

async fn held(store: &dyn JobStore, id: &str) -> Option<Observation> {
    store.get(&[key("s", id)]).await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn older_observation_does_not_replace_a_newer_one_on_disk() {
    let disk = Disk::new();
    let end = seen("j", Life::Succeeded, 10);
    disk.open().unwrap().keep(end.clone()).await;
    let store = disk.open().unwrap();
    assert_eq!(store.keep(seen("j", Life::Running, 20)).await, StoreOutcome::Older(end.clone()));
    assert_eq!(held(&store, "j").await, Some(end));
}

#[tokio::test]
async fn second_run_replaces_a_terminal_state_on_disk() {
    let disk = Disk::new();
    let end = seen("j", Life::Succeeded, 10);
    disk.open().unwrap().keep(end.clone()).await;
    let store = disk.open().unwrap();
    let again = seen("j", Life::Running, 5);
    assert_eq!(store.keep(again.clone()).await, StoreOutcome::New(Some(end)));
    drop(store);
    assert_eq!(held(&disk.open().unwrap(), "j").await, Some(again));
}

/// One step of a random sequence.
#[derive(Clone, Debug)]
enum Step {
    Keep(Box<Observation>),
    Get(Vec<JobKey>),
    List(ListFilter, Option<JobKey>, usize),
    Missing(JobKey),
    /// The memory cache is emptied, or the store is closed and opened.
    Forget(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = || ("[ab]", "[xyz]").prop_map(|(source, id)| key(&source, &id));
    let states = prop::collection::vec(prop::sample::select(&JobState::ALL[..]), 0..3);
    let sources = prop::collection::vec("[ab]".prop_map(|name| SourceName::parse(&name).unwrap()), 0..2);
    let since = prop::option::of(
        (0_i64..120_000).prop_map(|ms| Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap()),
    );
    let filter = (sources, states, since).prop_map(|(sources, states, observed_since)| ListFilter {
        sources,
        states,
        observed_since,
    });
    let step = prop_oneof![
        6 => observation("[ab]", "[xyz]").prop_map(|new| Step::Keep(Box::new(new))),
        3 => prop::collection::vec(one(), 1..4).prop_map(Step::Get),
        2 => (filter, prop::option::of(one()), 1_usize..5).prop_map(|(filter, after, limit)| Step::List(filter, after, limit)),
        1 => one().prop_map(Step::Missing),
        1 => any::<bool>().prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 1..25)
}

/// In any sequence of operations, also across restarts, the results are those of a memory store that is never closed.
#[test]
fn file_store_behaves_like_the_memory_store() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let play = |steps: Vec<Step>| {
        runtime.block_on(async {
            let disk = Disk::new();
            // None of the observations is from the future.
            disk.clock.0.store(NOW + 60, Ordering::Relaxed);
            let memory = MemoryStore::new(disk.retention);
            let mut store = disk.open().unwrap();
            for step in steps {
                match step {
                    Step::Keep(new) => {
                        let expected = memory.keep(new.as_ref().clone()).await;
                        prop_assert_eq!(store.keep(*new).await, expected);
                    }
                    Step::Get(keys) => {
                        prop_assert_eq!(store.get(&keys).await.unwrap(), memory.get(&keys).await.unwrap());
                    }
                    Step::List(filter, after, limit) => {
                        let expected = memory.list(&filter, after.as_ref(), limit).await.unwrap();
                        prop_assert_eq!(store.list(&filter, after.as_ref(), limit).await.unwrap(), expected);
                    }
                    Step::Missing(key) => {
                        store.note_missing(&key).await;
                        prop_assert!(store.missing_for(&key).await.unwrap().is_some());
                    }
                    Step::Forget(true) => {
                        drop(store);
                        store = disk.open().unwrap();
                    }
                    Step::Forget(false) => store.memory.jobs.invalidate_all(),
                }
            }
            Ok(())
        })
    };
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) };
    TestRunner::new(config).run(&steps(), play).unwrap();
}

/// What a reader of an evicted key found in the file must not replace what was written while it read.
#[tokio::test]
async fn concurrent_reader_does_not_restore_a_replaced_record() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let before = seen("j", Life::Running, 20);
    store.keep(before.clone()).await;
    store.memory.jobs.invalidate_all();
    let stripe = store.stripe(&before.job.key).load(Ordering::SeqCst);
    let end = seen("j", Life::Succeeded, 10);
    store.keep(end.clone()).await;
    store.memory.jobs.invalidate(&end.job.key).await;
    store.hold(&before, stripe).await;
    assert_eq!(held(&store, "j").await, Some(end));
}

/// A store of 300 jobs, of which few fit into its memory.
async fn larger_than_memory() -> (Disk, EmbeddedStore, Vec<Observation>) {
    let mut disk = Disk::new();
    disk.retention.max_bytes = 20_000;
    let store = disk.open().unwrap();
    let jobs: Vec<Observation> = (0..300).map(|n| seen(&format!("j{n}"), Life::Succeeded, 1)).collect();
    futures_util::future::join_all(jobs.iter().map(|job| store.keep(job.clone()))).await;
    store.memory.jobs.run_pending_tasks().await;
    (disk, store, jobs)
}

#[tokio::test]
async fn memory_cache_is_bounded() {
    let (_disk, store, _) = larger_than_memory().await;
    assert!(store.memory.jobs.weighted_size() <= 20_000 && store.memory.jobs.entry_count() < 100);
}

#[tokio::test]
async fn file_serves_what_the_memory_cache_has_evicted() {
    let (_disk, store, jobs) = larger_than_memory().await;
    let keys: Vec<JobKey> = jobs.iter().map(|job| job.job.key.clone()).collect();
    let read: Vec<Observation> = store.get(&keys).await.unwrap().into_iter().flatten().collect();
    assert_eq!(read, jobs);
    assert_eq!((store.health().jobs, store.health().degraded), (300, false));
}

#[tokio::test]
async fn expired_terminal_records_are_pruned_with_their_labels() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let failed = Life::Failed(Failure::default());
    for (id, life) in [("over", failed), ("open", Life::Running)] {
        store.keep(seen(id, life, 0)).await;
        store.track(vec![(key("s", id), Some(Labels::new()))]).await.unwrap();
    }
    let tracked = async |store: &EmbeddedStore| {
        let remembered = store.remembered().await.unwrap();
        remembered.tracked.into_iter().map(|(key, _)| key.external_id.to_string()).collect::<Vec<_>>()
    };
    for (days, held_then, tracked_then) in
        [(0, 2, vec!["open", "over"]), (2, 1, vec!["open", "over"]), (31, 0, vec!["open"])]
    {
        disk.clock.0.store(NOW + days * 86_400 + 1, Ordering::Relaxed);
        prune::run(&store.shared);
        store.memory.jobs.invalidate_all();
        let all = ListFilter::default();
        assert_eq!(store.list(&all, None, 9).await.unwrap().len(), held_then, "after {days} days");
        assert_eq!(store.health().jobs, held_then as u64, "after {days} days");
        assert_eq!(tracked(&store).await, tracked_then, "after {days} days");
    }
}

#[tokio::test]
async fn oldest_records_are_pruned_above_the_size_limit() {
    let mut disk = Disk::new();
    let store = disk.open().unwrap();
    let long = || Life::Failed(Failure { code: None, message: Some("x".repeat(2_000)) });
    for hour in 0..20 {
        let keep = (0..100).map(|n| store.keep(seen(&format!("h{hour}-{n}"), long(), hour * 3_600)));
        futures_util::future::join_all(keep).await;
    }
    store.close().await;
    drop(store);
    // the same size, however writes were batched; and on a slow machine the store has not pruned by itself before
    redb::Database::open(disk.file()).unwrap().compact().unwrap();
    disk.max_bytes = 2 << 20;
    let store = disk.open().unwrap();
    assert!(disk.place().size() > disk.max_bytes);
    let before = store.health().jobs;
    prune::run(&store.shared);
    let after = store.health().jobs;
    assert!(after < before && after > 0, "{before} {after}");
    assert_eq!(before, 2_000);
    store.memory.jobs.invalidate_all();
    assert!(held(&store, "h0-0").await.is_some(), "the newest stay");
    assert!(held(&store, "h19-0").await.is_none(), "the oldest are removed");
    // The rest fits, by the same measure: another run removes nothing once the file has been used again.
    assert!(store.shared.file.counts.record_bytes.load(Ordering::Relaxed) < disk.max_bytes);
}
