//! Authentication: establishes the principal of a credential, and checks later whether it is still valid.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

/// Why authentication failed. It contains nothing that would help to guess a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential was sent, and one is required.
    #[error(
        "authentication is required; send a client key or token in the authorization header: \"Bearer <key>\""
    )]
    Missing,
    /// The credential is not known.
    #[error("unknown client key or token")]
    Unknown,
    /// The token is genuine and no longer valid.
    #[error("the token has expired; send a new one")]
    Expired,
    /// The token is not valid yet, or is signed by a key that is not in the cached key set of its issuer yet.
    #[error("the token cannot be verified yet, or is not valid yet; retry later")]
    Unverified,
}

/// A token for some jobs, with its expiry.
#[derive(Clone, Debug)]
pub struct WatchToken {
    /// The token to send.
    pub token: SecretString,
    /// The token is not valid from this time on.
    pub expires_at: Timestamp,
}

/// Why a watch token cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchTokenError {
    /// It would not fit in a header.
    #[error("refs make a token of more than {0} bytes, the limit for a header; pass fewer refs")]
    TooLong(usize),
    /// This identity provider creates no tokens.
    #[error("this client cannot create watch tokens")]
    NotMade,
}

/// Authenticates clients.
pub trait Identity: Debug + Send + Sync {
    /// Authenticates the bearer token of a request, or its absence. Does not block and makes no call.
    ///
    /// # Errors
    /// When authentication fails.
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError>;

    /// Returns whether a principal that was authenticated before would be authenticated now, with the same credential
    /// and grant. It is false once the credential expired, the client was removed, or its grant has changed.
    fn is_valid(&self, principal: &Principal) -> bool;

    /// A number that is another one whenever a credential that does not expire may be authenticated differently than
    /// before. `None` if there is no such number: then no result of [`Identity::authenticate`] may be kept.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// Creates a token with which another user can read and watch some jobs, within the client's grant and not longer
    /// than the client's own credential is valid. The grant is checked when the token is used, not when it was created.
    ///
    /// # Errors
    /// When a token cannot contain that many jobs.
    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenError>;
}
