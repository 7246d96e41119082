//! Who the caller is, and for how long the credential is valid.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::domain::principal::Principal;
use crate::ports::clock::Clock;
use crate::ports::identity::{AuthError, Identity};

/// Authenticates clients.
#[derive(Debug)]
pub(super) struct Authentication {
    identity: Arc<dyn Identity>,
    clock: Arc<dyn Clock>,
}

impl Authentication {
    pub(super) const fn new(identity: Arc<dyn Identity>, clock: Arc<dyn Clock>) -> Self {
        Self { identity, clock }
    }

    /// Authenticates a client by the presented credential.
    pub(super) fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        self.identity.authenticate(presented)
    }

    /// Returns whether a principal that was authenticated before is still valid.
    pub(super) fn is_still_valid(&self, principal: &Principal) -> bool {
        self.identity.is_valid(principal)
    }

    /// See [`Identity::generation`].
    pub(super) fn generation(&self) -> Option<u64> {
        self.identity.generation()
    }

    /// The remaining validity of the principal's credential; `None` when it does not expire.
    pub(super) fn time_left(&self, principal: &Principal) -> Option<Duration> {
        let expires = principal.credential().expires?;
        Some(Duration::try_from(expires.duration_since(self.clock.time_of_day())).unwrap_or_default())
    }
}
