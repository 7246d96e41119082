//! The state of the sweeps of each source, for those who may read the source.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::id::SourceName;

/// The state of the sweeps of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepStatus {
    /// When the last sweep was completed, by this process or another replica, by the time of day.
    pub swept_at: Option<Timestamp>,
    /// The latest change that a list contained, by the upstream's clock.
    pub watermark: Option<Timestamp>,
    /// Whether lists contained every change that was found otherwise.
    pub trusted: bool,
    /// Whether sweeps are in force now.
    pub in_force: bool,
    /// The number of jobs that this process discovered and that are stored.
    pub discovered: usize,
    /// Whether no more jobs are discovered, because there are as many as configured.
    pub is_full: bool,
    /// The time between two reads of a job by its id while sweeps are in force.
    pub verify_interval: Duration,
}

impl SweepStatus {
    /// The state of a source that is not swept.
    pub(in crate::jobs) const UNUSED: Self = Self {
        swept_at: None,
        watermark: None,
        trusted: true,
        in_force: false,
        discovered: 0,
        is_full: false,
        verify_interval: Duration::ZERO,
    };
}

/// The state of the sweeps of each source.
#[derive(Debug, Default)]
pub(in crate::jobs) struct SweepStatuses(Mutex<BTreeMap<SourceName, SweepStatus>>);

impl SweepStatuses {
    /// The state of the sweeps of a source.
    pub(in crate::jobs) fn get(&self, source: &SourceName) -> SweepStatus {
        self.lock().get(source).copied().unwrap_or(SweepStatus::UNUSED)
    }

    pub(super) fn set(&self, source: &SourceName, status: SweepStatus) {
        self.lock().insert(source.clone(), status);
    }

    pub(super) fn forget(&self, source: &SourceName) {
        self.lock().remove(source);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, SweepStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
