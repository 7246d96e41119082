//! What sweeps change in the schedule: which jobs are covered, and which changes no list contained.

use std::collections::HashSet;

use tokio::time::Instant;

use super::coverage::{SweepCoverage, UnlistedChange};
use super::schedule::PollSchedule;
use super::settings::FollowSettings;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::sweep::{SweepDemand, id_hash};

/// The maximum number of changes that are compared with the next lists. More than these in one minute are not compared.
const UNLISTED_MAX: usize = 1_000;

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
            let planned = followed.scheduled_at.filter(|planned| !followed.is_over() && *planned > polled);
            moved.extend(planned.map(|_| (key.clone(), polled)));
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
            if was_listed {
                moved.push((key.clone(), now));
            } else if coverage.covers(followed) && followed.idle_since.is_none() {
                let at = now + coverage.read_interval(followed, settings, now);
                moved.push((key.clone(), at.max(planned)));
            }
        }
        for (key, at) in moved {
            self.set_schedule(&key, Some(at));
        }
    }

    /// What the jobs of a source require of its sweeps. The cost is in proportion to the followed jobs.
    pub(super) fn sweep_demand(
        &self,
        source: &SourceName,
        settings: &FollowSettings,
        ids_a_request: usize,
    ) -> SweepDemand {
        let now = Instant::now();
        let mut demand = SweepDemand { verified: self.count_verified(source), ..SweepDemand::default() };
        for (_, followed) in self.jobs.iter().filter(|(key, followed)| {
            key.source == *source && followed.idle_since.is_none() && !followed.is_over()
        }) {
            demand.jobs += 1;
            demand.watched += usize::from(followed.is_watched());
            demand.verified += usize::from(!followed.stand_by);
            demand.requests_per_second += 1.0 / followed.interval(settings, now).as_secs_f64().max(1e-3);
            demand.tightest = followed.tightest().into_iter().chain(demand.tightest).min();
        }
        demand.requests_per_second /= f64::from(u32::try_from(ids_a_request.max(1)).unwrap_or(u32::MAX));
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
                published.confirm(swept_at);
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

    /// Takes the due jobs that are read before others, because a list does not contain them any more.
    pub(super) fn take_urgent(&self, due: &mut Vec<JobKey>, limit: usize) -> Vec<JobKey> {
        let mut urgent = Vec::new();
        due.retain(|key| {
            let takes = urgent.len() < limit && self.jobs.get(key).is_some_and(|followed| followed.urgent);
            if takes {
                urgent.push(key.clone());
            }
            !takes
        });
        urgent
    }
}
