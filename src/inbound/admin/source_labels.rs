//! The labels of the states of a source, in metrics and in the status.

use crate::domain::source::{CredentialState, SourceHealth};

/// Each health with its label.
pub(super) const HEALTHS: [(SourceHealth, &str); 7] = [
    (SourceHealth::Healthy, "healthy"),
    (SourceHealth::Untried, "unknown"),
    (SourceHealth::Throttled, "throttled"),
    (SourceHealth::Degraded, "degraded"),
    (SourceHealth::Unavailable, "unavailable"),
    (SourceHealth::CredentialRejected, "credential_rejected"),
    (SourceHealth::Unconfigured, "unconfigured"),
];

/// Each state of a credential with its label.
pub(super) const CREDENTIALS: [(CredentialState, &str); 6] = [
    (CredentialState::Active, "active"),
    (CredentialState::Refused, "rejected"),
    (CredentialState::Missing, "missing"),
    (CredentialState::PendingVerification, "pending_verification"),
    (CredentialState::PendingRejected, "pending_rejected"),
    (CredentialState::PendingInvalid, "pending_invalid"),
];

/// The label of a member of a closed list.
pub(super) fn word<T: PartialEq>(words: &[(T, &'static str)], member: &T) -> &'static str {
    words.iter().find(|(other, _)| other == member).map_or("unknown", |(_, word)| word)
}
