//! The types over the jobs of all upstreams: the `Job` interface with the fields that all have, and the table of the
//! objects, one row for each upstream; a module in the folder has the object itself.

mod mindbridge;
mod supermetrics;

use async_graphql::{ID, Interface, Union};

use crate::domain::details::Details;
use crate::jobs::answer::{JobSnapshot, LookupResult};
use crate::jobs::visibility::RequestedRef;

use crate::inbound::graphql::plan::output::ObjectDescription;
use crate::inbound::graphql::plan::selection::SelectedField;
use crate::inbound::graphql::plan::writer::{AnswerWriter, WriteJson};

use self::mindbridge::MindBridgeJob;
use self::supermetrics::SupermetricsJob;
use super::job_fields::{GqlEstimate, GqlFreshness, GqlJobState, JobFailure, JobProgress, JobTransition};
use super::problem::JobProblem;
use super::scalars::{DateTime, UpstreamText};
use super::source::GqlSource;
use super::viewer::GqlViewerGrant;

/// Declares the types over the jobs of all upstreams from one row for each: the object with its description, the variant of
/// [`Details`], and the module with its object types.
macro_rules! job_objects {
    ($($(#[$doc:meta])* $object:ident: $details:ident, $module:ident;)+) => {
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
            $($(#[$doc])* $object($object),)+
        }

        /// A job of any upstream, as of the last observation. A Supermetrics ID can run again after a terminal state; each time
        /// is a run. The fields describe the latest run.
        #[derive(Clone, Debug, Interface)]
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
                name = "transitions",
                ty = "Vec<JobTransition>",
                desc = "The changes of the state and of the native state that the gateway observed, oldest first, at most the\n\
                            last 50. Includes earlier runs of the same ID. Changes between two observations are not included.\n\
                            Empty if the gateway kept no history when it observed the current state."
            ),
            field(
                name = "estimate",
                ty = "Option<GqlEstimate>",
                desc = "When the job is expected to finish, as of this result. Null if the job is not queued or running, and\n\
                            if fewer than eight completed jobs of its kind took as long as it has taken."
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
            ),
            field(
                name = "viewer_grant",
                ty = "Option<GqlViewerGrant>",
                desc = "The grant that allows the client to read the job: one of `Viewer.grants`. Depends on the client. Null\n\
                            if the client is no longer allowed to read the job."
            )
        )]
        pub enum GqlJob {
            $($(#[$doc])* $object($object),)+
        }

        /// The result for a job reference: the job, or the reason why there is none.
        #[derive(Clone, Debug, Union)]
        pub enum JobResult {
            $($(#[$doc])* $object($object),)+
            /// The reason why there is no job.
            JobProblem(JobProblem),
        }

        impl GqlJob {
            pub(super) fn new(seen: JobSnapshot) -> Self {
                match seen.observation.job.details {
                    $(Details::$details(_) => Self::$object($object(seen)),)+
                }
            }
        }

        impl Node {
            /// The object itself, not [`Node::Job`]: for that, the engine writes the name of the interface as `__typename`.
            pub(super) fn new(seen: JobSnapshot) -> Self {
                match GqlJob::new(seen) {
                    $(GqlJob::$object(job) => Self::$object(job),)+
                }
            }
        }

        impl From<GqlJob> for JobResult {
            fn from(job: GqlJob) -> Self {
                match job {
                    $(GqlJob::$object(job) => Self::$object(job),)+
                }
            }
        }

        impl WriteJson for Node {
            fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
                match self {
                    Self::Job(job) => job.write(of, out),
                    $(Self::$object(job) => job.write(of, out),)+
                }
            }
        }

        impl WriteJson for GqlJob {
            fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
                match self {
                    $(Self::$object(job) => job.write(of, out),)+
                }
            }
        }

        impl WriteJson for JobResult {
            fn write(&self, of: &SelectedField, out: &mut AnswerWriter<'_>) {
                match self {
                    $(Self::$object(job) => job.write(of, out),)+
                    Self::JobProblem(problem) => problem.write(of, out),
                }
            }
        }

        /// The object types of all upstreams.
        pub(super) fn objects() -> Vec<ObjectDescription> {
            [$($module::objects()),+].concat()
        }
    };
}

job_objects! {
    /// A job of MindBridge.
    MindBridgeJob: MindBridge, mindbridge;
    /// A job of Supermetrics.
    SupermetricsJob: Supermetrics, supermetrics;
}

impl JobResult {
    pub(super) fn new(reference: &RequestedRef, answer: LookupResult) -> Self {
        match answer {
            Ok(seen) => GqlJob::new(seen).into(),
            Err(problem) => Self::JobProblem(JobProblem::new(reference.clone(), problem)),
        }
    }
}
