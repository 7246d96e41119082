//! The secrets that sources want to see, asked for anew by every call so that they can change under way.

use std::fmt::Debug;

use secrecy::SecretString;

use crate::domain::id::SourceName;

/// What a source wants to see. Neither form can be printed.
#[derive(Clone, Debug)]
pub enum Credential {
    /// `Authorization: Bearer …`.
    Bearer(SecretString),
    /// An `api_key` among the request's parameters (Supermetrics only).
    ApiKey(SecretString),
}

/// Holds the credentials of all sources.
pub trait Credentials: Debug + Send + Sync {
    /// The credential in force for a source; `None` when it could not be read, and the source is unconfigured.
    fn current(&self, source: &SourceName) -> Option<Credential>;
}
