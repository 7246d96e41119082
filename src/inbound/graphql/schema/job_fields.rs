//! The types of the fields that the jobs of all upstreams have.

use async_graphql::{Context, Enum};

use crate::domain::history;
use crate::domain::job;
use crate::domain::state;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::{JobEstimate, Jobs};

use crate::inbound::graphql::plan::output::{output_enum, output_object, selects_only};
use crate::inbound::graphql::plan::selection::SelectedField;
use crate::inbound::graphql::plan::writer::{AnswerWriter, WriteJson as _};

use super::problem::GqlStaleReason;
use super::scalars::{DateTime, UpstreamText};
use super::source::{ConstantSource, GqlSource};
use super::viewer::GqlViewerGrant;

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

output_enum!(GqlJobState);

output_object! {
    /// The progress of a job, as a number of parts; for Supermetrics, the sub-queries of the query. It cannot be shown as a
    /// percentage, because the total can grow.
    #[derive(Clone, Copy, Debug)]
    pub struct JobProgress = "JobProgress" {
        /// The number of completed parts.
        Free completed: u32,
        /// The number of known parts. Can grow while the job runs.
        Free total: u32,
    }
}

output_object! {
    /// The failure of a job, as the upstream reports it.
    #[derive(Clone, Debug)]
    pub struct JobFailure = "JobFailure" {
        /// The upstream's error code, verbatim. Not from a fixed list. Null if the upstream reports none.
        Free code: Option<UpstreamText>,
        /// The upstream's error message, for display. For MindBridge, it can be a combination of `error` and `errorMessage`.
        /// Null if the upstream reports none.
        Free message: Option<UpstreamText>,
    }
}

output_object! {
    /// A change of the state or of the native state of a job, or its first observation.
    #[derive(Clone, Debug)]
    pub struct JobTransition = "JobTransition" {
        /// The state from then on.
        Free state: GqlJobState,
        /// The state as the upstream reported it, cut to 100 bytes. Null if the upstream reported none.
        Free native_state: Option<UpstreamText>,
        /// The date and time when the gateway first observed the state, by the gateway's clock.
        Free observed_at: DateTime,
        /// The date and time when the job was last updated, by the upstream's clock, in the response that first had the
        /// state. Null if the upstream did not report it, or reported the same time as before.
        Free upstream_at: Option<DateTime>,
    }
}

output_object! {
    /// When a job is expected to finish, by how long completed jobs of its kind took, given how long it has taken already.
    #[derive(Clone, Copy, Debug)]
    pub struct GqlEstimate = "JobEstimate" {
        /// The median: half of the jobs that took as long finished before.
        Free expected_finish_at: DateTime,
        /// One in ten of the jobs that took as long finished before.
        Free earliest: DateTime,
        /// Nine in ten of the jobs that took as long finished before.
        Free latest: DateTime,
        /// The number of completed jobs that took as long, of at most the last 256.
        Free sample_size: u32,
    }
}

output_object! {
    /// When this job was last observed, and whether that is older than requested.
    #[derive(Clone, Copy, Debug)]
    pub struct GqlFreshness = "Freshness" {
        /// The date and time when the gateway received the upstream's response, by the gateway's clock.
        Free observed_at: DateTime,
        /// The time since `observedAt`, in milliseconds. At most 2147483647.
        Free age_ms: i32,
        /// Whether the result is older than requested. A terminal job is never stale.
        Free is_stale: bool,
        /// The reason why the result is stale. Null if it is not stale.
        Free stale_reason: Option<GqlStaleReason>,
        /// The date and time of the next scheduled poll. Null if no poll is scheduled. Always null in `jobFeed`.
        Free next_poll_at: Option<DateTime>,
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

impl From<history::Transition> for JobTransition {
    fn from(transition: history::Transition) -> Self {
        let history::Transition { state, native_state, observed_at, upstream_at } = transition;
        Self {
            state: state.into(),
            native_state: native_state.map(|native| native.to_string().into()),
            observed_at: DateTime(observed_at),
            upstream_at: upstream_at.map(DateTime),
        }
    }
}

impl From<JobEstimate> for GqlEstimate {
    fn from(estimate: JobEstimate) -> Self {
        let JobEstimate { expected_finish_at, earliest, latest, sample_size } = estimate;
        Self {
            expected_finish_at: DateTime(expected_finish_at),
            earliest: DateTime(earliest),
            latest: DateTime(latest),
            sample_size,
        }
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

/// Why a job has no source.
pub(in crate::inbound::graphql) const SOURCE_REMOVED: &str = "the source of this job is no longer configured";

/// The source of a job. The client may read the job, so it may read the source.
pub(super) fn source_of(ctx: &Context<'_>, seen: &JobSnapshot) -> async_graphql::Result<GqlSource> {
    let name = &seen.observation.job.key.source;
    let status = ctx.data::<Jobs>()?.source(ctx.data()?, name);
    status.map(GqlSource::from).ok_or_else(|| async_graphql::Error::new(SOURCE_REMOVED))
}

/// The estimate of a job.
pub(super) fn estimate_of(
    ctx: &Context<'_>,
    seen: &JobSnapshot,
) -> async_graphql::Result<Option<GqlEstimate>> {
    Ok(ctx.data::<Jobs>()?.estimate(seen).map(GqlEstimate::from))
}

/// Writes the estimate of a job.
pub(super) fn write_estimate(seen: &JobSnapshot, of: &SelectedField, out: &mut AnswerWriter<'_>) {
    out.estimate(seen).map(GqlEstimate::from).write(of, out);
}

/// The grant of the client that shows a job to it.
pub(super) fn viewer_grant_of(
    ctx: &Context<'_>,
    seen: &JobSnapshot,
) -> async_graphql::Result<Option<GqlViewerGrant>> {
    Ok(ctx.data::<Jobs>()?.viewer_grant(ctx.data()?, seen).map(GqlViewerGrant::from))
}

/// Writes the grant of the client that shows a job to it.
pub(super) fn write_viewer_grant(seen: &JobSnapshot, of: &SelectedField, out: &mut AnswerWriter<'_>) {
    out.viewer_grant(seen).map(GqlViewerGrant::from).write(of, out);
}

/// Writes the source of a job; the engine reports one that is no longer configured. Its state is read only for a field
/// that shows it.
pub(super) fn write_source(seen: &JobSnapshot, of: &SelectedField, out: &mut AnswerWriter<'_>) {
    let name = &seen.observation.job.key.source;
    if selects_only::<GqlSource, ConstantSource>(&of.below) {
        match out.upstream_of(name) {
            Some(upstream) => ConstantSource::new(name, upstream).write(of, out),
            None => out.leave_to_engine(),
        }
        return;
    }
    match out.source(name) {
        Some(view) => GqlSource::from(view).write(of, out),
        None => out.leave_to_engine(),
    }
}
