//! The Supermetrics half of a scenario: the account, its queries, their rows and their scripts.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as period;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use super::SimList;
use crate::progress::Family;

/// A simulated Supermetrics account.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupermetricsAccount {
    /// The only key accepted, as a bearer token or as the `api_key` parameter.
    #[serde(deserialize_with = "super::secret")]
    pub api_key: SecretString,
    /// The queries.
    pub jobs: Vec<SupermetricsJob>,
    /// The latency of every answer.
    #[serde(with = "period::required")]
    pub latency: Duration,
    /// The HTTP status of `STATUS_NOT_FOUND`: 404 or 400.
    pub not_found_status: u16,
    /// Treats the offsets 0 and 0 as unset, and so sends the whole result.
    pub zero_offsets_mean_all: bool,
    /// Sends the first rows whatever the requested offsets.
    pub ignores_offsets: bool,
    /// The most rows in one answer; no limit when absent.
    pub rows_per_answer: Option<u64>,
    /// Requests allowed within any one second; 429 beyond.
    pub limit_per_second: Option<u32>,
    /// Requests allowed in an hour: sends `X-RateLimit-*` with every answer, 429 beyond.
    pub hourly_limit: Option<u32>,
    /// How far the upstream's clock is ahead, in dates of bodies and headers; behind, when negative.
    pub clock_skew: SignedDuration,
    /// The anomalies of the list: of the query history.
    pub list: SimList,
}

impl Default for SupermetricsAccount {
    fn default() -> Self {
        Self {
            api_key: SecretString::from("simulated-supermetrics-key"),
            jobs: Vec::new(),
            latency: Duration::ZERO,
            not_found_status: 404,
            zero_offsets_mean_all: false,
            ignores_offsets: false,
            rows_per_answer: None,
            limit_per_second: None,
            hourly_limit: None,
            clock_skew: SignedDuration::ZERO,
            list: SimList::default(),
        }
    }
}

/// One scheduled query and its script.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupermetricsJob {
    /// The `schedule_id`. With `every`, a run of `#` becomes the number of the birth.
    pub id: String,
    /// When the first run begins, counted from the simulator's start.
    #[serde(with = "period::required")]
    pub born: Duration,
    /// Creates another such job after each such period, without end.
    #[serde(with = "period::optional")]
    pub every: Option<Duration>,
    /// Runs the same id again after each such period.
    #[serde(with = "period::optional")]
    pub rerun_every: Option<Duration>,
    /// The total number of runs; unlimited when absent.
    pub runs: Option<u32>,
    /// The data source, in the query history.
    pub ds_id: String,
    /// The application that made the query, in the query history.
    pub app_id: String,
    /// When the query was requested, in the query history; the beginning of each run when absent.
    pub schedule_time: Option<Timestamp>,
    /// How long status and rows can be read after a run ended.
    #[serde(with = "period::required")]
    pub expires_after: Duration,
    /// The rows of a successful run.
    pub rows: SimRows,
    /// The `meta.query` on success.
    pub query: SimQueryMeta,
    /// The `meta.result` on success, without the counts.
    pub result: SimResultMeta,
    /// The script of one run, in order; the first step is at 0s.
    pub steps: Vec<SupermetricsStep>,
}

impl Default for SupermetricsJob {
    fn default() -> Self {
        Self {
            id: String::new(),
            born: Duration::ZERO,
            every: None,
            rerun_every: None,
            runs: None,
            ds_id: "GAWA".to_owned(),
            app_id: "api".to_owned(),
            schedule_time: None,
            expires_after: Duration::from_hours(1),
            rows: SimRows::default(),
            query: SimQueryMeta::default(),
            result: SimResultMeta::default(),
            steps: Vec::new(),
        }
    }
}

impl SupermetricsJob {
    /// A query with the given script: pairs of seconds since birth and status code.
    pub fn new(id: &str, life: &[(u64, &str)]) -> Self {
        let steps = life.iter().map(|(seconds, status)| SupermetricsStep {
            at: Duration::from_secs(*seconds),
            ..SupermetricsStep::new(status)
        });
        Self { id: id.to_owned(), steps: steps.collect(), ..Self::default() }
    }

    pub(crate) fn family(&self) -> Family<'_> {
        Family { pattern: &self.id, born: self.born, every: self.every }
    }

    pub(crate) fn moments(&self) -> Vec<Duration> {
        self.steps.iter().map(|step| step.at).collect()
    }
}

/// One step of a run: from `at` on, the query has these fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupermetricsStep {
    /// When the step begins, counted from the beginning of the run.
    #[serde(with = "period::required")]
    pub at: Duration,
    /// The wire field `meta.status_code`; any word, known or not.
    pub status: String,
    /// The wire field `meta.progress.queries_ready`.
    pub ready: u64,
    /// The wire field `meta.progress.queries_total`; may grow from step to step, may be 0.
    pub total: u64,
    /// The wire field `meta.workflow.tasks_scheduled`: the licence queue's, not this query's.
    pub tasks_scheduled: u64,
    /// The wire field `meta.workflow.tasks_running`.
    pub tasks_running: u64,
    /// Answers with this error object instead of a status: the form of most failures.
    pub error: Option<QueryError>,
}

impl Default for SupermetricsStep {
    fn default() -> Self {
        Self {
            at: Duration::ZERO,
            status: String::new(),
            ready: 0,
            total: 1,
            tasks_scheduled: 0,
            tasks_running: 0,
            error: None,
        }
    }
}

impl SupermetricsStep {
    /// A step with this status code, at the beginning of the run unless `at` is changed.
    pub fn new(status: &str) -> Self {
        let ended_well = status.eq_ignore_ascii_case("SUCCESS");
        Self { status: status.to_owned(), ready: u64::from(ended_well), ..Self::default() }
    }

    /// Whether a run ends with this step, by the vendor's own list.
    pub(crate) fn ends_the_run(&self) -> bool {
        const ENDS: [&str; 4] = ["SUCCESS", "FAILURE", "STOPPED", "PROCESS_EXITED"];
        self.error.is_some() || ENDS.iter().any(|word| self.status.eq_ignore_ascii_case(word))
    }
}

/// The error object of a query that failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryError {
    /// The wire field `error.code`, such as `QUERY_ACCOUNT_UNAVAILABLE`.
    pub code: String,
    /// The wire field `error.message`; repeats the code when absent, as the service does.
    #[serde(default)]
    pub message: Option<String>,
    /// The wire field `error.description`.
    #[serde(default)]
    pub description: Option<String>,
    /// The HTTP status of the answer; the vendor's default is 500.
    #[serde(default = "internal_server_error")]
    pub http_status: u16,
}

const fn internal_server_error() -> u16 {
    500
}

/// The generated result of a query.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimRows {
    /// The number of rows, without the header.
    pub count: u64,
    /// How many of them can be read; all when absent.
    pub readable: Option<u64>,
    /// The columns, in order.
    pub columns: Vec<Column>,
}

impl Default for SimRows {
    fn default() -> Self {
        let column = |id: &str, kind| Column { id: id.to_owned(), name: None, kind };
        let columns = vec![
            column("Date", ColumnKind::Date),
            column("Campaign", ColumnKind::Text),
            column("Clicks", ColumnKind::Integer),
            column("Cost", ColumnKind::Decimal),
        ];
        Self { count: 10, readable: None, columns }
    }
}

/// One column of a result.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The wire field `field_id`.
    pub id: String,
    /// The wire field `field_name` and the header cell; the id when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The kind of its cells.
    pub kind: ColumnKind,
}

/// The kind of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Consecutive days as text.
    Date,
    /// Words.
    Text,
    /// Whole numbers.
    Integer,
    /// Numbers with two decimals.
    Decimal,
    /// True or false.
    Boolean,
    /// Every second cell null, the others text.
    Sparse,
}

/// The `meta.query` of an answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimQueryMeta {
    /// The first requested day.
    pub start_date: String,
    /// The last requested day.
    pub end_date: String,
    /// The data source accounts, each of any form.
    pub ds_accounts: Vec<Value>,
    /// The rows have no header row.
    pub no_headers: bool,
}

impl Default for SimQueryMeta {
    fn default() -> Self {
        Self {
            start_date: "2026-01-01".to_owned(),
            end_date: "2026-01-31".to_owned(),
            ds_accounts: vec!["1234567890".into()],
            no_headers: false,
        }
    }
}

/// The `meta.result` of an answer, without the counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimResultMeta {
    /// How long the query took, in seconds; the length of the scripted run when absent.
    pub run_seconds: Option<f64>,
    /// Whether the data source sampled its data.
    pub data_sampled: bool,
    /// Whether the result came from the vendor's cache.
    pub cache_used: bool,
    /// When that cache was filled.
    pub cache_time: Option<String>,
}
