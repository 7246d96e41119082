//! The status of a source: one account of one upstream API.

use jiff::Timestamp;

use super::id::SourceName;
use super::upstream::Upstream;

/// The health of a source, according to its last calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceHealth {
    /// Its last call was answered.
    Healthy,
    /// No call was made yet.
    Untried,
    /// It requested a pause, or its budget is used up.
    Throttled,
    /// It responds, and the responses are not valid.
    Degraded,
    /// Its last calls failed.
    Unavailable,
    /// It rejects the credential.
    CredentialRejected,
    /// Its credential could not be read, so no call is made.
    Unconfigured,
}

/// Why a call returned no usable response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// No connection: DNS or network.
    Connect,
    /// No connection, because of TLS.
    Tls,
    /// No complete response in time.
    TimedOut,
    /// The connection was closed before the response was complete.
    Broken,
    /// It responded with an error of its own.
    ServerError,
    /// It responded with a redirect.
    Redirect,
    /// The response is not from the API but, for example, a page of a proxy.
    ForeignAnswer,
    /// The response cannot be parsed.
    BadAnswer,
    /// The response is larger than the limit.
    TooLarge,
    /// It rejects the credential.
    CredentialRejected,
    /// It rejects this call.
    Refused,
    /// It requested a pause.
    Throttled,
    /// The call cannot be made with the configured options.
    Unsendable,
}

impl SourceErrorKind {
    /// The name in the log and on the status page.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::ServerError => "server_error",
            Self::Redirect => "redirect",
            Self::ForeignAnswer => "foreign_answer",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::CredentialRejected => "credential_rejected",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Unsendable => "unsendable",
        }
    }
}

/// The last call of a source without a usable response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// When it was made.
    pub at: Timestamp,
    /// The kind of the error.
    pub kind: SourceErrorKind,
    /// One bounded line without secrets: the error, and the upstream's message.
    pub message: String,
}

/// The budget of a source, and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUse {
    /// Calls per second, as configured.
    pub per_second: u32,
    /// Calls per hour, as configured.
    pub per_hour: u32,
    /// Concurrent calls, as configured.
    pub concurrency: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls that could start now before the hourly limit is reached.
    pub left_this_hour: u32,
}

/// The state of a source's credential. A newly read credential is verified before it becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialState {
    /// The newest value is active.
    Active,
    /// The source rejects the active credential.
    Refused,
    /// There is no credential that could be sent.
    Missing,
    /// A newer one was read and is not verified yet; the previous one stays active.
    PendingVerification,
    /// The source rejects a newer one; the previous one stays active.
    PendingRejected,
    /// The newly read value is not a valid secret, or cannot be read; the previous one stays active.
    PendingInvalid,
}

/// The credential of a source at one moment. Contains nothing of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialStatus {
    /// The state.
    pub state: CredentialState,
    /// Since when it has been in this state.
    pub since: Option<Timestamp>,
    /// When this gateway activated the active one; its age is counted from here.
    pub active_since: Option<Timestamp>,
    /// When the active one expires, according to itself or the configuration.
    pub expires_at: Option<Timestamp>,
}

/// The status of a source at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Its kind.
    pub upstream: Upstream,
    /// Its health.
    pub health: SourceHealth,
    /// The status of its credential.
    pub credential: CredentialStatus,
    /// Its budget.
    pub budget: BudgetUse,
    /// No call is made before this time.
    pub throttled_until: Option<Timestamp>,
    /// Its circuit breaker is open.
    pub breaker_open: bool,
    /// The last call without a usable response; it may be long ago.
    pub last_error: Option<SourceError>,
}
