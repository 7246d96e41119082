//! The list of unfinished queries ("Listing queries"): the state of up to a thousand of them in one call. Used by sweeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::calls::StatusCalls;
use super::classify::{Meaning, is_own_error};
use super::normalize;
use crate::domain::id::ExternalId;
use crate::domain::job::Life;
use crate::domain::state::JobState;
use crate::domain::upstream::Upstream;
use crate::outbound::http::{CallQuery, UpstreamCall, UpstreamReply, UrlSegment};
use crate::outbound::upstreams::bad_answer::bad_answer;
use crate::outbound::upstreams::client::{ReplyVerdict, Response};
use crate::outbound::upstreams::wire::{id, object, tolerant, tolerant_object, whole};
use crate::ports::listing::{JobListing, ListError, Listed, UnfinishedJob};
use crate::ports::upstream::{Detail, FetchError, FetchTrigger};

/// The queries on one page; the documented maximum. A server may return fewer.
const LIMIT: usize = 1_000;
/// This part of a page is requested again with the next: queries before it may end in between.
const SHIFT_SHARE: usize = 20;
/// The maximum number of queries in one list, and of its pages. A longer one is not read.
const QUERIES: usize = 10_000;
const PAGES: usize = 100;
/// A query runs for 4 hours at most. The rest is a margin for a clock that differs.
const RUNS_FOR: Duration = Duration::from_hours(5);
/// The states of a query that is not over.
const UNFINISHED: [&str; 3] = ["SCHEDULED", "QUEUED", "RUNNING"];

/// A page of the history.
#[derive(Debug, Deserialize)]
struct HistoryPage {
    /// Not a list where it is anything else.
    #[serde(deserialize_with = "tolerant")]
    data: Option<Vec<Box<RawValue>>>,
    #[serde(default, deserialize_with = "tolerant_object")]
    meta: Option<HistoryMeta>,
}

impl HistoryPage {
    /// How many queries all pages have.
    fn total(&self) -> Option<u64> {
        self.meta.as_ref()?.paginate.as_ref()?.total
    }

    /// How many queries this page has at most.
    fn limit(&self) -> Option<u64> {
        self.meta.as_ref()?.paginate.as_ref()?.limit.filter(|limit| *limit > 0)
    }

    /// Whether it says which queries there are: no list is an empty one only if there are none. It would end all jobs else.
    fn is_list(&self) -> bool {
        self.data.is_some() || self.total() == Some(0)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HistoryMeta {
    #[serde(deserialize_with = "tolerant_object")]
    paginate: Option<Paginate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Paginate {
    #[serde(deserialize_with = "whole")]
    limit: Option<u64>,
    #[serde(deserialize_with = "whole")]
    total: Option<u64>,
}

/// A query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HistoryItem {
    #[serde(deserialize_with = "id")]
    schedule_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    status_code: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    schedule_time: Option<String>,
}

/// What a request for a page came to, apart from errors.
enum HistoryAnswer {
    Page(HistoryPage, Option<Timestamp>),
    Refused(StatusCode),
}

/// Lists the unfinished queries of some data sources of an account.
#[derive(Debug)]
pub(super) struct HistoryLists {
    calls: Arc<StatusCalls>,
}

impl HistoryLists {
    pub(super) const fn new(calls: Arc<StatusCalls>) -> Self {
        Self { calls }
    }

    /// Lists the unfinished queries, each once: of a query that ran more than once, its newest run counts.
    pub(super) async fn unfinished(&self) -> JobListing {
        let mut newest: HashMap<ExternalId, (Option<String>, UnfinishedJob)> = HashMap::new();
        let mut first: Option<(Timestamp, Option<Timestamp>)> = None;
        let mut calls = 0;
        let mut offset = 0;
        for _ in 0..PAGES {
            let response = self.page(offset).await;
            calls += 1;
            let (requested_at, upstream_time) = first.unwrap_or((response.requested_at, None));
            let listing = |upstream_time, outcome| JobListing { requested_at, upstream_time, calls, outcome };
            let (page, date) = match response.outcome.map_err(FetchError::from) {
                Ok(HistoryAnswer::Page(page, date)) => (page, date),
                Ok(HistoryAnswer::Refused(status)) => {
                    return listing(upstream_time, Err(ListError::Refused(status.as_u16())));
                }
                Err(error) => return listing(upstream_time, Err(error.into())),
            };
            let upstream_time = upstream_time.or(date);
            first = Some((requested_at, upstream_time));
            let (total, limit) = (page.total(), page.limit());
            let known = newest.len();
            let items = page.data.unwrap_or_default();
            let count = items.len();
            for item in items.iter().filter_map(|raw| object::<HistoryItem>(raw.get().as_bytes())) {
                let Some((id, at, job)) = read(item, response.requested_at, response.observed_at) else {
                    continue;
                };
                if newest.get(&id).is_none_or(|(held, _)| *held <= at) {
                    newest.insert(id, (at, job));
                }
            }
            let read = offset + count;
            let is_last = match (total, limit) {
                (Some(total), _) => count == 0 || read as u64 >= total,
                (None, Some(limit)) => (count as u64) < limit.min(LIMIT as u64),
                // Without numbers, a page without a further query is the last.
                (None, None) => newest.len() == known,
            };
            if is_last {
                let jobs = newest.into_values().map(|(_, job)| job).collect();
                return listing(upstream_time, Ok(Listed::Unfinished(jobs)));
            }
            if read > QUERIES || total.is_some_and(|total| total > QUERIES as u64) {
                return listing(upstream_time, Err(ListError::TooLong));
            }
            offset = read - count / SHIFT_SHARE;
        }
        let (requested_at, upstream_time) = first.unwrap_or_default();
        JobListing { requested_at, upstream_time, calls, outcome: Err(ListError::TooLong) }
    }

    async fn page(&self, offset: usize) -> Response<HistoryAnswer> {
        let settings = self.calls.source.settings();
        let since = self.calls.source.now() - SignedDuration::try_from(RUNS_FOR).unwrap_or_default();
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        let mut parameters = Map::new();
        parameters.insert("ds_ids".to_owned(), Value::from(settings.data_sources.clone()));
        parameters.insert("status_codes".to_owned(), Value::from(UNFINISHED.to_vec()));
        parameters.insert("since".to_owned(), Value::from(since.to_string()));
        parameters.insert("offset".to_owned(), Value::from(offset));
        parameters.insert("limit".to_owned(), Value::from(LIMIT));
        let call = UpstreamCall {
            method: Method::GET,
            base: settings.base_url.clone(),
            segments: vec![UrlSegment::Constant("query"), UrlSegment::Constant("history")],
            query: CallQuery::Json(parameters),
            body: None,
            max_body: settings.max_status_body,
            about: None,
        };
        let deadline = self.calls.status_bounds().deadline;
        let classify = |reply: &UpstreamReply| self.judge(reply);
        self.calls.source.call(&FetchTrigger::Background, &call, deadline, classify).await
    }

    fn judge(&self, reply: &UpstreamReply) -> ReplyVerdict<HistoryAnswer> {
        if reply.status.is_success()
            && !is_own_error(&reply.body)
            && let Some(page) = object::<HistoryPage>(&reply.body)
            && page.is_list()
        {
            return ReplyVerdict::Spoke(Ok(HistoryAnswer::Page(page, reply.date())));
        }
        let refuses = matches!(
            reply.status,
            StatusCode::BAD_REQUEST
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
        );
        let verdict = self.calls.classify(reply, |meaning| match meaning {
            Meaning::Forbidden => Err(FetchError::CredentialRejected),
            Meaning::UpstreamError(text) | Meaning::Sick(text) => {
                Err(FetchError::Unavailable(Detail::new(text)))
            }
            Meaning::Odd(text) => Err(bad_answer(text)),
            Meaning::Status(_)
            | Meaning::QueryFailed(..)
            | Meaning::Denied(..)
            | Meaning::QueryLimited
            | Meaning::NotFound
            | Meaning::Rejected
            | Meaning::Limited => Err(bad_answer("the body is not a page of the query history")),
        });
        match verdict {
            // Also of a proxy: what it answers to the status call is another matter.
            ReplyVerdict::Spoke(Err(_)) if refuses => {
                ReplyVerdict::Refused(HistoryAnswer::Refused(reply.status))
            }
            verdict @ (ReplyVerdict::Spoke(_)
            | ReplyVerdict::Refused(_)
            | ReplyVerdict::Rejected
            | ReplyVerdict::Throttled(_)
            | ReplyVerdict::Sick(_)) => verdict,
        }
    }
}

/// An item: its id, its time and its state. One that cannot be read is omitted, and its query is polled.
fn read(
    item: HistoryItem,
    requested_at: Timestamp,
    observed_at: Timestamp,
) -> Option<(ExternalId, Option<String>, UnfinishedJob)> {
    let id = ExternalId::parse(item.schedule_id.as_deref()?).ok()?;
    (Upstream::Supermetrics.profile().check_id)(&id).ok()?;
    let state = match normalize::life(item.status_code.as_deref()) {
        Life::Queued => JobState::Queued,
        Life::Running => JobState::Running,
        Life::Succeeded | Life::Failed(_) | Life::Canceled | Life::Expired | Life::Unknown => return None,
    };
    let (native_state, begun) = (item.status_code, item.schedule_time.clone());
    let job = UnfinishedJob { id: id.clone(), state, native_state, begun, requested_at, observed_at };
    Some((id, item.schedule_time, job))
}
