//! Tracks jobs: they are followed to a terminal state without a subscriber, so that the result is stored when a client
//! needs it. Labels identify their owner. The ledger records what is tracked, across restarts if it is persistent.

use std::sync::Arc;

use super::answer::LookupResult;
use super::cache::JobCache;
use super::fetch::Ingest;
use super::follow::FollowRegistry;
use super::lookup::Lookup;
use super::reference::RequestedRef;
use super::tracked_jobs::{LedgerChanges, TrackedJob, TrackedJobs};
pub use super::tracked_jobs::{TRACKED_MAX, TRACKED_PER_CLIENT};
use super::visibility::{CheckedRef, Visibility};
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;
pub use crate::ports::ledger::Labels;
use crate::ports::ledger::Ledger;

/// The maximum number of labels of one job.
pub const LABELS_MAX: usize = 16;
/// The maximum length of a label's name or value, in bytes.
pub const LABEL_MAX: usize = 63;

/// The result of tracking jobs.
#[derive(Debug)]
pub struct TrackReport {
    /// The answer for each job: same order, same length.
    pub answers: Vec<LookupResult>,
    /// Whether the ledger has stored what is tracked, as far as it is persistent.
    pub is_stored: bool,
}

/// Tracks and untracks jobs.
#[derive(Debug)]
pub(super) struct Tracking {
    visibility: Arc<Visibility>,
    lookup: Arc<Lookup>,
    following: Arc<FollowRegistry>,
    tracked: Arc<TrackedJobs>,
    ingest: Arc<Ingest>,
    cache: Arc<JobCache>,
    ledger: Arc<dyn Ledger>,
}

impl Tracking {
    pub(super) const fn new(
        visibility: Arc<Visibility>,
        lookup: Arc<Lookup>,
        following: Arc<FollowRegistry>,
        tracked: Arc<TrackedJobs>,
        ingest: Arc<Ingest>,
        cache: Arc<JobCache>,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        Self { visibility, lookup, following, tracked, ingest, cache, ledger }
    }

    /// Follows jobs until they are untracked, and answers for each: same order, same length.
    ///
    /// Tracking a job again replaces its labels. A job that the client cannot read is not tracked; a client whose grant
    /// covers only a part of a source needs the answer to decide that, so its jobs are tracked after it. A client that
    /// is restricted to labels changes no labels.
    ///
    /// # Errors
    /// When the labels are invalid: then nothing is tracked. When a limit is reached: then some of the jobs are.
    pub(super) async fn track(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<TrackReport, Problem> {
        check(labels)?;
        let mut changes = LedgerChanges::new();
        let mut room = self.tracked.evict_for(principal, &mut changes);
        let mut fits = true;
        for reference in refs {
            let Ok(target) = self.visibility.resolve_to_change(principal, reference) else { continue };
            if principal.scope(&target.key.source).is_none() {
                fits &= self.put(&target.key, principal, labels, &mut room, &mut changes);
            }
        }
        // Stored before the client gets an answer: a job that is reported as tracked stays tracked.
        let mut is_stored = self.note(std::mem::take(&mut changes)).await;
        if !fits {
            return Err(tracking_full());
        }
        let answers = self.lookup.lookup(principal, refs, None).await;
        let outcomes = refs.iter().zip(&answers).filter_map(|(one, answer)| {
            Some((self.visibility.resolve_to_change(principal, one).ok()?, answer))
        });
        for (target, answer) in outcomes {
            if let Some(scope) = principal.scope(&target.key.source) {
                if answer.is_err() {
                    continue;
                }
                if scope.labels.is_empty() {
                    fits &= self.put(&target.key, principal, labels, &mut room, &mut changes);
                } else {
                    let interest =
                        self.following.unwatched_interest(&target.key, Arc::clone(principal.shared_name()));
                    self.tracked.renew(&target.key, interest);
                }
            }
            self.ingest.apply_answer(&target.key, answer);
            if answer.as_ref().is_ok_and(|seen| seen.observation.job.is_terminal()) {
                self.tracked.ended(&target.key);
            }
        }
        is_stored &= self.note(changes).await;
        if fits { Ok(TrackReport { answers, is_stored }) } else { Err(tracking_full()) }
    }

    /// Untracks jobs; their watchers are not affected. Returns how many were tracked.
    ///
    /// Makes no upstream call: where a client sees only some kinds of a source's jobs, a job that is not cached stays
    /// tracked. A client that is restricted to labels untracks nothing, since the labels would be removed as well.
    pub(super) async fn untrack(&self, principal: &Principal, refs: &[RequestedRef]) -> usize {
        let targets = refs.iter().filter_map(|one| self.visibility.resolve_to_change(principal, one).ok());
        let (mut certain, mut doubtful) = (Vec::new(), Vec::new());
        for CheckedRef { key, .. } in targets {
            match principal.scope(&key.source) {
                None => certain.push(key),
                Some(scope) if scope.labels.is_empty() => doubtful.push(key),
                Some(_) => {}
            }
        }
        let held = self.cache.get_all(&doubtful).await;
        let seen = held.into_iter().flatten().filter(|held| self.visibility.may_see(principal, &held.job));
        certain.extend(seen.map(|held| held.job.key.clone()));
        let mut forgotten = LedgerChanges::new();
        for key in certain {
            if self.tracked.remove(&key) {
                self.following.notify(&key);
                forgotten.push((key, None));
            }
        }
        let untracked = forgotten.len();
        self.note(forgotten).await;
        untracked
    }

    /// Tracks a job, and notifies the watchers that are restricted to its labels. Returns whether there was capacity.
    fn put(
        &self,
        key: &JobKey,
        principal: &Principal,
        labels: &Labels,
        room: &mut usize,
        changes: &mut LedgerChanges,
    ) -> bool {
        let client = Arc::clone(principal.shared_name());
        let interest = self.following.unwatched_interest(key, Arc::clone(&client));
        let tracked = TrackedJob { labels: labels.clone(), by: Some(client), interest: Some(interest) };
        let fits = self.tracked.put(key.clone(), tracked, room);
        if fits {
            changes.push((key.clone(), Some(labels.clone())));
            self.following.notify(key);
        }
        fits
    }

    /// Writes changes to the ledger. A failure loses them at a restart and does not affect answers. Returns whether
    /// they were stored.
    async fn note(&self, jobs: LedgerChanges) -> bool {
        jobs.is_empty() || self.cache.or_miss(self.ledger.track(jobs).await).is_some()
    }
}

fn tracking_full() -> Problem {
    let message = format!(
        "tracking limit reached (max {TRACKED_PER_CLIENT} jobs per client, {TRACKED_MAX} in total); \
            untrack some jobs"
    );
    Problem::new(ProblemCode::Throttled, Retry::Whenever, message)
}

fn check(labels: &Labels) -> Result<(), Problem> {
    let fits = |text: &str| (1..=LABEL_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if labels.len() <= LABELS_MAX && labels.iter().all(|(name, value)| fits(name) && fits(value)) {
        return Ok(());
    }
    let message = format!(
        "labels must have at most {LABELS_MAX} entries, with names and values of 1 to {LABEL_MAX} \
            bytes without control characters"
    );
    Err(Problem::new(ProblemCode::InvalidRef, Retry::Never, message))
}
