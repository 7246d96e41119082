//! Runs a fetch: it claims the leases of the jobs, fetches those that it acquired, and waits for the results of other
//! replicas for the rest. Every fetch of this process uses this module.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::domain::id::{ExternalId, JobKey};
use crate::ports::leases::{Claim, FencingToken, SkipIf};
use crate::ports::spawner::TaskKind;
use crate::ports::upstream::{Detail, Fetch, FetchError, FetchTrigger, JobReader};

use super::Core;
use super::ingest::FetchResult;
use super::poller::PollPermit;
use super::single_flight::LeaderGuard;
use crate::telemetry::trace::{self, LastCall};

/// The maximum delay that a lost notification causes.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// The longest wait for other replicas: longer than any caller waits, and than one fetch may take.
const LEASE_WAIT_MAX: Duration = Duration::from_mins(1);
/// The longest time of a fetch, longer than all time limits of a source and a store together. If a port never responds,
/// the fetch is aborted after it, and its jobs are polled again.
pub(super) const AT_MOST: Duration = Duration::from_mins(5);
/// How often a lease may be lost during a fetch before the job is reported as unavailable.
const MAX_LEASES_LOST: usize = 3;

/// The context of one fetch.
#[derive(Clone)]
pub(super) struct Fetcher {
    inner: Arc<Core>,
    reader: Arc<dyn JobReader>,
    trigger: FetchTrigger,
}

/// A job whose lease this replica holds.
type LeasedJob = (LeaderGuard<JobKey, FetchResult>, FencingToken);

impl Fetcher {
    pub(super) fn new(inner: Arc<Core>, reader: Arc<dyn JobReader>, trigger: FetchTrigger) -> Self {
        Self { inner, reader, trigger }
    }

    /// Completes every leader guard, or drops those that take too long. A poll permit is kept for the duration of the
    /// upstream request.
    pub(super) async fn run(
        self,
        leaders: Vec<LeaderGuard<JobKey, FetchResult>>,
        context: Option<Arc<PollPermit>>,
    ) {
        let jobs = leaders.len();
        if tokio::time::timeout(AT_MOST, Box::pin(self.complete_all(leaders, context))).await.is_err() {
            tracing::warn!(jobs, "fetch timed out; the jobs are polled again");
        }
    }

    async fn complete_all(
        self,
        leaders: Vec<LeaderGuard<JobKey, FetchResult>>,
        context: Option<Arc<PollPermit>>,
    ) {
        let keys: Vec<JobKey> = leaders.iter().map(|leader| leader.key().clone()).collect();
        // No caller waits for a poll: a recent observation of another replica is sufficient.
        let unless = match &self.trigger {
            FetchTrigger::Background => SkipIf::KeptWithin(self.inner.following.recent()),
            FetchTrigger::Operator | FetchTrigger::Client(_) => SkipIf::Never,
        };
        let claims = self.inner.leases.claim(&keys, unless).await;
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (leader, claim) in leaders.into_iter().zip(claims) {
            match claim {
                Claim::Acquired(fencing_token) => ours.push((leader, fencing_token)),
                claim @ (Claim::HeldElsewhere { .. } | Claim::Unneeded) => {
                    others.push(self.complete_batch(leader, claim));
                }
            }
        }
        tokio::join!(self.fetch_leased(ours, context), join_all(others));
    }

    /// Fetches the jobs whose leases are held, in one request if the upstream accepts that many.
    async fn fetch_leased(&self, leased: Vec<LeasedJob>, context: Option<Arc<PollPermit>>) {
        if leased.is_empty() {
            return;
        }
        let held: Vec<_> =
            leased.iter().map(|(leader, fencing_token)| (leader.key().clone(), *fencing_token)).collect();
        let (fetches, caller) = self.fetch(&held).await;
        drop(context);
        let caller = &caller;
        let results =
            leased.into_iter().zip(fetches).map(async |((leader, fencing_token), fetch)| {
                match self.take(leader.key(), fetch, fencing_token, caller).await {
                    Some(result) => leader.complete(result),
                    None => self.complete_batch(leader, Claim::Unneeded).await,
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
        let span = trace::observe(key, (fetch.requested_at, fetch.observed_at), caller, polled, outcome);
        span.context().hold(Box::pin(self.ingest(key, fetch, fencing_token))).await
    }

    /// Calls the upstream, and renews the leases until it has responded.
    async fn fetch(&self, held: &[(JobKey, FencingToken)]) -> (Vec<Fetch>, LastCall) {
        let span = match (&self.trigger, held.first()) {
            (FetchTrigger::Background, Some((key, _))) => trace::poll(key.source.as_str(), held.len()),
            (FetchTrigger::Background | FetchTrigger::Operator | FetchTrigger::Client(_), _) => {
                trace::SpanGuard::default()
            }
        };
        let (context, caller) = span.context().with_caller();
        (context.hold(self.call_upstream(held)).await, caller)
    }

    async fn call_upstream(&self, held: &[(JobKey, FencingToken)]) -> Vec<Fetch> {
        let ids: Vec<ExternalId> = held.iter().map(|(key, _)| key.external_id.clone()).collect();
        let mut fetch = self.reader.fetch(&ids, &self.trigger);
        let every = self.inner.leases.renew_every();
        loop {
            tokio::select! {
                fetches = &mut fetch => return fetches,
                () = tokio::time::sleep(every) => self.inner.leases.renew(held).await,
            }
        }
    }

    /// Applies the result of a fetch. The first rows of a followed job are read as soon as it is observed to have
    /// succeeded.
    async fn ingest(&self, key: &JobKey, fetch: Fetch, fencing_token: FencingToken) -> Option<FetchResult> {
        let open = self.inner.following.is_open(key);
        let result = self.inner.ingest.take(key, fetch, fencing_token).await?;
        if let Some(observation) = result.as_ref().ok().filter(|_| open) {
            self.inner.read_ahead(&self.reader, observation);
        }
        if matches!(result, Err(FetchError::NotFound)) && self.inner.following.lacks_proof(key) {
            self.probe();
        }
        Some(result)
    }

    /// Probes whether the source is the configured one, since it does not find a job that it reported before.
    fn probe(&self) {
        let (inner, reader) = (Arc::clone(&self.inner), Arc::clone(&self.reader));
        let probe = async move {
            if reader.probe(None).await.is_ok() {
                inner.following.proved(reader.name());
            }
        };
        self.inner.spawner.spawn(TaskKind::Poll, Box::pin(trace::TraceContext::default().hold(probe)));
    }

    /// Completes one job with the result of another replica, or by a fetch of our own.
    async fn complete_batch(&self, leader: LeaderGuard<JobKey, FetchResult>, first: Claim) {
        let key = std::slice::from_ref(leader.key());
        let waiter = self.inner.waiters.listen(leader.key());
        let give_up = Instant::now() + LEASE_WAIT_MAX;
        let mut claim = Some(first);
        let mut lost = 0;
        let result = loop {
            let unless = match claim.take() {
                Some(Claim::Unneeded) => match self.inner.read_kept(leader.key()).await {
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
            claim = self.inner.leases.claim(key, unless).await.pop();
        };
        leader.complete(result);
    }
}

fn unavailable() -> FetchError {
    FetchError::Unavailable(Detail::new("other replicas held the lease of this job and returned no result"))
}
