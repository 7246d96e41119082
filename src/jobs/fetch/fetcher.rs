//! Fetches jobs: it claims their leases, fetches those that it acquired, and waits for the results of other replicas
//! for the rest. Every fetch of a job uses this module. A fetch is a task of its own
//! (`docs/adr/0004-fetch-is-its-own-task.md`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::ingest::{FetchResult, Ingest};
use super::remote::RemoteChanges;
use super::single_flight::{FetchReceiver, LeaderGuard, SingleFlight};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::jobs::follow::{FollowRegistry, PollPermit};
use crate::jobs::rows::RowReader;
use crate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::upstream::{Detail, Fetch, FetchError, FetchTrigger, JobReader};
use crate::telemetry::meters;
use crate::telemetry::trace::{self, LastCall, ObserveTrigger};

/// The maximum delay that a lost notification causes.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// The longest wait for other replicas: longer than any caller waits, and than one fetch may take.
const LEASE_WAIT_MAX: Duration = Duration::from_mins(1);
/// The longest time of a fetch, longer than all time limits of a source and a store together. If a port never responds,
/// the fetch is aborted after it, and its jobs are polled again.
const AT_MOST: Duration = Duration::from_mins(5);
/// How often a lease may be lost during a fetch before the job is reported as unavailable.
const MAX_LEASES_LOST: usize = 3;

/// New single flights by source, not started yet.
pub(in crate::jobs) type NewFetches =
    HashMap<SourceName, (Arc<dyn JobReader>, Vec<LeaderGuard<JobKey, FetchResult>>)>;

/// A job whose lease this replica holds.
type LeasedJob = (LeaderGuard<JobKey, FetchResult>, FencingToken);

/// Fetches jobs, each once at a time.
#[derive(Debug)]
pub(in crate::jobs) struct Fetcher {
    fetches: SingleFlight<JobKey, FetchResult>,
    leases: Arc<dyn LeaseManager>,
    following: Arc<FollowRegistry>,
    ingest: Arc<Ingest>,
    remote: Arc<RemoteChanges>,
    rows: Arc<RowReader>,
    spawner: Arc<dyn Spawner>,
}

/// The context of one fetch, which is one request of the upstream.
struct FetchTask {
    fetcher: Arc<Fetcher>,
    reader: Arc<dyn JobReader>,
    trigger: FetchTrigger,
}

impl Fetcher {
    pub(in crate::jobs) fn new(
        leases: Arc<dyn LeaseManager>,
        following: Arc<FollowRegistry>,
        ingest: Arc<Ingest>,
        remote: Arc<RemoteChanges>,
        rows: Arc<RowReader>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        Self { fetches: SingleFlight::default(), leases, following, ingest, remote, rows, spawner }
    }

    /// Joins the single flight of a job; the leader guard of a new one is added to those of its source.
    pub(in crate::jobs) fn join(
        &self,
        key: &JobKey,
        reader: &Arc<dyn JobReader>,
        new_fetches: &mut NewFetches,
    ) -> FetchReceiver<FetchResult> {
        let (receiver, leader) = self.fetches.join(key);
        meters::singleflight(leader.is_some());
        if let Some(leader) = leader {
            let (_, leaders) =
                new_fetches.entry(key.source.clone()).or_insert_with(|| (Arc::clone(reader), Vec::new()));
            leaders.push(leader);
        }
        receiver
    }

    /// The number of completed flights so far. See [`SingleFlight::completed`].
    pub(in crate::jobs) fn completed(&self) -> u64 {
        self.fetches.completed()
    }

    /// Starts the fetches that `check` leaves. It runs in a task of its own, because a caller that leaves meanwhile must not
    /// abort the flights that it leads.
    pub(in crate::jobs) fn spawn_checked<F: Future<Output = NewFetches> + Send + 'static>(
        self: &Arc<Self>,
        new_fetches: NewFetches,
        trigger: FetchTrigger,
        check: impl FnOnce(NewFetches) -> F,
    ) {
        let (fetcher, check) = (Arc::clone(self), check(new_fetches));
        let task = async move { fetcher.spawn(check.await, &trigger, None) };
        self.spawner.spawn(TaskKind::Fetch, trace::TraceContext::here().boxed(task));
    }

    /// Starts the fetches, as many jobs per task as fit in one request, so that a slow request delays only the jobs in
    /// it.
    pub(in crate::jobs) fn spawn(
        self: &Arc<Self>,
        new_fetches: NewFetches,
        trigger: &FetchTrigger,
        permit: Option<&Arc<PollPermit>>,
    ) {
        for (reader, mut leaders) in new_fetches.into_values() {
            // Sorted the same way in every replica, so that replicas that start fetches of the same jobs build the same
            // requests.
            leaders.sort_unstable_by(|one, other| one.key().cmp(other.key()));
            let size = reader.upstream().profile().ids_a_request;
            while !leaders.is_empty() {
                let rest = leaders.split_off(leaders.len().saturating_sub(size));
                let (fetcher, reader) = (Arc::clone(self), Arc::clone(&reader));
                let task = FetchTask { fetcher, reader, trigger: trigger.clone() };
                let task = task.run(rest, permit.map(Arc::clone));
                // A background fetch belongs to the trace of no request.
                let below = if *trigger == FetchTrigger::Background {
                    trace::TraceContext::default()
                } else {
                    trace::TraceContext::here()
                };
                self.spawner.spawn(TaskKind::Fetch, below.boxed(task));
            }
        }
    }
}

impl FetchTask {
    /// Completes every leader guard, or drops those that take too long. A poll permit is kept for the duration of the
    /// upstream request.
    async fn run(self, leaders: Vec<LeaderGuard<JobKey, FetchResult>>, permit: Option<Arc<PollPermit>>) {
        let jobs = leaders.len();
        if tokio::time::timeout(AT_MOST, Box::pin(self.complete_all(leaders, permit))).await.is_err() {
            tracing::warn!(jobs, "fetch timed out; the jobs are polled again");
        }
    }

    async fn complete_all(
        self,
        leaders: Vec<LeaderGuard<JobKey, FetchResult>>,
        permit: Option<Arc<PollPermit>>,
    ) {
        let keys: Vec<JobKey> = leaders.iter().map(|leader| leader.key().clone()).collect();
        // No caller waits for a poll: a recent observation of another replica is sufficient.
        let unless = match &self.trigger {
            FetchTrigger::Background => {
                SkipIf::KeptWithin(self.fetcher.following.settings().wait_for_replica())
            }
            FetchTrigger::Operator | FetchTrigger::Client(_) => SkipIf::Never,
        };
        let claims = self.fetcher.leases.claim(&keys, unless).await;
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (leader, claim) in leaders.into_iter().zip(claims) {
            match claim {
                Claim::Acquired(fencing_token) => ours.push((leader, fencing_token)),
                claim @ (Claim::HeldElsewhere { .. } | Claim::Unneeded) => {
                    others.push(self.complete_one(leader, claim));
                }
            }
        }
        tokio::join!(self.fetch_leased(ours, permit), join_all(others));
    }

    /// Fetches the jobs whose leases are held, in one request if the upstream accepts that many.
    async fn fetch_leased(&self, leased: Vec<LeasedJob>, permit: Option<Arc<PollPermit>>) {
        if leased.is_empty() {
            return;
        }
        let held: Vec<_> =
            leased.iter().map(|(leader, fencing_token)| (leader.key().clone(), *fencing_token)).collect();
        let (fetches, caller) = self.fetch(&held).await;
        drop(permit);
        let caller = &caller;
        let results =
            leased.into_iter().zip(fetches).map(async |((leader, fencing_token), fetch)| {
                match self.take(leader.key(), fetch, fencing_token, caller).await {
                    Some(result) => leader.complete(result),
                    None => self.complete_one(leader, Claim::Unneeded).await,
                }
            });
        join_all(results).await;
    }

    /// Applies the result of one fetch, in the trace of its job.
    async fn take(
        &self,
        key: &JobKey,
        fetch: Fetch,
        fencing_token: FencingToken,
        caller: &LastCall,
    ) -> Option<FetchResult> {
        if !trace::is_on() {
            return self.ingest(key, fetch, fencing_token).await;
        }
        let outcome = fetch.outcome.as_ref().map(|job| job.state().name()).map_err(FetchError::word);
        let polled = self.trigger == FetchTrigger::Background;
        let trigger = if polled { ObserveTrigger::Poll } else { ObserveTrigger::Client };
        let context = trace::observe(key, (fetch.requested_at, fetch.observed_at), caller, trigger, outcome);
        context.hold(Box::pin(self.ingest(key, fetch, fencing_token))).await
    }

    /// Calls the upstream, and renews the leases until it has responded.
    async fn fetch(&self, held: &[(JobKey, FencingToken)]) -> (Vec<Fetch>, LastCall) {
        let span = match (&self.trigger, held.first()) {
            (FetchTrigger::Background, Some((key, _))) => trace::poll(key.source.as_str(), held.len()),
            (FetchTrigger::Background | FetchTrigger::Operator | FetchTrigger::Client(_), _) => Span::none(),
        };
        trace::with_last_call(self.call_upstream(held)).instrument(span).await
    }

    async fn call_upstream(&self, held: &[(JobKey, FencingToken)]) -> Vec<Fetch> {
        let ids: Vec<ExternalId> = held.iter().map(|(key, _)| key.external_id.clone()).collect();
        let mut fetch = self.reader.fetch(&ids, &self.trigger);
        let every = self.fetcher.leases.renew_every();
        loop {
            tokio::select! {
                fetches = &mut fetch => return fetches,
                () = tokio::time::sleep(every) => self.fetcher.leases.renew(held).await,
            }
        }
    }

    /// Applies the result of a fetch. The first rows of a followed job are read as soon as it is observed to have
    /// succeeded.
    async fn ingest(&self, key: &JobKey, fetch: Fetch, fencing_token: FencingToken) -> Option<FetchResult> {
        let open = self.fetcher.following.is_open(key);
        let result = self.fetcher.ingest.take(key, fetch, fencing_token).await?;
        if let Some(observation) = result.as_ref().ok().filter(|_| open) {
            self.fetcher.rows.read_ahead(&self.reader, observation);
        }
        if matches!(result, Err(FetchError::NotFound)) && self.fetcher.following.lacks_proof(key) {
            self.probe();
        }
        Some(result)
    }

    /// Probes whether the source is the configured one, since it does not find a job that it reported before.
    fn probe(&self) {
        let (following, reader) = (Arc::clone(&self.fetcher.following), Arc::clone(&self.reader));
        let probe = async move {
            if reader.probe(None).await.is_ok() {
                following.proved(reader.name());
            }
        };
        self.fetcher.spawner.spawn(TaskKind::Poll, Box::pin(probe));
    }

    /// Completes one job with the result of another replica, or by a fetch of our own.
    async fn complete_one(&self, leader: LeaderGuard<JobKey, FetchResult>, first: Claim) {
        let key = std::slice::from_ref(leader.key());
        let waiter = self.fetcher.remote.listen(leader.key());
        let give_up = Instant::now() + LEASE_WAIT_MAX;
        let mut claim = Some(first);
        let mut lost = 0;
        let result = loop {
            let unless = match claim.take() {
                Some(Claim::Unneeded) => match self.fetcher.remote.read_kept(leader.key()).await {
                    Some(result) => break result,
                    None => SkipIf::Never,
                },
                Some(Claim::HeldElsewhere { seen, at_most }) => {
                    let wait =
                        at_most.min(RECLAIM_INTERVAL).min(give_up.saturating_duration_since(Instant::now()));
                    tokio::select! {
                        () = waiter.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                    SkipIf::KeptSince(seen)
                }
                Some(Claim::Acquired(fencing_token)) => {
                    let (mut fetches, caller) = self.fetch(&[(leader.key().clone(), fencing_token)]).await;
                    let Some(fetch) = fetches.pop() else { break Err(unavailable()) };
                    if let Some(result) = self.take(leader.key(), fetch, fencing_token, &caller).await {
                        break result;
                    }
                    lost += 1;
                    SkipIf::Never
                }
                None => SkipIf::Never,
            };
            if lost >= MAX_LEASES_LOST || Instant::now() >= give_up {
                break Err(unavailable());
            }
            claim = self.fetcher.leases.claim(key, unless).await.pop();
        };
        leader.complete(result);
    }
}

fn unavailable() -> FetchError {
    FetchError::Unavailable(Detail::new("other replicas held the lease of this job and returned no result"))
}
