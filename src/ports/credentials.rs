//! The secrets that sources want to see, asked for anew by every call so that they can change under way.

use std::fmt::Debug;

use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::id::SourceName;
use crate::domain::source::CredentialStatus;

/// What a source wants to see. Neither form can be printed.
#[derive(Clone, Debug)]
pub enum Credential {
    /// `Authorization: Bearer …`.
    Bearer(SecretString),
    /// An `api_key` among the request's parameters (Supermetrics only).
    ApiKey(SecretString),
}

impl Credential {
    /// The secret in it.
    pub const fn secret(&self) -> &SecretString {
        match self {
            Self::Bearer(secret) | Self::ApiKey(secret) => secret,
        }
    }

    /// Says whether the other is the same in form and secret. Both are ours, so the time it takes tells nobody anything.
    pub fn is(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.secret().expose_secret() == other.secret().expose_secret()
    }
}

/// Holds the credentials of all sources.
pub trait Credentials: Debug + Send + Sync {
    /// The credential in force for a source; `None` when it could not be read, and the source is unconfigured.
    fn current(&self, source: &SourceName) -> Option<Credential>;

    /// Every credential that an answer of the source could repeat: the one in force, those before it, and those that
    /// were tried and refused. Bounded in number and time.
    fn pending(&self, source: &SourceName) -> Vec<Credential>;

    /// How the credential of a source stands, as far as its holder knows: not whether the source refuses the one in force.
    fn status(&self, source: &SourceName) -> CredentialStatus;
}
