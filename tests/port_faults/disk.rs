//! The store with a file, on a paused clock: the clock does not advance while the disk works, which it does in real
//! time.

use std::sync::Arc;
use std::time::Duration;

use jobgate::domain::id::JobKey;
use jobgate::domain::observation::Observation;
use jobgate::outbound::stores::embedded::EmbeddedStore;
use jobgate::ports::BoxFuture;
use jobgate::ports::ledger::{Labels, Ledger, LedgerContents};
use jobgate::ports::store::{JobStore, ListFilter, StoreError, StoreOutcome};
use tokio::runtime::Handle;

/// The store; each wait for it pauses the clock.
#[derive(Debug)]
pub(super) struct BlockingStore(pub(super) Arc<EmbeddedStore>);

impl BlockingStore {
    /// A paused clock does not advance while a blocking task runs.
    fn wait<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a EmbeddedStore) -> BoxFuture<'a, T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let (store, runtime) = (Arc::clone(&self.0), Handle::current());
        Box::pin(async { tokio::task::spawn_blocking(move || runtime.block_on(work(&store))).await.unwrap() })
    }
}

impl JobStore for BlockingStore {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        let keys = keys.to_vec();
        self.wait(move |store| Box::pin(async move { store.get(&keys).await }))
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        self.wait(move |store| store.keep(new))
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        self.0.note_missing(key)
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        self.0.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        self.0.list(filter, after, limit)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}

impl Ledger for BlockingStore {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        self.0.remembered()
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.wait(move |store| store.track(jobs))
    }

    fn follow(&self, key: &JobKey, followed: bool) {
        self.0.follow(key, followed);
    }
}
