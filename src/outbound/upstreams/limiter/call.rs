//! One call as the limiter sees it: its credential, why it is rejected, and its outcome.

use std::time::Duration;

use crate::telemetry::meters;

/// Why a call is rejected now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterRefusal {
    /// The source requested a pause, or its budget is used up; retry after this time.
    Throttled(Duration),
    /// The source rejected the credential recently.
    Rejected,
    /// The circuit breaker is open; retry after this time.
    Broken(Duration),
}

impl From<&LimiterRefusal> for meters::CallRejection {
    fn from(refusal: &LimiterRefusal) -> Self {
        match refusal {
            LimiterRefusal::Throttled(_) => Self::Throttled,
            LimiterRefusal::Rejected => Self::Rejected,
            LimiterRefusal::Broken(_) => Self::Broken,
        }
    }
}

/// The outcome of a call, as far as it concerns the limiter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CallOutcome {
    /// No evidence about the source, such as for a call that was dropped.
    #[default]
    Unknown,
    /// The upstream responded, with any content.
    Answered,
    /// The upstream did not respond, or with a server error. Contains a random number from 0 to 1, for the breaker.
    Failed(f64),
    /// The upstream requested a pause.
    Throttled(Duration),
    /// The upstream rejected the credential.
    Rejected,
}

/// The credential of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialChoice {
    Active,
    Another,
}

/// What depends on a call besides its own response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// It is the single probe of the circuit breaker.
    pub(super) breaker: bool,
    /// It is the single probe after the credential was rejected.
    pub(super) credential: bool,
}
