//! Why a call to an upstream has no usable response, as a use case distinguishes it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

/// Why a fetch failed: exactly the cases that a use case treats differently.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The upstream knows no such job now; it cannot distinguish "expired" from "never existed".
    #[error("the upstream does not know the job")]
    NotFound,
    /// The upstream rejects the credential.
    #[error("the upstream rejects the credential")]
    CredentialRejected,
    /// There is no credential to send.
    #[error("no credential is configured")]
    Unconfigured,
    /// The source must not be called before this much time has passed.
    #[error("the source is rate-limited or paused for another {} s", retry_after.as_secs())]
    Throttled {
        /// The remaining time of the pause.
        retry_after: Duration,
    },
    /// It did not respond, or responded with an error of its own; the circuit breaker may be open.
    #[error("the upstream is unavailable")]
    Unavailable(#[source] Detail),
    /// It did not respond in time.
    #[error("the upstream did not respond in time")]
    TimedOut,
    /// Its response is not valid.
    #[error("the upstream's response is not valid")]
    BadAnswer(#[source] Detail),
    /// It reports a lower version of the job than before. No adapter returns this: it takes the earlier observation to
    /// detect it.
    #[error("the upstream reports a lower version of the job than before")]
    ConflictingVersion,
}

impl FetchError {
    /// The name of the error, from a closed list: for spans and labels.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::CredentialRejected => "credential_rejected",
            Self::Unconfigured => "unconfigured",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::BadAnswer(_) => "bad_answer",
            Self::ConflictingVersion => "conflicting_version",
        }
    }
}

/// The error text of an adapter for the log, without secrets and URLs. Not for clients.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Detail {
    /// One line in our words.
    pub text: String,
    /// The underlying error, already stripped.
    #[source]
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Detail {
    /// A detail without an underlying error.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }
}
