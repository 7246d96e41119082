//! Supermetrics query status: one call an id, with row offsets that keep it small; the body is classified before the
//! status.
//!
//! Offsets as used here: the data row `n` has offset `n`, counted from 0 without the header, both ends included; every
//! page repeats the header. Not here: `paginate` links, which may contain a key and are never followed.

mod calls;
mod classify;
mod codes;
mod history;
mod normalize;
mod readable;
mod rows;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use self::calls::{AnswerBounds, BEHIND_ALL_ROWS, StatusCalls, check_echo, denial, settle};
use self::classify::{Meaning, classify};
use self::history::HistoryLists;
use self::readable::{Evidence, ReadableJobs};
use self::rows::RowReads;
use self::wire::{ErrorBody, MetaDto};
use super::client::{CallError, Source};
use super::distinct_ids::DistinctIds;
use super::unknown_states::UnknownStates;
use super::wire::whole_members;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::domain::source::SourceStatus;
use crate::domain::sweep::DiscoveryRules;
use crate::domain::upstream::Upstream;
use crate::outbound::http::UpstreamReply;
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::listing::{JobListing, ListSupport};
use crate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

/// An id that no query has, for [`JobReader::probe`].
const NO_JOB: &str = "00000000000000000000000000000000";

/// A Supermetrics account.
#[derive(Debug)]
pub struct SupermetricsReader {
    calls: Arc<StatusCalls>,
    rows: RowReads,
    lists: HistoryLists,
    words: UnknownStates,
    readable: ReadableJobs,
    /// Locked while another job is read as evidence.
    checking: tokio::sync::Mutex<()>,
}

impl JobReader for SupermetricsReader {
    fn name(&self) -> &SourceName {
        self.calls.name()
    }

    fn upstream(&self) -> Upstream {
        self.calls.source.upstream()
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let distinct = DistinctIds::new(ids);
            let fetches = join_all(distinct.ids.iter().map(|id| self.fetch_one(id, trigger))).await;
            distinct.spread(&fetches)
        })
    }

    /// Reads rows of a query that succeeded. One in any other state has none, and returns [`FetchError::NotFound`] like
    /// one that does not exist.
    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(self.rows.read_all(id, range, trigger))
    }

    /// The history requires the data sources whose queries it contains.
    fn list_support(&self) -> Option<ListSupport> {
        let listed = !self.calls.source.settings().data_sources.is_empty();
        listed.then_some(ListSupport::Unfinished)
    }

    fn discovery(&self) -> Option<DiscoveryRules> {
        self.calls.source.settings().discovery
    }

    fn list(&self, _: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        Box::pin(async move { Some(self.lists.unfinished().await) })
    }

    /// Reads a query that cannot exist: a "not found" means that the credential was accepted.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async move {
            let classify = |reply: &UpstreamReply| {
                self.calls.classify(reply, |meaning| match settle(meaning) {
                    Ok(_) | Err(FetchError::NotFound) => Ok(()),
                    Err(error) => Err(error),
                })
            };
            let bounds = self.calls.status_bounds();
            let call = self.calls.call(NO_JOB, 0, 0, bounds.max_body);
            self.calls.source.probe(other, &call, bounds.deadline, classify).await
        })
    }

    fn status(&self) -> SourceStatus {
        self.calls.source.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.calls.source.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.calls.source.take_recheck()
    }
}

impl SupermetricsReader {
    pub(super) fn new(source: Source) -> Self {
        let calls = Arc::new(StatusCalls::new(source));
        Self {
            rows: RowReads::new(Arc::clone(&calls)),
            lists: HistoryLists::new(Arc::clone(&calls)),
            calls,
            words: UnknownStates::default(),
            readable: ReadableJobs::default(),
            checking: tokio::sync::Mutex::default(),
        }
    }

    /// Fetches one job. An error that may concern this job or all of them makes the job failed only if another one can
    /// be read: then the error concerns the job.
    async fn fetch_one(&self, id: &ExternalId, trigger: &FetchTrigger) -> Fetch {
        let bounds = self.calls.status_bounds();
        let denied = Mutex::new(None);
        let classify = |reply: &UpstreamReply| {
            self.calls.classify(reply, |meaning| {
                if let Meaning::Denied(meta, error) = meaning {
                    let text = denial(&error);
                    *denied.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, error));
                    return Err(FetchError::Unavailable(Detail::new(text)));
                }
                self.read(id, meaning)
            })
        };
        let mut response = self.calls.send_call(id.as_str(), trigger, (0, 0), bounds, classify).await;
        let job = match &response.outcome {
            Err(CallError::TooLarge { head, .. }) => self.read_head(id, head),
            Ok(_) | Err(CallError::Fetch(_)) => None,
        };
        match (job, &response.outcome) {
            (Some(job), _) => {
                self.calls.source.read_after_all(id);
                response.outcome = Ok(job);
            }
            // its first row alone is too large, and precedes the status: behind the last row there is none
            (None, Err(CallError::TooLarge { head, .. }))
                if head.body.trim_ascii_start().starts_with(b"{") =>
            {
                let call = self.calls.call(id.as_str(), BEHIND_ALL_ROWS, BEHIND_ALL_ROWS, bounds.max_body);
                response = self.calls.source.call(trigger, &call, bounds.deadline, classify).await;
            }
            (None, _) => {}
        }
        let mut outcome = response.outcome.map_err(FetchError::from);
        let denied = denied.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (&outcome, denied) {
            (Ok(job), _) if job.failure().is_none() => self.readable.note(id, response.sent),
            (Err(FetchError::Unavailable(_)), Some((meta, error))) => {
                if self.another_reads(id, Instant::now(), trigger, bounds).await {
                    outcome = check_echo(id, &meta).map(|()| self.failed(id, meta, &error));
                }
            }
            (Ok(_) | Err(_), _) => {}
        }
        Fetch { requested_at: response.requested_at, observed_at: response.observed_at, outcome }
    }

    /// Returns whether a job other than `id` can be read, by a request sent after `denied`, the time at which the
    /// response about `id` arrived: an earlier one may have been answered before the permission was lost.
    async fn another_reads(
        &self,
        id: &ExternalId,
        denied: Instant,
        trigger: &FetchTrigger,
        bounds: AnswerBounds,
    ) -> bool {
        // one check at a time: concurrent callers use its result
        let Ok(_guard) = tokio::time::timeout_at(bounds.deadline, self.checking.lock()).await else {
            return false;
        };
        let other = match self.readable.evidence(id, denied) {
            Evidence::OthersRead => return true,
            Evidence::None => return false,
            Evidence::Check(other) => other,
        };
        let classify =
            |reply: &UpstreamReply| self.calls.classify(reply, |meaning| self.read(&other, meaning));
        let response = self.calls.send_call(other.as_str(), trigger, (0, 0), bounds, classify).await;
        let reads = response.outcome.is_ok_and(|job| job.failure().is_none());
        if reads {
            self.readable.note(&other, response.sent);
        }
        reads
    }

    fn failed(&self, id: &ExternalId, meta: MetaDto, error: &ErrorBody) -> Arc<Job> {
        Arc::new(normalize::failed(self.key(id), meta, error))
    }

    fn key(&self, id: &ExternalId) -> JobKey {
        JobKey { source: self.name().clone(), external_id: id.clone() }
    }

    /// The job from the head of a response that is too large to be read completely: a wide row must not keep a query
    /// from being terminal.
    fn read_head(&self, id: &ExternalId, head: &UpstreamReply) -> Option<Arc<Job>> {
        match classify(head.status, &whole_members(&head.body)?) {
            meaning @ Meaning::Status(_) => self.read(id, meaning).ok(),
            Meaning::QueryFailed(..)
            | Meaning::Denied(..)
            | Meaning::QueryLimited
            | Meaning::NotFound
            | Meaning::Rejected
            | Meaning::Forbidden
            | Meaning::Limited
            | Meaning::UpstreamError(_)
            | Meaning::Sick(_)
            | Meaning::Odd(_) => None,
        }
    }

    fn read(&self, id: &ExternalId, meaning: Meaning) -> Result<Arc<Job>, FetchError> {
        let (meta, error) = settle(meaning)?;
        check_echo(id, &meta)?;
        let Some(error) = error else { return Ok(self.alive(id, meta)) };
        Ok(self.failed(id, meta, &error))
    }

    fn alive(&self, id: &ExternalId, meta: MetaDto) -> Arc<Job> {
        let job = normalize::job(self.key(id), meta);
        if job.life == Life::Unknown {
            self.words.note(self.name(), job.native_state.as_deref());
        }
        Arc::new(job)
    }
}
