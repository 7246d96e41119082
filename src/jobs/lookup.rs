//! Answers a query for jobs: access check, store, single flight, fetch, ingest, answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use indexmap::IndexMap;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::answer::{JobSnapshot, LookupError, LookupResult, age};
use super::cache::{JobCache, report_held};
use super::cacheability::{Cacheability, Freshness, cacheability};
use super::fetch::{FetchReceiver, FetchResult, Fetcher, Ingest, NewFetches};
use super::first_requests::NotFoundRetry;
use super::follow::FollowRegistry;
use super::reference::RequestedRef;
use super::visibility::{CheckedRef, Visibility};
use crate::domain::error::Problem;
use crate::domain::id::{JobHasher, JobKey};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::clock::{Clock, ClockReading};
use crate::ports::upstream::{FetchError, FetchTrigger, JobReader};
use crate::telemetry::meters::{LookupOutcome, LookupOutcomes};
use crate::telemetry::trace::{self, LookupSummary};

/// The requested jobs, each once, with the reader of its source. Their order is that of the answers.
pub(super) type RequestedJobs = IndexMap<JobKey, Arc<dyn JobReader>, JobHasher>;

/// The jobs that were answered at once, and those that are pending.
pub(super) struct StartedLookup {
    /// In the order of the requested jobs; `None` for a pending one.
    pub(super) answers: Vec<Option<LookupResult>>,
    pub(super) pending: Vec<PendingLookup>,
    pub(super) deadline: Instant,
    /// How many of the pending lookups this request leads.
    pub(super) led: usize,
}

/// A pending single flight, and the cached observation.
pub(super) struct PendingLookup {
    /// Its place among the requested jobs.
    index: usize,
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

/// Answers queries for jobs.
#[derive(Debug)]
pub(super) struct Lookup {
    visibility: Arc<Visibility>,
    cache: Arc<JobCache>,
    ingest: Arc<Ingest>,
    fetcher: Arc<Fetcher>,
    following: Arc<FollowRegistry>,
    retry: Arc<NotFoundRetry>,
    freshness: Arc<Freshness>,
    clock: Arc<dyn Clock>,
}

impl Lookup {
    #[expect(clippy::too_many_arguments, reason = "the services that it joins")]
    pub(super) const fn new(
        visibility: Arc<Visibility>,
        cache: Arc<JobCache>,
        ingest: Arc<Ingest>,
        fetcher: Arc<Fetcher>,
        following: Arc<FollowRegistry>,
        retry: Arc<NotFoundRetry>,
        freshness: Arc<Freshness>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { visibility, cache, ingest, fetcher, following, retry, freshness, clock }
    }

    /// Looks up jobs: same order, same length; each job is fetched at most once, however often it is named.
    ///
    /// A job that is not terminal is at most as old as `max_staleness` allows, or the answer contains the reason.
    /// Always answers within the configured time. Cancel safe: a fetch in flight continues for the other callers and
    /// for the store.
    pub(super) async fn lookup(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        max_staleness: Option<Duration>,
    ) -> Vec<LookupResult> {
        let mut requested = RequestedJobs::with_capacity_and_hasher(refs.len(), JobHasher::default());
        let resolve = |reference| {
            let CheckedRef { key, reader } = self.visibility.resolve(principal, reference)?;
            Ok(requested.insert_full(key, reader).0)
        };
        let targets: Vec<Result<usize, Problem>> = refs.iter().map(resolve).collect();
        let answers = self.answer(&requested, principal, max_staleness).await;
        let pick = |target: Result<usize, Problem>| match answers.get(target?) {
            Some(answer) => self.visibility.visible(principal, answer.clone()),
            None => unreachable!("every requested job is answered"),
        };
        let result_of = |(reference, target): (&RequestedRef, _)| {
            pick(target).map_err(|problem| self.retry.retryable_ref(principal, reference, problem))
        };
        refs.iter().zip(targets).map(result_of).collect()
    }

    /// Looks up jobs without waiting: same order, same length. `None`, with nothing done, unless the client may read each
    /// of them, and each is in memory and as fresh as required.
    pub(super) fn held<T>(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        max_staleness: Option<Duration>,
        convert: impl Fn(JobSnapshot) -> T,
    ) -> Option<Vec<T>> {
        let rules = self.freshness.rules();
        let limits = (max_staleness.unwrap_or(rules.fresh_for), rules.rerun_check);
        let now = self.clock.reading();
        let sources = self.visibility.sources();
        let mut checker = self.visibility.ref_checker(&sources, principal);
        let mut answers = Vec::with_capacity(refs.len());
        for reference in refs {
            let (key, source) = checker.resolve(reference).ok()?;
            let held = self.cache.held(key)?;
            let is_answer = self.visibility.may_see_by(source.grant, &held.job)
                && verdict(&self.ingest, &held, &**source.reader, now, limits) == Cacheability::Serve;
            if !is_answer {
                return None;
            }
            // a terminal job is not polled
            let is_polled = !held.job.is_terminal();
            let next_poll = || self.following.next_poll(key, self.clock.time_of_day());
            let next_poll = if is_polled { next_poll() } else { None };
            answers.push(convert(JobSnapshot { next_poll, ..JobSnapshot::fresh(held, now) }));
        }
        let span = trace::lookup(answers.len());
        span.in_scope(|| report_held(answers.len()));
        trace::found(&span, LookupSummary::default());
        LookupOutcomes::held(answers.len()).record();
        Some(answers)
    }

    /// Looks up jobs, each as fresh as required, within the configured time. The caller must pass the answers to
    /// [`Visibility::visible`] before a client gets them.
    pub(super) async fn answer(
        &self,
        requested: &RequestedJobs,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> Vec<LookupResult> {
        let span = trace::lookup(requested.len());
        let answered = async {
            let StartedLookup { mut answers, pending, deadline, led } =
                self.start_lookup(requested, principal, max_staleness).await;
            let misses = pending.len();
            let awaited = pending.into_iter().map(async |pending_lookup| {
                (pending_lookup.index, self.await_result(pending_lookup, deadline).await)
            });
            for (index, (_, answer)) in join_all(awaited).await {
                answers[index] = Some(answer);
            }
            let answers: Vec<LookupResult> = answers.into_iter().flatten().collect();
            let stale = || answers.iter().flatten().filter(|seen| seen.stale.is_some()).count();
            trace::found(&span, LookupSummary { misses, led, stale: if misses > 0 { stale() } else { 0 } });
            answers
        };
        let mut answers = answered.instrument(span.clone()).await;
        drop(span);
        let time_of_day = self.clock.time_of_day();
        for (key, answer) in requested.keys().zip(&mut answers) {
            if let Ok(seen) = answer {
                seen.next_poll = self.following.next_poll(key, time_of_day);
            }
        }
        answers
    }

    /// Answers from the cache, and starts fetches for the rest.
    ///
    /// A cached job that the client may not see is treated like one that does not exist: cached for as long as "no such
    /// job" is, then fetched, and not used as a stale answer.
    pub(super) async fn start_lookup(
        &self,
        requested: &RequestedJobs,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> StartedLookup {
        let keys: Vec<JobKey> = requested.keys().cloned().collect();
        let completed = self.fetcher.completed();
        let cached = self.cache.get_all(&keys).await;
        let freshness = self.freshness.rules();
        let allowed = max_staleness.unwrap_or(freshness.fresh_for);
        let believed = max_staleness.unwrap_or(freshness.missing_for);
        let now = self.clock.reading();

        let mut answers = Vec::with_capacity(keys.len());
        let mut outcomes = LookupOutcomes::default();
        let mut pending = Vec::new();
        let mut new_fetches = NewFetches::new();
        let mut checks = NewFetches::new();
        for (index, ((key, reader), held)) in requested.iter().zip(cached).enumerate() {
            let held = match held {
                Some(unseen) if !self.visibility.may_see(principal, &unseen.job) => {
                    if age(&unseen, now) <= believed {
                        outcomes.count(LookupOutcome::BelievedMissing);
                        answers.push(Some(Ok(JobSnapshot::fresh(unseen, now))));
                        continue;
                    }
                    None
                }
                held => held,
            };
            let verdict = held.as_ref().map_or(Cacheability::Fetch, |held| {
                verdict(&self.ingest, held, &**reader, now, (allowed, freshness.rerun_check))
            });
            match (verdict, held) {
                (Cacheability::Serve, Some(held)) => {
                    outcomes.count(LookupOutcome::Held);
                    answers.push(Some(Ok(JobSnapshot::fresh(held, now))));
                }
                (Cacheability::ServeAndCheck, Some(held)) => {
                    outcomes.count(LookupOutcome::HeldAndChecked);
                    answers.push(Some(Ok(JobSnapshot::fresh(held, now))));
                    if reader.take_recheck() {
                        self.fetcher.join(key, reader, &mut checks);
                    }
                }
                // A cached job can be missing only where that gives no information about its state.
                (_, held)
                    if (held.is_none() || !reader.upstream().profile().documents_expiry)
                        && self.is_missing(key, believed).await =>
                {
                    outcomes.count(LookupOutcome::BelievedMissing);
                    let error = LookupError::Fetch(FetchError::NotFound);
                    let answer = match held {
                        Some(held) => Ok(JobSnapshot::stale(held, now, Some(error.stale_reason()))),
                        None => Err(error.problem(key)),
                    };
                    answers.push(Some(answer));
                }
                (_, held) => {
                    outcomes.count(LookupOutcome::Miss);
                    let receiver = self.fetcher.join(key, reader, &mut new_fetches);
                    answers.push(None);
                    pending.push(PendingLookup { index, key: key.clone(), receiver, held });
                }
            }
        }
        outcomes.record();
        let led = new_fetches.values().map(|(_, leaders)| leaders.len()).sum();
        self.fetcher.spawn(checks, &FetchTrigger::Background, None);
        let trigger = FetchTrigger::Client(Arc::clone(principal.shared_name()));
        if led == 0 || self.fetcher.completed() == completed {
            self.fetcher.spawn(new_fetches, &trigger, None);
        } else {
            let overtaken = OvertakenFlights {
                cache: Arc::clone(&self.cache),
                ingest: Arc::clone(&self.ingest),
                clock: Arc::clone(&self.clock),
                limits: (allowed, freshness.rerun_check),
            };
            self.fetcher.spawn_checked(new_fetches, trigger, |new_fetches| overtaken.complete(new_fetches));
        }
        StartedLookup { answers, pending, deadline: Instant::now() + freshness.answer_within, led }
    }

    /// Waits for one fetch, until the deadline. If it fails, the cached observation is the answer.
    pub(super) async fn await_result(
        &self,
        pending_lookup: PendingLookup,
        deadline: Instant,
    ) -> (JobKey, LookupResult) {
        let PendingLookup { key, receiver, held, .. } = pending_lookup;
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

    /// Returns whether "no such job" was reported recently enough to be served from the cache.
    async fn is_missing(&self, key: &JobKey, believed: Duration) -> bool {
        self.cache.missing_for(key).await.is_some_and(|ago| ago <= believed)
    }
}
/// Flights that a request leads, of which another one may have been completed between its read of the cache and its own.
struct OvertakenFlights {
    cache: Arc<JobCache>,
    ingest: Arc<Ingest>,
    clock: Arc<dyn Clock>,
    /// The allowed age, and when a terminal state is checked again.
    limits: (Duration, Duration),
}

impl OvertakenFlights {
    /// Completes those whose result the cache has by now, and returns the others.
    async fn complete(self, mut new_fetches: NewFetches) -> NewFetches {
        for (reader, leaders) in new_fetches.values_mut() {
            let again = std::mem::take(leaders);
            let keys: Vec<JobKey> = again.iter().map(|leader| leader.key().clone()).collect();
            let cached = self.cache.get_all(&keys).await;
            let now = self.clock.reading();
            for (leader, held) in again.into_iter().zip(cached) {
                let is_answer = |held: &Observation| {
                    verdict(&self.ingest, held, &**reader, now, self.limits) != Cacheability::Fetch
                };
                match held.filter(is_answer) {
                    Some(held) => leader.complete(Ok(held)),
                    None => leaders.push(leader),
                }
            }
        }
        new_fetches
    }
}

/// Whether a cached observation is the answer, within the allowed age and with this check of reruns.
fn verdict(
    ingest: &Ingest,
    held: &Observation,
    reader: &dyn JobReader,
    now: ClockReading,
    (allowed, rerun_check): (Duration, Duration),
) -> Cacheability {
    // An observation that the upstream contradicts is not fresh, however new it is.
    if !held.job.is_terminal() && ingest.is_contradicted(held) {
        return Cacheability::Fetch;
    }
    cacheability(&held.job, reader.upstream(), age(held, now), allowed, rerun_check)
}
