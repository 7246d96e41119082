//! The interface for authentication: who a client is, how long its credential is valid, and whether it still is. The
//! use cases implement it; handlers do not depend on the form of a credential.

use std::time::Duration;

use http::HeaderMap;
use secrecy::SecretString;

use super::bearer;
use crate::domain::principal::Principal;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::request_facts::RequestFacts;
use crate::jobs::Jobs;
use crate::jobs::visibility;

/// Authenticates clients.
///
/// A function from a credential to a client implements it, for clients whose credentials never expire.
pub trait Authenticator: Send + Sync {
    /// Returns the client of a credential, or of none.
    ///
    /// # Errors
    /// Returns a refusal if the client is not authenticated.
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, HttpRefusal>;

    /// The remaining validity of the client's credential; none if it does not expire.
    fn expires_in(&self, principal: &Principal) -> Option<Duration>;

    /// Returns whether the client would still be authenticated as the same.
    fn is_valid(&self, principal: &Principal) -> bool;

    /// A number that is another one whenever a credential that does not expire may be authenticated differently than
    /// before; `None` if no authenticated client may be kept.
    fn generation(&self) -> Option<u64> {
        None
    }
}

/// Authenticates the client of a request, by the credential of the connection's last request if it is the same.
///
/// # Errors
/// Returns a refusal if the header is not one bearer token, or the client is not authenticated.
pub(in crate::inbound) fn authenticate_request(
    authenticator: &dyn Authenticator,
    headers: &HeaderMap,
    facts: &RequestFacts,
) -> Result<Principal, HttpRefusal> {
    let connection = facts.connection();
    // read first: a client of a later generation is not kept as one of this
    let last = connection.map(|connection| &connection.last_credential).zip(authenticator.generation());
    if let Some(client) = last.and_then(|(last, generation)| last.client(headers, generation)) {
        return Ok(client);
    }
    let client = authenticator.authenticate(bearer::token(headers)?.as_ref())?;
    if let Some((last, generation)) = last {
        last.keep(headers, &client, generation);
    }
    Ok(client)
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

/// The refusal of a client that is not authenticated.
fn unknown(refusal: visibility::AuthError) -> HttpRefusal {
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
        self.expires_in(principal)
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        self.is_still_valid(principal)
    }

    fn generation(&self) -> Option<u64> {
        self.authentication_generation()
    }
}
