//! Reconciles the jobs after an outage: the terminal jobs in this process are compared with the shared records, and the
//! one that supersedes the other is what all replicas return from then on. So it does not matter which writes were
//! rejected or lost, nor to which replica an upstream reported what.
//!
//! It runs in its own task, in small batches with pauses in between, and uses no memory beyond the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::RedisLedger;
use super::replica::RedisReplica;
use super::store::{Reconciled, RedisStore};
use super::unavailable::Unavailable;
use crate::ports::feed::{ChangeNotification, RemoteChange};

/// Jobs that are compared concurrently, and the pause after them.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);
/// The shortest time between two complete comparisons: this limits the cost of an unstable Redis.
const APART: Duration = Duration::from_secs(4);

/// The state of the reconciliation.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// The number of failed commands up to which everything was compared.
    seen: AtomicU64,
    /// Whether all jobs must be compared.
    all: AtomicBool,
    emptied: AtomicBool,
    wake: Notify,
}

impl Reconciliation {
    /// Records that Redis replies, and how many commands had failed before.
    pub(super) fn request(&self, faults: u64, emptied: bool) {
        if self.seen.swap(faults, Ordering::Relaxed) != faults || emptied {
            self.all.store(true, Ordering::Relaxed);
        }
        self.emptied.fetch_or(emptied, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// Reconciles for ever, whenever Redis is available.
pub(super) async fn run(
    repair: &Reconciliation,
    replica: &Arc<RedisReplica>,
    store: &Arc<RedisStore>,
    ledger: &RedisLedger,
) {
    let mut last: Option<Instant> = None;
    loop {
        repair.wake.notified().await;
        ledger.write_back(repair.emptied.swap(false, Ordering::Relaxed)).await;
        let due = last.is_none_or(|last| last.elapsed() >= APART);
        if due && repair.all.swap(false, Ordering::Relaxed) {
            last = Some(Instant::now());
            if compare_all(replica, store).await.is_err() {
                // The remaining jobs are compared when Redis is available again.
                repair.all.store(true, Ordering::Relaxed);
            }
        }
        store.write_back().await;
    }
}

/// Compares every terminal job in this process.
async fn compare_all(replica: &Arc<RedisReplica>, store: &Arc<RedisStore>) -> Result<(), Unavailable> {
    let held = store.ended();
    let (mut pushed, mut pulled) = (0_usize, 0_usize);
    for some in held.chunks(AT_ONCE) {
        let compared = join_all(some.iter().map(|held| store.reconcile(held))).await;
        for (held, outcome) in some.iter().zip(compared) {
            match outcome? {
                Reconciled::Same => {}
                Reconciled::Pushed => pushed += 1,
                Reconciled::Pulled => {
                    pulled += 1;
                    // As if the other replica had just observed it: watchers and feeds are notified.
                    replica
                        .notifications
                        .put(ChangeNotification { key: held.job.key.clone(), what: RemoteChange::Changed });
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    if pushed + pulled > 0 {
        tracing::info!(jobs = held.len(), pushed, pulled, "terminal jobs reconciled with redis");
    }
    Ok(())
}
