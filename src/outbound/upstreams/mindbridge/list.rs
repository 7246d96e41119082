//! The list of what changed: the query endpoint with a filter by date instead of ids, page after page. Used by sweeps.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
/// The maximum number of jobs in one list, and of its pages, whatever their size. A longer one is not read.
const JOBS: u64 = 10_000;
const PAGES: usize = 100;
/// After so many complete lists with smaller pages, a larger size is tried again: the first time, and at most.
const TRIAL_AFTER: (u32, u32) = (100, 6_400);

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

/// The page size in use: smaller where the tenant requires it, and larger again after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageSize {
    size: usize,
    /// The complete lists with this size.
    complete: u32,
    /// After how many of them a larger size is tried.
    trial_after: u32,
}

impl PageSize {
    const LARGEST: Self = Self { size: SIZE, complete: 0, trial_after: TRIAL_AFTER.0 };

    /// Applies that a page of the present size was refused or too large. If that happens again after a larger size was
    /// tried, the next try is later.
    fn shrink(&mut self, smaller: usize) {
        let was_tried = self.complete == 0 && self.size < SIZE;
        let trial_after =
            if was_tried { self.trial_after.saturating_mul(2).min(TRIAL_AFTER.1) } else { self.trial_after };
        *self = Self { size: smaller, complete: 0, trial_after };
    }

    /// Applies a complete list.
    fn complete(&mut self) {
        self.complete = self.complete.saturating_add(1);
        if self.size < SIZE && self.complete >= self.trial_after {
            *self = Self { size: (self.size * 2).min(SIZE), complete: 0, trial_after: self.trial_after };
        }
    }
}

/// Lists the changed jobs of a tenant.
#[derive(Debug)]
pub(super) struct ChangeLists {
    single: Arc<SingleReads>,
    size: Mutex<PageSize>,
}

impl ChangeLists {
    pub(super) const fn new(single: Arc<SingleReads>) -> Self {
        Self { single, size: Mutex::new(PageSize::LARGEST) }
    }

    /// Lists the jobs that changed at this time or later. A page that is refused or too large is requested again with a
    /// smaller size, which is then kept for a time.
    pub(super) async fn changes(&self, since: Timestamp) -> JobListing {
        let mut calls = 0;
        loop {
            let size = self.size().size;
            let mut too_large = false;
            let listing = self.read(since, size, &mut calls, &mut too_large).await;
            let smaller = match &listing.outcome {
                Err(ListError::Refused(400 | 413 | 422)) if size > SMALLER => SMALLER,
                Err(ListError::Fetch(_)) if too_large && size > SMALLEST => (size / 2).max(SMALLEST),
                Ok(_) => {
                    self.size().complete();
                    return listing;
                }
                Err(_) => return listing,
            };
            self.size().shrink(smaller);
        }
    }

    fn size(&self) -> MutexGuard<'_, PageSize> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
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
            used += page.content.len() as u64;
            let too_many = page.total_elements.is_some_and(|all| all > JOBS) || used > JOBS;
            if too_many || page.total_pages.is_some_and(|pages| pages > PAGES as u64) {
                return ends(date, Err(ListError::TooLong));
            }
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
            | StatusCode::METHOD_NOT_ALLOWED) => ReplyVerdict::Refused(ListAnswer::Refused(status)),
            status
            @ (StatusCode::GONE | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
                if is_own_error(status, &reply.body) =>
            {
                ReplyVerdict::Refused(ListAnswer::Refused(status))
            }
            _ => self.single.judge_error(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_grows_again_and_less_often_each_time_it_was_too_large() {
        let mut size = PageSize::LARGEST;
        size.shrink(100);
        let mut lists = Vec::new();
        for _ in 0..9 {
            let mut count = 0;
            while size.size == 100 {
                size.complete();
                count += 1;
            }
            lists.push(count);
            assert_eq!(size.size, 200);
            size.shrink(100);
        }
        assert_eq!(lists, [100, 200, 400, 800, 1_600, 3_200, 6_400, 6_400, 6_400]);
        (0..20_000).for_each(|_| size.complete());
        assert_eq!(size.size, SIZE, "where it is not too large any more");
    }
}
