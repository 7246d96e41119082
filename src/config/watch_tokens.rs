//! `watch_tokens`: what the passes are signed with that clients make for browsers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{RawSecretRef, SecretRef};
use super::fault::Faults;

/// What watch tokens are signed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatchTokensConfig {
    /// Where the secret is to be found that all replicas share; none for a key that each process makes for itself.
    pub secret: Option<SecretRef>,
}

/// What watch tokens are signed with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WatchTokens")]
pub(super) struct RawWatchTokens {
    /// Where the secret is that all replicas sign with, at least 32 bytes. Without it each process makes its own key at
    /// start.
    secret: Option<RawSecretRef>,
}

impl RawWatchTokens {
    pub(super) fn accept(self, faults: &mut Faults) -> WatchTokensConfig {
        WatchTokensConfig {
            secret: self.secret.and_then(|secret| secret.accept("watch_tokens.secret", faults)),
        }
    }
}
