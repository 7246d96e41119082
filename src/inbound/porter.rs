//! What the doors ask about whoever knocks: who it is, for how long that holds, and whether it still does. The use cases
//! answer; no door knows what a credential looks like.

use std::time::Duration;

use secrecy::SecretString;

use super::error::{Kind, Refusal};
use crate::domain::principal::Principal;
use crate::jobs::Jobs;
use crate::jobs::access;

/// Recognises clients at a door.
///
/// A function from a credential to a client is one, for clients who stay who they are for ever.
pub trait Porter: Send + Sync {
    /// Says who presents a credential, or none.
    ///
    /// # Errors
    /// When the client is not to be let in.
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal>;

    /// For how long what the client came in with holds from now on; none while it is not taken back.
    fn left(&self, principal: &Principal) -> Option<Duration>;

    /// Says whether the client would still be recognised as the same.
    fn stands(&self, principal: &Principal) -> bool;
}

impl<F: Fn(Option<&SecretString>) -> Result<Principal, Refusal> + Send + Sync> Porter for F {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        self(presented)
    }

    fn left(&self, _: &Principal) -> Option<Duration> {
        None
    }

    fn stands(&self, _: &Principal) -> bool {
        true
    }
}

/// The refusal of a client that is not let in.
pub(super) fn unknown(refusal: access::Refusal) -> Refusal {
    match refusal {
        access::Refusal::Missing => Refusal::unauthenticated(refusal.to_string()),
        access::Refusal::Unknown => Refusal::invalid_token(Kind::Unauthenticated, refusal.to_string()),
        access::Refusal::Expired => Refusal::invalid_token(Kind::CredentialExpired, refusal.to_string()),
        access::Refusal::Unverified => {
            Refusal::invalid_token(Kind::CredentialUnverified, refusal.to_string())
        }
    }
}

impl Porter for Jobs {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        self.authenticate(presented).map_err(unknown)
    }

    fn left(&self, principal: &Principal) -> Option<Duration> {
        self.pass_left(principal)
    }

    fn stands(&self, principal: &Principal) -> bool {
        self.still_stands(principal)
    }
}
