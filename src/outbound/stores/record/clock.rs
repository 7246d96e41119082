//! The relation between the times in records and those of this process.

use jiff::{SignedDuration, Timestamp};

/// The relation between the times of this process and those in records. Records contain times of day; a record that
/// this run of the process wrote is read back with its original times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbound) struct RecordClock {
    /// The id of this run of the process among all writers.
    pub(in crate::outbound) run: u64,
    /// The offset added to process time when it is written, in milliseconds.
    pub(in crate::outbound) shift: i64,
    /// The offset subtracted from the times that other runs wrote, in milliseconds.
    pub(in crate::outbound) others: i64,
}

impl RecordClock {
    /// The clock of a process whose time is the time of day.
    #[cfg(test)]
    pub(in crate::outbound) const fn plain(run: u64) -> Self {
        Self { run, shift: 0, others: 0 }
    }
}

/// Shifts a time by milliseconds.
pub(super) fn moved(at: Timestamp, millis: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_millis(millis)).unwrap_or(at)
}
