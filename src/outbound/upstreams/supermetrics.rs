//! Supermetrics query status: one call an id, with row offsets that keep it small; the body is classified before the
//! status.
//!
//! Offsets as used here: the data row `n` has offset `n`, counted from 0 without the header, both ends included; every
//! page repeats the header. Not here: `paginate` links, which may contain a key and are never followed.

mod classify;
mod codes;
mod normalize;
mod readable;
mod rows;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::classify::{Meaning, classify};
use self::readable::{Evidence, ReadableJobs};
use self::wire::{ErrorBody, MetaDto};
use super::bad_answer;
use super::distinct_ids::DistinctIds;
use super::unknown_states::UnknownStates;
use super::wire::{is_same_id, whole_members};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::domain::source::{SourceStatus, Upstream};
use crate::outbound::http::{CallQuery, UpstreamCall, UpstreamReply};
use crate::outbound::upstreams::client::{CallError, ReplyVerdict, Response, Source};
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

/// The pause after a limit without `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// The pause after the upstream reported that its hourly limit is used up; it does not report until when.
const USED_UP_PAUSE: Duration = Duration::from_mins(1);
/// An offset that no row has: a query has at most a million rows.
const BEHIND_ALL_ROWS: u32 = 1_000_000;
/// An id that no query has, for [`JobReader::probe`].
const NO_JOB: &str = "00000000000000000000000000000000";

/// A Supermetrics account.
#[derive(Debug)]
pub struct SupermetricsReader {
    source: Source,
    words: UnknownStates,
    /// The source treated `offset_end: 0` as "not set", and sent all rows.
    zero_is_unset: AtomicBool,
    readable: ReadableJobs,
    /// Locked while another job is read as evidence.
    checking: tokio::sync::Mutex<()>,
    /// The source returned no rows for an offset behind the last one.
    honours_offsets: AtomicBool,
}

impl JobReader for SupermetricsReader {
    fn name(&self) -> &SourceName {
        &self.source.settings.name
    }

    fn upstream(&self) -> Upstream {
        self.source.upstream()
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
        Box::pin(self.read_all(id, range, trigger))
    }

    /// Reads a query that cannot exist: a "not found" means that the credential was accepted.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async move {
            let classify = |reply: &UpstreamReply| {
                self.classify(reply, |meaning| match settle(meaning) {
                    Ok(_) | Err(FetchError::NotFound) => Ok(()),
                    Err(error) => Err(error),
                })
            };
            let bounds = self.status_bounds();
            let call = self.call(NO_JOB, 0, 0, bounds.max_body);
            self.source.probe(other, &call, bounds.deadline, classify).await
        })
    }

    fn status(&self) -> SourceStatus {
        self.source.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.source.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.source.take_recheck()
    }
}

/// The deadline and the largest size of a response.
#[derive(Clone, Copy)]
struct AnswerBounds {
    deadline: Instant,
    max_body: usize,
}

/// The content of a usable response: the meta, and the reason if the query failed.
type StatusAnswer = (MetaDto, Option<ErrorBody>);

impl SupermetricsReader {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            words: UnknownStates::default(),
            zero_is_unset: AtomicBool::new(false),
            readable: ReadableJobs::default(),
            checking: tokio::sync::Mutex::default(),
            honours_offsets: AtomicBool::new(false),
        }
    }

    /// Fetches one job. An error that may concern this job or all of them makes the job failed only if another one can
    /// be read: then the error concerns the job.
    async fn fetch_one(&self, id: &ExternalId, trigger: &FetchTrigger) -> Fetch {
        let bounds = self.status_bounds();
        let denied = Mutex::new(None);
        let classify = |reply: &UpstreamReply| {
            self.classify(reply, |meaning| {
                if let Meaning::Denied(meta, error) = meaning {
                    let text = denial(&error);
                    *denied.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, error));
                    return Err(FetchError::Unavailable(Detail::new(text)));
                }
                self.read(id, meaning)
            })
        };
        let mut response = self.send_call(id.as_str(), trigger, (0, 0), bounds, classify).await;
        let job = match &response.outcome {
            Err(CallError::TooLarge { head, .. }) => self.read_head(id, head),
            Ok(_) | Err(CallError::Fetch(_)) => None,
        };
        match (job, &response.outcome) {
            (Some(job), _) => {
                self.source.read_after_all(id);
                response.outcome = Ok(job);
            }
            // its first row alone is too large, and precedes the status: behind the last row there is none
            (None, Err(CallError::TooLarge { head, .. }))
                if head.body.trim_ascii_start().starts_with(b"{") =>
            {
                let call = self.call(id.as_str(), BEHIND_ALL_ROWS, BEHIND_ALL_ROWS, bounds.max_body);
                response = self.source.call(trigger, &call, bounds.deadline, classify).await;
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
        let classify = |reply: &UpstreamReply| self.classify(reply, |meaning| self.read(&other, meaning));
        let response = self.send_call(other.as_str(), trigger, (0, 0), bounds, classify).await;
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

    /// Requests the status of a query with a range of its rows, both ends included.
    ///
    /// Whether an end of 0 is treated as "not set" is not documented. A response that is too large for a range with
    /// this end proves it: then the end is 1, in a second request now and in all later ones.
    async fn send_call<T: Send>(
        &self,
        id: &str,
        trigger: &FetchTrigger,
        (first, last): (u32, u32),
        bounds: AnswerBounds,
        classify: impl Fn(&UpstreamReply) -> ReplyVerdict<T> + Send + Sync,
    ) -> Response<T> {
        let known = self.zero_is_unset.load(Ordering::Relaxed);
        let end = if known { last.max(1) } else { last };
        let call = self.call(id, first, end, bounds.max_body);
        let response = self.source.call(trigger, &call, bounds.deadline, &classify).await;
        if end > 0 || !matches!(response.outcome, Err(CallError::TooLarge { .. })) {
            return response;
        }
        let call = self.call(id, first, 1, bounds.max_body);
        let again = self.source.call(trigger, &call, bounds.deadline, &classify).await;
        if again.outcome.is_ok() && !self.zero_is_unset.swap(true, Ordering::Relaxed) {
            tracing::warn!(source = %self.name(), "source ignores offset_end 0; offset_end 1 is sent");
        }
        again
    }

    fn call(&self, id: &str, first: u32, last: u32, max_body: usize) -> UpstreamCall {
        let mut parameters = Map::new();
        parameters.insert("schedule_id".to_owned(), Value::from(id));
        parameters.insert("offset_start".to_owned(), Value::from(first));
        parameters.insert("offset_end".to_owned(), Value::from(last));
        UpstreamCall {
            method: Method::GET,
            base: self.source.settings.base_url.clone(),
            segments: vec!["query".to_owned(), "status".to_owned()],
            query: CallQuery::Json(parameters),
            body: None,
            max_body,
            about: Some(id.to_owned()),
        }
    }

    /// Classifies a reply for the source; `read` interprets it for the request.
    fn classify<T>(
        &self,
        reply: &UpstreamReply,
        read: impl FnOnce(Meaning) -> Result<T, FetchError>,
    ) -> ReplyVerdict<T> {
        if reply.hour_is_used_up() {
            tracing::warn!(source = %self.name(), "hourly limit of the source exhausted");
            self.source.pause(USED_UP_PAUSE);
        }
        match classify(reply.status, &reply.body) {
            Meaning::Rejected => ReplyVerdict::Rejected,
            Meaning::Limited => ReplyVerdict::Throttled(self.pause(reply)),
            Meaning::QueryLimited => {
                ReplyVerdict::Spoke(Err(FetchError::Throttled { retry_after: self.pause(reply) }))
            }
            Meaning::Sick(text) => ReplyVerdict::Sick(Detail::new(text)),
            meaning @ (Meaning::Status(_)
            | Meaning::QueryFailed(..)
            | Meaning::Denied(..)
            | Meaning::NotFound
            | Meaning::Forbidden
            | Meaning::UpstreamError(_)
            | Meaning::Odd(_)) => ReplyVerdict::Spoke(read(meaning)),
        }
    }

    fn pause(&self, reply: &UpstreamReply) -> Duration {
        reply.retry_after(self.source.now()).unwrap_or(DEFAULT_PAUSE)
    }

    fn status_bounds(&self) -> AnswerBounds {
        let settings = &self.source.settings;
        AnswerBounds {
            deadline: Instant::now() + settings.status_timeout,
            max_body: settings.max_status_body,
        }
    }
}

/// The content of a meaning, or its error for this request.
fn settle(meaning: Meaning) -> Result<StatusAnswer, FetchError> {
    match meaning {
        Meaning::Status(meta) => Ok((meta, None)),
        Meaning::QueryFailed(meta, error) => Ok((meta, Some(error))),
        Meaning::NotFound => Err(FetchError::NotFound),
        Meaning::Rejected | Meaning::Forbidden => Err(FetchError::CredentialRejected),
        Meaning::Limited | Meaning::QueryLimited => Err(FetchError::Throttled { retry_after: DEFAULT_PAUSE }),
        Meaning::Denied(_, error) => Err(FetchError::Unavailable(Detail::new(denial(&error)))),
        Meaning::Sick(text) | Meaning::UpstreamError(text) => Err(FetchError::Unavailable(Detail::new(text))),
        Meaning::Odd(text) => Err(bad_answer(text)),
    }
}

fn denial(error: &ErrorBody) -> String {
    let code: String = error.code.as_deref().unwrap_or_default().chars().take(60).collect();
    format!("it refuses the query: {code:?}")
}

/// A response about another query is rejected.
fn check_echo(id: &ExternalId, meta: &MetaDto) -> Result<(), FetchError> {
    match meta.schedule_id.as_deref() {
        Some(response) if !is_same_id(response, id.as_str()) => {
            Err(bad_answer("the answer describes another id"))
        }
        Some(_) | None => Ok(()),
    }
}
