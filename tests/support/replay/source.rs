//! The source of a replayed batch: jobs that run for a given time, read by id and listed as the upstream does it, within the
//! default budget. It counts each call by its purpose.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jobgate::domain::details::MindBridgeDetails;
use jobgate::domain::id::{ExternalId, SourceName};
use jobgate::domain::job::{Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::source::SourceStatus;
use jobgate::domain::state::JobState;
use jobgate::domain::upstream::Upstream;
use jobgate::outbound::upstreams::limiter::{CallOutcome, CallPermit, LimiterSettings, UpstreamLimiter};
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::Credential;
use jobgate::ports::listing::{JobListing, ListSupport, Listed, UnfinishedJob};
use jobgate::ports::upstream::{
    Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

use super::{CallCounts, LATENCY};
use crate::support::ports::{RuntimeClock, TestGateway, job, limited_status};

pub(super) const NAME: &str = "batch";
/// The default budget.
const LIMITS: LimiterSettings = LimiterSettings {
    per_second: 10,
    per_hour: 5_000,
    caller_share: 20,
    concurrency: 8,
    max_wait: Duration::from_secs(10),
};
/// The jobs on one page of a list.
const MINDBRIDGE_PAGE: usize = 500;
const SUPERMETRICS_PAGE: usize = 1_000;

/// When a job was started and when it ends, in process time.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    begins: Timestamp,
    ends: Timestamp,
}

/// A call that the upstream has answered, before the response arrives.
struct PendingCall {
    permit: CallPermit,
    requested_at: Timestamp,
}

impl PendingCall {
    async fn respond(self) -> Timestamp {
        tokio::time::sleep(LATENCY / 2).await;
        self.permit.finish(CallOutcome::Answered);
        self.requested_at
    }
}

/// A source with its jobs.
pub(super) struct BatchSource {
    name: SourceName,
    upstream: Upstream,
    clock: Arc<RuntimeClock>,
    limiter: Arc<UpstreamLimiter>,
    jobs: Mutex<BTreeMap<ExternalId, Lifetime>>,
    /// The unfinished jobs in the last list.
    listed: Mutex<HashSet<ExternalId>>,
    counts: Mutex<CallCounts>,
    /// Whether its sweeps are in force decides what a read is for.
    gateway: OnceLock<Weak<TestGateway>>,
}

impl std::fmt::Debug for BatchSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchSource")
    }
}

impl BatchSource {
    pub(super) fn new(upstream: Upstream, clock: Arc<RuntimeClock>) -> Arc<Self> {
        let name = SourceName::parse(NAME).unwrap();
        Arc::new(Self {
            limiter: UpstreamLimiter::new(name.clone(), LIMITS, None),
            name,
            upstream,
            clock,
            jobs: Mutex::default(),
            listed: Mutex::default(),
            counts: Mutex::default(),
            gateway: OnceLock::new(),
        })
    }

    /// Sets the gateway that follows the jobs.
    pub(super) fn serve(&self, gateway: &Arc<TestGateway>) {
        self.gateway.set(Arc::downgrade(gateway)).unwrap();
    }

    /// Starts a job.
    pub(super) fn add(&self, id: &str, lasts: Duration) {
        let begins = self.clock.now();
        let lifetime = Lifetime { begins, ends: begins + SignedDuration::try_from(lasts).unwrap() };
        self.jobs.lock().unwrap().insert(ExternalId::parse(id).unwrap(), lifetime);
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> CallCounts {
        *self.counts.lock().unwrap()
    }

    /// Waits for the budget, and until the upstream answers.
    async fn call(&self, trigger: &FetchTrigger) -> Result<PendingCall, FetchError> {
        let permit = self.limiter.acquire(trigger, LIMITS.max_wait).await.map_err(FetchError::from)?;
        let requested_at = self.clock.now();
        tokio::time::sleep(LATENCY / 2).await;
        Ok(PendingCall { permit, requested_at })
    }

    /// The job as it is now.
    fn job(&self, id: &ExternalId, lifetime: Lifetime) -> Job {
        let is_over = self.clock.now() >= lifetime.ends;
        let life = if is_over { Life::Succeeded } else { Life::Running };
        let known = job(NAME, id.as_str(), self.upstream, life);
        match self.upstream {
            Upstream::Supermetrics => known,
            Upstream::MindBridge => {
                let kind = Some("ANALYSIS_RUN".to_owned());
                let version = Some(1 + i64::from(is_over));
                let details = MindBridgeDetails { kind, version, ..MindBridgeDetails::default() };
                let updated_at = Some(if is_over { lifetime.ends } else { lifetime.begins });
                Job { updated_at, details: details.into(), ..known }
            }
        }
    }

    fn current(&self, id: &ExternalId) -> Result<Arc<Job>, FetchError> {
        let lifetime = self.jobs.lock().unwrap().get(id).copied().ok_or(FetchError::NotFound)?;
        Ok(Arc::new(self.job(id, lifetime)))
    }

    fn is_swept(&self) -> bool {
        let gateway = self.gateway.get().and_then(Weak::upgrade);
        let source = gateway.and_then(|gateway| gateway.jobs.source(&Principal::local(), &self.name));
        source.and_then(|source| source.sweep).is_some_and(|sweep| sweep.in_force)
    }

    /// Counts a call that read jobs by their ids.
    fn count(&self, ids: &[ExternalId], trigger: &FetchTrigger, ended: bool) {
        let listed = self.listed.lock().unwrap();
        let covered = self.is_swept()
            && match self.upstream {
                Upstream::MindBridge => true,
                // A job that has ended was in a list before.
                Upstream::Supermetrics => ended || ids.iter().all(|id| listed.contains(id)),
            };
        let mut counts = self.counts.lock().unwrap();
        match (trigger, self.upstream) {
            (FetchTrigger::Client(_) | FetchTrigger::Operator, _) => counts.first += 1,
            (FetchTrigger::Background, Upstream::Supermetrics) if covered && ended => counts.ends += 1,
            (FetchTrigger::Background, _) if covered => counts.confirmations += 1,
            (FetchTrigger::Background, _) => counts.polls += 1,
        }
    }

    /// The jobs that changed since a moment, and those that are unfinished.
    fn changed(&self, since: Timestamp) -> Vec<Job> {
        let jobs = self.jobs.lock().unwrap();
        let now = self.clock.now();
        let is_recent = |life: &Lifetime| (if now >= life.ends { life.ends } else { life.begins }) >= since;
        let recent = jobs.iter().filter(|(_, lifetime)| is_recent(lifetime));
        recent.map(|(id, lifetime)| self.job(id, *lifetime)).collect()
    }

    fn unfinished(&self) -> Vec<(ExternalId, Lifetime)> {
        let now = self.clock.now();
        let jobs = self.jobs.lock().unwrap();
        let open = jobs.iter().filter(|(_, lifetime)| now < lifetime.ends);
        open.map(|(id, lifetime)| (id.clone(), *lifetime)).collect()
    }

    /// A complete list, page by page.
    async fn list_pages(&self, since: Timestamp) -> (u32, Result<(Timestamp, Listed), FetchError>) {
        let mut call = match self.call(&FetchTrigger::Background).await {
            Ok(call) => call,
            Err(error) => return (1, Err(error)),
        };
        let requested_at = call.requested_at;
        let (changed, unfinished) = (self.changed(since), self.unfinished());
        let (found, page) = match self.upstream {
            Upstream::MindBridge => (changed.len(), MINDBRIDGE_PAGE),
            Upstream::Supermetrics => (unfinished.len(), SUPERMETRICS_PAGE),
        };
        let pages = u32::try_from(found.div_ceil(page).max(1)).unwrap();
        for more in 1..pages {
            call.respond().await;
            call = match self.call(&FetchTrigger::Background).await {
                Ok(call) => call,
                Err(error) => return (more + 1, Err(error)),
            };
        }
        call.respond().await;
        let observed_at = self.clock.now();
        let ids = unfinished.iter().map(|(id, _)| id.clone()).collect();
        *self.listed.lock().unwrap() = ids;
        let listed = match self.upstream {
            Upstream::MindBridge => {
                let seen = |job: Job| Observation::new(Arc::new(job), requested_at, observed_at);
                Listed::Changes(changed.into_iter().map(seen).collect())
            }
            Upstream::Supermetrics => {
                let seen = |(id, lifetime): (ExternalId, Lifetime)| UnfinishedJob {
                    id,
                    state: JobState::Running,
                    native_state: None,
                    begun: Some(lifetime.begins.to_string()),
                    requested_at,
                    observed_at,
                };
                Listed::Unfinished(unfinished.into_iter().map(seen).collect())
            }
        };
        (pages, Ok((requested_at, listed)))
    }
}

impl JobReader for BatchSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        self.upstream
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let mut fetches = Vec::with_capacity(ids.len());
            for some in ids.chunks(self.upstream.profile().ids_a_request) {
                let call = self.call(trigger).await;
                let outcomes: Vec<_> = match &call {
                    Ok(_) => some.iter().map(|id| self.current(id)).collect(),
                    Err(error) => some.iter().map(|_| Err(error.clone())).collect(),
                };
                let requested_at = match call {
                    Ok(call) => {
                        let ended = outcomes.iter().flatten().any(|job| job.is_terminal());
                        self.count(some, trigger, ended);
                        call.respond().await
                    }
                    Err(_) => self.clock.now(),
                };
                let observed_at = self.clock.now();
                fetches.extend(outcomes.into_iter().map(|outcome| Fetch {
                    requested_at,
                    observed_at,
                    outcome,
                }));
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
        Some(match self.upstream {
            Upstream::MindBridge => ListSupport::Changes,
            Upstream::Supermetrics => ListSupport::Unfinished,
        })
    }

    fn list(&self, since: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        Box::pin(async move {
            let (calls, listed) = self.list_pages(since).await;
            self.counts.lock().unwrap().lists += calls as usize;
            let now = self.clock.now();
            let requested_at = listed.as_ref().map_or(now, |(requested_at, _)| *requested_at);
            let outcome = listed.map(|(_, listed)| listed).map_err(Into::into);
            Some(JobListing { requested_at, upstream_time: Some(requested_at), calls, outcome })
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
        limited_status(&self.name, self.upstream, &self.limiter)
    }
}
