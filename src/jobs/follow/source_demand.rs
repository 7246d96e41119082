//! What the followed jobs of one source require of its sweeps: counted as jobs change, so that reading it costs the same
//! for any number of jobs.

use std::time::Duration;

use super::watch_requests::{StalenessLimits, WatchRequests};
use crate::domain::sweep::SweepDemand;

/// Polls per second are counted in whole polls per this many seconds, so that sums are exact.
const RATE_SECONDS: u128 = 1_000_000_000;
/// An interval that is shorter counts as this one.
const SHORTEST: Duration = Duration::from_millis(1);

/// What one followed job contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobDemand {
    /// It has an interest and is not over. If not, it contributes nothing.
    is_open: bool,
    is_watched: bool,
    /// This process verifies it.
    is_verified: bool,
    /// The lowest staleness that a watcher allows.
    tightest: Option<Duration>,
    /// The polls per 10^9 seconds that it would need.
    rate: u64,
}

/// The demand of all followed jobs of one source.
#[derive(Debug, Default)]
pub(super) struct SourceDemand {
    jobs: usize,
    watched: usize,
    verified: usize,
    limits: StalenessLimits,
    rate: u64,
}

impl JobDemand {
    /// What a job contributes that has an interest and is not over: polls at this interval, if no list contained its changes.
    pub(super) fn open(requests: &WatchRequests, is_verified: bool, interval: Duration) -> Self {
        let interval = interval.max(SHORTEST).as_nanos();
        Self {
            is_open: true,
            is_watched: requests.is_watched(),
            is_verified,
            tightest: requests.tightest(),
            rate: u64::try_from(RATE_SECONDS * 1_000_000_000 / interval).unwrap_or(u64::MAX),
        }
    }

    /// The same with the rate of another.
    #[cfg(test)]
    pub(super) fn with_rate_of(self, other: Self) -> Self {
        Self { rate: if self.is_open { other.rate } else { self.rate }, ..self }
    }
}

impl SourceDemand {
    /// Replaces what a job contributed before.
    pub(super) fn replace(&mut self, before: JobDemand, after: JobDemand) {
        if before == after {
            return;
        }
        self.jobs += usize::from(after.is_open);
        self.jobs -= usize::from(before.is_open);
        self.watched += usize::from(after.is_watched);
        self.watched -= usize::from(before.is_watched);
        self.verified += usize::from(after.is_verified);
        self.verified -= usize::from(before.is_verified);
        self.rate = self.rate.saturating_add(after.rate).saturating_sub(before.rate);
        if before.tightest != after.tightest {
            self.limits.add(after.tightest);
            self.limits.remove(before.tightest);
        }
    }

    /// The sum, where a request reads up to `ids_a_request` jobs.
    pub(super) fn read(&self, ids_a_request: usize) -> SweepDemand {
        // `Duration` only converts the count of polls in 10^9 seconds to one of polls a second, as nanoseconds to seconds.
        let polls_per_second = Duration::from_nanos(self.rate).as_secs_f64();
        let ids_a_request = u32::try_from(ids_a_request.max(1)).unwrap_or(u32::MAX);
        SweepDemand {
            jobs: self.jobs,
            watched: self.watched,
            requests_per_second: polls_per_second / f64::from(ids_a_request),
            tightest: self.limits.lowest(),
            verified: self.verified,
        }
    }
}
