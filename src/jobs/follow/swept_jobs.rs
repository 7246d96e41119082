//! What sweeps change in the schedule: which jobs are covered, and which changes no list contained.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::coverage::{SweepCoverage, UnlistedChange};
use super::poll_queue::QueuePosition;
use super::schedule::PollSchedule;
use super::settings::FollowSettings;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::sweep::{SweepDemand, id_hash};

/// The maximum number of changes that are compared with the next lists. More than these in one minute are not compared.
const UNLISTED_MAX: usize = 1_000;
/// For how many jobs [`PollSchedule::sweep_demand`] counts again what they require.
const RECOUNTED_PER_CALL: usize = 1_000;

impl PollSchedule {
    /// The sweeps of a source that are in force.
    pub(super) fn coverage(&self, source: &SourceName) -> Option<&SweepCoverage> {
        self.polls.get(source)?.coverage.as_ref()
    }

    /// Starts, renews or ends the sweeps of a source. `listed` are the jobs of the last list, by the hash of their ids,
    /// where lists contain the jobs that are not terminal.
    pub(super) fn set_coverage(
        &mut self,
        source: &SourceName,
        coverage: Option<SweepCoverage>,
        listed: Option<&HashSet<u64>>,
        settings: &FollowSettings,
    ) {
        let polls = self.polls.entry(source.clone()).or_default();
        let before = std::mem::replace(&mut polls.coverage, coverage);
        polls.verify_interval = coverage.map(|coverage| coverage.verify_interval).or(polls.verify_interval);
        match (coverage, listed) {
            (Some(coverage), Some(listed)) => self.set_listed(source, &coverage, listed, settings),
            (None, _) if before.is_some() => self.uncover(source, settings),
            (_, _) => {}
        }
    }

    /// Polls the jobs that were covered again, spread over the longest interval.
    fn uncover(&mut self, source: &SourceName, settings: &FollowSettings) {
        if let Some(polls) = self.polls.get_mut(source) {
            polls.unlisted.clear();
        }
        let now = Instant::now();
        let mut moved = Vec::new();
        for (key, followed) in self.jobs.iter_mut().filter(|(key, _)| key.source == *source) {
            (followed.listed, followed.urgent) = (false, false);
            let polled = now + settings.pace.slowest.mul_f64(followed.phase);
            moved.extend(followed.scheduled_at.map(|planned| (key.clone(), planned.min(polled))));
        }
        for (key, at) in moved {
            self.set_schedule(&key, Some(at));
        }
    }

    /// Applies a list of the jobs that are not terminal. A job that it contains for the first time is covered; one that it
    /// does not contain any more is read by its id at once.
    fn set_listed(
        &mut self,
        source: &SourceName,
        coverage: &SweepCoverage,
        listed: &HashSet<u64>,
        settings: &FollowSettings,
    ) {
        let now = Instant::now();
        let mut moved = Vec::new();
        for (key, followed) in self.jobs.iter_mut().filter(|(key, _)| key.source == *source) {
            let is_listed = listed.contains(&id_hash(&key.external_id));
            let was_listed = std::mem::replace(&mut followed.listed, is_listed);
            if followed.is_over() || is_listed == was_listed {
                continue;
            }
            followed.urgent = was_listed;
            let Some(planned) = followed.scheduled_at else { continue };
            let at = if was_listed {
                now
            } else if coverage.covers(followed) {
                planned.max(now + coverage.read_interval(followed, settings, now))
            } else {
                planned
            };
            moved.push((key.clone(), at));
        }
        for (key, at) in moved {
            self.set_schedule(&key, Some(at));
        }
    }

    /// What the jobs of a source require of its sweeps. What a job requires changes with its age; here it is counted again
    /// for up to [`RECOUNTED_PER_CALL`] jobs, those of the next positions in the queue.
    pub(super) fn sweep_demand(
        &mut self,
        source: &SourceName,
        settings: &FollowSettings,
        ids_a_request: usize,
    ) -> SweepDemand {
        let recounted_to = self.polls.get(source).and_then(|polls| polls.recounted_to);
        let next: Vec<(QueuePosition, JobKey)> = self.queues.get(source).map_or_else(Vec::new, |queue| {
            let next = queue.behind(recounted_to).take(RECOUNTED_PER_CALL);
            next.map(|(position, key)| (position, key.clone())).collect()
        });
        for (_, key) in &next {
            self.update_indexes(key, settings);
        }
        let reached_end = next.len() < RECOUNTED_PER_CALL;
        let verified = self.count_verified(source);
        let Some(polls) = self.polls.get_mut(source) else { return SweepDemand::default() };
        polls.recounted_to = next.last().map(|(position, _)| *position).filter(|_| !reached_end);
        let mut demand = polls.demand.read(ids_a_request);
        demand.verified += verified;
        demand
    }

    /// Applies that the last sweep confirmed the state of a covered job, before a newer observation is published.
    pub(super) fn confirm(&mut self, key: &JobKey) {
        let coverage = self.polls.get(&key.source).and_then(|polls| polls.coverage);
        let Some((coverage, followed)) = coverage.zip(self.jobs.get_mut(key)) else { return };
        if coverage.covers(followed) {
            let (swept, swept_at) = coverage.swept;
            followed.seen_at = followed.seen_at.max(swept);
            followed.updates.send_if_modified(|published| {
                Arc::make_mut(published).confirm(swept_at);
                false
            });
        }
    }

    /// Records a change of a covered job that was found without a list, for the comparison with the next lists.
    pub(super) fn note_unlisted(&mut self, before: Option<&Observation>, observation: &Observation) {
        let key = &observation.job.key;
        let covered = self
            .coverage(&key.source)
            .is_some_and(|coverage| self.jobs.get(key).is_some_and(|followed| coverage.covers(followed)));
        if covered {
            self.expect_in_a_list(before, observation);
        }
    }

    /// Records an observation for the comparison with the next lists, if it shows a change.
    pub(super) fn expect_in_a_list(&mut self, before: Option<&Observation>, observation: &Observation) {
        let changed = before.is_some_and(|before| {
            observation.supersedes(before)
                && (before.job.counter() != observation.job.counter()
                    || before.job.state() != observation.job.state())
        });
        let polls = self.polls.get_mut(&observation.job.key.source);
        if let Some(polls) = polls.filter(|polls| changed && polls.unlisted.len() < UNLISTED_MAX) {
            let found = Instant::now();
            polls.unlisted.push(UnlistedChange { observation: observation.clone(), found });
        }
    }

    /// The changes of covered jobs that were found without a list since the last call.
    pub(super) fn take_unlisted(&mut self, source: &SourceName) -> Vec<UnlistedChange> {
        self.polls.get_mut(source).map(|polls| std::mem::take(&mut polls.unlisted)).unwrap_or_default()
    }
}
