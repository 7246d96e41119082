//! `credentials`: how secrets are reloaded while jobgate runs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{DAY, MINUTE, Span};

/// How secrets are reloaded while jobgate runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// How often every secret file is read again. Changes that the file watch reports are read at once.
    #[serde(with = "Span::<100, MINUTE>")]
    pub reload_interval: Duration,
    /// How long before the known expiry of a credential the log warns.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub warn_before: Duration,
}
