//! Many jobs by one request: the query endpoint, its pages, and the handling of ids that are not on them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::problem::is_own_error;
use super::single::SingleReads;
use super::wire::{AsyncResult, ResultPage};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::upstream::Upstream;
use crate::outbound::http::{CallQuery, UpstreamReply, UrlSegment};
use crate::outbound::upstreams::bad_answer::bad_answer;
use crate::outbound::upstreams::client::{CallError, RETRIES, ReplyVerdict, Response};
use crate::outbound::upstreams::wire::{is_same_id, object};
use crate::ports::upstream::{Fetch, FetchError, FetchTrigger};

/// How long a refused query endpoint is not tried again.
const OFF_FOR: Duration = Duration::from_mins(10);
/// How many consecutive refusals switch it off: a single one may be an accident. The same number of refusals by a proxy
/// does, while single reads succeed.
const REFUSALS: u32 = 2;

/// Whether the tenant offers the query endpoint.
#[derive(Debug, Default)]
struct QueryEndpoint(Mutex<EndpointRefusals>);

#[derive(Debug, Default)]
struct EndpointRefusals {
    /// Refusals by MindBridge itself.
    own: InARow,
    /// Refusals by a proxy on the way.
    foreign: InARow,
    off_since: Option<Instant>,
}

/// Consecutive refusals, with no page in between.
#[derive(Debug, Default)]
struct InARow {
    count: u32,
    recorded_at: Option<Instant>,
}

impl InARow {
    /// Counts the refusal of a query that began at this time. Concurrent queries count once.
    fn add(&mut self, began: Instant) {
        if self.recorded_at.is_none_or(|recorded| began >= recorded) {
            self.count = self.count.saturating_add(1);
            self.recorded_at = Some(Instant::now());
        }
    }
}

impl QueryEndpoint {
    /// Returns whether jobs are currently read one by one.
    fn is_off(&self) -> bool {
        let mut refusals = self.lock();
        if refusals.off_since.is_some_and(|since| since.elapsed() >= OFF_FOR) {
            refusals.off_since = None;
        }
        refusals.off_since.is_some()
    }

    fn answered(&self) {
        let mut refusals = self.lock();
        (refusals.own, refusals.foreign) = (InARow::default(), InARow::default());
    }

    /// Records a refusal by MindBridge itself. The second in a row switches the endpoint off, and is logged.
    fn refused(&self, source: &SourceName, status: StatusCode, began: Instant) {
        let mut refusals = self.lock();
        refusals.own.add(began);
        let off = refusals.own.count >= REFUSALS && refusals.off_since.replace(Instant::now()).is_none();
        let is_new = off && refusals.own.count == REFUSALS;
        drop(refusals);
        if is_new {
            tracing::warn!(
                %source,
                status = status.as_u16(),
                "source rejected the query endpoint; jobs are fetched one by one"
            );
        }
    }

    /// Records a refusal that does not come from MindBridge. Returns whether there were enough in a row.
    fn refused_by_another(&self, began: Instant) -> bool {
        let mut refusals = self.lock();
        refusals.foreign.add(began);
        refusals.foreign.count >= REFUSALS
    }

    /// Switches the endpoint off, because a proxy refuses it and single reads succeed.
    fn switch_off(&self, source: &SourceName) {
        let mut refusals = self.lock();
        let is_new =
            refusals.off_since.replace(Instant::now()).is_none() && refusals.foreign.count == REFUSALS;
        drop(refusals);
        if is_new {
            tracing::warn!(
                %source,
                "proxy rejects the query endpoint; jobs are fetched one by one"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, EndpointRefusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The possible reason why a batch has no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitCause {
    /// One of the jobs.
    OneJob,
    /// One of the jobs, or an outage: the source did not answer, or with a server error.
    Sick,
    /// The same, and the deadline has passed.
    TimedOut,
    /// A proxy that refuses the query endpoint.
    Foreign,
    /// The source, which answers no other batch either.
    Source,
}

/// Why a batch has no page.
#[derive(Debug)]
pub(super) struct BatchFailure<'a> {
    /// The ids without a result.
    pub(super) ids: Vec<&'a ExternalId>,
    /// Their result so far.
    pub(super) fetch: Fetch,
    pub(super) cause: SplitCause,
}

/// The outcome of a request for one page.
enum PageOutcome {
    Page(ResultPage),
    Refused(StatusCode),
}

/// Queries many jobs of a tenant.
#[derive(Debug)]
pub(super) struct BatchQueries {
    single: Arc<SingleReads>,
    endpoint: QueryEndpoint,
}

impl BatchQueries {
    pub(super) fn new(single: Arc<SingleReads>) -> Self {
        Self { single, endpoint: QueryEndpoint::default() }
    }

    /// Returns whether jobs are currently read one by one.
    pub(super) fn is_off(&self) -> bool {
        self.endpoint.is_off()
    }

    /// Fetches several different ids, page after page.
    ///
    /// Completes every id that is on a page, and returns those that are left if a page is unavailable. An id that is on
    /// no page is in neither: the caller confirms it. If the endpoint is refused, the rest is in neither too.
    ///
    /// While it `isolates` the defective job of a batch, on a source that is known to answer, a server error is a
    /// result for these ids: it is not retried, and does not count as a failure of the source.
    pub(super) async fn query<'a>(
        &self,
        ids: &[&'a ExternalId],
        trigger: &FetchTrigger,
        deadline: Instant,
        isolates: bool,
    ) -> (HashMap<ExternalId, Fetch>, Option<BatchFailure<'a>>) {
        let began = Instant::now();
        let mut open: HashMap<&str, &ExternalId> = ids.iter().map(|id| (id.as_str(), *id)).collect();
        let mut fetches = HashMap::with_capacity(ids.len());
        let mut used = 0;
        // every page must contain a new id, so there are at most as many pages as ids
        for number in 0..ids.len() {
            let (response, cause) = self.page(ids, number, trigger, deadline, isolates).await;
            let (requested_at, observed_at) = (response.requested_at, response.observed_at);
            let page = match response.outcome.map_err(FetchError::from) {
                Ok(PageOutcome::Page(page)) => {
                    self.endpoint.answered();
                    page
                }
                Ok(PageOutcome::Refused(status)) => {
                    self.endpoint.refused(self.single.name(), status, began);
                    break;
                }
                Err(_)
                    if cause == SplitCause::Foreign
                        && self.endpoint.refused_by_another(began)
                        && self.single.answers(trigger, deadline).await =>
                {
                    self.endpoint.switch_off(self.single.name());
                    break;
                }
                Err(error) => {
                    let ids = ids.iter().copied().filter(|id| open.contains_key(id.as_str())).collect();
                    let fetch = Fetch { requested_at, observed_at, outcome: Err(error) };
                    return (fetches, Some(BatchFailure { ids, fetch, cause }));
                }
            };
            used += page.content.len() as u64;
            let before = open.len();
            let more = goes_on(&page, number, used);
            for wire in page.content {
                if let Some(id) = known(&wire, &mut open) {
                    let outcome = if wire.is_one() {
                        self.single.job(id, wire)
                    } else {
                        Err(bad_answer("an item of the page is not an async result: it has no status"))
                    };
                    fetches.insert(id.clone(), Fetch { requested_at, observed_at, outcome });
                }
            }
            if open.is_empty() || open.len() == before || !more {
                break;
            }
        }
        (fetches, None)
    }

    /// Requests one page. Also returns the possible reason why it cannot be read.
    async fn page(
        &self,
        ids: &[&ExternalId],
        number: usize,
        trigger: &FetchTrigger,
        deadline: Instant,
        isolates: bool,
    ) -> (Response<PageOutcome>, SplitCause) {
        let mut call = self.single.call(Method::POST, UrlSegment::Constant("query"));
        let size = Upstream::MindBridge.profile().ids_a_request;
        call.query = CallQuery::Pairs(vec![("page", number.to_string()), ("size", size.to_string())]);
        call.body = Some(json!({ "id": { "$in": ids.iter().map(|id| id.as_str()).collect::<Vec<_>>() } }));
        let (splits, foreign) = (AtomicBool::new(false), AtomicBool::new(false));
        let classify = |reply: &UpstreamReply| {
            let may_be_one_job = may_be_one_job(reply);
            let verdict = match self.judge_page(reply) {
                ReplyVerdict::Sick(detail)
                    if isolates && reply.retry_after(self.single.source.now()).is_none() =>
                {
                    ReplyVerdict::Spoke(Err(FetchError::Unavailable(detail)))
                }
                verdict @ (ReplyVerdict::Spoke(_)
                | ReplyVerdict::Refused(_)
                | ReplyVerdict::Rejected
                | ReplyVerdict::Throttled(_)
                | ReplyVerdict::Sick(_)) => verdict,
            };
            splits.store(may_be_one_job, Ordering::Relaxed);
            let refused = matches!(
                verdict,
                ReplyVerdict::Spoke(Err(FetchError::BadAnswer(_) | FetchError::CredentialRejected))
            );
            let own = is_own_error(reply.status, &reply.body);
            foreign.store(refused && !may_be_one_job && !own, Ordering::Relaxed);
            verdict
        };
        let retries = if isolates { 0 } else { RETRIES };
        let response =
            self.single.source.call_with_retries(trigger, &call, deadline, retries, classify).await;
        let cause = match &response.outcome {
            Err(CallError::TooLarge { .. }) => SplitCause::OneJob,
            Err(CallError::Fetch(FetchError::BadAnswer(_))) if splits.load(Ordering::Relaxed) => {
                SplitCause::OneJob
            }
            Err(CallError::Fetch(FetchError::BadAnswer(_) | FetchError::CredentialRejected))
                if foreign.load(Ordering::Relaxed) =>
            {
                SplitCause::Foreign
            }
            Err(CallError::Fetch(FetchError::Unavailable(_))) => SplitCause::Sick,
            Err(CallError::Fetch(FetchError::TimedOut)) => SplitCause::TimedOut,
            Ok(_) | Err(CallError::Fetch(_)) => SplitCause::Source,
        };
        (response, cause)
    }

    fn judge_page(&self, reply: &UpstreamReply) -> ReplyVerdict<PageOutcome> {
        match reply.status {
            status if status.is_success() => ReplyVerdict::Spoke(
                object(&reply.body)
                    .map(PageOutcome::Page)
                    .ok_or_else(|| bad_answer("the body is not a page of async results")),
            ),
            // any intermediary may send this: only MindBridge itself can refuse its endpoint
            status @ (StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE)
                if is_own_error(status, &reply.body) =>
            {
                ReplyVerdict::Spoke(Ok(PageOutcome::Refused(status)))
            }
            _ => self.single.judge_error(reply),
        }
    }
}

/// Returns whether a response may be unreadable because of one of its jobs. A page of a proxy and a redirect are not:
/// every part of the batch would get the same.
fn may_be_one_job(reply: &UpstreamReply) -> bool {
    match reply.status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => true,
        status => status.is_success() && reply.body.trim_ascii_start().starts_with(b"{"),
    }
}

/// Returns whether there is a page after this one, by the reply's own numbers; without any, as long as pages contain
/// new ids.
pub(super) fn goes_on(page: &ResultPage, number: usize, used: u64) -> bool {
    match (page.total_pages, page.total_elements) {
        (None, None) => true,
        (pages, elements) => {
            pages.is_some_and(|pages| number as u64 + 1 < pages) || elements.is_some_and(|all| used < all)
        }
    }
}

/// The id of an item of a page, if it is one of the open ids. An item without an id is ignored.
fn known<'a>(wire: &AsyncResult, open: &mut HashMap<&str, &'a ExternalId>) -> Option<&'a ExternalId> {
    let response = wire.id.text.as_deref()?;
    open.remove(response).or_else(|| {
        let mut same = open.keys().filter(|requested| is_same_id(response, requested)).copied();
        // two ids that differ in case only cannot be distinguished by a response in a third spelling
        let only = same.next().filter(|_| same.next().is_none())?;
        open.remove(only)
    })
}
