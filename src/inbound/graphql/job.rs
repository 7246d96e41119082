//! The job interface: what can be said of a job whatever upstream it lives in.

use async_graphql::{Context, Enum, ID, Interface, SimpleObject, Union};

use crate::domain::details::Details;
use crate::domain::job;
use crate::domain::state;
use crate::jobs::Jobs;
use crate::jobs::access::JobRef;
use crate::jobs::answer::{Answer, Seen};

use super::mindbridge::MindBridgeJob;
use super::problem::{JobProblem, StaleReason};
use super::scalars::{DateTime, Text};
use super::source::Source;
use super::supermetrics::SupermetricsJob;

/// Where a job is in its life. A closed list: a word of the upstream's that is not known here is UNKNOWN, and stands
/// in `nativeState`.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "state::JobState")]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// Being worked on.
    Running,
    /// Ended well. Terminal.
    Succeeded,
    /// Ended, and did not do what was asked; `failure` says why. Terminal.
    Failed,
    /// Stopped by someone before its end. Terminal.
    Canceled,
    /// Seen before, now gone upstream, and no end was ever seen. Terminal.
    Expired,
    /// The upstream used a word that is not known here; see `nativeState`. Not terminal.
    Unknown,
}

/// Anything with an id.
#[derive(Clone, Debug, Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "An opaque id. Knowing it authorises nothing."))]
pub enum Node {
    /// A job of any upstream.
    Job(Job),
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
}

/// A job of any upstream, as it was last answered for.
#[derive(Clone, Debug, Interface)]
#[expect(clippy::duplicated_attributes, reason = "fields of the same type repeat it")]
#[graphql(
    field(name = "id", ty = "ID", desc = "An opaque id. Knowing it authorises nothing."),
    field(name = "source", ty = "Source", desc = "The source that knows the job."),
    field(name = "external_id", ty = "String", desc = "The upstream's own id, as in its API."),
    field(name = "state", ty = "JobState", desc = "Where the job is in its life."),
    field(name = "is_terminal", ty = "bool", desc = "Whether this run will not change any more."),
    field(
        name = "native_state",
        ty = "Option<Text>",
        desc = "The upstream's own word for its state, verbatim; a list that grows."
    ),
    field(name = "created_at", ty = "Option<DateTime>", desc = "When it was made, by the upstream's clock."),
    field(
        name = "updated_at",
        ty = "Option<DateTime>",
        desc = "When it changed last, by the upstream's clock."
    ),
    field(name = "finished_at", ty = "Option<DateTime>", desc = "When it ended, by the upstream's clock."),
    field(
        name = "first_seen_at",
        ty = "Option<DateTime>",
        desc = "When this gateway first saw this run, by its own clock; null when it is not known."
    ),
    field(
        name = "state_since",
        ty = "Option<DateTime>",
        desc = "When this gateway first saw the present state, by its own clock; null when it is not known."
    ),
    field(
        name = "terminal_seen_at",
        ty = "Option<DateTime>",
        desc = "When this gateway first saw this run in a terminal state, by its own clock; null until then."
    ),
    field(
        name = "progress",
        ty = "Option<JobProgress>",
        desc = "How far it is; null when the upstream does not say."
    ),
    field(name = "failure", ty = "Option<JobFailure>", desc = "Why it failed; null unless it did."),
    field(name = "freshness", ty = "Freshness", desc = "How fresh all of this is.")
)]
pub enum Job {
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
}

/// A job, or why it is not answered for.
#[derive(Clone, Debug, Union)]
pub enum JobResult {
    /// A job of MindBridge.
    MindBridgeJob(MindBridgeJob),
    /// A job of Supermetrics.
    SupermetricsJob(SupermetricsJob),
    /// Why it is not answered for.
    JobProblem(JobProblem),
}

/// Parts done and parts known of. The total may grow while the job runs, so this is no percentage.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct JobProgress {
    /// Parts done.
    completed: u32,
    /// Parts known of so far.
    total: u32,
}

/// Why a job failed, in the upstream's words.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobFailure {
    /// The upstream's code, where it gives one.
    code: Option<Text>,
    /// The upstream's message, where it gives one.
    message: Option<Text>,
}

/// How fresh an answer is.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct Freshness {
    /// When the upstream's answer was complete, by the gateway's clock.
    observed_at: DateTime,
    /// How long ago that was, in milliseconds.
    age_ms: i32,
    /// Whether it is older than asked for. A terminal job never is.
    is_stale: bool,
    /// Why it is older than asked for.
    stale_reason: Option<StaleReason>,
    /// When the gateway will look again by itself; null when nobody follows the job.
    next_poll_at: Option<DateTime>,
}

impl Job {
    pub(super) fn new(seen: Seen) -> Self {
        match seen.observation.job.details {
            Details::MindBridge(_) => Self::MindBridgeJob(MindBridgeJob(seen)),
            Details::Supermetrics(_) => Self::SupermetricsJob(SupermetricsJob(seen)),
        }
    }
}

impl JobResult {
    pub(super) fn new(reference: JobRef, answer: Answer) -> Self {
        match answer.map(Job::new) {
            Ok(Job::MindBridgeJob(job)) => Self::MindBridgeJob(job),
            Ok(Job::SupermetricsJob(job)) => Self::SupermetricsJob(job),
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

impl From<&Seen> for Freshness {
    fn from(seen: &Seen) -> Self {
        Self {
            observed_at: DateTime(seen.observed_at),
            age_ms: i32::try_from(seen.age.as_millis()).unwrap_or(i32::MAX),
            is_stale: seen.stale.is_some(),
            stale_reason: seen.stale.map(StaleReason::from),
            next_poll_at: seen.next_look.map(DateTime),
        }
    }
}

/// The source of a job. The job was answered for, so its source may be read.
pub(super) fn source_of(ctx: &Context<'_>, seen: &Seen) -> async_graphql::Result<Source> {
    let name = &seen.observation.job.key.source;
    let status = ctx.data::<Jobs>()?.source(ctx.data()?, name);
    status.map(Source::from).ok_or_else(|| async_graphql::Error::new("the source of this job is gone"))
}

/// Writes an object of the schema over a [`Seen`]: the fields of the `Job` interface, and those of its own.
macro_rules! job_object {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(super) $crate::jobs::answer::Seen);

        $(#[$doc])*
        #[async_graphql::Object]
        impl $name {
            /// An opaque id. Knowing it authorises nothing.
            pub async fn id(&self) -> async_graphql::ID {
                async_graphql::ID(self.job().key.node_id())
            }

            /// The source that knows the job.
            pub async fn source(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> async_graphql::Result<$crate::inbound::graphql::source::Source> {
                $crate::inbound::graphql::job::source_of(ctx, &self.0)
            }

            /// The upstream's own id, as in its API.
            pub async fn external_id(&self) -> String {
                self.job().key.external_id.as_str().to_owned()
            }

            /// Where the job is in its life.
            pub async fn state(&self) -> $crate::inbound::graphql::job::JobState {
                self.job().state().into()
            }

            /// Whether this run will not change any more.
            pub async fn is_terminal(&self) -> bool {
                self.job().is_terminal()
            }

            /// The upstream's own word for its state, verbatim; a list that grows.
            pub async fn native_state(&self) -> Option<$crate::inbound::graphql::scalars::Text> {
                self.job().native_state.clone().map(Into::into)
            }

            /// When it was made, by the upstream's clock.
            pub async fn created_at(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.job().created_at.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// When it changed last, by the upstream's clock.
            pub async fn updated_at(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.job().updated_at.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// When it ended, by the upstream's clock.
            pub async fn finished_at(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.job().finished_at.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// When this gateway first saw this run, by its own clock; null when it is not known.
            pub async fn first_seen_at(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.0.sightings.first_seen_at.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// When this gateway first saw the present state, by its own clock; null when it is not known.
            pub async fn state_since(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.0.sightings.state_since.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// When this gateway first saw this run in a terminal state, by its own clock; null until then.
            pub async fn terminal_seen_at(&self) -> Option<$crate::inbound::graphql::scalars::DateTime> {
                self.0.sightings.terminal_seen_at.map($crate::inbound::graphql::scalars::DateTime)
            }

            /// How far it is; null when the upstream does not say.
            pub async fn progress(&self) -> Option<$crate::inbound::graphql::job::JobProgress> {
                self.job().progress.map(Into::into)
            }

            /// Why it failed; null unless it did.
            pub async fn failure(&self) -> Option<$crate::inbound::graphql::job::JobFailure> {
                self.job().failure().map(Into::into)
            }

            /// How fresh all of this is.
            pub async fn freshness(&self) -> $crate::inbound::graphql::job::Freshness {
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
