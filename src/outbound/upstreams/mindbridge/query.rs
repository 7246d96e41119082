//! Many jobs by one request: the query endpoint, its pages, and what is made of ids that are not on them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::problem::is_own_error;
use super::split::Failed;
use super::wire::{AsyncResult, Page};
use super::{MindBridge, bad_answer};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::source::Upstream;
use crate::outbound::http::{Query, Reply};
use crate::outbound::source::{AskError, Told, Verdict};
use crate::outbound::upstreams::wire::{is_same_id, object};
use crate::ports::upstream::{Asker, Look, LookError};

/// How long a query endpoint that was refused is not tried again.
const OFF_FOR: Duration = Duration::from_mins(10);
/// How many refusals in a row switch it off: one may be a slip.
const REFUSALS: u32 = 2;

/// Whether the tenant offers the query endpoint.
#[derive(Debug, Default)]
pub(super) struct QueryEndpoint(Mutex<Refusals>);

#[derive(Debug, Default)]
struct Refusals {
    in_a_row: u32,
    off_since: Option<Instant>,
}

impl QueryEndpoint {
    /// Says whether jobs are read one by one for now.
    pub(super) fn is_off(&self) -> bool {
        let mut refusals = self.lock();
        if refusals.off_since.is_some_and(|since| since.elapsed() >= OFF_FOR) {
            refusals.off_since = None;
        }
        refusals.off_since.is_some()
    }

    fn answered(&self) {
        self.lock().in_a_row = 0;
    }

    /// Notes a refusal in MindBridge's own words. The second in a row switches the endpoint off, and is logged.
    fn refused(&self, source: &SourceName, status: StatusCode) {
        let mut refusals = self.lock();
        refusals.in_a_row = refusals.in_a_row.saturating_add(1);
        let off = refusals.in_a_row >= REFUSALS && refusals.off_since.replace(Instant::now()).is_none();
        let news = off && refusals.in_a_row == REFUSALS;
        drop(refusals);
        if news {
            tracing::warn!(
                %source,
                status = status.as_u16(),
                "the source refuses the query endpoint; jobs are read one by one"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking for one page.
enum Paged {
    Page(Page),
    Refused(StatusCode),
}

impl MindBridge {
    /// Looks at several different ids, page after page.
    ///
    /// Settles every id that is on a page, and gives back those that are left where a page cannot be had. An id that is
    /// on no page is in neither: the caller confirms it. Where the endpoint is refused, nor is the rest.
    pub(super) async fn query<'a>(
        &self,
        ids: &[&'a ExternalId],
        asker: &Asker,
        deadline: Instant,
    ) -> (HashMap<ExternalId, Look>, Option<Failed<'a>>) {
        let mut open: HashMap<&str, &ExternalId> = ids.iter().map(|id| (id.as_str(), *id)).collect();
        let mut looks = HashMap::with_capacity(ids.len());
        let mut used = 0;
        // every page must bring something new, so there are at most as many pages as ids
        for number in 0..ids.len() {
            let (told, splits) = self.page(ids, number, asker, deadline).await;
            let (asked_at, observed_at) = (told.asked_at, told.observed_at);
            let page = match told.outcome.map_err(LookError::from) {
                Ok(Paged::Page(page)) => {
                    self.query_endpoint.answered();
                    page
                }
                Ok(Paged::Refused(status)) => {
                    self.query_endpoint.refused(&self.source.settings.name, status);
                    break;
                }
                Err(error) => {
                    let ids = ids.iter().copied().filter(|id| open.contains_key(id.as_str())).collect();
                    let look = Look { asked_at, observed_at, outcome: Err(error) };
                    return (looks, Some(Failed { ids, look, splits }));
                }
            };
            used += page.content.len() as u64;
            let before = open.len();
            let more = goes_on(&page, number, used);
            for wire in page.content {
                if let Some(id) = known(&wire, &mut open) {
                    let outcome = if wire.is_one() {
                        self.job(id, wire)
                    } else {
                        Err(bad_answer("an item of the page is not an async result: it has no status"))
                    };
                    looks.insert(id.clone(), Look { asked_at, observed_at, outcome });
                }
            }
            if open.is_empty() || open.len() == before || !more {
                break;
            }
        }
        (looks, None)
    }

    /// Asks for one page. Says besides whether one of the jobs may be the reason that it cannot be read.
    async fn page(
        &self,
        ids: &[&ExternalId],
        number: usize,
        asker: &Asker,
        deadline: Instant,
    ) -> (Told<Paged>, bool) {
        let mut call = self.call(Method::POST, vec!["query".to_owned()]);
        let size = Upstream::MindBridge.ids_a_request();
        call.query = Query::Pairs(vec![("page", number.to_string()), ("size", size.to_string())]);
        call.body = Some(json!({ "id": { "$in": ids.iter().map(|id| id.as_str()).collect::<Vec<_>>() } }));
        let splits = AtomicBool::new(false);
        let judge = |reply: &Reply| {
            splits.store(may_be_one_job(reply), Ordering::Relaxed);
            self.judge_page(reply)
        };
        let told = self.source.ask(asker, &call, deadline, judge).await;
        let splits = match &told.outcome {
            Err(AskError::TooLarge { .. }) => true,
            Err(AskError::Look(LookError::BadAnswer(_))) => splits.into_inner(),
            Ok(_) | Err(AskError::Look(_)) => false,
        };
        (told, splits)
    }

    fn judge_page(&self, reply: &Reply) -> Verdict<Paged> {
        match reply.status {
            status if status.is_success() => Verdict::Spoke(
                object(&reply.body)
                    .map(Paged::Page)
                    .ok_or_else(|| bad_answer("the body is not a page of async results")),
            ),
            // anybody on the way may answer so: only MindBridge itself can refuse its endpoint
            status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
                if is_own_error(status, &reply.body) =>
            {
                Verdict::Spoke(Ok(Paged::Refused(status)))
            }
            _ => self.judge_error(reply),
        }
    }
}

/// Says whether an answer that cannot be read may be so because of one of the jobs it is about. A page of a proxy and a
/// redirect are not, and every part of the batch would bring the same.
fn may_be_one_job(reply: &Reply) -> bool {
    match reply.status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => true,
        status => status.is_success() && reply.body.trim_ascii_start().starts_with(b"{"),
    }
}

/// Says whether there is a page after this one, by the reply's own numbers; without any, as long as pages bring news.
fn goes_on(page: &Page, number: usize, used: u64) -> bool {
    match (page.total_pages, page.total_elements) {
        (None, None) => true,
        (pages, elements) => {
            pages.is_some_and(|pages| number as u64 + 1 < pages) || elements.is_some_and(|all| used < all)
        }
    }
}

/// The id that an item of a page is about, if it is one of those still open. An item without an id is of no use.
fn known<'a>(wire: &AsyncResult, open: &mut HashMap<&str, &'a ExternalId>) -> Option<&'a ExternalId> {
    let told = wire.id.as_deref()?;
    open.remove(told).or_else(|| {
        let mut same = open.keys().filter(|asked| is_same_id(told, asked)).copied();
        // two that differ in case alone cannot be told apart by an answer in a third spelling
        let only = same.next().filter(|_| same.next().is_none())?;
        open.remove(only)
    })
}
