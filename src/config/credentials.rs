//! `credentials`: how secrets are reloaded while jobgate runs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{MINUTE, Span};

/// How secrets are reloaded while jobgate runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// How often every secret file is read again. Changes that the file watch reports are read at once. A new secret is
    /// verified with one read before it replaces the active one.
    #[serde(with = "Span::<100, MINUTE>")]
    pub reload_interval: Duration,
}
