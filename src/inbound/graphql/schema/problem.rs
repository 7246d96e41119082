//! Expected errors as data: why there is no job, and why a result is stale.

use async_graphql::{Enum, Error, ErrorExtensions as _, ID};

use crate::inbound::graphql::plan::output::{output_enum, output_object};

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::jobs::answer;
use crate::jobs::visibility::{RequestedRef, WrittenRef};
use crate::telemetry::meters;

/// The reasons why there is no job for a reference, or why rows of a job are missing.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "ProblemCode")]
pub enum JobProblemCode {
    /// The job or the source does not exist, or the client is not allowed to read it. The cases cannot be distinguished.
    NotFound,
    /// The upstream no longer keeps the rows of the job. Only in `RowConnection.problem`; an expired job is returned with
    /// `state: EXPIRED`.
    Expired,
    /// The reference is malformed. No upstream call was made.
    InvalidRef,
    /// The source is rate-limited or paused. Retry after `retryAfterMs`.
    Throttled,
    /// The source cannot be reached, or responded with a server error.
    Unavailable,
    /// The source did not respond in time.
    TimedOut,
    /// The source rejects the gateway's credential. The operator of the gateway must renew it.
    CredentialRejected,
    /// The gateway has no valid credential for the source. The operator of the gateway must set one.
    Unconfigured,
    /// The response of the source is not valid, or has fewer rows than the source reports.
    BadAnswer,
    /// The job was polled for the maximum duration without reaching a terminal state. Query or subscribe again to
    /// continue.
    FollowLimit,
    /// An internal error of the gateway.
    Internal,
}

/// The reasons why a result is stale.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "StaleReason", remote = "answer::StaleReason")]
pub enum GqlStaleReason {
    /// The source is rate-limited or paused.
    Throttled,
    /// The source cannot be reached, or responded with a server error.
    Unavailable,
    /// The source did not respond in time.
    TimedOut,
    /// The source rejects the gateway's credential.
    CredentialRejected,
    /// The gateway has no valid credential for the source.
    Unconfigured,
    /// The response of the source is not valid, or the source does not find a job that it reported before.
    BadAnswer,
    /// The source reports a lower version of the job than before, for example after a restored backup. The higher version is
    /// returned until the source has reported the lower version for the configured time.
    ConflictingVersion,
    /// An internal error of the gateway.
    Internal,
    /// The result was read from the store without a request to the source, as in `jobList`, and the gateway
    /// does not follow the job.
    #[graphql(name = "NOT_REFRESHED")]
    NotRefreshed,
}

output_enum!(JobProblemCode, GqlStaleReason);

output_object! {
    /// The reason why there is no job for a reference, or why rows of a job are missing. Other results of the same request
    /// are not affected.
    #[derive(Clone, Debug)]
    pub struct JobProblem = "JobProblem" {
        /// The reference, as the client sent it; for rows, the node ID of the job.
        Free reference as "ref": GqlProblemRef,
        /// The machine-readable reason.
        Free code: JobProblemCode,
        /// The human-readable reason, with what to do about it. Can change; do not parse.
        Free message: String,
        /// Whether the same request can succeed later.
        Free retryable: bool,
        /// The time to wait before a retry, in milliseconds. At most 2147483647. Null if unknown, or if the request
        /// is not retryable.
        Free retry_after_ms: Option<i32>,
    }
}

output_object! {
    /// The reference of a job, as the client sent it; for rows, the node ID of the job. Either `id`, or `source` and
    /// `externalId` are set.
    #[derive(Clone, Debug, Default)]
    pub struct GqlProblemRef = "ProblemRef" {
        /// The global node ID. Null if the reference is external.
        Free id: Option<ID>,
        /// The name of the source. Null if the reference is a node ID.
        Free source: Option<String>,
        /// The ID in the upstream's API. Null if the reference is a node ID.
        Free external_id: Option<String>,
    }
}

impl From<RequestedRef> for GqlProblemRef {
    fn from(reference: RequestedRef) -> Self {
        match reference.into_written() {
            WrittenRef::Id(id) => Self { id: Some(ID(id)), ..Self::default() },
            WrittenRef::External { source, external_id } => {
                Self { id: None, source: Some(source), external_id: Some(external_id) }
            }
        }
    }
}

impl JobProblem {
    /// The problem of one reference.
    pub fn new(reference: RequestedRef, problem: Problem) -> Self {
        meters::job_problem(problem.code);
        Self {
            reference: reference.into(),
            code: problem.code.into(),
            retryable: problem.retry != Retry::Never,
            retry_after_ms: retry_after_ms(problem.retry),
            message: problem.message,
        }
    }
}

/// The retry delay in milliseconds, capped at the maximum of an `Int` (24 days).
fn retry_after_ms(retry: Retry) -> Option<i32> {
    match retry {
        Retry::After(wait) => Some(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)),
        Retry::Never | Retry::Whenever => None,
    }
}

/// A problem as an entry of `errors`, where the schema has no field for one.
pub(super) fn as_error(problem: &Problem) -> Error {
    meters::error(problem.code.name());
    Error::new(&problem.message).extend_with(|_, extensions| {
        extensions.set("code", problem.code.name());
        if let Some(wait) = retry_after_ms(problem.retry) {
            extensions.set("retryAfterMs", wait);
        }
    })
}

/// An argument that is out of its bounds.
pub(super) fn bad_input(message: impl Into<String>) -> Error {
    meters::error("BAD_USER_INPUT");
    Error::new(message).extend_with(|_, extensions| extensions.set("code", "BAD_USER_INPUT"))
}
