//! `watch_tokens`: the signing key of watch tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{RawSecretRef, SecretRef};
use super::validation::ValidationErrors;

/// The signing key of watch tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatchTokensConfig {
    /// Reference to the secret that all replicas share. None: each process creates its own key.
    pub secret: Option<SecretRef>,
}

/// The signing key of watch tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WatchTokens")]
pub(super) struct RawWatchTokens {
    /// Reference to the signing secret of at least 32 bytes; the same for all replicas. Null: each process creates a random
    /// key at start, so its tokens are invalid after a restart and at other replicas. The key of the trace ids of jobs is
    /// derived from the secret. Null: a caller that knows a job's id can compute its trace id.
    secret: Option<RawSecretRef>,
}

impl RawWatchTokens {
    pub(super) fn accept(self, faults: &mut ValidationErrors) -> WatchTokensConfig {
        WatchTokensConfig {
            secret: self.secret.and_then(|secret| secret.accept("watch_tokens.secret", faults)),
        }
    }
}
