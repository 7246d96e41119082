//! The only write path of observations: compare, store, publish.
//!
//! It also decides that a job has expired, because only a gateway that remembers the job can distinguish "expired" from
//! "never existed" (`docs/upstreams.md`).

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{Instrument as _, Span};

use super::rollback::LowerVersions;
use crate::domain::error::{Problem, ProblemCode};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;
use crate::jobs::answer::{JobSnapshot, LookupError, LookupResult, StaleReason};
use crate::jobs::cache::{JobCache, Kept, Unread};
use crate::jobs::feed_readers::FeedReaders;
use crate::jobs::follow::FollowRegistry;
use crate::jobs::tracked_jobs::TrackedJobs;
use crate::ports::leases::{FencingToken, LeaseManager};
use crate::ports::upstream::{Detail, Fetch, FetchError};
use crate::telemetry::trace;

/// The result of a fetch after ingest: the newest observation, or the error.
pub(in crate::jobs) type FetchResult = Result<Observation, FetchError>;

/// Ingests observations.
#[derive(Debug)]
pub(in crate::jobs) struct Ingest {
    cache: Arc<JobCache>,
    leases: Arc<dyn LeaseManager>,
    following: Arc<FollowRegistry>,
    feeds: Arc<FeedReaders>,
    tracked: Arc<TrackedJobs>,
    lower: LowerVersions,
}

impl Ingest {
    pub(in crate::jobs) fn new(
        cache: Arc<JobCache>,
        leases: Arc<dyn LeaseManager>,
        following: Arc<FollowRegistry>,
        feeds: Arc<FeedReaders>,
        tracked: Arc<TrackedJobs>,
    ) -> Self {
        Self { cache, leases, following, feeds, tracked, lower: LowerVersions::default() }
    }

    /// Applies the result of fetching one job under one lease, and releases the lease. The observation is stored before
    /// it is published.
    ///
    /// `None` if the lease was lost before: the result is not published, because a later lease holder has a newer one.
    pub(super) async fn take(
        &self,
        key: &JobKey,
        fetch: Fetch,
        fencing_token: FencingToken,
    ) -> Option<FetchResult> {
        let span = trace::ingest();
        let kept = self.compare_and_keep(key, fetch, fencing_token, &span);
        let result = kept.instrument(span.clone()).await;
        let Some(result) = result else {
            trace::kept(&span, "lease_lost");
            return None;
        };
        let outcome = result.as_ref().map_err(|error| LookupError::Fetch(error.clone()));
        self.feeds.turned(self.following.apply_fetch(key, outcome));
        if let Ok(observation) = &result {
            self.feeds.renewed(observation);
        }
        Some(result)
    }

    /// Applies a job as a list of its source contained it. It has no lease: the store compares. A version that is not
    /// higher than the cached one changes nothing, and is no contradiction, because a list may be out of date.
    pub(in crate::jobs) async fn take_listed(&self, listed: Observation) -> bool {
        let known = self.following.seen(&listed.job.key);
        // a followed job was requested, also if it was not found yet, or is not stored any more
        let discovered = match &known {
            Some(known) => known.sightings.discovered,
            None => !self.following.follows(&listed.job.key),
        };
        let mut listed = Observation {
            sightings: Sightings { discovered, ..listed.sightings },
            ..listed.after_rollbacks(known.map_or(0, |known| known.rollbacks))
        };
        let span = trace::ingest();
        let mut kept = self.keep(listed.clone(), None, &span).instrument(span.clone()).await;
        if let Some(held) = kept.as_ref().filter(|held| held.rollbacks > listed.rollbacks) {
            listed = listed.after_rollbacks(held.rollbacks);
            kept = self.keep(listed.clone(), None, &span).instrument(span.clone()).await;
        }
        let Some(kept) = kept.filter(|kept| *kept == listed) else { return false };
        self.feeds.turned(self.following.apply_listed(&kept));
        true
    }

    /// Applies an observation that another replica stored. `changed` if that replica reported it as a change.
    pub(super) fn apply_remote(&self, observation: &Observation, changed: bool) {
        let turned = self.following.apply_remote(observation);
        if observation.job.is_terminal() {
            self.tracked.ended(&observation.job.key);
        }
        if changed {
            self.feeds.publish_once(observation);
        }
        self.feeds.turned(turned);
    }

    /// Applies that another replica found no such job.
    pub(super) fn apply_remote_missing(&self, key: &JobKey) {
        self.feeds.turned(self.following.apply_fetch(key, Err(LookupError::Fetch(FetchError::NotFound))));
    }

    /// Applies that the fetch of a job was aborted.
    pub(in crate::jobs) fn apply_lost(&self, key: &JobKey) {
        self.feeds.turned(self.following.apply_fetch(key, Err(LookupError::Lost)));
    }

    /// Applies the answer of a lookup that made no fetch to the followed job: cached, or cached as missing.
    pub(in crate::jobs) fn apply_answer(&self, key: &JobKey, answer: &LookupResult) {
        let turned = match answer {
            // Not found a moment ago, or an invalid response: the cached observation is published with that reason.
            Ok(JobSnapshot { observation, stale: Some(StaleReason::BadAnswer), .. }) => {
                self.recall(observation);
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

    /// Applies that a caller stopped waiting for a fetch.
    pub(in crate::jobs) fn apply_timeout(&self, key: &JobKey) {
        self.feeds.turned(self.following.offer_missing(key, LookupError::Impatient));
    }

    /// Applies the cached observation while a fetch runs: it is published if the fetch fails.
    pub(in crate::jobs) fn recall(&self, older: &Observation) {
        self.feeds.turned(self.following.recall(older));
    }

    async fn compare_and_keep(
        &self,
        key: &JobKey,
        fetch: Fetch,
        fencing_token: FencingToken,
        span: &Span,
    ) -> Option<FetchResult> {
        let Fetch { requested_at, observed_at, outcome } = fetch;
        match outcome {
            Ok(job) => {
                self.keep_answer(Observation::new(job, requested_at, observed_at), fencing_token, span).await
            }
            Err(FetchError::NotFound) => match self.ever_seen(key).await {
                Err(error) => {
                    trace::kept(span, "failed");
                    self.leases.release(key, fencing_token).await;
                    Some(Err(error))
                }
                Ok(seen) => self.take_absence(key, seen, observed_at, fencing_token, span).await,
            },
            Err(error) => {
                trace::kept(span, "failed");
                self.leases.release(key, fencing_token).await;
                Some(Err(error))
            }
        }
    }

    /// The newest observation of a job that its upstream does not know now. For a watched job the follow registry has
    /// it, even if the store evicted or never accepted it: EXPIRED must refer to the run that was published. If the
    /// store cannot be read, it is unknown whether the job ever existed.
    async fn ever_seen(&self, key: &JobKey) -> Result<Option<Observation>, FetchError> {
        match (self.cache.get(key).await, self.following.seen(key)) {
            (Err(Unread), None) => {
                let text = "the upstream does not know the job, and the store cannot be read";
                Err(FetchError::Unavailable(Detail::new(text)))
            }
            (Ok(Some(held)), Some(published)) if published.supersedes(&held) => Ok(Some(published)),
            (held, published) => Ok(held.unwrap_or(None).or(published)),
        }
    }

    async fn take_absence(
        &self,
        key: &JobKey,
        seen: Option<Observation>,
        observed_at: Timestamp,
        fencing_token: FencingToken,
        span: &Span,
    ) -> Option<FetchResult> {
        match seen {
            Some(held) if held.job.is_terminal() => {
                trace::kept(span, "older");
                self.leases.release(key, fencing_token).await;
                Some(Ok(held))
            }
            Some(held) if held.job.upstream().profile().documents_expiry => {
                let expired = held.expired(observed_at).replacing(Some(&held));
                self.keep(expired, Some(fencing_token), span).await.map(Ok)
            }
            // Not found gives no information about the state: the cached observation stays, and a caller that requires
            // a newer one gets the stale reason.
            Some(held) => {
                self.leases.release(key, fencing_token).await;
                // Another replica may have observed the terminal state without this one having been notified yet.
                let shared = self.cache.refresh(std::slice::from_ref(key)).await;
                let shared = shared.and_then(|mut shared| shared.pop().flatten());
                if let Some(newer) = shared.filter(|shared| shared.supersedes(&held)) {
                    trace::kept(span, "older");
                    return Some(Ok(newer));
                }
                trace::kept(span, "not_found");
                self.cache.note_missing(key).await;
                Some(Err(FetchError::NotFound))
            }
            None => {
                trace::kept(span, "missing");
                let stored = self.cache.note_missing_under(key, fencing_token).await;
                stored.then_some(Err(FetchError::NotFound))
            }
        }
    }

    /// Stores an answer of the upstream, unless it contradicts what the upstream reported before.
    async fn keep_answer(
        &self,
        answer: Observation,
        fencing_token: FencingToken,
        span: &Span,
    ) -> Option<FetchResult> {
        let key = answer.job.key.clone();
        // An answer that was requested before the known observation may be from before its rollback, and is ordered
        // before it.
        let known = self.following.seen(&key);
        let after = known.as_ref().filter(|known| answer.requested_at >= known.observed_at);
        let mut answer = answer.after_rollbacks(after.map_or(0, |known| known.rollbacks));
        // A followed job keeps its history, even if the store evicted it.
        if let Some(known) = known.filter(|known| answer.supersedes(known)) {
            answer = answer.replacing(Some(&known));
        }
        let mut held = self.keep(answer.clone(), Some(fencing_token), span).await?;
        if held.rollbacks > answer.rollbacks {
            if answer.requested_at < held.observed_at {
                return Some(Ok(held));
            }
            // The cached observation and this later request are both from after the accepted rollbacks. The first
            // attempt has released the lease. It is not needed here: the store compares again.
            answer = answer.after_rollbacks(held.rollbacks);
            held = self.keep(answer.clone(), None, span).await?;
        }
        if !answer.contradicts(&held) {
            self.lower.settled(&key);
            return Some(Ok(held));
        }
        if answer.requested_at < held.observed_at {
            // Requested before the higher version was observed: by its own times an older answer, and no contradiction.
            return Some(Ok(held));
        }
        if !self.lower.reported(&held, self.following.settings().verify_interval) {
            trace::kept(span, "conflicting_version");
            return Some(Err(FetchError::ConflictingVersion));
        }
        let (from, to) = (held.job.counter(), answer.job.counter());
        tracing::warn!(job = %key, from, to, "source repeatedly reported a lower job version; accepted as a rollback");
        self.lower.settled(&key);
        let accepted = answer.after_rollbacks(held.rollbacks.saturating_add(1));
        self.keep(accepted, None, span).await.map(Ok)
    }

    /// Returns whether the last report of the upstream contradicts the cached observation of a job.
    pub(in crate::jobs) fn is_contradicted(&self, held: &Observation) -> bool {
        self.lower.contradict(held)
    }

    /// Stores an observation, with or without a lease, and publishes it. Returns the observation that is then cached;
    /// `None` if the lease was lost.
    async fn keep(
        &self,
        new: Observation,
        fencing_token: Option<FencingToken>,
        span: &Span,
    ) -> Option<Observation> {
        let by_id = fencing_token.is_some();
        match self.cache.keep(new, fencing_token).await {
            Kept::LeaseLost => None,
            Kept::Older(held) => {
                trace::kept(span, "older");
                Some(held)
            }
            Kept::New(new, replaced) => {
                trace::kept(span, "new");
                if new.job.is_terminal() {
                    self.tracked.ended(&new.job.key);
                }
                if by_id {
                    self.following.note_unfollowed(replaced.as_ref(), &new);
                }
                if replaced.is_none_or(|before| !before.job.same_report(&new.job)) {
                    self.feeds.publish(&new);
                }
                Some(new)
            }
        }
    }
}
