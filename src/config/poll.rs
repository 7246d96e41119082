//! `poll`: how often jobgate polls a watched job, and for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation::ValidationErrors;
use super::values::{DAY, HOUR, MINUTE, SECOND, Span};
use crate::domain::duration;

/// How often jobgate polls a job that is watched, awaited or tracked, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// Shortest time between two polls of one job. A subscription's `maxStaleness` cannot make it shorter.
    #[serde(with = "Span::<100, HOUR>")]
    pub min_interval: Duration,
    /// Longest time between two polls of one job. Up to it, the time is a tenth of the time that the job has been in its
    /// state, or follows from the durations of earlier jobs. A source with few calls left can be polled less often.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub max_interval: Duration,
    /// How long polling continues after the last subscription to a job has ended.
    #[serde(with = "Span::<1, HOUR>")]
    pub unsubscribe_grace: Duration,
    /// How long a job is polled that its upstream does not know. Then its subscriptions end with `NOT_FOUND`.
    #[serde(with = "Span::<SECOND, DAY>")]
    pub missing_for: Duration,
    /// How long a job is polled while its state is `UNKNOWN`. Then its subscriptions end with `FOLLOW_LIMIT`.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub unknown_for: Duration,
    /// How long a job is polled that stays in one state. Then its subscriptions end with `FOLLOW_LIMIT`.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub max_duration: Duration,
    /// Longest time between two reads of a job by its id while a list of what changed replaces its polls. Also how long an
    /// upstream must repeat an answer that contradicts the newest known one before it is accepted: a lower MindBridge
    /// `version`, as after a restored backup.
    #[serde(with = "Span::<MINUTE, DAY>")]
    pub verify_interval: Duration,
}

impl PollConfig {
    pub(super) fn check(&self, faults: &mut ValidationErrors) {
        if self.max_interval < self.min_interval {
            let min_interval = duration::format(self.min_interval);
            let message = format!("must not be shorter than poll.min_interval ({min_interval})");
            faults.add("poll.max_interval", message);
        }
    }
}
