//! Supermetrics' words, as they come over the wire ("Reading one job", "Errors"). No meaning is given here.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::outbound::upstreams::wire::{object, tolerant, tolerant_object, tolerant_objects};

/// Any answer: a status, envelope 1, or problem details (RFC 9457). Every field is optional; `data` is not read here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) meta: Option<Meta>,
    #[serde(deserialize_with = "error")]
    pub(super) error: Option<ErrorBody>,
    /// Of problem details: the HTTP status again.
    #[serde(deserialize_with = "tolerant")]
    pub(super) status: Option<u16>,
    /// Of problem details.
    #[serde(deserialize_with = "tolerant")]
    pub(super) title: Option<String>,
}

/// The `error` object. Its presence alone makes the answer an error.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct ErrorBody {
    #[serde(deserialize_with = "tolerant")]
    pub(super) code: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) message: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) description: Option<String>,
}

/// What a status answer says about the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "tolerant")]
    pub(super) request_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) schedule_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) status_code: Option<String>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) progress: Option<Progress>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) workflow: Option<Workflow>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) query: Option<QueryMeta>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) result: Option<ResultMeta>,
    // `paginate` is left out on purpose: its links may hold an api key
}

/// Sub-queries done and scheduled.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    #[serde(deserialize_with = "tolerant")]
    pub(super) queries_ready: Option<u32>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) queries_total: Option<u32>,
}

/// The licence queue.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Workflow {
    #[serde(deserialize_with = "tolerant")]
    pub(super) tasks_scheduled: Option<i64>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) tasks_running: Option<i64>,
}

/// What was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QueryMeta {
    #[serde(deserialize_with = "tolerant")]
    pub(super) start_date: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) end_date: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) ds_accounts: Option<Vec<Value>>,
    #[serde(deserialize_with = "tolerant_objects")]
    pub(super) fields: Vec<Field>,
}

/// One column.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Field {
    #[serde(rename = "field_id", deserialize_with = "tolerant")]
    pub(super) id: Option<String>,
    #[serde(rename = "field_name", deserialize_with = "tolerant")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) data_type: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) data_column: Option<i64>,
}

/// What came out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResultMeta {
    #[serde(deserialize_with = "tolerant")]
    pub(super) total_rows: Option<i64>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) total_columns: Option<i64>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) run_seconds: Option<f64>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) data_sampled: Option<bool>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) cache_used: Option<bool>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) cache_time: Option<String>,
}

/// The rows of an answer, header first, each cell in the upstream's own bytes. Not tolerant: half a row is none.
#[derive(Debug, Deserialize)]
pub(super) struct Rows {
    #[serde(default)]
    pub(super) data: Option<Vec<Vec<Box<RawValue>>>>,
}

/// Reads `error`: null and false are none, an object is read, and anything else is an error that says nothing more.
fn error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ErrorBody>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(match raw.get() {
        "null" | "false" => None,
        text => Some(object(text.as_bytes()).unwrap_or_default()),
    })
}
