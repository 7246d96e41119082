//! The only thread that writes: collects the changes since the last commit, and writes them in one transaction. A
//! failed write is retried until it succeeds; the pending changes are bounded, and readable.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::prune;
use super::shared::StoreShared;
use super::tables::WriteBatch;
use super::write_queue::{DamagedFile, WriteQueue};

/// How long a change without a waiter may wait for others to batch with.
const BEHIND: Duration = Duration::from_millis(200);
/// The longest idle time: pruning runs after each.
const REST: Duration = Duration::from_mins(1);
/// The delay between attempts to write while the disk fails: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

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
        let degraded = shared.file.counts.degraded.load(Ordering::Relaxed);
        let (batch, waiting, condemned, stop) = collect(shared, degraded, retry);
        // If two readers found the same damage, the second report may arrive after the replacement.
        if let Some((_, why)) = condemned.filter(|(file, _)| *file == shared.file.number()) {
            shared.file.replace(&why);
        }
        let outcome = shared.file.write(&batch);
        let is_written = outcome.is_ok();
        let mut queue = shared.queue();
        match outcome {
            Ok(written) => {
                queue.strike(&batch);
                shared.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(written.refused);
                retry = RETRY.0;
                if degraded {
                    shared.file.counts.degraded.store(false, Ordering::Relaxed);
                    tracing::info!(jobs = batch.jobs.len(), "store writable again; pending records written");
                }
            }
            Err(error) => {
                for job in batch.jobs {
                    shared.let_wait(&mut queue, job);
                }
                shared.file.counts.degraded.store(true, Ordering::Relaxed);
                if degraded {
                    retry = (retry * 2).min(RETRY.1);
                }
                if let Some(suppressed) = shared.failing.admit() {
                    let file = shared.file.place.path();
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
