//! The readers of the feed of changes.
//!
//! Each reader buffers the newest state of every job that changed since its last read. A slow reader receives fewer
//! updates, never an old one, and at most [`BACKLOG_MAX`] jobs are buffered for it. The stream of a reader that
//! falls further behind ends. Each update has a cursor, behind which a later reader resumes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::answer::KnownJob;
use super::change_log::{ChangeLog, FeedCursor};
use super::list::filter::JobListFilter;
use super::visibility::Visibility;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::clock::{Clock, ClockReading};
use crate::telemetry::meters;

/// The maximum number of jobs that wait for one reader, about 200 bytes each plus the jobs themselves.
const BACKLOG_MAX: usize = 10_000;
/// Changes that are copied from the log at once for a reader that resumes: nothing is published meanwhile.
const AT_ONCE: usize = 500;

/// All readers of the feed.
#[derive(Debug)]
pub(super) struct FeedReaders {
    state: Mutex<PublishedFeed>,
    visibility: Arc<Visibility>,
    clock: Arc<dyn Clock>,
}

/// The log, and who receives what is added to it: under one lock, so that each reader receives the changes in their order.
#[derive(Debug)]
struct PublishedFeed {
    log: ChangeLog,
    readers: Vec<Weak<FeedReader>>,
}

#[derive(Debug)]
pub(super) struct FeedReader {
    principal: Principal,
    filter: JobListFilter,
    backlog: Mutex<Backlog>,
    wake: Notify,
}

/// A reader that has joined, and where it begins if it was to resume.
#[derive(Debug)]
pub(super) struct JoinedReader {
    pub(super) reader: Arc<FeedReader>,
    pub(super) start: Option<(FeedStart, FeedCursor)>,
}

/// How a feed begins that was to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStart {
    /// Every change behind the cursor follows.
    Resumed,
    /// Changes behind the cursor may be missing: the feed begins now.
    Reset,
}

/// A change that a reader receives.
#[derive(Debug)]
pub(super) struct FeedChange {
    pub(super) known: KnownJob,
    /// The number of the update among those of this reader.
    pub(super) sequence: u64,
    pub(super) cursor: FeedCursor,
}

/// The jobs that wait, by the order of their newest changes. So the changes that a reader received are always all up to
/// its cursor; a job that changes again while it waits is delivered later.
#[derive(Debug, Default)]
struct Backlog {
    waiting: BTreeMap<u64, (FeedCursor, KnownJob)>,
    numbers: HashMap<JobKey, u64>,
    sequence: u64,
    overrun: bool,
}

impl FeedReaders {
    pub(super) fn new(visibility: Arc<Visibility>, clock: Arc<dyn Clock>) -> Self {
        let log = ChangeLog::new(fastrand::u64(..), clock.now());
        Self { state: Mutex::new(PublishedFeed { log, readers: Vec::new() }), visibility, clock }
    }

    /// Publishes a change that another replica found, unless the same or a newer one was published already.
    pub(super) fn publish_once(&self, observation: &Observation) {
        let last_published = self.last_of(&observation.job.key);
        let is_new = last_published.is_none_or(|last_published| {
            observation.supersedes(&last_published.observation)
                && (last_published.stale.is_some()
                    || !observation.job.same_report(&last_published.observation.job))
        });
        if is_new {
            self.publish(observation);
        }
    }

    /// Changes of other replicas until now may be missing: a client that resumes from before receives RESET.
    pub(super) fn interrupt(&self) {
        let now = self.clock.now();
        self.state().log.interrupt(now);
    }

    /// Publishes that a job became stale or fresh again, unless that was published already.
    pub(super) fn turned(&self, turned: Option<KnownJob>) {
        let Some(KnownJob { observation, stale }) = turned else { return };
        let last_published = self.last_of(&observation.job.key);
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
        let was_stale =
            self.last_of(&observation.job.key).is_some_and(|last_published| last_published.stale.is_some());
        if was_stale {
            self.turned(Some(KnownJob { observation: observation.clone(), stale: None }));
        }
    }

    fn last_of(&self, key: &JobKey) -> Option<KnownJob> {
        self.state().log.last_of(key).cloned()
    }

    fn state(&self) -> MutexGuard<'_, PublishedFeed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a change to every reader that may see it.
    pub(super) fn publish(&self, observation: &Observation) {
        self.publish_known(&KnownJob { observation: observation.clone(), stale: None });
    }

    fn publish_known(&self, known: &KnownJob) {
        let observation = &known.observation;
        let now = self.clock.reading();
        let mut state = self.state();
        let cursor = state.log.put(known, now.now);
        state.readers.retain(|reader| {
            let Some(reader) = reader.upgrade() else { return false };
            if !reader.may_see(observation, &self.visibility) {
                reader.withdraw(&observation.job.key);
            } else if reader.wants(observation, &self.visibility, now) {
                reader.put(cursor, known);
            }
            true
        });
    }

    /// Adds a reader, which receives every change from now on; and every one behind the cursor `after` that it may see now,
    /// if the log has all of them. They are copied in parts, so that a long interruption does not delay what is published;
    /// a job that changes meanwhile is copied with its newer change.
    pub(super) fn join(
        &self,
        principal: Principal,
        filter: JobListFilter,
        after: Option<&str>,
    ) -> JoinedReader {
        let reader =
            Arc::new(FeedReader { principal, filter, backlog: Mutex::default(), wake: Notify::new() });
        let now = self.clock.reading();
        let cursor = after.and_then(FeedCursor::parse);
        let mut position = cursor;
        let (mut state, rest) = loop {
            let state = self.state();
            let some = position.and_then(|position| state.log.since(position, AT_ONCE));
            match some {
                Some(some) if some.len() >= AT_ONCE => {
                    drop(state);
                    let last = some.last().map(|(last, _)| *last);
                    position = last.filter(|_| reader.resume(some, &self.visibility, now));
                }
                rest => break (state, rest),
            }
        };
        let PublishedFeed { log, readers } = &mut *state;
        let resumed = rest.is_some_and(|rest| reader.resume(rest, &self.visibility, now));
        let start = after.map(|_| {
            if let Some(cursor) = cursor.filter(|_| resumed) {
                return (FeedStart::Resumed, cursor);
            }
            *reader.backlog() = Backlog::default();
            (FeedStart::Reset, log.end(now.now))
        });
        if readers.len() == readers.capacity() {
            // Closed readers are removed before the list grows, also where nothing is ever published.
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(&reader));
        drop(state);
        JoinedReader { reader, start }
    }
}

impl FeedReader {
    fn may_see(&self, observation: &Observation, visibility: &Visibility) -> bool {
        visibility.may_see(&self.principal, &observation.job)
    }

    fn wants(&self, observation: &Observation, visibility: &Visibility, now: ClockReading) -> bool {
        visibility.matches(&self.filter, observation, now)
    }

    /// Buffers some changes of an interruption that the reader may see. Returns `false` if there are too many.
    fn resume(
        &self,
        changes: Vec<(FeedCursor, KnownJob)>,
        visibility: &Visibility,
        now: ClockReading,
    ) -> bool {
        let visible = changes.into_iter().filter(|(_, known)| {
            self.may_see(&known.observation, visibility) && self.wants(&known.observation, visibility, now)
        });
        let mut backlog = self.backlog();
        for (cursor, known) in visible {
            backlog.put(cursor, &known);
        }
        !backlog.overrun
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the buffered state of a job that the reader may not see any more.
    fn withdraw(&self, key: &JobKey) {
        let mut backlog = self.backlog();
        if let Some(number) = backlog.numbers.remove(key) {
            backlog.waiting.remove(&number);
        }
    }

    fn put(&self, cursor: FeedCursor, known: &KnownJob) {
        if self.backlog().put(cursor, known) {
            meters::updates_coalesced(meters::SubscriptionKind::Feed, 1);
        }
        self.wake.notify_one();
    }

    /// The waiting job that changed first, with its newest state; `None` for a reader that was overrun. Cancel safe.
    ///
    /// A job that became invisible while it waited is skipped without a gap in the sequence numbers.
    pub(super) async fn take(&self, visibility: &Visibility) -> Option<FeedChange> {
        let may_see = |known: &KnownJob| self.may_see(&known.observation, visibility);
        loop {
            match self.backlog().next(may_see) {
                FeedRead::Change(change) => return Some(change),
                FeedRead::Overrun => return None,
                FeedRead::Nothing => {}
            }
            self.wake.notified().await;
        }
    }
}

/// The result of a read from the backlog.
enum FeedRead {
    Change(FeedChange),
    Nothing,
    Overrun,
}

impl Backlog {
    /// Adds a change. Returns whether it replaces one that waited.
    fn put(&mut self, cursor: FeedCursor, known: &KnownJob) -> bool {
        if self.overrun {
            return false;
        }
        let number = cursor.number();
        let before = self.numbers.insert(known.observation.job.key.clone(), number);
        if let Some(before) = before {
            self.waiting.remove(&before);
        }
        self.waiting.insert(number, (cursor, known.clone()));
        if self.waiting.len() > BACKLOG_MAX {
            *self = Self { overrun: true, ..Self::default() };
        }
        before.is_some()
    }

    fn next(&mut self, may_see: impl Fn(&KnownJob) -> bool) -> FeedRead {
        if self.overrun {
            return FeedRead::Overrun;
        }
        while let Some((_, (cursor, known))) = self.waiting.pop_first() {
            self.numbers.remove(&known.observation.job.key);
            if may_see(&known) {
                self.sequence += 1;
                return FeedRead::Change(FeedChange { known, sequence: self.sequence, cursor });
            }
        }
        FeedRead::Nothing
    }
}
