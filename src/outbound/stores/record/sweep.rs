//! The serialized form of what is remembered of the sweeps of a source. Its times are times of day.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::sweep::SweepRecord;

/// The version of the form. A reader that does not know it ignores the record, which costs a few polls.
const VERSION: u32 = 1;

#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct SweepWire {
    v: u32,
    watermark: Option<i64>,
    rounds: u64,
    swept_at: Option<i64>,
    distrusted: Option<(i64, i64)>,
    misses: u32,
    /// Eight bytes each, in base64.
    unfinished: String,
    /// In seconds.
    reached: u64,
}

/// Serializes the record.
pub(in crate::outbound) fn write_sweep(record: &SweepRecord) -> Vec<u8> {
    let SweepRecord { watermark, rounds, swept_at, distrusted, misses, unfinished, reached } = record;
    let unfinished: Vec<u8> = unfinished.iter().flat_map(|hash| hash.to_be_bytes()).collect();
    let wire = SweepWire {
        v: VERSION,
        watermark: watermark.map(Timestamp::as_millisecond),
        rounds: *rounds,
        swept_at: swept_at.map(Timestamp::as_millisecond),
        distrusted: distrusted.map(|(since, until)| (since.as_millisecond(), until.as_millisecond())),
        misses: *misses,
        unfinished: STANDARD_NO_PAD.encode(unfinished),
        reached: reached.as_secs(),
    };
    serde_json::to_vec(&wire).unwrap_or_default()
}

/// Parses a record. `None` if it is damaged, or of a version that this one does not know.
pub(in crate::outbound) fn read_sweep(bytes: &[u8]) -> Option<SweepRecord> {
    let SweepWire { v, watermark, rounds, swept_at, distrusted, misses, unfinished, reached } =
        serde_json::from_slice(bytes).ok()?;
    if v != VERSION {
        return None;
    }
    let unfinished = STANDARD_NO_PAD.decode(unfinished).ok()?;
    let at = |millisecond: i64| Timestamp::from_millisecond(millisecond).ok();
    Some(SweepRecord {
        watermark: watermark.and_then(at),
        rounds,
        swept_at: swept_at.and_then(at),
        distrusted: distrusted.and_then(|(since, until)| Some((at(since)?, at(until)?))),
        misses,
        unfinished: unfinished.as_chunks().0.iter().map(|hash| u64::from_be_bytes(*hash)).collect(),
        reached: Duration::from_secs(reached),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_record_survives_the_round_trip() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let full = SweepRecord {
            watermark: at(7),
            rounds: 9,
            swept_at: at(8),
            distrusted: at(1).zip(at(601)),
            misses: 2,
            unfinished: vec![0, 1, u64::MAX],
            reached: Duration::from_hours(24),
        };
        for record in [full, SweepRecord::default()] {
            assert_eq!(read_sweep(&write_sweep(&record)), Some(record));
        }
    }

    #[test]
    fn sweep_record_of_another_version_is_ignored() {
        for text in ["", "{}", "[]", r#"{"v":2,"rounds":1}"#, r#"{"v":1,"rounds":"one"}"#] {
            assert_eq!(read_sweep(text.as_bytes()), None, "{text}");
        }
        let newer = br#"{"v":1,"rounds":3,"added":true}"#;
        assert_eq!(read_sweep(newer).map(|record| record.rounds), Some(3), "an added member is ignored");
    }
}
