//! What readers and the writer of the file share: the pending changes, and the read path, to which they are visible.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::database_error::{DatabaseError, guarded};
use super::file::{OpenError, OpenMode};
use super::record_lookup::{RecordLookup, found};
use super::rows::{RowLimits, RowLookup};
use super::store_file::{StoreCounts, StoreFile};
use super::tables::TableReader;
use super::write_queue::WriteQueue;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::stores::memory::fits;
use crate::outbound::stores::record;
use crate::ports::store::{ListFilter, StoreError, StoreHealth};
use crate::telemetry::throttle::Throttle;

/// The state that readers and the writer share.
#[derive(Debug)]
pub(super) struct StoreShared {
    pub(super) file: StoreFile,
    pub(super) max_bytes: u64,
    pub(super) rows: RowLimits,
    queue: Mutex<WriteQueue>,
    /// Notified when the queue has changed.
    pub(super) wake: Condvar,
    /// Jobs in the memory tier of which the file has newer observations: evicted at the next read.
    pub(super) refused: Mutex<Vec<JobKey>>,
    pub(super) failing: Throttle,
}

impl StoreShared {
    pub(super) fn new(file: StoreFile, max_bytes: u64, rows: RowLimits) -> Self {
        Self {
            file,
            max_bytes,
            rows,
            queue: Mutex::default(),
            wake: Condvar::new(),
            refused: Mutex::default(),
            failing: Throttle::default(),
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
        } = &self.file.counts;
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

    /// Opens the file for the first time.
    pub(super) fn begin(&self) -> Result<(), OpenError> {
        let path = || self.file.place.path();
        match self.file.reopen(OpenMode::Full) {
            Ok(()) => {}
            Err(DatabaseError::InUse) => return Err(OpenError::InUse { path: path() }),
            Err(DatabaseError::NewerFormat(found)) => {
                return Err(OpenError::NewerFormat { path: path(), found });
            }
            Err(DatabaseError::Damaged(why)) => self.file.replace(&why),
            Err(DatabaseError::Disk(why)) => {
                self.file.counts.degraded.store(true, Ordering::Relaxed);
                tracing::error!(reason = why, file = %path().display(), "store could not be opened; using memory only");
            }
        }
        if let Ok(Some(totals)) = self.with_reader(TableReader::totals) {
            self.file.counts.note(totals, self.file.place.size());
        }
        Ok(())
    }

    /// The pending changes.
    pub(super) fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the current file; `None` while it is not open. A file that is found to be damaged is replaced.
    pub(super) fn with_reader<T>(
        &self,
        read: impl FnOnce(&TableReader) -> Result<T, DatabaseError>,
    ) -> Result<Option<T>, StoreError> {
        let (outcome, file) = {
            let database = self.file.database();
            let Some(database) = database.as_ref() else { return Ok(None) };
            (guarded(|| read(&TableReader::begin(database, self.file.record_times())?)), self.file.number())
        };
        outcome.map(Some).map_err(|error| {
            if let DatabaseError::Damaged(why) = &error {
                self.condemn(file, why.clone());
            }
            StoreError(error.to_string())
        })
    }

    /// Returns whether the store is closing.
    pub(super) fn is_stopping(&self) -> bool {
        self.queue().stop
    }

    /// Writes an observation in the background.
    pub(super) fn write_behind(&self, new: Observation) {
        let mut queue = self.queue();
        self.let_wait(&mut queue, new);
        drop(queue);
        self.wake.notify_one();
    }

    /// Writes an observation now. The receiver completes when it is on the disk, or when the disk fails and it stays
    /// pending.
    pub(super) fn write_now(&self, new: Observation) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut queue = self.queue();
        if self.file.counts.degraded.load(Ordering::Relaxed) || queue.stop {
            self.let_wait(&mut queue, new);
            // It cannot be made durable now: the sender is dropped, and the receiver completes.
            drop(done);
        } else {
            queue.urgent.push(new);
            queue.waiting.push(done);
        }
        drop(queue);
        self.wake.notify_one();
        receiver
    }

    /// Writes all pending changes now. The receiver completes when they are written, and fails when they cannot be.
    pub(super) fn flush(&self) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut queue = self.queue();
        if !self.file.counts.degraded.load(Ordering::Relaxed) && !queue.stop {
            queue.waiting.push(done);
        }
        drop(queue);
        self.wake.notify_one();
        receiver
    }

    /// Records a change of the ledger, or of records, to be written in the background.
    pub(super) fn note(&self, note: impl FnOnce(&mut WriteQueue)) {
        note(&mut self.queue());
        self.wake.notify_one();
    }

    /// Reports a file that a reader found damaged.
    pub(super) fn condemn(&self, file: u64, why: String) {
        self.note(|queue| queue.condemn(file, why));
    }

    /// Stops the writer after it has written the pending changes.
    pub(super) fn stop(&self) {
        self.note(|queue| queue.stop = true);
    }

    /// Adds an observation to those that are written in the background.
    pub(super) fn let_wait(&self, queue: &mut WriteQueue, new: Observation) {
        if !queue.put_behind(new) {
            self.file.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The observation of each key, pending or written. A damaged record is a miss, and is removed.
    pub(super) fn get(&self, keys: &[JobKey]) -> Result<Vec<Option<Observation>>, StoreError> {
        let waiting: Vec<Option<Observation>> = {
            let queue = self.queue();
            keys.iter().map(|key| queue.behind.get(key).cloned()).collect()
        };
        // What was written meanwhile is in the file: it is read afterwards.
        let written = self.with_reader(|reader| reader.get(keys));
        if waiting.iter().all(Option::is_some) {
            return Ok(waiting);
        }
        let written = written?.unwrap_or_else(|| vec![RecordLookup::Nothing; keys.len()]);
        let now = self.file.clock.now();
        let newer = |((key, waits), written)| match (waits, written) {
            (Some(waits), RecordLookup::Held(held)) if held.supersedes(&waits) => Some(held),
            (Some(waits), _) => Some(waits),
            (None, RecordLookup::Held(held)) => Some(held).filter(|held| !self.is_outlived(held, now)),
            (None, RecordLookup::Nothing) => None,
            (None, RecordLookup::Damaged) => {
                self.file.counts.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::error!(job = %key, "damaged record in the store; removed");
                self.note(|queue| queue.damaged.push(JobKey::clone(key)));
                None
            }
        };
        Ok(keys.iter().zip(waiting).zip(written).map(newer).collect())
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
        let (now, record_times) = (self.file.clock.now(), self.file.record_times());
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
                let newest = match (waits, found(&key, bytes, held, record_times)) {
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

    /// The range of a job that begins with a row, if it was kept for the same run.
    pub(super) fn rows(&self, of: &Observation, first: u32) -> Option<Vec<u8>> {
        // A pending write of the job may be of another run than the file.
        if self.queue().behind.contains_key(&of.job.key) {
            return None;
        }
        match self.with_reader(|reader| reader.rows(of, first)).ok()?? {
            RowLookup::Sound(body) => Some(body),
            RowLookup::Nothing => None,
            RowLookup::Damaged(key) => {
                self.file.counts.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::error!(job = %of.job.key, "damaged rows in the store; ignored");
                self.note(|queue| queue.rows_gone.push(key));
                None
            }
        }
    }

    fn is_outlived(&self, held: &Observation, now: Timestamp) -> bool {
        let head = record::RecordHead {
            state: Some(held.job.state()),
            observed_ms: held.observed_at.as_millisecond(),
        };
        self.file.outlived(head, now)
    }
}
