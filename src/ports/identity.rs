//! Who is calling: turns what a client presents into a principal, and says later whether that still holds.

use std::fmt::Debug;

use secrecy::SecretString;

use crate::domain::principal::Principal;

/// Why a client is not let in. Says nothing that would help to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was presented, and something is needed.
    #[error(
        "authentication is required: send a client key or token as an authorization header, \"Bearer <key>\""
    )]
    Missing,
    /// What was presented is not known here.
    #[error("the presented client key or token is not known here")]
    Unknown,
}

/// Recognises clients.
pub trait Identity: Debug + Send + Sync {
    /// Recognises the bearer token of a request, or its absence. Blocks nothing and asks nobody.
    ///
    /// # Errors
    /// When the client is not to be let in.
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal>;

    /// Says whether a principal that was recognised before would be recognised now, by the same pass and with the same
    /// grant: it is false once the pass expired, its client is gone, or what the client may read has changed.
    fn stands(&self, principal: &Principal) -> bool;
}
