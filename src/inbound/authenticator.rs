//! What the doors ask about whoever knocks: who it is, for how long that holds, and whether it still does. The use cases
//! answer; no door knows what a credential looks like.

use std::time::Duration;

use secrecy::SecretString;

use super::error::{HttpRefusal, RefusalKind};
use crate::domain::principal::Principal;
use crate::jobs::Jobs;
use crate::jobs::visibility;

/// Recognises clients at a door.
///
/// A function from a credential to a client is one, for clients who stay who they are for ever.
pub trait Authenticator: Send + Sync {
    /// Says who presents a credential, or none.
    ///
    /// # Errors
    /// When the client is not to be let in.
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, HttpRefusal>;

    /// For how long what the client came in with holds from now on; none while it is not taken back.
    fn expires_in(&self, principal: &Principal) -> Option<Duration>;

    /// Says whether the client would still be recognised as the same.
    fn is_valid(&self, principal: &Principal) -> bool;
}

impl<F: Fn(Option<&SecretString>) -> Result<Principal, HttpRefusal> + Send + Sync> Authenticator for F {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, HttpRefusal> {
        self(presented)
    }

    fn expires_in(&self, _: &Principal) -> Option<Duration> {
        None
    }

    fn is_valid(&self, _: &Principal) -> bool {
        true
    }
}

/// The refusal of a client that is not let in.
pub(super) fn unknown(refusal: visibility::AuthError) -> HttpRefusal {
    match refusal {
        visibility::AuthError::Missing => HttpRefusal::unauthenticated(refusal.to_string()),
        visibility::AuthError::Unknown => {
            HttpRefusal::invalid_token(RefusalKind::Unauthenticated, refusal.to_string())
        }
        visibility::AuthError::Expired => {
            HttpRefusal::invalid_token(RefusalKind::CredentialExpired, refusal.to_string())
        }
        visibility::AuthError::Unverified => {
            HttpRefusal::invalid_token(RefusalKind::CredentialUnverified, refusal.to_string())
        }
    }
}

impl Authenticator for Jobs {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, HttpRefusal> {
        self.authenticate(presented).map_err(unknown)
    }

    fn expires_in(&self, principal: &Principal) -> Option<Duration> {
        self.pass_left(principal)
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        self.is_still_valid(principal)
    }
}
