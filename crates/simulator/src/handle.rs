//! The control surface of a running simulator, for tests and for the control endpoints.

use std::sync::Arc;

use jiff::SignedDuration;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    Endpoint, MindBridgeJob, MindBridgeStep, RecordedRequest, SimFault, SimList, SimUpstream,
    SupermetricsJob, SupermetricsStep, mindbridge, supermetrics,
};

use super::progress::standing;

use super::world::SimWorld;

/// Changes a running simulator and reads its record. A cheap clone; outliving the simulator is harmless.
#[derive(Debug, Clone)]
pub struct Handle {
    world: Arc<SimWorld>,
}

/// A job of either upstream.
#[derive(Debug, Clone)]
pub enum SimJob {
    /// An async result.
    MindBridge(Box<MindBridgeJob>),
    /// A scheduled query.
    Supermetrics(Box<SupermetricsJob>),
}

impl From<MindBridgeJob> for SimJob {
    fn from(job: MindBridgeJob) -> Self {
        Self::MindBridge(Box::new(job))
    }
}

impl From<SupermetricsJob> for SimJob {
    fn from(job: SupermetricsJob) -> Self {
        Self::Supermetrics(Box::new(job))
    }
}

/// A step of either upstream.
#[derive(Debug, Clone)]
pub enum SimStep {
    /// Of an async result.
    MindBridge(MindBridgeStep),
    /// Of a scheduled query.
    Supermetrics(Box<SupermetricsStep>),
}

impl From<MindBridgeStep> for SimStep {
    fn from(step: MindBridgeStep) -> Self {
        Self::MindBridge(step)
    }
}

impl From<SupermetricsStep> for SimStep {
    fn from(step: SupermetricsStep) -> Self {
        Self::Supermetrics(Box::new(step))
    }
}

/// The upstream has no job with this id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has no job {id:?}", upstream.as_str())]
pub struct NoSuchJob {
    /// The upstream.
    pub upstream: SimUpstream,
    /// The id.
    pub id: String,
}

impl Handle {
    pub(super) const fn new(world: Arc<SimWorld>) -> Self {
        Self { world }
    }

    pub(super) const fn world(&self) -> &Arc<SimWorld> {
        &self.world
    }

    /// Adds a job, or replaces the one with the same id. Its `born` counts from now.
    pub fn add_job(&self, job: impl Into<SimJob>) {
        let now = self.world.now();
        let mut state = self.world.lock();
        match job.into() {
            SimJob::MindBridge(mut job) => {
                job.born = now.saturating_add(job.born);
                state.forgotten.remove(&(SimUpstream::MindBridge, job.id.clone()));
                let jobs = &mut state.scenario.mindbridge.jobs;
                jobs.retain(|held| held.id != job.id);
                jobs.push(*job);
            }
            SimJob::Supermetrics(mut job) => {
                job.born = now.saturating_add(job.born);
                state.forgotten.remove(&(SimUpstream::Supermetrics, job.id.clone()));
                let jobs = &mut state.scenario.supermetrics.jobs;
                jobs.retain(|held| held.id != job.id);
                jobs.push(*job);
            }
        }
    }

    /// Sets a job to a state now: the step's own `at` is ignored, and the rest of the script is dropped.
    ///
    /// A job that is not born yet is born with it. A query that runs repeatedly stays in its current run.
    ///
    /// # Errors
    /// When the upstream of the step has no such job.
    pub fn set_state(&self, id: &str, step: impl Into<SimStep>) -> Result<(), NoSuchJob> {
        let now = self.world.now();
        let mut state = self.world.lock();
        match step.into() {
            SimStep::MindBridge(mut step) => {
                let missing = || NoSuchJob { upstream: SimUpstream::MindBridge, id: id.to_owned() };
                let (job, born) = mindbridge::find(&state, id).ok_or_else(missing)?;
                let mut job =
                    MindBridgeJob { id: id.to_owned(), born: born.min(now), every: None, ..job.clone() };
                step.at = now.saturating_sub(job.born);
                // Steps of this very moment stay as well: each one incremented the version.
                job.steps.retain(|held| held.at <= step.at && born <= now);
                job.steps.push(step);
                let jobs = &mut state.scenario.mindbridge.jobs;
                jobs.retain(|held| held.id != id);
                jobs.push(job);
            }
            SimStep::Supermetrics(mut step) => {
                let missing = || NoSuchJob { upstream: SimUpstream::Supermetrics, id: id.to_owned() };
                let (job, born) = supermetrics::find(&state, id).ok_or_else(missing)?;
                let run = standing(born, job.rerun_every, job.runs, &job.moments(), now);
                let born = run.map_or(now, |run| run.run_began);
                let mut job = SupermetricsJob {
                    id: id.to_owned(),
                    born,
                    every: None,
                    rerun_every: None,
                    runs: None,
                    ..job.clone()
                };
                step.at = now.saturating_sub(born);
                job.steps.retain(|held| held.at < step.at && !held.ends_the_run());
                job.steps.push(*step);
                let jobs = &mut state.scenario.supermetrics.jobs;
                jobs.retain(|held| held.id != id);
                jobs.push(job);
            }
        }
        Ok(())
    }

    /// Removes a job from an upstream: it answers as for an id that never existed.
    pub fn forget(&self, upstream: SimUpstream, id: &str) {
        self.world.lock().forgotten.insert((upstream, id.to_owned()));
    }

    /// The ids born until now, oldest first; of many born by `every` only the latest 100.
    pub fn job_ids(&self, upstream: SimUpstream) -> Vec<String> {
        let now = self.world.now();
        let state = self.world.lock();
        let scenario = &state.scenario;
        let mut born: Vec<_> = match upstream {
            SimUpstream::MindBridge => {
                scenario.mindbridge.jobs.iter().flat_map(|job| job.family().members(now)).collect()
            }
            SimUpstream::Supermetrics => {
                scenario.supermetrics.jobs.iter().flat_map(|job| job.family().members(now)).collect()
            }
        };
        born.retain(|(id, _)| !state.is_forgotten(upstream, id));
        born.sort();
        born.dedup_by(|left, right| left.0 == right.0);
        born.sort_by_key(|(_, born)| *born);
        born.into_iter().map(|(id, _)| id).collect()
    }

    /// Activates a fault, after the existing ones.
    pub fn push_fault(&self, fault: SimFault) {
        self.world.lock().scenario.faults.push(fault);
    }

    /// Deactivates the faults of an upstream, or of both.
    pub fn clear_faults(&self, upstream: Option<SimUpstream>) {
        let faults = &mut self.world.lock().scenario.faults;
        faults.retain(|fault| upstream.is_some_and(|only| only != fault.upstream));
    }

    /// Sets the anomalies of the list of an upstream from now on, in place of those in use.
    pub fn set_list(&self, upstream: SimUpstream, list: SimList) {
        let now = self.world.now();
        self.world.lock().set_list(upstream, list, now);
    }

    /// Sets how far the clock of an upstream is ahead from now on; behind, when negative. The dates of what happened
    /// before stay.
    pub fn set_clock_skew(&self, upstream: SimUpstream, skew: SignedDuration) {
        self.world.set_clock(upstream, skew);
    }

    /// Accepts this credential from now on, and no longer the previous one.
    pub fn set_credential(&self, upstream: SimUpstream, credential: &str) {
        let before: Vec<usize> =
            self.world.lock().accepted[upstream.index()].iter().map(|(number, _)| *number).collect();
        self.also_accept(upstream, credential);
        for number in before {
            self.revoke(upstream, number);
        }
    }

    /// Accepts this credential in addition from now on; returns its number in the record.
    pub fn also_accept(&self, upstream: SimUpstream, credential: &str) -> usize {
        let mut state = self.world.lock();
        let number = state.ever_accepted[upstream.index()];
        state.ever_accepted[upstream.index()] += 1;
        state.accepted[upstream.index()].push((number, SecretString::from(credential)));
        number
    }

    /// Revokes the credential with this number.
    pub fn revoke(&self, upstream: SimUpstream, number: usize) {
        self.world.lock().accepted[upstream.index()].retain(|(held, _)| *held != number);
    }

    /// Releases every request that a `hold` fault delays.
    pub fn release(&self) {
        self.world.release();
    }

    /// The requests, in the order of arrival; the latest 20,000.
    pub fn record(&self) -> Vec<RecordedRequest> {
        self.world.ledger.all()
    }

    /// The requests to one upstream.
    pub fn record_of(&self, upstream: SimUpstream) -> Vec<RecordedRequest> {
        let mut record = self.record();
        record.retain(|request| request.upstream == upstream);
        record
    }

    /// How many requests an endpoint of an upstream received since the record was cleared, also those that the record
    /// does not contain any more.
    pub fn received(&self, upstream: SimUpstream, endpoint: Endpoint) -> u64 {
        self.world.ledger.received(upstream, endpoint)
    }

    /// The violations in the record, which a test of a correct client expects to be none.
    pub fn violations(&self) -> Vec<String> {
        self.record().into_iter().filter_map(|request| request.violation).collect()
    }

    /// Clears the record and the counters, and resets the highest number in flight.
    pub fn clear_record(&self) {
        self.world.ledger.clear(None);
    }

    /// The highest number of requests an upstream had in flight at once since the record was cleared.
    pub fn max_in_flight(&self, upstream: SimUpstream) -> usize {
        self.world.ledger.max_in_flight(upstream)
    }

    /// Waits until the record contains `count` requests. Cancel safe; never returns if they do not arrive.
    pub async fn wait_for_requests(&self, count: usize) {
        self.world.ledger.wait_for(count).await;
    }

    /// The counters of one upstream in the form of `/_sim/requests`.
    pub(super) fn received_as_json(&self, upstream: SimUpstream) -> Value {
        let counters = Endpoint::ALL
            .into_iter()
            .map(|endpoint| (endpoint.as_str().to_owned(), self.received(upstream, endpoint).into()));
        Value::Object(counters.collect())
    }

    /// The record of one upstream in the form of `/_sim/requests`.
    pub(super) fn record_as_json(&self, upstream: SimUpstream) -> Vec<Value> {
        let epoch = self.world.epoch();
        self.record_of(upstream).iter().map(|request| request.to_json(epoch)).collect()
    }
}
