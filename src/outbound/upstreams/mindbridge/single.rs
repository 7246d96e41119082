//! Reads of one MindBridge job, and the classification of replies that all requests share.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::normalize;
use super::problem::is_own_error;
use super::wire::AsyncResult;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Job, Life};
use crate::outbound::http::{CallQuery, UpstreamCall, UpstreamReply, UrlSegment};
use crate::outbound::upstreams::bad_answer::{bad_answer, contained};
use crate::outbound::upstreams::client::{CallError, ReplyVerdict, Source};
use crate::outbound::upstreams::unknown_states::UnknownStates;
use crate::outbound::upstreams::wire::{is_same_id, object, whole_members};
use crate::ports::credentials::Credential;
use crate::ports::upstream::{Detail, Fetch, FetchError, FetchTrigger};

/// The pause after a 429 whose headers give none: "retry after about 30 s".
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// An id that no job has, for [`SingleReads::probe`].
pub(super) const NO_JOB: &str = "000000000000000000000000";

/// Reads single jobs of a tenant.
#[derive(Debug)]
pub(super) struct SingleReads {
    pub(super) source: Source,
    words: UnknownStates,
}

impl SingleReads {
    pub(super) fn new(source: Source) -> Self {
        Self { source, words: UnknownStates::default() }
    }

    /// The name of the source.
    pub(super) fn name(&self) -> &SourceName {
        &self.source.settings().name
    }

    /// The deadline of a request that starts now, including all its pages and tries.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.source.settings().status_timeout
    }

    /// Reads a job that cannot exist: MindBridge's own "not found" error means that the credential was accepted. A
    /// wrong path under the right host may return the same, so this proves less about the base URL than about the
    /// credential.
    pub(super) async fn probe(&self, other: Option<&Credential>) -> Result<(), FetchError> {
        let call = self.call_for(NO_JOB);
        self.source.probe(other, &call, self.deadline(), |reply| self.judge_probe(reply)).await
    }

    /// Returns whether the source answers a single read with a MindBridge response. Costs one call.
    pub(super) async fn answers(&self, trigger: &FetchTrigger, deadline: Instant) -> bool {
        let call = self.call_for(NO_JOB);
        let classify = |reply: &UpstreamReply| self.judge_probe(reply);
        self.source.call_with_retries(trigger, &call, deadline, 0, classify).await.outcome.is_ok()
    }

    /// Fetches one job.
    pub(super) async fn get(&self, id: &ExternalId, trigger: &FetchTrigger, deadline: Instant) -> Fetch {
        let call = self.call_for(id.as_str());
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
    pub(super) fn judge_probe(&self, reply: &UpstreamReply) -> ReplyVerdict<()> {
        match self.judge_one(reply, |_| Ok(())) {
            ReplyVerdict::Spoke(Err(FetchError::NotFound)) => ReplyVerdict::Spoke(Ok(())),
            verdict @ (ReplyVerdict::Spoke(_)
            | ReplyVerdict::Refused(())
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
    pub(super) fn job(&self, id: &ExternalId, wire: AsyncResult) -> Result<Arc<Job>, FetchError> {
        let key = JobKey { source: self.name().clone(), external_id: id.clone() };
        let job = contained(|| normalize::job(key, wire))?;
        if job.life == Life::Unknown {
            self.words.note(self.name(), job.native_state.as_deref());
        }
        Ok(Arc::new(job))
    }

    /// Classifies any unexpected status. The body is not required: which statuses have one is not documented.
    pub(super) fn judge_error<T>(&self, reply: &UpstreamReply) -> ReplyVerdict<T> {
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

    /// The read of one job.
    fn call_for(&self, id: &str) -> UpstreamCall {
        let call = self.call(Method::GET, UrlSegment::Id(id.to_owned()));
        UpstreamCall { about: Some(id.to_owned()), ..call }
    }

    /// A call of the collection of async results, or of one of them.
    pub(super) fn call(&self, method: Method, last: UrlSegment) -> UpstreamCall {
        UpstreamCall {
            method,
            base: self.source.settings().base_url.clone(),
            segments: vec![UrlSegment::Constant("v1"), UrlSegment::Constant("async-results"), last],
            query: CallQuery::None,
            body: None,
            max_body: self.source.settings().max_status_body,
            about: None,
        }
    }
}

/// Returns whether a body is something else than an error of an API, which sends a JSON object or nothing.
fn is_page(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    !body.is_empty() && !body.starts_with(b"{")
}
