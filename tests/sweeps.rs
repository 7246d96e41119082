//! Sweeps on a paused clock: one list of what changed in place of polls, and what happens when lists are late, wrong,
//! refused or interrupted.

mod discovery;
mod queries;
mod random;
mod replay;
mod replicas;
mod truth;
mod upstream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use jobgate::domain::id::{JobKey, SourceName};
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::domain::sweep::SweepRecord;
use jobgate::jobs::list::{JobListFilter, JobListRequest, JobPage};
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::{Ports, SourceView, SweepStatus};
use jobgate::outbound::stores::memory::MemoryStore;
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::feed::NotificationFeed;
use jobgate::ports::leases::{FencingToken, LeaseManager, LocalLeases};
use jobgate::ports::ledger::{Labels, Ledger, LedgerContents};
use jobgate::ports::store::{JobStore, StoreError};
use jobgate::ports::upstream::JobReader;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::replicas::Replica;
use self::upstream::{Change, ListedUpstream, Lists};
use crate::support::ports::{FOLLOW, RuntimeClock, TestGateway, gateway_with, reference, retention};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// Followed jobs, a few more than one batch.
const JOBS: usize = 120;

/// A ledger that remembers the sweeps, and nothing else.
#[derive(Debug, Default)]
struct SweepNotes(Mutex<Option<SweepRecord>>);

impl Ledger for SweepNotes {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        Box::pin(async { Ok(LedgerContents::default()) })
    }

    fn track(&self, _: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn follow(&self, _: &JobKey, _: bool) {}

    fn sweep<'a>(&'a self, _: &'a JobKey) -> BoxFuture<'a, Result<Option<SweepRecord>, StoreError>> {
        Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
    }

    fn note_sweep<'a>(
        &'a self,
        _: &'a JobKey,
        record: &'a SweepRecord,
        _: FencingToken,
    ) -> BoxFuture<'a, bool> {
        *self.0.lock().unwrap() = Some(record.clone());
        Box::pin(async { true })
    }
}

/// What outlives a gateway: the upstream, the store and the ledger.
struct Ground {
    clock: Arc<dyn Clock>,
    upstream: Arc<ListedUpstream>,
    store: Arc<dyn JobStore>,
    notes: Arc<SweepNotes>,
}

/// A running gateway.
struct Running {
    source: &'static str,
    gateway: TestGateway,
    stop: CancellationToken,
    seen: Seen,
}

/// The updates of each job: when, in which state, and whether it was the last.
type Updates = BTreeMap<String, Vec<(Instant, JobState, bool)>>;

/// The updates that watchers received.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Updates>>);

impl Seen {
    /// When the terminal state of a job was delivered.
    fn ended(&self, id: &str) -> Option<Instant> {
        let updates = self.0.lock().unwrap();
        updates.get(id)?.iter().find(|(_, _, last)| *last).map(|(at, _, _)| *at)
    }

    /// The states of a job, in the order of their updates.
    fn states(&self, id: &str) -> Vec<JobState> {
        self.0.lock().unwrap().get(id).into_iter().flatten().map(|(_, state, _)| *state).collect()
    }
}

impl Ground {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::default());
        Self {
            upstream: ListedUpstream::new(Arc::clone(&clock)),
            clock,
            store: Arc::new(MemoryStore::new(retention())),
            notes: Arc::default(),
        }
    }

    /// Adds running jobs, of which some change.
    fn with_jobs(self, count: usize, changes: impl Fn(usize) -> Vec<Change>) -> Self {
        for number in 0..count {
            self.upstream.add(&format!("j{number}"), changes(number));
        }
        self
    }

    fn start(&self) -> Running {
        self.start_as(None)
    }

    /// A gateway, as one of several replicas or alone.
    fn start_as(&self, replica: Option<&Arc<Replica>>) -> Running {
        let readers = vec![Arc::clone(&self.upstream) as Arc<dyn JobReader>];
        let (leases, feed): (Arc<dyn LeaseManager>, Arc<dyn NotificationFeed>) = match replica {
            Some(replica) => (replica.clone(), replica.clone()),
            None => (Arc::new(LocalLeases), Arc::new(LocalLeases)),
        };
        let ledger: Arc<dyn Ledger> = match replica {
            Some(replica) => replica.ledger(&self.notes),
            None => self.notes.clone(),
        };
        start_on("mind", self.clock.clone(), self.store.clone(), ledger, readers, leases, feed)
    }
}

/// Starts a gateway with this source.
fn start_on(
    source: &'static str,
    clock: Arc<dyn Clock>,
    store: Arc<dyn JobStore>,
    ledger: Arc<dyn Ledger>,
    readers: Vec<Arc<dyn JobReader>>,
    leases: Arc<dyn LeaseManager>,
    feed: Arc<dyn NotificationFeed>,
) -> Running {
    let gateway =
        gateway_with(FOLLOW, clock, store, ledger, |ports| Ports { readers, leases, feed, ..ports });
    let stop = CancellationToken::new();
    gateway.jobs.start_following(stop.clone());
    Running { source, gateway, stop, seen: Seen::default() }
}

impl Running {
    /// Watches jobs as long as the test lasts, or as the gateway runs.
    fn watch(&self, jobs: std::ops::Range<usize>, max_staleness: Option<Duration>) {
        let refs: Vec<RequestedRef> =
            jobs.map(|number| reference(self.source, &format!("j{number}"))).collect();
        for some in refs.chunks(200) {
            let mut updates =
                Box::pin(self.gateway.jobs.watch(Principal::local(), some.to_vec(), max_staleness));
            let (seen, stop) = (self.seen.clone(), self.stop.clone());
            let reads = async move {
                while let Some(update) = updates.next().await {
                    // A first read that takes long is reported as a problem, and published later.
                    let Ok(answer) = update.answer else { continue };
                    let job = &answer.observation.job;
                    let id = job.key.external_id.to_string();
                    let entry = (Instant::now(), job.state(), update.is_final);
                    seen.0.lock().unwrap().entry(id).or_default().push(entry);
                }
            };
            #[expect(clippy::disallowed_methods, reason = "a task of the test")]
            tokio::spawn(async move {
                tokio::select! {
                    () = reads => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    fn view(&self) -> SourceView {
        let source = SourceName::parse(self.source).unwrap();
        self.gateway.jobs.source(&Principal::local(), &source).unwrap()
    }

    fn status(&self) -> SweepStatus {
        self.view().sweep.unwrap()
    }

    fn discovers(&self) -> bool {
        self.view().discovers
    }

    /// The stored jobs that a client may see, with their states.
    async fn listed_for(&self, client: &Principal) -> Vec<String> {
        let page = self.page(client, JobListFilter::default()).await;
        let jobs = page.jobs.iter().map(|listed| &listed.snapshot.observation.job);
        jobs.map(|job| format!("{} {:?}", job.key.external_id, job.state())).collect()
    }

    /// The first stored jobs that match and that a client may see.
    async fn page(&self, client: &Principal, filter: JobListFilter) -> JobPage {
        let request = JobListRequest { counts: true, ..JobListRequest::new(filter, 100) };
        self.gateway.jobs.list(client, &request).await.unwrap()
    }

    async fn listed(&self) -> Vec<String> {
        self.listed_for(&Principal::local()).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.gateway.spawner.idle().await;
    }
}

fn seconds(count: usize) -> Duration {
    Duration::from_secs(count as u64)
}

fn ends(at: Duration) -> Vec<Change> {
    vec![Change { at, late: Duration::ZERO, life: Life::Succeeded }]
}

/// The same for one job.
fn one_ends(number: usize, at: Duration) -> impl Fn(usize) -> Vec<Change> {
    move |job| if job == number { ends(at) } else { Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_unchanged_jobs_need_one_list_a_round() {
    let ground = Ground::new().with_jobs(10_000, |_| Vec::new());
    tokio::time::sleep(MINUTE * 20).await;
    let running = ground.start();
    running.watch(0..10_000, None);
    tokio::time::sleep(MINUTE * 5).await;
    let (rounds, (lists, reads)) = (rounds(&ground), ground.upstream.calls());
    tokio::time::sleep(MINUTE * 12).await;
    let made = rounds_since(&ground, rounds);
    let (lists, reads) = (ground.upstream.calls().0 - lists, ground.upstream.calls().1 - reads);
    assert_eq!(running.status().verify_interval, MINUTE * 15, "a tenth of the budget");
    assert!(lists as u64 <= made, "{lists} list calls in {made} rounds");
    assert!((200..=720).contains(&lists), "{lists} list calls in 12 minutes");
    assert!((75..=100).contains(&reads), "{reads} reads by id in four fifths of a verification interval");
    running.stop().await;
}

fn rounds(ground: &Ground) -> u64 {
    ground.notes.0.lock().unwrap().as_ref().map_or(0, |record| record.rounds)
}

fn rounds_since(ground: &Ground, before: u64) -> u64 {
    rounds(ground) - before
}

#[tokio::test(start_paused = true)]
async fn one_batch_of_followed_jobs_is_polled_without_a_list() {
    let ground = Ground::new().with_jobs(100, |_| Vec::new());
    let running = ground.start();
    running.watch(0..100, Some(SECOND * 5));
    tokio::time::sleep(MINUTE * 10).await;
    assert_eq!(ground.upstream.calls().0, 0);
    assert_eq!(running.status().swept_at, None);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listed_change_is_delivered_once_and_soon() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    let running = ground.start();
    let start = Instant::now();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 40).await;
    let ended = running.seen.ended("j7").unwrap() - start;
    assert!(ended < MINUTE * 30 + SECOND * 26, "{ended:?}");
    assert_eq!(running.seen.states("j7"), [JobState::Running, JobState::Succeeded]);
    assert_eq!(running.seen.states("j8"), [JobState::Running]);
    assert!(running.status().trusted);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lowest_max_staleness_of_a_watcher_paces_the_sweeps() {
    let ground = Ground::new().with_jobs(JOBS, |_| Vec::new());
    let running = ground.start();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 30).await;
    let before = ground.upstream.calls().0;
    tokio::time::sleep(MINUTE * 10).await;
    let usual = ground.upstream.calls().0 - before;
    running.watch(0..1, Some(SECOND * 5));
    tokio::time::sleep(MINUTE).await;
    let (lists, reads) = ground.upstream.calls();
    tokio::time::sleep(MINUTE * 10).await;
    let (eager, read) = (ground.upstream.calls().0 - lists, ground.upstream.calls().1 - reads);
    assert!((20..=30).contains(&usual), "{usual} lists in ten minutes, as many as polls");
    assert!((115..=121).contains(&eager), "{eager} lists in ten minutes");
    assert!(read < 10, "{read} reads by id: the lists suffice for the watcher");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_appears_late_in_the_list_is_not_missed() {
    let late = |job: usize| match job {
        7 => vec![Change { at: MINUTE * 30, late: SECOND * 50, life: Life::Succeeded }],
        // Others change meanwhile, so that the watermark moves on.
        8..60 => ends(MINUTE * 30 + seconds(job)),
        _ => Vec::new(),
    };
    let ground = Ground::new().with_jobs(JOBS + 60, late);
    let running = ground.start();
    let start = Instant::now();
    running.watch(0..JOBS + 60, None);
    tokio::time::sleep(MINUTE * 45).await;
    let ended = running.seen.ended("j7").unwrap() - start;
    assert!(ended < MINUTE * 30 + SECOND * 50 + SECOND * 26, "{ended:?}");
    assert!(running.status().trusted);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clocks_of_the_upstream_may_differ_from_ours() {
    for skew in [(-300, -300), (300, 300), (-300, 300), (86_400, 86_400), (120, 0)] {
        let ground = Ground::new().with_jobs(JOBS, |job| ends(MINUTE * 20 + seconds(job * 60)));
        *ground.upstream.skew.lock().unwrap() = skew;
        let running = ground.start();
        let start = Instant::now();
        running.watch(0..JOBS, None);
        tokio::time::sleep(MINUTE * 38).await;
        for job in 0..17 {
            let ended = running.seen.ended(&format!("j{job}"));
            assert!(ended.is_some(), "{skew:?} {job}");
            let late = (ended.unwrap() - start).saturating_sub(MINUTE * 20 + MINUTE * job);
            assert!(late < SECOND * 30, "{skew:?} {job}: {late:?}");
        }
        assert!(running.status().trusted, "{skew:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_no_list_contains_ends_the_sweeps() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    *ground.upstream.lists.lock().unwrap() = Lists::Empty;
    let running = ground.start();
    let start = Instant::now();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 29).await;
    assert!(running.status().trusted && running.status().in_force);
    tokio::time::sleep(MINUTE * 11).await;
    let ended = running.seen.ended("j7").unwrap() - start;
    assert!(ended <= MINUTE * 40 + SECOND, "within the verification interval: {ended:?}");
    tokio::time::sleep(MINUTE * 2).await;
    assert!(!running.status().trusted && !running.status().in_force);
    let (lists, reads) = ground.upstream.calls();
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(ground.upstream.calls().0, lists, "no list is requested");
    assert!(ground.upstream.calls().1 - reads >= 8, "jobs are polled");
    assert!(!ground.notes.0.lock().unwrap().as_ref().unwrap().is_trusted(ground.clock.time_of_day()));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sweeps_are_trusted_again_after_a_time() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    *ground.upstream.lists.lock().unwrap() = Lists::Empty;
    let running = ground.start();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 43).await;
    assert!(!running.status().trusted);
    *ground.upstream.lists.lock().unwrap() = Lists::Complete;
    tokio::time::sleep(MINUTE * 12).await;
    assert!(running.status().trusted && running.status().in_force);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_are_polled_where_lists_are_refused() {
    for status in [400, 405] {
        let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 15));
        *ground.upstream.lists.lock().unwrap() = Lists::Refused(status);
        let running = ground.start();
        let start = Instant::now();
        running.watch(0..JOBS, None);
        tokio::time::sleep(MINUTE * 16).await;
        let ended = running.seen.ended("j7").unwrap() - start;
        assert!(ended < MINUTE * 15 + SECOND * 31, "{ended:?}");
        assert_eq!(ground.upstream.calls().0, 2, "one list every ten minutes");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn polls_take_over_while_lists_fail() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    let running = ground.start();
    let start = Instant::now();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 29).await;
    assert!(running.status().in_force);
    *ground.upstream.lists.lock().unwrap() = Lists::Broken;
    tokio::time::sleep(MINUTE * 3).await;
    let ended = running.seen.ended("j7").unwrap() - start;
    assert!(ended < MINUTE * 30 + SECOND * 31, "{ended:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_restart_are_found_by_the_first_list() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 31));
    let first = ground.start();
    first.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 30).await;
    let watermark = ground.notes.0.lock().unwrap().clone().unwrap().watermark;
    first.stop().await;
    tokio::time::sleep(MINUTE * 5).await;
    let second = ground.start();
    second.watch(0..JOBS, Some(MINUTE * 60));
    tokio::time::sleep(SECOND * 10).await;
    let record = ground.notes.0.lock().unwrap().clone().unwrap();
    assert!(record.watermark > watermark, "the list began at the watermark of the process before");
    assert_eq!(second.seen.states("j7").last(), Some(&JobState::Succeeded));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn distrust_survives_a_restart() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    *ground.upstream.lists.lock().unwrap() = Lists::Empty;
    let first = ground.start();
    first.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 43).await;
    assert!(!first.status().trusted);
    first.stop().await;
    let lists = ground.upstream.calls().0;
    let second = ground.start();
    second.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(ground.upstream.calls().0, lists);
    assert!(!second.status().trusted);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn distrust_is_shown_while_nothing_is_swept() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    *ground.upstream.lists.lock().unwrap() = Lists::Empty;
    let first = ground.start();
    first.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 43).await;
    assert!(!first.status().trusted);
    first.stop().await;
    let second = ground.start();
    second.watch(0..3, None);
    tokio::time::sleep(MINUTE).await;
    assert!(!second.status().trusted && !second.status().in_force);
    second.stop().await;
}
