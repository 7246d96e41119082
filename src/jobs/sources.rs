//! The configured sources and the use cases' rules, both of which a reload can change at run time. What is stored about
//! a removed source is kept, as over a restart: if it is added again, its jobs are there.

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

/// The sources that can be called now.
#[derive(Debug)]
pub(super) struct Readers {
    now: ArcSwap<SourcesByName>,
    /// Notified when the set changes; one task waits for it.
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

    /// All sources at this moment.
    pub(super) fn all(&self) -> Arc<SourcesByName> {
        self.now.load_full()
    }

    /// The names of all sources.
    pub(super) fn names(&self) -> BTreeSet<SourceName> {
        self.now.load().keys().cloned().collect()
    }

    /// Resolves when the set may have changed since the last call. For one task only; a change between two calls is not
    /// lost.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn by_name(readers: Vec<Arc<dyn JobReader>>) -> SourcesByName {
    readers.into_iter().map(|reader| (reader.name().clone(), reader)).collect()
}

impl Jobs {
    /// Replaces the set of sources. Calls in flight are completed by their callers.
    ///
    /// A watcher of a job of a removed source receives "no such job" as its last update. Other clients are not
    /// affected.
    pub fn put_sources(&self, readers: Vec<Arc<dyn JobReader>>) {
        let next = by_name(readers);
        let before = self.inner.readers.now.swap(Arc::new(next));
        let now = self.inner.readers.all();
        for source in before.keys().filter(|name| !now.contains_key(*name)) {
            self.inner.polls.forget(source);
            self.inner.following.notify_source(source);
        }
        // The jobs of added sources may be due or may have to be resumed.
        self.inner.following.wake();
        self.inner.readers.changed.notify_one();
    }

    /// Replaces the rules of freshness and following.
    pub fn put_rules(&self, freshness: FreshnessRules, follow: FollowSettings) {
        self.inner.freshness.store(Arc::new(freshness));
        self.inner.following.set_settings(follow);
    }
}

impl Core {
    /// Whether the source of a job was removed from the configuration.
    pub(super) fn is_removed(&self, key: &JobKey) -> bool {
        !self.readers.contains_key(&key.source)
    }

    /// The current rules of freshness.
    pub(super) fn freshness(&self) -> FreshnessRules {
        **self.freshness.load()
    }
}
