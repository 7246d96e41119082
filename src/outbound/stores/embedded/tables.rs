//! The content of the database: its tables, their format, and the reads and writes in one transaction. Every record has
//! its own checksum, and one with a wrong checksum is ignored.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{
    AccessGuard, Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, Table,
    TableDefinition, TableError,
};

use super::database_error::DatabaseError;
use super::record_lookup::{RecordLookup, RecordTimes, found};
use super::rows::{self, RowLimits, RowLookup, RowRun, RowsTable};
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::domain::sweep::SweepRecord;
use crate::outbound::stores::record;
use crate::ports::ledger::{Labels, LedgerContents};

/// The format of the tables. A version that changes their content increments it and migrates older ones.
pub(super) const FORMAT: u64 = 2;

type TableBytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Observations by job key.
pub(super) const JOBS: TableBytes = TableDefinition::new("jobs");
/// Labels of tracked jobs by job key.
const TRACKED: TableBytes = TableDefinition::new("tracked");
/// Followed jobs: keys only, sealed like the rest.
const FOLLOWED: TableBytes = TableDefinition::new("followed");
/// The learned durations of jobs, by kind of job.
const LEARNED: TableBytes = TableDefinition::new("learned");
/// The sweeps of each source, by name. The table is created with the first of them.
const SWEEPS: TableBytes = TableDefinition::new("sweeps");
/// Ranges of rows, by job key and first row.
pub(super) const ROWS: TableBytes = TableDefinition::new("rows");
/// Totals and the format.
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

const FORMAT_KEY: &str = "format";
const BYTES_KEY: &str = "bytes";
const COUNT_KEY: &str = "jobs";
const ROWS_KEY: &str = "rows";

/// The changes of one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteBatch {
    pub(super) jobs: Vec<Observation>,
    pub(super) tracked: BTreeMap<JobKey, Option<Labels>>,
    pub(super) followed: BTreeMap<JobKey, bool>,
    pub(super) learned: BTreeMap<JobClass, Durations>,
    pub(super) sweeps: BTreeMap<SourceName, SweepRecord>,
    pub(super) rows: Vec<RowRun>,
    pub(super) row_limits: RowLimits,
    /// Keys of row ranges to be removed.
    pub(super) rows_gone: Vec<Vec<u8>>,
    /// Keys of records that were found damaged: removed, if they still are.
    pub(super) damaged: Vec<JobKey>,
    /// Keys of records that have expired: removed, if they still are.
    pub(super) outlived: Vec<Vec<u8>>,
}

/// The result of a write.
#[derive(Debug, Default)]
pub(super) struct BatchOutcome {
    /// The jobs of which the file has newer observations.
    pub(super) refused: Vec<JobKey>,
    pub(super) totals: TableTotals,
}

/// The sizes of the tables of jobs and of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableTotals {
    /// Bytes of keys and records.
    pub(super) bytes: u64,
    pub(super) jobs: u64,
    /// Bytes of rows.
    pub(super) rows: u64,
}

/// Returns whether a record with this head must be removed.
pub(super) type PruneRule<'a> = &'a dyn Fn(record::RecordHead) -> bool;

/// Reads records in one transaction.
pub(super) struct TableReader {
    transaction: ReadTransaction,
    record_times: RecordTimes,
}

impl TableReader {
    pub(super) fn begin(database: &Database, record_times: RecordTimes) -> Result<Self, DatabaseError> {
        Ok(Self { transaction: database.begin_read().map_err(DatabaseError::of)?, record_times })
    }

    /// The record of each key: same order, same length.
    pub(super) fn get(&self, keys: &[JobKey]) -> Result<Vec<RecordLookup>, DatabaseError> {
        let jobs = self.transaction.open_table(JOBS).map_err(DatabaseError::of)?;
        let one = |key: &JobKey| {
            let bytes = record::key_bytes(key);
            let held = jobs.get(bytes.as_slice()).map_err(DatabaseError::of)?;
            Ok(held.map_or(RecordLookup::Nothing, |held| found(key, &bytes, held.value(), self.record_times)))
        };
        keys.iter().map(one).collect()
    }

    /// Visits the records after a key, in the order of their keys, until `visit` stops it.
    pub(super) fn walk(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DatabaseError> {
        let jobs = self.transaction.open_table(JOBS).map_err(DatabaseError::of)?;
        for entry in jobs.range::<&[u8]>((from, to)).map_err(DatabaseError::of)? {
            let (key, held) = entry.map_err(DatabaseError::of)?;
            if !visit(key.value(), held.value()) {
                break;
            }
        }
        Ok(())
    }

    /// The range of a job that begins with a row, read in one transaction with the job itself.
    pub(super) fn rows(&self, of: &Observation, first: u32) -> Result<RowLookup, DatabaseError> {
        let job = self.get(std::slice::from_ref(&of.job.key))?.pop().unwrap_or(RecordLookup::Nothing);
        if !rows::is_of(of, &job) {
            return Ok(RowLookup::Nothing);
        }
        let key = rows::place(&record::key_bytes(&of.job.key), first);
        let stored = self.transaction.open_table(ROWS).map_err(DatabaseError::of)?;
        let held = stored.get(key.as_slice()).map_err(DatabaseError::of)?;
        Ok(held.map_or(RowLookup::Nothing, |held| rows::open(key, held.value())))
    }

    /// Every range of rows: its key, when it was written, and its size.
    pub(super) fn stretches(&self) -> Result<Vec<(Vec<u8>, i64, u64)>, DatabaseError> {
        let one = |entry: Result<(AccessGuard<'_, _>, AccessGuard<'_, _>), redb::StorageError>| {
            let (key, held): (AccessGuard<'_, &[u8]>, AccessGuard<'_, &[u8]>) =
                entry.map_err(DatabaseError::of)?;
            let (key, held) = (key.value(), held.value());
            Ok((key.to_vec(), rows::kept_ms(held), size(key, held)))
        };
        self.transaction
            .open_table(ROWS)
            .map_err(DatabaseError::of)?
            .iter()
            .map_err(DatabaseError::of)?
            .map(one)
            .collect()
    }

    /// The tracked and followed jobs. Damaged entries are skipped.
    pub(super) fn remembered(&self) -> Result<LedgerContents, DatabaseError> {
        let mut remembered = LedgerContents::default();
        for entry in self
            .transaction
            .open_table(TRACKED)
            .map_err(DatabaseError::of)?
            .iter()
            .map_err(DatabaseError::of)?
        {
            let (key, labels) = entry.map_err(DatabaseError::of)?;
            let read = record::open(key.value(), labels.value(), 1).ok();
            let labels = read.and_then(|(_, labels)| serde_json::from_slice(labels).ok());
            remembered.tracked.extend(record::read_key(key.value()).zip(labels));
        }
        for entry in self
            .transaction
            .open_table(FOLLOWED)
            .map_err(DatabaseError::of)?
            .iter()
            .map_err(DatabaseError::of)?
        {
            let (key, mark) = entry.map_err(DatabaseError::of)?;
            let sound = record::open(key.value(), mark.value(), 1).is_ok();
            remembered.followed.extend(record::read_key(key.value()).filter(|_| sound));
        }
        Ok(remembered)
    }

    /// The learned durations. Damaged entries are skipped.
    pub(super) fn learned(&self) -> Result<Vec<(JobClass, Durations)>, DatabaseError> {
        let mut learned = Vec::new();
        for entry in self
            .transaction
            .open_table(LEARNED)
            .map_err(DatabaseError::of)?
            .iter()
            .map_err(DatabaseError::of)?
        {
            let (key, held) = entry.map_err(DatabaseError::of)?;
            let parts = record::open(key.value(), held.value(), 1).ok();
            let parts = parts.and_then(|(_, parts)| serde_json::from_slice::<Vec<_>>(parts).ok());
            learned.extend(
                record::read_class(key.value()).zip(parts.and_then(|parts| Durations::of_parts(&parts))),
            );
        }
        Ok(learned)
    }

    /// The recorded sweeps of a source. A damaged record is skipped.
    pub(super) fn sweep(&self, source: &SourceName) -> Result<Option<SweepRecord>, DatabaseError> {
        let sweeps = match self.transaction.open_table(SWEEPS) {
            Ok(sweeps) => sweeps,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(DatabaseError::of(error)),
        };
        let key = source.as_str().as_bytes();
        let held = sweeps.get(key).map_err(DatabaseError::of)?;
        let body = held.as_ref().and_then(|held| record::open(key, held.value(), 1).ok());
        Ok(body.and_then(|(_, body)| record::read_sweep(body)))
    }

    pub(super) fn totals(&self) -> Result<TableTotals, DatabaseError> {
        let meta = self.transaction.open_table(META).map_err(DatabaseError::of)?;
        let number = |name| Ok(meta.get(name).map_err(DatabaseError::of)?.map_or(0, |number| number.value()));
        Ok(TableTotals { bytes: number(BYTES_KEY)?, jobs: number(COUNT_KEY)?, rows: number(ROWS_KEY)? })
    }
}

/// Writes a batch atomically; it is durable when this returns.
pub(super) fn write(
    database: &Database,
    batch: &WriteBatch,
    outlives: PruneRule<'_>,
    record_times: RecordTimes,
) -> Result<BatchOutcome, DatabaseError> {
    let mut transaction = database.begin_write().map_err(DatabaseError::of)?;
    // The state of the allocator is part of each commit, so that opening after a crash need not rebuild it.
    transaction.set_quick_repair(true);
    let mut written = BatchOutcome::default();
    // The labels of a job that has been terminal for long are removed with it; a job that was only not observed stays
    // tracked.
    let mut forgotten = Vec::new();
    {
        let table = transaction.open_table(JOBS).map_err(DatabaseError::of)?;
        let mut jobs = JobsTable { table, change: (0, 0), other_run: Vec::new(), record_times };
        for new in &batch.jobs {
            if !jobs.keep(new)? {
                written.refused.push(new.job.key.clone());
            }
        }
        for key in &batch.damaged {
            let bytes = record::key_bytes(key);
            jobs.remove_if(&bytes, |held| found(key, &bytes, held, record_times) == RecordLookup::Damaged)?;
        }
        for key in &batch.outlived {
            jobs.remove_if(key, |held| {
                let head = record::head(held);
                let goes = head.is_none_or(outlives);
                if goes && head.and_then(|head| head.state).is_some_and(JobState::is_terminal) {
                    forgotten.push(key);
                }
                goes
            })?;
        }
        let mut meta = transaction.open_table(META).map_err(DatabaseError::of)?;
        let mut rows =
            RowsTable { table: transaction.open_table(ROWS).map_err(DatabaseError::of)?, change: 0 };
        let in_all = meta.get(ROWS_KEY).map_err(DatabaseError::of)?.map_or(0, |number| number.value());
        for job in &jobs.other_run {
            rows.forget(job)?;
        }
        for key in &batch.rows_gone {
            rows.remove(key)?;
        }
        for stretch in &batch.rows {
            rows.keep(stretch, &jobs.found(stretch.key())?, batch.row_limits, in_all)?;
        }
        written.totals.rows = add(&mut meta, ROWS_KEY, rows.change)?;
        let (bytes, count) = jobs.change;
        written.totals.bytes = add(&mut meta, BYTES_KEY, bytes)?;
        written.totals.jobs = add(&mut meta, COUNT_KEY, count)?;
    }
    let mut tracked = transaction.open_table(TRACKED).map_err(DatabaseError::of)?;
    for (key, labels) in &batch.tracked {
        let labels = labels.as_ref().map(|labels| serde_json::json!(labels).to_string());
        put(&mut tracked, &record::key_bytes(key), labels.as_deref().map(str::as_bytes))?;
    }
    for key in forgotten {
        tracked.remove(key.as_slice()).map_err(DatabaseError::of)?;
    }
    drop(tracked);
    let mut followed = transaction.open_table(FOLLOWED).map_err(DatabaseError::of)?;
    for (key, mark) in &batch.followed {
        put(&mut followed, &record::key_bytes(key), mark.then_some(&[]))?;
    }
    drop(followed);
    let mut learned = transaction.open_table(LEARNED).map_err(DatabaseError::of)?;
    for (class, durations) in &batch.learned {
        let parts = serde_json::json!(durations.parts()).to_string();
        put(&mut learned, &record::class_bytes(class), Some(parts.as_bytes()))?;
    }
    drop(learned);
    if !batch.sweeps.is_empty() {
        let mut sweeps = transaction.open_table(SWEEPS).map_err(DatabaseError::of)?;
        for (source, sweep) in &batch.sweeps {
            put(&mut sweeps, source.as_str().as_bytes(), Some(&record::write_sweep(sweep)))?;
        }
    }
    transaction.commit().map_err(DatabaseError::of)?;
    Ok(written)
}

/// Creates the tables of a new database, and migrates those of an older one.
pub(super) fn bring_up_to_date(database: &Database) -> Result<(), DatabaseError> {
    let mut transaction = database.begin_write().map_err(DatabaseError::of)?;
    transaction.set_quick_repair(true);
    let found = {
        let meta = transaction.open_table(META).map_err(DatabaseError::of)?;
        meta.get(FORMAT_KEY).map_err(DatabaseError::of)?.map_or(0, |format| format.value())
    };
    match found {
        FORMAT => return transaction.abort().map_err(DatabaseError::of),
        // Format 1 had no durations and rows: only these tables are missing.
        1 => {}
        // A new file, or one from before the totals were stored.
        0 => recount(&transaction)?,
        newer => return Err(DatabaseError::NewerFormat(newer)),
    }
    for table in [TRACKED, FOLLOWED, LEARNED, ROWS] {
        transaction.open_table(table).map_err(DatabaseError::of)?;
    }
    transaction
        .open_table(META)
        .map_err(DatabaseError::of)?
        .insert(FORMAT_KEY, FORMAT)
        .map_err(DatabaseError::of)?;
    transaction.commit().map_err(DatabaseError::of)
}

/// From format 0 to 1: the table of jobs is counted.
fn recount(transaction: &redb::WriteTransaction) -> Result<(), DatabaseError> {
    let mut totals = TableTotals::default();
    for entry in transaction.open_table(JOBS).map_err(DatabaseError::of)?.iter().map_err(DatabaseError::of)? {
        let (key, held) = entry.map_err(DatabaseError::of)?;
        totals.bytes += size(key.value(), held.value());
        totals.jobs += 1;
    }
    let mut meta = transaction.open_table(META).map_err(DatabaseError::of)?;
    meta.insert(BYTES_KEY, totals.bytes).map_err(DatabaseError::of)?;
    meta.insert(COUNT_KEY, totals.jobs).map_err(DatabaseError::of)?;
    Ok(())
}

/// The table of jobs in a transaction, and the change of its bytes and jobs.
struct JobsTable<'a> {
    table: Table<'a, &'static [u8], &'static [u8]>,
    change: (i64, i64),
    /// Those whose rows are of another run than the current record.
    other_run: Vec<Vec<u8>>,
    record_times: RecordTimes,
}

impl JobsTable<'_> {
    /// Writes an observation unless the file contains a newer one: compared here again, in the only writer.
    fn keep(&mut self, new: &Observation) -> Result<bool, DatabaseError> {
        let key = record::key_bytes(&new.job.key);
        let held = self.table.get(key.as_slice()).map_err(DatabaseError::of)?;
        let held = held.map(|held| found(&new.job.key, &key, held.value(), self.record_times));
        match &held {
            Some(RecordLookup::Held(held)) if !new.supersedes(held) => return Ok(*held == *new),
            Some(RecordLookup::Held(held)) if held.job.same_report(&new.job) => {}
            Some(_) => self.other_run.push(key.clone()),
            None => {}
        }
        let held = match &held {
            Some(RecordLookup::Held(held)) => Some(held),
            Some(RecordLookup::Nothing | RecordLookup::Damaged) | None => None,
        };
        let bytes = record::write(&key, &new.clone().replacing(held), &self.record_times.frame);
        let before = self.table.insert(key.as_slice(), bytes.as_slice()).map_err(DatabaseError::of)?;
        let before = before.map(|before| size(&key, before.value()));
        self.count(size(&key, &bytes).cast_signed(), 1);
        if let Some(before) = before {
            self.count(-before.cast_signed(), -1);
        }
        Ok(true)
    }

    fn found(&self, key: &JobKey) -> Result<RecordLookup, DatabaseError> {
        let bytes = record::key_bytes(key);
        let held = self.table.get(bytes.as_slice()).map_err(DatabaseError::of)?;
        Ok(held.map_or(RecordLookup::Nothing, |held| found(key, &bytes, held.value(), self.record_times)))
    }

    fn remove_if(&mut self, key: &[u8], goes: impl FnOnce(&[u8]) -> bool) -> Result<(), DatabaseError> {
        let goes = self.table.get(key).map_err(DatabaseError::of)?.is_some_and(|held| goes(held.value()));
        if goes {
            let gone = self.table.remove(key).map_err(DatabaseError::of)?;
            let gone = gone.map_or(0, |gone| size(key, gone.value()));
            self.count(-gone.cast_signed(), -1);
            self.other_run.push(key.to_vec());
        }
        Ok(())
    }

    const fn count(&mut self, bytes: i64, jobs: i64) {
        self.change = (self.change.0 + bytes, self.change.1 + jobs);
    }
}

/// Puts a small entry, or removes it.
fn put(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    body: Option<&[u8]>,
) -> Result<(), DatabaseError> {
    match body {
        Some(body) => {
            let sealed = record::seal(key, &[FORMAT.to_be_bytes()[7]], body);
            table.insert(key, sealed.as_slice()).map(drop).map_err(DatabaseError::of)
        }
        None => table.remove(key).map(drop).map_err(DatabaseError::of),
    }
}

fn add(
    meta: &mut Table<'_, &'static str, u64>,
    name: &'static str,
    change: i64,
) -> Result<u64, DatabaseError> {
    let before = meta.get(name).map_err(DatabaseError::of)?.map_or(0, |number| number.value());
    let after = before.saturating_add_signed(change);
    meta.insert(name, after).map_err(DatabaseError::of)?;
    Ok(after)
}

const fn size(key: &[u8], record: &[u8]) -> u64 {
    (key.len() + record.len()) as u64
}
