//! The requests to a Supermetrics account, and the classification of replies that all of them share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::classify::{Meaning, classify};
use super::wire::{ErrorBody, MetaDto};
use crate::domain::id::{ExternalId, SourceName};
use crate::outbound::http::{CallQuery, UpstreamCall, UpstreamReply, UrlSegment};
use crate::outbound::upstreams::bad_answer::bad_answer;
use crate::outbound::upstreams::client::{CallError, ReplyVerdict, Response, Source};
use crate::outbound::upstreams::wire::is_same_id;
use crate::ports::upstream::{Detail, FetchError, FetchTrigger};

/// The pause after a limit without `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);
/// The pause after the upstream reported that its hourly limit is used up; it does not report until when.
const USED_UP_PAUSE: Duration = Duration::from_mins(1);
/// An offset that no row has: a query has at most a million rows.
pub(super) const BEHIND_ALL_ROWS: u32 = 1_000_000;

/// The deadline and the largest size of a response.
#[derive(Clone, Copy)]
pub(super) struct AnswerBounds {
    pub(super) deadline: Instant,
    pub(super) max_body: usize,
}

/// The content of a usable response: the meta, and the reason if the query failed.
pub(super) type StatusAnswer = (MetaDto, Option<ErrorBody>);

/// Makes calls to an account.
#[derive(Debug)]
pub(super) struct StatusCalls {
    pub(super) source: Source,
    /// The source treated `offset_end: 0` as "not set", and sent all rows.
    zero_is_unset: AtomicBool,
}

impl StatusCalls {
    pub(super) fn new(source: Source) -> Self {
        Self { source, zero_is_unset: AtomicBool::new(false) }
    }

    /// The name of the source.
    pub(super) fn name(&self) -> &SourceName {
        &self.source.settings().name
    }

    /// Requests the status of a query with a range of its rows, both ends included.
    ///
    /// Whether an end of 0 is treated as "not set" is not documented. A response that is too large for a range with
    /// this end proves it: then the end is 1, in a second request now and in all later ones.
    pub(super) async fn send_call<T: Send>(
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

    pub(super) fn call(&self, id: &str, first: u32, last: u32, max_body: usize) -> UpstreamCall {
        let mut parameters = Map::new();
        parameters.insert("schedule_id".to_owned(), Value::from(id));
        parameters.insert("offset_start".to_owned(), Value::from(first));
        parameters.insert("offset_end".to_owned(), Value::from(last));
        UpstreamCall {
            method: Method::GET,
            base: self.source.settings().base_url.clone(),
            segments: vec![UrlSegment::Constant("query"), UrlSegment::Constant("status")],
            query: CallQuery::Json(parameters),
            body: None,
            max_body,
            about: Some(id.to_owned()),
        }
    }

    /// Classifies a reply for the source; `read` interprets it for the request.
    pub(super) fn classify<T>(
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

    pub(super) fn status_bounds(&self) -> AnswerBounds {
        let settings = self.source.settings();
        AnswerBounds {
            deadline: Instant::now() + settings.status_timeout,
            max_body: settings.max_status_body,
        }
    }
}

/// The content of a meaning, or its error for this request.
pub(super) fn settle(meaning: Meaning) -> Result<StatusAnswer, FetchError> {
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

pub(super) fn denial(error: &ErrorBody) -> String {
    let code: String = error.code.as_deref().unwrap_or_default().chars().take(60).collect();
    format!("it refuses the query: {code:?}")
}

/// A response about another query is rejected.
pub(super) fn check_echo(id: &ExternalId, meta: &MetaDto) -> Result<(), FetchError> {
    match meta.schedule_id.as_deref() {
        Some(response) if !is_same_id(response, id.as_str()) => {
            Err(bad_answer("the answer describes another id"))
        }
        Some(_) | None => Ok(()),
    }
}
