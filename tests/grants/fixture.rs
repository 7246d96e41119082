//! Sources whose jobs contain a mark in each text, so that a leak is visible; and the use cases on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jobgate::config::ClientConfig;
use jobgate::domain::details::Details;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Job, Life};
use jobgate::domain::principal::Principal;
use jobgate::domain::source::{BudgetUse, SourceHealth, SourceStatus};
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::list::{JobListField, JobListFilter, JobListOrder, JobListRequest};
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::{Jobs, Ports};
use jobgate::outbound::identity::registry::IdentityRegistry;
use jobgate::outbound::identity::watch_tokens::WatchTokens;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use jobgate::outbound::stores::rows::MemoryRows;
use jobgate::outbound::system::RuntimeSpawner;
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::Credential;
use jobgate::ports::leases::LocalLeases;
use jobgate::ports::upstream::{
    Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, FRESHNESS, IN_FORCE, RuntimeClock, reference};

/// Each text of a job begins with this, and no answer about another job contains the rest.
pub(super) const MARK: &str = "cAnaRy";

pub(super) fn name(source: &str) -> SourceName {
    SourceName::parse(source).unwrap()
}

pub(super) fn key(source: &str, id: &str) -> JobKey {
    JobKey { source: name(source), external_id: ExternalId::parse(id).unwrap() }
}

pub(super) fn labels(words: &[(&str, &str)]) -> Labels {
    words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The texts of a job.
pub(super) fn mark(source: &str, id: &str) -> String {
    format!("{MARK}-{source}-{id}-")
}

/// A job upstream.
#[derive(Clone, Debug)]
struct Kept {
    kind: Option<String>,
    ended: bool,
    changes: usize,
}

/// One source.
pub(super) struct Source {
    name: SourceName,
    upstream: Upstream,
    jobs: Mutex<BTreeMap<String, Kept>>,
    error: Mutex<Option<FetchError>>,
    fails_between: Mutex<Option<(Instant, Instant)>>,
    calls: Mutex<usize>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.name)
    }
}

impl Source {
    fn job(&self, id: &ExternalId) -> Result<Arc<Job>, FetchError> {
        let failing = self.fails_between.lock().unwrap();
        if failing.is_some_and(|(from, to)| (from..to).contains(&Instant::now())) {
            return Err(FetchError::TimedOut);
        }
        if let Some(error) = &*self.error.lock().unwrap() {
            return Err(error.clone());
        }
        let jobs = self.jobs.lock().unwrap();
        let kept = jobs.get(id.as_str()).ok_or(FetchError::NotFound)?;
        let mut details = self.upstream.no_details();
        if let Details::MindBridge(details) = &mut details {
            details.kind.clone_from(&kept.kind);
        }
        let life = if kept.ended { Life::Succeeded } else { Life::Running };
        let key = JobKey { source: self.name.clone(), external_id: id.clone() };
        let mut job = Job::new(key, life, details);
        job.native_state = Some(format!("{}{}", mark(self.name.as_str(), id.as_str()), kept.changes));
        Ok(Arc::new(job))
    }
}

impl JobReader for Source {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        self.upstream
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], _: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            *self.calls.lock().unwrap() += 1;
            let requested_at = self.clock.now();
            let outcomes: Vec<_> = ids.iter().map(|id| self.job(id)).collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let observed_at: Timestamp = self.clock.now();
            outcomes.into_iter().map(|outcome| Fetch { requested_at, observed_at, outcome }).collect()
        })
    }

    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        _: RowRange,
        _: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(async move {
            let cell = serde_json::to_string(&mark(self.name.as_str(), id.as_str())).unwrap();
            let cell = serde_json::value::RawValue::from_string(cell).unwrap();
            Ok(RowPage { header: vec![cell.clone()], rows: vec![vec![cell]], total: Some(1) })
        })
    }

    fn probe<'a>(&'a self, _: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> SourceStatus {
        let budget =
            BudgetUse { per_second: 1, per_hour: 1, concurrency: 100, in_flight: 0, left_this_hour: 1 };
        let (name, health) = (self.name.clone(), SourceHealth::Healthy);
        SourceStatus {
            name,
            upstream: self.upstream,
            health,
            credential: IN_FORCE,
            budget,
            throttled_until: None,
            breaker_open: false,
            last_error: None,
        }
    }

    fn pace_polls(&self, _: PollDemand) -> PollPacing {
        PollPacing::default()
    }

    fn take_recheck(&self) -> bool {
        true
    }
}

/// The use cases on such sources.
pub(super) struct World {
    pub(super) jobs: Jobs,
    pub(super) sources: HashMap<String, Arc<Source>>,
}

impl World {
    pub(super) fn new(sources: &[(&str, Upstream)]) -> Self {
        Self::with_clients(sources, &[])
    }

    /// The same with these clients and watch tokens.
    pub(super) fn with_clients(sources: &[(&str, Upstream)], clients: &[ClientConfig]) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::default());
        let source = |(source, upstream): &(&str, Upstream)| {
            let made = Source {
                name: name(source),
                upstream: *upstream,
                jobs: Mutex::default(),
                error: Mutex::default(),
                fails_between: Mutex::default(),
                calls: Mutex::default(),
                clock: Arc::clone(&clock),
            };
            ((*source).to_owned(), Arc::new(made))
        };
        let sources: HashMap<String, Arc<Source>> = sources.iter().map(source).collect();
        let day = Duration::from_hours(24);
        let missing = Duration::from_mins(1);
        let tokens = WatchTokens::shared(&"0123456789abcdef0123456789abcdef".into()).unwrap();
        let ports = Ports {
            identity: Arc::new(IdentityRegistry::by_keys(clients, Arc::new(tokens), Arc::clone(&clock))),
            readers: sources.values().map(|one| Arc::clone(one) as Arc<dyn JobReader>).collect(),
            store: Arc::new(MemoryStore::new(Retention {
                max_bytes: 64 << 20,
                finished: day,
                unfinished: day,
                missing,
            })),
            ledger: Arc::new(NoLedger),
            leases: Arc::new(LocalLeases),
            feed: Arc::new(LocalLeases),
            rows: Arc::new(MemoryRows::new(64 << 20, day)),
            clock,
            spawner: Arc::new(RuntimeSpawner::default()),
        };
        Self { jobs: Jobs::new(ports, FRESHNESS, FOLLOW), sources }
    }

    pub(super) fn follow(&self) {
        self.jobs.start_following(CancellationToken::new());
    }

    /// Adds a running job, or changes its kind.
    pub(super) fn put(&self, source: &str, id: &str, kind: Option<&str>) {
        let kept = Kept { kind: kind.map(ToOwned::to_owned), ended: false, changes: 0 };
        self.sources[source].jobs.lock().unwrap().insert(id.to_owned(), kept);
    }

    /// Changes the text of a job.
    pub(super) fn change(&self, source: &str, id: &str) {
        self.sources[source].jobs.lock().unwrap().get_mut(id).unwrap().changes += 1;
    }

    /// Completes a job.
    pub(super) fn end(&self, source: &str, id: &str) {
        self.sources[source].jobs.lock().unwrap().get_mut(id).unwrap().ended = true;
    }

    /// Whether a job still runs.
    pub(super) fn is_running(&self, source: &str, id: &str) -> bool {
        !self.sources[source].jobs.lock().unwrap()[id].ended
    }

    /// Makes a source answer with this error from now on, or with its jobs.
    pub(super) fn fail_with(&self, source: &str, error: Option<FetchError>) {
        *self.sources[source].error.lock().unwrap() = error;
    }

    /// Makes each fetch of a source time out between these seconds from now.
    pub(super) fn fail_between(&self, source: &str, seconds: Option<(u64, u64)>) {
        let at = |second| Instant::now() + Duration::from_secs(second);
        *self.sources[source].fails_between.lock().unwrap() = seconds.map(|(from, to)| (at(from), at(to)));
    }

    /// How often a source was called.
    pub(super) fn calls(&self, source: &str) -> usize {
        *self.sources[source].calls.lock().unwrap()
    }

    /// Reads every job.
    pub(super) async fn lookup_all(&self) {
        for (name, source) in &self.sources {
            let ids: Vec<String> = source.jobs.lock().unwrap().keys().cloned().collect();
            let refs: Vec<RequestedRef> = ids.iter().map(|id| reference(name, id)).collect();
            let answers = self.jobs.lookup(&Principal::local(), &refs, Some(Duration::ZERO)).await;
            assert!(answers.iter().all(Result::is_ok));
        }
    }

    /// The ids of all cached jobs that a client can list, with pages of this size. Whatever the order, the pages contain the
    /// same jobs, and the count is theirs.
    pub(super) async fn held(
        &self,
        principal: &Principal,
        filter: &JobListFilter,
        size: usize,
    ) -> Vec<String> {
        let ids = self.listed(principal, filter, JobListOrder::default(), size).await;
        for field in [JobListField::UpdatedAt, JobListField::State] {
            let order = JobListOrder { field, descending: true };
            let ordered = self.listed(principal, filter, order, size).await;
            let sorted = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!((sorted(&ordered), ordered.len()), (sorted(&ids), ids.len()), "{field:?}");
        }
        ids
    }

    async fn listed(
        &self,
        principal: &Principal,
        filter: &JobListFilter,
        order: JobListOrder,
        size: usize,
    ) -> Vec<String> {
        let (mut ids, mut after, mut total) = (Vec::new(), None, None);
        loop {
            let counts = total.is_none();
            let request =
                JobListRequest { order, after, counts, ..JobListRequest::new(filter.clone(), size) };
            let page = self.jobs.list(principal, &request).await.unwrap();
            assert!(page.jobs.len() == size || !page.has_next, "a page before the last is full");
            let total = *total.get_or_insert(page.total);
            ids.extend(page.jobs.iter().map(|job| job.snapshot.observation.job.key.external_id.to_string()));
            after = page.jobs.last().map(|job| job.cursor.clone());
            if !page.has_next {
                assert_eq!(ids.len(), total, "the count is that of the visible jobs");
                return ids;
            }
        }
    }
}
