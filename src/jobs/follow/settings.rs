//! How jobs are followed: the settings, which a reload can change.

use std::time::Duration;

use crate::domain::pace::PollIntervals;

/// How jobs are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowSettings {
    /// How often to poll.
    pub pace: PollIntervals,
    /// How long to continue polling after the last watcher unsubscribed.
    pub unsubscribe_grace: Duration,
    /// How long to poll a job that the upstream does not know.
    pub missing_for: Duration,
    /// How long to follow a job whose state is not known to the gateway.
    pub unknown_for: Duration,
    /// How long to follow a job that stays in one state.
    pub at_most: Duration,
    /// The longest time between two reads of a swept job by its id, and how long an upstream has to report a lower version
    /// of a job before it is accepted.
    pub verify_interval: Duration,
}

impl FollowSettings {
    /// The delay of a poll that another replica is expected to make. If that replica fails, updates are later by at
    /// most this time.
    pub(in crate::jobs) fn wait_for_replica(&self) -> Duration {
        self.pace.fastest / 2
    }
}
