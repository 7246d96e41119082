//! `poll`: how jobs are polled. The keys of the section `follow` move here when it is renamed.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{DAY, MINUTE, Span};

/// How jobs are polled.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// How long an upstream must repeat an answer that contradicts the newest one known before it is accepted as the new
    /// truth: a lower MindBridge `version`, as after a restored backup.
    #[serde(with = "Span::<MINUTE, DAY>")]
    pub verify_interval: Duration,
}
