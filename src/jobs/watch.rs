//! Watches jobs until they are terminal: a snapshot of each first, then the changes. Also waits for one terminal state.
//!
//! Interest is registered before the snapshot is read, so a terminal state in between is not missed. All updates of a
//! job come from the one published state in `follow`, so no update is sent twice.
//!
//! Whether a watcher may see the job is checked for every value. A watcher that may not see it gets the same responses
//! as if the job did not exist: the same messages, the same sequence numbers, the same completion.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::domain::error::{Problem, ProblemCode};
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

use super::answer::{JobSnapshot, LookupError, LookupResult, StaleReason};
use super::follow::{Interest, PublishedState};
use super::lookup::{PendingLookup, RequestedJobs, StartedLookup};
use super::visibility::{CheckedRef, RequestedRef, not_found};
use super::{Core, Jobs};
use crate::ports::upstream::FetchError;
use crate::telemetry::meters::{self, DeliveryLag};
use crate::telemetry::trace::{self, LookupSummary, TraceContext};

/// An update to a watcher.
#[derive(Clone, Debug)]
pub struct WatchUpdate {
    /// The job, as the watcher named it.
    pub reference: RequestedRef,
    /// Whether this is the first update, a change, or the last update.
    pub kind: UpdateKind,
    /// The job, or why it cannot be reported.
    pub answer: LookupResult,
    /// Grows with each change of this job that this process publishes; a gap is a change that a later one replaced.
    /// While no job is visible, it counts the updates of this watcher.
    pub sequence: u64,
    /// No more updates of this job follow.
    pub is_final: bool,
}

/// The position of an update among those of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The first: the state at the start.
    Snapshot,
    /// A change.
    Changed,
    /// The last, after others.
    Ended,
}

/// A job being watched.
struct WatchedJob {
    inner: Arc<Core>,
    principal: Arc<Principal>,
    reference: RequestedRef,
    interest: Interest,
    sequence: u64,
    last: Option<LastDelivered>,
    /// The time limit of waiting for a job that is not found.
    missing_timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// What was delivered to a watcher last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastDelivered {
    /// The job, with this sequence number.
    Seen(u64),
    /// That no job is visible, and why.
    Unseen(ProblemCode),
}

/// The part of a published state that a client may see.
enum VisibleState {
    /// Nothing is known yet.
    Nothing,
    /// No job is visible.
    Unseen(Problem),
    /// The job.
    Seen,
}

impl Jobs {
    /// Watches jobs: a snapshot of each, then its changes; the stream completes when all jobs have.
    ///
    /// A job that is named twice is reported twice. An invalid reference is reported once, as a final problem. An
    /// upstream error affects the freshness and never ends the stream. Dropping the stream ends the interest.
    pub fn watch(
        &self,
        principal: Principal,
        refs: Vec<RequestedRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let jobs = self.clone();
        // Boxed, so that the memory of the start is freed when it is complete: the stream lasts for hours.
        let begin = async move { jobs.begin(&principal, refs, max_staleness).await };
        let begin = Box::pin(TraceContext::here().hold(begin));
        stream::once(begin).flatten()
    }

    /// Waits at most `timeout` until a job is terminal, and returns the state reached.
    ///
    /// A job that is not found is waited for as in a watch, since it may have been created a moment ago; an invalid
    /// reference is answered at once. The wait ends when the credential expires; if the credential was revoked
    /// meanwhile, the answer is "no such job". With a zero timeout it is an ordinary lookup. Cancel safe.
    pub async fn await_end(
        &self,
        principal: &Principal,
        reference: RequestedRef,
        timeout: Duration,
    ) -> LookupResult {
        if timeout.is_zero() {
            return self.lookup_one(principal, reference, None).await;
        }
        let target = self.resolve(principal, &reference);
        let target = target.map_err(|problem| self.inner.retryable_ref(principal, &reference, problem))?;
        let stood = self.is_still_valid(principal);
        let holds = self.pass_left(principal).unwrap_or(Duration::MAX);
        let deadline = Instant::now() + timeout.min(self.inner.freshness().answer_within).min(holds);
        let CheckedRef { key, reader } = target;
        let mut interest = self.inner.following.interest(&key, principal.shared_name(), None);
        let first = self.inner.answer(RequestedJobs::from([(key.clone(), reader)]), principal, None);
        match tokio::time::timeout_at(deadline, first).await {
            Ok(answers) => answers.iter().for_each(|(key, answer)| self.inner.settle(key, answer)),
            Err(_) => {
                self.inner.feeds.turned(self.inner.following.offer_missing(&key, LookupError::Impatient));
            }
        }
        // Counted from the delivery to this caller, so that the wait ends at the same time whatever others know of the
        // job.
        let mut missing_until = None;
        loop {
            let published = interest.read();
            if self.inner.is_removed(&key) {
                return Err(not_found(&key));
            }
            let until = match self.inner.view(principal, &published, &key) {
                VisibleState::Seen if published.is_over() => None,
                VisibleState::Nothing | VisibleState::Seen => Some(deadline),
                VisibleState::Unseen(problem) => match problem.code {
                    ProblemCode::FollowLimit => None,
                    ProblemCode::NotFound => {
                        let missing_for = self.inner.following.missing_for();
                        let until = *missing_until.get_or_insert_with(|| Instant::now() + missing_for);
                        Some(deadline.min(until))
                    }
                    ProblemCode::Expired
                    | ProblemCode::InvalidRef
                    | ProblemCode::Throttled
                    | ProblemCode::Unavailable
                    | ProblemCode::TimedOut
                    | ProblemCode::CredentialRejected
                    | ProblemCode::Unconfigured
                    | ProblemCode::BadAnswer
                    | ProblemCode::Internal => Some(deadline),
                },
            };
            let waited = match until {
                Some(until) => tokio::time::timeout_at(until, interest.changed()).await.map_err(drop),
                None => Err(()),
            };
            if waited.is_err() {
                // Read again: a poll without a change renews the time of the observation and wakes no watcher.
                let published = interest.read();
                // A credential that was revoked meanwhile gives no access to later states.
                if stood
                    && !self.is_still_valid(principal)
                    && self.pass_left(principal) != Some(Duration::ZERO)
                {
                    return Err(not_found(&key));
                }
                let waited_it_out = missing_until.is_some_and(|until| until <= Instant::now());
                return match self.inner.view(principal, &published, &key) {
                    VisibleState::Unseen(problem) if waited_it_out => Err(problem),
                    VisibleState::Unseen(problem) => Err(self.inner.retryable(principal, &key, problem)),
                    VisibleState::Nothing | VisibleState::Seen => self.inner.published(&published, &key),
                };
            }
        }
    }

    /// Registers all interests, starts all lookups at once, and returns the updates from then on.
    async fn begin(
        &self,
        principal: &Principal,
        refs: Vec<RequestedRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let client = principal.shared_name();
        let viewer = Arc::new(principal.clone());
        let mut problems = Vec::new();
        let mut watched = Vec::new();
        let mut requested = RequestedJobs::new();
        for reference in refs {
            match self.resolve(principal, &reference) {
                Ok(target) => {
                    let interest =
                        self.inner.following.interest(&target.key, Arc::clone(&client), max_staleness);
                    requested.insert(target.key, target.reader);
                    let (inner, viewer) = (Arc::clone(&self.inner), Arc::clone(&viewer));
                    watched.push(WatchedJob::new(inner, viewer, reference, interest));
                }
                Err(problem) => problems.push(WatchUpdate::refused(reference, problem)),
            }
        }
        let span = trace::lookup(requested.len());
        let set_out = self.inner.start_lookup(&requested, principal, max_staleness);
        let StartedLookup { answers, pending, deadline, led } = span.context().hold(set_out).await;
        span.found(LookupSummary { misses: pending.len(), led, stale: 0 });
        for (key, answer) in &answers {
            self.inner.settle(key, answer);
        }
        // If a fetch fails, the cached observation is published instead of an error.
        let held = pending.iter().filter_map(PendingLookup::held);
        held.for_each(|older| self.inner.feeds.turned(self.inner.following.recall(older)));
        // Each result is published as it arrives, so that a slow source does not delay the updates of the others.
        let inner = Arc::clone(&self.inner);
        let results = stream::iter(pending).map(move |pending_lookup| {
            let inner = Arc::clone(&inner);
            async move {
                let (key, answer) = inner.await_result(pending_lookup, deadline).await;
                inner.settle(&key, &answer);
                None
            }
        });
        let results = results.buffer_unordered(usize::MAX).boxed();
        let changes = watched.into_iter().map(|one| stream::unfold(one, WatchedJob::next).map(Some).boxed());
        let published = stream::select_all(changes.chain(std::iter::once(results)));
        let problems =
            stream::iter(problems).inspect(|_| meters::update_delivered(meters::SubscriptionKind::Watch));
        problems.chain(published.filter_map(std::future::ready))
    }
}

impl Core {
    /// Applies the result of a lookup that made no fetch to the followed job: cached, or cached as missing.
    pub(super) fn settle(&self, key: &JobKey, answer: &LookupResult) {
        let turned = match answer {
            // Not found a moment ago, or an invalid response: the cached observation is published with that reason.
            Ok(JobSnapshot { observation, stale: Some(StaleReason::BadAnswer), .. }) => {
                self.feeds.turned(self.following.recall(observation));
                self.following.offer_missing(key, LookupError::Fetch(FetchError::NotFound))
            }
            Ok(seen) => self.following.offer_cached(&seen.observation),
            Err(Problem { code: ProblemCode::NotFound, .. }) => {
                self.following.offer_missing(key, LookupError::Fetch(FetchError::NotFound))
            }
            Err(_) => self.following.offer_missing(key, LookupError::Impatient),
        };
        self.feeds.turned(turned);
    }
}

impl Core {
    /// The part of a published state that a client may see.
    fn view(&self, principal: &Principal, published: &PublishedState, key: &JobKey) -> VisibleState {
        if published.seen().is_some_and(|seen| self.may_see(principal, &seen.job)) {
            return VisibleState::Seen;
        }
        published.unseen(key).map_or(VisibleState::Nothing, VisibleState::Unseen)
    }

    /// The answer for a client that may see the job.
    fn published(&self, published: &PublishedState, key: &JobKey) -> LookupResult {
        let answer = published.answer(key, self.clock.reading());
        answer.map(|seen| JobSnapshot { next_poll: self.next_poll(key), ..seen })
    }
}

impl WatchedJob {
    const fn new(
        inner: Arc<Core>,
        principal: Arc<Principal>,
        reference: RequestedRef,
        interest: Interest,
    ) -> Self {
        let (sequence, last, missing_timer, over) = (0, None, None, false);
        Self { inner, principal, reference, interest, sequence, last, missing_timer, over }
    }

    /// The next update; `None` after the last one.
    async fn next(mut self) -> Option<(WatchUpdate, Self)> {
        if self.over {
            return None;
        }
        let (answer, last, is_final) = loop {
            let published = self.interest.read();
            if let Some(delivery) = self.measure_delivery(&published) {
                self.measure(&published);
                break delivery;
            }
            match &mut self.missing_timer {
                None => self.interest.changed().await,
                Some(missing_timer) => tokio::select! {
                    () = self.interest.changed() => {}
                    () = missing_timer => break self.nothing_to_see(),
                },
            }
        };
        let kind = match (self.last, is_final) {
            (None, _) => UpdateKind::Snapshot,
            (Some(_), false) => UpdateKind::Changed,
            (Some(_), true) => UpdateKind::Ended,
        };
        meters::update_delivered(meters::SubscriptionKind::Watch);
        self.sequence += 1;
        if let LastDelivered::Seen(sequence) = last {
            self.sequence = self.sequence.max(sequence);
        }
        // Counted from the delivery to this watcher, so that the wait ends at the same time whatever others know of the
        // job.
        let waits = last == LastDelivered::Unseen(ProblemCode::NotFound) && !is_final;
        self.missing_timer = waits.then(|| Box::pin(tokio::time::sleep(self.inner.following.missing_for())));
        (self.last, self.over) = (Some(last), is_final);
        let key = self.interest.key();
        // The last update is sent after the time in which a retry helps.
        let retryable = |problem| self.inner.retryable(&self.principal, key, problem);
        let answer = if is_final { answer } else { answer.map_err(retryable) };
        let (reference, sequence) = (self.reference.clone(), self.sequence);
        Some((WatchUpdate { reference, kind, answer, sequence, is_final }, self))
    }

    /// Records the delivery lag of the next update, and the number of updates that it replaces.
    fn measure(&self, published: &PublishedState) {
        let Some(LastDelivered::Seen(before)) = self.last else { return };
        meters::updates_coalesced(
            meters::SubscriptionKind::Watch,
            published.sequence.saturating_sub(before + 1),
        );
        if let Some(found) = published.found().filter(|found| found.sequence > before) {
            let since = |at, now: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
            let reading = self.inner.clock.reading();
            let now = reading.now;
            // Times reported by the upstream use its clock, which is assumed correct; times of observations are process
            // time.
            let detected_at = if found.from_upstream { reading.date(now) } else { now };
            let delivery = DeliveryLag {
                lag: since(found.changed_at, detected_at),
                from_upstream: found.from_upstream,
                between: since(found.previous_request_at, found.at),
                since_found: since(found.at, now),
            };
            meters::change_to_delivery(&self.interest.key().source, delivery);
        }
    }

    /// The next update that was not delivered yet, and whether it is the last.
    fn measure_delivery(&self, published: &PublishedState) -> Option<(LookupResult, LastDelivered, bool)> {
        let key = self.interest.key();
        if self.inner.is_removed(key) {
            return Some(self.nothing_to_see());
        }
        match (self.inner.view(&self.principal, published, key), self.last) {
            (VisibleState::Seen, Some(LastDelivered::Seen(before))) if published.sequence <= before => None,
            (VisibleState::Seen, _) => Some((
                self.inner.published(published, key),
                LastDelivered::Seen(published.sequence),
                published.is_over(),
            )),
            (_, Some(LastDelivered::Seen(_))) => Some(self.nothing_to_see()),
            (VisibleState::Nothing, _) => None,
            // An error is no update for an invisible job: it may be terminal, and then it is not polled.
            (VisibleState::Unseen(problem), Some(LastDelivered::Unseen(before)))
                if before == problem.code || before == ProblemCode::NotFound =>
            {
                None
            }
            (VisibleState::Unseen(problem), _) => {
                let last = LastDelivered::Unseen(problem.code);
                Some((Err(problem), last, last == LastDelivered::Unseen(ProblemCode::FollowLimit)))
            }
        }
    }

    /// The last update of a job that is not visible any more, or never was.
    fn nothing_to_see(&self) -> (LookupResult, LastDelivered, bool) {
        (Err(not_found(self.interest.key())), LastDelivered::Unseen(ProblemCode::NotFound), true)
    }
}

impl WatchUpdate {
    /// The only update of a reference that cannot be watched.
    fn refused(reference: RequestedRef, problem: Problem) -> Self {
        Self { reference, kind: UpdateKind::Snapshot, answer: Err(problem), sequence: 0, is_final: true }
    }
}
