//! A source as clients see it: how it is doing, never its address or its credential.

use async_graphql::{Enum, SimpleObject};

use crate::domain::source::{self, BudgetUse, CredentialStatus};
use crate::jobs::SourceView;

use super::scalars::DateTime;

/// A kind of API that the gateway calls.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "source::Upstream")]
pub enum Upstream {
    /// MindBridge async results.
    #[graphql(name = "MINDBRIDGE")]
    MindBridge,
    /// Supermetrics query status.
    Supermetrics,
}

/// How a source is doing, as far as its last calls tell.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "source::SourceHealth")]
pub enum SourceHealth {
    /// Its last call was answered.
    Healthy,
    /// Nothing was asked yet.
    Untried,
    /// It asked the gateway to wait, or its budget is used up.
    Throttled,
    /// It answers, and its answers cannot be used: they do not come from the API, or cannot be understood.
    Degraded,
    /// Its last calls failed.
    Unavailable,
    /// It refuses the gateway's credential.
    CredentialRejected,
    /// Its credential could not be read, so nothing is asked.
    Unconfigured,
}

/// Why a call to a source brought no usable answer.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "source::SourceErrorKind")]
pub enum SourceErrorKind {
    /// No connection: the name cannot be resolved, or nothing answers at the address.
    Connect,
    /// No connection, because of TLS, such as a certificate that is not trusted.
    Tls,
    /// No complete answer in time.
    TimedOut,
    /// The connection broke before the answer was complete.
    Broken,
    /// An error of the source's own.
    ServerError,
    /// A redirect, which is not followed.
    Redirect,
    /// An answer of something other than the API, such as a proxy's page.
    ForeignAnswer,
    /// An answer that cannot be understood.
    BadAnswer,
    /// An answer that is larger than the gateway reads.
    TooLarge,
    /// The source rejects the gateway's credential.
    CredentialRejected,
    /// The source refuses one call, and goes on with others.
    Refused,
    /// The source asked for a pause.
    Throttled,
    /// The call cannot be made from what is configured.
    Unsendable,
}

/// The last call to a source that brought no usable answer.
#[derive(Clone, Debug, SimpleObject)]
pub struct SourceError {
    /// When it happened.
    at: DateTime,
    /// Why there was no usable answer.
    kind: SourceErrorKind,
    /// What was wrong, and what the source said, in one line without secrets.
    message: String,
}

/// How the gateway's credential for a source stands. A new value is tried before it comes into force.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(remote = "source::CredentialState")]
pub enum CredentialState {
    /// The newest value is in force.
    InForce,
    /// The source refuses the one in force. It is tried again every 30 seconds, and a newer one at once.
    Refused,
    /// There is none that could be sent.
    Missing,
    /// A newer one was read, and the source has not yet said whether it takes it. The one before stays in force.
    NewOneUntried,
    /// The source refuses a newer one. The one before stays in force.
    NewOneRefused,
    /// What was read newly cannot be a secret, or cannot be read. The one before stays in force.
    NewOneUnusable,
}

/// The gateway's credential for a source; nothing of the secret itself.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct SourceCredential {
    /// How it stands.
    state: CredentialState,
    /// Since when it stands so.
    since: Option<DateTime>,
    /// Since when the one in force is.
    in_force_since: Option<DateTime>,
    /// When the one in force ends, as far as that is known.
    expires_at: Option<DateTime>,
}

/// One configured account of an upstream.
#[derive(Clone, Debug, SimpleObject)]
pub struct Source {
    /// The name to use in a `JobRef`.
    name: String,
    /// The kind of API.
    upstream: Upstream,
    /// How it is doing.
    health: SourceHealth,
    /// How the gateway's credential for it stands.
    credential: SourceCredential,
    /// What it may be asked, and how much of that is in use; null when you may read only some of its jobs.
    budget: Option<SourceBudget>,
    /// No call is made before this time.
    throttled_until: Option<DateTime>,
    /// The last call without a usable answer, which may be long ago; null if there was none, or when you may read only
    /// some of the source's jobs.
    last_error: Option<SourceError>,
}

/// What a source may be asked. All callers and all retries share it.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct SourceBudget {
    /// Calls in any second.
    per_second: i32,
    /// Calls in any hour.
    per_hour: i32,
    /// Calls at the same time.
    concurrency: i32,
    /// Calls under way now.
    in_flight: i32,
    /// Calls left before the hourly limit is reached.
    left_this_hour: i32,
}

impl From<SourceView> for Source {
    fn from(SourceView { status, shows_budget }: SourceView) -> Self {
        Self {
            name: status.name.as_str().to_owned(),
            upstream: status.upstream.into(),
            health: status.health.into(),
            credential: status.credential.into(),
            budget: shows_budget.then(|| status.budget.into()),
            throttled_until: status.throttled_until.map(DateTime),
            last_error: status.last_error.filter(|_| shows_budget).map(Into::into),
        }
    }
}

impl From<source::SourceError> for SourceError {
    fn from(error: source::SourceError) -> Self {
        Self { at: DateTime(error.at), kind: error.kind.into(), message: error.message }
    }
}

impl From<BudgetUse> for SourceBudget {
    /// A number beyond what an `Int` holds becomes the largest one.
    fn from(budget: BudgetUse) -> Self {
        let BudgetUse { per_second, per_hour, concurrency, in_flight, left_this_hour } = budget;
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        Self {
            per_second: int(per_second),
            per_hour: int(per_hour),
            concurrency: int(concurrency),
            in_flight: int(in_flight),
            left_this_hour: int(left_this_hour),
        }
    }
}

impl From<CredentialStatus> for SourceCredential {
    fn from(status: CredentialStatus) -> Self {
        Self {
            state: status.state.into(),
            since: status.since.map(DateTime),
            in_force_since: status.in_force_since.map(DateTime),
            expires_at: status.expires_at.map(DateTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_beyond_an_int_is_the_largest_int() {
        let most = u32::MAX;
        let budget = BudgetUse {
            per_second: 7,
            per_hour: most,
            concurrency: most,
            in_flight: 0,
            left_this_hour: most,
        };
        let SourceBudget { per_second, per_hour, concurrency, in_flight, left_this_hour } = budget.into();
        assert_eq!((per_second, in_flight), (7, 0));
        assert_eq!([per_hour, concurrency, left_this_hour], [i32::MAX; 3]);
    }
}
