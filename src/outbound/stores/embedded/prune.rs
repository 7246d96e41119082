//! Removes expired records, and the oldest ones if there are too many; then shrinks the file. Scans the whole table
//! from time to time, on its own thread: so there is no second table to keep consistent with the first.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use super::database_error::{DatabaseError, guarded};
use super::shared::StoreShared;
use super::tables::{TableReader, WriteBatch};
use crate::outbound::stores::record::{self, RecordHead};

/// The most records that are removed in one commit, so that other commits do not wait long.
const AT_ONCE: usize = 2_000;
/// The size after the removal of the oldest records, in percent of the limit: so the next removal is some time off.
const LEAVE: u64 = 90;
/// Smaller files are not compacted.
const SMALL: u64 = 64 << 20;
/// A file with less than one part in this many in use is compacted.
const SPARSE: u64 = 3;
/// Milliseconds in an hour: the resolution of ages when the oldest records are removed.
const HOUR: i64 = 3_600_000;

/// Removes records once. A failure is retried the next time: the writer meets it as well.
pub(super) fn run(shared: &StoreShared) {
    let size = shared.file.place.size();
    let gone = prune(shared, size);
    match gone {
        Ok(0) => {}
        Ok(gone) => tracing::debug!(gone, "pruned old jobs from the store"),
        Err(error) => tracing::debug!(%error, "pruning old jobs failed"),
    }
    if let Err(error) = prune_rows(shared) {
        tracing::debug!(%error, "pruning old rows failed");
    }
    let used = shared.file.counts.record_bytes.load(Ordering::Relaxed)
        + shared.file.counts.row_bytes.load(Ordering::Relaxed);
    if size > SMALL && used < size / SPARSE && !shared.is_stopping() {
        compact(shared);
    }
}

fn prune(shared: &StoreShared, size: u64) -> Result<usize, DatabaseError> {
    let now = shared.file.retained_by();
    let mut by_hour: BTreeMap<i64, u64> = BTreeMap::new();
    let mut outlived = Vec::new();
    walk(shared, &mut |key, held| {
        match record::head(held) {
            Some(head) if !shared.file.outlived(head, now) => {
                *by_hour.entry(head.observed_ms / HOUR).or_default() += (key.len() + held.len()) as u64;
            }
            Some(_) | None => outlived.push(key.to_vec()),
        }
        true
    })?;
    let mut gone = remove(shared, &outlived, &|head| shared.file.outlived(head, now))?;
    if let Some(hour) = too_old(&by_hour, size, shared.max_bytes) {
        let mut oldest = Vec::new();
        let goes = |head: RecordHead| head.observed_ms / HOUR <= hour;
        walk(shared, &mut |key, held| {
            if record::head(held).is_none_or(goes) {
                oldest.push(key.to_vec());
            }
            true
        })?;
        gone += remove(shared, &oldest, &goes)?;
    }
    Ok(gone)
}

/// Frees space for new rows, if there is little left: the oldest rows are removed first.
fn prune_rows(shared: &StoreShared) -> Result<(), DatabaseError> {
    let max = shared.rows.max_bytes;
    let mut held = shared.file.counts.row_bytes.load(Ordering::Relaxed);
    // Space for all rows that one job may have, and some more.
    let leave = max.saturating_sub(shared.rows.per_job).min(max / 100 * LEAVE);
    if held <= leave {
        return Ok(());
    }
    let database = shared.file.database();
    let Some(database) = database.as_ref() else { return Ok(()) };
    let mut stretches = guarded(|| TableReader::begin(database, shared.file.record_times())?.stretches())?;
    stretches.sort_by_key(|(_, kept_ms, _)| *kept_ms);
    let mut batch = WriteBatch::default();
    for (key, _, size) in stretches {
        if held <= leave {
            break;
        }
        held = held.saturating_sub(size);
        batch.rows_gone.push(key);
    }
    shared.file.write_to(database, &batch, &|_| false).map(drop)
}

/// The hour up to which jobs must be removed so that a file of this size becomes smaller than its limit; none if it is
/// already.
fn too_old(by_hour: &BTreeMap<i64, u64>, size: u64, max_bytes: u64) -> Option<i64> {
    if size <= max_bytes {
        return None;
    }
    // The file contains more than its records; both shrink in proportion.
    let used: u64 = by_hour.values().sum();
    let share = u128::from(used) * u128::from(max_bytes) * u128::from(LEAVE) / (u128::from(size) * 100);
    let mut left = used;
    by_hour.iter().find_map(|(hour, bytes)| {
        left -= bytes;
        (u128::from(left) <= share).then_some(*hour)
    })
}

/// Visits all records. Stops when the store is closing.
fn walk(shared: &StoreShared, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), DatabaseError> {
    let database = shared.file.database();
    let Some(database) = database.as_ref() else { return Ok(()) };
    let mut seen = 0_usize;
    let visit = |key: &[u8], held: &[u8]| {
        seen += 1;
        visit(key, held) && !(seen.is_multiple_of(AT_ONCE) && shared.is_stopping())
    };
    guarded(|| {
        let reader = TableReader::begin(database, shared.file.record_times())?;
        reader.walk(Bound::Unbounded, Bound::Unbounded, visit)
    })
}

/// Removes records in several commits.
fn remove(
    shared: &StoreShared,
    keys: &[Vec<u8>],
    goes: &dyn Fn(RecordHead) -> bool,
) -> Result<usize, DatabaseError> {
    for some in keys.chunks(AT_ONCE) {
        if shared.is_stopping() {
            return Ok(0);
        }
        let batch = WriteBatch { outlived: some.to_vec(), ..WriteBatch::default() };
        let database = shared.file.database();
        let Some(database) = database.as_ref() else { return Ok(0) };
        shared.file.write_to(database, &batch, goes)?;
    }
    Ok(keys.len())
}

/// Compacts the file.
fn compact(shared: &StoreShared) {
    match shared.file.compact() {
        Some(Ok((before, after))) => tracing::info!(before, after, "store file compacted"),
        Some(Err(error)) => tracing::warn!(%error, "store file compaction failed"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_records_are_pruned_until_the_file_fits() {
        let by_hour = BTreeMap::from([(1, 100), (2, 100), (3, 100), (4, 100)]);
        let cases = [
            (1_000, 1_000, None),
            (1_000, 999, Some(1)),
            (1_000, 500, Some(3)),
            (1_000, 100, Some(4)),
            (400, 200, Some(3)),
        ];
        for (size, max, expected) in cases {
            assert_eq!(too_old(&by_hour, size, max), expected, "{size} {max}");
        }
        assert_eq!(too_old(&BTreeMap::new(), 10, 1), None, "nothing to remove");
    }
}
