//! Tracked jobs: they are followed to a terminal state without a subscriber, so that the result is stored when a client
//! needs it. Labels identify their owner. The ledger records what is tracked, across restarts if it is persistent.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
pub use crate::ports::ledger::Labels;

use super::answer::LookupResult;
use super::follow::Interest;
use super::visibility::{CheckedRef, RequestedRef};
use super::{Core, Jobs};

/// The maximum number of tracked jobs of all clients. A client's own terminal jobs are evicted first.
pub const TRACKED_MAX: usize = 100_000;
/// The maximum number of tracked jobs of one client, where there are several clients.
pub const TRACKED_PER_CLIENT: usize = 20_000;
/// The maximum number of labels of one job.
pub const LABELS_MAX: usize = 16;
/// The maximum length of a label's name or value, in bytes.
pub const LABEL_MAX: usize = 63;

/// Jobs that become tracked, with their labels, and jobs that no longer are: the changes to write to the ledger.
type LedgerChanges = Vec<(JobKey, Option<Labels>)>;

/// The result of tracking jobs.
#[derive(Debug)]
pub struct TrackReport {
    /// The answer for each job: same order, same length.
    pub answers: Vec<LookupResult>,
    /// Whether the ledger has stored what is tracked, as far as it is persistent.
    pub is_stored: bool,
}

/// All tracked jobs.
#[derive(Debug, Default)]
pub(super) struct TrackingRegistry {
    jobs: Mutex<BTreeMap<JobKey, TrackedJob>>,
}

#[derive(Debug)]
struct TrackedJob {
    labels: Labels,
    /// The client that tracked it last; `None` if that was before a restart.
    by: Option<Arc<str>>,
    /// Kept for its drop: the job is followed until it is terminal.
    interest: Option<Interest>,
}

impl TrackingRegistry {
    /// The labels of a job; `None` when it is not tracked.
    pub(super) fn labels(&self, key: &JobKey) -> Option<Labels> {
        self.lock().get(key).map(|tracked| tracked.labels.clone())
    }

    /// The tracked jobs of some sources that have all of the given labels, in the order of their keys, behind `after`.
    pub(super) fn with_labels(
        &self,
        labels: &Labels,
        sources: &[SourceName],
        after: Option<&JobKey>,
        limit: usize,
    ) -> Vec<JobKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let jobs = self.lock();
        let behind = jobs.range::<JobKey, _>((from, Bound::Unbounded));
        let fitting =
            behind.filter(|(key, tracked)| sources.contains(&key.source) && tracked.carries(labels));
        fitting.take(limit).map(|(key, _)| key.clone()).collect()
    }

    /// Drops the interest in a job that is terminal: it keeps its labels and needs no more polls.
    pub(super) fn ended(&self, key: &JobKey) {
        let interest = self.lock().get_mut(key).and_then(|tracked| tracked.interest.take());
        drop(interest);
    }

    /// Restores a job that was tracked before a restart; it is followed if it is not terminal.
    pub(super) fn restore(&self, key: JobKey, labels: Labels, interest: Option<Interest>) {
        let tracked = TrackedJob { labels, by: None, interest };
        let mut room = TRACKED_MAX;
        self.put(key, tracked, &mut room);
    }

    /// Replaces the labels of a tracked job with those that another replica set.
    pub(super) fn relabel(&self, key: &JobKey, labels: &Labels) {
        if let Some(tracked) = self.lock().get_mut(key).filter(|tracked| tracked.labels != *labels) {
            tracked.labels.clone_from(labels);
        }
    }

    /// Removes a job that another replica untracked.
    pub(super) fn remove(&self, key: &JobKey) {
        let gone = self.lock().remove(key);
        drop(gone);
    }

    /// Whether a job is tracked.
    pub(super) fn holds(&self, key: &JobKey) -> bool {
        self.lock().contains_key(key)
    }

    /// The number of jobs that a client may still track. If it is zero, the client's own terminal jobs are evicted and
    /// added to `forgotten`; other clients' jobs and labels are kept.
    fn evict_for(&self, principal: &Principal, forgotten: &mut LedgerChanges) -> usize {
        let mut jobs = self.lock();
        let most = if principal.is_local() { TRACKED_MAX } else { TRACKED_PER_CLIENT };
        let own = |tracked: &TrackedJob| tracked.by.as_deref() == Some(principal.name());
        let left = |jobs: &BTreeMap<JobKey, TrackedJob>| {
            let held = jobs.values().filter(|tracked| own(tracked)).count();
            most.saturating_sub(held).min(TRACKED_MAX.saturating_sub(jobs.len()))
        };
        let room = left(&jobs);
        if room > 0 {
            return room;
        }
        let ended = jobs.extract_if(.., |_, tracked| tracked.interest.is_none() && own(tracked));
        forgotten.extend(ended.map(|(key, _)| (key, None)));
        left(&jobs)
    }

    /// Tracks a job, which uses one of `room` unless it is tracked already. Returns whether there was capacity.
    fn put(&self, key: JobKey, tracked: TrackedJob, room: &mut usize) -> bool {
        let mut jobs = self.lock();
        let known = jobs.contains_key(&key);
        let fits = known || (*room > 0 && jobs.len() < TRACKED_MAX);
        *room -= usize::from(fits && !known);
        let replaced = if fits { jobs.insert(key, tracked) } else { Some(tracked) };
        drop(jobs);
        // Dropping an interest takes another lock, so it is not done under this one.
        drop(replaced);
        fits
    }

    /// Replaces the interest in a tracked job; its labels are kept.
    pub(super) fn renew(&self, key: &JobKey, interest: Interest) {
        let mut jobs = self.lock();
        let let_go = match jobs.get_mut(key) {
            Some(tracked) => tracked.interest.replace(interest),
            None => Some(interest),
        };
        drop(jobs);
        // As above: not under this lock.
        drop(let_go);
    }

    /// Whether a job is tracked and has all of the given labels.
    pub(super) fn carries(&self, key: &JobKey, labels: &Labels) -> bool {
        labels.is_empty() || self.lock().get(key).is_some_and(|tracked| tracked.carries(labels))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobKey, TrackedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrackedJob {
    fn carries(&self, labels: &Labels) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

impl Jobs {
    /// Follows jobs until they are untracked, and answers for each: same order, same length.
    ///
    /// Tracking a job again replaces its labels. A job that the client cannot read is not tracked; a client whose grant
    /// covers only a part of a source needs the answer to decide that, so its jobs are tracked after it. A client that
    /// is restricted to labels changes no labels.
    ///
    /// # Errors
    /// When the labels are invalid; then nothing is tracked.
    pub async fn track(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<Vec<LookupResult>, Problem> {
        self.track_and_report(principal, refs, labels).await.map(|tracking| tracking.answers)
    }

    /// The same, and whether the ledger has stored what is tracked.
    ///
    /// # Errors
    /// As above.
    pub async fn track_and_report(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<TrackReport, Problem> {
        check(labels)?;
        let mut changes = LedgerChanges::new();
        let mut room = self.inner.tracking.evict_for(principal, &mut changes);
        let mut fits = true;
        for reference in refs {
            let Ok(target) = self.resolve_to_change(principal, reference) else { continue };
            if principal.scope(&target.key.source).is_none() {
                fits &= self.put(&target.key, principal, labels, &mut room, &mut changes);
            }
        }
        // Stored before the client gets an answer: a job that is reported as tracked stays tracked.
        let mut is_stored = self.inner.note(std::mem::take(&mut changes)).await;
        if !fits {
            return Err(tracking_full());
        }
        let answers = self.lookup(principal, refs, None).await;
        let outcomes = refs
            .iter()
            .zip(&answers)
            .filter_map(|(one, answer)| Some((self.resolve_to_change(principal, one).ok()?, answer)));
        for (target, answer) in outcomes {
            if let Some(scope) = principal.scope(&target.key.source) {
                if answer.is_err() {
                    continue;
                }
                if scope.labels.is_empty() {
                    fits &= self.put(&target.key, principal, labels, &mut room, &mut changes);
                } else {
                    let interest =
                        self.inner.following.unwatched_interest(&target.key, principal.shared_name());
                    self.inner.tracking.renew(&target.key, interest);
                }
            }
            self.inner.settle(&target.key, answer);
            if answer.as_ref().is_ok_and(|seen| seen.observation.job.is_terminal()) {
                self.inner.tracking.ended(&target.key);
            }
        }
        is_stored &= self.inner.note(changes).await;
        if fits { Ok(TrackReport { answers, is_stored }) } else { Err(tracking_full()) }
    }

    /// Untracks jobs; their watchers are not affected. Returns how many were tracked.
    ///
    /// Makes no upstream call: where a client sees only some kinds of a source's jobs, a job that is not cached stays
    /// tracked. A client that is restricted to labels untracks nothing, since the labels would be removed as well.
    pub async fn untrack(&self, principal: &Principal, refs: &[RequestedRef]) -> usize {
        let targets = refs.iter().filter_map(|one| self.resolve_to_change(principal, one).ok());
        let (mut certain, mut doubtful) = (Vec::new(), Vec::new());
        for CheckedRef { key, .. } in targets {
            match principal.scope(&key.source) {
                None => certain.push(key),
                Some(scope) if scope.labels.is_empty() => doubtful.push(key),
                Some(_) => {}
            }
        }
        let held = self.inner.ingest.cached_all(&doubtful).await;
        let seen = held.into_iter().flatten().filter(|held| self.inner.may_see(principal, &held.job));
        certain.extend(seen.map(|held| held.job.key.clone()));
        let mut forgotten = LedgerChanges::new();
        for key in certain {
            let gone = self.inner.tracking.lock().remove(&key);
            if gone.is_some() {
                self.inner.following.notify(&key);
                forgotten.push((key, None));
            }
        }
        let untracked = forgotten.len();
        self.inner.note(forgotten).await;
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
        let client = principal.shared_name();
        let interest = self.inner.following.unwatched_interest(key, Arc::clone(&client));
        let tracked = TrackedJob { labels: labels.clone(), by: Some(client), interest: Some(interest) };
        let fits = self.inner.tracking.put(key.clone(), tracked, room);
        if fits {
            changes.push((key.clone(), Some(labels.clone())));
            self.inner.following.notify(key);
        }
        fits
    }

    /// The labels of a tracked job.
    pub fn labels(&self, key: &JobKey) -> Option<Labels> {
        self.inner.tracking.labels(key)
    }
}

impl Core {
    /// Writes changes to the ledger. A failure loses them at a restart and does not affect answers. Returns whether
    /// they were stored.
    async fn note(&self, jobs: LedgerChanges) -> bool {
        jobs.is_empty() || self.ingest.or_cache_miss(self.ledger.track(jobs).await).is_some()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ExternalId;

    fn key(name: &str, number: usize) -> JobKey {
        let external_id = ExternalId::parse(&format!("{name}{number}")).unwrap();
        JobKey { source: SourceName::parse("mind").unwrap(), external_id }
    }

    /// Tracks jobs that are terminal.
    fn fill(tracking: &TrackingRegistry, by: Option<&str>, count: usize) {
        let mut room = count;
        for number in 0..count {
            let tracked = TrackedJob { labels: Labels::new(), by: by.map(Into::into), interest: None };
            assert!(tracking.put(key(by.unwrap_or("before"), number), tracked, &mut room));
        }
    }

    #[test]
    fn client_over_its_tracking_limit_evicts_only_its_own_jobs() {
        let [greedy, modest] = ["greedy", "modest"].map(|name| Principal::new(name, []));
        let (tracking, mut forgotten) = (TrackingRegistry::default(), LedgerChanges::new());
        fill(&tracking, Some("modest"), 5);
        fill(&tracking, Some("greedy"), TRACKED_PER_CLIENT - 1);
        assert_eq!((tracking.evict_for(&greedy, &mut forgotten), forgotten.len()), (1, 0));
        fill(&tracking, Some("greedy"), TRACKED_PER_CLIENT);
        assert_eq!(tracking.evict_for(&greedy, &mut forgotten), TRACKED_PER_CLIENT);
        assert_eq!(forgotten.len(), TRACKED_PER_CLIENT);
        assert!((0..5).all(|number| tracking.holds(&key("modest", number))), "others are kept");

        fill(&tracking, None, TRACKED_MAX - 5);
        assert_eq!(tracking.evict_for(&modest, &mut LedgerChanges::new()), 5, "its own terminal jobs");
        fill(&tracking, Some("modest"), 5);
        assert_eq!(tracking.evict_for(&greedy, &mut LedgerChanges::new()), 0, "others are not evicted");
        let tracked = TrackedJob { labels: Labels::new(), by: None, interest: None };
        assert!(!tracking.put(key("more", 0), tracked, &mut 1), "the limit for all clients is reached");
    }
}
