//! `follow`: how often a job that somebody watches is looked at, and for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::values::{DAY, HOUR, MINUTE, SECOND, Span};
use crate::domain::duration;

/// How often a job that somebody watches is looked at, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FollowConfig {
    /// Shortest time between two looks at one job. A watcher's `maxStaleness` cannot undercut it.
    #[serde(with = "Span::<100, HOUR>")]
    pub fastest: Duration,
    /// Longest time between two looks; a job is looked at after a tenth of the time it has been in its state.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub slowest: Duration,
    /// How long to go on looking after the last watcher left, so that a reload of a page costs nothing.
    #[serde(with = "Span::<1, HOUR>")]
    pub linger: Duration,
    /// How long to look for a job that its upstream does not know; then its watchers are told that there is none.
    #[serde(with = "Span::<SECOND, DAY>")]
    pub missing_for: Duration,
    /// How long to follow a job whose state is not known here.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub unknown_for: Duration,
    /// How long to follow a job that stays in one state.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub at_most: Duration,
}

impl FollowConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.slowest < self.fastest {
            let fastest = duration::format(self.fastest);
            faults.add("follow.slowest", format!("must not be shorter than follow.fastest ({fastest})"));
        }
    }
}
