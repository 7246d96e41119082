//! What selections made of observations: the fields of a job that depend on its observation alone are written once for all
//! clients. The others, which the description of a field marks as live, are written each time.

use std::fmt;
use std::sync::{Arc, Weak};

use jiff::SignedDuration;

use crate::domain::job::Job;
use crate::domain::sightings::Sightings;
use crate::inbound::graphql::recent_slots::RecentSlots;
use crate::jobs::answer::JobSnapshot;

/// How many are kept.
const SLOTS: usize = 8 * 1024;
/// The longest JSON that is kept, so that all JSON together takes 16 MiB at most. The rest of an entry takes some 500 bytes.
const MAX_BYTES: usize = 2 * 1024;

/// What a field of a job may depend on to be written once: its observation.
#[derive(Clone, Copy, Debug)]
pub(in crate::inbound::graphql) struct ObservedJob<'a> {
    pub(in crate::inbound::graphql) job: &'a Arc<Job>,
    seen: &'a JobSnapshot,
}

impl<'a> ObservedJob<'a> {
    /// The observation of a snapshot.
    pub(in crate::inbound::graphql) fn of(seen: &'a JobSnapshot) -> Self {
        Self { job: &seen.observation.job, seen }
    }

    /// When the run and its state were first observed, by the system clock.
    pub(in crate::inbound::graphql) fn sightings(&self) -> Sightings {
        self.seen.sightings()
    }
}

/// What one selection made of an observation.
pub(super) struct RenderedJob {
    selection: u64,
    /// Holds the address of the job, so that it identifies the job, but not the job.
    job: Weak<Job>,
    /// By process time: with the correction they make those that the selection shows.
    sightings: Sightings,
    correction: SignedDuration,
    /// The JSON without its live fields.
    pub(super) json: Box<str>,
    pub(super) live: Box<[LiveField]>,
    /// The bytes of its texts of unlimited length.
    pub(super) texts: usize,
}

/// A field that is written each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveField {
    /// Its index in the selection.
    pub(super) index: usize,
    /// Where it is in the JSON.
    pub(super) at: usize,
}

impl RenderedJob {
    /// What the selection of this identity made of an observation.
    pub(super) fn new(
        selection: u64,
        observed: ObservedJob<'_>,
        json: String,
        live: Vec<LiveField>,
        texts: usize,
    ) -> Self {
        let ObservedJob { job, seen } = observed;
        Self {
            selection,
            job: Arc::downgrade(job),
            sightings: seen.observation.sightings,
            correction: seen.correction,
            json: json.into_boxed_str(),
            live: live.into_boxed_slice(),
            texts,
        }
    }

    fn is_of(&self, selection: u64, ObservedJob { job, seen }: ObservedJob<'_>) -> bool {
        self.selection == selection
            && std::ptr::eq(self.job.as_ptr(), Arc::as_ptr(job))
            && self.sightings == seen.observation.sightings
            && self.correction == seen.correction
    }
}

/// The rendered jobs that were used last.
pub(in crate::inbound::graphql) struct RenderedJobs(RecentSlots<Arc<RenderedJob>>);

impl RenderedJobs {
    /// What a selection made of an observation, if it is kept.
    pub(super) fn get(&self, selection: u64, observed: ObservedJob<'_>) -> Option<Arc<RenderedJob>> {
        let key = slot_key(selection, Arc::as_ptr(observed.job));
        self.0.find(key, |held| held.is_of(selection, observed).then(|| Arc::clone(held)))
    }

    /// Keeps what a selection made of an observation, unless it is too long.
    pub(super) fn keep(&self, rendered: RenderedJob) {
        if rendered.json.len() + size_of_val(&*rendered.live) > MAX_BYTES {
            return;
        }
        self.0.put(slot_key(rendered.selection, rendered.job.as_ptr()), Arc::new(rendered));
    }
}

/// The number of a selection, which is small, is put above the bits of the address that differ, so that both decide.
fn slot_key(selection: u64, job: *const Job) -> u64 {
    job.addr() as u64 ^ selection.rotate_left(20)
}

impl Default for RenderedJobs {
    fn default() -> Self {
        Self(RecentSlots::new(SLOTS))
    }
}

impl fmt::Debug for RenderedJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderedJobs").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::Life;
    use crate::domain::observation::Observation;

    fn snapshot() -> JobSnapshot {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, Life::Running, Details::Supermetrics(Box::default()));
        let at = Timestamp::UNIX_EPOCH;
        JobSnapshot {
            observation: Observation::new(Arc::new(job), at, at),
            observed_at: at,
            age: Duration::ZERO,
            stale: None,
            next_poll: None,
            correction: SignedDuration::ZERO,
        }
    }

    fn rendered(selection: u64, seen: &JobSnapshot, json: &str) -> RenderedJob {
        RenderedJob::new(selection, ObservedJob::of(seen), json.to_owned(), Vec::new(), 0)
    }

    #[test]
    fn rendered_job_is_found_by_selection_and_observation() {
        let jobs = RenderedJobs::default();
        let (first, second) = (snapshot(), snapshot());
        jobs.keep(rendered(1, &first, "{}"));
        assert_eq!(jobs.get(1, ObservedJob::of(&first)).unwrap().json.as_ref(), "{}");
        let later = JobSnapshot { age: Duration::from_secs(1), ..first.clone() };
        assert!(jobs.get(1, ObservedJob::of(&later)).is_some());

        let mut seen_earlier = first.clone();
        seen_earlier.observation.sightings.first_seen_at = Some(Timestamp::MIN);
        let corrected = JobSnapshot { correction: SignedDuration::from_secs(1), ..first.clone() };
        for other in [second, seen_earlier, corrected] {
            assert!(jobs.get(1, ObservedJob::of(&other)).is_none(), "{other:?}");
        }
        assert!(jobs.get(2, ObservedJob::of(&first)).is_none());
    }

    #[test]
    fn selections_of_one_job_do_not_replace_each_other() {
        let (jobs, seen) = (RenderedJobs::default(), snapshot());
        for selection in 0..4 {
            jobs.keep(rendered(selection, &seen, "{}"));
        }
        let kept = (0..4).filter(|selection| jobs.get(*selection, ObservedJob::of(&seen)).is_some());
        assert_eq!(kept.count(), 4);
    }

    #[test]
    fn rendered_job_does_not_keep_its_job() {
        let (jobs, seen) = (RenderedJobs::default(), snapshot());
        jobs.keep(rendered(1, &seen, "{}"));
        assert_eq!(Arc::strong_count(&seen.observation.job), 1);
    }

    #[test]
    fn rendered_job_longer_than_the_limit_is_not_kept() {
        let (jobs, seen) = (RenderedJobs::default(), snapshot());
        jobs.keep(rendered(1, &seen, &" ".repeat(MAX_BYTES + 1)));
        assert!(jobs.get(1, ObservedJob::of(&seen)).is_none());
    }
}
