//! Which sources there are and how use cases treat them, which another configuration can change under way. What is kept of
//! a source that is taken out stays kept, as over a restart: if it comes back, its jobs are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::domain::id::{JobKey, SourceName};
use crate::ports::upstream::JobReader;

use super::follow::FollowSettings;
use super::{Core, FreshnessRules, Jobs};

/// Sources by their names.
pub(super) type SourcesByName = BTreeMap<SourceName, Arc<dyn JobReader>>;

/// The sources that can be asked now.
#[derive(Debug)]
pub(super) struct Readers {
    now: ArcSwap<SourcesByName>,
    /// Told when there are others; one waits for it.
    changed: Notify,
}

impl Readers {
    pub(super) fn new(readers: Vec<Arc<dyn JobReader>>) -> Self {
        Self { now: ArcSwap::from_pointee(by_name(readers)), changed: Notify::new() }
    }

    pub(super) fn get(&self, source: &SourceName) -> Option<Arc<dyn JobReader>> {
        self.now.load().get(source).cloned()
    }

    pub(super) fn contains_key(&self, source: &SourceName) -> bool {
        self.now.load().contains_key(source)
    }

    /// All of them, as they are at this moment.
    pub(super) fn all(&self) -> Arc<SourcesByName> {
        self.now.load_full()
    }

    /// What they are called.
    pub(super) fn names(&self) -> BTreeSet<SourceName> {
        self.now.load().keys().cloned().collect()
    }

    /// Resolves when others may have been put since this last did. For one task alone; nothing is missed between two calls.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn by_name(readers: Vec<Arc<dyn JobReader>>) -> SourcesByName {
    readers.into_iter().map(|reader| (reader.name().clone(), reader)).collect()
}

impl Jobs {
    /// Asks these sources from now on and no others. What is under way is finished by whoever began it.
    ///
    /// Who watches a job of a source that is gone is told that there is no such job, as its last news. Nobody else notices.
    pub fn put_sources(&self, readers: Vec<Arc<dyn JobReader>>) {
        let next = by_name(readers);
        let before = self.inner.readers.now.swap(Arc::new(next));
        let now = self.inner.readers.all();
        for source in before.keys().filter(|name| !now.contains_key(*name)) {
            self.inner.polls.forget(source);
            self.inner.following.notify_source(source);
        }
        // those that have come may have something due, or to be gone on with
        self.inner.following.wake();
        self.inner.readers.changed.notify_one();
    }

    /// Answers and follows by other rules from now on.
    pub fn put_rules(&self, freshness: FreshnessRules, follow: FollowSettings) {
        self.inner.freshness.store(Arc::new(freshness));
        self.inner.following.set_settings(follow);
    }
}

impl Core {
    /// Whether the source of a job was taken out of the configuration.
    pub(super) fn is_removed(&self, key: &JobKey) -> bool {
        !self.readers.contains_key(&key.source)
    }

    /// How fresh an answer is now, and how long a caller waits for one.
    pub(super) fn freshness(&self) -> FreshnessRules {
        **self.freshness.load()
    }
}
