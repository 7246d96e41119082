//! Floor 3: the use cases. Every door opens on [`Jobs`], and there is no second way round the access check, the
//! cache or the one write path.

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

/// What the use cases ask of the world.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Recognises clients.
    pub identity: Arc<dyn Identity>,
    /// The sources, each ready to be asked.
    pub readers: Vec<Arc<dyn JobReader>>,
    /// Keeps jobs.
    pub store: Arc<dyn JobStore>,
    /// Remembers what is followed.
    pub ledger: Arc<dyn Ledger>,
    /// Says whose turn it is to look at a job.
    pub leases: Arc<dyn LeaseManager>,
    /// Hears what other replicas have learned.
    pub feed: Arc<dyn NotificationFeed>,
    /// Keeps rows for a while.
    pub rows: Arc<dyn RowCache>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Starts tasks.
    pub spawner: Arc<dyn Spawner>,
}

/// How fresh an answer is, and how long a caller waits for one.
#[derive(Clone, Copy, Debug)]
pub struct FreshnessRules {
    /// An unfinished job is answered from what is held up to this age, unless the caller says otherwise.
    pub fresh_for: Duration,
    /// "No such job" is believed for this long, unless the caller says otherwise.
    pub missing_for: Duration,
    /// A finished job whose id may run again is looked at behind the answer when it was last seen this long ago.
    pub rerun_check: Duration,
    /// A caller gets an answer within this time, whatever the upstream does.
    pub answer_within: Duration,
}

/// A source as a client may see it.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// How the source is doing.
    pub status: SourceStatus,
    /// Whether the client may see how much of the budget is in use: who may read only some of a source's jobs could count
    /// by it what the others cost.
    pub shows_budget: bool,
}

impl SourceView {
    fn new(status: SourceStatus, principal: &Principal) -> Self {
        let shows_budget = !principal.only_watches() && principal.scope(&status.name).is_none();
        Self { status, shows_budget }
    }
}

/// The use cases. A cheap clone.
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
    /// Builds the use cases on their ports. Nobody follows jobs until [`Jobs::start_following`].
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

    /// Starts the loop that looks at followed jobs by itself, until `stop` is cancelled; and follows what was followed
    /// before a restart, of a source that comes later when it does.
    pub fn start_following(&self, stop: CancellationToken) {
        let resume = resume::run(Arc::clone(&self.inner), stop.clone());
        self.inner.spawner.spawn(TaskKind::Resume, Box::pin(resume));
        let notifications = replicas::run(Arc::clone(&self.inner), stop.clone());
        self.inner.spawner.spawn(TaskKind::Replicas, Box::pin(notifications));
        let run = poller::run(Arc::clone(&self.inner), stop);
        self.inner.spawner.spawn(TaskKind::Poller, Box::pin(run));
    }

    /// How the store is doing.
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.health()
    }

    /// Has the store write what still waits, and let go of what lies behind it. Called once, when all else has ended.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    /// How many jobs are being followed.
    pub fn followed(&self) -> usize {
        self.inner.following.count()
    }

    /// How many jobs are being followed, by the word of the state last seen.
    pub fn followed_by_state(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.inner.following.by_state().into_iter()
    }

    /// Recognises a client by what it presents.
    ///
    /// # Errors
    /// When the client is not to be let in.
    pub fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        self.inner.identity.authenticate(presented)
    }

    /// Says whether a client that was recognised before would be recognised now as the same.
    pub fn is_still_valid(&self, principal: &Principal) -> bool {
        self.inner.identity.is_valid(principal)
    }

    /// For how long what a client came in with holds from now on; none while it is not taken back.
    pub fn pass_left(&self, principal: &Principal) -> Option<Duration> {
        let expires = principal.pass().expires?;
        Some(Duration::try_from(expires.duration_since(self.inner.clock.time_of_day())).unwrap_or_default())
    }

    /// The sources of which a client may read something, by name.
    pub fn sources(&self, principal: &Principal) -> Vec<SourceView> {
        let readers = self.inner.readers.all();
        let readable = readers.iter().filter(|(name, _)| principal.may_read(name));
        readable.map(|(_, reader)| SourceView::new(reader.status(), principal)).collect()
    }

    /// One source of which a client may read something.
    pub fn source(&self, principal: &Principal, name: &SourceName) -> Option<SourceView> {
        let reader = self.inner.readers.get(name).filter(|_| principal.may_read(name))?;
        Some(SourceView::new(reader.status(), principal))
    }
}
