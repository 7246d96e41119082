//! The durable store: jobs in memory, and behind it a file of this process that survives a crash. A terminal job is on
//! the disk before it is published; the rest is written in the background. `docs/store.md` describes the guarantees.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use moka::ops::compute::Op;

use super::memory::{MemoryStore, Retention};
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::sweep::SweepRecord;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::leases::FencingToken;
use crate::ports::ledger::{Labels, Ledger, LedgerContents};
use crate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use crate::telemetry::meters::{self, CacheTier};

mod database_error;
mod file;
mod prune;
mod record_lookup;
mod rows;
mod shared;
mod store_file;
mod tables;
#[cfg(test)]
mod tests;
mod write_queue;
mod writer;

pub use self::file::OpenError;
use self::file::StorePath;
pub use self::rows::RowLimits;
use self::rows::RowRun;
use self::shared::StoreShared;
use self::store_file::StoreFile;
use self::tables::TableReader;

/// The number of counters for all keys. Two keys that share one cost a read that is not cached, and nothing else.
const STRIPES: usize = 1_024;

/// The location of the file, and its limits.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The folder of the file; created if it does not exist.
    pub path: PathBuf,
    /// The size of the file above which the oldest jobs are removed, in bytes.
    pub max_bytes: u64,
    /// The limits of the rows of jobs.
    pub rows: RowLimits,
    /// The retention of jobs, and the limits of the memory cache.
    pub retention: Retention,
}

/// A store with a file. Dropping it writes the pending changes, and closes the file.
#[derive(Debug)]
pub struct EmbeddedStore {
    memory: MemoryStore,
    /// Counts writes, by a hash of the key: a concurrent reader of the file does not cache what it read.
    kept: Vec<AtomicU64>,
    shared: Arc<StoreShared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store, or creates an empty one. A damaged file is set aside and reported; a full disk is not an error.
    /// Blocks on the disk, for a time in proportion to the file: every page of it is checked.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be used, another process has the file open, or a newer version wrote it.
    pub fn open(settings: EmbeddedSettings, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let EmbeddedSettings { path, max_bytes, rows, retention } = settings;
        Self::open_at(StorePath::new(path), max_bytes, rows, retention, clock)
    }

    fn open_at(
        place: StorePath,
        max_bytes: u64,
        rows: RowLimits,
        retention: Retention,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        if place.is_empty() {
            tracing::warn!(
                path = %place.path().display(),
                "store file is empty; starting with an empty store"
            );
        }
        place.prepare()?;
        let file = StoreFile::new(place, retention, clock);
        let shared = Arc::new(StoreShared::new(file, max_bytes, rows));
        shared.begin()?;
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("jobgate-store".to_owned());
        let thread = thread.spawn(move || writer::run(&writing));
        let thread =
            thread.map_err(|reason| OpenError::Unusable { path: shared.file.place.path(), reason })?;
        let kept = std::iter::repeat_with(AtomicU64::default).take(STRIPES).collect();
        Ok(Self { memory: MemoryStore::new(retention), kept, shared, thread: Mutex::new(Some(thread)) })
    }

    fn stripe(&self, key: &JobKey) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0);
        self.kept.get(place).unwrap_or_else(|| unreachable!("the remainder is below the length"))
    }

    /// Reads the file on a thread that may block on the disk.
    async fn read(&self, keys: Vec<JobKey>) -> Result<Vec<Option<Observation>>, StoreError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.get(&keys)).await
    }

    /// Caches what was read, unless the key was written since.
    async fn hold(&self, read: &Observation, kept_before: u64) {
        let key = &read.job.key;
        let unless_kept = |held: Option<moka::Entry<JobKey, Observation>>| {
            let is_current = held.is_none() && self.stripe(key).load(Ordering::SeqCst) == kept_before;
            std::future::ready(if is_current { Op::Put(read.clone()) } else { Op::Nop })
        };
        self.memory.jobs.entry_by_ref(key).and_compute_with(unless_kept).await;
    }

    /// Returns whether rows are kept.
    pub fn keeps_rows(&self) -> bool {
        self.shared.rows.per_job > 0
    }

    /// Writes a range of rows in the background.
    pub fn keep_rows(&self, of: &Observation, first: u32, body: Vec<u8>) {
        if body.len() as u64 > self.shared.rows.per_job {
            return;
        }
        let stretch =
            RowRun { of: of.clone(), first, kept_ms: self.shared.file.clock.now().as_millisecond(), body };
        self.shared.note(|queue| queue.put_rows(stretch));
    }

    /// The range of a job that begins with a row, if it was kept for the same run.
    pub async fn rows(&self, of: &Observation, first: u32) -> Option<Vec<u8>> {
        let (shared, of) = (Arc::clone(&self.shared), of.clone());
        blocking(move || Ok(shared.rows(&of, first))).await.ok().flatten()
    }

    /// Evicts the jobs of which the file has newer observations.
    async fn let_go(&self) {
        let refused =
            std::mem::take(&mut *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner));
        for key in refused {
            self.memory.jobs.invalidate(&key).await;
        }
    }
}

impl JobStore for EmbeddedStore {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            self.let_go().await;
            let mut held = Vec::with_capacity(keys.len());
            let mut missed = Vec::new();
            for (place, key) in keys.iter().enumerate() {
                let memory = self.memory.jobs.get(key).await;
                if memory.is_none() {
                    missed.push((place, self.stripe(key).load(Ordering::SeqCst)));
                }
                held.push(memory);
            }
            meters::cache_reads(CacheTier::Memory, keys.len() - missed.len());
            if missed.is_empty() {
                return Ok(held);
            }
            let wanted = missed.iter().filter_map(|(place, _)| keys.get(*place).cloned()).collect();
            let (mut read_from_file, requested) = (0, missed.len());
            for ((place, kept_before), read) in missed.into_iter().zip(self.read(wanted).await?) {
                if let (Some(slot), Some(read)) = (held.get_mut(place), read) {
                    self.hold(&read, kept_before).await;
                    *slot = Some(read);
                    read_from_file += 1;
                }
            }
            meters::cache_reads(CacheTier::Store, read_from_file);
            meters::cache_reads(CacheTier::None, requested - read_from_file);
            Ok(held)
        })
    }

    fn held(&self, key: &JobKey) -> Option<Observation> {
        // they are removed from memory by the next read that waits
        let refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_empty() { self.memory.find_now(key) } else { None }
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        Box::pin(async move {
            let key = new.job.key.clone();
            let mut outcome = StoreOutcome::New(None);
            let stored = &mut outcome;
            // Until the returned future completes, no other task writes this key, and no reader gets an earlier state
            // of it.
            let compare = async |memory: Option<moka::Entry<JobKey, Observation>>| {
                let is_near = memory.is_some();
                let held = match memory {
                    Some(memory) => Some(memory.into_value()),
                    // A file that cannot be read is a miss; the record in it is compared again during the write.
                    None => self.read(vec![key.clone()]).await.ok().and_then(|mut read| read.pop().flatten()),
                };
                if let Some(held) = held.as_ref().filter(|held| !new.supersedes(held)) {
                    *stored = StoreOutcome::Older(held.clone());
                    return if is_near { Op::Nop } else { Op::Put(held.clone()) };
                }
                let was_over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                let new = new.clone().replacing(held.as_ref());
                if new.job.is_terminal() || was_over {
                    // Both results of the channel mean: it is written, or it cannot be written now.
                    self.shared.write_now(new.clone()).await.ok();
                } else {
                    self.shared.write_behind(new.clone());
                }
                self.stripe(&key).fetch_add(1, Ordering::SeqCst);
                *stored = StoreOutcome::New(held);
                Op::Put(new)
            };
            self.memory.jobs.entry_by_ref(&key).and_compute_with(compare).await;
            self.memory.missing.invalidate(&key).await;
            outcome
        })
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        self.memory.note_missing(key)
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        self.memory.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        let (shared, filter, after) = (Arc::clone(&self.shared), filter.clone(), after.cloned());
        Box::pin(blocking(move || shared.list(&filter, after.as_ref(), limit)))
    }

    fn health(&self) -> StoreHealth {
        StoreHealth { memory: self.memory.count(), ..self.shared.health() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = Arc::clone(&self.shared);
        let close = move || {
            if let Some(thread) = thread {
                thread.join().ok();
            }
            shared.file.close();
            Ok(())
        };
        Box::pin(async move {
            blocking(close).await.ok();
        })
    }
}

impl Ledger for EmbeddedStore {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || shared.with_reader(TableReader::remembered).map(Option::unwrap_or_default)))
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.note(|queue| queue.tracked.extend(jobs));
        let written = self.shared.flush();
        Box::pin(async move {
            let message = "what is tracked cannot be written now, and waits in memory";
            written.await.map_err(|_| StoreError(message.to_owned()))
        })
    }

    fn follow(&self, key: &JobKey, followed: bool) {
        self.shared.note(|queue| queue.mark(key, followed));
    }

    fn learned(&self) -> BoxFuture<'_, Result<Vec<(JobClass, Durations)>, StoreError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || shared.with_reader(TableReader::learned).map(Option::unwrap_or_default)))
    }

    fn learn(&self, class: &JobClass, durations: &Durations) {
        self.shared.note(|queue| drop(queue.learned.insert(class.clone(), durations.clone())));
    }

    fn sweep<'a>(&'a self, lease: &'a JobKey) -> BoxFuture<'a, Result<Option<SweepRecord>, StoreError>> {
        let source = &lease.source;
        let waiting = self.shared.queue().sweeps.get(source).cloned();
        if waiting.is_some() {
            return Box::pin(std::future::ready(Ok(waiting)));
        }
        let (shared, source) = (Arc::clone(&self.shared), source.clone());
        Box::pin(blocking(move || shared.with_reader(|reader| reader.sweep(&source)).map(Option::flatten)))
    }

    fn note_sweep<'a>(
        &'a self,
        lease: &'a JobKey,
        record: &'a SweepRecord,
        _: FencingToken,
    ) -> BoxFuture<'a, bool> {
        // The last list is for other replicas.
        let record = SweepRecord { unfinished: Vec::new(), ..record.clone() };
        self.shared.note(|queue| drop(queue.sweeps.insert(lease.source.clone(), record)));
        Box::pin(std::future::ready(true))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().ok();
        }
    }
}

/// Runs a function that blocks on the disk on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(StoreError("a read of the file was lost".to_owned())))
}
