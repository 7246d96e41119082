//! The interface of an upstream in the terms of the domain. An adapter implements it and never calls a use case.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::BoxFuture;
use super::credentials::Credential;
pub use super::fetch_error::{Detail, FetchError};
use super::listing::{JobListing, ListSupport};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::job::Job;
use crate::domain::source::SourceStatus;
use crate::domain::sweep::DiscoveryRules;
use crate::domain::upstream::Upstream;

/// What a call is made for. Waiting callers have priority over background calls, and are served in fair order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchTrigger {
    /// No caller waits: a poll, or a re-check of a cached answer.
    Background,
    /// The operator waits: a test of a source.
    Operator,
    /// The client of this name waits.
    Client(Arc<str>),
}

/// The demand of the polls of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollDemand {
    /// Calls per hour if each job is polled at its longest interval.
    pub calls_per_hour: u32,
    /// Whether one of the jobs is watched.
    pub awaited: bool,
}

/// The limits on the polls of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollPacing {
    /// The minimum time between the starts of polls, so that the hourly budget lasts; zero while it is sufficient.
    pub spacing: Duration,
    /// For how long no poll may start, because the rest of the budget is reserved for callers.
    pub closed_for: Duration,
    /// The circuit breaker is open: the time until a call may probe whether the source has recovered.
    pub broken_for: Option<Duration>,
}

/// The result of fetching one job.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// When the request was sent.
    pub requested_at: Timestamp,
    /// When the response was complete, or the attempt was abandoned.
    pub observed_at: Timestamp,
    /// The job, or why it could not be fetched.
    pub outcome: Result<Arc<Job>, FetchError>,
}

/// A range of rows: `count` of them from the row number `first`, which starts at 0 after the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRange {
    /// The first row.
    pub first: u32,
    /// The maximum number of rows; at least 1.
    pub count: u32,
}

/// Rows as received. Cells keep the upstream's bytes (`1.10` stays `1.10`). There may be fewer than the upstream
/// reports: see [`RowPage::is_whole`].
#[derive(Clone, Debug)]
pub struct RowPage {
    /// The header row.
    pub header: Vec<Box<RawValue>>,
    /// The rows, without the header.
    pub rows: Vec<Vec<Box<RawValue>>>,
    /// The total number of rows, if the upstream reports it.
    pub total: Option<u32>,
}

impl RowPage {
    /// Returns whether this contains all existing rows of a range, according to the total that the upstream reports.
    pub fn is_whole(&self, range: RowRange) -> bool {
        let there = self.total.map_or(0, |total| total.saturating_sub(range.first).min(range.count));
        self.rows.len() >= there as usize
    }
}

/// One source, ready to be called. It handles budget, pauses, retries and the credential itself.
pub trait JobReader: Debug + Send + Sync {
    /// The source's name.
    fn name(&self) -> &SourceName;

    /// The kind of its upstream.
    fn upstream(&self) -> Upstream;

    /// Fetches many jobs at once, in as few requests as the upstream allows: same order, same length. Never empty.
    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>>;

    /// Reads rows of a terminal job. A source without rows returns `NotFound`.
    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>>;

    /// How the source lists jobs; `None` if it cannot, or not as it is configured.
    fn list_support(&self) -> Option<ListSupport> {
        None
    }

    /// Which jobs are discovered that no client requested; `None` if none are.
    fn discovery(&self) -> Option<DiscoveryRules> {
        None
    }

    /// Lists what a sweep needs, in the background: the jobs that changed at this time or later, by the upstream's clock,
    /// or those that are not terminal. `None` if the source cannot list jobs.
    fn list(&self, since: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        let _: Timestamp = since;
        Box::pin(std::future::ready(None))
    }

    /// Tests the source with one harmless read: does it respond, and does it accept the credential? With a credential
    /// other than the active one, one call is made, and its result does not affect the active one: `CredentialRejected`
    /// then means that the source itself has rejected the other.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>>;

    /// The present status of the source.
    fn status(&self) -> SourceStatus;

    /// Applies the demand of the polls of the source, and returns their limits.
    fn pace_polls(&self, demand: PollDemand) -> PollPacing;

    /// Acquires the right to one background call that is not a poll, if one is allowed now: few while polls are spaced.
    fn take_recheck(&self) -> bool;
}
