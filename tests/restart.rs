//! After a restart, on a paused clock: polling of tracked and followed jobs continues without a request, spread over
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::Life;
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::{FollowSettings, Ports};
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::ledger::{Ledger, LedgerContents};
use jobgate::ports::store::{JobStore, StoreError};
use jobgate::ports::upstream::{FetchError, JobReader};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support;
use crate::support::ports::{
    RuntimeClock, TestGateway, failed, gateway_on, gateway_with, reference, retention,
};

/// An interval that one source with one call at a time can keep.
const FOLLOW: FollowSettings = FollowSettings {
    pace: PollIntervals { fastest: Duration::from_secs(20), slowest: Duration::from_secs(30) },
    ..support::ports::FOLLOW
};

/// A ledger that outlives its gateway.
#[derive(Debug, Default)]
struct Notes {
    tracked: Mutex<BTreeMap<JobKey, Labels>>,
    followed: Mutex<BTreeSet<JobKey>>,
    /// Cannot be read.
    shut: AtomicBool,
}

impl Ledger for Notes {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        if self.shut.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError("shut".to_owned())) });
        }
        let tracked = self.tracked.lock().unwrap().clone().into_iter().collect();
        let followed = self.followed.lock().unwrap().iter().cloned().collect();
        Box::pin(async { Ok(LedgerContents { tracked, followed }) })
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut tracked = self.tracked.lock().unwrap();
        for (key, labels) in jobs {
            match labels {
                Some(labels) => tracked.insert(key, labels),
                None => tracked.remove(&key),
            };
        }
        Box::pin(async { Ok(()) })
    }

    fn follow(&self, key: &JobKey, followed: bool) {
        let mut marks = self.followed.lock().unwrap();
        if followed {
            marks.insert(key.clone());
        } else {
            marks.remove(key);
        }
    }
}

/// The state that outlives a gateway.
struct Ground {
    clock: Arc<dyn Clock>,
    store: Arc<dyn JobStore>,
    notes: Arc<Notes>,
}

impl Ground {
    fn new() -> Self {
        let day = Duration::from_hours(24);
        let retention = Retention { max_bytes: 64 << 20, finished: day, unfinished: day, missing: day };
        Self {
            clock: Arc::new(RuntimeClock::default()),
            store: Arc::new(MemoryStore::new(retention)),
            notes: Arc::default(),
        }
    }

    /// A new process on the state of an earlier one, and its cancellation token.
    fn start(&self) -> (TestGateway, CancellationToken) {
        self.start_following_by(FOLLOW)
    }

    fn start_following_by(&self, follow: FollowSettings) -> (TestGateway, CancellationToken) {
        let notes = Arc::clone(&self.notes) as Arc<dyn Ledger>;
        let gateway = gateway_on(follow, Arc::clone(&self.clock), Arc::clone(&self.store), notes);
        let stop = CancellationToken::new();
        gateway.jobs.start_following(stop.clone());
        (gateway, stop)
    }
}

fn refs(source: &str, range: std::ops::Range<usize>) -> Vec<RequestedRef> {
    range.map(|number| reference(source, &format!("j{number}"))).collect()
}

/// The state after a process died that tracked 60 jobs with labels, watched 5 and had read others.
async fn after_tracking() -> (Ground, Labels) {
    let ground = Ground::new();
    let (gateway, stop) = ground.start();
    let labels = Labels::from([("team".to_owned(), "audit".to_owned())]);
    let me = Principal::local();
    for some in refs("metrics", 0..60).chunks(20) {
        gateway.jobs.track(&me, some, &labels).await.unwrap();
    }
    let watching = gateway.jobs.watch(me.clone(), refs("metrics", 60..65), None);
    let mut watching = Box::pin(watching);
    futures_util::StreamExt::next(&mut watching).await.unwrap();
    gateway.jobs.lookup(&me, &refs("metrics", 90..95), None).await;
    // the process dies with everything in its memory
    stop.cancel();
    gateway.spawner.idle().await;
    drop((watching, gateway));
    let marks = ground.notes.followed.lock().unwrap().len();
    assert_eq!((ground.notes.tracked.lock().unwrap().len(), marks), (60, 65));
    (ground, labels)
}

#[tokio::test(start_paused = true)]
async fn followed_jobs_resume_spread_out_after_a_restart() {
    let (ground, _) = after_tracking().await;
    let start = Instant::now();
    let (gateway, _stop) = ground.start();
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    while start.elapsed() < FOLLOW.pace.slowest + Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for batches in gateway.supermetrics.batches.lock().unwrap().iter().flatten() {
            first.entry(batches.clone()).or_insert_with(|| start.elapsed().as_secs());
        }
    }
    assert_eq!(first.len(), 65, "all followed jobs, and none that was only read once");
    let mut a_second: BTreeMap<u64, usize> = BTreeMap::new();
    for second in first.values() {
        *a_second.entry(*second).or_default() += 1;
    }
    assert!(a_second.len() > 15 && a_second.values().all(|jobs| *jobs < 10), "{a_second:?}");
    assert_eq!(gateway.jobs.followed(), 65);
}

/// Lets every job of a restarted gateway complete.
async fn completed(ground: &Ground) -> TestGateway {
    let (gateway, _) = ground.start();
    tokio::time::sleep(FOLLOW.pace.slowest + Duration::from_secs(2)).await;
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    tokio::time::sleep(FOLLOW.pace.slowest + FOLLOW.unsubscribe_grace + Duration::from_secs(5)).await;
    gateway
}

#[tokio::test(start_paused = true)]
async fn a_completed_job_is_not_followed_any_more() {
    let (ground, _) = after_tracking().await;
    let gateway = completed(&ground).await;
    assert_eq!(gateway.jobs.followed(), 0);
    assert!(ground.notes.followed.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_completed_job_is_not_polled_after_a_restart() {
    let (ground, _) = after_tracking().await;
    completed(&ground).await;
    let (gateway, _stop) = ground.start();
    tokio::time::sleep(FOLLOW.pace.slowest * 2).await;
    assert_eq!((gateway.supermetrics.calls(), gateway.jobs.followed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn labels_survive_a_restart_and_the_completion_of_the_job() {
    let (ground, labels) = after_tracking().await;
    let gateway = completed(&ground).await;
    let key = JobKey {
        source: SourceName::parse("metrics").unwrap(),
        external_id: ExternalId::parse("j3").unwrap(),
    };
    assert_eq!(gateway.jobs.labels(&key), Some(labels));
}

/// A process that starts without the source `metrics`, after one that tracked three jobs of it and watched two.
async fn without_metrics() -> (Ground, TestGateway, Labels) {
    let ground = Ground::new();
    let (gateway, stop) = ground.start();
    let labels = Labels::from([("team".to_owned(), "audit".to_owned())]);
    let me = Principal::local();
    gateway.jobs.track(&me, &refs("metrics", 0..3), &labels).await.unwrap();
    let watching = gateway.jobs.watch(me, refs("metrics", 3..5), None);
    let mut watching = Box::pin(watching);
    futures_util::StreamExt::next(&mut watching).await.unwrap();
    stop.cancel();
    gateway.spawner.idle().await;
    drop((watching, gateway));

    let notes = Arc::clone(&ground.notes) as Arc<dyn Ledger>;
    let without = |mut ports: Ports| {
        ports.readers.retain(|reader| reader.name().as_str() == "mind");
        ports
    };
    let gateway = gateway_with(FOLLOW, Arc::clone(&ground.clock), Arc::clone(&ground.store), notes, without);
    gateway.jobs.start_following(CancellationToken::new());
    tokio::time::sleep(FOLLOW.pace.slowest * 2).await;
    (ground, gateway, labels)
}

fn add_metrics(gateway: &TestGateway) {
    let mindbridge = Arc::clone(&gateway.mindbridge) as Arc<dyn JobReader>;
    gateway.jobs.put_sources(vec![mindbridge, Arc::clone(&gateway.supermetrics) as _]);
}

/// The jobs of the source `metrics` that were polled.
fn polled(gateway: &TestGateway) -> BTreeSet<String> {
    gateway.supermetrics.batches.lock().unwrap().iter().flatten().cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn jobs_of_an_unconfigured_source_are_not_followed() {
    let (_ground, gateway, _) = without_metrics().await;
    assert_eq!(gateway.jobs.followed(), 0, "there is no source to call");
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_source_added_later_are_followed_again() {
    let (_ground, gateway, _) = without_metrics().await;
    add_metrics(&gateway);
    tokio::time::sleep(FOLLOW.pace.slowest + Duration::from_secs(2)).await;
    assert_eq!(polled(&gateway).len(), 5, "{:?}", polled(&gateway));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_ledger_is_read_again_for_an_added_source() {
    let (ground, gateway, _) = without_metrics().await;
    ground.notes.shut.store(true, Ordering::Relaxed);
    add_metrics(&gateway);
    tokio::time::sleep(FOLLOW.pace.slowest * 2).await;
    assert_eq!(gateway.jobs.followed(), 0, "the ledger cannot be read");
    ground.notes.shut.store(false, Ordering::Relaxed);
    tokio::time::sleep(FOLLOW.pace.slowest + Duration::from_secs(7)).await;
    assert_eq!(polled(&gateway).len(), 5, "{:?}", polled(&gateway));
}

/// A source that was added, removed and added again, whose jobs have completed since.
async fn with_metrics_added_again() -> (TestGateway, Labels) {
    let (_, gateway, labels) = without_metrics().await;
    add_metrics(&gateway);
    tokio::time::sleep(FOLLOW.pace.slowest + Duration::from_secs(2)).await;
    assert_eq!(gateway.jobs.followed(), 5);
    // no change is reported between the two
    gateway.jobs.put_sources(vec![Arc::clone(&gateway.mindbridge) as Arc<dyn JobReader>]);
    add_metrics(&gateway);
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    tokio::time::sleep(FOLLOW.pace.slowest + FOLLOW.unsubscribe_grace + Duration::from_secs(5)).await;
    (gateway, labels)
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_source_removed_and_added_again_are_followed() {
    let (gateway, _) = with_metrics_added_again().await;
    assert_eq!(gateway.jobs.followed(), 0, "all have completed");
    let held = gateway.jobs.lookup(&Principal::local(), &refs("metrics", 0..3), None).await;
    let states: Vec<_> = held.iter().flatten().map(|seen| seen.observation.job.state()).collect();
    assert_eq!(states, [JobState::Succeeded; 3]);
}

#[tokio::test(start_paused = true)]
async fn labels_survive_the_removal_of_their_source() {
    let (gateway, labels) = with_metrics_added_again().await;
    let key = JobKey {
        source: SourceName::parse("metrics").unwrap(),
        external_id: ExternalId::parse("j2").unwrap(),
    };
    assert_eq!(gateway.jobs.labels(&key), Some(labels));
}

/// Only a gateway with a memory can distinguish "expired" from "never existed", also across a restart.
#[tokio::test(start_paused = true)]
async fn a_job_observed_before_a_restart_expires_once_missing() {
    let ground = Ground::new();
    let (gateway, stop) = ground.start();
    gateway
        .supermetrics
        .respond_with(|id| if id.as_str() == "j1" { Ok(failed()) } else { Ok(Life::Running) });
    let me = Principal::local();
    gateway.jobs.lookup(&me, &refs("metrics", 0..2), None).await;
    stop.cancel();
    drop(gateway);
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (gateway, _stop) = ground.start();
    gateway.supermetrics.respond_with(|_| Err(FetchError::NotFound));
    let states: Vec<_> = gateway.jobs.lookup(&me, &refs("metrics", 0..3), None).await;
    let states: Vec<Option<JobState>> =
        states.into_iter().map(|answer| answer.ok().map(|seen| seen.observation.job.state())).collect();
    assert_eq!(states, [Some(JobState::Expired), Some(JobState::Failed), None]);
}

/// A disk that accepts no write.
#[derive(Debug)]
struct FullDisk;

impl Ledger for FullDisk {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        Box::pin(std::future::ready(Ok(LedgerContents::default())))
    }

    fn track(&self, _: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Err(StoreError("no space left".to_owned()))))
    }

    fn follow(&self, _: &JobKey, _: bool) {}
}

#[tokio::test(start_paused = true)]
async fn tracking_reports_whether_the_store_persisted_it() {
    let store = Arc::new(MemoryStore::new(retention()));
    let refs = [reference("mind", "a")];
    for (ledger, is_stored) in
        [(Arc::new(FullDisk) as Arc<dyn Ledger>, false), (Arc::new(NoLedger) as Arc<dyn Ledger>, true)]
    {
        let gateway = gateway_on(FOLLOW, Arc::new(RuntimeClock::default()), Arc::clone(&store) as _, ledger);
        let report = gateway.jobs.track_and_report(&Principal::local(), &refs, &Labels::new()).await.unwrap();
        assert_eq!(report.is_stored, is_stored);
        let key = &report.answers[0].as_ref().unwrap().observation.job.key;
        assert_eq!(gateway.jobs.labels(key), Some(Labels::new()), "it is tracked nevertheless");
    }
}

/// Jobs that are watched over a restart, and complete two seconds after it: the delay of each watcher.
#[tokio::test(start_paused = true)]
async fn terminal_states_are_delivered_in_time_after_a_restart() {
    for source in ["mind", "metrics"] {
        let ground = Ground::new();
        let follow = support::ports::FOLLOW;
        let (gateway, stop) = ground.start_following_by(follow);
        let me = Principal::local();
        let mut watching = Box::pin(gateway.jobs.watch(me.clone(), refs(source, 0..8), None));
        futures_util::StreamExt::next(&mut watching).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        stop.cancel();
        gateway.spawner.idle().await;
        drop((watching, gateway));

        let (gateway, _stop) = ground.start_following_by(follow);
        let ends = Instant::now() + Duration::from_secs(2);
        for reader in [&gateway.mindbridge, &gateway.supermetrics] {
            reader.respond_with(move |_| {
                Ok(if Instant::now() < ends { Life::Running } else { Life::Succeeded })
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let watched = gateway.jobs.watch(me.clone(), refs(source, 0..4), None);
        let watched = futures_util::StreamExt::collect::<Vec<_>>(watched);
        let waited = futures_util::future::join_all(refs(source, 4..8).into_iter().map(|one| {
            let (jobs, me) = (gateway.jobs.clone(), me.clone());
            async move { jobs.await_end(&me, one, Duration::from_secs(20)).await }
        }));
        let (updates, answers) = tokio::join!(watched, waited);
        assert_eq!(updates.iter().filter(|update| update.is_final).count(), 4);
        for answer in answers {
            assert_eq!(answer.unwrap().observation.job.state(), JobState::Succeeded);
        }
        let late = Instant::now() - ends;
        // `metrics` accepts one call at a time, of 100 ms each
        assert!(late <= Duration::from_millis(2_200), "{source}: {late:?} late");
    }
}
