//! MindBridge async results: one id by GET, many by the query endpoint, page after page.
//!
//! The facts are in the vendor's reference; where it does not specify the behaviour, either one works: an id that is
//! absent from a query is confirmed by a GET before it is reported missing, and a tenant that refuses the query
//! endpoint is read one job at a time.

mod normalize;
mod parts;
mod problem;
mod query;
mod split;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use self::parts::OpenParts;
use self::problem::is_own_error;
use self::query::QueryEndpoint;
use self::split::ReadAlone;
use self::wire::AsyncResult;
use super::distinct_ids::DistinctIds;
use super::unknown_states::UnknownStates;
use super::wire::{is_same_id, object, whole_members};
use super::{bad_answer, contained};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::domain::source::{SourceStatus, Upstream};
use crate::outbound::http::{CallQuery, UpstreamCall, UpstreamReply};
use crate::outbound::upstreams::client::{CallError, ReplyVerdict, Source};
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

/// The pause after a 429 whose headers give none: "retry after about 30 s".
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// An id that no job has, for [`JobReader::probe`].
const NO_JOB: &str = "000000000000000000000000";

/// A MindBridge tenant.
#[derive(Debug)]
pub struct MindBridgeReader {
    source: Source,
    words: UnknownStates,
    query_endpoint: QueryEndpoint,
    alone: ReadAlone,
    parts: OpenParts,
}

impl JobReader for MindBridgeReader {
    fn name(&self) -> &SourceName {
        &self.source.settings.name
    }

    fn upstream(&self) -> Upstream {
        self.source.upstream()
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let deadline = self.deadline();
            let distinct = DistinctIds::new(ids);
            let chunks = distinct.ids.chunks(Upstream::MindBridge.ids_a_request());
            let fetches = join_all(chunks.map(|chunk| self.fetch_one(chunk, trigger, deadline))).await;
            distinct.spread(&fetches.concat())
        })
    }

    fn rows<'a>(
        &'a self,
        _id: &'a ExternalId,
        _range: RowRange,
        _trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(std::future::ready(Err(FetchError::NotFound)))
    }

    /// Reads a job that cannot exist: MindBridge's own "not found" error means that the credential was accepted. A
    /// wrong path under the right host may return the same, so this proves less about the base URL than about the
    /// credential.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(async move {
            let call = self.call(Method::GET, vec![NO_JOB.to_owned()]);
            self.source.probe(other, &call, self.deadline(), |reply| self.judge_probe(reply)).await
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

impl MindBridgeReader {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            words: UnknownStates::default(),
            query_endpoint: QueryEndpoint::default(),
            alone: ReadAlone::default(),
            parts: OpenParts::default(),
        }
    }

    /// The deadline of a request that starts now, including all its pages and tries.
    fn deadline(&self) -> Instant {
        Instant::now() + self.source.settings.status_timeout
    }

    /// Fetches up to a chunk of different ids: same order, same length.
    async fn fetch_one(&self, ids: &[&ExternalId], trigger: &FetchTrigger, deadline: Instant) -> Vec<Fetch> {
        let together: Vec<&ExternalId> = ids.iter().copied().filter(|id| !self.alone.holds(id)).collect();
        let mut fetches = match together.as_slice() {
            [] | [_] => HashMap::new(),
            _ if self.query_endpoint.is_off() => HashMap::new(),
            together => self.query_in_parts(together, trigger, deadline).await,
        };
        // ids without a result of the query are read one by one; the limiter bounds the rate
        join_all(ids.iter().map(|id| {
            let settled = fetches.remove(*id);
            async move {
                match settled {
                    Some(fetch) => fetch,
                    None => self.get(id, trigger, deadline).await,
                }
            }
        }))
        .await
    }

    /// Fetches one job.
    async fn get(&self, id: &ExternalId, trigger: &FetchTrigger, deadline: Instant) -> Fetch {
        let call = self.call(Method::GET, vec![id.as_str().to_owned()]);
        let classify = |reply: &UpstreamReply| self.judge_one(reply, |wire| self.read_one(id, wire));
        let response = self.source.call(trigger, &call, deadline, classify).await;
        let outcome = response.outcome.or_else(|error| self.read_head(id, error));
        Fetch { requested_at: response.requested_at, observed_at: response.observed_at, outcome }
    }

    /// Classifies the reply to a read of one job. Only MindBridge's own error means that the job does not exist: any
    /// intermediary may send a 404.
    fn judge_one<T>(
        &self,
        reply: &UpstreamReply,
        read: impl FnOnce(AsyncResult) -> Result<T, FetchError>,
    ) -> ReplyVerdict<T> {
        match reply.status {
            status if status.is_success() => {
                let wire = object(&reply.body).filter(AsyncResult::is_one);
                let text = "the body is not a JSON object that describes an async result; check base_url";
                ReplyVerdict::Spoke(wire.ok_or_else(|| bad_answer(text)).and_then(read))
            }
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE) if is_own_error(status, &reply.body) => {
                ReplyVerdict::Spoke(Err(FetchError::NotFound))
            }
            _ => self.judge_error(reply),
        }
    }

    /// Classifies the reply to a read of [`NO_JOB`].
    fn judge_probe(&self, reply: &UpstreamReply) -> ReplyVerdict<()> {
        match self.judge_one(reply, |_| Ok(())) {
            ReplyVerdict::Spoke(Err(FetchError::NotFound)) => ReplyVerdict::Spoke(Ok(())),
            verdict @ (ReplyVerdict::Spoke(_)
            | ReplyVerdict::Rejected
            | ReplyVerdict::Throttled(_)
            | ReplyVerdict::Sick(_)) => verdict,
        }
    }

    /// The job from the head of a response that is too large to be read completely: a long text must not keep a job
    /// from being terminal. The head must contain the status, and the id or the version of the job.
    fn read_head(&self, id: &ExternalId, error: CallError) -> Result<Arc<Job>, FetchError> {
        if let CallError::TooLarge { head, .. } = &error
            && head.status.is_success()
            && let Some(members) = whole_members(&head.body)
            && let Some(wire) = object(&members).filter(AsyncResult::is_one)
        {
            self.source.read_after_all(id);
            return self.read_one(id, wire);
        }
        Err(error.into())
    }

    fn read_one(&self, id: &ExternalId, wire: AsyncResult) -> Result<Arc<Job>, FetchError> {
        match wire.id.text.as_deref() {
            Some(response) if !is_same_id(response, id.as_str()) => {
                Err(bad_answer("the answer describes another id"))
            }
            // older pages show the id as an empty object: an artefact, not another job
            Some(_) | None => self.job(id, wire),
        }
    }

    /// Normalizes a result. One item that cannot be normalized must not affect the others on the page.
    fn job(&self, id: &ExternalId, wire: AsyncResult) -> Result<Arc<Job>, FetchError> {
        let key = JobKey { source: self.name().clone(), external_id: id.clone() };
        let job = contained(|| normalize::job(key, wire))?;
        if job.life == Life::Unknown {
            self.words.note(self.name(), job.native_state.as_deref());
        }
        Ok(Arc::new(job))
    }

    /// Classifies any unexpected status. The body is not required: which statuses have one is not documented.
    fn judge_error<T>(&self, reply: &UpstreamReply) -> ReplyVerdict<T> {
        let status = reply.status;
        if status == StatusCode::UNAUTHORIZED {
            ReplyVerdict::Rejected
        } else if status == StatusCode::FORBIDDEN && is_page(&reply.body) {
            ReplyVerdict::Spoke(Err(bad_answer(
                "it responded with 403 and a body that is not a JSON object: a firewall or a proxy perhaps",
            )))
        } else if status == StatusCode::FORBIDDEN {
            // the token may be valid for other jobs, so the source continues
            ReplyVerdict::Spoke(Err(FetchError::CredentialRejected))
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            let pause = reply.retry_after(self.source.now()).or_else(|| reply.user_hour_remaining());
            ReplyVerdict::Throttled(pause.unwrap_or(DEFAULT_PAUSE))
        } else if status.is_server_error() {
            ReplyVerdict::Sick(Detail::new(format!("it responded with {}", status.as_u16())))
        } else if status.is_redirection() {
            ReplyVerdict::Spoke(Err(bad_answer(
                "it responded with a redirect, which is not followed; check base_url",
            )))
        } else if is_own_error(status, &reply.body) {
            ReplyVerdict::Spoke(Err(bad_answer(format!("it responded with {}", status.as_u16()))))
        } else {
            let text = format!(
                "it responded with {} without MindBridge's own JSON error: a proxy's answer \
                    perhaps; check base_url",
                status.as_u16()
            );
            ReplyVerdict::Spoke(Err(bad_answer(text)))
        }
    }

    fn call(&self, method: Method, more: Vec<String>) -> UpstreamCall {
        let about = more.first().filter(|_| method == Method::GET).cloned();
        let mut segments = vec!["v1".to_owned(), "async-results".to_owned()];
        segments.extend(more);
        UpstreamCall {
            method,
            base: self.source.settings.base_url.clone(),
            segments,
            query: CallQuery::None,
            body: None,
            max_body: self.source.settings.max_status_body,
            about,
        }
    }
}

/// Returns whether a body is something else than an error of an API, which sends a JSON object or nothing.
fn is_page(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    !body.is_empty() && !body.starts_with(b"{")
}
