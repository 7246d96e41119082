//! Answers a query for jobs: access check, store, single flight, fetch, ingest, answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::error::Problem;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::spawner::TaskKind;
use crate::ports::upstream::{FetchError, FetchTrigger, JobReader};
use crate::telemetry::meters::{self, LookupOutcome};
use crate::telemetry::trace::{self, LookupSummary};

use super::answer::{JobSnapshot, LookupError, LookupResult, age};
use super::cacheability::{Cacheability, cacheability};
use super::fetcher::Fetcher;
use super::ingest::{FetchResult, with_read_timeout};
use super::poller::PollPermit;
use super::single_flight::{FetchReceiver, LeaderGuard};
use super::visibility::{CheckedRef, RequestedRef};
use super::{Core, Jobs};

/// The requested jobs, each with the reader of its source.
pub(super) type RequestedJobs = HashMap<JobKey, Arc<dyn JobReader>>;

/// New single flights by source, not started yet.
pub(super) type NewFetches = HashMap<SourceName, (Arc<dyn JobReader>, Vec<LeaderGuard<JobKey, FetchResult>>)>;

/// The jobs that were answered at once, and those that are pending.
pub(super) struct StartedLookup {
    pub(super) answers: HashMap<JobKey, LookupResult>,
    pub(super) pending: Vec<PendingLookup>,
    pub(super) deadline: Instant,
    /// How many of the pending lookups this request leads.
    pub(super) led: usize,
}

/// A pending single flight, and the cached observation.
pub(super) struct PendingLookup {
    key: JobKey,
    receiver: FetchReceiver<FetchResult>,
    held: Option<Observation>,
}

impl PendingLookup {
    /// The cached observation of the job, older than requested.
    pub(super) const fn held(&self) -> Option<&Observation> {
        self.held.as_ref()
    }
}

impl Jobs {
    /// Looks up one job. See [`Jobs::lookup`].
    pub async fn lookup_one(
        &self,
        principal: &Principal,
        reference: RequestedRef,
        max: Option<Duration>,
    ) -> LookupResult {
        let mut answers = self.lookup(principal, &[reference], max).await;
        answers.pop().unwrap_or_else(|| unreachable!("each reference has one answer"))
    }

    /// Looks up jobs: same order, same length; each job is fetched at most once, however often it is named.
    ///
    /// A job that is not terminal is at most as old as `max_staleness` allows, or the answer contains the reason.
    /// Always answers within the configured time. Cancel safe: a fetch in flight continues for the other callers and
    /// for the store.
    pub async fn lookup(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        max_staleness: Option<Duration>,
    ) -> Vec<LookupResult> {
        let targets: Vec<Result<CheckedRef, Problem>> =
            refs.iter().map(|one| self.resolve(principal, one)).collect();
        let mut requested = RequestedJobs::with_capacity(targets.len());
        for target in targets.iter().flatten() {
            requested.entry(target.key.clone()).or_insert_with(|| Arc::clone(&target.reader));
        }
        let answers = self.inner.answer(requested, principal, max_staleness).await;
        let pick = |target: Result<CheckedRef, Problem>| match answers.get(&target?.key) {
            Some(answer) => self.inner.visible(principal, answer.clone()),
            None => unreachable!("every requested job is answered"),
        };
        let result_of = |(reference, target): (&RequestedRef, _)| {
            pick(target).map_err(|problem| self.inner.retryable_ref(principal, reference, problem))
        };
        refs.iter().zip(targets).map(result_of).collect()
    }
}

impl Core {
    /// Looks up jobs, each as fresh as required, within the configured time. The caller must pass the answers to
    /// [`Core::visible`] before a client gets them.
    pub(super) async fn answer(
        self: &Arc<Self>,
        requested: RequestedJobs,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> HashMap<JobKey, LookupResult> {
        let span = trace::lookup(requested.len());
        let set_out = self.start_lookup(&requested, principal, max_staleness);
        let StartedLookup { mut answers, pending, deadline, led } = span.context().hold(set_out).await;
        let misses = pending.len();
        let results = pending.into_iter().map(|pending_lookup| self.await_result(pending_lookup, deadline));
        answers.extend(join_all(results).await);
        let stale = || answers.values().flatten().filter(|seen| seen.stale.is_some()).count();
        span.found(LookupSummary { misses, led, stale: if misses > 0 { stale() } else { 0 } });
        drop(span);
        for (key, seen) in answers.iter_mut().filter_map(|(key, answer)| Some((key, answer.as_mut().ok()?))) {
            seen.next_poll = self.next_poll(key);
        }
        answers
    }

    /// Answers from the cache, and starts fetches for the rest.
    ///
    /// A cached job that the client may not see is treated like one that does not exist: cached for as long as "no such
    /// job" is, then fetched, and not used as a stale answer.
    pub(super) async fn start_lookup(
        self: &Arc<Self>,
        requested: &RequestedJobs,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> StartedLookup {
        let keys: Vec<JobKey> = requested.keys().cloned().collect();
        // Allocated with the full capacity, here and above: growing the map costs more than filling it.
        let mut held: HashMap<&JobKey, Observation> = HashMap::with_capacity(keys.len());
        let found = keys.iter().zip(self.ingest.cached_all(&keys).await);
        held.extend(found.filter_map(|(key, held)| Some((key, held?))));
        let freshness = self.freshness();
        let allowed = max_staleness.unwrap_or(freshness.fresh_for);
        let believed = max_staleness.unwrap_or(freshness.missing_for);
        let now = self.clock.reading();

        let mut answers = HashMap::with_capacity(keys.len());
        let mut pending = Vec::new();
        let mut new_fetches = NewFetches::new();
        let mut checks = NewFetches::new();
        for (key, reader) in requested {
            let held = held.remove(key);
            let held = match held {
                Some(unseen) if !self.may_see(principal, &unseen.job) => {
                    if age(&unseen, now) <= believed {
                        meters::lookup_outcome(LookupOutcome::BelievedMissing);
                        answers.insert(key.clone(), Ok(JobSnapshot::fresh(unseen, now)));
                        continue;
                    }
                    None
                }
                held => held,
            };
            let verdict = held.as_ref().map_or(Cacheability::Fetch, |held| {
                // An observation that the upstream contradicts is not fresh, however new it is.
                if !held.job.is_terminal() && self.ingest.is_contradicted(held) {
                    return Cacheability::Fetch;
                }
                cacheability(&held.job, reader.upstream(), age(held, now), allowed, freshness.rerun_check)
            });
            match (verdict, held) {
                (Cacheability::Serve, Some(held)) => {
                    meters::lookup_outcome(LookupOutcome::Held);
                    answers.insert(key.clone(), Ok(JobSnapshot::fresh(held, now)));
                }
                (Cacheability::ServeAndCheck, Some(held)) => {
                    meters::lookup_outcome(LookupOutcome::HeldAndChecked);
                    answers.insert(key.clone(), Ok(JobSnapshot::fresh(held, now)));
                    if reader.take_recheck() {
                        self.join_fetches(key, reader, &mut checks);
                    }
                }
                // A cached job can be missing only where that gives no information about its state.
                (_, held)
                    if (held.is_none() || !reader.upstream().documents_expiry())
                        && self.is_missing(key, believed).await =>
                {
                    meters::lookup_outcome(LookupOutcome::BelievedMissing);
                    let error = LookupError::Fetch(FetchError::NotFound);
                    let answer = match held {
                        Some(held) => Ok(JobSnapshot::stale(held, now, Some(error.stale_reason()))),
                        None => Err(error.problem(key)),
                    };
                    answers.insert(key.clone(), answer);
                }
                (_, held) => {
                    meters::lookup_outcome(LookupOutcome::Miss);
                    let receiver = self.join_fetches(key, reader, &mut new_fetches);
                    pending.push(PendingLookup { key: key.clone(), receiver, held });
                }
            }
        }
        let led = new_fetches.values().map(|(_, leaders)| leaders.len()).sum();
        self.spawn_fetches(checks, &FetchTrigger::Background, None);
        self.spawn_fetches(new_fetches, &FetchTrigger::Client(principal.shared_name()), None);
        StartedLookup { answers, pending, deadline: Instant::now() + freshness.answer_within, led }
    }

    /// Waits for one fetch, until the deadline. If it fails, the cached observation is the answer.
    pub(super) async fn await_result(
        &self,
        pending_lookup: PendingLookup,
        deadline: Instant,
    ) -> (JobKey, LookupResult) {
        let PendingLookup { key, receiver, held } = pending_lookup;
        let received = tokio::time::timeout_at(deadline, receiver.await_result()).await;
        let result = received
            .map_err(|_| LookupError::Impatient)
            .and_then(|received| received.ok_or(LookupError::Lost));
        let now = self.clock.reading();
        let answer = match result.and_then(|result| result.map_err(LookupError::Fetch)) {
            Ok(observation) => Ok(JobSnapshot::fresh(observation, now)),
            Err(error) => match held {
                Some(held) => Ok(JobSnapshot::stale(held, now, Some(error.stale_reason()))),
                None => Err(error.problem(&key)),
            },
        };
        (key, answer)
    }

    /// Joins the single flight of a job; the leader guard of a new one is added to those of its source.
    pub(super) fn join_fetches(
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

    /// Starts the fetches, as many jobs per task as fit in one request, so that a slow request delays only the jobs in
    /// it.
    pub(super) fn spawn_fetches(
        self: &Arc<Self>,
        new_fetches: NewFetches,
        trigger: &FetchTrigger,
        context: Option<&Arc<PollPermit>>,
    ) {
        for (reader, mut leaders) in new_fetches.into_values() {
            // Sorted the same way in every replica, so that replicas that start fetches of the same jobs build the same
            // requests.
            leaders.sort_unstable_by(|one, other| one.key().cmp(other.key()));
            let size = reader.upstream().ids_a_request();
            while !leaders.is_empty() {
                let rest = leaders.split_off(leaders.len().saturating_sub(size));
                let fetcher = Fetcher::new(Arc::clone(self), Arc::clone(&reader), trigger.clone());
                let task = fetcher.run(rest, context.map(Arc::clone));
                // A background fetch belongs to the trace of no request.
                let below = if *trigger == FetchTrigger::Background {
                    trace::TraceContext::default()
                } else {
                    trace::TraceContext::here()
                };
                self.spawner.spawn(TaskKind::Fetch, Box::pin(below.hold(task)));
            }
        }
    }

    /// When a followed job is polled next.
    pub(super) fn next_poll(&self, key: &JobKey) -> Option<Timestamp> {
        self.clock.time_of_day().checked_add(self.following.next_poll(key)?).ok()
    }

    /// Returns whether "no such job" was reported recently enough to be served from the cache.
    async fn is_missing(&self, key: &JobKey, believed: Duration) -> bool {
        let missing_age =
            self.ingest.or_cache_miss(with_read_timeout(self.store.missing_for(key)).await).flatten();
        missing_age.is_some_and(|ago| ago <= believed)
    }
}
