//! Watches jobs until they are terminal: a snapshot of each first, then the changes.
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
use tokio::time::Sleep;
use tracing::Instrument as _;

use super::update::{UpdateKind, WatchUpdate};
use super::view::{View, VisibleState};
use crate::domain::error::{Problem, ProblemCode};
use crate::domain::principal::Principal;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::fetch::Ingest;
use crate::jobs::first_requests::NotFoundRetry;
use crate::jobs::follow::{FollowRegistry, Interest, PublishedState};
use crate::jobs::lookup::{Lookup, PendingLookup, RequestedJobs, StartedLookup};
use crate::jobs::reference::{RequestedRef, not_found};
use crate::jobs::visibility::Visibility;
use crate::ports::clock::{Clock, ClockReading};
use crate::telemetry::meters::{self, DeliveryLag};
use crate::telemetry::trace::{self, LookupSummary, TraceContext};

/// Watches jobs.
#[derive(Debug)]
pub(in crate::jobs) struct JobWatch {
    visibility: Arc<Visibility>,
    lookup: Arc<Lookup>,
    ingest: Arc<Ingest>,
    following: Arc<FollowRegistry>,
    retry: Arc<NotFoundRetry>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
}

/// A job being watched.
struct WatchedJob {
    watch: Arc<JobWatch>,
    principal: Principal,
    reference: Arc<RequestedRef>,
    interest: Interest,
    sequence: u64,
    last: Option<LastDelivered>,
    /// The time limit of waiting for a job that is not found.
    missing_timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// An update that was not delivered yet.
struct PendingUpdate {
    answer: Result<Arc<JobSnapshot>, Problem>,
    last: LastDelivered,
    is_final: bool,
    /// The reading of the clock for the answer.
    reading: ClockReading,
}

/// What was delivered to a watcher last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastDelivered {
    /// The job, with this sequence number.
    Seen(u64),
    /// That no job is visible, and why.
    Unseen(ProblemCode),
}

impl JobWatch {
    pub(in crate::jobs) const fn new(
        visibility: Arc<Visibility>,
        lookup: Arc<Lookup>,
        ingest: Arc<Ingest>,
        following: Arc<FollowRegistry>,
        retry: Arc<NotFoundRetry>,
        view: Arc<View>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { visibility, lookup, ingest, following, retry, view, clock }
    }

    /// Watches jobs: a snapshot of each, then its changes; the stream completes when all jobs have.
    ///
    /// A job that is named twice is reported twice. An invalid reference is reported once, as a final problem. An
    /// upstream error affects the freshness and never ends the stream. Dropping the stream ends the interest.
    pub(in crate::jobs) fn updates(
        self: &Arc<Self>,
        principal: Principal,
        refs: Vec<RequestedRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let watch = Arc::clone(self);
        // Boxed, so that the memory of the start is freed when it is complete: the stream lasts for hours.
        let begin = async move { watch.begin(&principal, refs, max_staleness).await };
        let begin = TraceContext::here().boxed(begin);
        stream::once(begin).flatten()
    }

    /// Registers all interests, starts all lookups at once, and returns the updates from then on.
    async fn begin(
        self: &Arc<Self>,
        principal: &Principal,
        refs: Vec<RequestedRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let client = Arc::clone(principal.shared_name());
        let mut problems = Vec::new();
        let mut watched = Vec::new();
        let mut requested = RequestedJobs::default();
        for reference in refs {
            match self.visibility.resolve(principal, &reference) {
                Ok(target) => {
                    let interest = self.following.interest(&target.key, Arc::clone(&client), max_staleness);
                    requested.insert(target.key, target.reader);
                    watched.push(WatchedJob::new(Arc::clone(self), principal.clone(), reference, interest));
                }
                Err(problem) => problems.push(WatchUpdate::refused(reference, problem)),
            }
        }
        let span = trace::lookup(requested.len());
        let set_out = self.lookup.start_lookup(&requested, principal, max_staleness);
        let StartedLookup { answers, pending, deadline, led } = set_out.instrument(span.clone()).await;
        trace::found(&span, LookupSummary { misses: pending.len(), led, stale: 0 });
        drop(span);
        for (key, answer) in requested.keys().zip(&answers) {
            if let Some(answer) = answer {
                self.ingest.apply_answer(key, answer);
            }
        }
        // If a fetch fails, the cached observation is published instead of an error.
        let held = pending.iter().filter_map(PendingLookup::held);
        held.for_each(|older| self.ingest.recall(older));
        // Each result is published as it arrives, so that a slow source does not delay the updates of the others.
        let watch = Arc::clone(self);
        let results = stream::iter(pending).map(move |pending_lookup| {
            let watch = Arc::clone(&watch);
            async move {
                let (key, answer) = watch.lookup.await_result(pending_lookup, deadline).await;
                watch.ingest.apply_answer(&key, &answer);
                None
            }
        });
        // a chain drops what has ended: the stream lasts for hours
        let results = results.buffer_unordered(usize::MAX).chain(stream::empty()).boxed();
        // boxed, since each step moves it
        let mut changes =
            watched.into_iter().map(|one| stream::unfold(Box::new(one), WatchedJob::next).map(Some));
        let published = match (changes.next(), changes.len()) {
            // the usual case, without a queue of the streams that were woken
            (Some(only), 0) => stream::select(only, results).left_stream(),
            (first, _) => {
                let changes = first.into_iter().chain(changes).map(stream::StreamExt::boxed);
                stream::select_all(changes.chain(std::iter::once(results))).right_stream()
            }
        };
        let problems =
            stream::iter(problems).inspect(|_| meters::update_delivered(meters::SubscriptionKind::Watch));
        problems.chain(published.filter_map(std::future::ready))
    }
}

impl WatchedJob {
    fn new(watch: Arc<JobWatch>, principal: Principal, reference: RequestedRef, interest: Interest) -> Self {
        let reference = Arc::new(reference);
        let (sequence, last, missing_timer, over) = (0, None, None, false);
        Self { watch, principal, reference, interest, sequence, last, missing_timer, over }
    }

    /// The next update; `None` after the last one.
    async fn next(mut self: Box<Self>) -> Option<(WatchUpdate, Box<Self>)> {
        if self.over {
            return None;
        }
        // what was read for the last update is not read again: each change of what a watcher may see is published
        let mut is_unread = self.last.is_none() || self.interest.is_unread();
        let PendingUpdate { answer, last, is_final, .. } = loop {
            if is_unread && let Some(update) = self.pending_update() {
                break update;
            }
            is_unread = true;
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
        self.missing_timer =
            waits.then(|| Box::pin(tokio::time::sleep(self.watch.following.settings().missing_for)));
        (self.last, self.over) = (Some(last), is_final);
        let key = self.interest.key();
        // The last update is sent after the time in which a retry helps.
        let retryable = |problem| self.watch.retry.retryable(&self.principal, key, problem);
        let answer = if is_final { answer } else { answer.map_err(retryable) };
        let (reference, sequence) = (Arc::clone(&self.reference), self.sequence);
        Some((WatchUpdate { reference, kind, answer, sequence, is_final }, self))
    }

    /// The update of the present state, if it was not delivered yet. Records its delivery lag.
    fn pending_update(&mut self) -> Option<PendingUpdate> {
        let published = self.interest.read();
        let update = self.next_delivery(&published)?;
        self.record_lag(&published, update.reading);
        Some(update)
    }

    /// Records the delivery lag of the next update, and the number of updates that it replaces.
    fn record_lag(&self, published: &PublishedState, reading: ClockReading) {
        let Some(LastDelivered::Seen(before)) = self.last else { return };
        meters::updates_coalesced(
            meters::SubscriptionKind::Watch,
            published.sequence.saturating_sub(before + 1),
        );
        if let Some(found) = published.found().filter(|found| found.sequence > before) {
            let since = |at, now: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
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
    fn next_delivery(&self, published: &PublishedState) -> Option<PendingUpdate> {
        let key = self.interest.key();
        if self.watch.visibility.is_removed(key) {
            return Some(self.nothing_to_see());
        }
        match (self.watch.view.of(&self.principal, published, key), self.last) {
            (VisibleState::Seen, Some(LastDelivered::Seen(before))) if published.sequence <= before => None,
            (VisibleState::Seen, _) => {
                let (answer, reading) = self.watch.view.shared_answer(published, key);
                let (last, is_final) = (LastDelivered::Seen(published.sequence), published.is_over());
                Some(PendingUpdate { answer, last, is_final, reading })
            }
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
                let is_final = last == LastDelivered::Unseen(ProblemCode::FollowLimit);
                Some(self.problem(problem, last, is_final))
            }
        }
    }

    /// The last update of a job that is not visible any more, or never was.
    fn nothing_to_see(&self) -> PendingUpdate {
        let last = LastDelivered::Unseen(ProblemCode::NotFound);
        self.problem(not_found(self.interest.key()), last, true)
    }

    fn problem(&self, problem: Problem, last: LastDelivered, is_final: bool) -> PendingUpdate {
        PendingUpdate { answer: Err(problem), last, is_final, reading: self.watch.clock.reading() }
    }
}
