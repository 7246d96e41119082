//! A store that rejects writes for a while: unpersisted results are written again automatically.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use jobgate::domain::details::Details;
use jobgate::domain::id::JobKey;
use jobgate::domain::job::{Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::list::JobListFilter;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::store::{JobStore, ListFilter, StoreError, StoreOutcome};
use tokio_util::sync::CancellationToken;

use crate::redis_shared_store::key;
use crate::support::ports::{FOLLOW, RuntimeClock, TestGateway, gateway_on, reference, retention};

const SECOND: Duration = Duration::from_secs(1);

/// Rejects writes while it is switched on.
#[derive(Debug)]
struct Refusing {
    inner: MemoryStore,
    refuses: AtomicBool,
}

impl JobStore for Refusing {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        self.inner.get(keys)
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, Result<StoreOutcome, StoreError>> {
        if self.refuses.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError("planted".to_owned())) });
        }
        self.inner.keep(new)
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.note_missing(key)
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        self.inner.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        self.inner.list(filter, after, limit)
    }
}

/// A gateway whose store rejects writes, and that has delivered a terminal state meanwhile.
async fn refusing_gateway() -> (TestGateway, Arc<Refusing>, Arc<RuntimeClock>) {
    let clock = Arc::new(RuntimeClock::default());
    let store = Arc::new(Refusing { inner: MemoryStore::new(retention()), refuses: AtomicBool::new(true) });
    let gateway =
        gateway_on(FOLLOW, Arc::clone(&clock) as Arc<_>, Arc::clone(&store) as Arc<_>, Arc::new(NoLedger));
    gateway.jobs.start_following(CancellationToken::new());
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    let answer = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await.unwrap();
    assert_eq!(answer.observation.job.state(), JobState::Succeeded);
    assert_eq!(store.get(&[key("a")]).await.unwrap(), [None], "it was rejected");
    (gateway, store, clock)
}

#[tokio::test(start_paused = true)]
async fn a_rejected_store_write_is_retried_without_a_new_fetch() {
    let (gateway, store, _clock) = refusing_gateway().await;
    tokio::time::sleep(SECOND * 30).await;
    store.refuses.store(false, Ordering::Relaxed);
    tokio::time::sleep(SECOND * 3).await;
    let held = store.get(&[key("a")]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!((held.job.state(), gateway.mindbridge.calls()), (JobState::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_superseding_record_found_in_the_store_is_delivered() {
    let (gateway, store, clock) = refusing_gateway().await;
    let mut feed = gateway.jobs.feed(Principal::local(), JobListFilter::default()).boxed();
    tokio::time::sleep(SECOND).await;
    let job = Job::new(key("a"), Life::Canceled, Details::MindBridge(Box::default()));
    let now = clock.now();
    store.inner.keep(Observation::new(Arc::new(job), now, now)).await.unwrap();
    store.refuses.store(false, Ordering::Relaxed);
    let update = tokio::time::timeout(SECOND * 5, feed.next()).await.unwrap().unwrap();
    assert_eq!(update.answer.unwrap().observation.job.state(), JobState::Canceled);
}
