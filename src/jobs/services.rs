//! Builds the services of the use cases on their ports, from the bottom up. The head of `jobs.rs` has their order. Not here:
//! what they do.

use std::sync::Arc;

use super::authentication::Authentication;
use super::cache::JobCache;
use super::cacheability::{Freshness, FreshnessRules};
use super::feed_readers::FeedReaders;
use super::fetch::{Fetcher, Ingest, RemoteChanges};
use super::first_requests::NotFoundRetry;
use super::follow::{FollowRegistry, FollowSettings, PollPermits, Poller, Resume, SweepStatuses, Sweeper};
use super::list::{JobList, StoredJobs};
use super::lookup::Lookup;
use super::replicas::Replicas;
use super::rows::{RowReader, Rows};
use super::sources::Readers;
use super::tracked_jobs::TrackedJobs;
use super::tracking::Tracking;
use super::visibility::Visibility;
use super::watch::{AwaitTerminal, Feed, JobWatch, View};
use super::watch_token::WatchTokenIssuer;
use crate::ports::clock::Clock;
use crate::ports::feed::NotificationFeed;
use crate::ports::identity::Identity;
use crate::ports::leases::LeaseManager;
use crate::ports::ledger::Ledger;
use crate::ports::rows::RowCache;
use crate::ports::spawner::Spawner;
use crate::ports::store::JobStore;
use crate::ports::upstream::JobReader;
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

/// The services of the use cases, each with those that it uses.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) authentication: Arc<Authentication>,
    pub(super) readers: Arc<Readers>,
    pub(super) visibility: Arc<Visibility>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) tracked: Arc<TrackedJobs>,
    pub(super) cache: Arc<JobCache>,
    pub(super) following: Arc<FollowRegistry>,
    pub(super) permits: Arc<PollPermits>,
    pub(super) poller: Arc<Poller>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) sweeps: Arc<SweepStatuses>,
    pub(super) resume: Resume,
    pub(super) replicas: Replicas,
    pub(super) lookup: Arc<Lookup>,
    pub(super) list: JobList,
    pub(super) rows: Rows,
    pub(super) tracking: Tracking,
    pub(super) watch: Arc<JobWatch>,
    pub(super) await_terminal: AwaitTerminal,
    pub(super) feed: Arc<Feed>,
    pub(super) watch_tokens: WatchTokenIssuer,
    pub(super) spawner: Arc<dyn Spawner>,
}

impl Services {
    #[rustfmt::skip]
    pub(super) fn new(ports: Ports, freshness: FreshnessRules, follow: FollowSettings) -> Self {
        let Ports { identity, readers, store, ledger, leases, feed, rows, clock, spawner } = ports;
        let readers = Arc::new(Readers::new(readers));
        let freshness = Arc::new(Freshness::new(freshness));
        let authentication = Arc::new(Authentication::new(Arc::clone(&identity), clock.clone()));
        let cache = Arc::new(JobCache::new(store));
        let following = FollowRegistry::new(follow, Arc::clone(&ledger));
        let tracked = Arc::new(TrackedJobs::default());
        let visibility = Arc::new(Visibility::new(readers.clone(), tracked.clone()));
        let feeds = Arc::new(FeedReaders::new(visibility.clone(), clock.clone()));
        let ingest = Arc::new(Ingest::new(
            cache.clone(), leases.clone(), following.clone(), feeds.clone(), tracked.clone(),
        ));
        let remote = Arc::new(RemoteChanges::new(cache.clone(), ingest.clone(), following.clone()));
        let ranges = Arc::new(RowReader::new(rows, freshness.clone(), spawner.clone()));
        let sweeps = Arc::new(SweepStatuses::default());
        let fetcher = Arc::new(Fetcher::new(
            leases.clone(), following.clone(), ingest.clone(), remote.clone(), ranges.clone(), spawner.clone(),
        ));
        let sweeper = Arc::new(Sweeper::new(
            readers.clone(), following.clone(), ingest.clone(), cache.clone(), leases,
            ledger.clone(), sweeps.clone(), clock.clone(),
        ));
        let permits = Arc::new(PollPermits::default());
        let poller = Arc::new(Poller::new(
            readers.clone(), permits.clone(), following.clone(), fetcher.clone(), ingest.clone(), spawner.clone(),
        ));
        let resume = Resume::new(
            following.clone(), cache.clone(), ledger.clone(), readers.clone(), tracked.clone(), clock.clone(),
        );
        let replicas = Replicas::new(
            feed, remote, cache.clone(), ledger.clone(), readers.clone(), following.clone(), tracked.clone(),
            feeds.clone(), clock.clone(),
        );
        let retry = Arc::new(NotFoundRetry::new(freshness.clone(), following.clone()));
        let lookup = Arc::new(Lookup::new(
            visibility.clone(), cache.clone(), ingest.clone(), fetcher, following.clone(), retry.clone(),
            freshness.clone(), clock.clone(),
        ));
        let stored = StoredJobs {
            visibility: visibility.clone(), tracked: tracked.clone(), cache: cache.clone(),
        };
        let list = JobList::new(
            stored, readers.clone(), following.clone(), sweeps.clone(), freshness.clone(), clock.clone(),
            spawner.clone(),
        );
        let rows = Rows::new(visibility.clone(), readers.clone(), ranges);
        let tracking = Tracking::new(
            visibility.clone(), lookup.clone(), following.clone(), tracked.clone(), ingest.clone(),
            cache.clone(), ledger,
        );
        let view = Arc::new(View::new(visibility.clone(), following.clone(), clock.clone()));
        let watch = Arc::new(JobWatch::new(
            visibility.clone(), lookup.clone(), ingest.clone(), following.clone(), retry.clone(),
            view.clone(), clock.clone(),
        ));
        let await_terminal = AwaitTerminal::new(
            authentication.clone(), visibility.clone(), lookup.clone(), ingest, following.clone(), retry,
            view, freshness.clone(),
        );
        let watch_tokens = WatchTokenIssuer::new(identity, visibility.clone());
        let feed = Arc::new(Feed::new(feeds, visibility.clone(), clock));
        Self {
            authentication, readers, visibility, freshness, tracked, cache, following, permits, poller, sweeper, sweeps,
            resume, replicas, lookup, list, rows, tracking, watch, await_terminal, feed, watch_tokens, spawner,
        }
    }
}
