//! How an adapter classifies a reply, and what it gets for a call.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::outbound::http::UpstreamReply;
use crate::outbound::upstreams::limiter::LimiterRefusal;
use crate::ports::upstream::{Detail, FetchError};

/// How an adapter classifies a reply.
#[derive(Debug)]
pub(crate) enum ReplyVerdict<T> {
    /// The upstream gave a definite answer; a retry would return the same.
    Spoke(Result<T, FetchError>),
    /// The upstream, or an intermediary, refuses this kind of call. That is no evidence about the source or its other
    /// answers.
    Refused(T),
    /// It rejects the credential, for every call.
    Rejected,
    /// It requests a pause, for every call.
    Throttled(Duration),
    /// It reports an error of its own; a retry may help.
    Sick(Detail),
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The response was larger than the call's cap. Contains its head, which may be sufficient.
    TooLarge {
        /// The cap.
        cap: usize,
        /// The response with the head of its body.
        head: Box<UpstreamReply>,
    },
    /// Any other reason.
    Fetch(FetchError),
}

impl From<CallError> for FetchError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::TooLarge { cap, head: _ } => {
                Self::BadAnswer(Detail::new(format!("the response exceeds {cap} bytes")))
            }
            CallError::Fetch(error) => error,
        }
    }
}

impl From<LimiterRefusal> for FetchError {
    fn from(refusal: LimiterRefusal) -> Self {
        match refusal {
            LimiterRefusal::Throttled(retry_after) => Self::Throttled { retry_after },
            LimiterRefusal::Rejected => Self::CredentialRejected,
            LimiterRefusal::Broken(wait) => Self::Unavailable(Detail::new(format!(
                "circuit breaker open; no calls for {} ms",
                wait.as_millis()
            ))),
        }
    }
}

/// The outcome of a call, and the times before and after it.
#[derive(Debug)]
pub(crate) struct Response<T> {
    /// When the last try was sent; if none was, when the call was abandoned.
    pub(crate) requested_at: Timestamp,
    /// The same for comparisons within this process.
    pub(crate) sent: Instant,
    /// When the response was complete, or the call was abandoned.
    pub(crate) observed_at: Timestamp,
    /// The outcome.
    pub(crate) outcome: Result<T, CallError>,
}
