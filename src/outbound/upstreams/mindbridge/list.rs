//! The list of what changed: the query endpoint with a filter by date instead of ids, page after page. Used by sweeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::problem::is_own_error;
use super::query::goes_on;
use super::single::SingleReads;
use super::wire::{AsyncResult, ResultPage};
use crate::domain::id::ExternalId;
use crate::domain::observation::Observation;
use crate::domain::upstream::Upstream;
use crate::outbound::http::{CallQuery, UpstreamReply, UrlSegment};
use crate::outbound::upstreams::bad_answer::bad_answer;
use crate::outbound::upstreams::client::{CallError, ReplyVerdict, Response};
use crate::outbound::upstreams::wire::object;
use crate::ports::listing::{JobListing, ListError, Listed};
use crate::ports::upstream::{FetchError, FetchTrigger};

/// The jobs requested in one page. No maximum is published: a tenant may return fewer, or refuse the number.
const SIZE: usize = 500;
/// The page size of a tenant that refuses [`SIZE`], and the smallest one where pages exceed the size limit.
const SMALLER: usize = 100;
const SMALLEST: usize = 25;
/// The maximum number of pages of one list. A longer one is not read.
const PAGES: usize = 20;

/// One page, and the upstream's time of day.
struct DatedPage {
    page: ResultPage,
    date: Option<Timestamp>,
}

/// What a request for a page came to, apart from errors.
enum ListAnswer {
    Page(DatedPage),
    Refused(StatusCode),
}

/// Lists the changed jobs of a tenant.
#[derive(Debug)]
pub(super) struct ChangeLists {
    single: Arc<SingleReads>,
    /// The page size in use.
    size: AtomicUsize,
}

impl ChangeLists {
    pub(super) const fn new(single: Arc<SingleReads>) -> Self {
        Self { single, size: AtomicUsize::new(SIZE) }
    }

    /// Lists the jobs that changed at this time or later. A page that is refused or too large is requested again with a
    /// smaller size, which is then kept.
    pub(super) async fn changes(&self, since: Timestamp) -> JobListing {
        let mut calls = 0;
        loop {
            let size = self.size.load(Ordering::Relaxed);
            let mut too_large = false;
            let listing = self.read(since, size, &mut calls, &mut too_large).await;
            let smaller = match &listing.outcome {
                Err(ListError::Refused(400 | 413 | 422)) if size > SMALLER => SMALLER,
                Err(ListError::Fetch(_)) if too_large && size > SMALLEST => (size / 2).max(SMALLEST),
                Ok(_) | Err(_) => return listing,
            };
            self.size.store(smaller, Ordering::Relaxed);
        }
    }

    async fn read(&self, since: Timestamp, size: usize, calls: &mut u32, too_large: &mut bool) -> JobListing {
        let mut listed: HashMap<ExternalId, Observation> = HashMap::new();
        let mut first: Option<(Timestamp, Option<Timestamp>)> = None;
        let mut used = 0;
        for number in 0..PAGES {
            let response = self.page(since, size, number).await;
            *calls += 1;
            let (requested_at, observed_at) = (response.requested_at, response.observed_at);
            let (begun, date) = first.unwrap_or((requested_at, None));
            let ends = |upstream_time, outcome| JobListing {
                requested_at: begun,
                upstream_time,
                calls: *calls,
                outcome,
            };
            *too_large = matches!(response.outcome, Err(CallError::TooLarge { .. }));
            let DatedPage { page, date: page_date } = match response.outcome.map_err(FetchError::from) {
                Ok(ListAnswer::Page(page)) => page,
                Ok(ListAnswer::Refused(status)) => {
                    return ends(date, Err(ListError::Refused(status.as_u16())));
                }
                Err(error) => return ends(date, Err(error.into())),
            };
            let date = if number == 0 { page_date } else { date };
            first = Some((begun, date));
            if page.total_pages.is_some_and(|pages| pages > PAGES as u64) {
                return ends(date, Err(ListError::TooLong));
            }
            used += page.content.len() as u64;
            let is_empty = page.content.is_empty();
            let more = goes_on(&page, number, used);
            let before = listed.len();
            for wire in page.content {
                if let Some(observation) = self.observation(wire, requested_at, observed_at) {
                    let newest = listed.get(&observation.job.key.external_id);
                    if newest.is_none_or(|held| observation.supersedes(held)) {
                        listed.insert(observation.job.key.external_id.clone(), observation);
                    }
                }
            }
            let counts = page.total_pages.is_some() || page.total_elements.is_some();
            // Without numbers, a page that is short or contains no new job is the last.
            if is_empty || !more || (!counts && listed.len() == before) {
                return ends(date, Ok(Listed::Changes(listed.into_values().collect())));
            }
        }
        let (requested_at, upstream_time) = first.unwrap_or_default();
        JobListing { requested_at, upstream_time, calls: *calls, outcome: Err(ListError::TooLong) }
    }

    /// The observation of an item. One that cannot be read is omitted: verification by id reads the job.
    fn observation(
        &self,
        wire: AsyncResult,
        requested_at: Timestamp,
        observed_at: Timestamp,
    ) -> Option<Observation> {
        let id = ExternalId::parse(wire.id.text.as_deref()?).ok().filter(|_| wire.is_one())?;
        (Upstream::MindBridge.profile().check_id)(&id).ok()?;
        let job = self.single.job(&id, wire).ok()?;
        Some(Observation::new(job, requested_at, observed_at))
    }

    async fn page(&self, since: Timestamp, size: usize, number: usize) -> Response<ListAnswer> {
        let mut call = self.single.call(Method::POST, UrlSegment::Constant("query"));
        call.query = CallQuery::Pairs(vec![("page", number.to_string()), ("size", size.to_string())]);
        // Whole seconds: whether dates are compared as times or as text is not published.
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        call.body = Some(json!({ "lastModifiedDate": { "$gte": since.to_string() } }));
        let classify = |reply: &UpstreamReply| self.judge(reply);
        self.single.source.call(&FetchTrigger::Background, &call, self.single.deadline(), classify).await
    }

    fn judge(&self, reply: &UpstreamReply) -> ReplyVerdict<ListAnswer> {
        match reply.status {
            status if status.is_success() => ReplyVerdict::Spoke(
                object(&reply.body)
                    .map(|page| ListAnswer::Page(DatedPage { page, date: reply.date() }))
                    .ok_or_else(|| bad_answer("the body is not a page of async results")),
            ),
            status @ (StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY)
                if is_own_error(status, &reply.body) =>
            {
                ReplyVerdict::Spoke(Ok(ListAnswer::Refused(status)))
            }
            _ => self.single.judge_error(reply),
        }
    }
}
