//! The credentials that sources require. They are read again for every call, so that they can change at run time.

use std::fmt::Debug;

use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::id::SourceName;
use crate::domain::source::CredentialStatus;

/// A credential for a source. Neither form can be printed.
#[derive(Clone, Debug)]
pub enum Credential {
    /// `Authorization: Bearer …`.
    Bearer(SecretString),
    /// An `api_key` in the request's parameters (Supermetrics only).
    ApiKey(SecretString),
}

impl Credential {
    /// The secret of the credential.
    pub const fn secret(&self) -> &SecretString {
        match self {
            Self::Bearer(secret) | Self::ApiKey(secret) => secret,
        }
    }

    /// Returns whether the other has the same form and secret. Both are ours, so the comparison need not take constant
    /// time.
    pub fn is(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.secret().expose_secret() == other.secret().expose_secret()
    }
}

/// Provides the credentials of all sources.
pub trait Credentials: Debug + Send + Sync {
    /// The active credential of a source; `None` if it could not be read, and the source is unconfigured.
    fn current(&self, source: &SourceName) -> Option<Credential>;

    /// Every credential that a response of the source could contain: the active one, the ones before it, and rejected
    /// ones. Bounded in number and time.
    fn pending(&self, source: &SourceName) -> Vec<Credential>;

    /// The credential status of a source, except whether the source rejects the active credential, which is not known
    /// here.
    fn status(&self, source: &SourceName) -> CredentialStatus;
}
