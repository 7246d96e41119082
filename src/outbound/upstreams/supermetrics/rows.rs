//! Reads the rows of a query, part by part, and verifies that each part is the requested one.
//!
//! Not documented: whether a query can be without a header row, whether offsets are honoured, and how many rows one
//! response contains. So the header is interpreted according to `meta.query.settings`, a part is requested again until
//! it is complete, and before rows from the middle are accepted, the source has to prove once that it returns none
//! behind the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::calls::{AnswerBounds, BEHIND_ALL_ROWS, StatusCalls, check_echo, settle};
use super::classify::{Meaning, is_own_error};
use super::normalize;
use super::wire::{FieldDto, MetaDto, RowsDto};
use crate::domain::id::ExternalId;
use crate::domain::job::Life;
use crate::outbound::http::UpstreamReply;
use crate::outbound::upstreams::bad_answer::bad_answer;
use crate::outbound::upstreams::client::CallError;
use crate::outbound::upstreams::wire::object;
use crate::ports::upstream::{FetchError, FetchTrigger, RowPage, RowRange};

/// The factor by which a part is made smaller if its response is too large.
const SMALLER: u32 = 8;

/// The rows of one response.
struct RowsPart {
    page: RowPage,
    /// Whether the response itself proves that these are the requested rows.
    is_sure: bool,
}

/// Reads the rows of the queries of an account.
#[derive(Debug)]
pub(super) struct RowReads {
    calls: Arc<StatusCalls>,
    /// The source returned no rows for an offset behind the last one.
    honours_offsets: AtomicBool,
}

impl RowReads {
    pub(super) fn new(calls: Arc<StatusCalls>) -> Self {
        Self { calls, honours_offsets: AtomicBool::new(false) }
    }

    /// Reads rows until all requested ones are there, the last one is, or none come. Never returns more than requested.
    ///
    /// Stops once the parts contain as many bytes as one response may: then the page is short.
    pub(super) async fn read_all(
        &self,
        id: &ExternalId,
        range: RowRange,
        trigger: &FetchTrigger,
    ) -> Result<RowPage, FetchError> {
        let deadline = Instant::now() + self.calls.source.settings().rows_timeout;
        let bounds = AnswerBounds { deadline, max_body: self.calls.source.settings().max_rows_body };
        let mut page = RowPage { header: Vec::new(), rows: Vec::new(), total: None };
        let (mut most, mut gathered) = (range.count, 0);
        loop {
            let got = u32::try_from(page.rows.len()).unwrap_or(u32::MAX);
            let next = range.first.saturating_add(got);
            if got >= range.count || page.total.is_some_and(|total| next >= total) {
                return Ok(page);
            }
            if gathered >= bounds.max_body {
                let text = "the requested rows are larger than cache.rows_max_bytes; request fewer";
                // the total shows that rows are missing
                return if page.total.is_some() { Ok(page) } else { Err(bad_answer(text)) };
            }
            let part = RowRange { first: next, count: most.min(range.count - got) };
            let part = match self.read_part(id, part, trigger, bounds).await {
                Err(CallError::TooLarge { .. }) if most > 1 => {
                    most = (most / SMALLER).max(1);
                    continue;
                }
                read => read?,
            };
            if page.header.is_empty() {
                page.header = part.header;
            }
            page.total = part.total.max(page.total);
            if part.rows.is_empty() {
                return Ok(page);
            }
            gathered += part.rows.iter().flatten().map(|cell| cell.get().len()).sum::<usize>();
            page.rows.extend(part.rows);
        }
    }

    /// Reads as many of the rows as one response contains.
    async fn read_part(
        &self,
        id: &ExternalId,
        range: RowRange,
        trigger: &FetchTrigger,
        bounds: AnswerBounds,
    ) -> Result<RowPage, CallError> {
        let last = range.first.saturating_add(range.count.saturating_sub(1));
        let classify = |reply: &UpstreamReply| {
            self.calls.classify(reply, |meaning| read_rows(id, meaning, range, &reply.body))
        };
        let response =
            self.calls.send_call(id.as_str(), trigger, (range.first, last), bounds, classify).await;
        let RowsPart { page, is_sure } = response.outcome?;
        if is_sure || self.honours_offsets(id, trigger, bounds).await? {
            return Ok(page);
        }
        let text = "the source ignores offset_start and repeats its first rows; only those rows can be read";
        Err(CallError::Fetch(bad_answer(text)))
    }

    /// Returns whether the source honours offsets: if so, it has no rows behind the last. Checked once.
    async fn honours_offsets(
        &self,
        id: &ExternalId,
        trigger: &FetchTrigger,
        bounds: AnswerBounds,
    ) -> Result<bool, CallError> {
        if self.honours_offsets.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let call = self.calls.call(id.as_str(), BEHIND_ALL_ROWS, BEHIND_ALL_ROWS, bounds.max_body);
        let gives_none = |meaning, reply: &UpstreamReply| match meaning {
            // only an API that has read such an offset refuses it; any intermediary may send a page or a redirect
            Meaning::QueryFailed(..) => Ok(true),
            Meaning::Odd(_) if reply.status.is_client_error() && is_own_error(&reply.body) => Ok(true),
            Meaning::Odd(text) => Err(bad_answer(text)),
            meaning @ (Meaning::Status(_)
            | Meaning::Denied(..)
            | Meaning::QueryLimited
            | Meaning::NotFound
            | Meaning::Rejected
            | Meaning::Forbidden
            | Meaning::Limited
            | Meaning::UpstreamError(_)
            | Meaning::Sick(_)) => {
                let range = RowRange { first: 0, count: 1 };
                read_rows(id, meaning, range, &reply.body).map(|part| part.page.rows.is_empty())
            }
        };
        let classify =
            |reply: &UpstreamReply| self.calls.classify(reply, |meaning| gives_none(meaning, reply));
        let honours = match self.calls.source.call(trigger, &call, bounds.deadline, classify).await.outcome {
            Err(CallError::TooLarge { .. }) => false,
            answered => answered?,
        };
        self.honours_offsets.fetch_or(honours, Ordering::Relaxed);
        Ok(honours)
    }
}

fn read_rows(
    id: &ExternalId,
    meaning: Meaning,
    range: RowRange,
    body: &[u8],
) -> Result<RowsPart, FetchError> {
    let (meta, error) = settle(meaning)?;
    check_echo(id, &meta)?;
    let total = meta.result.as_ref().and_then(|result| result.total_rows);
    let total = total.and_then(|total| u32::try_from(total).ok());
    if error.is_some() || normalize::life(meta.status_code.as_deref()) != Life::Succeeded {
        return Err(FetchError::NotFound);
    }
    let read: RowsDto =
        object(body).ok_or_else(|| bad_answer("data is not a list of rows, each a list of cells"))?;
    let mut rows = read.data.unwrap_or_default();
    let header = if has_header(&meta) {
        if rows.is_empty() { Vec::new() } else { rows.remove(0) }
    } else {
        names(&meta, rows.first().map_or(0, Vec::len))
    };
    let came = rows.len();
    let are_all = came > range.count as usize && total.is_some_and(|total| came == total as usize);
    // a response with all rows, whatever was requested, contains these too
    let before = if are_all { range.first as usize } else { 0 };
    let rows = rows.into_iter().skip(before).take(range.count as usize).collect();
    Ok(RowsPart { page: RowPage { header, rows, total }, is_sure: range.first == 0 || came == 0 || are_all })
}

fn has_header(meta: &MetaDto) -> bool {
    let settings = meta.query.as_ref().and_then(|query| query.settings.as_ref());
    settings.and_then(|settings| settings.no_headers) != Some(true)
}

/// The names of the columns from the fields of the query, if there is one for each.
fn names(meta: &MetaDto, columns: usize) -> Vec<Box<RawValue>> {
    let mut fields: Vec<&FieldDto> = meta.query.iter().flat_map(|query| &query.fields).collect();
    fields.sort_by_key(|field| field.data_column);
    let name = |field: &&FieldDto| to_raw_value(field.name.as_ref().or(field.id.as_ref())?).ok();
    let names: Vec<_> = fields.iter().filter_map(name).collect();
    if names.len() == columns { names } else { Vec::new() }
}
