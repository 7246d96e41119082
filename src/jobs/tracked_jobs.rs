//! The tracked jobs with their labels and owners: which jobs a label selects, and who may still track more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::follow::Interest;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::ports::ledger::Labels;

/// The maximum number of tracked jobs of all clients. A client's own terminal jobs are evicted first.
pub const TRACKED_MAX: usize = 100_000;
/// The maximum number of tracked jobs of one client, where there are several clients.
pub const TRACKED_PER_CLIENT: usize = 20_000;

/// Jobs that become tracked, with their labels, and jobs that no longer are: the changes to write to the ledger.
pub(super) type LedgerChanges = Vec<(JobKey, Option<Labels>)>;

/// All tracked jobs.
#[derive(Debug, Default)]
pub(super) struct TrackedJobs {
    jobs: Mutex<BTreeMap<JobKey, TrackedJob>>,
}

#[derive(Debug)]
pub(super) struct TrackedJob {
    pub(super) labels: Labels,
    /// The client that tracked it last; `None` if that was before a restart.
    pub(super) by: Option<Arc<str>>,
    /// Kept for its drop: the job is followed until it is terminal.
    pub(super) interest: Option<Interest>,
}

impl TrackedJobs {
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

    /// Untracks a job. Returns whether it was tracked.
    pub(super) fn remove(&self, key: &JobKey) -> bool {
        // Dropping an interest takes another lock, so it is not done under this one.
        let gone = self.lock().remove(key);
        gone.is_some()
    }

    /// Whether a job is tracked.
    pub(super) fn holds(&self, key: &JobKey) -> bool {
        self.lock().contains_key(key)
    }

    /// The number of jobs that a client may still track. If it is zero, the client's own terminal jobs are evicted and
    /// added to `forgotten`; other clients' jobs and labels are kept.
    pub(super) fn evict_for(&self, principal: &Principal, forgotten: &mut LedgerChanges) -> usize {
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
    pub(super) fn put(&self, key: JobKey, tracked: TrackedJob, room: &mut usize) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ExternalId;

    fn key(name: &str, number: usize) -> JobKey {
        let external_id = ExternalId::parse(&format!("{name}{number}")).unwrap();
        JobKey { source: SourceName::parse("mind").unwrap(), external_id }
    }

    /// Tracks jobs that are terminal.
    fn fill(tracking: &TrackedJobs, by: Option<&str>, count: usize) {
        let mut room = count;
        for number in 0..count {
            let tracked = TrackedJob { labels: Labels::new(), by: by.map(Into::into), interest: None };
            assert!(tracking.put(key(by.unwrap_or("before"), number), tracked, &mut room));
        }
    }

    #[test]
    fn client_over_its_tracking_limit_evicts_only_its_own_jobs() {
        let greedy = Principal::new("greedy", []);
        let (tracking, mut forgotten) = (TrackedJobs::default(), LedgerChanges::new());
        fill(&tracking, Some("modest"), 5);
        fill(&tracking, Some("greedy"), TRACKED_PER_CLIENT - 1);
        assert_eq!((tracking.evict_for(&greedy, &mut forgotten), forgotten.len()), (1, 0));
        fill(&tracking, Some("greedy"), TRACKED_PER_CLIENT);
        assert_eq!(tracking.evict_for(&greedy, &mut forgotten), TRACKED_PER_CLIENT);
        assert_eq!(forgotten.len(), TRACKED_PER_CLIENT);
        assert!((0..5).all(|number| tracking.holds(&key("modest", number))), "others are kept");
    }

    #[test]
    fn tracked_jobs_of_all_clients_are_limited() {
        let [greedy, modest] = ["greedy", "modest"].map(|name| Principal::new(name, []));
        let tracking = TrackedJobs::default();
        fill(&tracking, Some("modest"), 5);
        fill(&tracking, None, TRACKED_MAX - 5);
        assert_eq!(tracking.evict_for(&modest, &mut LedgerChanges::new()), 5, "its own terminal jobs");
        fill(&tracking, Some("modest"), 5);
        assert_eq!(tracking.evict_for(&greedy, &mut LedgerChanges::new()), 0, "others are not evicted");
        let tracked = TrackedJob { labels: Labels::new(), by: None, interest: None };
        assert!(!tracking.put(key("more", 0), tracked, &mut 1), "the limit for all clients is reached");
    }
}
