//! What a complete list changes: the changes of known jobs are ingested, and jobs are discovered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::rounds::{AppliedList, CompleteList, Rounds};
use super::source_sweep::{SourceSweep, UnfinishedChanges, is_change};
use crate::domain::id::{ExternalId, JobKey};
use crate::domain::job::{Job, Life};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::domain::sweep::{DiscoveryRules, earlier};
use crate::ports::listing::{ListSupport, Listed, UnfinishedJob};
use crate::telemetry::meters::{self, SweepOutcome};
use crate::telemetry::trace::{self, LastCall, ObserveTrigger};

/// Jobs read from the cache at once, and changes applied at once.
const AT_ONCE: usize = 500;
const APPLIED_AT_ONCE: usize = 16;

impl Rounds {
    /// Applies a complete list.
    pub(super) async fn apply(
        &self,
        sweep: &mut SourceSweep,
        complete: CompleteList,
        caller: &LastCall,
    ) -> AppliedList {
        let CompleteList { listed, since, began, upstream_now, discovery, token } = complete;
        let time_of_day = self.clock.time_of_day();
        if let Some(rules) = discovery {
            self.count_discovered(sweep, rules).await;
        }
        let missed = match listed {
            Listed::Changes(listed) => {
                // A read that began before the change may have been stored after the comparison.
                let differs = |listed: &Observation| {
                    let followed = self.following.seen(&listed.job.key);
                    followed.is_some_and(|followed| is_change(&followed, listed))
                };
                let differing = sweep.not_compared(&listed, differs);
                let changed = self.changes(sweep, differing, discovery).await;
                self.ingest(changed.clone(), caller).await;
                self.verify_changed(sweep, &changed);
                if discovery.is_some() {
                    self.compare_stored(sweep, ListSupport::Changes).await;
                }
                let found = self.following.take_unlisted(&sweep.source);
                let latest = listed.iter().filter_map(|one| one.job.updated_at).max();
                // our time of day when the list was requested: later changes are not in it
                let upstream_now = upstream_now.unwrap_or_else(|| earlier(time_of_day, began.elapsed()));
                sweep.record.complete(since, latest, upstream_now, time_of_day);
                sweep
                    .missed_by(&listed, began, found)
                    .map(|change| change.observation.job.key.external_id.clone())
            }
            Listed::Unfinished(listed) => {
                let found = self.following.take_unlisted(&sweep.source);
                let UnfinishedChanges { started, gone, missed } =
                    sweep.compare_unfinished(&listed, began, found);
                let changed = self.started(sweep, started, discovery).await;
                self.ingest(changed, caller).await;
                let SourceSweep { ending, discovered, unfinished, .. } = &mut *sweep;
                let is_ours = |id: &ExternalId| discovered.contains(id);
                gone.into_iter().filter(is_ours).for_each(|id| ending.add(id));
                ending.remove_listed(|id| unfinished.contains_key(id));
                if discovery.is_some() {
                    self.compare_stored(sweep, ListSupport::Unfinished).await;
                }
                let unfinished = sweep.unfinished_hashes().into_iter().collect();
                sweep.record.complete_unfinished(unfinished, time_of_day);
                missed
            }
        };
        let outcome = if missed.is_some() { SweepOutcome::Missed } else { SweepOutcome::Completed };
        meters::sweep(&sweep.source, outcome);
        if let Some(job) = &missed {
            sweep.record.distrust(time_of_day);
            tracing::warn!(
                source = %sweep.source, %job,
                "list of jobs contradicts a read by id; jobs are polled"
            );
        }
        sweep.record.reached = discovery.map_or(Duration::ZERO, |rules| rules.since);
        if !self.ledger.note_sweep(&sweep.lease, &sweep.record, token).await {
            AppliedList::LeaseLost
        } else if missed.is_some() {
            AppliedList::Contradicted
        } else {
            AppliedList::Trusted
        }
    }

    /// Verifies the discovered jobs that a list contained, until they are terminal.
    fn verify_changed(&self, sweep: &SourceSweep, changed: &[Observation]) {
        let (mut open, mut over) = (Vec::new(), Vec::new());
        for change in changed.iter().filter(|one| sweep.discovered.contains(&one.job.key.external_id)) {
            let to = if change.job.is_terminal() { &mut over } else { &mut open };
            to.push(change.job.key.clone());
        }
        for key in &over {
            self.following.end_verification(key);
        }
        self.following.verify_unfollowed(&open, false);
    }

    /// The queued jobs that run now, with everything else as it was, and those that are discovered.
    async fn started(
        &self,
        sweep: &mut SourceSweep,
        started: Vec<UnfinishedJob>,
        discovery: Option<DiscoveryRules>,
    ) -> Vec<Observation> {
        let source = sweep.source.clone();
        let mut changed = Vec::new();
        for some in started.chunks(AT_ONCE) {
            let key = |job: &UnfinishedJob| JobKey { source: source.clone(), external_id: job.id.clone() };
            let keys: Vec<JobKey> = some.iter().map(key).collect();
            let (held, discovery) = self.held(&keys, discovery).await;
            for ((job, key), held) in some.iter().zip(&keys).zip(held) {
                // A list that is out of date must not set a job back, so this is the only change that is applied.
                let is_running = job.state == JobState::Running;
                let life = if is_running { Life::Running } else { Life::Queued };
                let job_now = match held.or_else(|| self.following.seen(key)) {
                    Some(held) if is_running && held.job.state() == JobState::Queued => (*held.job).clone(),
                    None if sweep.discover(&job.id, discovery) => {
                        Job::new(key.clone(), life.clone(), sweep.upstream.no_details())
                    }
                    // Another process, or an earlier run of this one, may have discovered it: it is read when it has ended.
                    Some(held) if !held.job.is_terminal() => {
                        sweep.discover(&job.id, discovery);
                        continue;
                    }
                    // Only a read by id says whether it runs again, or the list is out of date.
                    Some(held) if held.job.is_terminal() && sweep.discover(&job.id, discovery) => {
                        sweep.ending.add_rerun(job.id.clone(), held.observed_at);
                        continue;
                    }
                    Some(_) | None => continue,
                };
                let job_now = Job { life, native_state: job.native_state.clone(), ..job_now };
                changed.push(Observation::new(Arc::new(job_now), job.requested_at, job.observed_at));
            }
        }
        changed
    }

    /// The cached observations. While the store fails, nothing is discovered: it may have a later state of each job.
    async fn held(
        &self,
        keys: &[JobKey],
        discovery: Option<DiscoveryRules>,
    ) -> (Vec<Option<Observation>>, Option<DiscoveryRules>) {
        match self.cache.read(keys).await {
            Some(held) => (held, discovery),
            None => (vec![None; keys.len()], None),
        }
    }

    /// Ingests the changes of a list.
    async fn ingest(&self, changed: Vec<Observation>, caller: &LastCall) {
        let changed = futures_util::stream::iter(changed);
        changed.for_each_concurrent(APPLIED_AT_ONCE, |change| self.ingest_change(change, caller)).await;
    }

    /// The listed jobs that differ from the cached ones, and those that are discovered. Any other job that is not cached is
    /// of no interest to anybody.
    async fn changes(
        &self,
        sweep: &mut SourceSweep,
        listed: Vec<Observation>,
        discovery: Option<DiscoveryRules>,
    ) -> Vec<Observation> {
        let differs = |listed: &Observation| {
            let known = self.following.seen(&listed.job.key);
            known.is_none_or(|known| is_change(&known, listed))
        };
        let listed: Vec<Observation> = listed.into_iter().filter(differs).collect();
        let mut changed = Vec::new();
        for some in listed.chunks(AT_ONCE) {
            let keys: Vec<JobKey> = some.iter().map(|one| one.job.key.clone()).collect();
            let (held, discovery) = self.held(&keys, discovery).await;
            for (listed, held) in some.iter().zip(held) {
                // The store may have evicted a followed job.
                let takes = match held.or_else(|| self.following.seen(&listed.job.key)) {
                    Some(held) => is_change(&held, listed),
                    None => sweep.discover(&listed.job.key.external_id, discovery),
                };
                changed.extend(takes.then(|| listed.clone()));
            }
        }
        changed
    }

    async fn ingest_change(&self, change: Observation, caller: &LastCall) {
        if !trace::is_on() {
            self.ingest.take_listed(change).await;
            return;
        }
        let times = (change.requested_at, change.observed_at);
        let state = Ok(change.job.state().name());
        let context = trace::observe(&change.job.key, times, caller, ObserveTrigger::Sweep, state);
        context.hold(Box::pin(self.ingest.take_listed(change))).await;
    }
}
