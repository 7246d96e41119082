//! The `GqlJob` interface: the fields that the jobs of all upstreams have.

use async_graphql::{ID, Interface, Union};

use crate::domain::details::Details;
use crate::jobs::answer::{JobSnapshot, LookupResult};
use crate::jobs::visibility::RequestedRef;

use crate::inbound::graphql::plan::selection::SelectedField;
use crate::inbound::graphql::plan::writer::{AnswerWriter, WriteJson};

use super::job_fields::{GqlFreshness, GqlJobState, JobFailure, JobProgress};
use super::mindbridge::MindBridgeJob;
use super::problem::JobProblem;
use super::scalars::{DateTime, UpstreamText};
use super::source::GqlSource;
use super::supermetrics::SupermetricsJob;

/// An object with an ID.
#[derive(Clone, Debug, Interface)]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "The global node ID of the object: an opaque, stable string. Knowing an ID does not grant access."
))]
pub enum Node {
    /// A job of any upstream.
    Job(GqlJob),
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
}

/// A job of any upstream, as of the last observation. A Supermetrics ID can run again after a terminal state; each time
/// is a run. The fields describe the latest run.
#[derive(Clone, Debug, Interface)]
#[expect(clippy::duplicated_attributes, reason = "fields of the same type repeat it")]
#[graphql(
    name = "Job",
    field(
        name = "id",
        ty = "ID",
        desc = "The global node ID of the job: an opaque, stable string. Knowing an ID does not grant access."
    ),
    field(
        name = "source",
        ty = "GqlSource",
        desc = "The source that the job belongs to. An error if the source is no longer configured."
    ),
    field(name = "external_id", ty = "String", desc = "The ID of the job in the upstream's API."),
    field(name = "state", ty = "GqlJobState", desc = "The state of the job."),
    field(
        name = "is_terminal",
        ty = "bool",
        desc = "Whether the state is terminal: the run is completed. A later report of the upstream can still correct\n\
                    the state: for example, another terminal state replaces `EXPIRED`, and the state of a\n\
                    restored backup replaces any other."
    ),
    field(
        name = "native_state",
        ty = "Option<UpstreamText>",
        desc = "The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if\n\
                    the upstream reports none."
    ),
    field(
        name = "created_at",
        ty = "Option<DateTime>",
        desc = "The date and time when the job was created, by the upstream's clock. Null if the upstream does not report it."
    ),
    field(
        name = "updated_at",
        ty = "Option<DateTime>",
        desc = "The date and time when the job was last updated, by the upstream's clock. Null if the upstream\n\
                    does not report it."
    ),
    field(
        name = "finished_at",
        ty = "Option<DateTime>",
        desc = "The date and time when the job finished, by the upstream's clock. Null if the job is not\n\
                    terminal or the upstream does not report it."
    ),
    field(
        name = "first_seen_at",
        ty = "Option<DateTime>",
        desc = "The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown."
    ),
    field(
        name = "state_since",
        ty = "Option<DateTime>",
        desc = "The date and time when the gateway first observed the current state, by the gateway's clock. Null if unknown."
    ),
    field(
        name = "terminal_seen_at",
        ty = "Option<DateTime>",
        desc = "The date and time when the gateway first observed a terminal state of this run, by the gateway's\n\
                    clock. Null if the job is not terminal, or if unknown."
    ),
    field(
        name = "progress",
        ty = "Option<JobProgress>",
        desc = "The progress of the job. Null if the upstream does not report it."
    ),
    field(
        name = "failure",
        ty = "Option<JobFailure>",
        desc = "The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can\n\
                    be null."
    ),
    field(
        name = "freshness",
        ty = "GqlFreshness",
        desc = "The age of this result, and whether it is stale."
    )
)]
pub enum GqlJob {
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
}

/// The result for a job reference: the job, or the reason why there is none.
#[derive(Clone, Debug, Union)]
pub enum JobResult {
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
    /// The reason why there is no job.
    JobProblem(JobProblem),
}

impl GqlJob {
    pub(super) fn new(seen: JobSnapshot) -> Self {
        match seen.observation.job.details {
            Details::MindBridge(_) => Self::MindBridgeJob(MindBridgeJob(seen)),
            Details::Supermetrics(_) => Self::SupermetricsJob(SupermetricsJob(seen)),
        }
    }
}

impl Node {
    pub(super) fn new(seen: JobSnapshot) -> Self {
        match GqlJob::new(seen) {
            GqlJob::MindBridgeJob(job) => Self::MindBridgeJob(job),
            GqlJob::SupermetricsJob(job) => Self::SupermetricsJob(job),
        }
    }
}

impl JobResult {
    pub(super) fn new(reference: RequestedRef, answer: LookupResult) -> Self {
        match answer.map(GqlJob::new) {
            Ok(GqlJob::MindBridgeJob(job)) => Self::MindBridgeJob(job),
            Ok(GqlJob::SupermetricsJob(job)) => Self::SupermetricsJob(job),
            Err(problem) => Self::JobProblem(JobProblem::new(reference, problem)),
        }
    }
}

impl WriteJson for Node {
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        match self {
            Self::Job(job) => job.write(of, out),
            Self::MindBridgeJob(job) => job.write(of, out),
            Self::SupermetricsJob(job) => job.write(of, out),
        }
    }
}

impl WriteJson for GqlJob {
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        match self {
            Self::MindBridgeJob(job) => job.write(of, out),
            Self::SupermetricsJob(job) => job.write(of, out),
        }
    }
}

impl WriteJson for JobResult {
    fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
        match self {
            Self::MindBridgeJob(job) => job.write(of, out),
            Self::SupermetricsJob(job) => job.write(of, out),
            Self::JobProblem(problem) => problem.write(of, out),
        }
    }
}
