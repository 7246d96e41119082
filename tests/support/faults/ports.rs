//! Every port wrapped in a fault injector. Each method lists the faults that it may get, and what a failure looks like
//! there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::source::{CredentialStatus, SourceStatus};
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::Ports;
use jobgate::ports::BoxFuture;
use jobgate::ports::clock::Clock;
use jobgate::ports::credentials::{Credential, Credentials};
use jobgate::ports::entropy::Entropy;
use jobgate::ports::feed::{FeedEvent, NotificationFeed};
use jobgate::ports::identity::{AuthError, Identity, WatchToken, WatchTokenError};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};
use jobgate::ports::ledger::{Labels, Ledger, LedgerContents};
use jobgate::ports::rows::{RowCache, RowKey};
use jobgate::ports::spawner::{OnPanic, Spawner, TaskKind};
use jobgate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use jobgate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use secrecy::SecretString;
use std::collections::BTreeSet;

use super::{ALL, AT_ONCE, CONTAINED, ENDING, Fault, FaultInjector, INFALLIBLE};

/// A port wrapped in a fault injector.
#[derive(Debug)]
pub(crate) struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    injector: Arc<FaultInjector>,
}

/// Wraps a port in a fault injector.
pub(crate) fn faulty<P: ?Sized>(inner: Arc<P>, injector: &Arc<FaultInjector>) -> Arc<Faulty<P>> {
    Arc::new(Faulty { inner, injector: Arc::clone(injector) })
}

/// All ports of the use cases, each wrapped in a fault injector.
pub(crate) fn all(ports: Ports, injector: &Arc<FaultInjector>) -> Ports {
    let readers = ports.readers.into_iter();
    Ports {
        identity: faulty(ports.identity, injector),
        readers: readers.map(|reader| faulty(reader, injector) as Arc<dyn JobReader>).collect(),
        store: faulty(ports.store, injector),
        ledger: faulty(ports.ledger, injector),
        leases: faulty(ports.leases, injector),
        feed: Arc::new(FaultyFeed { inner: faulty(ports.feed, injector), again: Mutex::default() }),
        rows: faulty(ports.rows, injector),
        clock: Arc::new(FaultyClock { inner: faulty(ports.clock, injector), ahead: AtomicU64::new(0) }),
        spawner: faulty(ports.spawner, injector),
    }
}

fn store_failed<T>() -> Result<T, StoreError> {
    Err(StoreError("planted".to_owned()))
}

fn never_fails<T>() -> T {
    unreachable!("no fault of a call that does not fail is a failure")
}

impl Faulty<dyn JobReader> {
    fn upstream_error(&self) -> FetchError {
        let detail = || Detail::new("planted");
        match self.injector.below(6) {
            0 => FetchError::Unavailable(detail()),
            1 => FetchError::TimedOut,
            2 => FetchError::Throttled { retry_after: Duration::from_secs(3) },
            3 => FetchError::CredentialRejected,
            4 => FetchError::Unconfigured,
            _ => FetchError::BadAnswer(detail()),
        }
    }
}

impl JobReader for Faulty<dyn JobReader> {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn upstream(&self) -> Upstream {
        self.inner.upstream()
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        let failed = || {
            let at = Timestamp::UNIX_EPOCH;
            let failed = |_| Fetch { requested_at: at, observed_at: at, outcome: Err(self.upstream_error()) };
            ids.iter().map(failed).collect()
        };
        Box::pin(self.injector.around("fetch", ALL, || self.inner.fetch(ids, trigger), failed))
    }

    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        let call = move || self.inner.rows(id, range, trigger);
        Box::pin(self.injector.around("rows", ALL, call, || Err(self.upstream_error())))
    }

    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        let call = move || self.inner.probe(other);
        Box::pin(self.injector.around("probe", ALL, call, || Err(self.upstream_error())))
    }

    fn status(&self) -> SourceStatus {
        self.inner.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.inner.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.inner.take_recheck()
    }
}

impl JobStore for Faulty<dyn JobStore> {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(self.injector.around("store.get", CONTAINED, || self.inner.get(keys), store_failed))
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        let call = move || self.inner.keep(new.clone());
        Box::pin(self.injector.around("store.keep", INFALLIBLE, call, never_fails))
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        let call = move || self.inner.note_missing(key);
        Box::pin(self.injector.around("store.note_missing", INFALLIBLE, call, never_fails))
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        let call = move || self.inner.missing_for(key);
        Box::pin(self.injector.around("store.missing_for", ALL, call, store_failed))
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        let call = move || self.inner.list(filter, after, limit);
        Box::pin(self.injector.around("store.list", ALL, call, store_failed))
    }

    fn keep_under(
        &self,
        new: Observation,
        fencing_token: FencingToken,
    ) -> BoxFuture<'_, Option<StoreOutcome>> {
        let call = move || self.inner.keep_under(new.clone(), fencing_token);
        Box::pin(self.injector.around("store.keep_under", INFALLIBLE, call, never_fails))
    }

    fn note_missing_under<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, bool> {
        let call = move || self.inner.note_missing_under(key, fencing_token);
        Box::pin(self.injector.around("store.note_missing_under", INFALLIBLE, call, never_fails))
    }

    fn refresh<'a>(
        &'a self,
        keys: &'a [JobKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(self.injector.around("store.refresh", CONTAINED, || self.inner.refresh(keys), store_failed))
    }

    fn health(&self) -> StoreHealth {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.injector.around("store.close", ENDING, || self.inner.close(), || ()))
    }
}

impl Ledger for Faulty<dyn Ledger> {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        Box::pin(self.injector.around("ledger.remembered", ENDING, || self.inner.remembered(), store_failed))
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        let call = move || self.inner.track(jobs.clone());
        Box::pin(self.injector.around("ledger.track", ALL, call, store_failed))
    }

    fn follow(&self, key: &JobKey, followed: bool) {
        self.injector.at_once("ledger.follow", AT_ONCE, || self.inner.follow(key, followed), || ());
    }
}

impl LeaseManager for Faulty<dyn LeaseManager> {
    fn claim<'a>(&'a self, keys: &'a [JobKey], unless: SkipIf) -> BoxFuture<'a, Vec<Claim>> {
        let theirs = Claim::HeldElsewhere { at_most: Duration::from_secs(1), seen: 0 };
        let failed = move || vec![theirs; keys.len()];
        Box::pin(self.injector.around("leases.claim", ALL, move || self.inner.claim(keys, unless), failed))
    }

    fn renew_every(&self) -> Duration {
        self.inner.renew_every()
    }

    fn renew<'a>(&'a self, held: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()> {
        Box::pin(self.injector.around("leases.renew", ALL, || self.inner.renew(held), || ()))
    }

    fn release<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, ()> {
        Box::pin(self.injector.around(
            "leases.release",
            ALL,
            move || self.inner.release(key, fencing_token),
            || (),
        ))
    }
}

/// Notifications that are lost, late, duplicated or out of order.
#[derive(Debug)]
struct FaultyFeed {
    inner: Arc<Faulty<dyn NotificationFeed>>,
    again: Mutex<Option<FeedEvent>>,
}

impl NotificationFeed for FaultyFeed {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(async {
            if let Some(again) = self.again.lock().unwrap().take() {
                return again;
            }
            let Faulty { inner, injector } = &*self.inner;
            let event = inner.next().await;
            match (injector.next("feed", ENDING), event) {
                (Some(Fault::Delay), event) => {
                    tokio::time::sleep(injector.late()).await;
                    event
                }
                (Some(Fault::Duplicate), event) => {
                    *self.again.lock().unwrap() = Some(event.clone());
                    event
                }
                (Some(Fault::Reorder), FeedEvent::Notifications(notifications)) => {
                    FeedEvent::Notifications(notifications.into_iter().rev().collect())
                }
                (Some(Fault::Drop), _) => FeedEvent::Notifications(Vec::new()),
                (Some(_), _) => FeedEvent::Gap,
                (None, event) => event,
            }
        })
    }
}

impl RowCache for Faulty<dyn RowCache> {
    fn get<'a>(&'a self, key: &'a RowKey) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        Box::pin(self.injector.around("rows.get", ALL, || self.inner.get(key), || None))
    }

    fn put(&self, key: RowKey, page: Arc<RowPage>) -> BoxFuture<'_, ()> {
        let call = move || self.inner.put(key.clone(), Arc::clone(&page));
        Box::pin(self.injector.around("rows.put", ALL, call, || ()))
    }
}

impl Identity for Faulty<dyn Identity> {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        let call = || self.inner.authenticate(presented);
        self.injector.at_once("identity.authenticate", ALL, call, || Err(AuthError::Unknown))
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        self.injector.at_once("identity.is_valid", AT_ONCE, || self.inner.is_valid(principal), || false)
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenError> {
        let call = || self.inner.watch_token(principal, jobs, ttl);
        self.injector.at_once("identity.watch_token", ALL, call, || Err(WatchTokenError::NotMade))
    }
}

/// A clock that jumps ahead.
#[derive(Debug)]
struct FaultyClock {
    inner: Arc<Faulty<dyn Clock>>,
    ahead: AtomicU64,
}

impl Clock for FaultyClock {
    fn now(&self) -> Timestamp {
        let Faulty { inner, injector } = &*self.inner;
        let jump = injector.at_once("clock", &[Fault::Error], || 0, || injector.below(400) as u64);
        let ahead = self.ahead.fetch_add(jump, Ordering::Relaxed) + jump;
        inner.now() + Duration::from_millis(ahead)
    }
}

impl Entropy for Faulty<dyn Entropy> {
    fn unit(&self) -> f64 {
        let extreme = || if self.injector.below(2) == 0 { 0.0 } else { 1.0 - f64::EPSILON };
        self.injector.at_once("entropy", AT_ONCE, || self.inner.unit(), extreme)
    }
}

impl Credentials for Faulty<dyn Credentials> {
    fn current(&self, source: &SourceName) -> Option<Credential> {
        self.injector.at_once("credentials.current", ALL, || self.inner.current(source), || None)
    }

    fn pending(&self, source: &SourceName) -> Vec<Credential> {
        self.injector.at_once("credentials.pending", AT_ONCE, || self.inner.pending(source), Vec::new)
    }

    fn status(&self, source: &SourceName) -> CredentialStatus {
        self.inner.status(source)
    }
}

impl Spawner for Faulty<dyn Spawner> {
    /// A task that the process does not depend on starts late, never starts, or panics as it starts.
    fn spawn(&self, kind: TaskKind, task: BoxFuture<'static, ()>) {
        let may: &[Fault] = &[Fault::Delay, Fault::Drop, Fault::Panic];
        let contained = kind.on_panic() == OnPanic::Contained && kind != TaskKind::Resume;
        match contained.then(|| self.injector.next("spawner", may)).flatten() {
            None => self.inner.spawn(kind, task),
            Some(Fault::Delay) => {
                let late = self.injector.late();
                let later = async move {
                    tokio::time::sleep(late).await;
                    task.await;
                };
                self.inner.spawn(kind, Box::pin(later));
            }
            Some(Fault::Panic) => {
                let breaks = async move {
                    drop(task);
                    super::planted();
                };
                self.inner.spawn(kind, Box::pin(breaks));
            }
            Some(_) => drop(task),
        }
    }
}
