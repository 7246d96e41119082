//! Follows jobs to their ends though nobody looks, so that a result is held when someone does. Labels say whose. What is
//! tracked is remembered by the ledger, across restarts where it can.

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

/// The most jobs tracked at once, by all clients together. A client's own that have ended make room first.
pub const TRACKED_MAX: usize = 100_000;
/// The most of them that one client tracked, where there are others.
pub const TRACKED_PER_CLIENT: usize = 20_000;
/// The most labels of one job.
pub const LABELS_MAX: usize = 16;
/// The longest name or value of a label, in bytes.
pub const LABEL_MAX: usize = 63;

/// Jobs that are tracked from now on, with their labels, and jobs that no longer are: what the ledger is told.
type LedgerChanges = Vec<(JobKey, Option<Labels>)>;

/// What came of tracking jobs.
#[derive(Debug)]
pub struct TrackReport {
    /// Each job as it stands: same order, same length.
    pub answers: Vec<LookupResult>,
    /// Whether the ledger has taken what is tracked, as far as it keeps anything.
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
    /// The client that tracked it last; none when that was before a restart.
    by: Option<Arc<str>>,
    /// Held for its drop: the job is followed until its end.
    interest: Option<Interest>,
}

impl TrackingRegistry {
    /// The labels of a job; `None` when it is not tracked.
    pub(super) fn labels(&self, key: &JobKey) -> Option<Labels> {
        self.lock().get(key).map(|tracked| tracked.labels.clone())
    }

    /// The tracked jobs of some sources that carry all of some labels, in the order of their keys, behind `after`.
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

    /// Lets go of a job that has ended: it keeps its labels, and needs no more looks.
    pub(super) fn ended(&self, key: &JobKey) {
        let interest = self.lock().get_mut(key).and_then(|tracked| tracked.interest.take());
        drop(interest);
    }

    /// Takes back what was tracked before a restart: followed on where the job has not ended.
    pub(super) fn restore(&self, key: JobKey, labels: Labels, interest: Option<Interest>) {
        let tracked = TrackedJob { labels, by: None, interest };
        let mut room = TRACKED_MAX;
        self.put(key, tracked, &mut room);
    }

    /// Takes back the labels that another replica gave a job which is tracked here too.
    pub(super) fn relabel(&self, key: &JobKey, labels: &Labels) {
        if let Some(tracked) = self.lock().get_mut(key).filter(|tracked| tracked.labels != *labels) {
            tracked.labels.clone_from(labels);
        }
    }

    /// Lets go of a job that another replica was told to track no longer.
    pub(super) fn remove(&self, key: &JobKey) {
        let gone = self.lock().remove(key);
        drop(gone);
    }

    /// Whether a job is tracked.
    pub(super) fn holds(&self, key: &JobKey) -> bool {
        self.lock().contains_key(key)
    }

    /// How many jobs more a client may track. Makes room, if there is none, among those of its own that have ended, which are
    /// put with `forgotten`: what others tracked stays, and so do their labels.
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

    /// Tracks a job, which takes one of `room` unless it is tracked already. Says whether there was one.
    fn put(&self, key: JobKey, tracked: TrackedJob, room: &mut usize) -> bool {
        let mut jobs = self.lock();
        let known = jobs.contains_key(&key);
        let fits = known || (*room > 0 && jobs.len() < TRACKED_MAX);
        *room -= usize::from(fits && !known);
        let replaced = if fits { jobs.insert(key, tracked) } else { Some(tracked) };
        drop(jobs);
        // An interest that is let go takes another lock, so not under this one.
        drop(replaced);
        fits
    }

    /// Follows a job anew that is tracked already, under the labels it has.
    pub(super) fn renew(&self, key: &JobKey, interest: Interest) {
        let mut jobs = self.lock();
        let let_go = match jobs.get_mut(key) {
            Some(tracked) => tracked.interest.replace(interest),
            None => Some(interest),
        };
        drop(jobs);
        // as above: not under this lock
        drop(let_go);
    }

    /// Whether a job is tracked and carries all of some labels.
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
    /// Follows jobs until they are untracked, and answers for each as it stands: same order, same length.
    ///
    /// Tracking a job again replaces its labels. What cannot be read is not tracked; whether it can, a client whose view of
    /// a source is narrowed learns from the answer, and tracks nothing before. A client that is held to labels changes none.
    ///
    /// # Errors
    /// When the labels are out of bounds; then nothing is tracked.
    pub async fn track(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<Vec<LookupResult>, Problem> {
        self.track_and_report(principal, refs, labels).await.map(|tracking| tracking.answers)
    }

    /// The same, and whether the ledger has taken what is tracked.
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
        // Before the client hears of it: what it is told is tracked stays tracked.
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

    /// Stops following jobs for their own sake; whoever watches them still does. Says how many were tracked.
    ///
    /// Asks no upstream: where a client sees only some kinds of a source's jobs, what is not held is not untracked. A
    /// client that is held to labels untracks nothing, since the labels would go as well.
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

    /// Tracks a job, and has those watch it anew who are held to its labels. Says whether there was room.
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

    /// The labels of a job that is tracked.
    pub fn labels(&self, key: &JobKey) -> Option<Labels> {
        self.inner.tracking.labels(key)
    }
}

impl Core {
    /// Has the ledger remember, or forget. One that fails costs a restart its memory, and nobody an answer. Says whether it
    /// has taken it.
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

    /// Tracks jobs that have ended.
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
        assert!((0..5).all(|number| tracking.holds(&key("modest", number))), "others keep theirs");

        fill(&tracking, None, TRACKED_MAX - 5);
        assert_eq!(tracking.evict_for(&modest, &mut LedgerChanges::new()), 5, "its own that have ended");
        fill(&tracking, Some("modest"), 5);
        assert_eq!(tracking.evict_for(&greedy, &mut LedgerChanges::new()), 0, "nothing of others is let go");
        let tracked = TrackedJob { labels: Labels::new(), by: None, interest: None };
        assert!(!tracking.put(key("more", 0), tracked, &mut 1), "and there is no room beyond that for all");
    }
}
