//! Observations of other replicas: a notification causes a read of the shared store, and the observation is applied
//! like any other, without being stored or sent on again. Lost notifications are recovered by reading all followed jobs
//! again that are not terminal.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ingest::{FetchResult, Ingest};
use crate::domain::id::JobKey;
use crate::jobs::cache::JobCache;
use crate::jobs::follow::FollowRegistry;
use crate::ports::feed::{ChangeNotification, RemoteChange};
use crate::ports::upstream::FetchError;

/// Jobs read at once.
const AT_ONCE: usize = 500;

/// Applies what other replicas have stored.
#[derive(Debug)]
pub(in crate::jobs) struct RemoteChanges {
    cache: Arc<JobCache>,
    ingest: Arc<Ingest>,
    following: Arc<FollowRegistry>,
    waiters: NotificationWaiters,
}

/// The fetches that wait for another replica, by job.
#[derive(Debug, Default)]
struct NotificationWaiters(Mutex<HashMap<JobKey, Arc<Notify>>>);

/// A waiting fetch. Dropping it ends the wait.
pub(super) struct NotificationWaiter<'a> {
    waiters: &'a NotificationWaiters,
    key: JobKey,
    notify: Arc<Notify>,
}

impl NotificationWaiters {
    /// Waits for notifications about a job. There is one waiter at a time, because a job has one single flight.
    fn listen(&self, key: &JobKey) -> NotificationWaiter<'_> {
        let notify = Arc::new(Notify::new());
        self.lock().insert(key.clone(), Arc::clone(&notify));
        NotificationWaiter { waiters: self, key: key.clone(), notify }
    }

    fn notify(&self, key: &JobKey) {
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

impl RemoteChanges {
    pub(in crate::jobs) fn new(
        cache: Arc<JobCache>,
        ingest: Arc<Ingest>,
        following: Arc<FollowRegistry>,
    ) -> Self {
        Self { cache, ingest, following, waiters: NotificationWaiters::default() }
    }

    /// Waits for notifications about a job, for one fetch.
    pub(super) fn listen(&self, key: &JobKey) -> NotificationWaiter<'_> {
        self.waiters.listen(key)
    }

    /// Reads the jobs that notifications refer to, if this replica needs them.
    pub(in crate::jobs) async fn apply_notifications(&self, notifications: Vec<ChangeNotification>) {
        let mut changed: BTreeMap<JobKey, bool> = BTreeMap::new();
        for ChangeNotification { key, what } in notifications {
            match what {
                RemoteChange::Changed => *changed.entry(key).or_default() = true,
                RemoteChange::Renewed if self.following.follows(&key) => {
                    changed.entry(key).or_default();
                }
                RemoteChange::Renewed | RemoteChange::Released => self.waiters.notify(&key),
                RemoteChange::Tracked => {}
            }
        }
        let changed: Vec<(JobKey, bool)> = changed.into_iter().collect();
        for some in changed.chunks(AT_ONCE) {
            let keys: Vec<JobKey> = some.iter().map(|(key, _)| key.clone()).collect();
            self.read_up(&keys, |index| some.get(index).is_some_and(|(_, changed)| *changed)).await;
            for key in &keys {
                self.waiters.notify(key);
            }
        }
    }

    /// Reads all followed jobs again that are not terminal.
    pub(in crate::jobs) async fn catch_up(&self) {
        for some in self.following.open().chunks(AT_ONCE) {
            self.read_up(some, |_| false).await;
        }
    }

    async fn read_up(&self, keys: &[JobKey], changed: impl Fn(usize) -> bool + Send) {
        let read = self.cache.refresh(keys).await.unwrap_or_default();
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
        let read = self.cache.refresh(std::slice::from_ref(key)).await?.pop()?;
        if let Some(observation) = read {
            self.ingest.apply_remote(&observation, false);
            return Some(Ok(observation));
        }
        self.cache.missing_for(key).await.map(|_| {
            self.ingest.apply_remote_missing(key);
            Err(FetchError::NotFound)
        })
    }
}
