//! Reads the rows of a succeeded job, one page at a time.
//!
//! Rows are read from the upstream in large ranges that are cached for a while. So a client that pages through them
//! causes few requests, and two clients cause no more than one.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use super::answer::LookupError;
use super::cacheability::Freshness;
use super::fetch::{FetchReceiver, LeaderGuard, SingleFlight};
use super::reference::not_found;
use super::sources::Readers;
use super::visibility::Visibility;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::domain::state::JobState;
use crate::ports::rows::{RowCache, RowKey};
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::upstream::{FetchError, FetchTrigger, JobReader, RowPage, RowRange};
use crate::telemetry::trace::TraceContext;

/// Rows read from the upstream at once.
const STRETCH: u32 = 1_000;
/// The retry delay when rows are missing.
const ROWS_AGAIN: Duration = Duration::from_secs(5);
/// The maximum number of rows that Supermetrics returns for one query.
const ROWS_MAX: u32 = 1_000_000;

/// The longest time of a read, longer than all time limits of a source together. A read that never completes is aborted
/// after it.
const READ_MAX: Duration = Duration::from_mins(5);

type RowsFetchResult = Result<Arc<RowPage>, FetchError>;

/// A page of rows.
#[derive(Clone, Debug, Default)]
pub struct RowsPage {
    /// The header row.
    pub header: Cells,
    /// Each row with its cursor.
    pub rows: Vec<(String, Cells)>,
    /// Whether another page exists.
    pub has_next: bool,
    /// Why rows are missing that the upstream reports. The list is not complete: the same page can be read again.
    pub problem: Option<Problem>,
}

/// The cells of one row, shared with other readers: they are copied only into an answer.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// The range that was read; the default has none.
    page: Option<Arc<RowPage>>,
    /// The index of the row; `None` for the header.
    row: Option<usize>,
}

impl Deref for Cells {
    type Target = [Box<RawValue>];

    fn deref(&self) -> &Self::Target {
        let Some(page) = &self.page else { return &[] };
        match self.row {
            None => &page.header,
            Some(row) => page.rows.get(row).map_or(&[], Vec::as_slice),
        }
    }
}

/// Reads the rows that a client requests.
#[derive(Debug)]
pub(super) struct Rows {
    visibility: Arc<Visibility>,
    readers: Arc<Readers>,
    ranges: Arc<RowReader>,
}

impl Rows {
    pub(super) const fn new(
        visibility: Arc<Visibility>,
        readers: Arc<Readers>,
        ranges: Arc<RowReader>,
    ) -> Self {
        Self { visibility, readers, ranges }
    }

    /// Reads at most `first` rows behind the cursor `after` of the finished job that `observation` describes.
    ///
    /// `None` while the job has not succeeded: there are no rows yet. Cancel safe.
    ///
    /// # Errors
    /// `EXPIRED` if the upstream no longer keeps the rows, `INVALID_REF` for a cursor that is not of this gateway, and
    /// any error of the source.
    pub(super) async fn page(
        &self,
        principal: &Principal,
        observation: &Observation,
        first: u32,
        after: Option<&str>,
    ) -> Result<Option<RowsPage>, Problem> {
        let key = &observation.job.key;
        let reader = self.readers.get(&key.source);
        let Some(reader) = reader.filter(|_| self.visibility.may_see(principal, &observation.job)) else {
            return Err(not_found(key));
        };
        if observation.job.state() != JobState::Succeeded {
            return Ok(None);
        }
        let start = after.map_or(Ok(0), read_cursor)?;
        let mut page = RowsPage::default();
        let mut at = start;
        // A page spans two ranges at most, since it is not longer than one.
        loop {
            let stretch = RowRange { first: at - at % STRETCH, count: STRETCH };
            let trigger = FetchTrigger::Client(Arc::clone(principal.shared_name()));
            let read = self.ranges.stretch(&reader, observation, stretch, trigger).await;
            let read = read.map_err(|error| row_problem(&error, key))?;
            let skip = (at - stretch.first) as usize;
            let room = (start + first - at) as usize;
            page.header = Cells { page: Some(Arc::clone(&read)), row: None };
            for row in (0..read.rows.len()).skip(skip).take(room) {
                at += 1;
                page.rows.push((cursor(at), Cells { page: Some(Arc::clone(&read)), row: Some(row) }));
            }
            let ended =
                read.total.map_or(read.rows.len() < STRETCH as usize, |total| at >= total) || at >= ROWS_MAX;
            page.has_next = !ended;
            if ended || at >= start + first {
                return Ok(Some(page));
            }
            if !read.is_whole(stretch) {
                page.problem = Some(incomplete(key, &read, stretch));
                return Ok(Some(page));
            }
        }
    }
}

/// Reads ranges of rows from the upstream, each once at a time, and caches them.
#[derive(Debug)]
pub(super) struct RowReader {
    cache: Arc<dyn RowCache>,
    freshness: Arc<Freshness>,
    spawner: Arc<dyn Spawner>,
    reads: SingleFlight<RowKey, RowsFetchResult>,
}

impl RowReader {
    pub(super) fn new(
        cache: Arc<dyn RowCache>,
        freshness: Arc<Freshness>,
        spawner: Arc<dyn Spawner>,
    ) -> Self {
        Self { cache, freshness, spawner, reads: SingleFlight::default() }
    }

    async fn stretch(
        &self,
        reader: &Arc<dyn JobReader>,
        of: &Observation,
        range: RowRange,
        trigger: FetchTrigger,
    ) -> Result<Arc<RowPage>, LookupError> {
        let key = RowKey { job: of.job.key.clone(), run: of.observed_at, range };
        if let Some(held) = self.cache.get(&key).await {
            return Ok(held);
        }
        let receiver = self.read(reader, of, &key, trigger);
        let received =
            tokio::time::timeout(self.freshness.rules().answer_within, receiver.await_result()).await;
        let result = received.map_err(|_| LookupError::Impatient)?.ok_or(LookupError::Lost)?;
        result.map_err(LookupError::Fetch)
    }

    /// Reads the first rows of a job that has just succeeded, if rows are cached: its upstream deletes them after a
    /// while.
    pub(super) fn read_ahead(&self, reader: &Arc<dyn JobReader>, of: &Observation) {
        if of.job.state() == JobState::Succeeded && self.cache.keeps() {
            let range = RowRange { first: 0, count: STRETCH };
            let key = RowKey { job: of.job.key.clone(), run: of.observed_at, range };
            drop(self.read(reader, of, &key, FetchTrigger::Background));
        }
    }

    /// Reads a range, once for all concurrent callers.
    fn read(
        &self,
        reader: &Arc<dyn JobReader>,
        of: &Observation,
        key: &RowKey,
        trigger: FetchTrigger,
    ) -> FetchReceiver<RowsFetchResult> {
        let (receiver, leader) = self.reads.join(key);
        if let Some(leader) = leader {
            let fetch = fetch(Arc::clone(&self.cache), Arc::clone(reader), of.clone(), leader, trigger);
            let task = async move {
                tokio::time::timeout(READ_MAX, fetch).await.ok();
            };
            self.spawner.spawn(TaskKind::Fetch, TraceContext::here().boxed(task));
        }
        receiver
    }
}

async fn fetch(
    cache: Arc<dyn RowCache>,
    reader: Arc<dyn JobReader>,
    of: Observation,
    leader: LeaderGuard<RowKey, RowsFetchResult>,
    trigger: FetchTrigger,
) {
    let range = leader.key().range;
    let result = match reader.rows(&of.job.key.external_id, range, &trigger).await {
        Ok(page) => {
            let page = RowPage { total: page.total.or_else(|| of.job.details.common().total_rows()), ..page };
            // Missing rows may be available in a moment, so only complete ranges are cached.
            if page.is_whole(range) {
                cache.keep(&of, range, &page);
            }
            Ok(Arc::new(page))
        }
        // Deleted by the upstream: what was cached of this run is all that exists.
        Err(FetchError::NotFound) => cache.kept(&of, range).await.ok_or(FetchError::NotFound),
        Err(error) => Err(error),
    };
    if let Ok(page) = result.as_ref()
        && page.is_whole(range)
    {
        cache.put(leader.key().clone(), Arc::clone(page)).await;
    }
    leader.complete(result);
}

/// The upstream returned fewer rows than it reports. It may not have written all of them yet.
fn incomplete(key: &JobKey, read: &RowPage, range: RowRange) -> Problem {
    let (came, total) = (read.rows.len(), read.total.unwrap_or_default());
    let message = format!(
        "source \"{}\" reports {total} rows but returned only {came} from row {} on; read the same \
            page again later",
        key.source, range.first
    );
    Problem::new(ProblemCode::BadAnswer, Retry::After(ROWS_AGAIN), message)
}

/// A job that is stored as terminal existed: if its rows are not found, they have expired.
fn row_problem(error: &LookupError, key: &JobKey) -> Problem {
    match error {
        LookupError::Fetch(FetchError::NotFound) => Problem::new(
            ProblemCode::Expired,
            Retry::Never,
            format!("source \"{}\" no longer keeps the rows of this job", key.source),
        ),
        LookupError::Fetch(_) | LookupError::Impatient | LookupError::Lost => error.problem(key),
    }
}

fn cursor(rows_before: u32) -> String {
    URL_SAFE_NO_PAD.encode(format!("row1/{rows_before}"))
}

fn read_cursor(text: &str) -> Result<u32, Problem> {
    let plain = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let number =
        plain.as_deref().and_then(|plain| plain.strip_prefix("row1/")).and_then(|text| text.parse().ok());
    number.filter(|rows| *rows <= ROWS_MAX && cursor(*rows) == text).ok_or_else(|| {
        let message = "after is not a cursor of this gateway; pass the endCursor of a page";
        Problem::new(ProblemCode::InvalidRef, Retry::Never, message)
    })
}
