//! The upstream-specific part of a job, in typed form. Every field is optional, because the upstream may omit it.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The upstream-specific part of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Details {
    /// A MindBridge async result.
    MindBridge(Box<MindBridgeDetails>),
    /// A Supermetrics query.
    Supermetrics(Box<SupermetricsDetails>),
}

/// What MindBridge reports beyond the common fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MindBridgeDetails {
    /// The data-integrity version: grows with each save.
    pub version: Option<i64>,
    /// The vendor's name for the kind of job, such as `ANALYSIS_RUN`.
    pub kind: Option<String>,
    /// What the job worked on or produced.
    pub entity: Option<EntityRef>,
    /// The user that started it.
    pub created_by: Option<UserInfo>,
    /// The user that changed it last.
    pub last_modified_by: Option<UserInfo>,
    /// The vendor's `error`, verbatim.
    pub error: Option<String>,
    /// The vendor's `errorMessage`, verbatim.
    pub error_message: Option<String>,
}

/// An entity in MindBridge, by id and type; either may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityRef {
    /// The vendor's id of the entity.
    pub id: Option<String>,
    /// The vendor's name for its type, such as `ANALYSIS_RESULT`.
    #[serde(rename = "type")]
    pub entity_type: Option<String>,
}

/// A user in MindBridge; either field may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The vendor's id of the user.
    pub user_id: Option<String>,
    /// The display name.
    pub user_name: Option<String>,
}

/// What Supermetrics reports beyond the common fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupermetricsDetails {
    /// The id of the HTTP request that returned this response; new each time.
    pub request_id: Option<String>,
    /// The vendor's echo of the query's id.
    pub schedule_id: Option<String>,
    /// The queue of the whole licence, not that of this query.
    pub queue: Option<LicenceQueue>,
    /// The parameters of the query; present after it succeeded.
    pub query: Option<QueryMeta>,
    /// The result; present after it succeeded.
    pub result: Option<QueryResult>,
}

impl SupermetricsDetails {
    /// Whether two responses report the same about the query; see [`super::job::Job::same_report`].
    pub(super) fn same_report(&self, other: &Self) -> bool {
        let Self { request_id: _, queue: _, schedule_id, query, result } = self;
        (schedule_id, query, result) == (&other.schedule_id, &other.query, &other.result)
    }
}

/// Numbers of tasks of the whole licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LicenceQueue {
    /// Waiting tasks.
    pub tasks_scheduled: Option<i64>,
    /// Running tasks.
    pub tasks_running: Option<i64>,
}

/// The parameters of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMeta {
    /// First day, as the vendor writes it.
    pub start_date: Option<String>,
    /// Last day, as the vendor writes it.
    pub end_date: Option<String>,
    /// The data source accounts, each in the vendor's own form.
    pub accounts: Vec<JsonText>,
    /// The requested columns.
    pub fields: Vec<QueryField>,
}

/// One column of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryField {
    /// The vendor's id of the field.
    pub id: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The vendor's data type, such as `string.text.value`.
    pub data_type: Option<String>,
    /// The position of its column in the rows, from 0.
    pub data_column: Option<i64>,
}

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryResult {
    /// Rows without the header.
    pub total_rows: Option<i64>,
    /// Columns.
    pub total_columns: Option<i64>,
    /// How long it ran, in seconds.
    pub run_seconds: Option<f64>,
    /// Whether the data source returned a sample.
    pub data_sampled: Option<bool>,
    /// Whether the vendor used its cache.
    pub cache_used: Option<bool>,
    /// When the vendor's cached data was fetched, if it is in RFC 3339.
    pub cache_time: Option<Timestamp>,
}

/// One JSON value in the upstream's own spelling, without insignificant whitespace: no digit of a number is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// Parses a text as a value; `None` if it is not JSON, or nested more deeply than parsers accept.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Value>(text).ok()?;
        let (mut in_text, mut escaped) = (false, false);
        let is_kept = |c: &char| {
            match c {
                _ if escaped => escaped = false,
                '\\' if in_text => escaped = true,
                '"' => in_text = !in_text,
                ' ' | '\t' | '\n' | '\r' => return in_text,
                _ => {}
            }
            true
        };
        Some(Self(text.chars().filter(is_kept).collect()))
    }

    /// The value as JSON.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// The value as JSON.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
