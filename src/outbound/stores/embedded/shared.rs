//! The state that readers and the writer of the file share, and the read path: pending writes are visible to readers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use redb::Database;

use super::file::{DatabaseError, OpenError, OpenMode, StorePath, guarded};
use super::rows::RowLimits;
use super::tables::{self, RecordLookup, RecordTimes, TableReader, TableTotals};
use super::writer::WriteQueue;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::stores::memory::{Retention, fits};
use crate::outbound::stores::record::{self, RecordClock};
use crate::ports::clock::Clock;
use crate::ports::store::{ListFilter, StoreError, StoreHealth};
use crate::telemetry::warning_throttle::LimitedWarning;

/// The state that readers and the writer share.
#[derive(Debug)]
pub(super) struct StoreShared {
    pub(super) place: StorePath,
    pub(super) retention: Retention,
    pub(super) max_bytes: u64,
    pub(super) rows: RowLimits,
    pub(super) clock: Arc<dyn Clock>,
    /// The id of this run of the process, and its start in process time.
    run: (u64, Timestamp),
    /// None while the disk prevents opening it.
    pub(super) database: RwLock<Option<Database>>,
    pub(super) queue: Mutex<WriteQueue>,
    pub(super) wake: Condvar,
    /// Whether this process has opened the file before: then its content since then is known.
    pub(super) checked: AtomicBool,
    pub(super) counts: StoreCounts,
    /// Jobs in the memory tier of which the file has newer observations: evicted at the next read.
    pub(super) refused: Mutex<Vec<JobKey>>,
    pub(super) failing: LimitedWarning,
}

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
    pub(super) fn note(&self, totals: TableTotals, file_bytes: u64) {
        self.record_bytes.store(totals.bytes, Ordering::Relaxed);
        self.jobs.store(totals.jobs, Ordering::Relaxed);
        self.row_bytes.store(totals.rows, Ordering::Relaxed);
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
    }
}

impl StoreShared {
    pub(super) fn new(
        place: StorePath,
        max_bytes: u64,
        rows: RowLimits,
        retention: Retention,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            place,
            retention,
            max_bytes,
            rows,
            run: (fastrand::u64(1..), clock.now()),
            clock,
            database: RwLock::new(None),
            queue: Mutex::default(),
            wake: Condvar::new(),
            checked: AtomicBool::new(false),
            counts: StoreCounts::default(),
            refused: Mutex::default(),
            failing: LimitedWarning::default(),
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let StoreCounts {
            degraded,
            dropped,
            damaged,
            quarantined,
            file_bytes,
            record_bytes: _,
            jobs,
            row_bytes: _,
        } = &self.counts;
        StoreHealth {
            degraded: degraded.load(Ordering::Relaxed),
            unwritten: self.queue().behind.len() as u64,
            dropped: number(dropped),
            damaged: number(damaged),
            quarantined: number(quarantined),
            bytes: number(file_bytes),
            jobs: number(jobs),
            memory: 0,
            shared_store: None,
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

    /// Opens the file for the first time.
    pub(super) fn begin(&self) -> Result<(), OpenError> {
        let path = || self.place.path();
        match self.reopen(OpenMode::Full) {
            Ok(()) => {}
            Err(DatabaseError::InUse) => return Err(OpenError::InUse { path: path() }),
            Err(DatabaseError::PendingCredential(found)) => {
                return Err(OpenError::PendingCredential { path: path(), found });
            }
            Err(DatabaseError::Damaged(why)) => self.replace_file(&why),
            Err(DatabaseError::Disk(why)) => {
                self.counts.degraded.store(true, Ordering::Relaxed);
                tracing::error!(reason = why, file = %path().display(), "store could not be opened; using memory only");
            }
        }
        if let Ok(Some(totals)) = self.with_reader(TableReader::totals) {
            self.counts.note(totals, self.place.size());
        }
        Ok(())
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the current file; `None` while it is not open. A file that is found to be damaged is replaced.
    pub(super) fn with_reader<T>(
        &self,
        read: impl FnOnce(&TableReader) -> Result<T, DatabaseError>,
    ) -> Result<Option<T>, StoreError> {
        let (outcome, file) = {
            let database = self.database();
            let Some(database) = database.as_ref() else { return Ok(None) };
            (guarded(|| read(&TableReader::begin(database, self.record_times())?)), self.file())
        };
        outcome.map(Some).map_err(|error| {
            if let DatabaseError::Damaged(why) = &error {
                self.condemn(file, why.clone());
            }
            StoreError(error.to_string())
        })
    }

    /// The observation of each key, pending or written. A damaged record is a miss, and is removed.
    pub(super) fn get(&self, keys: &[JobKey]) -> Result<Vec<Option<Observation>>, StoreError> {
        let waiting: Vec<Option<Observation>> = {
            let queue = self.queue();
            keys.iter().map(|key| queue.behind.get(key).cloned()).collect()
        };
        // What was written meanwhile is in the file: it is read afterwards.
        let found = self.with_reader(|reader| reader.get(keys));
        if waiting.iter().all(Option::is_some) {
            return Ok(waiting);
        }
        let found = found?.unwrap_or_else(|| vec![RecordLookup::Nothing; keys.len()]);
        let now = self.clock.now();
        let newer = |((key, waits), found)| match (waits, found) {
            (Some(waits), RecordLookup::Held(held)) if held.supersedes(&waits) => Some(held),
            (Some(waits), _) => Some(waits),
            (None, RecordLookup::Held(held)) => Some(held).filter(|held| !self.is_outlived(held, now)),
            (None, RecordLookup::Nothing) => None,
            (None, RecordLookup::Damaged) => {
                self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::error!(job = %key, "damaged record in the store; removed");
                self.note(|queue| queue.damaged.push(JobKey::clone(key)));
                None
            }
        };
        Ok(keys.iter().zip(waiting).zip(found).map(newer).collect())
    }

    /// The observations in the order of the keys: the written ones, merged with the pending ones.
    pub(super) fn list(
        &self,
        filter: &ListFilter,
        after: Option<&JobKey>,
        limit: usize,
    ) -> Result<Vec<Observation>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut waiting: BTreeMap<JobKey, Observation> = {
            let queue = self.queue();
            queue
                .behind
                .range::<JobKey, _>((from, Bound::Unbounded))
                .map(|(key, job)| (key.clone(), job.clone()))
                .collect()
        };
        let (now, record_times) = (self.clock.now(), self.record_times());
        let mut page = Vec::new();
        let take = |one: Observation, page: &mut Vec<Observation>| {
            if fits(filter, &one) && !self.is_outlived(&one, now) {
                page.push(one);
            }
        };
        let start = after.map(record::key_bytes);
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.with_reader(|reader| {
            reader.walk(start, Bound::Unbounded, |bytes, held| {
                if page.len() >= limit {
                    return false;
                }
                let Some(key) = record::read_key(bytes) else { return true };
                while waiting.first_key_value().is_some_and(|(first, _)| *first < key) {
                    if let Some((_, first)) = waiting.pop_first() {
                        take(first, &mut page);
                    }
                }
                let waits = waiting.remove(&key);
                let state = record::head(held).and_then(|head| head.state);
                let unwanted =
                    state.is_some_and(|state| !filter.states.is_empty() && !filter.states.contains(&state));
                if waits.is_none()
                    && (unwanted || !(filter.sources.is_empty() || filter.sources.contains(&key.source)))
                {
                    return true;
                }
                let newest = match (waits, tables::found(&key, bytes, held, record_times)) {
                    (Some(waits), RecordLookup::Held(held)) if held.supersedes(&waits) => Some(held),
                    (Some(waits), _) => Some(waits),
                    (None, RecordLookup::Held(held)) => Some(held),
                    (None, RecordLookup::Nothing | RecordLookup::Damaged) => None,
                };
                if let Some(newest) = newest {
                    take(newest, &mut page);
                }
                true
            })
        })?;
        for (_, rest) in waiting {
            take(rest, &mut page);
        }
        page.truncate(limit);
        Ok(page)
    }

    fn is_outlived(&self, held: &Observation, now: Timestamp) -> bool {
        let head = record::RecordHead {
            state: Some(held.job.state()),
            observed_ms: held.observed_at.as_millisecond(),
        };
        self.retention.outlived(head, now)
    }
}
