//! Sweeps of a source that lists the jobs that are not terminal, each with its state alone: Supermetrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Job, Life, Progress};
use jobgate::domain::observation::Observation;
use jobgate::domain::source::SourceStatus;
use jobgate::domain::state::JobState;
use jobgate::domain::sweep::DiscoveryRules;
use jobgate::domain::upstream::Upstream;
use jobgate::outbound::stores::memory::MemoryStore;
use jobgate::outbound::upstreams::limiter::{CallOutcome, LimiterSettings, UpstreamLimiter};
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::Credential;
use jobgate::ports::leases::LocalLeases;
use jobgate::ports::listing::{JobListing, ListError, ListSupport, Listed, UnfinishedJob};
use jobgate::ports::store::{JobStore, ListFilter, StoreError, StoreOutcome};
use jobgate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use tokio::time::Instant;

use super::{MINUTE, Running, SECOND, Seen, SweepNotes, seconds, start_on};
use crate::support::ports::{RuntimeClock, job, limited_status, retention};

const LATENCY: Duration = Duration::from_millis(150);
/// For how long the status of an ended query can be read.
const READABLE: Duration = Duration::from_hours(1);
const LIMITS: LimiterSettings = LimiterSettings {
    per_second: 10,
    per_hour: 5_000,
    caller_share: 20,
    concurrency: 8,
    max_wait: Duration::from_secs(10),
};

/// A query: when it starts to run and when it ends, since the start.
#[derive(Clone, Copy, Debug)]
struct Query {
    runs: Duration,
    ends: Duration,
    /// Its data source is listed.
    listed: bool,
    /// When it runs again, and when that run ends.
    again: Option<(Duration, Duration)>,
}

/// An account with the default budget.
pub(super) struct Account {
    name: SourceName,
    start: Instant,
    clock: Arc<dyn Clock>,
    queries: Mutex<BTreeMap<String, Query>>,
    limiter: Arc<UpstreamLimiter>,
    /// How much later lists show what happens.
    lag: Mutex<Duration>,
    /// Every other list is without half of the queries.
    forgets: AtomicBool,
    /// The list is refused, with status 403.
    refuses: AtomicBool,
    /// No call is answered.
    is_down: AtomicBool,
    discovery: Mutex<Option<DiscoveryRules>>,
    lists: AtomicUsize,
    reads: Mutex<BTreeMap<String, Vec<Instant>>>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Account")
    }
}

impl Account {
    fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let name = SourceName::parse("metrics").unwrap();
        Arc::new(Self {
            limiter: UpstreamLimiter::new(name.clone(), LIMITS, None),
            name,
            start: Instant::now(),
            clock,
            queries: Mutex::default(),
            lag: Mutex::default(),
            forgets: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            discovery: Mutex::default(),
            lists: AtomicUsize::new(0),
            reads: Mutex::default(),
        })
    }

    fn add(&self, number: usize, query: Query) {
        self.queries.lock().unwrap().insert(format!("j{number}"), query);
    }

    /// The run at this time: the first, or the second.
    fn run(query: &Query, now: Duration) -> Query {
        let again = query.again.filter(|(runs, _)| now >= *runs);
        again.map_or(*query, |(runs, ends)| Query { runs, ends, ..*query })
    }

    fn state(query: &Query, now: Duration) -> Life {
        if now < query.runs {
            Life::Queued
        } else if now < query.ends {
            Life::Running
        } else {
            Life::Succeeded
        }
    }

    fn read(&self, id: &ExternalId) -> Result<Arc<Job>, FetchError> {
        let now = self.start.elapsed();
        let query = self.queries.lock().unwrap().get(id.as_str()).copied().ok_or(FetchError::NotFound)?;
        let query = Self::run(&query, now);
        if now >= query.ends + READABLE {
            return Err(FetchError::NotFound);
        }
        let known = job("metrics", id.as_str(), Upstream::Supermetrics, Self::state(&query, now));
        Ok(Arc::new(Job { progress: Progress::new(now.as_secs() / 60, 100), ..known }))
    }

    /// Waits for the budget and for the response.
    async fn call(&self, trigger: &FetchTrigger) -> Result<Timestamp, FetchError> {
        let permit = self.limiter.acquire(trigger, SECOND * 15).await.map_err(FetchError::from)?;
        let requested_at = self.clock.now();
        tokio::time::sleep(LATENCY).await;
        permit.finish(CallOutcome::Answered);
        if self.is_down.load(Ordering::Relaxed) {
            return Err(FetchError::Unavailable(Detail::new("no response")));
        }
        Ok(requested_at)
    }

    fn list_calls(&self) -> usize {
        self.lists.load(Ordering::Relaxed)
    }

    fn read_calls(&self) -> usize {
        self.reads.lock().unwrap().values().map(Vec::len).sum()
    }
}

impl JobReader for Account {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        Upstream::Supermetrics
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let mut fetches = Vec::new();
            for id in ids {
                let called = self.call(trigger).await;
                let observed_at = self.clock.now();
                let requested_at = *called.as_ref().unwrap_or(&observed_at);
                if called.is_ok() {
                    let mut reads = self.reads.lock().unwrap();
                    reads.entry(id.to_string()).or_default().push(Instant::now());
                }
                let outcome = called.and_then(|_| self.read(id));
                fetches.push(Fetch { requested_at, observed_at, outcome });
            }
            fetches
        })
    }

    fn rows<'a>(
        &'a self,
        _: &'a ExternalId,
        _: RowRange,
        _: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(std::future::ready(Err(FetchError::NotFound)))
    }

    fn list_support(&self) -> Option<ListSupport> {
        Some(ListSupport::Unfinished)
    }

    fn discovery(&self) -> Option<DiscoveryRules> {
        *self.discovery.lock().unwrap()
    }

    fn list(&self, _: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        Box::pin(async move {
            let called = self.call(&FetchTrigger::Background).await;
            let observed_at = self.clock.now();
            let requested_at = *called.as_ref().unwrap_or(&observed_at);
            let number = self.lists.fetch_add(1, Ordering::Relaxed);
            let forgets = self.forgets.load(Ordering::Relaxed) && number % 2 == 1;
            let shown = self.start.elapsed().saturating_sub(*self.lag.lock().unwrap());
            let queries = self.queries.lock().unwrap().clone();
            let queries: BTreeMap<_, _> =
                queries.into_iter().map(|(id, query)| (id, Self::run(&query, shown))).collect();
            let listed = queries.iter().enumerate().filter(|(index, (_, query))| {
                query.listed && shown < query.ends && !(forgets && index % 2 == 1)
            });
            let listed = listed.map(|(_, (id, query))| UnfinishedJob {
                id: ExternalId::parse(id).unwrap(),
                state: if shown < query.runs { JobState::Queued } else { JobState::Running },
                native_state: None,
                begun: Some(format!("2026-11-28 12:{:02}:00", query.runs.as_secs() / 60)),
                requested_at,
                observed_at,
            });
            let outcome = match called {
                Ok(_) if self.refuses.load(Ordering::Relaxed) => Err(ListError::Refused(403)),
                Ok(_) => Ok(Listed::Unfinished(listed.collect())),
                Err(error) => Err(error.into()),
            };
            Some(JobListing { requested_at, upstream_time: None, calls: 1, outcome })
        })
    }

    fn probe<'a>(&'a self, _: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.limiter.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.limiter.take_recheck()
    }

    fn status(&self) -> SourceStatus {
        limited_status(&self.name, Upstream::Supermetrics, &self.limiter)
    }
}

/// What outlives a gateway beside its account.
#[derive(Clone)]
struct Kept {
    store: Arc<dyn JobStore>,
    notes: Arc<SweepNotes>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { store: Arc::new(MemoryStore::new(retention())), notes: Arc::default() }
    }
}

/// A gateway with this account.
fn start(account: &Arc<Account>) -> Running {
    start_after(account, &Kept::default())
}

/// A gateway with this account, and with what others before it stored.
fn start_after(account: &Arc<Account>, kept: &Kept) -> Running {
    let alone = Arc::new(LocalLeases);
    let readers = vec![Arc::clone(account) as Arc<dyn JobReader>];
    let Kept { store, notes } = kept.clone();
    start_on("metrics", account.clock.clone(), store, notes, readers, alone.clone(), alone)
}

fn account(count: usize, query: impl Fn(usize) -> Query) -> Arc<Account> {
    let account = Account::new(Arc::new(RuntimeClock::default()));
    (0..count).for_each(|number| account.add(number, query(number)));
    account
}

const fn runs_until(ends: Duration) -> Query {
    Query { runs: Duration::ZERO, ends, listed: true, again: None }
}

/// How late the terminal states of jobs were delivered, sorted.
fn lags(seen: &Seen, account: &Account) -> Vec<Duration> {
    let queries = account.queries.lock().unwrap().clone();
    let mut lags: Vec<Duration> = queries
        .iter()
        .filter(|(_, query)| account.start + query.ends <= Instant::now())
        .map(|(id, query)| {
            let ended = seen.ended(id);
            assert!(ended.is_some(), "no watcher knows that {id} ended");
            ended.unwrap() - (account.start + query.ends)
        })
        .collect();
    lags.sort();
    lags
}

#[tokio::test(start_paused = true)]
async fn a_thousand_running_queries_need_one_list_a_round() {
    let account = account(1_000, |_| runs_until(MINUTE * 600));
    let running = start(&account);
    running.watch(0..1_000, None);
    tokio::time::sleep(MINUTE * 15).await;
    let (lists, reads) = (account.list_calls(), account.read_calls());
    tokio::time::sleep(MINUTE * 20).await;
    let (lists, reads) = (account.list_calls() - lists, account.read_calls() - reads);
    assert!((200..=430).contains(&lists), "{lists} lists in 20 minutes");
    assert!(reads <= 500, "{reads} reads in 20 minutes for progress and verification");
    assert!(running.status().in_force && running.status().trusted);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_not_listed_any_more_is_read_at_once() {
    let account = account(20, |number| runs_until(if number == 7 { MINUTE * 30 } else { MINUTE * 600 }));
    let running = start(&account);
    running.watch(0..20, None);
    tokio::time::sleep(MINUTE * 40).await;
    let late = running.seen.ended("j7").unwrap() - (account.start + MINUTE * 30);
    assert!(late < SECOND * 4, "{late:?}");
    assert_eq!(running.seen.states("j7").last(), Some(&JobState::Succeeded));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_queued_query_that_is_listed_as_running_is_published() {
    let account = account(20, |_| Query { runs: MINUTE * 5, ..runs_until(MINUTE * 600) });
    let running = start(&account);
    running.watch(0..20, None);
    tokio::time::sleep(MINUTE * 5 + SECOND * 5).await;
    for number in 0..20 {
        let states = running.seen.states(&format!("j{number}"));
        assert_eq!(states.last(), Some(&JobState::Running), "{number}: {states:?}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_query_of_an_unlisted_data_source_is_polled() {
    let account = account(20, |number| Query { listed: number != 7, ..runs_until(MINUTE * 30) });
    let running = start(&account);
    running.watch(0..20, None);
    tokio::time::sleep(MINUTE * 20).await;
    let reads = |id: &str| account.reads.lock().unwrap()[id].len();
    let before = (reads("j7"), reads("j8"));
    tokio::time::sleep(MINUTE * 5).await;
    assert!(reads("j7") - before.0 >= 10, "polled every 30 s");
    assert!(reads("j8") - before.1 <= 5, "read for its progress alone");
    tokio::time::sleep(MINUTE * 6).await;
    assert!(running.seen.ended("j7").unwrap() - account.start < MINUTE * 30 + SECOND * 31);
    assert!(running.status().trusted);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_few_followed_queries_are_polled_without_a_list() {
    let account = account(5, |_| runs_until(MINUTE * 600));
    let running = start(&account);
    running.watch(0..5, None);
    tokio::time::sleep(MINUTE * 20).await;
    assert_eq!(account.list_calls(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_omits_queries_now_and_then_is_not_trusted() {
    let account = account(100, |number| runs_until(MINUTE * 30 + seconds(number)));
    let running = start(&account);
    running.watch(0..100, None);
    tokio::time::sleep(MINUTE * 10).await;
    assert!(running.status().trusted && running.status().in_force);
    account.forgets.store(true, Ordering::Relaxed);
    tokio::time::sleep(MINUTE).await;
    assert!(!running.status().trusted && !running.status().in_force);
    tokio::time::sleep(MINUTE * 25).await;
    let lags = lags(&running.seen, &account);
    assert!(lags[99] < SECOND * 180, "as late as polls within the budget: {:?}", lags[99]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_shows_ended_queries_for_long_is_not_trusted() {
    let ends = |number| if number < 20 { MINUTE * 20 + seconds(number) } else { MINUTE * 600 };
    let account = account(40, |number| runs_until(ends(number)));
    *account.lag.lock().unwrap() = MINUTE * 15;
    let running = start(&account);
    running.watch(0..40, None);
    tokio::time::sleep(MINUTE * 28).await;
    let lags = lags(&running.seen, &account);
    assert!(lags[19] < MINUTE * 10 + SECOND * 2, "within the verification interval: {:?}", lags[19]);
    assert!(!running.status().trusted);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn terminal_states_of_a_large_batch_arrive_in_seconds() {
    // A fixed sequence of durations between 10 and 20 minutes.
    let ends = |number: usize| MINUTE * 10 + Duration::from_millis(number as u64 * 7_919 % 600_000);
    let account = account(1_000, |number| runs_until(ends(number)));
    let running = start(&account);
    running.watch(0..1_000, None);
    tokio::time::sleep(MINUTE * 22).await;
    let lags = lags(&running.seen, &account);
    let (median, p90) = (lags[500], lags[900]);
    assert!(median <= SECOND * 3 && p90 <= SECOND * 6, "median {median:?}, p90 {p90:?}, {:?}", lags[999]);
    let calls = account.list_calls() + account.read_calls();
    assert!(calls <= 2_000 + 2_500, "{calls} calls, {} of them lists", account.list_calls());
    for number in 0..1_000 {
        let states = running.seen.states(&format!("j{number}"));
        let ends = states.iter().filter(|state| state.is_terminal()).count();
        assert_eq!(ends, 1, "{number}: {states:?}");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unregistered_query_is_discovered_and_read_when_it_ends() {
    let account = account(3, |number| runs_until(if number == 1 { MINUTE * 5 } else { MINUTE * 600 }));
    *account.discovery.lock().unwrap() = Some(DiscoveryRules { since: MINUTE * 60, max_jobs: 100 });
    let running = start(&account);
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Running", "j2 Running"]);
    assert_eq!((account.read_calls(), running.status().discovered), (0, 3));
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Succeeded", "j2 Running"]);
    assert_eq!(account.read_calls(), 1, "one read for the query that ended");
    running.stop().await;
}

/// Some queries that are discovered, of which some end.
fn discovered(count: usize, query: impl Fn(usize) -> Query) -> Arc<Account> {
    let account = account(count, query);
    *account.discovery.lock().unwrap() = Some(DiscoveryRules { since: MINUTE * 60, max_jobs: 10_000 });
    account
}

#[tokio::test(start_paused = true)]
async fn a_discovered_query_that_ends_while_the_gateway_is_stopped_is_read() {
    let account = discovered(3, |number| runs_until(if number == 1 { MINUTE * 5 } else { MINUTE * 600 }));
    let kept = Kept::default();
    let first = start_after(&account, &kept);
    tokio::time::sleep(MINUTE * 2).await;
    first.stop().await;
    tokio::time::sleep(MINUTE * 10).await;
    let second = start_after(&account, &kept);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(second.listed().await, ["j0 Running", "j1 Succeeded", "j2 Running"]);
    assert_eq!(account.read_calls(), 1, "one read for the query that ended");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_discovered_query_that_ends_while_lists_are_refused_is_read() {
    let account = discovered(3, |number| runs_until(if number == 1 { MINUTE * 5 } else { MINUTE * 600 }));
    let running = start(&account);
    tokio::time::sleep(MINUTE * 2).await;
    account.refuses.store(true, Ordering::Relaxed);
    tokio::time::sleep(MINUTE * 8).await;
    account.refuses.store(false, Ordering::Relaxed);
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Succeeded", "j2 Running"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_discovered_query_that_ends_while_lists_are_not_trusted_is_read() {
    let ends = |number| if number < 100 { MINUTE * 600 } else { MINUTE * 7 };
    let account = discovered(101, |number| runs_until(ends(number)));
    let running = start(&account);
    tokio::time::sleep(MINUTE * 2).await;
    account.forgets.store(true, Ordering::Relaxed);
    tokio::time::sleep(MINUTE * 3).await;
    assert!(!running.status().trusted);
    account.forgets.store(false, Ordering::Relaxed);
    tokio::time::sleep(MINUTE * 12).await;
    assert!(running.status().trusted);
    assert!(running.listed().await.contains(&"j100 Succeeded".to_owned()));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn queries_that_ended_in_an_outage_are_read_before_they_expire() {
    let account = discovered(1_000, |number| runs_until(MINUTE * 10 + seconds(number / 10)));
    let kept = Kept::default();
    let running = start_after(&account, &kept);
    tokio::time::sleep(MINUTE * 9).await;
    account.is_down.store(true, Ordering::Relaxed);
    tokio::time::sleep(MINUTE * 41).await;
    account.is_down.store(false, Ordering::Relaxed);
    let reads = account.read_calls();
    tokio::time::sleep(MINUTE * 5).await;
    let stored = kept.store.list(&ListFilter::default(), None, 2_000).await.unwrap();
    let states: HashMap<JobState, usize> = stored.iter().fold(HashMap::new(), |mut states, held| {
        *states.entry(held.job.state()).or_default() += 1;
        states
    });
    assert_eq!(states, HashMap::from([(JobState::Succeeded, 1_000)]));
    assert!(account.read_calls() - reads <= 1_000, "each is read once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_discovered_query_that_runs_again_is_read_for_each_run() {
    let again = Some((MINUTE * 10, MINUTE * 15));
    let account = discovered(1, |_| Query { again, ..runs_until(MINUTE * 5) });
    let running = start(&account);
    for (minutes, state, reads) in [(6, "Succeeded", 1), (6, "Running", 2), (5, "Succeeded", 3)] {
        tokio::time::sleep(MINUTE * minutes).await;
        assert_eq!(running.listed().await, [format!("j0 {state}")]);
        assert_eq!(account.read_calls(), reads, "{state}");
    }
    running.stop().await;
}

/// A store that loses jobs on request, as one does that evicts them.
#[derive(Debug)]
struct Forgetful {
    store: MemoryStore,
    lost: Mutex<BTreeSet<String>>,
}

impl Forgetful {
    fn has(&self, held: &Observation) -> bool {
        !self.lost.lock().unwrap().contains(held.job.key.external_id.as_str())
    }
}

impl JobStore for Forgetful {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            let held = self.store.get(keys).await?;
            Ok(held.into_iter().map(|held| held.filter(|held| self.has(held))).collect())
        })
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        self.lost.lock().unwrap().remove(new.job.key.external_id.as_str());
        self.store.keep(new)
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        self.store.note_missing(key)
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        self.store.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        Box::pin(async move {
            let held = self.store.list(filter, after, limit).await?;
            Ok(held.into_iter().filter(|held| self.has(held)).collect())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_goes_on_when_discovered_jobs_are_not_stored_any_more() {
    let account = account(6, |_| runs_until(MINUTE * 600));
    *account.discovery.lock().unwrap() = Some(DiscoveryRules { since: MINUTE * 60, max_jobs: 4 });
    let store = Forgetful { store: MemoryStore::new(retention()), lost: Mutex::default() };
    let store = Arc::new(store);
    let kept = Kept { store: store.clone(), ..Kept::default() };
    let running = start_after(&account, &kept);
    tokio::time::sleep(MINUTE).await;
    let before = running.listed().await;
    assert_eq!((before.len(), running.status().is_full), (4, true));
    tokio::time::sleep(MINUTE * 15).await;
    assert_eq!(running.listed().await, before, "while there is no room");
    let evicted = before[..2].iter().map(|job| job.split_once(' ').unwrap().0.to_owned());
    store.lost.lock().unwrap().extend(evicted);
    assert_eq!(running.listed().await.len(), 2);
    tokio::time::sleep(MINUTE * 11).await;
    assert_eq!((running.listed().await.len(), running.status().is_full), (4, true));
    running.stop().await;
}
