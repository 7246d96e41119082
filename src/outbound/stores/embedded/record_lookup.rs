//! How the bytes of a record are read: as an observation, a miss, or a damaged record.

use jiff::Timestamp;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::stores::record::{self, RecordClock, RecordError};

/// How the times of records are read: those of this run unchanged, all others not later than the start of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordTimes {
    pub(super) frame: RecordClock,
    /// The start of this run, in process time.
    pub(super) began: Timestamp,
}

/// The result of looking up a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RecordLookup {
    Held(Observation),
    Nothing,
    /// A record that must be removed.
    Damaged,
}

/// The record of a key. One that this version cannot parse stays for a version that can.
pub(super) fn found(key: &JobKey, bytes: &[u8], held: &[u8], record_times: RecordTimes) -> RecordLookup {
    match record::read(key, bytes, held, &record_times.frame) {
        Ok(held) if held.is_own => RecordLookup::Held(held.observation),
        Ok(held) => RecordLookup::Held(held.observation.clamped(record_times.began)),
        Err(RecordError::Strange) => RecordLookup::Nothing,
        Err(RecordError::Damaged) => RecordLookup::Damaged,
    }
}
