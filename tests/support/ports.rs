//! Ports under a test's control: a clock that follows the paused runtime, and a reader with scripted answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::ready;
use futures_util::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Failure, Job, Life};
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::principal::Principal;
use jobgate::domain::source::{BudgetUse, CredentialState, CredentialStatus, SourceHealth, SourceStatus};
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::watch::{FeedContent, WatchUpdate};
use jobgate::jobs::{FollowSettings, FreshnessRules, Jobs, Ports};
use jobgate::outbound::identity::registry::IdentityRegistry;
use jobgate::outbound::identity::watch_tokens::WatchTokens;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use jobgate::outbound::stores::rows::MemoryRows;
use jobgate::outbound::system::RuntimeSpawner;
use jobgate::outbound::upstreams::limiter::shared::SharedBudget;
use jobgate::outbound::upstreams::limiter::{CallOutcome, LimiterSettings, UpstreamLimiter};
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::Credential;
use jobgate::ports::leases::LocalLeases;
use jobgate::ports::ledger::Ledger;
use jobgate::ports::store::JobStore;
use jobgate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use tokio::time::Instant;

/// A clock that follows the runtime's timers, so that a paused runtime pauses it too.
#[derive(Debug)]
pub(crate) struct RuntimeClock(Instant);

impl Default for RuntimeClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.0.elapsed()
    }
}

type Script = dyn Fn(&ExternalId) -> Result<Job, FetchError> + Send + Sync;

/// A source with scripted answers that records its calls.
pub(crate) struct ScriptedReader {
    name: SourceName,
    upstream: Upstream,
    script: Mutex<Arc<Script>>,
    latency: Mutex<Duration>,
    /// The limiter of its calls, if there is one.
    limiter: Mutex<Option<Arc<UpstreamLimiter>>>,
    clock: Arc<dyn Clock>,
    pub(crate) batches: Mutex<Vec<Vec<String>>>,
    pub(crate) rows_requests: AtomicUsize,
    /// Whether the rows have expired.
    pub(crate) rows_gone: AtomicBool,
    /// Whether something else than the upstream answers the probe.
    pub(crate) probe_fails: AtomicBool,
    pub(crate) probes: AtomicUsize,
}

impl std::fmt::Debug for ScriptedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScriptedReader")
    }
}

impl ScriptedReader {
    pub(crate) fn new(name: &str, upstream: Upstream, clock: Arc<dyn Clock>) -> Arc<Self> {
        let source = name.to_owned();
        let runs = move |id: &ExternalId| Ok(job(&source, id.as_str(), upstream, Life::Running));
        Arc::new(Self {
            name: SourceName::parse(name).unwrap(),
            upstream,
            script: Mutex::new(Arc::new(runs)),
            latency: Mutex::new(Duration::from_millis(100)),
            limiter: Mutex::default(),
            clock,
            batches: Mutex::default(),
            rows_requests: AtomicUsize::new(0),
            rows_gone: AtomicBool::new(false),
            probe_fails: AtomicBool::new(false),
            probes: AtomicUsize::new(0),
        })
    }

    /// Sets the answer.
    pub(crate) fn respond_with(
        &self,
        script: impl Fn(&ExternalId) -> Result<Life, FetchError> + Send + Sync + 'static,
    ) {
        let (name, upstream) = (self.name.clone(), self.upstream);
        self.respond_with_job(move |id| {
            script(id).map(|life| job(name.as_str(), id.as_str(), upstream, life))
        });
    }

    /// Sets the answer to these jobs.
    pub(crate) fn respond_with_job(
        &self,
        script: impl Fn(&ExternalId) -> Result<Job, FetchError> + Send + Sync + 'static,
    ) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Sets the duration of a call.
    pub(crate) fn takes(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// Limits the calls.
    pub(crate) fn holds_to(&self, limits: LimiterSettings) {
        *self.limiter.lock().unwrap() = Some(UpstreamLimiter::new(self.name.clone(), limits, None));
    }

    /// Limits the calls of all replicas together.
    pub(crate) fn shares(&self, limits: LimiterSettings, shared: Arc<dyn SharedBudget>) {
        *self.limiter.lock().unwrap() = Some(UpstreamLimiter::new(self.name.clone(), limits, Some(shared)));
    }

    fn limiter(&self) -> Option<Arc<UpstreamLimiter>> {
        self.limiter.lock().unwrap().clone()
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> usize {
        self.batches.lock().unwrap().len()
    }
}

/// A job of this reader in a state.
pub(crate) fn job(source: &str, id: &str, upstream: Upstream, life: Life) -> Job {
    let key =
        JobKey { source: SourceName::parse(source).unwrap(), external_id: ExternalId::parse(id).unwrap() };
    Job::new(key, life, upstream.no_details())
}

pub(crate) fn failed() -> Life {
    Life::Failed(Failure::default())
}

impl JobReader for ScriptedReader {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        self.upstream
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let permit = match self.limiter() {
                None => None,
                Some(limiter) => match limiter.acquire(trigger, Duration::from_secs(15)).await {
                    Ok(permit) => Some(permit),
                    Err(refusal) => {
                        let (requested_at, observed_at) = (self.clock.now(), self.clock.now());
                        let refused = |_| Err(FetchError::from(refusal));
                        let refused = ids.iter().map(refused);
                        return refused.map(|outcome| Fetch { requested_at, observed_at, outcome }).collect();
                    }
                },
            };
            self.batches.lock().unwrap().push(ids.iter().map(ToString::to_string).collect());
            let requested_at = self.clock.now();
            let script = Arc::clone(&self.script.lock().unwrap());
            let outcomes: Vec<_> = ids.iter().map(|id| script(id)).collect();
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            let observed_at = self.clock.now();
            let failed =
                matches!(outcomes.first(), Some(Err(FetchError::Unavailable(_) | FetchError::TimedOut)));
            if let Some(permit) = permit {
                permit.finish(if failed { CallOutcome::Failed(1.0) } else { CallOutcome::Answered });
            }
            let fetches = outcomes.into_iter().map(|outcome| outcome.map(Arc::new));
            fetches.map(|outcome| Fetch { requested_at, observed_at, outcome }).collect()
        })
    }

    fn rows<'a>(
        &'a self,
        _: &'a ExternalId,
        range: RowRange,
        _: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(async move {
            self.rows_requests.fetch_add(1, Ordering::Relaxed);
            if self.rows_gone.load(Ordering::Relaxed) {
                return Err(FetchError::NotFound);
            }
            let raw = |text: String| serde_json::value::RawValue::from_string(text).unwrap();
            let rows =
                (range.first..(range.first + range.count).min(2_500)).map(|row| vec![raw(row.to_string())]);
            Ok(RowPage { header: vec![raw("\"n\"".to_owned())], rows: rows.collect(), total: Some(2_500) })
        })
    }

    fn probe<'a>(&'a self, _: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        let fails = self.probe_fails.load(Ordering::Relaxed);
        let text = "the probe was answered by a proxy";
        let outcome = if fails { Err(FetchError::BadAnswer(Detail::new(text))) } else { Ok(()) };
        Box::pin(std::future::ready(outcome))
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.limiter().map(|limiter| limiter.pace_polls(demand)).unwrap_or_default()
    }

    fn take_recheck(&self) -> bool {
        self.limiter().is_none_or(|limiter| limiter.take_recheck())
    }

    fn status(&self) -> SourceStatus {
        let budget =
            BudgetUse { per_second: 1, per_hour: 1, concurrency: 1, in_flight: 0, left_this_hour: 1 };
        SourceStatus {
            name: self.name.clone(),
            upstream: self.upstream,
            health: SourceHealth::Healthy,
            credential: IN_FORCE,
            budget,
            throttled_until: None,
            breaker_open: false,
            last_error: None,
        }
    }
}

/// The use cases with scripted readers, a real store and a paused clock.
pub(crate) struct TestGateway {
    pub(crate) jobs: Jobs,
    pub(crate) mindbridge: Arc<ScriptedReader>,
    pub(crate) supermetrics: Arc<ScriptedReader>,
    pub(crate) spawner: RuntimeSpawner,
}

/// Two sources, `mind` (MindBridge) and `metrics` (Supermetrics), each call taking 100 ms.
pub(crate) fn gateway() -> TestGateway {
    fixture(FOLLOW)
}

/// The same, with other poll settings.
pub(crate) fn fixture(follow: FollowSettings) -> TestGateway {
    let store = Arc::new(MemoryStore::new(retention()));
    gateway_on(follow, Arc::new(RuntimeClock::default()), store, Arc::new(NoLedger))
}

/// A day for everything.
pub(crate) const fn retention() -> Retention {
    let day = Duration::from_hours(24);
    let missing = Duration::from_mins(1);
    Retention { max_bytes: 64 << 20, finished: day, unfinished: day, missing }
}

/// The same, on the store that an earlier process may have left.
pub(crate) fn gateway_on(
    follow: FollowSettings,
    clock: Arc<dyn Clock>,
    store: Arc<dyn JobStore>,
    ledger: Arc<dyn Ledger>,
) -> TestGateway {
    gateway_with(follow, clock, store, ledger, |ports| ports)
}

/// The same, with wrapped ports.
pub(crate) fn gateway_with(
    follow: FollowSettings,
    clock: Arc<dyn Clock>,
    store: Arc<dyn JobStore>,
    ledger: Arc<dyn Ledger>,
    before: impl FnOnce(Ports) -> Ports,
) -> TestGateway {
    let mindbridge = ScriptedReader::new("mind", Upstream::MindBridge, Arc::clone(&clock));
    let supermetrics = ScriptedReader::new("metrics", Upstream::Supermetrics, Arc::clone(&clock));
    let day = Duration::from_hours(24);
    let spawner = RuntimeSpawner::default();
    let ports = Ports {
        identity: Arc::new(identity_without_clients(Arc::clone(&clock))),
        readers: vec![
            Arc::clone(&mindbridge) as Arc<dyn JobReader>,
            Arc::clone(&supermetrics) as Arc<dyn JobReader>,
        ],
        store,
        ledger,
        leases: Arc::new(LocalLeases),
        feed: Arc::new(LocalLeases),
        rows: Arc::new(MemoryRows::new(64 << 20, day)),
        clock,
        spawner: Arc::new(spawner.clone()),
    };
    TestGateway { jobs: Jobs::new(before(ports), FRESHNESS, follow), mindbridge, supermetrics, spawner }
}

pub(crate) const FRESHNESS: FreshnessRules = FreshnessRules {
    fresh_for: Duration::from_secs(2),
    missing_for: Duration::from_secs(5),
    rerun_check: Duration::from_mins(5),
    answer_within: Duration::from_secs(20),
};

pub(crate) const FOLLOW: FollowSettings = FollowSettings {
    pace: PollIntervals { fastest: Duration::from_secs(1), slowest: Duration::from_secs(30) },
    unsubscribe_grace: Duration::from_secs(8),
    missing_for: Duration::from_mins(1),
    unknown_for: Duration::from_hours(1),
    at_most: Duration::from_hours(24),
    verify_interval: Duration::from_mins(10),
};

pub(crate) fn reference(source: &str, id: &str) -> RequestedRef {
    RequestedRef::external(source.to_owned(), id.to_owned())
}

/// The changes that a client receives by the feed from now on.
pub(crate) fn feed(
    jobs: &Jobs,
    principal: Principal,
    filter: JobListFilter,
) -> BoxStream<'static, WatchUpdate> {
    let changes = jobs.feed(principal, filter, None).filter_map(|update| {
        ready(match update.content {
            FeedContent::Change(update) => Some(update),
            FeedContent::Start(_) => None,
        })
    });
    changes.boxed()
}

/// Without clients, so that every caller is local.
fn identity_without_clients(clock: Arc<dyn Clock>) -> IdentityRegistry {
    IdentityRegistry::by_keys(&[], Arc::new(WatchTokens::of_this_process().unwrap()), clock)
}

/// The active credential of a source.
pub(crate) const IN_FORCE: CredentialStatus =
    CredentialStatus { state: CredentialState::Active, since: None, active_since: None, expires_at: None };

/// The status of a source with a limiter, whose credential is active.
pub(crate) fn limited_status(
    name: &SourceName,
    upstream: Upstream,
    limiter: &UpstreamLimiter,
) -> SourceStatus {
    let snapshot = limiter.snapshot();
    SourceStatus {
        name: name.clone(),
        upstream,
        health: snapshot.health,
        credential: IN_FORCE,
        budget: snapshot.budget,
        throttled_until: None,
        breaker_open: snapshot.breaker_open,
        last_error: None,
    }
}
