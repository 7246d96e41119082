//! The `GqlJob` interface: the fields that the jobs of all upstreams have.

use async_graphql::{Context, Enum, ID, Interface, SimpleObject, Union};

use crate::domain::details::Details;
use crate::domain::job;
use crate::domain::state;
use crate::jobs::Jobs;
use crate::jobs::answer::{JobSnapshot, LookupResult};
use crate::jobs::visibility::RequestedRef;

use super::mindbridge::MindBridgeJob;
use super::problem::{GqlStaleReason, JobProblem};
use super::scalars::{DateTime, UpstreamText};
use super::source::GqlSource;
use super::supermetrics::SupermetricsJob;

/// The possible states of a job, the same for all upstreams. An upstream's state that the gateway does not know is
/// `UNKNOWN`; `nativeState` has the original value.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "JobState", remote = "state::JobState")]
pub enum GqlJobState {
    /// The job is waiting to run.
    Queued,
    /// The job is running.
    Running,
    /// The job completed successfully. Terminal.
    Succeeded,
    /// The job completed with an error; see `failure`. Terminal.
    Failed,
    /// The job was stopped before it completed. Terminal.
    Canceled,
    /// The upstream no longer keeps the job, and the gateway did not observe another terminal state. Terminal.
    Expired,
    /// The upstream reports a state that the gateway does not know; see `nativeState`. Not terminal.
    Unknown,
}

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

/// The progress of a job, as a number of parts; for Supermetrics, the sub-queries of the query. It cannot be shown as a
/// percentage, because the total can grow.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct JobProgress {
    /// The number of completed parts.
    completed: u32,
    /// The number of known parts. Can grow while the job runs.
    total: u32,
}

/// The failure of a job, as the upstream reports it.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobFailure {
    /// The upstream's error code, verbatim. Not from a fixed list. Null if the upstream reports none.
    code: Option<UpstreamText>,
    /// The upstream's error message, for display. For MindBridge, it can be a combination of `error` and `errorMessage`.
    /// Null if the upstream reports none.
    message: Option<UpstreamText>,
}

/// When this job was last observed, and whether that is older than requested.
#[derive(Clone, Copy, Debug, SimpleObject)]
#[graphql(name = "Freshness")]
pub struct GqlFreshness {
    /// The date and time when the gateway received the upstream's response, by the gateway's clock.
    observed_at: DateTime,
    /// The time since `observedAt`, in milliseconds. At most 2147483647.
    age_ms: i32,
    /// Whether the result is older than requested. A terminal job is never stale.
    is_stale: bool,
    /// The reason why the result is stale. Null if it is not stale.
    stale_reason: Option<GqlStaleReason>,
    /// The date and time of the next scheduled poll. Null if no poll is scheduled. Always null in `jobFeed`.
    next_poll_at: Option<DateTime>,
}

impl GqlJob {
    pub(super) fn new(seen: JobSnapshot) -> Self {
        match seen.observation.job.details {
            Details::MindBridge(_) => Self::MindBridgeJob(MindBridgeJob(seen)),
            Details::Supermetrics(_) => Self::SupermetricsJob(SupermetricsJob(seen)),
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

impl From<job::Progress> for JobProgress {
    fn from(job::Progress { completed, total }: job::Progress) -> Self {
        Self { completed, total }
    }
}

impl From<&job::Failure> for JobFailure {
    fn from(failure: &job::Failure) -> Self {
        Self { code: failure.code.clone().map(Into::into), message: failure.message.clone().map(Into::into) }
    }
}

impl From<&JobSnapshot> for GqlFreshness {
    fn from(seen: &JobSnapshot) -> Self {
        Self {
            observed_at: DateTime(seen.observed_at),
            age_ms: i32::try_from(seen.age.as_millis()).unwrap_or(i32::MAX),
            is_stale: seen.stale.is_some(),
            stale_reason: seen.stale.map(GqlStaleReason::from),
            next_poll_at: seen.next_poll.map(DateTime),
        }
    }
}

/// The source of a job. The client may read the job, so it may read the source.
pub(super) fn source_of(ctx: &Context<'_>, seen: &JobSnapshot) -> async_graphql::Result<GqlSource> {
    let name = &seen.observation.job.key.source;
    let status = ctx.data::<Jobs>()?.source(ctx.data()?, name);
    status
        .map(GqlSource::from)
        .ok_or_else(|| async_graphql::Error::new("the source of this job is no longer configured"))
}

/// Defines an object of the schema over a [`JobSnapshot`]: the fields of the `GqlJob` interface, and its own.
/// The named fields have a description for each upstream.
macro_rules! job_object {
    ($(#[$doc:meta])* $name:ident {
        $(#[$external_id:meta])* external_id;
        $(#[$created_at:meta])* created_at;
        $(#[$updated_at:meta])* updated_at;
        $(#[$finished_at:meta])* finished_at;
        $(#[$progress:meta])* progress;
        $($own:tt)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(super) $crate::jobs::answer::JobSnapshot);

        $(#[$doc])*
        #[async_graphql::Object]
        impl $name {
            /// The global node ID of the job: an opaque, stable string. Knowing an ID does not grant access.
            pub async fn id(&self) -> async_graphql::ID {
                async_graphql::ID(self.job().key.node_id())
            }

            /// The source that the job belongs to. An error if the source is no longer configured.
            pub async fn source(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> async_graphql::Result<$crate::inbound::graphql::schema::source::GqlSource> {
                $crate::inbound::graphql::schema::job::source_of(ctx, &self.0)
            }

            $(#[$external_id])*
            pub async fn external_id(&self) -> String {
                self.job().key.external_id.as_str().to_owned()
            }

            /// The state of the job.
            pub async fn state(&self) -> $crate::inbound::graphql::schema::job::GqlJobState {
                self.job().state().into()
            }

            /// Whether the state is terminal: the run is completed. A later report of the upstream can still correct
            /// the state: for example, another terminal state replaces `EXPIRED`, and the state of a restored backup
            /// replaces any other.
            pub async fn is_terminal(&self) -> bool {
                self.job().is_terminal()
            }

            /// The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if the
            /// upstream reports none.
            pub async fn native_state(&self) -> Option<$crate::inbound::graphql::schema::scalars::UpstreamText> {
                self.job().native_state.clone().map(Into::into)
            }

            $(#[$created_at])*
            pub async fn created_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().created_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$updated_at])*
            pub async fn updated_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().updated_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$finished_at])*
            pub async fn finished_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.job().finished_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown.
            pub async fn first_seen_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.first_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed the current state, by the gateway's clock. Null if
            /// unknown.
            pub async fn state_since(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.state_since.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            /// The date and time when the gateway first observed a terminal state of this run, by the gateway's
            /// clock. Null if the job is not terminal, or if unknown.
            pub async fn terminal_seen_at(&self) -> Option<$crate::inbound::graphql::schema::scalars::DateTime> {
                self.0.sightings.terminal_seen_at.map($crate::inbound::graphql::schema::scalars::DateTime)
            }

            $(#[$progress])*
            pub async fn progress(&self) -> Option<$crate::inbound::graphql::schema::job::JobProgress> {
                self.job().progress.map(Into::into)
            }

            /// The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can
            /// be null.
            pub async fn failure(&self) -> Option<$crate::inbound::graphql::schema::job::JobFailure> {
                self.job().failure().map(Into::into)
            }

            /// The age of this result, and whether it is stale.
            pub async fn freshness(&self) -> $crate::inbound::graphql::schema::job::GqlFreshness {
                (&self.0).into()
            }

            $($own)*
        }

        impl $name {
            fn job(&self) -> &$crate::domain::job::Job {
                &self.0.observation.job
            }
        }
    };
}
pub(super) use job_object;
