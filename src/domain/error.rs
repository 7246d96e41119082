//! Why a job cannot be answered for: one closed list, and one struct on separate axes.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

/// The expected reasons for which a job is not answered for. Closed: schema, HTTP status and log level follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// No such job, no such source, or none that this client may read: the three look the same.
    NotFound,
    /// It was there, and the upstream no longer keeps it.
    Expired,
    /// The reference itself is malformed; nothing was asked.
    InvalidRef,
    /// The source must not be asked now.
    Throttled,
    /// The source did not answer, or answered with an error of its own.
    Unavailable,
    /// The answer did not come in time.
    TimedOut,
    /// The source refuses the credential that this gateway holds for it.
    CredentialRejected,
    /// The source has no usable credential here.
    Unconfigured,
    /// The source's answer could not be understood.
    BadAnswer,
    /// It was followed for as long as the gateway follows a job, and no end was seen.
    FollowLimit,
    /// A fault of this gateway.
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

/// Whether asking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It cannot.
    Never,
    /// It can, after this long.
    After(Duration),
    /// It can, at any time.
    Whenever,
}

/// Why a job is not answered for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The public code.
    pub code: ProblemCode,
    /// Whether asking again can help.
    pub retry: Retry,
    /// What the client reads: our words and its own input, nothing of the upstream's.
    pub message: String,
    /// What the log reads beside it.
    #[source]
    pub cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// A problem without a deeper cause.
    pub fn new(code: ProblemCode, retry: Retry, message: impl Into<String>) -> Self {
        Self { code, retry, message: message.into(), cause: None }
    }

    /// The same, with what the log should read beside it.
    #[must_use]
    pub fn because(self, cause: impl StdError + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }
}
