//! Why a call has no complete response. No error contains a URL or a secret.

use std::error::Error as StdError;
use std::time::Duration;

use super::reply::UpstreamReply;

/// Why there is no complete response. Never contains a URL or a secret.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: DNS or network, or it took longer than [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT).
    #[error("could not connect")]
    Connect(#[source] RedactedError),
    /// No connection, because of TLS: most often a certificate that is not trusted here.
    #[error("could not connect, because of TLS")]
    Tls(#[source] RedactedError),
    /// Headers and body were not complete within the call's timeout.
    #[error("no complete answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The decoded body is larger than the call's cap; reading stopped there.
    #[error("the decoded body is larger than {cap} bytes")]
    TooLarge {
        /// The cap.
        cap: usize,
        /// The response with the head of its body, at most as long as the cap.
        head: Box<UpstreamReply>,
    },
    /// The connection broke, the body was cut short, or its encoding is invalid.
    #[error("the answer broke off")]
    Broken(#[source] RedactedError),
    /// Nothing was sent: this call cannot carry the credential.
    #[error("the credential cannot be sent: {0}")]
    Unsendable(&'static str),
    /// Nothing was sent: the files of the proxy and TLS configuration cannot be used.
    #[error("no call can leave")]
    Egress(#[source] EgressError),
    /// Nothing was sent: a path segment would not stay one segment.
    #[error("a path segment would leave its place in the url")]
    Path,
}

impl SendError {
    /// A label from a closed list.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "connect",
            Self::TimedOut(_) => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::Broken(_) => "incomplete_response",
            Self::Egress(_) => "egress_error",
            Self::Unsendable(_) | Self::Path => "invalid_request",
        }
    }

    /// The error and its sources, as one line.
    pub(in crate::outbound) fn full_text(&self) -> String {
        chain(self)
    }
}

/// The chain of an underlying error, as text without the URL and without the secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RedactedError(pub(super) String);

/// Why no client can be built: the option or variable, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {message}")]
pub struct EgressError {
    /// The option of the source, or the variable.
    pub option: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// An error and its sources, as one line.
pub(in crate::outbound) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text.push_str(": ");
        text.push_str(&error.to_string());
        below = error.source();
    }
    text
}
