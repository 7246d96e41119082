//! `credentials`: how the secrets of all sources are followed while jobgate runs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{DAY, MINUTE, Span};

/// How the secrets of all sources are followed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// How often every file that holds a secret is read again, beside being watched.
    #[serde(with = "Span::<100, MINUTE>")]
    pub reload_interval: Duration,
    /// How long before the end of a credential the log begins to warn, where that end is known.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub warn_before: Duration,
}
