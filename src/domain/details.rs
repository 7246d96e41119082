//! What only one upstream says about a job, in typed form. Every field is optional: it is the upstream's to give.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// What only one upstream says about a job.
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
    /// The vendor's word for the kind of job, such as `ANALYSIS_RUN`.
    pub kind: Option<String>,
    /// What the job worked on or produced.
    pub entity: Option<EntityRef>,
    /// Who started it.
    pub created_by: Option<UserInfo>,
    /// Who changed it last.
    pub last_modified_by: Option<UserInfo>,
    /// The vendor's `error`, verbatim.
    pub error: Option<String>,
    /// The vendor's `errorMessage`, verbatim.
    pub error_message: Option<String>,
}

/// A thing in MindBridge, by id and type; either may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityRef {
    /// The vendor's id of the entity.
    pub id: Option<String>,
    /// The vendor's word for its type, such as `ANALYSIS_RESULT`.
    #[serde(rename = "type")]
    pub entity_type: Option<String>,
}

/// A person in MindBridge; either field may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The vendor's id of the person.
    pub user_id: Option<String>,
    /// The name shown to people.
    pub user_name: Option<String>,
}

/// What Supermetrics reports beyond the common fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupermetricsDetails {
    /// The id of the HTTP request that brought this answer; new each time.
    pub request_id: Option<String>,
    /// The vendor's echo of the query's id.
    pub schedule_id: Option<String>,
    /// The whole licence's queue, not this query's.
    pub queue: Option<LicenceQueue>,
    /// What the query asked for; given once it succeeded.
    pub query: Option<QueryMeta>,
    /// What came out; given once it succeeded.
    pub result: Option<QueryResult>,
}

impl SupermetricsDetails {
    /// Whether two answers say the same of the query; see [`super::job::Job::says_the_same`].
    pub(super) fn same_report(&self, other: &Self) -> bool {
        let Self { request_id: _, queue: _, schedule_id, query, result } = self;
        (schedule_id, query, result) == (&other.schedule_id, &other.query, &other.result)
    }
}

/// Tasks of the whole licence, in number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LicenceQueue {
    /// Waiting tasks.
    pub tasks_scheduled: Option<i64>,
    /// Running tasks.
    pub tasks_running: Option<i64>,
}

/// What a query asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMeta {
    /// First day, as the vendor writes it.
    pub start_date: Option<String>,
    /// Last day, as the vendor writes it.
    pub end_date: Option<String>,
    /// The data source accounts, each in the vendor's own form.
    pub accounts: Vec<JsonText>,
    /// The columns asked for.
    pub fields: Vec<QueryField>,
}

/// One column of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryField {
    /// The vendor's id of the field.
    pub id: Option<String>,
    /// Its name for people.
    pub name: Option<String>,
    /// The vendor's data type, such as `string.text.value`.
    pub data_type: Option<String>,
    /// The position of its column in the rows, from 0.
    pub data_column: Option<i64>,
}

/// What came out of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryResult {
    /// Rows without the header.
    pub total_rows: Option<i64>,
    /// Columns.
    pub total_columns: Option<i64>,
    /// How long it ran, in seconds.
    pub run_seconds: Option<f64>,
    /// Whether the data source answered with a sample.
    pub data_sampled: Option<bool>,
    /// Whether the vendor answered from its cache.
    pub cache_used: Option<bool>,
    /// When the vendor's cached data was fetched, where it says so in RFC 3339.
    pub cache_time: Option<Timestamp>,
}

/// One JSON value in the upstream's own spelling, without the blanks around and inside it: no digit of a number is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// Takes a text as a value; `None` for one that is no JSON, or nested deeper than readers go.
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
