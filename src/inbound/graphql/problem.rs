//! Expected trouble as data: why a job is not answered for, and why an answer is older than asked for.

use async_graphql::{Enum, Error, ErrorExtensions as _, ID, SimpleObject};

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::jobs::access::JobRef;
use crate::jobs::answer;
use crate::telemetry::meters;

/// Why a job is not answered for.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "ProblemCode")]
pub enum JobProblemCode {
    /// No such job, no such source, or none that you may read: the three look the same.
    NotFound,
    /// It was there, and the upstream no longer keeps it.
    Expired,
    /// The reference itself is malformed; nothing was asked.
    InvalidRef,
    /// The source must not be asked now. Ask again after `retryAfterMs`.
    Throttled,
    /// The source did not answer, or answered with an error of its own.
    Unavailable,
    /// The answer did not come in time.
    TimedOut,
    /// The source refuses the credential that the gateway holds for it. Its operator must renew it.
    CredentialRejected,
    /// The source has no usable credential on the gateway. Its operator must set one.
    Unconfigured,
    /// The source's answer could not be understood.
    BadAnswer,
    /// It was followed for as long as the gateway follows a job, and no end was seen. Ask again to go on.
    FollowLimit,
    /// A fault of the gateway.
    Internal,
}

/// Why an answer is older than asked for.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "answer::StaleReason")]
pub enum StaleReason {
    /// The source must not be asked now.
    Throttled,
    /// The source did not answer, or answered with an error of its own.
    Unavailable,
    /// The answer did not come in time.
    TimedOut,
    /// The source refuses the credential that the gateway holds for it.
    CredentialRejected,
    /// The source has no usable credential on the gateway.
    Unconfigured,
    /// The source's answer could not be understood.
    BadAnswer,
    /// The source reports a lower version of the job than before, as after a restored backup. The higher version is shown
    /// until the source has repeated the lower one for long enough.
    ConflictingVersion,
    /// A fault of the gateway.
    Internal,
    /// Nobody was asked: a list shows what is held.
    NotAsked,
}

/// A job that is not answered for, and why. An answer like any other: the rest of the document is not affected.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobProblem {
    /// The reference as you wrote it.
    #[graphql(name = "ref")]
    reference: ProblemRef,
    /// Why.
    code: JobProblemCode,
    /// The same for people, with what to do about it.
    message: String,
    /// Whether asking again can help.
    retryable: bool,
    /// How long to wait before asking again, in milliseconds, where that is known.
    retry_after_ms: Option<i32>,
}

/// A reference as you wrote it: either `id`, or `source` with `externalId`.
#[derive(Clone, Debug, Default, SimpleObject)]
pub struct ProblemRef {
    /// The opaque id.
    id: Option<ID>,
    /// The name of the source.
    source: Option<String>,
    /// The upstream's own id.
    external_id: Option<String>,
}

impl From<JobRef> for ProblemRef {
    fn from(reference: JobRef) -> Self {
        match reference {
            JobRef::Id(id) => Self { id: Some(ID(id)), ..Self::default() },
            JobRef::External { source, external_id } => {
                Self { id: None, source: Some(source), external_id: Some(external_id) }
            }
        }
    }
}

impl JobProblem {
    /// The problem of one reference.
    pub fn new(reference: JobRef, problem: Problem) -> Self {
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

/// The milliseconds of a retry, capped at what an `Int` holds (24 days).
fn retry_after_ms(retry: Retry) -> Option<i32> {
    match retry {
        Retry::After(wait) => Some(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)),
        Retry::Never | Retry::Whenever => None,
    }
}

/// A problem where the schema has no place for one: an entry of `errors`.
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
