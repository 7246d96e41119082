//! Changes by other replicas: a notification causes a read of the shared store, and the observation is applied like any
//! other, without being stored or sent on again. Lost notifications are recovered by reading all followed jobs again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::id::JobKey;
use crate::ports::feed::{ChangeNotification, FeedEvent, RemoteChange};
use crate::ports::ledger::{Labels, LedgerContents};
use crate::ports::upstream::FetchError;

use super::Core;
use super::ingest::{FetchResult, with_read_timeout};

/// Jobs read at once.
const AT_ONCE: usize = 500;
/// The client name of jobs that another replica was requested to track.
const CLIENT: &str = "tracked by another replica";
/// The tracked jobs are compared once in this many gaps, and at every notification about them.
const GAPS_A_LEDGER: u32 = 6;

/// The fetches that wait for another replica, by job.
#[derive(Debug, Default)]
pub(super) struct NotificationWaiters(Mutex<HashMap<JobKey, Arc<Notify>>>);

/// A waiting fetch. Dropping it ends the wait.
pub(super) struct NotificationWaiter<'a> {
    waiters: &'a NotificationWaiters,
    key: JobKey,
    notify: Arc<Notify>,
}

impl NotificationWaiters {
    /// Waits for notifications about a job. There is one waiter at a time, because a job has one single flight.
    pub(super) fn listen(&self, key: &JobKey) -> NotificationWaiter<'_> {
        let notify = Arc::new(Notify::new());
        self.lock().insert(key.clone(), Arc::clone(&notify));
        NotificationWaiter { waiters: self, key: key.clone(), notify }
    }

    fn apply_events(&self, key: &JobKey) {
        if let Some(notify) = self.lock().get(key) {
            notify.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NotificationWaiter<'_> {
    /// Resolves at the next notification, or at once if one arrived since the last call.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl Drop for NotificationWaiter<'_> {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.key);
    }
}

/// Receives notifications until `stop` is cancelled, and writes unpersisted observations to the store meanwhile.
pub(super) async fn run(inner: Arc<Core>, stop: CancellationToken) {
    tokio::select! {
        () = listen(&inner, stop) => {}
        () = inner.ingest.write_unpersisted() => {}
    }
}

async fn listen(inner: &Arc<Core>, stop: CancellationToken) {
    let mut tracked = BTreeSet::new();
    let mut gaps = 0_u32;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = inner.feed.next() => event,
        };
        let compares = match event {
            FeedEvent::Hints(hints) => {
                let compares = hints.iter().any(|hint| hint.what == RemoteChange::Tracked);
                inner.apply_events(hints).await;
                compares
            }
            FeedEvent::Gap => {
                inner.catch_up().await;
                gaps = gaps.wrapping_add(1);
                gaps % GAPS_A_LEDGER == 1
            }
        };
        if compares {
            inner.track_as_others(&mut tracked).await;
        }
    }
}

impl Core {
    /// Reads the jobs that notifications refer to, if this replica needs them.
    async fn apply_events(&self, hints: Vec<ChangeNotification>) {
        let mut changed: BTreeMap<JobKey, bool> = BTreeMap::new();
        for ChangeNotification { key, what } in hints {
            match what {
                RemoteChange::Changed => *changed.entry(key).or_default() = true,
                RemoteChange::Renewed if self.following.follows(&key) => {
                    changed.entry(key).or_default();
                }
                RemoteChange::Renewed | RemoteChange::Released => self.waiters.apply_events(&key),
                RemoteChange::Tracked => {}
            }
        }
        let changed: Vec<(JobKey, bool)> = changed.into_iter().collect();
        for some in changed.chunks(AT_ONCE) {
            let keys: Vec<JobKey> = some.iter().map(|(key, _)| key.clone()).collect();
            self.read_up(&keys, |index| some.get(index).is_some_and(|(_, changed)| *changed)).await;
            for key in &keys {
                self.waiters.apply_events(key);
            }
        }
    }

    /// Reads all followed jobs again.
    async fn catch_up(&self) {
        for some in self.following.open().chunks(AT_ONCE) {
            self.read_up(some, |_| false).await;
        }
    }

    async fn read_up(&self, keys: &[JobKey], changed: impl Fn(usize) -> bool + Send) {
        let read =
            self.ingest.or_cache_miss(with_read_timeout(self.store.refresh(keys)).await).unwrap_or_default();
        for (index, observation) in read.into_iter().enumerate() {
            let Some(observation) = observation else { continue };
            // An observation that this process made itself is not a remote change.
            let known = self.following.seen(&observation.job.key);
            if changed(index) || known.is_none_or(|known| observation.supersedes(&known)) {
                self.ingest.apply_remote(&observation, changed(index));
            }
        }
    }

    /// The observation that another replica has just stored; `None` if it cannot be read.
    pub(super) async fn read_kept(&self, key: &JobKey) -> Option<FetchResult> {
        let keys = std::slice::from_ref(key);
        let read = self.ingest.or_cache_miss(with_read_timeout(self.store.refresh(keys)).await)?.pop()?;
        if let Some(observation) = read {
            self.ingest.apply_remote(&observation, false);
            return Some(Ok(observation));
        }
        let missing = self.ingest.or_cache_miss(self.store.missing_for(key).await).flatten();
        missing.map(|_| {
            self.ingest.apply_remote_missing(key);
            Err(FetchError::NotFound)
        })
    }

    /// Applies what other replicas track and untrack. `known` is the set of jobs that all replicas tracked at the last
    /// comparison.
    async fn track_as_others(&self, known: &mut BTreeSet<JobKey>) {
        let Some(LedgerContents { tracked, .. }) = self.ingest.or_cache_miss(self.ledger.remembered().await)
        else {
            return;
        };
        let tracked: BTreeMap<JobKey, Labels> = tracked.into_iter().collect();
        for key in known.iter().filter(|key| !tracked.contains_key(*key)) {
            self.tracking.remove(key);
        }
        *known = tracked.keys().cloned().collect();
        let mut wanted = Vec::new();
        for (key, labels) in tracked {
            if self.tracking.holds(&key) {
                self.tracking.relabel(&key, &labels);
            } else {
                wanted.push((key, labels));
            }
        }
        for some in wanted.chunks(AT_ONCE) {
            let keys: Vec<JobKey> = some.iter().map(|(key, _)| key.clone()).collect();
            for ((key, labels), held) in some.iter().zip(self.ingest.cached_all(&keys).await) {
                let over = held.as_ref().is_some_and(|held| held.job.is_terminal());
                let follows = !over && self.readers.contains_key(&key.source);
                let interest = follows.then(|| {
                    let held = held.as_ref().map(|held| self.held(held));
                    self.following.resume(key, CLIENT.into(), held)
                });
                self.tracking.restore(key.clone(), labels.clone(), interest);
            }
        }
    }
}
