//! Why no job is returned for a reference: one closed list of codes, and one struct with independent fields.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

/// The expected reasons why no job is returned. Closed: schema, HTTP status and log level depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// No such job, no such source, or none that this client may read: the three are not distinguishable.
    NotFound,
    /// It existed, and the upstream no longer keeps it.
    Expired,
    /// The reference itself is malformed; no call was made.
    InvalidRef,
    /// The source must not be called now.
    Throttled,
    /// The source did not respond, or responded with an error of its own.
    Unavailable,
    /// The response did not arrive in time.
    TimedOut,
    /// The source rejects the credential that the gateway sends.
    CredentialRejected,
    /// The gateway has no usable credential for the source.
    Unconfigured,
    /// The response of the source is not valid.
    BadAnswer,
    /// It was followed for the maximum duration without reaching a terminal state.
    FollowLimit,
    /// An internal error of the gateway.
    Internal,
}

impl ProblemCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::NotFound,
        Self::Expired,
        Self::InvalidRef,
        Self::Throttled,
        Self::Unavailable,
        Self::TimedOut,
        Self::CredentialRejected,
        Self::Unconfigured,
        Self::BadAnswer,
        Self::FollowLimit,
        Self::Internal,
    ];

    /// The name in the schema, in logs and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::Expired => "EXPIRED",
            Self::InvalidRef => "INVALID_REF",
            Self::Throttled => "THROTTLED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TimedOut => "TIMED_OUT",
            Self::CredentialRejected => "CREDENTIAL_REJECTED",
            Self::Unconfigured => "UNCONFIGURED",
            Self::BadAnswer => "BAD_ANSWER",
            Self::FollowLimit => "FOLLOW_LIMIT",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot help.
    Never,
    /// It can help, after this long.
    After(Duration),
    /// It can help, at any time.
    Whenever,
}

/// Why no job is returned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The public code.
    pub code: ProblemCode,
    /// Whether a retry can help.
    pub retry: Retry,
    /// The message for the client: our words and its own input, nothing of the upstream's.
    pub message: String,
    /// The underlying error, for the log.
    #[source]
    pub cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// A problem without an underlying error.
    pub fn new(code: ProblemCode, retry: Retry, message: impl Into<String>) -> Self {
        Self { code, retry, message: message.into(), cause: None }
    }

    /// The same, with an underlying error for the log.
    #[must_use]
    pub fn because(self, cause: impl StdError + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }
}
