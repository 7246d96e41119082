//! The feed: every change of any job that a client may see, whichever client or replica caused the fetch. It also
//! reports that a followed job became stale, and that it is fresh again.
//!
//! Each reader buffers the newest state of every job that changed since its last read. A slow reader receives fewer
//! updates, never an old one, and at most [`BACKLOG_MAX`] jobs are buffered for it. A reader that falls further behind
//! is closed with an error.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::stream::{self, Stream};
use tokio::sync::Notify;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::telemetry::meters;

use super::Jobs;
use super::answer::{JobSnapshot, KnownJob, age};
use super::list::JobListFilter;
use super::tracking::TrackingRegistry;
use super::visibility::{RequestedRef, may_see};
use super::watch::{UpdateKind, WatchUpdate};

/// The maximum number of jobs that wait for one reader, about 200 bytes each plus the jobs themselves.
const BACKLOG_MAX: usize = 10_000;

/// All readers of the feed.
#[derive(Debug)]
pub(super) struct FeedReaders {
    readers: Mutex<Vec<Weak<FeedReader>>>,
    tracking: Arc<TrackingRegistry>,
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
struct FeedReader {
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
    pub(super) fn new(tracking: Arc<TrackingRegistry>) -> Self {
        Self { readers: Mutex::default(), tracking, published: Mutex::default() }
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
            if !reader.may_see(observation, &self.tracking) {
                reader.withdraw(&observation.job.key);
            } else if reader.wants(observation, &self.tracking) {
                reader.put(known);
            }
            true
        });
    }

    /// The tracked jobs, by whose labels readers may filter.
    pub(super) fn tracking(&self) -> &TrackingRegistry {
        &self.tracking
    }

    fn join(&self, principal: Principal, filter: JobListFilter) -> Arc<FeedReader> {
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

impl Jobs {
    /// Every change from now on that the client may see and that matches the filter. The stream ends only for a reader
    /// that has fallen too far behind.
    pub fn feed(
        &self,
        principal: Principal,
        filter: JobListFilter,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let reader = self.inner.feeds.join(principal, filter.undated(self.inner.clock.reading()));
        let inner = Arc::clone(&self.inner);
        stream::unfold((inner, reader), async |(inner, reader)| {
            let (KnownJob { observation, stale }, sequence) = reader.take(&inner.tracking).await?;
            let is_final = observation.job.is_terminal();
            let kind = if is_final { UpdateKind::Ended } else { UpdateKind::Changed };
            let reference = RequestedRef::Id(observation.job.key.node_id());
            let now = inner.clock.reading();
            meters::update_delivered(meters::SubscriptionKind::Feed);
            if stale.is_none() {
                meters::detection_to_delivery(&observation.job.key.source, age(&observation, now));
            }
            let answer = Ok(JobSnapshot::stale(observation, now, stale));
            Some((WatchUpdate { reference, kind, answer, sequence, is_final }, (inner, reader)))
        })
    }
}

impl FeedReader {
    fn may_see(&self, observation: &Observation, tracking: &TrackingRegistry) -> bool {
        may_see(&self.principal, &observation.job, tracking)
    }

    fn wants(&self, observation: &Observation, tracking: &TrackingRegistry) -> bool {
        self.filter.lets_through(observation) && tracking.carries(&observation.job.key, &self.filter.labels)
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
    async fn take(&self, tracking: &TrackingRegistry) -> Option<(KnownJob, u64)> {
        let may_see = |known: &KnownJob| self.may_see(&known.observation, tracking);
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
