//! The only thread that writes: collects the changes since the last commit, and writes them in one transaction. A
//! failed write is retried until it succeeds; the pending changes are bounded, and readable.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::file::{DatabaseError, OpenMode, guarded};
use super::prune;
use super::rows::{RowLimits, RowRun};
use super::shared::StoreShared;
use super::tables::{self, BatchOutcome, WriteBatch};
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::ledger::Labels;

/// How long a change without a waiter may wait for others to batch with.
const BEHIND: Duration = Duration::from_millis(200);
/// The longest idle time: pruning runs after each.
const REST: Duration = Duration::from_mins(1);
/// The delay between attempts to write while the disk fails: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The most jobs that wait to be written, about 1 kB each.
const WAITING_MAX: usize = 50_000;

/// The pending changes. Those in `behind` are readable; those in `urgent` are not published yet.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    pub(super) behind: BTreeMap<JobKey, Observation>,
    pub(super) tracked: BTreeMap<JobKey, Option<Labels>>,
    pub(super) followed: BTreeMap<JobKey, bool>,
    pub(super) learned: BTreeMap<JobClass, Durations>,
    pub(super) rows: Vec<RowRun>,
    pub(super) rows_gone: Vec<Vec<u8>>,
    pub(super) damaged: Vec<JobKey>,
    pub(super) outlived: Vec<Vec<u8>>,
    urgent: Vec<Observation>,
    waiting: Vec<oneshot::Sender<()>>,
    /// The file that a reader found damaged.
    condemned: Option<DamagedFile>,
    stop: bool,
}

/// Which file is damaged, identified by how many were set aside before it, and why.
type DamagedFile = (u64, String);

impl WriteQueue {
    fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || self.condemned.is_some() || self.stop
    }

    fn is_empty(&self) -> bool {
        self.behind.is_empty()
            && self.tracked.is_empty()
            && self.followed.is_empty()
            && self.learned.is_empty()
            && self.rows.is_empty()
            && self.rows_gone.is_empty()
            && self.damaged.is_empty()
            && self.outlived.is_empty()
    }

    /// Records that a job is followed, or not any more; skipped if a failing disk has caused a large backlog.
    pub(super) fn mark(&mut self, key: &JobKey, followed: bool) {
        if self.followed.len() < WAITING_MAX || self.followed.contains_key(key) {
            self.followed.insert(key.clone(), followed);
        }
    }

    fn batch(&self, row_limits: RowLimits) -> WriteBatch {
        WriteBatch {
            row_limits,
            rows: self.rows.clone(),
            rows_gone: self.rows_gone.clone(),
            jobs: self.behind.values().chain(&self.urgent).cloned().collect(),
            tracked: self.tracked.clone(),
            followed: self.followed.clone(),
            learned: self.learned.clone(),
            damaged: self.damaged.clone(),
            outlived: self.outlived.clone(),
        }
    }

    /// Removes what was written. Changes since then stay.
    fn strike(&mut self, written: &WriteBatch) {
        for job in &written.jobs {
            if self.behind.get(&job.job.key).is_some_and(|waits| !waits.supersedes(job)) {
                self.behind.remove(&job.job.key);
            }
        }
        self.tracked.retain(|key, labels| written.tracked.get(key) != Some(labels));
        self.followed.retain(|key, mark| written.followed.get(key) != Some(mark));
        self.learned.retain(|class, durations| written.learned.get(class) != Some(durations));
        self.rows.retain(|stretch| !written.rows.contains(stretch));
        self.rows_gone.retain(|key| !written.rows_gone.contains(key));
        self.damaged.retain(|key| !written.damaged.contains(key));
        self.outlived.clear();
    }
}

impl StoreShared {
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
        if self.counts.degraded.load(Ordering::Relaxed) || queue.stop {
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
        if !self.counts.degraded.load(Ordering::Relaxed) && !queue.stop {
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

    /// The current file: how many were set aside before it. Valid as long as the database lock is held.
    pub(super) fn file(&self) -> u64 {
        self.counts.quarantined.load(Ordering::Relaxed)
    }

    /// Reports a file that a reader found damaged.
    pub(super) fn condemn(&self, file: u64, why: String) {
        self.note(|queue| {
            if queue.condemned.as_ref().is_none_or(|(known, _)| *known <= file) {
                queue.condemned = Some((file, why));
            }
        });
    }

    /// Stops the writer after it has written the pending changes.
    pub(super) fn stop(&self) {
        self.note(|queue| queue.stop = true);
    }

    fn let_wait(&self, queue: &mut WriteQueue, new: Observation) {
        let room = queue.behind.len() < WAITING_MAX || queue.behind.contains_key(&new.job.key);
        if !room {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else if queue.behind.get(&new.job.key).is_none_or(|waits| new.supersedes(waits)) {
            queue.behind.insert(new.job.key.clone(), new);
        }
    }
}

/// Owned by the writer's thread: however the thread ends, no caller waits for it afterwards.
struct WriterGuard<'a>(&'a StoreShared);

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.stop = true;
        for job in std::mem::take(&mut queue.urgent) {
            self.0.let_wait(&mut queue, job);
        }
        queue.waiting.clear();
    }
}

/// Runs until it is stopped.
pub(super) fn run(shared: &Arc<StoreShared>) {
    let _ending = WriterGuard(shared);
    let mut retry = RETRY.0;
    let mut old = PruneTask { since: Instant::now(), worker: None };
    loop {
        let degraded = shared.counts.degraded.load(Ordering::Relaxed);
        let (batch, waiting, condemned, stop) = collect(shared, degraded, retry);
        // If two readers found the same damage, the second report may arrive after the replacement.
        if let Some((_, why)) = condemned.filter(|(file, _)| *file == shared.file()) {
            shared.replace_file(&why);
        }
        let outcome = shared.write(&batch);
        let is_written = outcome.is_ok();
        let mut queue = shared.queue();
        match outcome {
            Ok(written) => {
                queue.strike(&batch);
                shared.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(written.refused);
                retry = RETRY.0;
                if degraded {
                    shared.counts.degraded.store(false, Ordering::Relaxed);
                    tracing::info!(jobs = batch.jobs.len(), "store writable again; pending records written");
                }
            }
            Err(error) => {
                for job in batch.jobs {
                    shared.let_wait(&mut queue, job);
                }
                shared.counts.degraded.store(true, Ordering::Relaxed);
                if degraded {
                    retry = (retry * 2).min(RETRY.1);
                }
                if let Some(suppressed) = shared.failing.due() {
                    let file = shared.place.path();
                    tracing::error!(%error, file = %file.display(), suppressed, "store not writable; using memory only");
                }
            }
        }
        // Waiters whose jobs stay pending on a failing disk are notified only now, when the jobs are readable.
        drop(queue);
        if is_written {
            for done in waiting {
                // the receiver may have been dropped
                done.send(()).ok();
            }
        } else {
            drop(waiting);
        }
        if stop {
            return;
        }
        old.run(shared);
    }
}

/// The pruning. It scans the whole file, which may take seconds, so it runs on its own thread: the write of a terminal
/// job does not wait for it.
struct PruneTask {
    since: Instant,
    worker: Option<JoinHandle<()>>,
}

impl PruneTask {
    /// Starts when it is due, and the previous run has finished.
    fn run(&mut self, shared: &Arc<StoreShared>) {
        if self.since.elapsed() < REST || self.worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
            return;
        }
        self.since = Instant::now();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("jobgate-store-old".to_owned());
        // If the system has no thread left, it is retried in a minute.
        self.worker = thread.spawn(move || prune::run(&shared)).ok();
    }
}

impl Drop for PruneTask {
    /// The file is closed when the writer has ended: no thread may use it then.
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.join().ok();
        }
    }
}

type CollectedWrites = (WriteBatch, Vec<oneshot::Sender<()>>, Option<DamagedFile>, bool);

/// Waits for changes, and takes them: at once if there is a waiter, else batched.
fn collect(shared: &StoreShared, degraded: bool, retry: Duration) -> CollectedWrites {
    let idle = |queue: &mut WriteQueue| !queue.is_urgent() && queue.is_empty();
    let unhurried = |queue: &mut WriteQueue| !queue.is_urgent();
    let queue = shared.queue();
    let mut queue = if degraded {
        let stopped = |queue: &mut WriteQueue| !queue.stop && queue.condemned.is_none();
        shared.wake.wait_timeout_while(queue, retry, stopped)
    } else {
        let (queue, _) =
            shared.wake.wait_timeout_while(queue, REST, idle).unwrap_or_else(PoisonError::into_inner);
        shared.wake.wait_timeout_while(queue, BEHIND, unhurried)
    }
    .unwrap_or_else(PoisonError::into_inner)
    .0;
    let batch = queue.batch(shared.rows);
    queue.urgent.clear();
    let waiting = std::mem::take(&mut queue.waiting);
    (batch, waiting, queue.condemned.take(), queue.stop)
}

impl StoreShared {
    /// Writes a batch. A damaged file is set aside and replaced by a new one; a failing disk leaves the file open for
    /// readers.
    fn write(&self, batch: &WriteBatch) -> Result<BatchOutcome, DatabaseError> {
        if self.database().is_none() {
            // A file that could not be opened so far has not been checked either.
            let care = if self.checked.load(Ordering::Relaxed) { OpenMode::Little } else { OpenMode::Full };
            match self.reopen(care) {
                Err(DatabaseError::Damaged(why)) => self.replace_file(&why),
                opened => opened?,
            }
        }
        let first = self.try_write(batch);
        if let Err(DatabaseError::Damaged(why)) = &first {
            self.replace_file(why);
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
        let outlives = |head| self.retention.outlived(head, now);
        let written = guarded(|| tables::write(database, batch, &outlives, self.record_times()))?;
        self.counts.note(written.totals, self.place.size());
        Ok(written)
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
    pub(super) fn replace_file(&self, why: &str) {
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
