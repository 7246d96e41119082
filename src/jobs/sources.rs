//! The configured sources, which a reload can change at run time. What is stored about a removed source is kept, as
//! over a restart: if it is added again, its jobs are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::domain::id::SourceName;
use crate::domain::upstream::Upstream;
use crate::ports::upstream::JobReader;

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

    /// The upstream of a source, without a count of references, for which threads would wait.
    pub(super) fn upstream(&self, source: &SourceName) -> Option<Upstream> {
        Some(self.now.load().get(source)?.upstream())
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

    /// Replaces the set of sources. Returns the names of those that were removed.
    pub(super) fn replace(&self, readers: Vec<Arc<dyn JobReader>>) -> Vec<SourceName> {
        let before = self.now.swap(Arc::new(by_name(readers)));
        let now = self.all();
        before.keys().filter(|name| !now.contains_key(*name)).cloned().collect()
    }

    /// Lets [`Readers::changed`] resolve.
    pub(super) fn notify_changed(&self) {
        self.changed.notify_one();
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
