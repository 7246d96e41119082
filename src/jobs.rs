//! Layer 3: the use cases. Every inbound adapter uses [`Jobs`]. There is no other path that avoids the access check,
//! the cache or the single write path.
//!
//! `services` builds the services, and this file delegates to them. No file imports a file that imports it, from the bottom up:
//!
//! ```text
//! Tracking  JobWatch  AwaitTerminal        what a client keeps and receives
//! Lookup    Rows      JobList              answers
//! Poller    Sweeper                        the loops that poll, and list what changed
//! Fetcher   Replicas  Resume               how an observation is obtained, also from other replicas
//! Ingest                                   the only write path
//! FeedReaders  JobCache                    who receives a change, what is cached
//! ChangeLog                                what was published last
//! Visibility                               who may read what
//! TrackedJobs                              labels, and the interests that they keep
//! FollowRegistry                           what is followed, and when it is polled
//! ```

pub mod answer;
mod authentication;
mod cache;
mod cacheability;
mod change_log;
mod estimate;
mod feed_readers;
mod fetch;
mod first_requests;
mod follow;
pub mod list;
mod lookup;
mod reference;
mod replicas;
pub mod rows;
mod services;
mod sources;
mod tracked_jobs;
pub mod tracking;
pub mod visibility;
pub mod watch;
pub mod watch_token;

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use answer::{JobSnapshot, LookupResult};
pub use cacheability::FreshnessRules;
pub use estimate::JobEstimate;
pub use follow::FollowSettings;
pub use follow::SweepStatus;
use follow::SweepStatuses;
use list::{JobListFilter, JobListRequest, JobPage};
use reference::RequestedRef;
use rows::RowsPage;
pub use services::Ports;
use services::Services;
use tracking::{Labels, TrackReport};
use visibility::{AuthError, WatchOnly};
use watch::{FeedUpdate, WatchUpdate};
use watch_token::{WatchToken, WatchTokenRequestError};

use crate::domain::error::Problem;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::domain::source::SourceStatus;
use crate::domain::upstream::Upstream;
use crate::domain::viewer::ViewerGrant;
pub use crate::ports::shared_store::SharedStoreHealth;
use crate::ports::spawner::TaskKind;
use crate::ports::store::StoreHealth;
use crate::ports::upstream::JobReader;

/// A source as a client may see it.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// The status of the source.
    pub status: SourceStatus,
    /// Whether the client may see how much of the budget is in use. A client that may read only some of a source's jobs
    /// could infer from it what the others cost.
    pub shows_budget: bool,
    /// The state of its sweeps; `None` if it cannot be listed, or the client may read only some of its jobs.
    pub sweep: Option<SweepStatus>,
    /// Whether jobs that no client requested are discovered.
    pub discovers: bool,
}

impl SourceView {
    fn new(reader: &dyn JobReader, sweeps: &SweepStatuses, principal: &Principal) -> Self {
        let status = reader.status();
        let shows_budget = !principal.only_watches() && principal.scope(&status.name).is_none();
        let listed = reader.list_support().filter(|_| shows_budget);
        let discovers = reader.discovery().is_some();
        let sweep = listed.map(|_| sweeps.get(&status.name));
        Self { status, shows_budget, sweep, discovers }
    }
}

/// The use cases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    services: Arc<Services>,
}

impl Jobs {
    /// Builds the use cases on their ports. Jobs are not followed until [`Jobs::start_following`] is called.
    pub fn new(ports: Ports, freshness: FreshnessRules, follow: FollowSettings) -> Self {
        Self { services: Arc::new(Services::new(ports, freshness, follow)) }
    }

    /// Starts the loops that poll and sweep followed jobs, until `stop` is cancelled. It also resumes the jobs that were followed
    /// before a restart; those of a source that is added later resume when it is added.
    pub fn start_following(&self, stop: CancellationToken) {
        let spawner = &self.services.spawner;
        let (services, stopped) = (Arc::clone(&self.services), stop.clone());
        let resume = async move { services.resume.run(stopped).await };
        spawner.spawn(TaskKind::Resume, Box::pin(resume));
        let (services, stopped) = (Arc::clone(&self.services), stop.clone());
        let replicas = async move { services.replicas.run(stopped).await };
        spawner.spawn(TaskKind::Replicas, Box::pin(replicas));
        let sweeper = Arc::clone(&self.services.sweeper).run(stop.clone());
        spawner.spawn(TaskKind::Sweeper, Box::pin(sweeper));
        let poller = Arc::clone(&self.services.poller).run(stop);
        spawner.spawn(TaskKind::Poller, Box::pin(poller));
    }

    /// Replaces the set of sources. Calls in flight are completed by their callers.
    ///
    /// A watcher of a job of a removed source receives "no such job" as its last update. Other clients are not
    /// affected.
    pub fn put_sources(&self, readers: Vec<Arc<dyn JobReader>>) {
        let Services { readers: sources, permits, following, .. } = &*self.services;
        for source in sources.replace(readers) {
            permits.forget(&source);
            following.notify_source(&source);
        }
        // The jobs of added sources may be due or may have to be resumed.
        following.wake();
        following.wake_sweeps();
        sources.notify_changed();
    }

    /// Replaces the rules of freshness and following.
    pub fn put_rules(&self, freshness: FreshnessRules, follow: FollowSettings) {
        self.services.freshness.set(freshness);
        self.services.following.set_settings(follow);
    }

    /// The health of the store.
    pub fn store_health(&self) -> StoreHealth {
        self.services.cache.health()
    }

    /// Makes the store write what is pending and release its backend. Called once, as the last step of a shutdown.
    pub async fn close(&self) {
        self.services.cache.close().await;
    }

    /// How many jobs are being followed.
    pub fn followed(&self) -> usize {
        self.services.following.count()
    }

    /// The number of followed jobs by name of the state last observed.
    pub fn followed_by_state(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.services.following.by_state().into_iter()
    }

    /// Authenticates a client by the presented credential.
    ///
    /// # Errors
    /// When the client cannot be authenticated.
    pub fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        self.services.authentication.authenticate(presented)
    }

    /// Returns whether a principal that was authenticated before is still valid.
    pub fn is_still_valid(&self, principal: &Principal) -> bool {
        self.services.authentication.is_still_valid(principal)
    }

    /// A number that is another one whenever a credential that does not expire may be authenticated differently than
    /// before; `None` if no authenticated client may be kept.
    pub fn authentication_generation(&self) -> Option<u64> {
        self.services.authentication.generation()
    }

    /// The remaining validity of the principal's credential; `None` when it does not expire.
    pub fn expires_in(&self, principal: &Principal) -> Option<Duration> {
        self.services.authentication.time_left(principal)
    }

    /// Checks whether the client may change the gateway's state, for the jobs that it may read.
    ///
    /// # Errors
    /// When the client uses a watch token.
    pub fn may_change(&self, principal: &Principal) -> Result<(), WatchOnly> {
        visibility::may_change(principal)
    }

    /// The sources of which a client may read at least some jobs, by name.
    pub fn sources(&self, principal: &Principal) -> Vec<SourceView> {
        let readers = self.services.readers.all();
        let readable = readers.iter().filter(|(name, _)| principal.may_read(name));
        let sweeps = &self.services.sweeps;
        readable.map(|(_, reader)| SourceView::new(&**reader, sweeps, principal)).collect()
    }

    /// One source, if the client may read at least some of its jobs.
    pub fn source(&self, principal: &Principal, name: &SourceName) -> Option<SourceView> {
        let reader = self.services.readers.get(name).filter(|_| principal.may_read(name))?;
        Some(SourceView::new(&*reader, &self.services.sweeps, principal))
    }

    /// The upstream of a source; `None` if the source is not configured.
    pub fn upstream_of(&self, name: &SourceName) -> Option<Upstream> {
        self.services.readers.upstream(name)
    }

    /// The grant of the client that shows this job to it now; `None` if none does any more.
    pub fn viewer_grant(&self, principal: &Principal, seen: &JobSnapshot) -> Option<ViewerGrant> {
        self.services.visibility.grant_showing(principal, &seen.observation.job)
    }

    /// When a job that the client was shown is expected to finish, as of its snapshot. `None` for a terminal job, and if
    /// too little is known of jobs of its kind.
    pub fn estimate(&self, seen: &JobSnapshot) -> Option<JobEstimate> {
        estimate::estimate(&self.services.following, seen)
    }

    /// Looks up one job. See [`Jobs::lookup`].
    pub async fn lookup_one(
        &self,
        principal: &Principal,
        reference: RequestedRef,
        max_staleness: Option<Duration>,
    ) -> LookupResult {
        let mut answers = self.lookup(principal, &[reference], max_staleness).await;
        answers.pop().unwrap_or_else(|| unreachable!("each reference has one answer"))
    }

    /// Looks up jobs: same order, same length; each job is fetched at most once, however often it is named.
    ///
    /// A job that is not terminal is at most as old as `max_staleness` allows, or the answer contains the reason.
    /// Always answers within the configured time. Cancel safe: a fetch in flight continues for the other callers and
    /// for the store.
    pub async fn lookup(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        max_staleness: Option<Duration>,
    ) -> Vec<LookupResult> {
        self.services.lookup.lookup(principal, refs, max_staleness).await
    }

    /// Looks up jobs without waiting: same order, same length. `None`, with nothing done, unless the client may read each
    /// of them, and each is in memory and as fresh as required.
    ///
    /// `convert` is called for each, so that the jobs of a long list are not moved a second time.
    pub fn held<T>(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        max_staleness: Option<Duration>,
        convert: impl Fn(JobSnapshot) -> T,
    ) -> Option<Vec<T>> {
        self.services.lookup.held(principal, refs, max_staleness, convert)
    }

    /// Waits at most `timeout` until a job is terminal, and returns the state reached.
    ///
    /// A job that is not found is waited for as in a watch, since it may have been created a moment ago; an invalid
    /// reference is answered at once. The wait ends when the credential expires; if the credential was revoked
    /// meanwhile, the answer is "no such job". With a zero timeout it is an ordinary lookup. Cancel safe.
    pub async fn await_end(
        &self,
        principal: &Principal,
        reference: RequestedRef,
        timeout: Duration,
    ) -> LookupResult {
        if timeout.is_zero() {
            return self.lookup_one(principal, reference, None).await;
        }
        self.services.await_terminal.wait(principal, reference, timeout).await
    }

    /// Watches jobs: a snapshot of each, then its changes; the stream completes when all jobs have.
    ///
    /// A job that is named twice is reported twice. An invalid reference is reported once, as a final problem. An
    /// upstream error affects the freshness and never ends the stream. Dropping the stream ends the interest.
    pub fn watch(
        &self,
        principal: Principal,
        refs: Vec<RequestedRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        self.services.watch.updates(principal, refs, max_staleness)
    }

    /// Every change from now on that the client may see and that matches the filter. With the cursor `after` of an earlier
    /// feed, the first update reports whether the changes behind it follow. The stream ends only for a reader that has
    /// fallen too far behind.
    pub fn feed(
        &self,
        principal: Principal,
        filter: JobListFilter,
        after: Option<&str>,
    ) -> impl Stream<Item = FeedUpdate> + Send + use<> {
        self.services.feed.changes(principal, filter, after)
    }

    /// Lists stored jobs. Makes no upstream call.
    ///
    /// # Errors
    /// When the cursor is not one of this list, or the store does not respond.
    pub async fn list(&self, principal: &Principal, request: &JobListRequest) -> Result<JobPage, Problem> {
        self.services.list.page(principal, request).await
    }

    /// Reads at most `first` rows behind the cursor `after` of the finished job that `observation` describes.
    ///
    /// `None` while the job has not succeeded: there are no rows yet. Cancel safe.
    ///
    /// # Errors
    /// `EXPIRED` if the upstream no longer keeps the rows, `INVALID_REF` for a cursor that is not of this gateway, and
    /// any error of the source.
    pub async fn rows(
        &self,
        principal: &Principal,
        observation: &Observation,
        first: u32,
        after: Option<&str>,
    ) -> Result<Option<RowsPage>, Problem> {
        self.services.rows.page(principal, observation, first, after).await
    }

    /// Follows jobs until they are untracked, and answers for each: same order, same length.
    ///
    /// Tracking a job again replaces its labels. A job that the client cannot read is not tracked. A client that is
    /// restricted to labels changes no labels.
    ///
    /// # Errors
    /// When the labels are invalid: then nothing is tracked. When a limit is reached: then some of the jobs are.
    pub async fn track(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<Vec<LookupResult>, Problem> {
        self.track_and_report(principal, refs, labels).await.map(|report| report.answers)
    }

    /// The same, and whether the ledger has stored what is tracked.
    ///
    /// # Errors
    /// As above.
    pub async fn track_and_report(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        labels: &Labels,
    ) -> Result<TrackReport, Problem> {
        self.services.tracking.track(principal, refs, labels).await
    }

    /// Untracks jobs; their watchers are not affected. Returns how many were tracked. Makes no upstream call.
    pub async fn untrack(&self, principal: &Principal, refs: &[RequestedRef]) -> usize {
        self.services.tracking.untrack(principal, refs).await
    }

    /// The labels of a tracked job.
    pub fn labels(&self, key: &JobKey) -> Option<Labels> {
        self.services.tracked.labels(key)
    }

    /// Creates a token for jobs that the client may request. Makes no call: whether they exist, and have a kind that
    /// the client may see, is checked when the token is used.
    ///
    /// # Errors
    /// See [`WatchTokenRequestError`]; the first invalid reference fails the request.
    pub fn watch_token(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenRequestError> {
        self.services.watch_tokens.create(principal, refs, ttl)
    }
}
