//! Who is calling: turns what a client presents into a principal, and says later whether that still holds.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

/// Why a client is not let in. Says nothing that would help to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing was presented, and something is needed.
    #[error(
        "authentication is required; send a client key or token in the authorization header: \"Bearer <key>\""
    )]
    Missing,
    /// What was presented is not known here.
    #[error("unknown client key or token")]
    Unknown,
    /// The token that was presented is genuine, and no longer valid.
    #[error("the token has expired; send a new one")]
    Expired,
    /// The token that was presented is not valid yet, or is signed by a key that its issuer's list does not hold yet.
    #[error("the token cannot be verified yet, or is not valid yet; retry later")]
    Unverified,
}

/// A pass for some jobs, and until when it holds.
#[derive(Clone, Debug)]
pub struct WatchToken {
    /// What is to be presented.
    pub token: SecretString,
    /// From this time on it does not hold.
    pub expires_at: Timestamp,
}

/// Why a watch token is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchTokenError {
    /// It would not fit into a header.
    #[error("refs make a token of more than {0} bytes, the limit for a header; pass fewer refs")]
    TooLong(usize),
    /// Tokens are not made here.
    #[error("this client cannot create watch tokens")]
    NotMade,
}

/// Recognises clients.
pub trait Identity: Debug + Send + Sync {
    /// Recognises the bearer token of a request, or its absence. Blocks nothing and asks nobody.
    ///
    /// # Errors
    /// When the client is not to be let in.
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError>;

    /// Says whether a principal that was recognised before would be recognised now, by the same pass and with the same
    /// grant: it is false once the pass expired, its client is gone, or what the client may read has changed.
    fn is_valid(&self, principal: &Principal) -> bool;

    /// Makes a token by which somebody else reads and watches some jobs, as far as a client may, and not for longer than
    /// the client's own pass holds. What it opens follows what the client may read, not what it could when it was made.
    ///
    /// # Errors
    /// When there are too many jobs for one token.
    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenError>;
}
