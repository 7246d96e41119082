//! The readers of the feed of changes.
//!
//! Each reader buffers the newest state of every job that changed since its last read. A slow reader receives fewer
//! updates, never an old one, and at most [`BACKLOG_MAX`] jobs are buffered for it. The stream of a reader that
//! falls further behind ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::answer::KnownJob;
use super::list_filter::JobListFilter;
use super::visibility::Visibility;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::telemetry::meters;

/// The maximum number of jobs that wait for one reader, about 200 bytes each plus the jobs themselves.
const BACKLOG_MAX: usize = 10_000;

/// All readers of the feed.
#[derive(Debug)]
pub(super) struct FeedReaders {
    readers: Mutex<Vec<Weak<FeedReader>>>,
    visibility: Arc<Visibility>,
    published: Mutex<LastPublished>,
}

/// The last published state of each job, so that a change which arrives on two paths is published once. It has two
/// halves: when the newer one is full, the older one is dropped.
#[derive(Debug, Default)]
struct LastPublished {
    newer: HashMap<JobKey, KnownJob>,
    older: HashMap<JobKey, KnownJob>,
}

/// The maximum number of jobs in each half; their observations are shared with the store.
const PUBLISHED_MAX: usize = 20_000;

#[derive(Debug)]
pub(super) struct FeedReader {
    principal: Principal,
    filter: JobListFilter,
    backlog: Mutex<Backlog>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Backlog {
    order: VecDeque<JobKey>,
    newest: HashMap<JobKey, KnownJob>,
    sequence: u64,
    overrun: bool,
}

impl FeedReaders {
    pub(super) fn new(visibility: Arc<Visibility>) -> Self {
        Self { readers: Mutex::default(), visibility, published: Mutex::default() }
    }

    /// Publishes a change that another replica found, unless the same or a newer one was published already.
    pub(super) fn publish_once(&self, observation: &Observation) {
        let last_published = self.published().of(&observation.job.key);
        let is_new = last_published.is_none_or(|last_published| {
            observation.supersedes(&last_published.observation)
                && (last_published.stale.is_some()
                    || !observation.job.same_report(&last_published.observation.job))
        });
        if is_new {
            self.publish(observation);
        }
    }

    /// Publishes that a job became stale or fresh again, unless that was published already.
    pub(super) fn turned(&self, turned: Option<KnownJob>) {
        let Some(KnownJob { observation, stale }) = turned else { return };
        let last_published = self.published().of(&observation.job.key);
        let (observation, is_new) = match last_published {
            Some(last_published) if last_published.observation.supersedes(&observation) => {
                (last_published.observation, last_published.stale != stale)
            }
            Some(last_published) => {
                let same = last_published.stale == stale
                    && observation.job.same_report(&last_published.observation.job);
                (observation, !same)
            }
            None => (observation, true),
        };
        if is_new {
            let stale = stale.filter(|_| !observation.job.is_terminal());
            self.publish_known(&KnownJob { observation, stale });
        }
    }

    /// Applies that the source answered for a job: one that was published as stale and is not followed any more is
    /// fresh.
    pub(super) fn renewed(&self, observation: &Observation) {
        let was_stale = self
            .published()
            .of(&observation.job.key)
            .is_some_and(|last_published| last_published.stale.is_some());
        if was_stale {
            self.turned(Some(KnownJob { observation: observation.clone(), stale: None }));
        }
    }

    fn published(&self) -> MutexGuard<'_, LastPublished> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a change to every reader that may see it.
    pub(super) fn publish(&self, observation: &Observation) {
        self.publish_known(&KnownJob { observation: observation.clone(), stale: None });
    }

    fn publish_known(&self, known: &KnownJob) {
        self.published().put(known);
        let observation = &known.observation;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| {
            let Some(reader) = reader.upgrade() else { return false };
            if !reader.may_see(observation, &self.visibility) {
                reader.withdraw(&observation.job.key);
            } else if reader.wants(observation, &self.visibility) {
                reader.put(known);
            }
            true
        });
    }

    /// Adds a reader, which receives every change from now on.
    pub(super) fn join(&self, principal: Principal, filter: JobListFilter) -> Arc<FeedReader> {
        let reader =
            Arc::new(FeedReader { principal, filter, backlog: Mutex::default(), wake: Notify::new() });
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() == readers.capacity() {
            // Closed readers are removed before the list grows, also where nothing is ever published.
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(&reader));
        drop(readers);
        reader
    }
}

impl LastPublished {
    fn of(&self, key: &JobKey) -> Option<KnownJob> {
        self.newer.get(key).or_else(|| self.older.get(key)).cloned()
    }

    fn put(&mut self, known: &KnownJob) {
        if self.newer.len() >= PUBLISHED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(known.observation.job.key.clone(), known.clone());
    }
}

impl FeedReader {
    fn may_see(&self, observation: &Observation, visibility: &Visibility) -> bool {
        visibility.may_see(&self.principal, &observation.job)
    }

    fn wants(&self, observation: &Observation, visibility: &Visibility) -> bool {
        self.filter.lets_through(observation) && visibility.carries(&observation.job.key, &self.filter.labels)
    }

    /// Removes the buffered state of a job that the reader may not see any more.
    fn withdraw(&self, key: &JobKey) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if backlog.newest.remove(key).is_some() {
            backlog.order.retain(|waiting| waiting != key);
        }
    }

    fn put(&self, known: &KnownJob) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let key = known.observation.job.key.clone();
        if backlog.newest.insert(key.clone(), known.clone()).is_none() {
            backlog.order.push_back(key);
        } else {
            meters::updates_coalesced(meters::SubscriptionKind::Feed, 1);
        }
        if backlog.order.len() > BACKLOG_MAX {
            *backlog = Backlog { overrun: true, ..Backlog::default() };
        }
        drop(backlog);
        self.wake.notify_one();
    }

    /// The oldest waiting job with its newest state; `None` for a reader that was overrun. Cancel safe.
    ///
    /// A job that became invisible while it waited is skipped without a gap in the sequence numbers.
    pub(super) async fn take(&self, visibility: &Visibility) -> Option<(KnownJob, u64)> {
        let may_see = |known: &KnownJob| self.may_see(&known.observation, visibility);
        loop {
            match self.backlog.lock().unwrap_or_else(PoisonError::into_inner).next(may_see) {
                FeedRead::Job(known, sequence) => return Some((known, sequence)),
                FeedRead::Overrun => return None,
                FeedRead::Nothing => {}
            }
            self.wake.notified().await;
        }
    }
}

/// The result of a read from the backlog.
enum FeedRead {
    Job(KnownJob, u64),
    Nothing,
    Overrun,
}

impl Backlog {
    fn next(&mut self, may_see: impl Fn(&KnownJob) -> bool) -> FeedRead {
        if self.overrun {
            return FeedRead::Overrun;
        }
        while let Some(key) = self.order.pop_front() {
            let Some(known) = self.newest.remove(&key).filter(&may_see) else { continue };
            self.sequence += 1;
            return FeedRead::Job(known, self.sequence);
        }
        FeedRead::Nothing
    }
}
