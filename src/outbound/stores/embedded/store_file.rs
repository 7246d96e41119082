//! The open file of the store: opens, writes and closes it, and replaces it by an empty one if it is damaged. What is
//! written when is decided in `writer`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use redb::Database;

use super::database_error::{DatabaseError, guarded};
use super::file::{OpenMode, StorePath};
use super::record_lookup::RecordTimes;
use super::tables::{self, BatchOutcome, PruneRule, TableTotals, WriteBatch};
use crate::outbound::stores::memory::Retention;
use crate::outbound::stores::record::{self, RecordClock, RecordHead};
use crate::ports::clock::Clock;

/// The file of the store while the process runs.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) place: StorePath,
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
    /// The id of this run of the process, and its start in process time.
    run: (u64, Timestamp),
    /// None while the disk prevents opening it.
    database: RwLock<Option<Database>>,
    /// Whether this process has opened the file before: then its content since then is known.
    checked: AtomicBool,
    pub(super) counts: StoreCounts,
}

/// The last known state of the file, and counters since the start.
#[derive(Debug, Default)]
pub(super) struct StoreCounts {
    pub(super) degraded: AtomicBool,
    pub(super) dropped: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) file_bytes: AtomicU64,
    pub(super) record_bytes: AtomicU64,
    pub(super) jobs: AtomicU64,
    pub(super) row_bytes: AtomicU64,
}

impl StoreCounts {
    /// Records the sizes of the file and its tables.
    pub(super) fn note(&self, totals: TableTotals, file_bytes: u64) {
        self.record_bytes.store(totals.bytes, Ordering::Relaxed);
        self.jobs.store(totals.jobs, Ordering::Relaxed);
        self.row_bytes.store(totals.rows, Ordering::Relaxed);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
    }
}

impl StoreFile {
    pub(super) fn new(place: StorePath, retention: Retention, clock: Arc<dyn Clock>) -> Self {
        Self {
            place,
            retention,
            run: (fastrand::u64(1..), clock.now()),
            clock,
            database: RwLock::new(None),
            checked: AtomicBool::new(false),
            counts: StoreCounts::default(),
        }
    }

    /// The clock for records that are written and read now.
    pub(super) fn record_times(&self) -> RecordTimes {
        let (run, began) = self.run;
        let shift = i64::try_from(self.clock.correction().as_millis()).unwrap_or(0);
        // Times of other runs are not shifted: which of the two clocks was right is unknown, and they cannot be later
        // than the start of this run.
        RecordTimes { frame: RecordClock { run, shift, others: 0 }, began }
    }

    /// The time by which records expire: the earlier of the two, because a clock that is ahead must not empty the file.
    pub(super) fn retained_by(&self) -> Timestamp {
        self.clock.now().min(self.clock.time_of_day())
    }

    /// Returns whether a record has expired. One in a state of a newer version is kept like a terminal one.
    pub(super) fn outlived(&self, head: RecordHead, now: Timestamp) -> bool {
        let unfinished = head.state.is_some_and(|state| !state.is_terminal());
        let kept = if unfinished { self.retention.unfinished } else { self.retention.finished };
        u128::from(record::age_ms(head.observed_ms, now)) > kept.as_millis()
    }

    /// The database, if it is open.
    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current file: how many were set aside before it. Valid as long as the database lock is held.
    pub(super) fn number(&self) -> u64 {
        self.counts.quarantined.load(Ordering::Relaxed)
    }

    /// Writes a batch. A damaged file is set aside and replaced by a new one; a failing disk leaves the file open for
    /// readers.
    pub(super) fn write(&self, batch: &WriteBatch) -> Result<BatchOutcome, DatabaseError> {
        if self.database().is_none() {
            // A file that could not be opened so far has not been checked either.
            let care = if self.checked.load(Ordering::Relaxed) { OpenMode::Little } else { OpenMode::Full };
            match self.reopen(care) {
                Err(DatabaseError::Damaged(why)) => self.replace(&why),
                opened => opened?,
            }
        }
        let first = self.try_write(batch);
        if let Err(DatabaseError::Damaged(why)) = &first {
            self.replace(why);
            return self.try_write(batch);
        }
        if first.is_err() {
            // A database accepts no more writes after a failure; reopened it can at least be read.
            self.reopen(OpenMode::Little).ok();
        }
        first
    }

    fn try_write(&self, batch: &WriteBatch) -> Result<BatchOutcome, DatabaseError> {
        let database = self.database();
        let Some(database) = database.as_ref() else {
            return Err(DatabaseError::Disk("the file is not open".to_owned()));
        };
        let now = self.retained_by();
        let outlives = |head| self.outlived(head, now);
        self.write_to(database, batch, &outlives)
    }

    /// Writes a batch to the open database, and records the sizes after it.
    pub(super) fn write_to(
        &self,
        database: &Database,
        batch: &WriteBatch,
        outlives: PruneRule<'_>,
    ) -> Result<BatchOutcome, DatabaseError> {
        let written = guarded(|| tables::write(database, batch, outlives, self.record_times()))?;
        self.counts.note(written.totals, self.place.size());
        Ok(written)
    }

    /// Closes the database.
    pub(super) fn close(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Compacts the file, if it is open. Readers wait meanwhile. Returns its size before and after.
    pub(super) fn compact(&self) -> Option<Result<(u64, u64), DatabaseError>> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_mut()?;
        let before = self.place.size();
        let compacted = guarded(|| database.compact().map_err(DatabaseError::of));
        Some(compacted.map(|_| (before, self.place.size())))
    }

    /// Closes the database and opens it again.
    pub(super) fn reopen(&self, care: OpenMode) -> Result<(), DatabaseError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one releases the file before the new one opens it.
        drop(database.take());
        *database = Some(self.place.open(care)?);
        self.checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sets a damaged file aside and creates a new one.
    pub(super) fn replace(&self, why: &str) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closing writes, and may panic on a damaged file.
        let close = || {
            drop(database.take());
            Ok(())
        };
        guarded(close).ok();
        self.counts.quarantined.fetch_add(1, Ordering::Relaxed);
        let quarantined = match self.place.quarantine(self.clock.time_of_day()) {
            Ok(quarantined) => quarantined,
            Err(error) => {
                tracing::error!(reason = why, %error, "store file damaged; renaming it failed");
                return;
            }
        };
        tracing::error!(reason = why, renamed_to = %quarantined.display(), "store file damaged; renamed and replaced by an empty one");
        match self.place.open(OpenMode::Little) {
            Ok(new) => *database = Some(new),
            Err(error) => tracing::error!(%error, "new store file could not be created"),
        }
    }
}
