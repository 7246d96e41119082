//! Layer 3: the use cases. Every inbound adapter uses [`Jobs`]. There is no other path that avoids the access check,
//! the cache or the single write path.

pub mod answer;
mod cacheability;
mod feed;
mod fetcher;
mod first_requests;
mod follow;
mod ingest;
pub mod list;
pub mod lookup;
mod poller;
mod replicas;
mod resume;
mod rollback;
pub mod rows;
mod single_flight;
mod sources;
pub mod tracking;
pub mod visibility;
pub mod watch;
pub mod watch_token;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::domain::source::SourceStatus;
use crate::ports::clock::Clock;
use crate::ports::feed::NotificationFeed;
use crate::ports::identity::Identity;
use crate::ports::leases::LeaseManager;
use crate::ports::ledger::Ledger;
use crate::ports::rows::{RowCache, RowKey};
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::store::{JobStore, StoreHealth};
use crate::ports::upstream::JobReader;

pub use crate::ports::shared_store::SharedStoreHealth;
use feed::FeedReaders;
use first_requests::FirstRequests;
use follow::FollowRegistry;
pub use follow::FollowSettings;
use ingest::Ingest;
use poller::PollSlots;
use replicas::NotificationWaiters;
use single_flight::SingleFlight;
use sources::Readers;
use tracking::TrackingRegistry;
use visibility::AuthError;

/// The ports that the use cases need.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Authenticates clients.
    pub identity: Arc<dyn Identity>,
    /// The configured sources.
    pub readers: Vec<Arc<dyn JobReader>>,
    /// Stores jobs.
    pub store: Arc<dyn JobStore>,
    /// Remembers which jobs are followed.
    pub ledger: Arc<dyn Ledger>,
    /// Decides which replica polls a job.
    pub leases: Arc<dyn LeaseManager>,
    /// Receives the changes that other replicas found.
    pub feed: Arc<dyn NotificationFeed>,
    /// Caches rows for a limited time.
    pub rows: Arc<dyn RowCache>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Starts tasks.
    pub spawner: Arc<dyn Spawner>,
}

/// How fresh an answer is, and how long a caller waits for one.
#[derive(Clone, Copy, Debug)]
pub struct FreshnessRules {
    /// The maximum age of a cached job that is not terminal, unless the caller sets another one.
    pub fresh_for: Duration,
    /// How long "no such job" is cached, unless the caller sets another limit.
    pub missing_for: Duration,
    /// A terminal job whose id may run again is revalidated in the background when it was last observed this long ago.
    pub rerun_check: Duration,
    /// A caller gets an answer within this time, regardless of the upstream.
    pub answer_within: Duration,
}

/// A source as a client may see it.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// The status of the source.
    pub status: SourceStatus,
    /// Whether the client may see how much of the budget is in use. A client that may read only some of a source's jobs
    /// could infer from it what the others cost.
    pub shows_budget: bool,
}

impl SourceView {
    fn new(status: SourceStatus, principal: &Principal) -> Self {
        let shows_budget = !principal.only_watches() && principal.scope(&status.name).is_none();
        Self { status, shows_budget }
    }
}

/// The use cases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    inner: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    identity: Arc<dyn Identity>,
    readers: Readers,
    store: Arc<dyn JobStore>,
    ledger: Arc<dyn Ledger>,
    leases: Arc<dyn LeaseManager>,
    feed: Arc<dyn NotificationFeed>,
    waiters: NotificationWaiters,
    row_cache: Arc<dyn RowCache>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    freshness: ArcSwap<FreshnessRules>,
    following: Arc<FollowRegistry>,
    polls: PollSlots,
    feeds: Arc<FeedReaders>,
    tracking: Arc<TrackingRegistry>,
    ingest: Ingest,
    first_requests: FirstRequests,
    fetches: SingleFlight<JobKey, ingest::FetchResult>,
    row_reads: SingleFlight<RowKey, rows::RowsFetchResult>,
}

impl Jobs {
    /// Builds the use cases on their ports. Jobs are not followed until [`Jobs::start_following`] is called.
    pub fn new(ports: Ports, freshness: FreshnessRules, follow: FollowSettings) -> Self {
        let following = FollowRegistry::new(follow, Arc::clone(&ports.ledger));
        let tracking = Arc::new(TrackingRegistry::default());
        let feeds = Arc::new(FeedReaders::new(Arc::clone(&tracking)));
        Self {
            inner: Arc::new(Core {
                identity: ports.identity,
                polls: PollSlots::default(),
                readers: Readers::new(ports.readers),
                ingest: Ingest::new(
                    Arc::clone(&ports.store),
                    Arc::clone(&ports.leases),
                    Arc::clone(&following),
                    Arc::clone(&feeds),
                ),
                following,
                feeds,
                tracking,
                store: ports.store,
                ledger: ports.ledger,
                leases: ports.leases,
                feed: ports.feed,
                waiters: NotificationWaiters::default(),
                row_cache: ports.rows,
                clock: ports.clock,
                spawner: ports.spawner,
                freshness: ArcSwap::from_pointee(freshness),
                first_requests: FirstRequests::default(),
                fetches: SingleFlight::default(),
                row_reads: SingleFlight::default(),
            }),
        }
    }

    /// Starts the loop that polls followed jobs, until `stop` is cancelled. It also resumes the jobs that were followed
    /// before a restart; those of a source that is added later resume when it is added.
    pub fn start_following(&self, stop: CancellationToken) {
        let resume = resume::run(Arc::clone(&self.inner), stop.clone());
        self.inner.spawner.spawn(TaskKind::Resume, Box::pin(resume));
        let notifications = replicas::run(Arc::clone(&self.inner), stop.clone());
        self.inner.spawner.spawn(TaskKind::Replicas, Box::pin(notifications));
        let run = poller::run(Arc::clone(&self.inner), stop);
        self.inner.spawner.spawn(TaskKind::Poller, Box::pin(run));
    }

    /// The health of the store.
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.health()
    }

    /// Makes the store write what is pending and release its backend. Called once, as the last step of a shutdown.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    /// How many jobs are being followed.
    pub fn followed(&self) -> usize {
        self.inner.following.count()
    }

    /// The number of followed jobs by name of the state last observed.
    pub fn followed_by_state(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.inner.following.by_state().into_iter()
    }

    /// Authenticates a client by the presented credential.
    ///
    /// # Errors
    /// When the client cannot be authenticated.
    pub fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        self.inner.identity.authenticate(presented)
    }

    /// Returns whether a principal that was authenticated before is still valid.
    pub fn is_still_valid(&self, principal: &Principal) -> bool {
        self.inner.identity.is_valid(principal)
    }

    /// The remaining validity of the principal's credential; `None` when it does not expire.
    pub fn pass_left(&self, principal: &Principal) -> Option<Duration> {
        let expires = principal.pass().expires?;
        Some(Duration::try_from(expires.duration_since(self.inner.clock.time_of_day())).unwrap_or_default())
    }

    /// The sources of which a client may read at least some jobs, by name.
    pub fn sources(&self, principal: &Principal) -> Vec<SourceView> {
        let readers = self.inner.readers.all();
        let readable = readers.iter().filter(|(name, _)| principal.may_read(name));
        readable.map(|(_, reader)| SourceView::new(reader.status(), principal)).collect()
    }

    /// One source, if the client may read at least some of its jobs.
    pub fn source(&self, principal: &Principal, name: &SourceName) -> Option<SourceView> {
        let reader = self.inner.readers.get(name).filter(|_| principal.may_read(name))?;
        Some(SourceView::new(reader.status(), principal))
    }
}
