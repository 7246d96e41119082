//! A MindBridge source with a true history of each of its jobs, on the paused clock: it is read by id, and lists what
//! changed, with the weaknesses that lists can have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jobgate::domain::details::MindBridgeDetails;
use jobgate::domain::id::{ExternalId, SourceName};
use jobgate::domain::job::{Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::domain::source::{BudgetUse, SourceHealth, SourceStatus};
use jobgate::domain::sweep::DiscoveryRules;
use jobgate::domain::upstream::Upstream;
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::Credential;
use jobgate::ports::listing::{JobListing, ListError, ListSupport, Listed};
use jobgate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use tokio::time::Instant;

use crate::support::ports::{IN_FORCE, job};

/// The jobs on one page of a list.
const PAGE: usize = 500;
const PAGES_MAX: usize = 20;
const LATENCY: Duration = Duration::from_millis(100);

/// A change of one job.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// When it happens, since the start.
    pub(crate) at: Duration,
    /// How much later it appears in lists.
    pub(crate) late: Duration,
    pub(crate) life: Life,
}

/// How lists are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    Complete,
    /// Without the jobs that it should contain.
    Empty,
    Refused(u16),
    /// Too long, if they begin earlier than so many seconds ago.
    TooLongBefore(i64),
    Broken,
}

/// The source.
pub(crate) struct ListedUpstream {
    name: SourceName,
    start: Instant,
    clock: Arc<dyn Clock>,
    jobs: Mutex<BTreeMap<String, Vec<Change>>>,
    pub(crate) lists: Mutex<Lists>,
    /// How far the clock of the changes is ahead of ours, and that of the responses, in seconds.
    pub(crate) skew: Mutex<(i64, i64)>,
    pub(crate) discovery: Mutex<Option<DiscoveryRules>>,
    pub(crate) per_hour: AtomicU32,
    /// How long a list takes.
    pub(crate) list_takes: Mutex<Duration>,
    /// The lists that were requested; [`Self::list_calls`] are those that were answered.
    pub(crate) begun: AtomicUsize,
    pub(crate) list_calls: AtomicUsize,
    pub(crate) read_calls: AtomicUsize,
}

impl std::fmt::Debug for ListedUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListedUpstream")
    }
}

impl ListedUpstream {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            name: SourceName::parse("mind").unwrap(),
            start: Instant::now(),
            clock,
            jobs: Mutex::default(),
            lists: Mutex::new(Lists::Complete),
            skew: Mutex::new((0, 0)),
            discovery: Mutex::default(),
            per_hour: AtomicU32::new(5_000),
            list_takes: Mutex::new(LATENCY),
            begun: AtomicUsize::new(0),
            list_calls: AtomicUsize::new(0),
            read_calls: AtomicUsize::new(0),
        })
    }

    /// Adds a job that runs from the start, and changes as given.
    pub(crate) fn add(&self, id: &str, changes: impl IntoIterator<Item = Change>) {
        let begin = Change { at: Duration::ZERO, late: Duration::ZERO, life: Life::Running };
        let history = [begin].into_iter().chain(changes).collect();
        self.jobs.lock().unwrap().insert(id.to_owned(), history);
    }

    /// The calls so far: lists, and reads by id.
    pub(crate) fn calls(&self) -> (usize, usize) {
        (self.list_calls.load(Ordering::Relaxed), self.read_calls.load(Ordering::Relaxed))
    }

    fn dated(&self, at: Duration, skew: i64) -> Timestamp {
        let began = self.clock.now() - SignedDuration::try_from(self.start.elapsed()).unwrap();
        began + SignedDuration::try_from(at).unwrap() + SignedDuration::from_secs(skew)
    }

    /// The job after a number of changes.
    fn job(&self, id: &str, changes: &[Change]) -> Option<Job> {
        let last = changes.last()?;
        let kind = Some(if id.starts_with('j') { "ANALYSIS_RUN" } else { "ADMIN_REPORT" }.to_owned());
        let details = MindBridgeDetails {
            kind,
            version: Some(changes.len().try_into().unwrap()),
            ..MindBridgeDetails::default()
        };
        let skew = self.skew.lock().unwrap().0;
        let updated_at = Some(self.dated(last.at, skew));
        let known = job(self.name.as_str(), id, Upstream::MindBridge, last.life.clone());
        Some(Job { updated_at, details: details.into(), ..known })
    }

    fn current(&self, id: &str) -> Option<Job> {
        let now = self.start.elapsed();
        let changes = self.jobs.lock().unwrap().get(id)?.clone();
        let count = changes.iter().take_while(|change| change.at <= now).count();
        self.job(id, &changes[..count])
    }

    fn listed(&self, since: Timestamp) -> Vec<Job> {
        let now = self.start.elapsed();
        let jobs = self.jobs.lock().unwrap();
        let skew = self.skew.lock().unwrap().0;
        let visible = |(id, changes): (&String, &Vec<Change>)| {
            let count = changes.iter().take_while(|change| change.at + change.late <= now).count();
            let last = changes[..count].last()?;
            if self.dated(last.at, skew) < since { None } else { self.job(id, &changes[..count]) }
        };
        jobs.iter().filter_map(visible).collect()
    }
}

impl JobReader for ListedUpstream {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        Upstream::MindBridge
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], _: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            self.read_calls.fetch_add(1, Ordering::Relaxed);
            let requested_at = self.clock.now();
            let found: Vec<_> = ids.iter().map(|id| self.current(id.as_str())).collect();
            tokio::time::sleep(LATENCY).await;
            let observed_at = self.clock.now();
            let outcome = |job: Option<Job>| job.map(Arc::new).ok_or(FetchError::NotFound);
            found.into_iter().map(|job| Fetch { requested_at, observed_at, outcome: outcome(job) }).collect()
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
        Some(ListSupport::Changes)
    }

    fn discovery(&self) -> Option<DiscoveryRules> {
        *self.discovery.lock().unwrap()
    }

    fn list(&self, since: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let requested_at = self.clock.now();
            let mode = *self.lists.lock().unwrap();
            let listed = self.listed(since);
            let pages = listed.len().div_ceil(PAGE).max(1);
            let date_skew = self.skew.lock().unwrap().1;
            let upstream_time = Some(self.dated(self.start.elapsed(), date_skew));
            let takes = *self.list_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            let observed_at = self.clock.now();
            let (calls, outcome) = match mode {
                Lists::TooLongBefore(most) if requested_at.duration_since(since).as_secs() > most => {
                    (1, Err(ListError::TooLong))
                }
                Lists::Complete if pages > PAGES_MAX => (1, Err(ListError::TooLong)),
                Lists::Complete | Lists::TooLongBefore(_) => {
                    let seen = |job: Job| Observation::new(Arc::new(job), requested_at, observed_at);
                    (pages, Ok(Listed::Changes(listed.into_iter().map(seen).collect())))
                }
                Lists::Empty => (1, Ok(Listed::Changes(Vec::new()))),
                Lists::Refused(status) => (1, Err(ListError::Refused(status))),
                Lists::Broken => (1, Err(FetchError::Unavailable(Detail::new("broken")).into())),
            };
            self.list_calls.fetch_add(calls, Ordering::Relaxed);
            let calls = u32::try_from(calls).unwrap();
            Some(JobListing { requested_at, upstream_time, calls, outcome })
        })
    }

    fn probe<'a>(&'a self, _: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn pace_polls(&self, _: PollDemand) -> PollPacing {
        PollPacing::default()
    }

    fn take_recheck(&self) -> bool {
        true
    }

    fn status(&self) -> SourceStatus {
        let (lists, reads) = self.calls();
        let per_hour = self.per_hour.load(Ordering::Relaxed);
        let left_this_hour = per_hour.saturating_sub(u32::try_from(lists + reads).unwrap());
        let budget = BudgetUse { per_second: 10, per_hour, concurrency: 8, in_flight: 0, left_this_hour };
        SourceStatus {
            name: self.name.clone(),
            upstream: Upstream::MindBridge,
            health: SourceHealth::Healthy,
            credential: IN_FORCE,
            budget,
            throttled_until: None,
            breaker_open: false,
            last_error: None,
        }
    }
}
